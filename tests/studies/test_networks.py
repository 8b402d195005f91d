"""Networks by name: built, trained once, judged."""

import pytest
import torch

from smallnets.data import load
from smallnets.studies.networks import build_network, evaluate_accuracy, train_network
from smallnets.training import TrainSettings


@pytest.fixture(scope="module")
def digits():
    return load("digits").take(128, 64)


def test_names_fit_the_images_and_the_seed(digits):
    network = build_network("resnet-8-4", digits, 3).eval()
    assert network(torch.randn(2, 1, 16, 16)).shape == (2, 10)
    same = build_network("resnet-8-4", digits, 3).state_dict()
    assert all(torch.equal(value, same[name]) for name, value in network.state_dict().items())
    other = build_network("resnet-8-4", digits, 4)
    assert not torch.equal(next(network.parameters()), next(other.parameters()))


def test_torchvision_networks_take_any_number_of_channels(digits):
    grey = build_network("squeezenet1_1", digits, 0).eval()
    assert grey(torch.randn(2, 1, 32, 32)).shape == (2, 10)
    colour = build_network("squeezenet1_1", load("glyphs10", train=10, test=10), 0).eval()
    assert colour(torch.randn(2, 3, 32, 32)).shape == (2, 10)


def test_rows_norms_and_strides(digits):
    assert build_network("rows-6", digits, 0)(torch.randn(2, 1, 16, 16)).shape == (2, 10)
    layer = build_network("convnet-4", digits, 0, norm="layer")
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in layer.modules())
    halved = build_network("resnet-8", digits, 0, stem_stride=2)
    assert halved.conv.stride == (2, 2)
    plain = build_network("resnet-8", digits, 0)
    assert torch.equal(plain.conv.weight, halved.conv.weight)


@pytest.mark.parametrize("name", ["lenet", "rows-", "resnet-", "resnet-8-"])
def test_other_names_are_refused(name, digits):
    message = rf"network must be one of convnet-WIDTH, .* or a torchvision .* got '{name}'"
    with pytest.raises(ValueError, match=message) as error:
        build_network(name, digits, 0)
    assert "\n" not in str(error.value)


def test_a_network_is_trained_once(digits, tmp_path):
    quick = TrainSettings(epochs=2, batch_size=32, lr=0.1, device="cpu", precision="32-true")
    first = train_network("convnet-4", digits, quick, 1, tmp_path, label="whole")
    (file,) = tmp_path.iterdir()
    assert file.name.startswith("whole-")
    written = file.stat().st_mtime_ns
    again = train_network("convnet-4", digits, quick, 1, tmp_path, label="whole")
    assert file.stat().st_mtime_ns == written
    assert not again.training
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    assert evaluate_accuracy(first, digits) == evaluate_accuracy(again, digits)
