"""Distributions over ternary weights: moments, limits, start and end."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from smallnets.quantize import probabilistic as p
from smallnets.training import seeded


def logits(seed=0, *shape):
    draws = torch.Generator().manual_seed(seed)
    return [torch.randn(shape or (3, 4), generator=draws, dtype=torch.float64) for _ in "ab"]


def test_moments_are_those_of_samples():
    zero, plus = logits()
    probabilities = p.ternary_probabilities(zero, plus)
    torch.testing.assert_close(probabilities.sum(-1), torch.ones_like(zero))
    draws = torch.Generator().manual_seed(1)
    many = torch.multinomial(probabilities.view(-1, 3), 100_000, True, generator=draws) - 1.0
    mean, variance = (one.flatten() for one in p.ternary_moments(zero, plus))
    torch.testing.assert_close(many.mean(1).double(), mean, atol=0.01, rtol=0)
    torch.testing.assert_close(many.var(1).double(), variance, atol=0.01, rtol=0)


def test_outputs_are_those_of_sampled_weights():
    with seeded(0):
        layer = p.TernaryDistributionLinear(30, 2).double()
    layer.logit_zero.data, layer.logit_plus.data = logits(2, 2, 30)
    x = torch.randn(1, 30, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    probabilities = p.ternary_probabilities(layer.logit_zero, layer.logit_plus).detach()
    draws = torch.Generator().manual_seed(4)
    weights = torch.multinomial(probabilities.view(-1, 3), 20_000, True, generator=draws) - 1.0
    sampled = layer.scale * (weights.T.view(-1, 2, 30).double() @ x[0]) + layer.bias.detach()
    layer.generator = torch.Generator().manual_seed(5)
    drawn = layer.train()(x.expand(20_000, 30)).detach()
    for statistic in (torch.mean, torch.std):
        torch.testing.assert_close(statistic(drawn, 0), statistic(sampled, 0), atol=0.02, rtol=0.03)


def test_certain_weights_leave_nothing_to_chance():
    layer = p.TernaryDistributionLinear(3, 1, bias=False)
    layer.logit_zero.data = torch.tensor([[-50.0, 50.0, -50.0]])
    layer.logit_plus.data = torch.tensor([[50.0, 0.0, -50.0]])
    layer.scale.fill_(0.5)
    mean, variance = layer.distribution(torch.tensor([[1.0, 2.0, 4.0]]))
    assert mean.tolist() == [[-1.5]]
    assert float(variance.detach()) < 1e-15
    x = torch.tensor([[1.0, 2.0, 4.0]])
    torch.testing.assert_close(layer.train()(x), layer.eval()(x))
    assert layer.map_weights().tolist() == [[0.5, 0, -0.5]]
    assert layer.weight_codes().codes.tolist() == [[1, 0, -1]]
    assert torch.equal(layer.weight_codes().values, layer.map_weights())


def test_divergence_is_zero_at_the_prior_and_finite_at_the_ends():
    for prior in (0.2, 1 / 3, 0.9):
        zero = torch.full((5,), prior, dtype=torch.float64).logit()
        assert float(p.ternary_kl(zero, torch.zeros_like(zero), prior)) == pytest.approx(
            0, abs=1e-12
        )
        assert float(p.ternary_kl(zero + 1, torch.zeros_like(zero), prior)) > 0.01
    ends = torch.tensor([1e4, -1e4], requires_grad=True)
    found = p.ternary_kl(ends, ends)
    assert float(found.detach()) == pytest.approx(2 * torch.log(torch.tensor(3.0)).item())


def test_means_start_as_the_weights():
    w = torch.linspace(-1, 1, 41, dtype=torch.float64)
    zero, plus = p.ternary_start(w)
    probabilities = p.ternary_probabilities(zero, plus)
    torch.testing.assert_close(probabilities[:, 1], 0.95 - 0.9 * w.abs())
    mean, _ = p.ternary_moments(zero, plus)
    small = w.abs() <= 0.23
    torch.testing.assert_close(mean[small], w[small])
    assert float((mean - w).abs().max()) < 0.16
    assert float(torch.sigmoid(plus).min()) >= 0.05 - 1e-12


@pytest.mark.parametrize("groups", [1, 2])
def test_a_trained_layer_goes_in_and_a_plain_one_comes_out(groups):
    with seeded(0):
        plain = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=groups)
        x = torch.rand(2, 4, 6, 6)
    layer = p.TernaryDistributionConv2d.from_conv(plain)
    mean, variance = layer.distribution(x)
    wanted = plain(x)
    assert float(torch.corrcoef(torch.stack([mean.flatten(), wanted.flatten()]))[0, 1]) > 0.98
    assert bool((variance > 0).all())
    out = layer.most_probable_layer()
    torch.testing.assert_close(out(x), layer.eval()(x))
    assert len(out.weight.unique()) == 3
    linear = nn.Linear(5, 3)
    made = p.TernaryDistributionLinear.from_linear(linear)
    torch.testing.assert_close(
        made.eval()(x[0, 0, :, :5]), made.most_probable_layer()(x[0, 0, :, :5])
    )


def test_it_learns():
    with seeded(0):
        x = torch.randn(200, 6)
        y = (x[:, 0] - x[:, 3] > 0).long()
        network = nn.Sequential(p.TernaryDistributionLinear(6, 8), nn.ReLU(), nn.Linear(8, 2))
        optimizer = torch.optim.Adam(network.parameters(), 0.05)
        for _ in range(100):
            loss = F.cross_entropy(network(x), y) + 1e-4 * p.total_kl(network, 0.5)
            optimizer.zero_grad()
            (loss + 1e-4 * network[0].penalty()).backward()
            optimizer.step()
    found = network.eval()(x).argmax(1)
    assert float((found == y).float().mean()) > 0.9
    state = network.state_dict()
    fresh = nn.Sequential(p.TernaryDistributionLinear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    fresh.load_state_dict(state)
    assert torch.equal(fresh.eval()(x), network(x))


def test_probability_of_a_sign():
    found = p.sign_probability(torch.tensor([0.0, 1.0, -1.0, 0.0]), torch.tensor([1.0, 0, 0, 0]))
    assert found.tolist() == [0.5, 1, 0, 0.5]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: p.ternary_kl(*logits(), 0.0),
            "prior_zero must be strictly between 0 and 1; got 0",
        ),
        (lambda: p.ternary_kl(*logits(), 1.5), "prior_zero must be between 0 and 1; got 1.5"),
        (lambda: p.ternary_start(torch.tensor([torch.nan])), "ternary weights start from finite"),
        (lambda: p.ternary_start(torch.zeros(2), 0.5), "least must be strictly between 0 and 0.5"),
        (lambda: p.TernaryDistributionLinear(0, 3), "every size of a layer must be at least 1"),
        (lambda: p.TernaryDistributionLinear.from_linear(nn.ReLU()), "must be Linear; got ReLU"),
        (lambda: p.TernaryDistributionConv2d.from_conv(nn.ReLU()), "must be Conv2d; got ReLU"),
        (lambda: p.total_kl(nn.ReLU()), "must hold layers of ternary distributions; it has none"),
    ],
)
def test_bad_inputs(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_a_layer_of_zeros_is_refused():
    layer = nn.Linear(3, 3)
    layer.weight.data.zero_()
    with pytest.raises(ValueError, match=r"one that is not 0; got shape \(3, 3\)"):
        p.TernaryDistributionLinear.from_linear(layer)
    padded = nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect")
    with pytest.raises(ValueError, match="padding_mode must be zeros; got 'reflect'"):
        p.TernaryDistributionConv2d.from_conv(padded)
