import copy
import gc
import weakref
from contextlib import ExitStack

import pytest
import torch
from torch import nn

from smallnets.models import FeatureTap, convnet
from smallnets.models.hooks import WATCHED


@pytest.fixture
def network():
    return convnet(2, 3, depth=2)


@pytest.fixture
def x():
    return torch.rand(2, 3, 8, 8)


def hooks(model):
    return sum(len(module._forward_hooks) for module in model.modules())


def test_features_are_the_outputs_of_the_latest_pass(network, x):
    network.eval()
    with FeatureTap(network, ["stage2", "stage1.conv"]) as tap:
        network(torch.zeros_like(x))
        network(x)
        assert list(tap.features) == ["stage2", "stage1.conv"]
        assert torch.equal(tap.features["stage1.conv"], network.stage1.conv(x))
        assert torch.equal(tap.features["stage2"], network.stage2(network.stage1(x)))


def test_features_keep_the_graph(network, x):
    with FeatureTap(network, ["stage1"]) as tap:
        network(x)
    tap.features["stage1"].square().sum().backward()
    assert network.stage1.conv.weight.grad.any()
    assert network.stage2.conv.weight.grad is None


def test_hooks_go_with_the_block_and_features_stay(network, x):
    with FeatureTap(network, network.stage_names) as tap:
        assert hooks(network)
        network(x)
    assert hooks(network) == 0
    kept = tap.features["stage1"]
    network(x + 1)
    assert tap.features["stage1"] is kept


def test_hooks_go_when_the_block_raises(network):
    with pytest.raises(KeyError), FeatureTap(network, ["stage1"]):
        raise KeyError("anything")
    assert hooks(network) == 0


def test_close_ends_a_tap_without_a_block(network, x):
    tap = FeatureTap(network, ["stage1"])
    network(x)
    assert tap.features["stage1"].shape == (2, 2, 8, 8)
    tap.close()
    assert hooks(network) == 0


def test_two_taps_do_not_meet(network, x):
    with FeatureTap(network, ["stage1"]) as outer:
        before = hooks(network)
        with FeatureTap(network, ["stage1", "stage2"]):
            network(x)
        assert hooks(network) == before
        assert list(outer.features) == ["stage1"]


@pytest.mark.parametrize("prefix", ["", "student."])
def test_a_network_inside_a_module_dict(network, x, prefix):
    both = nn.ModuleDict({"student": network, "teacher": convnet(4, 3)})
    with FeatureTap(both if prefix else network, [f"{prefix}stage2"]) as tap:
        both["student"](x)
    assert tap.features[f"{prefix}stage2"].shape == (2, 4, 4, 4)


def test_a_copy_of_the_network_is_not_listened_to(network, x):
    with FeatureTap(network, ["stage1"]) as tap:
        network(x)
        kept = tap.features["stage1"]
        copy.deepcopy(network)(x + 1)
        assert tap.features["stage1"] is kept


def test_reading_before_a_forward_pass(network):
    with (
        FeatureTap(network, network.stage_names) as tap,
        pytest.raises(RuntimeError, match=r"^no features of stage1, stage2 yet: run the network"),
    ):
        tap.features["stage1"]


@pytest.mark.parametrize(
    ("names", "given"), [(["stage1", "stage9"], "'stage9'"), ([""], "''"), ([], "none")]
)
def test_names_that_are_no_submodules(network, names, given):
    with pytest.raises(
        ValueError, match=rf"^names must be among stage1, .*; got {given}$"
    ) as error:
        FeatureTap(network, names)
    assert "stage2.conv" in str(error.value)
    assert "\n" not in str(error.value)
    assert hooks(network) == 0


class Steps(nn.Module):
    """Two layers, and what a network may do to the output of the first."""

    def __init__(self, then=lambda self, x: self.second(x), first=None):
        super().__init__()
        self.first, self.second, self.then = first or nn.Linear(4, 4), nn.Linear(4, 3), then

    def forward(self, x):
        return self.then(self, self.first(x))


def added(self, x):
    x += 1
    return self.second(x)


def activated(self, x):
    return self.second(nn.ReLU(inplace=True)(x))


def entered(self, x):
    x[:, 0] = 0
    return self.second(x)


def through_a_view(self, x):
    x[:, 1:].mul_(2)
    return self.second(x)


def with_out(self, x):
    with torch.no_grad():
        torch.add(x.detach(), 1, out=x.data)
    return self.second(x)


@pytest.mark.parametrize("then", [added, activated, entered, through_a_view, with_out])
def test_features_are_what_the_layer_gave_whatever_follows(then):
    network, x = Steps(then), torch.randn(5, 4)
    with FeatureTap(network, ["first"]) as tap:
        network(x)
    kept, wanted = tap.features["first"], network.first(x)
    assert torch.equal(kept, wanted)
    found = torch.autograd.grad(kept.square().sum(), network.first.weight)
    assert torch.equal(*found, *torch.autograd.grad(wanted.square().sum(), network.first.weight))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_features_without_a_graph_are_what_the_layer_gave(mode):
    network, x = Steps(activated), torch.randn(5, 4)
    with mode(), FeatureTap(network, ["first"]) as tap:
        network(x)
        assert torch.equal(tap.features["first"], network.first(x))


