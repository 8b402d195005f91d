"""Adversarial, reconstruction, perceptual and matching losses, distillation and alignment."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from smallnets import gan
from smallnets.training import seeded

ONE_LINE = r"^[^\n]+$"


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_hinge_is_content_beyond_its_margins_and_one_at_zero():
    good, bad = torch.full((2, 1, 3, 3), 1.5), torch.full((2, 1, 3, 3), -1.5)
    assert [float(x) for x in gan.discriminator_losses(bad, good, "hinge")] == [0, 0]
    zero = torch.zeros(2, 1, 3, 3)
    assert [float(x) for x in gan.discriminator_losses(zero, zero, "hinge")] == [1, 1]


def test_vanilla_is_the_cross_entropy():
    x = drawn(2, 1, 4, 4)
    for real in (True, False):
        target = torch.full_like(x, float(real))
        found = gan.gan_loss(x, "vanilla", real=real, for_discriminator=True)
        torch.testing.assert_close(found, F.binary_cross_entropy_with_logits(x, target))
    assert math.isclose(
        float(gan.generator_loss(torch.zeros(1, 1), "vanilla")), math.log(2), rel_tol=1e-6
    )


@pytest.mark.parametrize("mode", gan.GAN_MODES)
def test_large_logits_stay_finite(mode):
    x = torch.full((1, 1, 2, 2), 1e3)
    terms = [gan.generator_loss(x, mode), *gan.discriminator_losses(x, -x, mode)]
    assert all(bool(term.isfinite()) for term in terms)


def test_least_squares_have_their_optimum_at_the_targets():
    one = torch.ones(1, 1, 2, 2)
    assert float(gan.generator_loss(one, "lsgan")) == 0
    assert [float(x) for x in gan.discriminator_losses(one * 0, one, "lsgan")] == [0, 0]


@pytest.mark.parametrize(("mode", "factor"), [("hinge", 1), ("lsgan", 3), ("vanilla", 3)])
def test_scales_are_averaged_or_summed(mode, factor):
    x = drawn(2, 1, 4, 4)
    one, three = gan.generator_loss(x, mode), gan.generator_loss([x, x, x], mode)
    torch.testing.assert_close(three, factor * one)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: gan.gan_loss(x, "relativistic", real=True, for_discriminator=True),
        lambda x: gan.gan_loss(x, "hinge", real=False, for_discriminator=False),
        lambda x: gan.generator_loss([x, x], "wgangp"),
        lambda x: gan.generator_loss([], "hinge"),
        lambda x: gan.gradient_penalty(lambda y: y, x, x, kind="both"),
        lambda x: gan.gradient_penalty(lambda y: y, x, x[:1]),
        lambda x: gan.reconstruction_loss(x, x[:1]),
        lambda x: gan.reconstruction_loss(x, x, "l3"),
        lambda x: gan.reconstruction_loss(x, x, "perceptual"),
        lambda x: gan.feature_matching([[x, x]], [[x]]),
        lambda x: gan.feature_matching([[x]], [[x]]),
        lambda x: gan.feature_matching([[x, x]], [[x[:1], x]]),
        lambda x: gan.PerceptualLoss(nn.Sequential(nn.ReLU()), ["1"]),
        lambda x: gan.PerceptualLoss(nn.Sequential(nn.ReLU()), []),
        lambda x: gan.PerceptualLoss(nn.Sequential(nn.ReLU()), ["0"], [1.0, 2.0]),
        lambda x: gan.kernel_alignment(x, x[:1]),
        lambda x: gan.FeatureMaps([2], [2, 2]),
        lambda x: gan.FeatureMaps([], []),
        lambda x: gan.FeatureMaps([3], [3])([x], [x[:, :, :2]]),
        lambda x: gan.FeatureMaps([3, 3], [3, 3])([x], [x]),
        lambda x: gan.FeatureMaps([3], [3])([x], [x, x]),
        lambda x: gan.FeatureMaps([2], [3])([x], [x]),
        lambda x: gan.KernelAlignment()([x], []),
    ],
)
def test_bad_inputs_are_refused_in_one_line(call):
    with pytest.raises(ValueError, match=ONE_LINE):
        call(torch.zeros(2, 3, 4, 4))


def test_gradient_penalty_of_a_linear_judge_is_known():
    weight = drawn(3 * 4 * 4)
    judge = lambda x: (x.flatten(1) * weight).sum(1)  # noqa: E731
    real, fake = drawn(5, 3, 4, 4), drawn(5, 3, 4, 4, seed=1)
    expected = 10 * (weight.norm() - 1) ** 2
    for kind in ("mixed", "real", "fake"):
        found = gan.gradient_penalty(judge, real, fake, kind=kind)
        torch.testing.assert_close(found, expected)


def test_gradient_penalty_teaches_the_judge_alone():
    judge = nn.Conv2d(3, 1, 3).double()
    fake = drawn(2, 3, 5, 5).requires_grad_()
    gan.gradient_penalty(judge, drawn(2, 3, 5, 5, seed=1), fake).backward()
    assert judge.weight.grad.abs().sum() > 0
    assert fake.grad is None


def test_reconstruction_losses_are_the_usual_ones():
    x, y = drawn(2, 3, 4, 4), drawn(2, 3, 4, 4, seed=1)
    for kind, usual in (("l1", F.l1_loss), ("l2", F.mse_loss), ("smooth_l1", F.smooth_l1_loss)):
        torch.testing.assert_close(gan.reconstruction_loss(x, y, kind), usual(x, y))


def test_perceptual_loss_compares_layers_and_leaves_its_network_alone():
    with seeded(0):
        network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3)).double()
    loss = gan.PerceptualLoss(network, ["1", "2"], [0.5, 2.0]).train()
    x, y = drawn(2, 3, 8, 8).requires_grad_(), drawn(2, 3, 8, 8, seed=1)
    middle = [one(two) for one, two in ((network[:2], x), (network[:2], y))]
    expected = 0.5 * F.l1_loss(*middle) + 2 * F.l1_loss(network(x), network(y))
    torch.testing.assert_close(loss(x, y), expected)
    loss(x, y).backward()
    assert x.grad.abs().sum() > 0
    assert all(one.grad is None for one in network.parameters())
    assert not network.training
    assert float(loss(x, x).detach()) == 0
    scaled = gan.PerceptualLoss(network, ["2"], prepare=lambda images: 2 * images)
    torch.testing.assert_close(scaled(x, y), F.l1_loss(network(2 * x), network(2 * y)))
    assert scaled.weights == (1.0,)


def test_feature_matching_leaves_the_last_layer_out_and_the_real_side_alone():
    fake = [[drawn(2, 3, 4, 4, seed=s).requires_grad_() for s in range(3)] for _ in range(2)]
    real = [[drawn(2, 3, 4, 4, seed=s + 9).requires_grad_() for s in range(3)] for _ in range(2)]
    found = gan.feature_matching(fake, real)
    pairs = [
        (a, b) for f, r in zip(fake, real, strict=True) for a, b in zip(f[:2], r[:2], strict=True)
    ]
    torch.testing.assert_close(found, sum(F.l1_loss(a, b) for a, b in pairs) / 2)
    found.backward()
    assert fake[0][2].grad is None
    assert real[0][0].grad is None


def test_maps_take_the_first_channels_and_are_content_when_features_agree():
    with seeded(0):
        maps = gan.FeatureMaps([6, 4], [5, 3]).double()
    assert float(maps.maps[0].weight.detach().std()) < 0.04
    narrow = [drawn(2, 4, 3, 3), drawn(2, 4, 3, 3, seed=1)]
    wanted = [F.conv2d(narrow[0], maps.maps[0].weight[:, :4]), maps.maps[1](narrow[1])]
    total, layers = maps(narrow, wanted)
    assert float(total.detach()) == 0
    assert layers.shape == (2,)
    total, _ = maps(narrow, [one + 1 for one in wanted])
    torch.testing.assert_close(total, torch.tensor(2.0, dtype=torch.float64))
    twice, _ = maps([x.repeat(2, 1, 1, 1) for x in narrow],
                    [x.repeat(2, 1, 1, 1) + 1 for x in wanted])  # fmt: skip
    torch.testing.assert_close(twice, total)
    total.backward()
    assert float(maps.maps[0].weight.grad[:, 4:].abs().sum()) == 0


def test_the_student_is_mapped_not_the_teacher():
    with seeded(0):
        maps = gan.FeatureMaps([3], [3])
    nn.init.zeros_(maps.maps[0].weight)
    teacher = torch.ones(1, 3, 2, 2)
    assert float(maps([torch.zeros(1, 3, 2, 2)], [teacher])[0].detach()) == 1  # no trivial solution


def test_alignment_is_one_for_what_differs_by_rotation_and_scale():
    x, y = drawn(6, 5, 2, 2), drawn(6, 7, 3, 3, seed=1)
    rotation = torch.linalg.qr(drawn(20, 20, seed=2))[0]
    value = gan.kernel_alignment(x, y)
    assert 0 < float(value) < 1
    torch.testing.assert_close(gan.kernel_alignment(3 * x.flatten(1) @ rotation, y), value)
    torch.testing.assert_close(gan.kernel_alignment(x, x), torch.ones((), dtype=torch.float64))
    one = drawn(1, 4).requires_grad_()
    lonely = gan.kernel_alignment(one, drawn(1, 9, seed=1))
    lonely.backward()
    assert math.isclose(float(lonely.detach()), 1)
    assert float(one.grad.abs().max()) < 1e-12
    total, layers = gan.KernelAlignment()([x, y], [x, x])
    torch.testing.assert_close(total, layers.sum())
    torch.testing.assert_close(layers[0], -torch.ones((), dtype=torch.float64))
