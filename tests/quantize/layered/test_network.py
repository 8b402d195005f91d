"""Networks in layers: switching, starting, training, and what stays as it was."""

import copy
import warnings
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import mobilenet_v3_small, resnet18

from smallnets.quantize.layered import (
    AdaBits,
    AnyPrecision,
    LayeredNetwork,
    SwitchBatchNorm,
    TrainOnce,
    WeightRule,
    recalibrate_width,
    to_layered,
    train_once,
    truncated,
)
from smallnets.quantize.lsq import lsq, lsq_gradient_factor
from smallnets.training import Batch, fit

LABELS = torch.arange(12) % 4


@pytest.fixture
def layered(net, images):
    return to_layered(net, (8, 6, 4, 2)).start(images)


def test_every_layer_but_the_first_and_last_is_quantised(layered, net):
    names = [name for name, _ in layered.layers()]
    convolutions = [n for n, m in net.named_modules() if isinstance(m, nn.Conv2d)]
    assert names == convolutions[1:]
    assert not isinstance(layered.network.classifier, LayeredNetwork)
    norms = [m for m in layered.network.modules() if isinstance(m, SwitchBatchNorm)]
    assert len(norms) == sum(isinstance(m, nn.BatchNorm2d) for m in net.modules())


def test_in_float_it_is_the_network_it_came_from(layered, net, images):
    assert torch.equal(layered.eval().set_width(None)(images), net.eval()(images))


def test_many_bits_say_almost_the_same(net, images):
    fine = to_layered(net, (16, 12), weights=WeightRule(start="lsq")).start(images).eval()
    torch.testing.assert_close(fine(images, 16), net.eval()(images), rtol=0.02, atol=0.02)


def test_weights_have_as_many_levels_as_their_width(layered):
    for _, layer in layered.layers():
        for bits in range(2, 9):
            assert layer.weights(layer.layer.weight, bits).unique().numel() <= 2**bits


def test_switching_back_and_forth_changes_nothing(layered, images):
    layered.eval()
    first = {bits: layered(images, bits) for bits in range(2, 9)}
    again = {bits: layered(images, bits) for bits in reversed(range(2, 9))}
    assert all(torch.equal(first[bits], again[bits]) for bits in first)
    assert not torch.equal(first[8], first[2])


def test_one_width_leaves_the_norms_of_others_alone(layered, images):
    before = copy.deepcopy(layered.state_dict())
    layered.train()(images, 4)
    changed = {n for n, v in layered.state_dict().items() if not torch.equal(v, before[n])}
    assert changed
    assert all(".norms.4." in name for name in changed)


def test_untrained_widths_borrow_the_next_higher_norm(layered):
    layered.set_width(5)
    norm = next(m for m in layered.network.modules() if isinstance(m, SwitchBatchNorm))
    assert norm.current is norm.norms["6"]


def batch(images):
    return Batch(images, LABELS, None, torch.Generator().manual_seed(0))


def test_mean_gradient_is_that_of_the_mean_loss(layered, images):
    layered.train()
    twin = copy.deepcopy(layered)
    terms = TrainOnce()(layered, batch(images))
    terms["loss"].backward()
    total = sum(F.cross_entropy(twin(images, b), LABELS) for b in (8, 6, 4, 2))
    total.backward()
    own = layered.own_parameters()
    assert own
    for (name, mine), other in zip(layered.named_parameters(), twin.parameters(), strict=True):
        expected = other.grad if name in own else other.grad / 4
        torch.testing.assert_close(mine.grad, expected, rtol=1e-3, atol=1e-6)
    assert terms["loss"].item() == pytest.approx(total.item() / 4, rel=1e-5)


