"""Units, shared quantisers, reconstruction, export, on ours and on torchvision's networks."""

import copy
import warnings
from dataclasses import replace
from importlib import import_module

import pytest
import torch
from torch import nn
from torchvision.models import get_model

from smallnets.quantize.genie.frozen import export, restore
from smallnets.quantize.genie.network import BitPolicy, calibrate, quantize
from smallnets.quantize.genie.quantizers import quantizers_in
from smallnets.quantize.genie.reconstruct import ReconstructionSettings, minibatches, reconstruct
from smallnets.quantize.genie.synthesis import SynthesisSettings, synthesize
from smallnets.quantize.genie.units import find_units, traced

FEW = ReconstructionSettings(
    iterations=12, batch_size=16, lr_bit=3e-2, lr_step=1e-3, lr_activation=4e-4
)
EVERYTHING = BitPolicy(first=None, second_input=None, last=None, images=16)


def test_units_of_a_resnet(resnet):
    graph = traced(resnet)
    assert [unit.name for unit in find_units(graph)] == [
        "conv", "stage1.0", "stage2.0", "stage3.0", "classifier",
    ]  # fmt: skip
    layers = find_units(graph, "layer")
    assert len(layers) == 10
    assert [unit.layers for unit in layers[:2]] == [("conv",), ("stage1.0.conv1",)]
    (whole,) = find_units(graph, "model")
    assert len(whole.layers) == 10
    for units in (layers, [whole], find_units(graph)):
        nodes = [node for unit in units for node in unit.nodes]
        assert nodes == [
            n for n in graph.graph.nodes if n.op not in ("placeholder", "output", "get_attr")
        ]
    with pytest.raises(ValueError, match="unit must be one of block, layer, model"):
        find_units(graph, "stage")


# blocks with weights, and how many tensors are quantised
TORCHVISION = {
    "resnet18": (10, ["layer1.0", "layer1.1"], 17),
    "resnet50": (18, ["layer1.0", "layer4.2"], 49),
    "mobilenet_v2": (20, ["features.1.conv", "features.2.conv", "features.3.conv"], 52),
    "regnet_x_400mf": (24, ["trunk_output.block1.block1-0"], 67),
    "mnasnet0_5": (21, ["layers.8.0.layers", "layers.8.1.layers"], 52),
    "densenet121": (9, ["features.denseblock1", "features.transition1.conv"], 120),
    "efficientnet_b0": (19, ["features.1.0.block", "features.2.1.block"], 81),
}


