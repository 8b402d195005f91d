import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from smallnets.distill.classic import at_loss, attention_map, kd_loss

NAME = "02-similarity-preserving"


def doubles(generator_seed, *shape):
    generator = torch.Generator().manual_seed(generator_seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def close(actual, expected, rtol=1e-9, atol=1e-12):
    np.testing.assert_allclose(actual.detach().numpy(), expected, rtol=rtol, atol=atol)


class TestSoftTargets:
    def test_golden_values_and_gradients(self, golden):
        arrays = golden(NAME)
        teacher = torch.from_numpy(arrays["D_zt"])
        for index, temperature in enumerate(arrays["D_T"]):
            student = torch.from_numpy(arrays["D_zs"]).requires_grad_()
            loss = kd_loss(student, teacher, float(temperature))
            loss.backward()
            close(loss, arrays["D_kd"][index])
            close(student.grad, arrays["D_grad"][index])

    def test_it_is_none_of_the_common_mistakes(self, golden):
        arrays = golden(NAME)
        student, teacher = torch.from_numpy(arrays["D_zs"]), torch.from_numpy(arrays["D_zt"])
        for index, temperature in enumerate(arrays["D_T"]):
            loss = kd_loss(student, teacher, float(temperature)).item()
            for wrong in ("D_kl_rev_noT2", "D_softce_T2", "D_elemmean"):
                assert abs(loss - arrays[wrong][index]) > 1e-3 * loss
            assert loss == pytest.approx(temperature**2 * arrays["D_kl_noT2"][index])

    def test_weighted_with_the_labels_it_is_the_published_objective(self, golden):
        arrays = golden(NAME)
        student = torch.from_numpy(arrays["D_zs"]).requires_grad_()
        labels = torch.from_numpy(arrays["D_y"])
        close(F.cross_entropy(student, labels), arrays["D_ce"])
        for index, temperature in enumerate(arrays["D_T"]):
            soft = kd_loss(student, torch.from_numpy(arrays["D_zt"]), float(temperature))
            total = 0.9 * soft + 0.1 * F.cross_entropy(student, labels)
            close(total, arrays["D_szag_a0.9"][index])
            close(torch.autograd.grad(total, student)[0], arrays["D_szag_grad"][index])

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
    @pytest.mark.parametrize("case", ["A", "B", "F", "G32"])
    def test_golden_values_and_gradients(self, golden, case):
        arrays = golden(NAME)
        name = "at" if case == "F" else "at_p2"
        tolerance = {"rtol": 1e-4, "atol": 1e-6} if case == "G32" else {}
        student = torch.from_numpy(arrays[f"{case}_fs"]).requires_grad_()
        loss = at_loss(student, torch.from_numpy(arrays[f"{case}_ft"]))
        loss.backward()
        close(loss, arrays[f"{case}_{name}"], **tolerance)
        close(student.grad, arrays[f"{case}_{name}_grad_fs"], **tolerance)

    def test_golden_maps_other_power_and_other_formula(self, golden):
        arrays = golden(NAME)
        student, teacher = torch.from_numpy(arrays["A_fs"]), torch.from_numpy(arrays["A_ft"])
        close(attention_map(student), arrays["A_at_map_s"])
        close(attention_map(teacher), arrays["A_at_map_t"])
        student = student.detach().requires_grad_()
        loss = at_loss(student, teacher, p=4)
        close(loss, arrays["A_at_p4"])
        close(torch.autograd.grad(loss, student)[0], arrays["A_at_p4_grad_fs"])
        assert abs(at_loss(student, teacher).item() - arrays["A_at_tdpaper"]) > 1e-3

    def test_golden_map_of_a_wide_resnet(self, golden):
        arrays = golden(NAME)
        features = torch.from_numpy(arrays["N_net_f3"])
        close(attention_map(features), arrays["N_net_f3_attention"], rtol=1e-4, atol=1e-6)

    def test_golden_list_of_layers(self, golden):
        arrays = golden(NAME)
        layers = range(len(arrays["C_at_list"]))
        losses = [
            at_loss(torch.from_numpy(arrays[f"C_fs{i}"]), torch.from_numpy(arrays[f"C_ft{i}"]))
            for i in layers
        ]
        close(torch.stack(losses), arrays["C_at_list"])
        close(torch.stack(losses).sum(), arrays["C_at_sum"])

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
