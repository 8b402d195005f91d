"""Quantised networks as files of packed codes."""

import pytest
import torch
from torch import nn

from smallnets.quantize import modules as q
from smallnets.training import seeded

X = torch.rand(6, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def model():
    with seeded(0):
        return nn.Sequential(
            nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.Flatten(),
            nn.Linear(128, 7),
        ).eval()  # fmt: skip


def quantized(name, skip=()):
    bits = None if name in ("binary", "bwn", "xnor", "twn", "ttq") else 3
    made = q.quantize_model(model(), name, "lsq", weight_bits=bits, activation_bits=5, skip=skip)
    return q.calibrate(made.eval(), X)


@pytest.mark.parametrize("name", q.WEIGHTS)
def test_what_is_read_computes_the_same_from_fewer_bytes(name, tmp_path):
    network = quantized(name)
    if name == "incremental":
        q.incrementally(network, lambda one: None)
    size = q.save_quantized(network, tmp_path / "net.safetensors")
    assert size == (tmp_path / "net.safetensors").stat().st_size
    bits = next(iter(q.widths(network).values()))[0]
    assert size < (432 + 4608 + 896) * bits / 8 + 6500  # names, steps, norms
    with seeded(1):
        other = model()
        nn.init.normal_(other[3].weight)
    kinds = {"weight_bits": None if bits < 3 else 3, "activation_bits": 5}
    fresh = q.quantize_model(other, name, "lsq", skip=(), **kinds)
    read = q.load_quantized(tmp_path / "net.safetensors", fresh).eval()
    torch.testing.assert_close(read(X), network(X).detach(), rtol=1e-5, atol=1e-6)
    for layer, codes in q.weight_codes(read).items():
        assert torch.equal(codes.codes, q.weight_codes(network)[layer].codes)
    torch.testing.assert_close(q.as_plain(read)(X), read(X))
    again = q.save_quantized(read, tmp_path / "again.safetensors")
    assert again == size
    read.train()(X).sum().backward()
    assert read[3].weight.grad is None


def test_files_that_do_not_fit(tmp_path):
    path = tmp_path / "net.safetensors"
    q.save_quantized(quantized("symmetric"), path)
    cases = [
        (path, model(), "must hold quantised layers, as quantize_model makes them"),
        (path, quantized("symmetric", ("first",)), r"'0' with a weight \(16, 3, 3, 3\) is not"),
        (tmp_path / "none", quantized("symmetric"), "is no file of a quantised network"),
    ]
    other = quantized("symmetric")
    other[1] = nn.Identity()
    cases.append((path, other, r"of the file; 1.bias is in one of them alone"))
    other = quantized("symmetric")
    other[1] = nn.BatchNorm2d(5)
    cases.append((path, other, r"of the file; .*size mismatch for 1.weight"))
    (tmp_path / "text").write_text("no")
    cases.append((tmp_path / "text", quantized("symmetric"), "is no file of a quantised network"))
    for given, network, message in cases:
        with pytest.raises(ValueError, match=message) as error:
            q.load_quantized(given, network)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="cannot be written"):
        q.save_quantized(quantized("symmetric"), path / "below")
    partly = quantized("incremental")
    with pytest.raises(ValueError, match=r"layer '0': all weights must be fixed to have codes"):
        q.save_quantized(partly, path)
