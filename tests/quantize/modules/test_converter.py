"""Quantised layers and the converter, on networks of one's own."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from smallnets.quantize import modules as q
from smallnets.quantize.binary import binary_product, pack_signs
from smallnets.quantize.modules.layers import with_quantisers
from smallnets.surgery import recalibrate
from smallnets.training import seeded

X = torch.rand(24, 3, 8, 8, generator=torch.Generator().manual_seed(0))
Y = torch.arange(24) % 4
LOADER = DataLoader(TensorDataset(X, Y), 8)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6))
        self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.norm = nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        x = F.relu(self.stem(x))
        x = x + F.relu(self.norm(self.depthwise(x)))
        return self.head(x.mean((2, 3)))


@pytest.fixture
def model():
    with seeded(0):
        return recalibrate(Residual().eval(), [X])


ALL = {"skip": (), "weight_bits": 8, "activation_bits": 8}


def test_the_copy_computes_nearly_the_same_and_the_original_stays(model):
    before = copy.deepcopy(model.state_dict())
    network = q.quantize_after_training(model, LOADER)
    with torch.no_grad():
        assert float((network(X) - model(X)).abs().max()) < 0.05 * float(model(X).abs().max())
        assert not torch.equal(network(X), model(X))
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])
    assert q.widths(network) == dict.fromkeys(("stem.0", "depthwise", "head"), (8, 8))
    assert isinstance(network.depthwise, nn.Conv2d)


def test_first_and_last_stay_as_they_are_or_have_more_bits(model):
    network = q.quantize_model(model, weight_bits=2, activation_bits=3)
    assert q.widths(network) == {"depthwise": (2, 3)}
    network = q.quantize_model(model, weight_bits=2, activation_bits=3, skip_bits=8)
    assert q.widths(network) == {"stem.0": (8, 8), "depthwise": (2, 3), "head": (8, 8)}
    network = q.quantize_model(model, weight_bits=4, skip=["depthwise"])
    assert q.widths(network) == {"stem.0": (4, 32), "head": (4, 32)}
    own = {"head": (3, None), "depthwise": (None, 5)}
    network = q.quantize_model(model, weight_bits=8, activation_bits=8, bits=own)
    assert q.widths(network) == {"depthwise": (32, 5), "head": (3, 32)}


def test_nothing_to_round_is_the_identity(model):
    for bits in (None, 32):
        same = q.quantize_model(model, weight_bits=bits, activation_bits=bits, skip=())
        assert torch.equal(same(X), model(X))


@pytest.mark.parametrize("name", q.WEIGHTS)
def test_weights_of_every_kind_train(model, name):
    bits = None if name in ("binary", "bwn", "xnor", "twn", "ttq") else 4
    if name == "xnor":
        model.depthwise.weight.data *= 3  # clipped latents still move
    network = q.quantize_model(model, name, None, weight_bits=bits, skip=["stem.0"]).train()
    optimizer = torch.optim.SGD(q.parameter_groups(network, 1e-4), lr=0.1)
    losses = []
    for _ in range(8):
        loss = F.cross_entropy(network(X), Y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        q.after_step(network)
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    if name == "incremental":
        q.incrementally(network, lambda one: None)
    codes = q.weight_codes(network.eval())
    assert list(codes) == ["depthwise", "head"]
    layer = network.head
    torch.testing.assert_close(codes["head"].values, layer.quantized_weight().detach())


@pytest.mark.parametrize("name", q.ACTIVATIONS)
def test_activations_of_every_kind_train_and_become_plain(model, name):
    bits = None if name in ("sign", "xnor") else 4
    network = q.quantize_model(model, "bwn", name, activation_bits=bits, skip=["stem.0"])
    network.train()
    optimizer = torch.optim.SGD(q.parameter_groups(network, 0), lr=0.05)
    losses = []
    for _ in range(6):
        loss = F.cross_entropy(network(X), Y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        q.after_step(network)
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    plain = q.as_plain(network)
    assert not any(isinstance(module, q.Quantizer) for module in plain.modules())
    torch.testing.assert_close(plain(X), network.eval()(X).detach(), rtol=1e-4, atol=1e-5)
    assert not plain.training


def test_steps_are_not_decayed_and_ends_of_ranges_are(model):
    network = q.quantize_model(model, "lsq", "pact", weight_bits=4, activation_bits=4, skip=())
    decayed, free = q.parameter_groups(network, 0.1)
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.1, 0.0)
    ids = {id(one) for one in decayed["params"]}
    assert id(network.head.a_quant.alpha) in ids
    assert id(network.head.weight) in ids
    assert id(network.head.w_quant.step) not in ids
    total = len(decayed["params"]) + len(free["params"])
    assert total == len(list(network.parameters()))


def test_calibration_looks_at_all_batches_and_leaves_modes(model):
    network = q.quantize_model(model, None, "affine", activation_bits=8, skip=()).train()
    network.norm.eval()
    q.calibrate(network, [(X[:8], Y[:8]), (3 * X[8:], Y[8:])])
    assert network.training
    assert not network.norm.training
    assert float(network.stem[0].a_quant.most) == pytest.approx(float(3 * X[8:].max()))
    exact = q.layer_inputs(network, LOADER)["head"]
    assert exact.shape == (24 * 6,)
    few = q.layer_inputs(network, LOADER, sample=10)["stem.0"]
    assert len(few) <= 3 * 12
    assert float(few.max()) == float(X.max())
    assert float(few.min()) == float(X.min())


def test_first_batch_starts_steps_as_calibration_does(model):
    networks = [q.quantize_model(model, None, "lsq", activation_bits=4, skip=()) for _ in "ab"]
    with torch.no_grad():
        networks[0].train()(X)
    networks[1].train()
    q.calibrate(networks[1], X)
    first, second = (one.stem[0].a_quant.step for one in networks)
    torch.testing.assert_close(first, second)
    with pytest.raises(ValueError, match="has no start yet"):
        q.quantize_model(model, None, "lsq", activation_bits=4, skip=()).eval()(X)


def test_state_is_loaded_into_a_fresh_network(model):
    kinds = {"weight_bits": 4, "activation_bits": 4, "skip": ()}
    network = q.quantize_model(model, lambda bits: q.LSQWeight(bits, True), "lsq", **kinds)
    q.calibrate(network, LOADER)
    q.freeze(network)
    fresh = q.quantize_model(Residual(), lambda bits: q.LSQWeight(bits, True), "lsq", **kinds)
    fresh.load_state_dict(network.state_dict())
    assert torch.equal(fresh.eval()(X), network.eval()(X))
    network.train()(X).sum().backward()
    assert network.head.weight.grad is None
    assert network.head.bias.grad is not None


def test_folding_changes_nothing_but_rounding(model):
    with torch.no_grad():
        model.norm.running_var.mul_(3)
        model.norm.weight.mul_(2)
    folded = q.fold_batch_norm(model, X)
    torch.testing.assert_close(folded(X), model(X), rtol=1e-4, atol=1e-5)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert all(parameter.requires_grad for parameter in folded.parameters())
    network = q.quantize_after_training(model, LOADER, fold=True, weights="affine")
    assert list(q.widths(network)) == ["stem.0", "depthwise", "head"]
    scale = float(model(X).detach().abs().max())
    assert float((network(X) - model(X)).abs().max()) < 0.05 * scale


def test_statistics_are_taken_anew_where_scales_have_changed(model):
    kinds = {"weights": "dorefa", "activations": "affine", "weight_bits": 4}
    plain = q.quantize_after_training(model, LOADER, **kinds)
    anew = q.quantize_after_training(model, LOADER, **kinds, norms=True)
    seen = []
    for network in (plain, anew):
        network.depthwise.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        network(X)
    with torch.no_grad():
        wanted = F.relu(model.stem(X))
    plain_gap, gap = ((one - wanted).abs().mean() for one in seen)
    assert float(gap) < 0.3 * float(plain_gap)


def test_xnor_convolution_is_signs_and_two_scales():
    with seeded(0):
        layer = q.BinaryConv2d(3, 5, 3, stride=2, padding=1)
    x = X - 0.5
    centred = layer.weight - layer.weight.mean(1, keepdim=True)
    alpha = centred.abs().mean((1, 2, 3))
    signs = torch.where(centred >= 0, 1.0, -1.0)
    sizes = F.avg_pool2d(x.abs().mean(1, keepdim=True), 3, 2, 1)
    wanted = F.conv2d(torch.where(x >= 0, 1.0, -1.0), signs, None, 2, 1)
    wanted = wanted * alpha.view(-1, 1, 1) * sizes + layer.bias.view(-1, 1, 1)
    torch.testing.assert_close(layer(x), wanted, rtol=1e-4, atol=1e-5)
    plain = q.BinaryConv2d(3, 5, 3, scaled=False, bias=False)
    codes = plain.weight_codes()
    product = binary_product(
        pack_signs(plain.a_quant(F.unfold(x[:1], 3)[0].T)),
        pack_signs(2.0 * codes.codes.flatten(1) - 1),
        27,
    )
    counted = torch.from_numpy(product).T * codes.scale.view(-1, 1) / 2
    torch.testing.assert_close(counted.float(), plain(x[:1])[0].flatten(1).detach())


def test_gradients_can_have_few_bits(model):
    network = q.quantize_model(model, None, None, gradient_bits=2, skip=["stem.0"])
    assert torch.equal(network(X), model(X))
    with seeded(0):
        network(X).square().sum().backward()
    model(X).square().sum().backward()
    assert not torch.equal(network.head.bias.grad, model.head.bias.grad)


def test_a_sweep_of_widths(model):
    found = q.sweep(model, [8, 2], lambda one: float(one.training), batches=LOADER)
    assert list(found) == [(8, 32), (2, 32), (32, 8), (32, 2), (8, 8), (2, 2)]
    trained = []
    q.sweep(
        model, iter([4]), lambda one: 0.0, sides=["weights"], weights="symmetric",
        train=trained.append,
    )  # fmt: skip
    assert q.widths(trained[0]) == {"depthwise": (4, 32)}


def test_a_shared_layer_is_quantised_once_and_stays_shared():
    shared = nn.Linear(4, 4)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    network = q.quantize_model(model, "symmetric", None, weight_bits=4, skip=())
    assert network[0] is network[2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": "int8"}, r"weights must be one of affine, .*; got 'int8'"),
        ({"activations": "relu"}, r"activations must be one of affine, .*; got 'relu'"),
        ({"weights": "twn", "weight_bits": 4}, r"weight_bits of twn must be 2; got 4"),
        ({"weight_bits": 0}, r"weight_bits must be at least 1; got 0"),
        ({"weight_bits": 33}, r"weight_bits must be between 1 and 32; got 33"),
        ({"activation_bits": 2.0}, r"activation_bits must be a whole number .*; got 2.0"),
        ({"weight_bits": True}, r"weight_bits must be a whole number .*; got True"),
        ({"weight_bits": 1}, r"bits of LSQWeight must be between 2 and 32; got 1"),
        ({"skip": "first"}, r"skip must be a collection of names; got the string 'first'"),
        ({"skip": ["norm"]}, r"skip must name first, last or layers \(stem.0.*got 'norm'"),
        ({"bits": {"norm": (4, 4)}}, r"bits must name Conv2d and Linear .*'norm' is a BatchNorm2d"),
        ({"bits": {"body": (4, 4)}}, r"'body' is no layer"),
        ({"bits": {"head": (40, 4)}}, r"weight_bits of layer 'head' must be between 1 and 32"),
        ({"skip_bits": 64}, r"skip_bits must be between 1 and 32; got 64"),
        ({"gradient_bits": -1}, r"gradient_bits must be at least 1; got -1"),
        ({"skip": ["first", "depthwise", "last"]}, r"a Conv2d or Linear layer to quantise beside"),
        ({"weights": lambda bits: nn.Identity()}, r"give a Quantizer; got Identity"),
    ],
)
def test_bad_settings(model, change, message):
    given = {"weight_bits": 4, "activation_bits": 4, **change}
    with pytest.raises(ValueError, match=message) as error:
        q.quantize_model(model, **given)
    assert "\n" not in str(error.value)


def test_bad_networks_and_batches(model):
    with pytest.raises(ValueError, match="must hold its layers; got a single layer"):
        q.quantize_model(nn.Linear(3, 3), **ALL)
    with pytest.raises(ValueError, match="its layers are none"):
        q.quantize_model(nn.Sequential(nn.ConvTranspose2d(3, 3, 3)), **ALL)
    network = q.quantize_model(model, **ALL)
    with pytest.raises(ValueError, match=r"layer 'stem.0' is quantised already"):
        q.quantize_model(network, **ALL)
    with pytest.raises(ValueError, match="data must give at least one batch; got none"):
        q.calibrate(network, [])
    with pytest.raises(ValueError, match="hold quantised layers, as quantize_model makes them"):
        q.calibrate(model, LOADER)
    with pytest.raises(ValueError, match=r"input of layer 'stem.0': LSQ cannot start a step"):
        q.calibrate(network, torch.zeros(2, 3, 8, 8))
    model.depthwise.weight.data.zero_()
    with pytest.raises(ValueError, match=r"layer 'depthwise': LSQ cannot start a step from zeros"):
        q.quantize_model(model, **ALL)
    with pytest.raises(ValueError, match="TransformerEncoderLayer reads their weights itself"):
        q.quantize_model(nn.Sequential(nn.TransformerEncoderLayer(8, 2, 8)), **ALL)
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    with pytest.raises(ValueError, match="must have parameters of its own"):
        q.quantize_model(tied, **ALL)
    with pytest.raises(ValueError, match="layers to quantise must be Conv2d or Linear; got LSTM"):
        with_quantisers(nn.LSTM(2, 2), None, None)
    with pytest.raises(ValueError, match="the weight of this layer is not quantised"):
        q.QuantLinear(2, 2).weight_codes()
    with pytest.raises(ValueError, match=r"input of layer 'stem.0': LSQAct has no start yet"):
        q.as_plain(network)
    with pytest.raises(ValueError, match=r"layer 'stem.0': LSQAct has no start yet"):
        q.freeze(network)
    assert not any(bool(one.frozen) for one in network.modules() if isinstance(one, q.Quantizer))
    with pytest.raises(ValueError, match="a sweep of activations needs batches"):
        q.sweep(model, [4], lambda one: 0.0)
    with pytest.raises(ValueError, match="sides must be one of weights, activations, both"):
        q.sweep(model, [4], lambda one: 0.0, sides=["left"])
    with pytest.raises(ValueError, match="bits must hold at least one number; got none"):
        q.sweep(model, [], lambda one: 0.0)
    with pytest.raises(ValueError, match='layers of weights="incremental"; it has none'):
        q.incrementally(network, lambda one: None)
    with pytest.raises(ValueError, match=r"shares must rise to 1; got \[0.5\]"):
        q.incrementally(network, lambda one: None, [0.5])