@pytest.mark.parametrize("name", TORCHVISION)
def test_units_of_torchvision_networks(name):
    count, some, tensors = TORCHVISION[name]
    network = get_model(name, weights=None, num_classes=4).eval()
    graph = traced(network)
    units = find_units(graph)
    assert len(units) == count
    assert set(some) <= {unit.name for unit in units}
    assert all(len(unit.entries) == len(unit.exits) == 1 for unit in units)
    from smallnets.quantize.genie.network import _sites, layer_nodes

    _, widths, read = _sites(graph, layer_nodes(graph), 4, BitPolicy())
    assert len(widths) == tensors
    assert len(read) == len(layer_nodes(graph)) - 1


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "mnasnet0_5", "shufflenet_v2_x0_5"])
def test_the_whole_way_on_torchvision_networks(name):
    network = get_model(name, weights=None, num_classes=4).eval()
    few = SynthesisSettings(iterations=1, batch_size=2, latent_dim=4, widths=(4, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # untrained statistics, 1x1 maps
        images = synthesize(network, 2, (3, 32, 32), settings=few).images
    result = quantize(network, 4, 4, sample=512, ratios=10)
    one = ReconstructionSettings(iterations=1, batch_size=2, init_images=2)
    histories = reconstruct(result, images, one)
    assert sum(len(one.layers) for one in histories) == len(result.table)
    again = restore(quantize(network, 4, 4, ratios=1), export(result))
    assert torch.equal(again(images), result(images))


def test_one_quantiser_for_one_tensor(resnet, pictures):
    result = quantize(resnet, 4, 4)
    rows = {row.layer: row for row in result.table}
    assert rows["stage2.0.conv1"].quantizer == rows["stage2.0.shortcut.conv"].quantizer
    assert len(result.activations) == 7  # two a block and the classifier's
    assert [rows[n].weight_bits for n in ("conv", "stage1.0.conv1", "classifier")] == [8, 4, 8]
    assert [rows[n].input_bits for n in ("conv", "stage1.0.conv1", "stage1.0.conv2", "classifier")
            ] == [None, 8, 4, 8]  # fmt: skip
    block = result.units()[1]  # its identity is the second layer's input: 8 bits, shared
    _, student = result.pair(block)
    assert len(quantizers_in(student)[1]) == 2
    calls = [node.target for node in student.graph.nodes if "activation" in str(node.target)]
    assert len(calls) == 3
    assert len(set(calls)) == 2
    deploying = quantize(resnet, 4, 4, policy=BitPolicy(images=8, additions=8))
    assert len(deploying.activations) == 7 + 1 + 3 + 2  # images, branches, shortcuts


def test_many_levels_are_no_quantisation(resnet, pictures):
    network = resnet.double()
    x = pictures.double()
    result = calibrate(quantize(network, 16, 16, mode="nearest", policy=EVERYTHING), x)
    torch.testing.assert_close(result(x), network(x), rtol=0, atol=2e-3)
    assert not torch.allclose(
        calibrate(quantize(network, 4, 4, mode="nearest"), x)(x), network(x), atol=1e-2
    )


def test_folding_changes_nothing(resnet, pictures):
    folded = traced(resnet, fold=True)(pictures)
    torch.testing.assert_close(folded, resnet(pictures), rtol=1e-4, atol=1e-4)
    result = quantize(resnet, 8, 8, fold=True)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in result.root.modules())
    linear = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)).eval()
    x = torch.randn(5, 4)
    torch.testing.assert_close(traced(linear, fold=True)(x), linear(x))


@pytest.mark.parametrize("unit", ["block", "layer", "model"])
def test_reconstruction_lowers_the_error(resnet, pictures, unit):
    result = quantize(resnet, 2, 4)
    longer = replace(FEW, iterations=40)
    histories = reconstruct(result, pictures, longer, unit=unit)
    assert histories[-1].after < histories[-1].before
    assert len(histories) == {"block": 5, "layer": 10, "model": 1}[unit]
    assert all(len(one.steps) == 40 for one in histories)
    first = histories[0].steps
    assert first[0].rounding == 0  # warm-up
    assert first[-1].rounding > 0
    assert (first[0].beta, first[-1].beta) == (20.0, 2.0)
    assert all(one.mix is None for one in result.activations)
    assert not any(one.soft for one in result.weights.values())


@pytest.mark.parametrize("mode", ["nearest", "adaround", "naive", "genie", "lsq"])
def test_every_mode_can_be_reconstructed(resnet, pictures, mode):
    result = quantize(resnet, 3, 3, mode=mode, gradient="lsq")
    steps = {name: one.step.detach().clone() for name, one in result.weights.items()}
    reconstruct(result, pictures, FEW)
    moved = [not torch.equal(one.step, steps[n]) for n, one in result.weights.items()]
    assert all(moved) if mode in ("naive", "genie", "lsq") else not any(moved)
    again = quantize(resnet, 3, 3, mode=mode, gradient="lsq")
    reconstruct(again, pictures, FEW)
    assert torch.equal(again(pictures), result(pictures)), "the same seed, the same bits"


def test_caching_is_by_the_quantised_prefix(resnet, pictures):
    result = quantize(resnet, 2, 4)
    histories = reconstruct(result, pictures, FEW)
    wanted = resnet(pictures)
    end = (result(pictures) - wanted).square().sum(1).mean()
    assert histories[-1].after == pytest.approx(end.item(), rel=1e-4)


