"""Between two networks, and in the plane of three."""

import copy

import pytest
import torch
from torch import nn

from smallnets.distill.fidelity import (
    between,
    flat_weights,
    interpolate_state,
    loss_surface,
    plane_basis,
    straight_path,
)


def network(norm=nn.BatchNorm2d):
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1, bias=False), norm(3), nn.ReLU(), nn.Flatten(),
        nn.Linear(48, 5),
    ).double()  # fmt: skip


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
