import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from smallnets.distill.similarity import (
    class_block_contrast,
    class_blocks,
    similarity_matrix,
    sp_loss,
)


def doubles(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(st.integers(0, 10_000), st.integers(2, 6), st.floats(1e-3, 1e3))
def test_blind_to_scale_and_to_orthogonal_maps_of_features(seed, batch, scale):
    features = doubles(seed, batch, 5)
    rotation = torch.linalg.qr(doubles(seed + 1, 5, 5)).Q
    assert sp_loss(-scale * features @ rotation, features).item() < 1e-12


@given(st.integers(0, 10_000), st.integers(1, 7), st.booleans())
def test_bounds(seed, batch, rectified):
    student, teacher = doubles(seed, batch, 3, 2, 2), doubles(seed + 1, batch, 6)
    if rectified:
        student, teacher = student.relu(), teacher.relu()
    loss = sp_loss(student, teacher).item()
    assert 0 <= loss <= (2 if rectified else 4) / batch + 1e-12
    if batch == 1:
        assert loss == pytest.approx(0, abs=1e-15) or rectified  # a zero row differs


@given(st.integers(0, 10_000), st.integers(2, 6))
def test_permuting_both_batches_changes_nothing_and_one_does(seed, batch):
    student, teacher = doubles(seed, batch, 4), doubles(seed + 1, batch, 7)
    loss = sp_loss(student, teacher)
    order = torch.arange(batch).roll(1)
    torch.testing.assert_close(sp_loss(student[order], teacher[order]), loss)
    if batch > 2:
        assert abs(sp_loss(student[order], teacher) - loss) > 1e-9


@given(st.integers(0, 10_000), st.integers(2, 5))
def test_a_batch_seen_twice_halves_the_loss(seed, batch):
    student, teacher = doubles(seed, batch, 4), doubles(seed + 1, batch, 7)
    doubled = sp_loss(student.repeat(2, 1), teacher.repeat(2, 1))
    torch.testing.assert_close(doubled, sp_loss(student, teacher) / 2)


def test_orthogonal_teacher_against_a_student_that_sees_no_difference():
    assert sp_loss(torch.ones(16, 3), torch.eye(16)).item() == pytest.approx(0.09375)
    expected = [(2 - 2 / math.sqrt(b)) / b for b in (2, 3, 9)]
    assert [sp_loss(torch.ones(b, 1), torch.eye(b)).item() for b in (2, 3, 9)] == pytest.approx(
        expected
    )


def test_a_single_image_has_no_pair_to_preserve():
    student = doubles(0, 1, 4).requires_grad_()
    loss = sp_loss(student, doubles(1, 1, 4))
    loss.backward()
    assert loss.item() == 0
    assert not student.grad.any()


def test_rows_have_length_one_and_zero_rows_stay():
    features = doubles(0, 5, 3)
    features[2] = 0
    similarity = similarity_matrix(features)
    lengths = similarity.norm(dim=1)
    torch.testing.assert_close(lengths, torch.tensor([1.0, 1, 0, 1, 1], dtype=torch.float64))
    assert not similarity[2].any()
    assert not torch.equal(similarity, similarity.T)


def test_gradcheck():
    student, teacher = doubles(0, 4, 2, 3, 3).requires_grad_(), doubles(1, 4, 5)
    assert torch.autograd.gradcheck(lambda x: sp_loss(x, teacher), (student,))
    for kind in ("cosine", "frobenius", "none"):
        assert torch.autograd.gradcheck(lambda x, k=kind: sp_loss(x, teacher, k), (student,))


def test_closed_form_is_the_gradient_of_the_plain_formula():
    student, teacher = doubles(0, 9, 4, 2, 2).requires_grad_(), doubles(1, 9, 5)
    (closed,) = torch.autograd.grad(3 * sp_loss(student, teacher), student)
    rows = student.flatten(1)
    plain = F.mse_loss(F.normalize(rows @ rows.T, dim=1), similarity_matrix(teacher))
    (automatic,) = torch.autograd.grad(3 * plain, student)
    torch.testing.assert_close(closed, automatic, rtol=1e-12, atol=1e-15)
    assert abs((closed * student).sum().item()) < 1e-10  # scale does not matter


def test_no_gradient_reaches_the_teacher():
    student, teacher = doubles(0, 3, 4).requires_grad_(), doubles(1, 3, 4).requires_grad_()
    sp_loss(student, teacher).backward()
    assert teacher.grad is None
    assert student.grad.any()


def test_channels_last_and_permuted_tensors_are_read_rightly():
    student, teacher = doubles(0, 4, 6, 3, 3), doubles(1, 4, 5, 2, 2)
    loss = sp_loss(student, teacher)
    layouts = (
        student.contiguous(memory_format=torch.channels_last),
        student.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
        student.transpose(2, 3),
    )
    for layout in layouts:
        layout = layout.detach().requires_grad_()
        again = sp_loss(layout, teacher)
        again.backward()
        torch.testing.assert_close(again, loss)
    torch.testing.assert_close(layout.grad.transpose(2, 3), _gradient(student, teacher))


def _gradient(student, teacher):
    student = student.detach().requires_grad_()
    sp_loss(student, teacher).backward()
    return student.grad


def test_large_half_precision_features_do_not_overflow():
    student = (100 * doubles(0, 6, 64, 4, 4)).half().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = sp_loss(student, (100 * doubles(1, 6, 64, 4, 4)).half())
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert student.grad.isfinite().all()
    exact = sp_loss(student.detach().double(), (100 * doubles(1, 6, 64, 4, 4)).half().double())
    assert loss.item() == pytest.approx(exact.item(), rel=1e-4)


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        (torch.ones(2, 3), torch.ones(4, 3), r"share the batch; got \(2, 3\) and \(4, 3\)"),
        ([torch.ones(2, 3)], [torch.ones(2, 3)] * 2, "equally many layers, .* got 1 and 2"),
        ([], [], "equally many layers, at least one; got 0 and 0"),
        (torch.ones(2, 3).long(), torch.ones(2, 3), "floating-point .* got torch.int64"),
        (torch.ones(0, 3), torch.ones(0, 3), r"not empty; got torch.float32 \(0, 3\)"),
        (torch.ones(3), torch.ones(3), r"\(batch, ...\) and not empty"),
        (torch.full((2, 3), math.nan), torch.ones(2, 3), "features must be finite"),
        (torch.ones(2, 3), torch.full((2, 3), math.inf), "features must be finite"),
    ],
)
def test_bad_features_are_named(student, teacher, message):
    with pytest.raises(ValueError, match=message) as error:
        sp_loss(student, teacher)
    assert "\n" not in str(error.value)