def test_only_some_units(resnet, pictures):
    result = quantize(resnet, 2, 4)
    histories = reconstruct(result, pictures, FEW, only=["stage2.0"])
    assert [bool(one.steps) for one in histories] == [False, False, True, False, False]
    with pytest.raises(ValueError, match=r"unit must be one of conv, stage1.0.*got 'stage9'"):
        reconstruct(result, pictures, FEW, only=["stage9"])


def test_the_network_is_left_alone(resnet, pictures):
    before = {key: value.clone() for key, value in resnet.state_dict().items()}
    reconstruct(quantize(resnet, 2, 4, fold=True), pictures, FEW)
    assert all(torch.equal(value, before[key]) for key, value in resnet.state_dict().items())
    assert all(p.requires_grad for p in resnet.parameters())


def test_export_and_restore(resnet, pictures):
    result = quantize(resnet, 2, 4)
    with pytest.raises(ValueError, match="must be calibrated or reconstructed before"):
        export(result)
    reconstruct(result, pictures, FEW)
    state = export(result)
    assert state["stage1.0.conv1.codes"].dtype == torch.uint8
    assert int(state["stage1.0.conv1.codes"].max()) <= 3
    again = restore(quantize(resnet, 2, 4), state)
    assert torch.equal(again(pictures), result(pictures))
    copied = copy.deepcopy(result)
    assert torch.equal(copied(pictures), result(pictures))
    with pytest.raises(ValueError, match="it differs in"):
        restore(quantize(resnet, 2, 4), {k: v for k, v in state.items() if "zero" not in k})
    other = {**state, "conv.codes": state["conv.codes"][:2]}
    with pytest.raises(ValueError, match=r"conv.codes must have shape"):
        restore(quantize(resnet, 2, 4), other)
    with pytest.raises(ValueError, match=r"activation relu must be those of 8 bits|of 2 bits"):
        restore(quantize(resnet, 2, 2), state)
    fresh = quantize(resnet, 2, 4)
    with pytest.raises(ValueError, match=r"conv.codes must be at most 255 \(8 bits\); got 511"):
        restore(fresh, {**state, "conv.codes": state["conv.codes"].int() + 256})
    assert not any(one.ready for one in fresh.activations), "a refused state changes nothing"
    plain = quantize(resnet, 2, 4)
    plain.load_state_dict(result.state_dict())
    assert torch.equal(plain(pictures), result(pictures))


def test_an_interruption_leaves_a_finished_network(resnet, pictures, monkeypatch):
    module = import_module("smallnets.quantize.genie.reconstruct")  # the function has its name
    calls = []

    def dies(*args):
        calls.append(1)
        if len(calls) > 20:
            raise KeyboardInterrupt
        return original(*args)

    original = module.reconstruction_loss
    monkeypatch.setattr(module, "reconstruction_loss", dies)
    result = quantize(resnet, 2, 4)
    with pytest.raises(KeyboardInterrupt):
        reconstruct(result, pictures, FEW)
    assert not any(one.soft for one in result.weights.values())
    assert all(one.mix is None for one in result.activations)


def test_type_and_device_move_all_of_it(resnet, pictures):
    double = quantize(resnet, 4, 4).double()
    reconstruct(double, pictures.double(), FEW)
    assert double(pictures.double()).dtype == torch.float64
    assert double.original.conv.weight.dtype == torch.float64


def test_a_copy_can_be_moved_alone(resnet, pictures):
    result = calibrate(quantize(resnet, 4, 4), pictures)
    before = result(pictures)
    moved = copy.deepcopy(result).double()
    assert moved(pictures.double()).dtype == torch.float64
    assert moved.original.conv.weight.dtype == torch.float64
    assert result.original.conv.weight.dtype == torch.float32
    assert torch.equal(result(pictures), before)
    unit = moved.units()[1]
    student = moved.pair(unit)[1]
    assert len(quantizers_in(student)[1]) == 2, "steps of units are still those of the copy"


class Odd(nn.Module):
    """A layer of an awkward name, and one layer behind two norms."""

    def __init__(self):
        super().__init__()
        self.values = nn.Conv2d(3, 4, 3, padding=1)
        self.twice = nn.Conv2d(4, 4, 3, padding=1)
        self.one, self.two = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        x = self.values(x)
        x = self.one(self.twice(x)) + self.two(self.twice(x))
        return self.head(x.mean((2, 3)))


