import numpy as np
import pytest
import torch

from smallnets import measure
from smallnets.models import FeatureTap, bit_resnet, load_published, named
from smallnets.models.bit import standardised

NAME = "04-patient-teacher"


@pytest.fixture
def tiny(golden):
    """The golden network in double precision, and its arrays."""
    arrays = golden(NAME)
    depth = tuple(arrays["bit_tiny/depth"].tolist())
    classes = arrays["bit_tiny/logits"].shape[1]
    network = bit_resnet(depth, classes, width=float(arrays["bit_tiny/width"])).double()
    given = {
        key.removeprefix("bit_tiny/params."): value
        for key, value in arrays.items()
        if key.startswith("bit_tiny/params.")
    }
    return network, given, arrays


def test_golden_network(tiny):
    network, given, arrays = tiny
    load_published(network, given)
    x = torch.from_numpy(arrays["bit_tiny/x_nhwc"]).double().permute(0, 3, 1, 2)
    with torch.no_grad():
        stem = network[:2](x)
        features = network[:-1](x)
        logits = network(x)
    found = [stem.sum().item(), stem.abs().mean().item()]
    np.testing.assert_allclose(found, arrays["bit_tiny/stem_sum_absmean"], rtol=1e-12)
    np.testing.assert_allclose(features, arrays["bit_tiny/pre_logits"], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(logits, arrays["bit_tiny/logits"], rtol=1e-12, atol=1e-12)
    single = network.float()(x.float()).detach()
    np.testing.assert_allclose(single, arrays["bit_tiny/logits"], rtol=1e-4, atol=1e-4)
    network.train()
    assert torch.equal(network(x.float()), single)  # no statistics of the batch


def test_golden_norms(golden):
    arrays = golden(NAME)
    weight = torch.from_numpy(arrays["norm/w_hwio"]).permute(3, 2, 0, 1)
    ours = standardised(weight).permute(2, 3, 1, 0)
    np.testing.assert_allclose(ours, arrays["norm/w_standardized"], rtol=1e-12, atol=1e-12)
    x = torch.from_numpy(arrays["norm/x_nhwc"]).permute(0, 3, 1, 2)
    norm = torch.nn.GroupNorm(int(arrays["norm/gn_groups"]), x.shape[1]).double()
    norm.weight.data = torch.from_numpy(arrays["norm/gn_scale"].ravel())
    norm.bias.data = torch.from_numpy(arrays["norm/gn_bias"].ravel())
    ours = norm(x).detach().permute(0, 2, 3, 1)
    np.testing.assert_allclose(ours, arrays["norm/gn_out"], rtol=1e-12, atol=1e-12)


def test_golden_sizes_of_the_published_networks(golden):
    for row in golden(NAME)["counts/depth_width_res_classes_params_macs"].tolist():
        depth, width, resolution, classes, parameters, macs = row
        with torch.device("meta"):
            network = bit_resnet(depth, classes, width=width)
            assert measure.parameters(network) == parameters
            assert measure.macs(network, (3, resolution, resolution)) == macs


def test_an_untrained_network_predicts_all_classes_alike():
    network = named("bit-26-1", 7, 1)
    with FeatureTap(network, network.stage_names) as tap:
        logits = network(torch.rand(2, 1, 64, 64))
    assert torch.equal(logits, torch.zeros(2, 7))
    shapes = [tuple(feature.shape) for feature in tap.features.values()]
    assert shapes == [(2, 256, 16, 16), (2, 512, 8, 8), (2, 1024, 4, 4), (2, 2048, 2, 2)]


def test_names_may_be_separated_by_slashes(tiny):
    network, given, _ = tiny
    load_published(network, {name.replace(".", "/"): value for name, value in given.items()})


def test_arrays_that_do_not_fit_are_named(tiny):
    network, given, _ = tiny
    with pytest.raises(ValueError, match="arrays must fit the network; got other besides"):
        load_published(network, {**given, "other": np.zeros(1)})
    with pytest.raises(ValueError, match=r"head.bias must have 5 numbers .*; got \(3,\)"):
        load_published(network, {**given, "head.bias": np.zeros(3)})
    given.pop("head.bias")
    with pytest.raises(ValueError, match=r"arrays must hold head\.bias; got"):
        load_published(network, given)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((34, 10), "depth must be one of 26, 50, 101, 152; got '34'"),
        (((), 10), "number of stages must be at least 1; got 0"),
        ((26, 0), "num_classes must be at least 1; got 0"),
        ((26, 10, 0), "in_channels must be at least 1; got 0"),
    ],
)
def test_bad_sizes_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        bit_resnet(*arguments)
    with pytest.raises(ValueError, match=r"width must make .* a multiple of 32; got 0.3"):
        bit_resnet(26, 10, width=0.3)
