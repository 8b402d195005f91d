import pytest
import torch
from torch import nn

from smallnets.models import FeatureTap, convnet


def shapes(network, x):
    with FeatureTap(network, network.stage_names) as tap:
        logits = network(x)
    return logits.shape, [tuple(feature.shape) for feature in tap.features.values()]


def test_stages_double_in_width_and_halve_in_resolution():
    network = convnet(4, 10)
    assert network.stage_names == ("stage1", "stage2", "stage3")
    logits, features = shapes(network, torch.rand(2, 3, 32, 32))
    assert logits == (2, 10)
    assert features == [(2, 4, 32, 32), (2, 8, 16, 16), (2, 16, 8, 8)]


def test_a_strided_stem_halves_every_map():
    _, features = shapes(convnet(4, 10, stem_stride=2), torch.rand(2, 3, 32, 32))
    assert features == [(2, 4, 16, 16), (2, 8, 8, 8), (2, 16, 4, 4)]


@pytest.mark.parametrize("norm", ["batch", "instance", "group", "layer", "none"])
@pytest.mark.parametrize("stem_stride", [1, 2])
@pytest.mark.parametrize("shape", [(1, 1, 28, 28), (2, 3, 8, 8), (2, 5, 33, 17)])
def test_any_size_channels_and_batch(norm, stem_stride, shape):
    network = convnet(3, 7, shape[1], norm=norm, stem_stride=stem_stride)
    logits = network(torch.rand(shape))
    assert logits.shape == (shape[0], 7)
    assert logits.isfinite().all()
    logits.sum().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_more_stages_than_halvings():
    network = convnet(2, 3, 1, depth=6).eval()
    assert len(network.stage_names) == 6
    assert network(torch.rand(1, 1, 8, 8)).shape == (1, 3)


def test_features_are_after_the_relu():
    network = convnet(4, 10, norm="none")
    with FeatureTap(network, network.stage_names) as tap:
        network(torch.randn(4, 3, 16, 16))
    for feature in tap.features.values():
        assert feature.min() == 0
        assert feature.max() > 0


def test_convolutions_have_a_bias_only_without_a_norm():
    for norm in ("batch", "none"):
        convolutions = [m for m in convnet(4, 10, norm=norm).modules() if isinstance(m, nn.Conv2d)]
        assert len(convolutions) == 3
        assert all((m.bias is not None) == (norm == "none") for m in convolutions)


@pytest.mark.parametrize(("norm", "axes"), [("instance", (2, 3)), ("layer", (1, 2, 3))])
def test_norms_standardise_the_axes_that_they_name(norm, axes):
    network = convnet(4, 10, norm=norm).double()
    with FeatureTap(network, ["stage1.norm"]) as tap:
        network(torch.randn(3, 3, 16, 16, dtype=torch.float64))
    normed = tap.features["stage1.norm"]
    mean, deviation = normed.mean(axes), normed.std(axes, unbiased=False)
    torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-9, rtol=0)
    torch.testing.assert_close(deviation, torch.ones_like(deviation), atol=1e-3, rtol=0)


def test_group_norm_divides_any_number_of_channels():
    groups = {
        width: convnet(width, 10, norm="group").stage1.norm.num_groups for width in (3, 12, 16)
    }
    assert groups == {3: 1, 12: 4, 16: 8}


def test_a_slice_gives_the_pooled_features():
    network = convnet(4, 10).eval()
    x = torch.rand(2, 3, 16, 16)
    pooled = network[:-1](x)
    assert pooled.shape == (2, 16)
    torch.testing.assert_close(network.classifier(pooled), network(x))


def test_weights_come_from_the_default_generator():
    torch.manual_seed(3)
    first, after = convnet(2, 2), torch.rand(1)
    torch.manual_seed(3)
    second, again = convnet(2, 2), torch.rand(1)
    torch.testing.assert_close(first.state_dict(), second.state_dict(), rtol=0, atol=0)
    assert after == again
    other = convnet(2, 2)
    assert not torch.equal(other.classifier.weight, second.classifier.weight)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"norm": "bach"}, "norm must be one of batch, instance, group, layer, none; got 'bach'"),
        ({"stem_stride": 0}, "stem_stride must be at least 1; got 0"),
        ({"width": 0}, "width must be at least 1; got 0"),
        ({"width": 2.5}, "width must be a whole number of at least 1; got 2.5"),
        ({"depth": 0}, "depth must be at least 1; got 0"),
        ({"in_channels": 0}, "in_channels must be at least 1; got 0"),
        ({"num_classes": 0}, "num_classes must be at least 1; got 0"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011, the whole message is compared
        convnet(**{"width": 4, "num_classes": 10, **arguments})
    assert str(error.value) == message
