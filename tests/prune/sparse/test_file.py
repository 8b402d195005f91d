import copy

import pytest
import torch
from safetensors import safe_open
from torch import nn

from smallnets.prune.sparse import (
    Masked,
    bitmap_bytes,
    load_sparse,
    magnitude_masks,
    prunable_weights,
    save_sparse,
    stored_bytes,
)


def without_header(path):
    with path.open("rb") as file:
        return path.stat().st_size - 8 - int.from_bytes(file.read(8), "little")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_file_is_as_large_as_counted_and_is_read_back(network, tmp_path, dtype):
    masked = Masked(network, magnitude_masks(network, 0.9)).to(dtype)
    other = copy.deepcopy(network)
    for parameter in other.parameters():
        nn.init.ones_(parameter)
    path = tmp_path / "small.safetensors"
    assert save_sparse(masked, path) == path.stat().st_size
    plain = masked.plain()
    bits = torch.finfo(dtype).bits
    assert without_header(path) == stored_bytes(plain, "bitmap", bits)
    assert load_sparse(path, other) is other
    for name, value in plain.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name
    assert save_sparse(other, path) == path.stat().st_size


def test_a_dense_network_is_stored_as_it_is(network, tmp_path):
    path = tmp_path / "dense.safetensors"
    save_sparse(network, path)
    with safe_open(path, "pt") as file:
        assert set(file.keys()) == network.state_dict().keys()
    assert without_header(path) == stored_bytes(network, "dense")


def test_only_named_layers_have_bitmaps(network, tmp_path):
    plain = Masked(network, magnitude_masks(network, 0.9)).plain()
    path = tmp_path / "part.safetensors"
    save_sparse(plain, path, ["conv1"])
    assert without_header(path) == stored_bytes(plain, layers=["conv1"])
    loaded = load_sparse(path, copy.deepcopy(network))
    for name, weight in prunable_weights(plain).items():
        assert torch.equal(loaded.get_parameter(name), weight)
    assert bitmap_bytes(plain.conv1.weight) < plain.conv1.weight.numel() * 4


def test_bad_files(network, tmp_path):
    path = tmp_path / "small.safetensors"
    save_sparse(Masked(network, magnitude_masks(network, 0.9)), path)
    with pytest.raises(ValueError, match=r"same weights; only the network has '0\.bias'$"):
        load_sparse(path, nn.Sequential(nn.Linear(2, 2)))
    network.conv1 = nn.Conv2d(6, 4, 3)
    with pytest.raises(ValueError, match=r"'conv1\.weight' must have shape \(4, 6, 3, 3\)"):
        load_sparse(path, network)
    path.write_bytes(b"no")
    with pytest.raises(ValueError, match=r"^small\.safetensors must be a safetensors file[^\n]*$"):
        load_sparse(path, network)
    with pytest.raises(ValueError, match=r"none cannot be read \([^\n]*\)$"):
        load_sparse(tmp_path / "none", network)
    with pytest.raises(ValueError, match=r"small\.safetensors.x cannot be written \([^\n]*\)$"):
        save_sparse(network, path / "x")