def test_decay_acts_once_and_on_shared_weights_only(layered, images):
    layered.train()
    twin = copy.deepcopy(layered)
    TrainOnce()(layered, batch(images))["loss"].backward()
    TrainOnce(decay=0.1)(twin, batch(images))["loss"].backward()
    own = layered.own_parameters()
    for (name, a), b in zip(layered.named_parameters(), twin.parameters(), strict=True):
        more = 0.0 if name in own or a.ndim < 2 else 0.1
        torch.testing.assert_close(b.grad - a.grad, more * a.detach(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("combine", ["min-norm", "min-norm, normalised", "pcgrad"])
@pytest.mark.parametrize("by_layer", [False, True])
def test_weights_of_the_widths(layered, images, combine, by_layer):
    terms = TrainOnce(combine=combine, by_layer=by_layer)(layered.train(), batch(images))
    weights = torch.stack([terms[f"weight {b}"] for b in (8, 6, 4, 2)])
    assert (weights >= 0).all()
    if combine != "pcgrad":
        assert weights.sum().item() == pytest.approx(1, abs=1e-5)
    terms["loss"].backward()
    assert layered.network.conv.weight.grad.isfinite().all()


def test_fixed_weights_pick_one_width(layered, images):
    layered.train()
    twin = copy.deepcopy(layered)
    TrainOnce(combine=(0.0, 0.0, 1.0, 0.0))(layered, batch(images))["loss"].backward()
    F.cross_entropy(twin(images, 4), LABELS).backward()
    torch.testing.assert_close(
        layered.network.conv.weight.grad, twin.network.conv.weight.grad, rtol=1e-4, atol=1e-7
    )


def test_random_width_always_has_the_extremes(layered, images):
    terms = TrainOnce(combine="random width")(layered.train(), batch(images))
    trained = {name for name in terms if name.startswith("loss ")}
    assert len(trained) == 3
    assert {"loss 8", "loss 2"} <= trained


def test_what_a_width_owns_gets_its_whole_gradient(net, images):
    layered = to_layered(net, (4, 2), weights=AdaBits(level=0.5)).start(images)
    own = layered.own_parameters()
    assert any(name.endswith("inputs.levels.2") for name in own)
    assert not any(name.endswith("layer.weight") for name in own)
    TrainOnce()(layered, Batch(images, LABELS))["loss"].backward()
    given = {name: p.grad.clone() for name, p in layered.named_parameters() if "levels.2" in name}
    layered.zero_grad()
    F.cross_entropy(layered(images, 2), LABELS).backward()
    for name, gradient in given.items():
        torch.testing.assert_close(gradient, layered.get_parameter(name).grad)
    assert sum(float(gradient.abs()) for gradient in given.values()) > 0


def test_frozen_weights_stay_as_they_are(net, data, quick):
    layered = to_layered(net, (4, 2))
    frozen = layered.network.stage1[0].conv1.layer.weight.requires_grad_(False)
    before = frozen.clone()
    train_once(layered, data, quick, seed=0)
    assert torch.equal(frozen, before)


def test_attention_reads_its_weights_itself():
    class Attending(nn.Module):
        def __init__(self):
            super().__init__()
            self.into, self.mix = nn.Linear(6, 8), nn.MultiheadAttention(8, 2)
            self.between, self.out = nn.Linear(8, 8), nn.Linear(8, 4)

        def forward(self, x):
            x = self.into(x)
            return self.out(self.between(self.mix(x, x, x)[0]))

    x = torch.randn(5, 3, 6, generator=torch.Generator().manual_seed(0))
    with pytest.warns(UserWarning, match="no BatchNorm"):
        layered = to_layered(Attending(), (4, 2)).start(x)
    assert [name for name, _ in layered.layers()] == ["between"]
    assert layered(x, 2).shape == (5, 3, 4)


def test_training_lowers_the_loss_of_every_width(net, data, quick):
    layered = to_layered(net, (8, 4, 2))
    history = train_once(layered, data, replace(quick, epochs=8, lr=0.05), seed=0)
    for bits in (8, 4, 2):
        assert history[-1][f"loss {bits}"] < 0.95 * history[0][f"loss {bits}"]


@pytest.mark.parametrize(
    ("weights", "mode"), [(AnyPrecision(), "recursive"), (AdaBits(), "soft"), (None, "recursive")]
)
def test_competitors_train_too(net, data, quick, weights, mode):
    options = {} if weights is None else {"weights": weights}
    layered = to_layered(net, (8, 4, 2), **options)
    before = copy.deepcopy(layered.state_dict())
    history = train_once(layered, data, quick, seed=0, objective=TrainOnce(mode=mode))
    assert all(abs(v) < 100 for v in history[-1].values())
    assert not torch.equal(before["network.conv.weight"], layered.network.conv.weight)


def test_half_precision_trains(net, data, quick):
    layered = to_layered(net, (8, 4, 2))
    history = train_once(layered, data, replace(quick, precision="bf16-mixed"), seed=0)
    assert history[-1]["loss"] < 5


def test_a_training_is_kept_and_repeats_bit_for_bit(net, data, quick, tmp_path):
    first, second = to_layered(net, (8, 2)), to_layered(net, (8, 2))
    one = train_once(first, data, quick, seed=3, cache_dir=tmp_path)
    files = list(tmp_path.glob("*.safetensors"))
    two = train_once(second, data, quick, seed=3, cache_dir=tmp_path)
    assert one == two
    assert list(tmp_path.glob("*.safetensors")) == files
    for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_kept_trainings_of_different_rules_are_told_apart(net, data, quick, tmp_path):
    rules = [
        WeightRule(),
        WeightRule(rule="plain"),
        WeightRule(rule="direct"),
        WeightRule(gradient="raw"),
        WeightRule(gradient="scaled"),
    ]
    for rule in rules:
        train_once(to_layered(net, (8, 2), weights=rule), data, quick, seed=3, cache_dir=tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) == len(rules)


class Dedicated(nn.Module):
    """The plain network of conftest with LSQ written out by hand."""

    def __init__(self, net, layered):
        super().__init__()
        self.net = copy.deepcopy(net)
        layers = dict(layered.layers())
        steps = {n: (q.weights.step, q.inputs.steps["4"]) for n, q in layers.items()}
        self.w = nn.ParameterDict(
            {n: nn.Parameter(s[0].detach().clone()) for n, s in steps.items()}
        )
        self.x = nn.ParameterDict(
            {n: nn.Parameter(s[1].detach().clone()) for n, s in steps.items()}
        )

    def forward(self, x):
        net = self.net
        for name, layer in net.named_children():
            if name not in self.w:
                x = layer(x)
                continue
            x = lsq(x, self.x[name], 0, 15, lsq_gradient_factor(x.numel(), 15))
            factor = lsq_gradient_factor(layer.weight.numel(), 7)
            weight = lsq(layer.weight, self.w[name], -8, 7, factor)
            linear = isinstance(layer, nn.Linear)
            x = (F.linear if linear else layer._conv_forward)(x, weight, layer.bias)
        return x


def test_a_single_width_is_lsq(plain, data, quick):
    settings = replace(quick, weight_decay=0.0, lr=0.01)
    mine = to_layered(plain, (4,), weights=WeightRule(start="lsq"))
    mine.start(data.normalise(data.x_train[:16]))
    theirs = Dedicated(plain, mine)
    ours = train_once(mine, data, settings, seed=1)
    by_hand = fit(theirs, data, settings, seed=1)
    assert ours[-1]["loss"] == pytest.approx(by_hand[-1]["loss"], rel=1e-4)
    torch.testing.assert_close(
        mine.network.stem.weight, theirs.net.stem.weight, rtol=1e-3, atol=1e-5
    )
    torch.testing.assert_close(
        mine.network.middle.weights.step, theirs.w["middle"], rtol=1e-3, atol=1e-6
    )


def test_truncation_cuts_codes_and_keeps_the_rest(net, images, data, quick):
    high = to_layered(net, (8,), weights=WeightRule(start="lsq"))
    train_once(high, data, quick, seed=0)
    cut = truncated(high, (6, 2))
    assert cut.widths == (8, 6, 2)
    assert torch.equal(cut.eval()(images, 8), high.eval()(images))
    _, layer = next(iter(cut.layers()))
    assert layer.weights.step_of(2).item() == pytest.approx(64 * layer.weights.step.item())
    assert not torch.equal(cut(images, 2), high(images))


def test_truncation_keeps_the_range_of_activations(net, images):
    cut = truncated(to_layered(net, (8,)).start(images), (4, 2))
    for _, layer in cut.layers():
        inputs = layer.inputs
        ranges = [float(inputs.step_of(b)) * inputs.limits(b)[1] for b in (8, 4, 2)]
        assert ranges[1:] == pytest.approx([ranges[0]] * 2)


def test_recalibration_forgets_what_was_there(layered, images):
    batches, others = images.split(6), (3 * images - 1).split(4)
    found = []
    for given in (batches, others, batches):
        recalibrate_width(layered, given, 4)
        state = layered.state_dict()
        found.append(torch.cat([v for k, v in state.items() if "norms.4.running_mean" in k]))
    assert torch.equal(found[0], found[2])
    assert not torch.allclose(found[0], found[1])


def test_recalibration_gives_one_width_fresh_statistics(layered, images):
    layered.train()
    for _ in range(3):
        layered(images * 3 + 1, 8)
    layered.eval()
    before = {bits: layered(images, bits) for bits in (8, 4)}
    recalibrate_width(layered, images.split(6), 8)
    assert not torch.equal(layered(images, 8), before[8])
    assert torch.equal(layered(images, 4), before[4])
    assert not layered.training
    norm = next(m for m in layered.network.modules() if isinstance(m, SwitchBatchNorm))
    assert norm.norms["8"].momentum == 0.1


@pytest.mark.parametrize("build", [resnet18, mobilenet_v3_small])
def test_torchvision_networks(build):
    model = build(weights=None, num_classes=5)
    x = torch.randn(2, 3, 32, 32)
    layered = to_layered(model, (8, 4, 2)).start(x)
    signs = {layer.inputs.signed for _, layer in layered.layers()}
    assert signs == ({False} if build is resnet18 else {False, True})
    layered.train()
    terms = TrainOnce()(layered, Batch(x, torch.tensor([0, 1])))
    terms["loss"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layered.parameters())


def test_shared_norms_stay_as_they_are(net, images):
    layered = to_layered(net, (8, 2), norms="shared").start(images)
    assert not any(isinstance(m, SwitchBatchNorm) for m in layered.modules())


def test_a_network_without_norms_is_warned_about(images):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 2, 3))
    with pytest.warns(UserWarning, match="no BatchNorm"):
        to_layered(net, (4, 2))