def test_the_loss_is_that_of_a_network_that_nobody_listens_to():
    network, x = Steps(activated), torch.randn(5, 4)
    alone = torch.autograd.grad(network(x).sum(), network.first.weight)
    with FeatureTap(network, ["first"]):
        heard = torch.autograd.grad(network(x).sum(), network.first.weight)
    assert torch.equal(*alone, *heard)


def test_nothing_is_copied_that_is_not_overwritten():
    given = []
    network = Steps(lambda self, x: given.append(x) or self.second(x.relu()))
    with FeatureTap(network, ["first"]) as tap:
        network(torch.randn(5, 4))
    assert tap.features["first"] is given[0]


def test_features_overwritten_after_the_pass_are_refused():
    network = Steps()
    with FeatureTap(network, ["second"]) as tap:
        logits = network(torch.randn(5, 4))
        logits += 1
    with pytest.raises(ValueError, match=r"^the tensor kept of 'second' has been overwritten; use"):
        tap.features["second"]


@pytest.mark.parametrize(
    "then",
    [
        lambda self, x: x,
        lambda self, x: self.second.forward(x),
        lambda self, x: nn.functional.linear(x, self.second.weight),
    ],
    ids=["skipped", "its forward", "its weight"],
)
def test_a_layer_that_a_pass_leaves_out_has_no_features(then):
    network, called = Steps(), torch.randn(5, 4)
    with FeatureTap(network, ["second"]) as tap:
        network(called)
        network.then = then
        network(called)
        with pytest.raises(ValueError, match=r"^'second' must be called in every pass; the netw"):
            tap.features["second"]


def test_a_layer_that_runs_twice_has_no_single_output():
    network = Steps(lambda self, x: self.second(self.first(x)))
    with FeatureTap(network, ["first"]) as tap:
        for _ in range(2):
            network(torch.randn(5, 4))
        with pytest.raises(ValueError, match=r"^'first' must run once in a pass, .* ran 2 times$"):
            tap.features["first"]


def modes():
    return len(torch.overrides._get_current_function_mode_stack())


def test_a_network_is_watched_until_it_has_overwritten_nothing():
    seen = []
    network, x = Steps(lambda self, x: seen.append(modes()) or self.second(x)), torch.randn(5, 4)
    for _ in range(3):
        with FeatureTap(network, ["first"]) as tap:
            network(x)
    assert seen == [1, 0, 0]
    network.then = added  # the first such pass is not lost silently, the next is right
    with FeatureTap(network, ["first"]) as tap:
        network(x)
        with pytest.raises(ValueError, match=r"wrote into .* 'first'.* run it again"):
            tap.features["first"]
        for _ in range(2):
            network(x)
            assert torch.equal(tap.features["first"], network.first(x))


def test_two_passes_that_overlap_leave_no_mode_behind():
    inner = Steps(added)
    ending = FeatureTap(inner, ["first"])

    def second_begins_and_first_ends(*_):
        other = began.enter_context(FeatureTap(Steps(), ["first"]))
        WATCHED.add(other._recorder)
        ending.close()
        assert modes() == 1

    inner.second.register_forward_pre_hook(second_begins_and_first_ends)

    x = torch.randn(5, 4)
    with ExitStack() as began:
        inner(x)
        assert torch.equal(ending.features["first"], inner.first(x))
    assert modes() == 0


def test_a_layer_that_gives_several_tensors_is_refused():
    network = Steps(lambda self, x: self.second(x[0]), nn.LSTM(4, 4))
    with (
        FeatureTap(network, ["first"]),
        pytest.raises(ValueError, match=r"^'first' must give a tensor; got tuple$"),
    ):
        network(torch.randn(5, 4))


def compiled(network):
    network.compile(backend="eager")
    return network


@pytest.mark.parametrize(
    ("change", "name", "kind"),
    [
        (compiled, "first", "compiled"),
        (lambda network: torch.compile(network, backend="eager"), "_orig_mod.first", "compiled"),
        (lambda network: Steps(first=compiled(network.first)), "first", "compiled"),
        (lambda network: torch.jit.trace(network, torch.randn(5, 4)), "first", "scripted"),
    ],
    ids=["module.compile", "torch.compile", "a layer", "trace"],
)
def test_networks_that_hooks_cannot_hear_are_refused(change, name, kind):
    with pytest.raises(
        ValueError, match=rf"^hooks on '{name}' would not fire: the network is {kind}"
    ):
        FeatureTap(change(Steps()), [name])


def test_a_pass_that_fails_leaves_nothing_behind():
    network = Steps(lambda self, x: 1 / 0)
    with FeatureTap(network, ["first"]) as tap:
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                network(torch.randn(5, 4))
        network.then = activated
        x = torch.randn(5, 4)
        network(x)
        assert torch.equal(tap.features["first"], network.first(x))
    assert not torch.overrides._get_current_function_mode_stack()


def test_features_die_with_the_tap():
    network = Steps()
    gc.disable()
    try:
        with FeatureTap(network, ["first"]) as tap:
            network(torch.randn(5, 4))
        kept = weakref.ref(tap.features["first"])
        del tap
        assert kept() is None
    finally:
        gc.enable()