def test_unknown_normalisation():
    with pytest.raises(ValueError, match="must be one of row, frobenius, cosine, none; got 'l1'"):
        similarity_matrix(torch.ones(2, 3), normalise="l1")


def test_block_contrast_of_a_block_matrix():
    labels = torch.tensor([0, 0, 1, 1])
    similarity = torch.where(labels[:, None] == labels, 0.7, 0.2)
    assert class_block_contrast(similarity, labels) == pytest.approx(0.5)
    assert class_block_contrast(torch.ones(4, 4), labels) == 0


@pytest.mark.parametrize("labels", [[0, 1, 2], [1, 1, 1]])
def test_block_contrast_needs_pairs_of_both_kinds(labels):
    with pytest.raises(ValueError, match="two images of one class and two classes"):
        class_block_contrast(torch.ones(3, 3), torch.tensor(labels))


def test_block_contrast_of_another_size():
    with pytest.raises(ValueError, match=r"must be \(2, 2\) for 2 labels; got \(3, 3\)"):
        class_block_contrast(torch.ones(3, 3), torch.tensor([0, 1]))


def test_class_blocks_are_means_without_the_diagonal():
    labels = torch.tensor([3, 1, 3, 1, 1, 7])
    similarity = doubles(0, 6, 6)
    blocks = class_blocks(similarity, labels)
    assert blocks.shape == (3, 3)
    for row, one in enumerate((1, 3, 7)):
        for column, other in enumerate((1, 3, 7)):
            pairs = [
                similarity[i, j].item()
                for i in range(6)
                for j in range(6)
                if i != j and labels[i] == one and labels[j] == other
            ]
            expected = sum(pairs) / len(pairs) if pairs else 0
            assert blocks[row, column].item() == pytest.approx(expected)
    with pytest.raises(ValueError, match=r"similarity must be \(6, 6\) for 6 labels"):
        class_blocks(similarity[:5], labels)
