"""CutMix, MixUp, light views and the distances between answers."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from smallnets.distill import kd_loss
from smallnets.distill import single_image as si


@pytest.mark.parametrize("partner", ["permutation", "reverse"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16])
def test_cutmix_takes_each_pixel_from_one_of_two_images(generator, partner, dtype):
    x = torch.arange(1, 7).view(6, 1, 1, 1).expand(6, 3, 9, 14).to(dtype)
    for _ in range(30):
        out, box = si.cutmix_images(x, 1.0, generator, partner=partner)
        assert out.dtype == dtype
        inside = torch.zeros(9, 14, dtype=torch.bool)
        inside[box.y1 : box.y2, box.x1 : box.x2] = True
        assert inside.sum() == box.area
        expected = torch.where(inside, x[box.partner], x)
        assert torch.equal(out, expected)
        again, _ = si.cutmix_images(x, box=box)
        assert torch.equal(again, out)
        if partner == "reverse":
            assert box.partner.tolist() == [5, 4, 3, 2, 1, 0]
            assert box.area >= 1


@given(st.floats(0, 1), st.integers(0, 15), st.integers(0, 23))
def test_boxes_lie_in_the_image_and_are_as_large_as_their_share(lam, row, column):
    partners = torch.arange(4)
    free = si.cut_box((16, 24), lam, (row, column), partners)
    full = si.cut_box((16, 24), lam, (row, column), partners, "reverse")
    for box in (free, full):
        assert 0 <= box.y1 <= box.y2 <= 16
        assert 0 <= box.x1 <= box.x2 <= 24
        assert box.area <= (1 - lam) * 16 * 24 + 1
    assert full.area >= max(free.area, 1)


def test_an_empty_box_and_a_batch_of_one_change_nothing(generator):
    x = torch.rand(5, 3, 8, 8)
    nothing = si.cut_box((8, 8), 1.0, (4, 4), torch.arange(4, -1, -1))
    assert torch.equal(si.cutmix_images(x, box=nothing)[0], x)
    for partner in ("permutation", "reverse"):
        assert torch.equal(si.cutmix_images(x[:1], 1.0, generator, partner=partner)[0], x[:1])


def test_share_zero_does_not_swap_whole_images():
    """The box is cut off at its random centre."""
    box = si.cut_box((32, 32), 0.0, (0, 0), torch.arange(2))
    assert box.area == 256


def test_clips_are_cut_across_all_frames(generator):
    x = torch.rand(4, 3, 5, 8, 10)
    partners = torch.tensor([2, 3, 0, 1])
    box = si.cut_box((8, 10), 0.75, (4, 5), partners)
    assert (box.y1, box.y2, box.x1, box.x2) == (2, 6, 3, 7)
    out, _ = si.cutmix_clips(x, box=box)
    inside = torch.zeros(8, 10, dtype=torch.bool)
    inside[2:6, 3:7] = True
    assert torch.equal(out, torch.where(inside, x[partners], x))
    drawn, box = si.cutmix_clips(x, 1.0, generator)
    assert 0 < box.area < 80
    assert torch.equal(si.cutmix_clips(x, box=box)[0], drawn)
    with pytest.raises(ValueError, match=r"clips have cutmix_clips"):
        si.cutmix_images(x, 1.0, generator)
    with pytest.raises(ValueError, match=r"clips must be \(batch, channels, frames"):
        si.cutmix_clips(x[0], 1.0, generator)


def test_mixup_is_the_reversed_batch_and_one_share(generator):
    x = torch.rand(5, 2, 3, 3)
    torch.testing.assert_close(si.mixup_images(x, share=0.25), 0.25 * x + 0.75 * x.flip(0))
    drawn = si.mixup_images(x, generator)
    torch.testing.assert_close(drawn + drawn.flip(0), x + x.flip(0))
    with pytest.raises(ValueError, match="share must be between 0 and 1; got 2"):
        si.mixup_images(x, share=2)
    with pytest.raises(ValueError, match="floating-point batch"):
        si.mixup_images(x.to(torch.uint8), generator)


@pytest.mark.parametrize("shape", [(6, 3, 64, 64), (6, 3, 4, 64, 64)])
def test_no_more_than_the_box_is_gathered(shape, monkeypatch):
    x, gathered = torch.rand(shape), []
    plain = torch.Tensor.__getitem__

    def counted(self, which):
        out = plain(self, which)
        if isinstance(which, torch.Tensor):
            gathered.append(out.numel())
        return out

    monkeypatch.setattr(torch.Tensor, "__getitem__", counted)
    box = si.cut_box((64, 64), 0.9, (32, 32), torch.arange(5, -1, -1))
    cut = si.cutmix_clips if x.dim() == 5 else si.cutmix_images
    cut(x, box=box)
    assert gathered == [x.numel() * box.area // 64**2]


@pytest.mark.parametrize("alpha", [0, -1.0])
def test_bad_mixtures_are_refused_in_one_line(alpha, generator):
    x = torch.rand(2, 3, 4, 4)
    with pytest.raises(ValueError, match=f"alpha must be greater than 0; got {alpha}"):
        si.cutmix_images(x, alpha, generator)
    with pytest.raises(ValueError, match="needs a generator, or what to mix; got neither"):
        si.cutmix_images(x)
    with pytest.raises(ValueError, match="partner must be one of permutation, reverse"):
        si.cutmix_images(x, 1.0, generator, partner="roll")


def test_the_divergence_of_section_3_3():
    student = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    for tau in (1.0, 5.0, 8.0):
        loss = si.distill_kl(student, teacher, tau)
        (grad,) = torch.autograd.grad(loss, student)
        p, q = (z.detach().div(tau).softmax(1) for z in (teacher, student))
        torch.testing.assert_close(loss, (p * (p.log() - q.log())).sum(1).mean())
        torch.testing.assert_close(grad, (q - p) / (7 * tau))
        assert grad.sum(1).abs().max() < 1e-12
        squared = si.distill_kl(student, teacher, tau, squared=True)
        torch.testing.assert_close(squared, tau**2 * loss)
        torch.testing.assert_close(squared, kd_loss(student, teacher, tau))
    assert si.distill_kl(teacher, teacher).item() == 0
    apart = torch.tensor([[30.0, 0.0]]), torch.tensor([[0.0, 30.0]])
    assert si.distill_kl(*apart, 1.0).item() == pytest.approx(30, rel=1e-4)


def test_the_other_losses_have_their_limits():
    student, teacher = torch.randn(9, 6), torch.randn(9, 6)
    torch.testing.assert_close(si.top_k_loss(student, teacher, 6), si.distill_kl(student, teacher))
    one = si.top_k_loss(student, teacher, 1, 1.0)
    torch.testing.assert_close(one, si.argmax_loss(student, teacher))
    torch.testing.assert_close(si.logit_loss(student, teacher), F.mse_loss(student, teacher))
    torch.testing.assert_close(si.logit_loss(student, teacher, 1), F.l1_loss(student, teacher))
    assert si.top_k_loss(student, teacher, 3) > 0
    for kind in si.LOSSES:
        loss = si.imitation_loss(student, teacher, kind, k=2)
        assert loss.ndim == 0
    bf16 = si.imitation_loss(student.bfloat16(), teacher.bfloat16())
    assert bf16.dtype == torch.float32
    assert si.agreement_rate(teacher, teacher) == 1


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda a: si.distill_kl(a, a, 0), "temperature must be greater than 0; got 0"),
        (lambda a: si.distill_kl(a, a, -2, True), "temperature must be greater than 0; got -2"),
        (lambda a: si.top_k_loss(a, a, 2, 0.0), "temperature must be greater than 0"),
        (lambda a: si.top_k_loss(a, a, 4), "k must be between 1 and 3; got 4"),
        (lambda a: si.argmax_loss(a, a * math.nan), "teacher logits must be finite"),
        (lambda a: si.logit_loss(a, a, 3), "power must be 1 or 2; got 3"),
        (lambda a: si.imitation_loss(a, a, "mse"), "loss must be one of kl, argmax"),
        (lambda a: si.distill_kl(a, a[:, :2]), r"got \(2, 3\) and \(2, 2\)"),
    ],
)
def test_bad_answers_are_refused_in_one_line(call, words):
    with pytest.raises(ValueError, match=words):
        call(torch.randn(2, 3))


def test_light_views_keep_size_and_range(generator):
    x = torch.rand(40, 3, 16, 16)
    for view, size in (
        (si.CIFAR_VIEW, 16),
        (si.CLIP_VIEW, 16),
        (si.NO_VIEW, 16),
        (si.IMAGENET_VIEW, 224),
    ):
        seen = view(x, generator)
        assert seen.shape == (40, 3, size, size)
        assert seen.min() >= 0
        assert seen.max() <= 1
        assert torch.equal(seen, x) == (view is si.NO_VIEW)
    smaller = si.TrainingView(area=(0.2, 0.5), size=8)(x, generator)
    assert smaller.shape == (40, 3, 8, 8)


def test_a_mirrored_window_of_the_padded_image(generator):
    """An image whose grey level says where each pixel was."""
    x = (1 + torch.arange(36.0)).view(1, 1, 6, 6).div(40).repeat(400, 1, 1, 1)
    padded = F.pad(x[:1], [4, 4, 4, 4])
    windows = [
        one[..., top : top + 6, left : left + 6]
        for one in (padded, F.pad(x[:1].flip(3), [4, 4, 4, 4]))
        for top in range(9)
        for left in range(9)
    ]
    same = (si.CIFAR_VIEW(x, generator)[:, None] == torch.stack(windows, dim=1)).flatten(2).all(2)
    assert (same.sum(1) == 1).all()
    found = same.double().argmax(dim=1)
    assert len(found.unique()) > 0.8 * len(windows)
    assert (found < 81).double().mean() == pytest.approx(0.5, abs=0.1)


def test_resized_crops_have_their_areas_and_shapes(generator):
    """Images whose channels grow by one from edge to edge, downwards and to the right."""
    x = torch.stack(torch.meshgrid(*[torch.linspace(0, 1, 64)] * 2, indexing="ij"))
    x = x.expand(500, 2, 64, 64)
    for view, aspect in ((si.CLIP_VIEW, 1.001), (si.IMAGENET_VIEW, 1.4)):
        view = replace(view, size=32, flip=False, solarise_probability=0.0)
        seen = view(x, generator)
        down = (seen[:, 0, 23, 16] - seen[:, 0, 8, 16]) * 63 / 15 / 2
        across = (seen[:, 1, 16, 23] - seen[:, 1, 16, 8]) * 63 / 15 / 2
        shares = down * across
        assert shares.min() > view.area[0] - 0.01
        assert shares.max() < view.area[1] + 0.03
        assert shares.max() - shares.min() > 0.8 * (view.area[1] - view.area[0])
        ratio = (across / down).log().abs().exp()
        assert ratio.max() < aspect
        assert ratio.max() > 0.9 * aspect
    assert si.CLIP_VIEW.area == pytest.approx((0.488, 0.764), abs=0.001)


def test_bicubic_crops_are_torch_s(generator):
    x = torch.rand(3, 3, 8, 8)
    whole = {"flip": False, "padding": 0, "area": (1.0, 1.0), "aspect": (1.0, 1.0), "size": 20}
    for kind in ("bilinear", "bicubic"):
        seen = si.TrainingView(interpolation=kind, **whole)(x, generator)
        expected = F.interpolate(x, (20, 20), mode=kind).clamp(0, 1)
        inner = (..., slice(4, 16), slice(4, 16))
        torch.testing.assert_close(seen[inner], expected[inner], atol=1e-4, rtol=0)


def test_all_frames_of_a_clip_are_mirrored_together(generator):
    x = torch.rand(30, 3, 4, 6, 6)
    seen = si.TrainingView(padding=0)(x, generator)
    same = (seen == x).flatten(1).all(1)
    assert 5 < same.sum() < 25
    assert torch.equal(seen[~same], x[~same].flip(-1))


def test_grey_and_solarised_images(generator):
    x = torch.rand(20, 3, 6, 6)
    base = {"flip": False, "padding": 0}
    grey = si.TrainingView(grey_probability=1.0, **base)(x, generator)
    assert (grey == grey[:, :1]).all()
    inverted = si.TrainingView(solarise_probability=1.0, **base)(x, generator)
    assert torch.equal(inverted, torch.where(x >= 128 / 255, 1 - x, x))
    assert si.IMAGENET_VIEW(torch.rand(4, 1, 8, 8), generator).shape == (4, 1, 224, 224)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"padding": -1}, "padding must be at least 0"),
        ({"area": (0.0, 1.0)}, "area must be greater than 0"),
        ({"area": (0.5, 1.5)}, "upper end of area must be between 0.5 and 1"),
        ({"jitter": (0, 0, 0, 1)}, "jitter of hue must be between 0 and 0.5"),
        ({"grey_probability": 2}, "grey_probability must be between 0 and 1"),
        ({"threshold": 300}, "threshold must be between 0 and 255"),
        ({"jitter": (0.1, 0.1)}, "jitter must be .brightness, contrast, saturation, hue."),
        ({"size": 0}, "size must be at least 1"),
        ({"size": 8}, "size is that of a resized crop, which needs an area; got 8 and None"),
        ({"aspect": (2.0, 1.0)}, "upper end of aspect must be between 2.0"),
        ({"interpolation": "nearest"}, "interpolation must be one of bilinear, bicubic"),
    ],
)
def test_views_out_of_range_are_refused_in_one_line(changes, words):
    with pytest.raises(ValueError, match=words):
        si.TrainingView(**changes)
