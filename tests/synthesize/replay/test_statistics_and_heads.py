"""BatchNorm statistics of a classifier, its penultimate features, and its growing head."""

import copy

import pytest
import torch
from torch import nn

from smallnets.models import cifar_resnet
from smallnets.synthesize import replay as r


def test_loss_is_zero_for_a_batch_with_the_stored_statistics():
    torch.manual_seed(0)
    x = torch.randn(6, 3, 4, 4, requires_grad=True)
    var, mean = (one.detach() for one in torch.var_mean(x, (0, 2, 3), unbiased=False))
    stored = [r.BNStatistics("norm", mean, var)]
    for loss in (r.bn_norm_loss, r.gaussian_bn_loss):
        value = loss([x], stored)
        assert float(value.detach()) == pytest.approx(0, abs=1e-6)
        assert torch.autograd.grad(value, x)[0].isfinite().all()
        assert loss([x + 1], stored) > 0.1
        assert loss([2 * x], stored) > 0.1


def test_loss_is_a_mean_over_layers():
    torch.manual_seed(0)
    x, y = torch.randn(6, 3, 4, 4), torch.randn(6, 2)
    a = r.BNStatistics("a", torch.zeros(3), torch.ones(3))
    b = r.BNStatistics("b", torch.ones(2), torch.ones(2))
    for loss in (r.bn_norm_loss, r.gaussian_bn_loss):
        both = loss([x, y], [a, b])
        torch.testing.assert_close(both, (loss([x], [a]) + loss([y], [b])) / 2)


def test_gaussian_loss_is_a_kl_divergence():
    torch.manual_seed(0)
    x = torch.randn(500, 2, dtype=torch.float64) * 2 + 1
    mean, var = x.mean(0), x.var(0, unbiased=False)
    stored = torch.tensor([0.5, -1.0]).double(), torch.tensor([0.7, 3.0]).double()
    expected = torch.distributions.kl_divergence(
        torch.distributions.Normal(stored[0], stored[1].sqrt()),
        torch.distributions.Normal(mean, var.sqrt()),
    ).mean()
    found = r.gaussian_bn_loss([x], [r.BNStatistics("x", *stored)])
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


def test_tap_leaves_nothing_behind():
    model = cifar_resnet(8, 3, width=4).eval()
    images = torch.randn(4, 3, 8, 8)

    def hooks():
        return [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]

    before, state = hooks(), {name: dict(m.__dict__) for name, m in model.named_modules()}
    with r.ClassifierTap(model) as tap:
        assert sum(hooks()) > sum(before)
        logits = model(images)
        assert [one.name for one in tap.statistics] == [
            name for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)
        ]
        assert [x.shape[1] for x in tap.inputs] == [len(one.mean) for one in tap.statistics]
        torch.testing.assert_close(model.classifier(tap.features), logits)
    assert hooks() == before
    for name, module in model.named_modules():
        assert set(module.__dict__) == set(state[name])
    copy.deepcopy(model)
    with pytest.raises(RuntimeError, match="on purpose"), r.ClassifierTap(model):
        raise RuntimeError("on purpose")
    assert hooks() == before


class SkipsANorm(nn.Sequential):
    def forward(self, x):
        return self.head(self.norm(x))


def test_layers_that_do_not_run_are_not_matched():
    model = SkipsANorm()
    model.norm, model.other, model.head = nn.BatchNorm1d(4), nn.BatchNorm1d(4), nn.Linear(4, 2)
    with r.ClassifierTap(model.eval()) as tap:
        model(torch.randn(3, 4))
        assert [one.name for one in tap.statistics] == ["norm"]


def test_growth_keeps_old_rows_and_draws_new_ones():
    torch.manual_seed(0)
    model = cifar_resnet(8, 4, width=4).eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    grown = r.grow_head(model, 3, seed=5)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    head = grown.classifier
    assert head.out_features == 7
    assert torch.equal(head.weight[:4], model.classifier.weight)
    assert torch.equal(head.bias[:4], model.classifier.bias)
    assert head.weight[4:].std() > 0
    assert torch.equal(r.grow_head(model, 3, seed=5).classifier.weight, head.weight)
    assert not torch.equal(r.grow_head(model, 3, seed=6).classifier.weight, head.weight)
    added = sum(p.numel() for p in grown.parameters()) - sum(p.numel() for p in model.parameters())
    assert added == 3 * (head.in_features + 1)


def test_old_logits_are_bitwise_the_same():
    """On whole numbers, whose sums are exact in whatever order a processor takes them."""
    model = nn.Sequential(nn.Linear(16, 5))
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randint(-8, 9, p.shape))
    x = torch.randint(-8, 9, (10, 16)).float()
    assert torch.equal(r.grow_head(model, 4)(x)[:, :5], model(x))


def test_heads_of_every_kind():
    without = nn.Sequential(nn.Linear(3, 2, bias=False)).double().eval()
    grown = r.grow_head(without, 1)
    assert grown[0].bias is None
    assert grown[0].weight.dtype == torch.float64
    assert not grown[0].training
    named = nn.Sequential()
    named.fc, named.extra = nn.Linear(3, 2), nn.ReLU()
    assert r.head_name(named, "fc") == "fc"
    assert r.grow_head(named, 2, head="fc").fc.out_features == 4
    seen = r.OpenClassifier(named.eval(), "fc")(torch.ones(2, 3))
    torch.testing.assert_close(seen.features["head"], torch.ones(2, 3))
    assert not named.fc._forward_pre_hooks


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: r.head_name(nn.Sequential(nn.Linear(2, 2), nn.ReLU())),
            "'1' is a ReLU: say which",
        ),
        (lambda: r.head_name(nn.Sequential(nn.Conv2d(2, 2, 1))), "an nn.Linear; '0' is a Conv2d"),
        (
            lambda: r.head_name(nn.Sequential(nn.Linear(2, 2)), "fc"),
            "head must be one of 0; got 'fc'",
        ),
        (lambda: r.head_name(nn.Linear(2, 2)), "Linear has no layers in it"),
        (lambda: r.grow_head(nn.Sequential(nn.Linear(2, 2)), 0), "n_new must be at least 1; got 0"),
        (
            lambda: r.bn_statistics(nn.Sequential(nn.Linear(2, 2))),
            "Sequential has none: set the weight",
        ),
        (
            lambda: r.bn_statistics(nn.Sequential(nn.BatchNorm1d(2, track_running_stats=False))),
            "'0' keeps none",
        ),
        (lambda: r.bn_norm_loss([], []), "one or more; got 0"),
        (
            lambda: r.bn_norm_loss(
                [torch.zeros(2, 3)], [r.BNStatistics("n", torch.zeros(2), torch.ones(2))]
            ),
            r"input of 'n' must be \(batch, 2, ...\); got \(2, 3\)",
        ),
    ],
)
def test_refused(call, message):
    with pytest.raises(ValueError, match=rf"^[^\n]*{message}[^\n]*$"):
        call()
