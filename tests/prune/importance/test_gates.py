import pytest
import torch
from torch import nn

from smallnets.models import cifar_resnet
from smallnets.prune.importance.gates import Site, gate, gated, open_gates, sites_everywhere


@pytest.fixture
def images():
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_open_gates_change_no_bit(images):
    network = cifar_resnet(8, 5, width=4).eval()
    for where in ("after_bn", "before_bn", "after_conv"):
        sites = sites_everywhere(network, where)
        with gated(network, sites, open_gates(network, sites, images)):
            inside = network(images)
        assert torch.equal(inside, network(images))


def test_hooks_go_when_the_block_ends_even_badly(images):
    network = cifar_resnet(8, 5, width=4).eval()
    sites = sites_everywhere(network)
    with pytest.raises(RuntimeError), gated(network, sites, {"norm": torch.ones(5)}):
        network(images)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


def test_a_closed_gate_behind_the_norm_is_zero_and_one_before_it_is_a_constant(images):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    network[1].running_mean.fill_(0.3)
    nn.init.constant_(network[1].bias, 0.2)
    closed = torch.tensor([0.0, 1.0, 1.0, 1.0])
    with gated(network, {"g": (Site("1"),)}, {"g": closed}):
        assert (network(images)[:, 0] == 0).all()
    with gated(network, {"g": (Site("0"),)}, {"g": closed}):
        after_conv = network(images)
    with gated(network, {"g": (Site("1", "in"),)}, {"g": closed}):
        assert torch.equal(network(images), after_conv)
    constant = 0.2 - 0.3 / (1 + network[1].eps) ** 0.5
    assert torch.allclose(after_conv[:, 0], torch.tensor(constant), atol=1e-6)


def test_gates_of_each_example_and_of_some_channels():
    x = torch.ones(2, 3, 2, 2)
    own = gate(x, torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))
    assert own[:, :, 0, 0].tolist() == [[1, 2, 3], [4, 5, 6]]
    some = gate(x, torch.tensor([7.0, 8.0]), Site("", "out", (0, 2), (1, 0)))
    assert some[0, :, 0, 0].tolist() == [8, 1, 7]
    last = gate(torch.ones(2, 5, 3), torch.tensor([1.0, 2.0, 3.0]), dim=-1)
    assert last[1, 4].tolist() == [1, 2, 3]


def test_several_places_share_a_gate(images):
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Flatten())
    sites = {"shared": (Site("0"), Site("1"))}
    assert len(open_gates(network, sites, images)["shared"]) == 4
    half = torch.full((4,), 0.5, requires_grad=True)
    with gated(network, sites, {"shared": half}):
        network(images).sum().backward()
    separate = [torch.full((4,), 0.5, requires_grad=True) for _ in range(2)]
    with gated(network, {"a": (Site("0"),), "b": (Site("1"),)}, dict(zip("ab", separate))):  # noqa: B905
        network(images).sum().backward()
    assert torch.allclose(half.grad, separate[0].grad + separate[1].grad, rtol=1e-4)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda net, x: sites_everywhere(net, "inside"), "where must be one of after_bn"),
        (lambda net, x: sites_everywhere(nn.Linear(2, 2)), "must have a BatchNorm"),
        (lambda net, x: sites_everywhere(nn.Linear(2, 2), "after_conv"), "must have a convolution"),
        (lambda net, x: open_gates(net, {"g": (Site("nowhere"),)}, x), "module of a gate must be"),
        (lambda net, x: gated(net, {}, {"g": x}).__enter__(), "gate must be one of"),
    ],
)
def test_bad_places_are_refused_in_one_line(images, action, message):
    with pytest.raises(ValueError, match=message) as error:
        action(cifar_resnet(8, 5, width=4), images)
    assert "\n" not in str(error.value)


def test_a_gate_that_no_image_passes_is_refused(images):
    network = cifar_resnet(8, 5, width=4)
    network.classifier.unused = nn.Conv2d(1, 1, 1)
    with pytest.raises(ValueError, match="no image passes it"):
        open_gates(network, {"g": (Site("classifier.unused"),)}, images)


class Two(nn.Module):
    """Two layers; `then` says how the second is run."""

    def __init__(self, then=lambda self, x: self.second(x)):
        super().__init__()
        self.first, self.second, self.then = nn.Linear(4, 4), nn.Linear(4, 3), then

    def forward(self, x):
        return self.then(self, self.first(x))


CLOSED = {"g": torch.tensor([0.0, 1.0, 1.0])}


@pytest.mark.parametrize("wrapped", [True, False], ids=["torch.compile", "module.compile"])
def test_gates_act_on_a_compiled_network_that_has_run(wrapped):
    network, x = Two(), torch.randn(5, 4)
    if wrapped:
        call = torch.compile(network, backend="eager")
    else:
        network.compile(backend="eager")
        call = network
    open_ = call(x)
    sites = {"g": (Site("second"),)}
    with gated(network, sites, CLOSED):
        assert torch.equal(call(x), open_ * CLOSED["g"])
    assert torch.equal(call(x), open_)


def test_gates_of_a_scripted_network_are_refused():
    scripted = torch.jit.trace(Two(), torch.randn(5, 4))
    with (
        pytest.raises(
            ValueError, match=r"^hooks on 'second' would not fire: the network is script"
        ),
        gated(scripted, {"g": (Site("second"),)}, CLOSED),
    ):
        pass


@pytest.mark.parametrize(
    "then",
    [
        lambda self, x: x,
        lambda self, x: self.second.forward(x),
        lambda self, x: nn.functional.linear(x, self.second.weight),
    ],
    ids=["skipped", "its forward", "its weight"],
)
def test_a_gate_that_a_pass_leaves_out_is_refused(then):
    network = Two(then)
    with (
        pytest.raises(ValueError, match=r"^'second', which has a gate, must be called in every"),
        gated(network, {"g": (Site("second"),)}, CLOSED),
    ):
        network(torch.randn(5, 4))


def test_a_gate_acts_at_every_use_of_a_module():
    network, x = Two(lambda self, x: self.second(self.first(x))), torch.randn(5, 4)
    closed = torch.tensor([0.0, 1.0, 1.0, 1.0])
    with gated(network, {"g": (Site("first"),)}, {"g": closed}):
        inside = network(x)
    once = network.first(x) * closed
    assert torch.equal(inside, network.second(network.first(once) * closed))


@pytest.mark.parametrize(("side", "verb"), [("in", "be given a tensor first"), ("out", "give a t")])
def test_gates_multiply_tensors_only(side, verb):
    class Pairs(nn.Module):
        def forward(self, pair):
            return pair

    network = Two(lambda self, x: self.second((x, x)))
    network.second = Pairs()
    with (
        pytest.raises(ValueError, match=rf"^'second', which has a gate, must {verb}.*; got tuple$"),
        gated(network, {"g": (Site("second", side),)}, CLOSED),
    ):
        network(torch.randn(5, 4))
