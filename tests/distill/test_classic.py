import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from smallnets.distill.classic import at_loss, attention_map, kd_loss


def doubles(generator_seed, *shape):
    generator = torch.Generator().manual_seed(generator_seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


class TestSoftTargets:
    @given(st.integers(0, 10_000), st.integers(1, 6), st.integers(2, 8), st.floats(0.5, 20))
    def test_zero_exactly_for_logits_that_differ_by_a_constant(self, seed, batch, classes, t):
        logits = doubles(seed, batch, classes)
        shift = doubles(seed + 1, batch, 1)
        assert kd_loss(logits + shift, logits, t).item() == pytest.approx(0, abs=1e-12)
        assert kd_loss(doubles(seed + 2, batch, classes), logits, t).item() > 0

    @given(st.integers(0, 10_000), st.floats(0.5, 20))
    def test_gradient_is_the_difference_of_softmaxes(self, seed, temperature):
        student, teacher = doubles(seed, 5, 4).requires_grad_(), doubles(seed + 1, 5, 4)
        kd_loss(student, teacher, temperature).backward()
        soft = [F.softmax(z.detach() / temperature, dim=1) for z in (student, teacher)]
        torch.testing.assert_close(student.grad, temperature / 5 * (soft[0] - soft[1]))
        torch.testing.assert_close(student.grad.sum(dim=1), torch.zeros(5, dtype=torch.float64))

    def test_hot_limit_is_half_the_mean_square_of_centred_differences(self):
        student, teacher = doubles(0, 6, 10), doubles(1, 6, 10)
        centred = student - teacher - (student - teacher).mean(dim=1, keepdim=True)
        expected = centred.square().sum(dim=1).mean() / (2 * 10)
        torch.testing.assert_close(kd_loss(student, teacher, 1e4), expected, rtol=1e-3, atol=0)

    def test_half_precision_is_computed_in_single(self):
        student, teacher = doubles(0, 4, 10).bfloat16(), doubles(1, 4, 10).bfloat16()
        loss = kd_loss(student, teacher)
        assert loss.dtype == torch.float32
        assert loss == kd_loss(student.float(), teacher.float())

    @pytest.mark.parametrize("temperature", [0, 0.0, -1, float("nan")])
    def test_temperature_must_be_above_zero(self, temperature):
        with pytest.raises(ValueError, match="temperature must be greater than 0; got"):
            kd_loss(torch.ones(2, 3), torch.ones(2, 3), temperature)

    @pytest.mark.parametrize("shape", [(2, 4), (3, 3), (0, 3), (2, 3, 1)])
    def test_shapes_must_agree(self, shape):
        with pytest.raises(ValueError, match=r"logits must both be \(batch, classes\)"):
            kd_loss(torch.ones(2, 3) if shape[0] else torch.ones(shape), torch.ones(shape))


class TestAttention:
    @given(st.integers(0, 10_000), st.floats(1e-3, 1e3))
    def test_blind_to_channel_order_sign_and_scale(self, seed, scale):
        x, other = doubles(seed, 3, 5, 4, 2), doubles(seed + 1, 3, 2, 4, 2)
        order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(at_loss(-scale * x[:, order], other), at_loss(x, other))

    @given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 4), st.sampled_from([1, 2, 3]))
    def test_bounded_by_two_over_the_positions(self, seed, height, width, p):
        student, teacher = (
            doubles(seed, 3, 4, height, width),
            doubles(seed + 1, 3, 2, height, width),
        )
        assert 0 <= at_loss(student, teacher, p).item() <= 2 / (height * width) + 1e-12

    def test_odd_powers_use_the_size_of_activations(self):
        x = doubles(0, 2, 3, 4, 4)
        torch.testing.assert_close(attention_map(x, p=3), attention_map(x.abs(), p=3))

    def test_larger_maps_are_pooled_in_both_directions(self):
        student, teacher = doubles(0, 2, 3, 8, 4), doubles(1, 2, 5, 4, 2)
        pooled = F.avg_pool2d(student, 2)
        torch.testing.assert_close(at_loss(student, teacher), at_loss(pooled, teacher))
        torch.testing.assert_close(at_loss(teacher, student), at_loss(teacher, pooled))

    @pytest.mark.parametrize(
        ("student", "teacher", "message"),
        [
            ((2, 3), (2, 3), r"need floating-point .*; got torch.float32 \(2, 3\)"),
            ((2, 3, 4, 4), (3, 3, 4, 4), "must share the batch; got 2 and 3 images"),
        ],
    )
    def test_shapes_that_do_not_fit(self, student, teacher, message):
        with pytest.raises(ValueError, match=message):
            at_loss(torch.ones(student), torch.ones(teacher))

    def test_power_must_be_above_zero(self):
        with pytest.raises(ValueError, match="p must be greater than 0; got 0"):
            attention_map(torch.ones(1, 1, 2, 2), p=0)


def test_teachers_get_no_gradient_and_whole_numbers_are_refused():
    teacher = doubles(0, 2, 3).requires_grad_()
    kd_loss(doubles(1, 2, 3).requires_grad_(), teacher, 2.0).backward()
    features = doubles(2, 2, 3, 4, 4).requires_grad_()
    at_loss(doubles(3, 2, 3, 4, 4).requires_grad_(), features).backward()
    assert teacher.grad is None
    assert features.grad is None
    with pytest.raises(ValueError, match=r"logits must be floating-point numbers; got torch.int64"):
        kd_loss(torch.ones(2, 3, dtype=torch.int64), doubles(0, 2, 3), 1.0)
    with pytest.raises(
        ValueError, match=r"need floating-point .*; got torch.float64 \(0, 3, 4, 4\)"
    ):
        attention_map(doubles(0, 0, 3, 4, 4))
