import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from smallnets.prune.sparse import (
    NoisyConv2d,
    NoisyLinear,
    Variational,
    VariationalDropout,
    prunable_weights,
    svdo_kl,
)
from smallnets.training import fit


def test_without_noise_it_is_the_network(network, example):
    variational = Variational(network, log_variance=-20.0).eval()
    torch.testing.assert_close(variational(example), network.eval()(example))
    assert all(mask.all() for mask in variational.masks.values())


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_outputs_have_the_mean_and_variance_of_noisy_weights(kind):
    torch.manual_seed(0)
    if kind == "linear":
        layer, x = NoisyLinear.of(nn.Linear(6, 4), log_variance=-2.0), torch.randn(2, 6)
    else:
        plain = nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=2, padding_mode="reflect")
        layer, x = NoisyConv2d.of(plain, log_variance=-2.0), torch.randn(2, 4, 5, 5)
    with torch.no_grad():
        layer.log_variance += torch.randn_like(layer.log_variance) / 2
        layer.train()
        drawn = layer(x.repeat(4000, *[1] * (x.ndim - 1))).unflatten(0, (4000, 2))
        noise = torch.randn(4000, *layer.weight.shape) * (layer.log_variance / 2).exp()
        computed = torch.vmap(lambda weight: layer._computed(x, weight, layer.bias))
        expected = computed(layer.weight + noise)  # the weights themselves are drawn
        error = expected.std(0) / 4000**0.5
        mean = layer._computed(x, layer.weight, layer.bias)
        assert ((drawn.mean(0) - mean).abs() < 5 * error).all()
        torch.testing.assert_close(drawn.std(0), expected.std(0), rtol=0.1, atol=0)


def test_the_divergence_falls_with_noise_to_nothing():
    values = svdo_kl(torch.linspace(-8, 8, 50, dtype=torch.float64))
    assert (values.diff() < 0).all()
    assert 0 <= values[-1] < 1e-3
    log_alpha = torch.randn(5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(svdo_kl, log_alpha)


def test_drowned_weights_go(network, example):
    variational = Variational(network, log_variance=-20.0).eval()
    layer = variational.noisy["conv1"]
    with torch.no_grad():
        layer.log_variance[0] = layer.weight[0].square().log() + 3.1
        layer.log_variance[1] = layer.weight[1].square().log() + 2.9
    plain = variational.plain()
    assert torch.equal(plain.conv1.weight != 0, variational.masks["conv1.weight"] > 0)
    assert (plain.conv1.weight[0] == 0).all()
    assert torch.equal(plain.conv1.weight[1:], network.conv1.weight[1:])
    torch.testing.assert_close(plain(example), variational(example))
    assert [type(m) for m in plain.modules()] == [type(m) for m in network.modules()]
    assert plain.state_dict().keys() == network.state_dict().keys()


def test_a_layer_that_drowns_keeps_its_clearest_weight(network):
    variational = Variational(network)
    with torch.no_grad():
        variational.noisy["head"].log_variance.fill_(10.0)
    clearest = network.head.weight.detach().abs() == network.head.weight.detach().abs().max()
    assert torch.equal(variational.masks["head.weight"] > 0, clearest)


def test_training_moves_weights_and_noise_of_the_named_layers(network, batches, settings):
    before = copy.deepcopy(network.state_dict())
    variational = Variational(network, layers=["conv1", "head"])
    assert list(variational.noisy) == ["conv1", "head"]
    first = variational.noisy["conv1"].log_variance.detach().clone()
    start = float(variational.kl().detach())
    objective = VariationalDropout(examples=96, warm_up=4)
    slow = replace(settings, optimizer="adam", lr=0.02)
    history = fit(variational, batches, slow, seed=0, objective=objective)
    assert (variational.noisy["conv1"].log_variance != first).any()
    assert float(variational.kl().detach()) < start
    assert history[-1].keys() == {"loss", "divergence", "closed"}
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert prunable_weights(variational.plain()).keys() == prunable_weights(network).keys()


def test_the_divergence_is_warmed_up(network, batches):
    variational = Variational(network)
    objective = VariationalDropout(examples=96, warm_up=2, objective=lambda *_: {"loss": 0.0})
    weights = []
    for _ in range(4):
        terms = objective(variational, batches[0])
        weights.append((terms["loss"] / terms["divergence"]).item())
    assert weights == pytest.approx([0, 0.5, 1, 1])


def test_networks_in_other_types_and_layouts(network, example):
    half = Variational(network.to(torch.bfloat16)).train()
    images = example.bfloat16().contiguous(memory_format=torch.channels_last)
    assert half(images).dtype == torch.bfloat16
    assert half.kl().isfinite()


def tied(network):
    network.conv3 = nn.Conv2d(6, 5, 3)
    network.conv3.weight = network.conv1.weight
    return network


class Odd(nn.Linear):
    def forward(self, x):
        return super().forward(x) * 2


REFUSED = {
    "other layer": (
        lambda n: Variational(nn.Sequential(nn.Conv1d(2, 2, 1)), ["0"]),
        "'0' must be a linear layer or a convolution in two dimensions; got Conv1d",
    ),
    "nothing": (lambda n: Variational(nn.Sequential(nn.Conv1d(2, 2, 1))), "Sequential has none"),
    "unknown": (lambda n: Variational(n, ["conv9"]), "layer must be one of"),
    "itself": (lambda n: Variational(nn.Linear(2, 2)), "got a single layer"),
    "tied": (lambda n: Variational(tied(n)), "must have parameters of its own"),
    "odd": (lambda n: Variational(nn.Sequential(Odd(2, 2))), "forward pass of its own"),
    "computed": (
        lambda n: Variational(nn.Sequential(parametrizations.weight_norm(nn.Linear(2, 2)))),
        "bake it in",
    ),
    "variance": (lambda n: Variational(n, log_variance=float("nan")), "log_variance must be betw"),
    "threshold": (lambda n: Variational(n, threshold=99), "threshold must be between -10 and 10"),
    "examples": (lambda n: VariationalDropout(examples=0), "examples must be at least 1; got 0"),
    "warm-up": (lambda n: VariationalDropout(1, warm_up=0.5), "warm_up must be a whole number"),
    "not variational": (
        lambda n: VariationalDropout(1)(n, None), "of the class Variational; got Residual"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_bad_inputs(network, case):
    function, message = REFUSED[case]
    with pytest.raises(ValueError, match=rf"^[^\n]*{message}[^\n]*$"):
        function(network)