def test_nothing_is_warned_about_otherwise(net):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        to_layered(net, (4, 2))


def zeros(net):
    with torch.no_grad():
        net.stage1[0].conv1.weight.zero_()
    return net


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda net: to_layered(net, ()), "at least one"),
        (lambda net: to_layered(net, (4, 4)), "must differ"),
        (lambda net: to_layered(net, (4, 32)), "between 1 and 16; got 32"),
        (lambda net: to_layered(net, (4,), keep_float=("head",)), "keep_float must name .* 'head'"),
        (lambda net: to_layered(net, (4,), norms="none"), "norms must be one of"),
        (lambda net: to_layered(net, (4,), count="all"), "count must be one of"),
        (lambda net: to_layered(zeros(net), (4, 2)), "stage1.0.conv1: .*zero throughout"),
        (lambda net: to_layered(nn.ReLU(), (4,)), "no convolution or linear layer"),
        (lambda net: to_layered(nn.Linear(2, 2), (4,)), "must hold its layers"),
        (lambda net: to_layered(net, (4, 2)).set_width(8), "4, 2 .*got 8"),
        (lambda net: to_layered(net, (4, 2)).set_width(1), "got 1"),
        (lambda net: to_layered(net, (8, 2), weights=AnyPrecision()).set_width(4), "8, 2 .*got 4"),
        (lambda net: to_layered(net, (4, 2))(torch.ones(1, 3, 8, 8)), "have no start"),
        (lambda net: truncated(to_layered(net, (4, 2)), (2,)), "one trained width"),
        (lambda net: truncated(to_layered(net, (4,)), (8,)), "at most the trained 4; got 8"),
        (
            lambda net: truncated(to_layered(net, (4,), weights=WeightRule(rule="round")), (2,)),
            "rule mid or plain",
        ),
        (lambda net: TrainOnce(combine=(0.5, 0.5)).check(3), "3 numbers of at least 0"),
        (lambda net: TrainOnce(combine=(float("nan"), 0.5)), "2 numbers of at least 0"),
        (lambda net: TrainOnce(combine="random width").check(3), "four widths or more; got 3"),
        (lambda net: TrainOnce(mode="x"), "mode must be one of"),
        (lambda net: TrainOnce(combine="x"), "combine must be one of"),
        (lambda net: TrainOnce(decay=-1.0), "decay must be at least 0"),
        (lambda net: AdaBits(scheme="x"), "scheme must be one of"),
        (lambda net: AdaBits(level=0.0), "level must be greater than 0"),
    ],
)
def test_what_is_refused(net, call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call(net)
    assert "\n" not in str(caught.value)
