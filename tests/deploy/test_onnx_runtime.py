import pytest
import torch
from torch import nn

from smallnets.deploy.onnx_runtime import (
    difference,
    export,
    largest_difference,
    latencies,
    load,
    predict,
)
from smallnets.models import cifar_resnet

SHAPE = (3, 8, 8)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return cifar_resnet(8, 5, width=4).train()


@pytest.fixture(scope="module")
def session(network):
    return load(export(network, SHAPE))


def test_the_session_says_what_torch_says_for_any_batch(network, session):
    for batch in (1, 5):
        images = torch.randn(batch, *SHAPE)
        assert predict(session, images).shape == (batch, 5)
        assert difference(network, session, images) < 1e-5
    assert network.training  # it was exported in evaluation mode and put back


def test_another_network_says_something_else(session):
    torch.manual_seed(1)
    other = cifar_resnet(8, 5, width=4)
    assert difference(other, session, torch.randn(2, *SHAPE)) > 1e-2


def test_latencies_are_quartiles_of_what_was_timed(session):
    found = latencies({"a": session, "b": session}, SHAPE, batch=2, warm_up=1, rounds=5)
    for one in found.values():
        assert 0 < one.low <= one.median <= one.high
        assert (one.runs, one.threads, one.warm_up, one.batch) == (5, 1, 1, 2)


def test_a_wider_network_takes_longer(session):
    wide = load(export(cifar_resnet(20, 5, width=64), SHAPE))
    found = latencies({"narrow": session, "wide": wide}, SHAPE, rounds=10)
    assert found["wide"].median > 2 * found["narrow"].median


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch": 0}, "batch must be at least 1; got 0"),
        ({"rounds": 0}, "rounds must be at least 1"),
        ({"warm_up": -1}, "warm_up must be at least 1"),
        ({"sessions": {}}, "number of things to time must be at least 1; got 0"),
    ],
)
def test_bad_settings_are_refused(session, settings, message):
    with pytest.raises(ValueError, match=message):
        latencies(**{"sessions": {"a": session}, "input_shape": SHAPE, **settings})


def test_threads_are_checked(network):
    with pytest.raises(ValueError, match="threads must be at least 1; got 0"):
        load(b"", threads=0)


class FixedBatch(nn.Module):
    """Reads the size of its batch when it is traced, in one of three ways."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.layer = kind, nn.Linear(4, 3)

    def forward(self, x):
        count = int(x.shape[0])
        if self.kind == "view":
            return self.layer(x).view(count, 3)
        if self.kind == "flat":
            return self.layer(x).view(1, -1) if count == 1 else self.layer(x).view(1, -1) * 2
        return self.layer(x) * count


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("view", "must take batches of any size; exported, it fails with 3 examples"),
        ("flat", "must give the network's logits .* off by"),
        ("factor", r"must give the network's logits \(3, 3\) for 3 examples; it is off by"),
    ],
)
def test_a_network_that_is_bound_to_its_batch_is_refused_at_export(kind, message):
    torch.manual_seed(0)
    with pytest.raises(ValueError, match=message) as error:
        export(FixedBatch(kind), (4,))
    assert "\n" not in str(error.value)


def test_a_network_that_says_not_a_number_is_refused(session):
    broken = cifar_resnet(8, 5, width=4)
    nn.init.constant_(broken.classifier.bias, torch.nan)
    with pytest.raises(ValueError, match="logits must be finite"):
        export(broken, SHAPE)
    with pytest.raises(ValueError, match="logits must be finite"):
        difference(broken, session, torch.randn(2, *SHAPE))


@pytest.mark.parametrize("content", [b"", b"hello", b"\x08\x09"])
def test_damaged_files_are_one_line(content):
    with pytest.raises(ValueError, match="exported must be a whole ONNX model") as error:
        load(content)
    assert "\n" not in str(error.value)


def test_differences_are_relative_to_what_is_wanted():
    wanted = torch.tensor([[1.0, -4.0]])
    assert largest_difference(wanted + 1, wanted) == 0.25
    assert largest_difference(torch.zeros(1, 2), torch.zeros(1, 2)) == 0
    for wrong in (torch.zeros(2, 2), torch.zeros(1, 3)):
        with pytest.raises(ValueError, match="outputs must have one shape with n at least 1"):
            largest_difference(wrong, wanted)
    with pytest.raises(ValueError, match="with n at least 1; got"):
        largest_difference(torch.zeros(0, 2), torch.zeros(0, 2))
