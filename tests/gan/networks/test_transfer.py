"""L1 pruning and sorting: permutations change nothing, and the important channels come first."""

import pytest
import torch

from smallnets.gan.networks.resnet import PARTS, ResNetGenerator
from smallnets.gan.networks.resnet_widths import MOBILE
from smallnets.gan.networks.super_resnet import SuperResNetGenerator
from smallnets.gan.networks.transfer import prune_by_l1, sort_channels, start_supernet


def network(**options):
    torch.manual_seed(1)
    made = ResNetGenerator(ngf=4, n_blocks=3, **options).double()
    for module in made.modules():  # statistics of a trained network
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.weight)
    return made.eval()


X = 2 * torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)).double() - 1


@pytest.mark.parametrize(
    "options", [{}, {"separable": MOBILE}, {"separable": PARTS, "norm": "batch"}]
)
def test_sorting_changes_no_image(options):
    net = network(**options)
    ordered = sort_channels(net)
    assert (ordered(X) - net(X)).abs().max() < 1e-10
    first = ordered.model[1].weight.abs().sum((1, 2, 3))
    assert (first.diff() <= 0).all()
    assert not torch.equal(first, net.model[1].weight.abs().sum((1, 2, 3)))


def test_what_is_kept_was_the_most_important():
    net = network(separable=MOBILE)
    small = prune_by_l1(net, 2)
    importance = net.model[1].weight.abs().sum((1, 2, 3))
    best = importance.sort(descending=True).indices[:2]
    assert torch.equal(small.model[1].weight, net.model[1].weight[best])
    assert torch.equal(small.model[1].bias, net.model[1].bias[best])
    assert small.config == (2,) * 8


def test_pruning_to_several_widths_runs():
    small = prune_by_l1(network(separable=MOBILE), (4, 3, 2, 1, 4, 3, 2, 1))
    assert small(X).shape == X.shape
    assert small.channels.stream == 8


def test_a_supernet_starts_as_the_network():
    net = network(separable=MOBILE, clamp=True)
    for sort in (True, False):
        supernet = start_supernet(net, sort=sort)
        assert (supernet(X) - net(X)).abs().max() < 1e-10
    narrow = start_supernet(net).export((2,) * 8)
    assert (narrow(X) - prune_by_l1(net, 2)(X)).abs().max() > 0  # ranked by all inputs, not by kept


def test_what_does_not_fit_is_refused():
    net = network()
    with pytest.raises(ValueError, match="width 0 of the configuration must be at most 4; got 5"):
        prune_by_l1(net, 5)
    with pytest.raises(ValueError, match="6 or 8"):
        prune_by_l1(net, (2, 2))
    with pytest.raises(ValueError, match="exported before"):
        prune_by_l1(SuperResNetGenerator(ngf=2, n_blocks=1), 1)
    with pytest.raises(ValueError, match="of one width"):
        start_supernet(prune_by_l1(net, (4, 3, 2, 1, 4, 3, 2, 1)))
