"""Discriminators: shapes, and what they refuse."""

import pytest
import torch

from smallnets.gan.networks.discriminators import (
    MUNITDiscriminator,
    PatchDiscriminator,
    PixelDiscriminator,
    SPADEDiscriminator,
)

MADE = {
    "patch": lambda: PatchDiscriminator(3, 2),
    "patch, batch norm": lambda: PatchDiscriminator(3, 2, 2, norm="batch"),
    "pixel": lambda: PixelDiscriminator(3, 2),
    "spade": lambda: SPADEDiscriminator(3, 2),
    "munit": lambda: MUNITDiscriminator(3, 2, 2),
}


@pytest.mark.parametrize("kind", MADE)
def test_the_smallest_image_is_judged_and_a_smaller_one_refused(kind):
    judge = MADE[kind]()
    least = 2 if kind == "pixel" else judge.least
    logits = judge(torch.rand(2, 3, least, least + 1))
    last = logits
    while isinstance(last, list):
        last = last[-1]
    assert last.shape[:2] == (2, 1)
    with pytest.raises(ValueError, match=f"at least {least} pixels"):
        judge(torch.rand(2, 3, least - 1, 64))
    with pytest.raises(ValueError, match=r"\(batch, 3, height, width\)"):
        judge(torch.rand(2, 4, 64, 64))


def test_a_patch_of_three_layers_sees_70_pixels():
    judge = PatchDiscriminator(1, 1, norm="batch").eval()
    x = torch.rand(1, 1, 128, 128, requires_grad=True)
    logits = judge(x)
    logits[0, 0, 7, 7].backward()
    seen = x.grad[0, 0].nonzero()
    assert (seen.max(0).values - seen.min(0).values + 1).tolist() == [70, 70]


def test_scales_halve_and_do_not_count_what_is_beyond_the_edge():
    found = MUNITDiscriminator(1, 2, 2)(torch.ones(1, 1, 32, 32))
    assert [logits.shape[-1] for logits in found] == [8, 4, 2]
    judge = SPADEDiscriminator(1, 2)
    judge.discriminator_1 = torch.nn.Identity()
    assert (judge(torch.ones(1, 1, 32, 32))[1] == 1).all()


def test_spectral_norms_are_one():
    judge = SPADEDiscriminator(3, 4)
    for _ in range(25):
        judge(torch.rand(1, 3, 32, 32))
    weight = judge.discriminator_0.model2[0][0].eval().weight
    assert torch.linalg.matrix_norm(weight.flatten(1), 2).item() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
    ("kind", "arguments"), [(PatchDiscriminator, (3, 0)), (SPADEDiscriminator, (3, 2, 4, 0))]
)
def test_numbers_below_one_are_refused(kind, arguments):
    with pytest.raises(ValueError, match="at least 1"):
        kind(*arguments)
