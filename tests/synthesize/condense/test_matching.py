"""The loss of distribution matching: its closed forms, invariances and passes."""

import pytest
import torch
from torch import nn

from smallnets.synthesize import condense as dm


def linear(dimension, pixels, seed=0, scale=1.0):
    """An embedding by a random matrix, and the matrix."""
    draws = torch.Generator().manual_seed(seed)
    matrix = scale * torch.randn(dimension, pixels, generator=draws, dtype=torch.float64)
    return (lambda x: x.flatten(1) @ matrix.T), matrix


def batches(classes=3, each=5, ipc=2, seed=0):
    draws = torch.Generator().manual_seed(seed)
    real = torch.randn(classes, each, 2, 6, 6, generator=draws, dtype=torch.float64)
    return real, torch.randn(classes, ipc, 2, 6, 6, generator=draws, dtype=torch.float64)


def test_loss_and_gradient_vanish_where_the_set_is_the_real_batch():
    real, _ = batches()
    synthetic = real[:, torch.tensor([4, 2, 0, 1, 3])].clone().requires_grad_()
    embed, _ = linear(7, 72)
    loss = dm.class_mean_loss(embed, list(real), synthetic)
    (gradient,) = torch.autograd.grad(loss, synthetic)
    assert float(loss.detach()) < 1e-20
    assert gradient.abs().max() < 1e-10


def test_loss_is_a_sum_over_classes_and_dimensions_and_of_second_degree():
    real, synthetic = batches()
    embed, matrix = linear(7, 72)
    loss = dm.class_mean_loss(embed, list(real), synthetic)
    means = (real.mean(1) - synthetic.mean(1)).flatten(1) @ matrix.T
    torch.testing.assert_close(loss, means.square().sum())
    scaled = dm.class_mean_loss(lambda x: embed(3 * x), list(real), synthetic)
    torch.testing.assert_close(scaled, 9 * loss)
    moved = dm.class_mean_loss(embed, list(real), synthetic[:, [1, 0]])
    torch.testing.assert_close(moved, loss)


def test_expected_loss_under_random_matrices():
    """E[L] = D sigma^2 |mu_T - mu_S|^2."""
    real, synthetic = batches(classes=1)
    found = [
        float(dm.class_mean_loss(linear(20, 72, seed, 0.5)[0], list(real), synthetic))
        for seed in range(400)
    ]
    expected = 20 * 0.25 * float((real.mean(1) - synthetic.mean(1)).square().sum())
    assert sum(found) / len(found) == pytest.approx(expected, rel=0.05)


def test_gradient_at_the_embedding_is_the_same_for_all_images_of_a_class():
    draws = torch.Generator().manual_seed(0)
    real = torch.randn(9, 5, generator=draws)
    synthetic = torch.randn(4, 5, generator=draws).requires_grad_()
    (gradient,) = torch.autograd.grad(dm.dm_loss(real, synthetic), synthetic)
    each = -(2 / 4) * (real.mean(0) - synthetic.mean(0))
    torch.testing.assert_close(gradient, each.expand(4, 5))


def test_joint_passes_agree_for_instance_norm_and_not_for_batch_norm(net):
    real, synthetic = (one.float() for one in batches())
    for norm in ("instance", "batch"):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = net(3, 2, (6, 6), norm=norm)()
        both = [
            dm.class_mean_loss(network.embed, list(real), synthetic, joint=joint)
            for joint in (False, True)
        ]
        assert torch.allclose(*both, rtol=1e-4) == (norm == "instance")


@pytest.mark.parametrize("norm", ["instance", "layer", "none", "group"])
def test_a_few_images_at_a_time_have_the_mean_of_all(net, norm):
    network = net(norm=norm)()
    x = torch.randn(11, 3, 8, 8)
    with torch.no_grad():
        expected = network.embed(x).mean(0)
    for together in (1, 4, 11, None):
        found = dm.mean_embedding(network, x, together=together)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    rounded = dm.mean_embedding(network, x, "bf16-mixed")
    assert rounded.dtype == torch.float32
    assert (rounded - expected).norm() < 0.02 * expected.norm()


def test_both_branches_see_one_transform_and_classes_another():
    seen = []

    def embed(x):
        seen.append(x)
        return x.flatten(1)

    real, synthetic = (one.float() for one in batches(classes=2))
    views = [
        dm.DSAParams("crop", torch.tensor([[1.0, 0.0]])),
        dm.DSAParams("flip", torch.tensor([[1.0]])),
    ]
    dm.class_mean_loss(embed, list(real), synthetic, params=views)
    for c, view in enumerate(views):
        assert torch.equal(seen[2 * c], dm.apply_dsa(real[c], view))
        assert torch.equal(seen[2 * c + 1], dm.apply_dsa(synthetic[c], view))


def test_bad_inputs_are_refused_in_one_line():
    real, synthetic = batches()
    embed, _ = linear(7, 72)
    for call, words in (
        (lambda: dm.dm_loss(torch.zeros(2, 3), torch.zeros(2, 4)), "embeddings must be"),
        (lambda: dm.class_mean_loss(embed, list(real)[:2], synthetic), "got 2, 3 and 2"),
        (
            lambda: dm.class_mean_loss(embed, list(real[:1]), synthetic[:1, :1], joint=True),
            "batch norm needs at least 2 images in a joint batch; got 1",
        ),
        (lambda: dm.mean_embedding(nn.Identity(), real[0], "half"), "precision must be one of"),
    ):
        with pytest.raises(ValueError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)