def test_odd_networks(pictures):
    torch.manual_seed(0)
    network = Odd()
    network.train()(pictures * 3)
    with torch.no_grad():
        network.two.weight.fill_(3)
    network.eval()
    folded = calibrate(
        quantize(network, 16, 16, mode="nearest", fold=True, policy=EVERYTHING), pictures
    )
    assert torch.allclose(folded(pictures), network(pictures), atol=2e-3)
    reconstruct(quantize(network, 4, 4), pictures, FEW)


class Counting(nn.Module):
    """A number is read early and used late."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

    def forward(self, x):
        count = x.shape[0]
        return self.second(self.first(x)).reshape(count, -1)


def test_a_number_between_layers_is_no_place_to_cut(pictures):
    result = quantize(Counting().eval(), 4, 4)
    with pytest.raises(ValueError, match=r"something else than tensors .* by block or as a whole"):
        reconstruct(result, pictures, FEW, unit="layer")


@pytest.mark.parametrize("mode", ["nearest", "genie"])
@pytest.mark.parametrize("drop", [0.0, 1.0])
def test_the_ends_of_qdrop(resnet, pictures, mode, drop):
    result, held = quantize(resnet, 4, 4, mode=mode), quantize(resnet, 4, 4, mode=mode)
    histories = reconstruct(result, pictures, replace(FEW, drop=drop))
    reconstruct(held, pictures, replace(FEW, drop=drop, learn_activations=False))
    moved = not torch.equal(result.activations[0].step, held.activations[0].step)
    assert moved == (drop == 1), "without quantised activations their steps learn nothing"
    assert bool(histories[0].steps) == (mode == "genie")


def test_in_place_activations_do_no_harm(pictures):
    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(3, 4, 3, padding=1)
            self.norm = nn.BatchNorm2d(4)
            self.relu = nn.ReLU(inplace=True)
            self.second = nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x):
            x = self.relu(self.norm(self.first(x)))
            out = self.second(x)
            out += x
            return self.relu(out).mean((2, 3))

    network = InPlace().eval()
    torch.testing.assert_close(traced(network)(pictures), network(pictures))
    result = quantize(network, 8, 8, policy=BitPolicy(second_input=None, last=None))
    reconstruct(result, pictures, FEW)
    torch.testing.assert_close(result(pictures), network(pictures), atol=0.05, rtol=0.1)


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return self.layer(x) if x.sum() > 0 else x


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return self.layer(x), x


def test_what_cannot_be_quantised(resnet):
    with pytest.raises(ValueError, match=r"weight_bits must be at least 2; got 1"):
        quantize(resnet, 1, 4)
    with pytest.raises(ValueError, match=r"activation_bits must be between 2 and 16; got 32"):
        quantize(resnet, 4, 32)
    with pytest.raises(ValueError, match="mode must be one of"):
        quantize(resnet, 4, 4, mode="up")
    with pytest.raises(ValueError, match="last must be at least 2; got 0"):
        BitPolicy(last=0)
    with pytest.raises(ValueError, match="second_input must be None for a network with a single"):
        quantize(nn.Sequential(nn.Conv2d(3, 3, 1)).eval(), 4, 4)
    with pytest.raises(ValueError, match="must have convolutions or linear layers"):
        quantize(nn.Sequential(nn.ReLU()).eval(), 4, 4)
    with pytest.raises(ValueError, match=r"must be traceable by torch.fx: "):
        quantize(Branches().eval(), 4, 4)
    with pytest.raises(ValueError, match="must take one tensor and give one"):
        quantize(Two().eval(), 4, 4)
    with pytest.raises(ValueError, match=r"evaluation mode; call eval\(\) first"):
        quantize(resnet.train(), 4, 4)
    two = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)).eval()
    two[1].weight.data[2] = 0.25
    with pytest.warns(UserWarning, match=r"1: channels \[2\] of the tensor hold a single value"):
        quantize(two, 4, 4)


def test_unsuitable_images(resnet, pictures):
    result = quantize(resnet, 4, 4)
    with pytest.raises(ValueError, match=r"must be a float tensor .*got torch.uint8"):
        reconstruct(result, pictures.to(torch.uint8), FEW)
    with pytest.raises(ValueError, match="must be a float tensor"):
        reconstruct(result, pictures[0], FEW)
    with pytest.raises(ValueError, match="must have 3 channels; got 1"):
        calibrate(result, pictures[:, :1])
    with pytest.raises(ValueError, match=r"must be torch.float32; got torch.float64"):
        calibrate(result, pictures.double())
    with pytest.raises(ValueError, match="must be finite"):
        calibrate(result, pictures / 0)
    with pytest.raises(ValueError, match="at least one batch of 16 images; got 3"):
        reconstruct(result, pictures[:3], FEW)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"iterations": 0}, "iterations must be at least 1; got 0"),
        ({"warmup": 1.0}, "warmup must be below 1; got 1"),
        ({"beta_end": 0.0}, "beta_end must be greater than 0"),
        ({"drop": 1.5}, "drop must be between 0 and 1"),
        ({"regulariser": -1.0}, "regulariser must be at least 0"),
    ],
)
def test_settings_are_checked(changes, message):
    with pytest.raises(ValueError, match=message):
        ReconstructionSettings(**changes)


def test_minibatches_are_whole_and_cover_everything():
    settings = ReconstructionSettings(iterations=6, batch_size=4)
    rows = minibatches(13, settings, torch.Generator().manual_seed(0))
    assert [len(one) for one in rows] == [4] * 6
    for pass_ in (rows[:3], rows[3:]):
        assert len(set(torch.cat(pass_).tolist())) == 12
    assert not torch.equal(torch.cat(rows[:3]), torch.cat(rows[3:]))
    with pytest.raises(ValueError, match="number of calibration images must be at least 4; got 3"):
        minibatches(3, settings)


class Statements(nn.Module):
    """Steps whose result nobody reads, and what should come of them."""

    def __init__(self, then):
        super().__init__()
        self.first, self.second, self.then = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), then

    def forward(self, x):
        x = self.first(x)
        self.then(x)
        return self.second(x).mean((2, 3))


STATEMENTS = {
    "a method": lambda x: x.add_(1),
    "a function": lambda x: nn.functional.relu(x, inplace=True),
    "a function of its own": lambda x: torch.relu_(x),
    "two of them": lambda x: x.mul_(2).sub_(1),
    "an assertion": lambda x: torch._assert(x.shape[1] == 4, "channels"),
}


@pytest.mark.parametrize("name", STATEMENTS)
def test_statements_without_a_value_are_not_lost(name, pictures):
    torch.manual_seed(0)
    network = Statements(STATEMENTS[name]).eval()
    wanted = network(pictures)
    result = quantize(network, 16, 16, mode="nearest", policy=EVERYTHING)
    reconstruct(result, pictures, FEW, unit="layer" if name != "an assertion" else "model")
    torch.testing.assert_close(result(pictures), wanted, atol=2e-3, rtol=2e-3)
    torch.testing.assert_close(traced(network)(pictures), wanted)


def test_an_assertion_still_fails_in_the_trace(pictures):
    network = Statements(lambda x: torch._assert(x.shape[1] == 5, "five channels")).eval()
    with pytest.raises(AssertionError, match="five channels"):
        traced(network)(pictures)


class Counted(nn.Module):
    """Gives something else at every call: a number that a trace holds fast."""

    def __init__(self):
        super().__init__()
        self.layer, self.calls = nn.Conv2d(3, 4, 3), 0

    def forward(self, x):
        self.calls += 1
        return self.layer(x).mean((2, 3)) * self.calls


def hooked():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 14 * 14, 3))
    network.register_forward_pre_hook(lambda _, inputs: inputs[0] * 2)
    return network


def written_through_a_view(x):
    x[:, 0].mul_(3)


@pytest.mark.parametrize(
    "make",
    [Counted, hooked, lambda: Statements(written_through_a_view)],
    ids=["a counter", "a hook around it", "a view"],
)
@pytest.mark.parametrize("act", [calibrate, reconstruct, lambda network, x: network(x)])
def test_a_trace_that_is_not_the_network_is_refused(make, act, pictures):
    result = quantize(make().eval(), 8, 8, policy=BitPolicy(second_input=None))
    with pytest.raises(ValueError, match=r"^the traced network must give what the network gives; "):
        act(result, pictures)


def test_a_trace_of_one_batch_size_is_refused(pictures):
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return self.layer(x).mean((2, 3)) + self.shift(x)

    network = Fixed().eval()
    network.shift = lambda x: 0.0
    result = quantize(network, 8, 8, policy=BitPolicy(second_input=None))
    network = result._untraced[0]
    network.shift = lambda x: float(len(x) < 8)
    with pytest.raises(ValueError, match=r"what the network gives; for 4 images it is off by"):
        calibrate(result, pictures)


class Norms(nn.Module):
    """BatchNorm1d over dimension 1, where the linear layer before it writes dimension 2."""

    def __init__(self):
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(16, 16)
        self.norm, self.head = nn.BatchNorm1d(16), nn.Linear(16, 5)

    def forward(self, x):
        return self.head(self.norm(self.linear(self.conv(x).mean(1))).mean(1))


class Penalised(nn.Module):
    """A layer whose weight is read once more."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 5)

    def forward(self, x):
        return self.head(self.norm(self.conv(x)).mean((2, 3))) + self.conv.weight.square().mean()


