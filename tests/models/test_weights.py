"""Weights from files: those of a network, whatever stands in front of their names, or one line."""

import argparse

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from smallnets.models import convnet, read_weights


@pytest.fixture
def weights():
    torch.manual_seed(0)
    return convnet(4, 5, 3).state_dict()


@pytest.fixture
def save(tmp_path):
    def write(content):
        torch.save(content, tmp_path / "teacher.pt")
        return tmp_path / "teacher.pt"

    return write


def front(name, weights):
    return {f"{name}.{key}": value for key, value in weights.items()}


PACKINGS = {
    "plain": lambda w: w,
    "data parallel": lambda w: front("module", w),
    "compiled": lambda w: front("_orig_mod", w),
    "both": lambda w: front("module._orig_mod", w),
    "a task's": lambda w: {"state_dict": front("model", w), "epoch": 3},
    "packed": lambda w: {"state_dict": front("module", w), "epoch": 3, "lr": 0.1},
    "model": lambda w: {"model": w, "model_ema": w},
    "of other numbers": lambda w: {name: one.double() for name, one in w.items()},
}


@pytest.mark.parametrize("kind", PACKINGS)
def test_weights_are_found_however_they_are_packed(kind, weights, save):
    network = read_weights(convnet(4, 5, 3), save(PACKINGS[kind](weights)))
    assert not network.training
    for name, value in network.state_dict().items():
        assert torch.equal(value, weights[name])


def test_a_wrapped_network_takes_plain_weights(weights, save):
    wrapped = nn.DataParallel(convnet(4, 5, 3))
    assert torch.equal(
        read_weights(wrapped, save(weights)).module.classifier.weight, weights["classifier.weight"]
    )


def test_a_network_with_a_part_called_module_is_read(save):
    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            self.module, self.other = nn.Linear(2, 2), nn.Linear(2, 2)
            self.weight, self.bias = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))

    given = Holder()
    read = read_weights(Holder(), save(given.state_dict()))
    assert torch.equal(read.module.weight, given.module.weight)
    assert torch.equal(read.weight, given.weight)


def test_safetensors_are_read(weights, tmp_path):
    save_file(weights, tmp_path / "teacher.safetensors")
    network = read_weights(convnet(4, 5, 3), str(tmp_path / "teacher.safetensors"))
    assert torch.equal(network.classifier.weight, weights["classifier.weight"])


class Trap:
    def __reduce__(self):
        return (exec, ("raise SystemExit('an object was made from a file')",))


WRONG = {
    "missing": (
        lambda w: {n: t for n, t in w.items() if n != "classifier.bias"},
        "the weight classifier.bias is missing from it",
    ),
    "too many": (
        lambda w: w | {"extra.weight": torch.ones(1)},
        "the weight extra.weight is too many in it",
    ),
    "other shape": (
        lambda w: w | {"classifier.bias": torch.ones(7)},
        r"the weight classifier.bias must have shape \(5,\), got \(7,\)",
    ),
    "arguments": (
        lambda w: {"model": w, "args": argparse.Namespace(lr=0.1)},
        "it holds argparse.Namespace: save the network's state_dict",
    ),
    "trap": (lambda w: {"model": w, "args": Trap()}, "it holds exec: save the network's"),
    "a network": (lambda w: convnet(4, 5, 3), "it holds smallnets.*: save the network's"),
    "two": (lambda w: {"model": w, "state_dict": w}, "it holds model, state_dict, where weights"),
    "no names": (lambda w: list(w.values()), "it holds no weights by name but a list"),
    "nothing": (lambda w: {}, "it holds nothing, where weights must be"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_does_not_fit_is_one_line_and_changes_nothing(kind, weights, save):
    make, message = WRONG[kind]
    network = convnet(4, 5, 3)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(ValueError, match=message) as error:
        read_weights(network, save(make(weights)))
    assert str(error.value).startswith("teacher.pt must hold the network's weights; ")
    assert "\n" not in str(error.value)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"hello, weights", b"PK\x03\x04", b"\x80\x02."])
def test_damaged_files_are_one_line(tmp_path, suffix, content):
    file = tmp_path / f"teacher{suffix}"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"must hold the network's weights; .*weights") as error:
        read_weights(convnet(4, 5, 3), file)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.pt"):
        read_weights(convnet(4, 5, 3), tmp_path / "none.pt")
    with pytest.raises(FileNotFoundError, match=r"none\.safetensors"):
        read_weights(convnet(4, 5, 3), tmp_path / "none.safetensors")


def test_the_old_name_says_where_it_went(weights, save):
    from smallnets.search.lana.networks import read_weights as old

    with pytest.warns(DeprecationWarning, match="from smallnets.models import read_weights"):
        assert torch.equal(
            old(convnet(4, 5, 3), save(weights)).classifier.bias, weights["classifier.bias"]
        )
