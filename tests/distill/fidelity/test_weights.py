"""Between two networks, and in the plane of three."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from smallnets.distill.fidelity import (
    between,
    flat_weights,
    interpolate_state,
    loss_surface,
    plane_basis,
    refresh_statistics,
    straight_path,
)

NAME = "03-does-kd-work"


@pytest.fixture
def arrays(golden):
    return golden(NAME)


def network(norm=nn.BatchNorm2d):
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1, bias=False), norm(3), nn.ReLU(), nn.Flatten(),
        nn.Linear(48, 5),
    ).double()  # fmt: skip


def state(arrays, flat, like):
    sizes = arrays["F_shapes_numel"].tolist()
    assert list(like) == arrays["F_keys"].tolist()
    parts = torch.from_numpy(flat).split(sizes)
    return {
        name: part.reshape(value.shape).to(value.dtype)
        for (name, value), part in zip(like.items(), parts, strict=True)
    }


def flattened(state):
    return torch.cat([value.double().reshape(-1) for value in state.values()])


def test_golden_interpolation_and_refreshed_statistics(arrays):
    net = network()
    teacher, random = (
        state(arrays, arrays[f"F_{name}"], net.state_dict()) for name in ("teacher", "random")
    )
    batches = [torch.from_numpy(arrays[f"F_x{i}"]) for i in (0, 1)]
    for i, lam in enumerate(arrays["F_lambda"].tolist()):
        moved = interpolate_state(teacher, random, lam)
        np.testing.assert_allclose(flattened(moved), arrays["F_interp_freeze"][i], rtol=1e-9)
        net.load_state_dict(moved)
        refresh_statistics(net.eval(), batches)
        assert not net.training
        np.testing.assert_allclose(
            flattened(net.state_dict()), arrays["F_interp_bn_updated"][i], rtol=1e-9, atol=1e-12
        )
        np.testing.assert_allclose(
            net(batches[0]).detach(), arrays["F_out_bn_updated_on_x0"][i], rtol=1e-9, atol=1e-12
        )
    swapped = interpolate_state(teacher, random, 1 - 0.375)  # the published `loc_param`
    index = arrays["F_lambda"].tolist().index(0.375)
    assert np.abs(flattened(swapped).numpy() - arrays["F_interp_freeze"][index]).max() > 1e-3


def test_ends_are_exact_and_nothing_is_changed_in_place():
    torch.manual_seed(0)
    teacher, other = network(), network()
    before = copy.deepcopy(other.state_dict())
    for lam, expected in ((0.0, other), (1.0, teacher), (0, other)):
        moved = between(teacher, other, lam)
        for name, value in moved.state_dict().items():
            assert torch.equal(value, expected.state_dict()[name])
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


def test_equal_weights_are_equal_networks_with_layer_norm_but_not_with_batch_norm_in_training():
    torch.manual_seed(0)
    images = torch.randn(8, 2, 4, 4, dtype=torch.float64)
    for norm, same in ((lambda c: nn.GroupNorm(1, c), True), (nn.BatchNorm2d, False)):
        teacher = network(norm)
        student = between(teacher, network(norm), 1.0)
        assert torch.equal(student.train()(images), teacher.eval()(images)) == same


def test_golden_plane(arrays):
    points = torch.from_numpy(arrays["H_w_teacher_init_final"])
    plane = plane_basis(*points)
    np.testing.assert_allclose(plane.e1, arrays["H_e1"], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(plane.e2, arrays["H_e2"], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(plane.coordinates, arrays["H_coords"], rtol=1e-9, atol=1e-12)
    axes = torch.stack([plane.e1, plane.e2])
    np.testing.assert_allclose(axes @ axes.T, np.eye(2), atol=1e-12)
    rebuilt = points[0] + plane.coordinates @ axes
    np.testing.assert_allclose(rebuilt, points, atol=1e-12)


def test_surface_passes_through_the_three_networks():
    torch.manual_seed(0)
    teacher, start, end = (nn.Linear(3, 2) for _ in range(3))
    goal = flat_weights(teacher)

    def distance(one):
        return (flat_weights(one) - goal).norm()

    found = loss_surface(teacher, start, end, distance, points=5, margin=0.0)
    assert found.loss.shape == (5, 5)
    assert float(found.x[-1]) == pytest.approx(float(found.coordinates[:, 0].max()), rel=1e-5)
    grid = (found.x[None, :].square() + found.y[:, None].square()).sqrt()
    assert torch.allclose(found.loss, grid, atol=1e-5)
    assert torch.equal(flat_weights(teacher), goal)
    positions, losses = straight_path(end, teacher, distance, points=3)
    assert positions.tolist() == [0, 0.5, 1]
    assert losses[2] == 0
    assert losses[1] == pytest.approx(losses[0].item() / 2, rel=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: interpolate_state({}, {}, 1.5), "lam must be between 0 and 1; got 1.5"),
        (
            lambda: interpolate_state({"a": torch.ones(2)}, {"a": torch.ones(3)}, 0.5),
            "same names and shapes; a differs",
        ),
        (
            lambda: interpolate_state({"a": torch.ones(2)}, {"b": torch.ones(2)}, 0.5),
            "same names and shapes; a differs",
        ),
        (
            lambda: plane_basis(torch.zeros(3), torch.ones(3), 2 * torch.ones(3)),
            "must span a plane; they lie on one line",
        ),
        (
            lambda: plane_basis(torch.zeros(3), torch.zeros(3), torch.ones(3)),
            "must span a plane; they lie on one line",
        ),
        (
            lambda: plane_basis(torch.zeros(3), torch.zeros(2), torch.ones(3)),
            r"vectors of one length; got \(3,\), \(2,\) and \(3,\)",
        ),
    ],
)
def test_wrong_inputs_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
