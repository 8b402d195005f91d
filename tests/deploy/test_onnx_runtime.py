import pytest
import torch

from smallnets.deploy.onnx_runtime import difference, export, latencies, load, predict
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