def head(*layers):
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))


SHARED = nn.BatchNorm2d(8)
NOT_FOLDED = {
    "another axis": Norms,
    "a weight read twice": Penalised,
    "no statistics": lambda: head(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, track_running_stats=False)),
    "something between": lambda: head(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.BatchNorm2d(8)),
    "transposed": lambda: head(nn.ConvTranspose2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1)),
    "a norm at two places": lambda: head(nn.Conv2d(3, 8, 3), SHARED, nn.Conv2d(8, 8, 3), SHARED),
}
FOLDED = {
    "groups": lambda: head(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=4), nn.BatchNorm2d(8)),
    "no scale": lambda: head(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, affine=False)),
    "a linear layer behind a flattening": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(768, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 5)
    ),
}


@pytest.mark.parametrize("name", [*NOT_FOLDED, *FOLDED])
def test_norms_are_folded_where_axis_and_statistics_fit_and_stay_elsewhere(name, pictures):
    torch.manual_seed(0)
    network = {**NOT_FOLDED, **FOLDED}[name]().eval()
    for module in network.modules():
        if getattr(module, "running_mean", None) is not None:
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    graph = traced(network, fold=True)
    kept = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in graph.modules())
    assert kept == (name in NOT_FOLDED)
    torch.testing.assert_close(graph(pictures), network(pictures), rtol=1e-4, atol=1e-4)


def test_a_layer_at_two_places_is_quantised_at_both(pictures):
    torch.manual_seed(0)
    shared = nn.Conv2d(8, 8, 3, padding=1)
    network = head(nn.Conv2d(3, 8, 3), nn.ReLU(), shared, nn.ReLU(), shared).eval()
    result = calibrate(quantize(network, 8, 8, mode="nearest"), pictures)
    uses = [n for n in result._whole[0].graph.nodes if str(n.target) in ("2", "4")]
    assert len(uses) == 2
    assert all(type(result.root.get_submodule(str(n.target))).__name__ == "QuantizedLayer"
               for n in uses)  # fmt: skip
    again = restore(quantize(network, 8, 8, mode="nearest"), export(result))
    assert torch.equal(again(pictures), result(pictures))


def test_weights_that_are_no_parameters_are_refused():
    for norm in (nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm):
        network = head(nn.Conv2d(3, 8, 3), norm(nn.Conv2d(8, 8, 3)), nn.BatchNorm2d(8)).eval()
        for fold in (False, True):
            with pytest.raises(ValueError, match=r"^the weight of layer '1' must be a plain param"):
                quantize(network, 8, 8, fold=fold)
