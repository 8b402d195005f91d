import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from smallnets.training import Shampoo, TrainSettings, fit, learning_rate, new_optimizer
from smallnets.training.checkpoint import weights_digest
from smallnets.training.draws import epoch_seed
from smallnets.training.loop import order_of_images
from smallnets.training.optimizers import inverse_fourth_root


def test_the_schedule_starts_at_zero_peaks_after_the_warm_up_and_ends_at_zero():
    for schedule in ("cosine", "linear"):
        settings = TrainSettings(epochs=10, warmup_epochs=2, lr=3.0, schedule=schedule)
        rates = [learning_rate(settings, epoch / 10) for epoch in range(101)]
        assert (rates[0], rates[20]) == (0, 3.0)
        assert rates[100] == pytest.approx(0, abs=1e-12)
        assert rates[:21] == sorted(rates[:21])
        assert rates[20:] == sorted(rates[20:], reverse=True)
    with pytest.raises(ValueError, match="warmup_epochs must be less than the 10 epochs; got 11"):
        TrainSettings(epochs=10, warmup_epochs=11)


@pytest.mark.parametrize("optimizer", ["adamw", "shampoo"])
def test_matrices_shrink_whatever_the_learning_rate_and_vectors_do_not(optimizer):
    model = nn.Linear(3, 2)
    before = copy.deepcopy(model)
    settings = TrainSettings(lr=1e-9, weight_decay=0.25, optimizer=optimizer)
    chosen = new_optimizer(model, settings)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    chosen.step()
    torch.testing.assert_close(model.weight, 0.75 * before.weight)
    torch.testing.assert_close(model.bias, before.bias)


def test_inverse_fourth_root():
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(5, 5, generator=generator, dtype=torch.float64)
    matrix = root @ root.T + 0.1 * torch.eye(5)
    found = inverse_fourth_root(matrix, ridge=0)
    torch.testing.assert_close(torch.linalg.matrix_power(found, 4) @ matrix, torch.eye(5).double())
    assert torch.equal(inverse_fourth_root(torch.zeros(3, 3)), torch.eye(3))


def test_shampoo_takes_adams_length_and_a_direction_of_its_own():
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(4, 3, 2, 2, generator=generator)
    parameters = [nn.Parameter(start.clone()) for _ in range(2)]
    shampoo, adam = Shampoo([parameters[0]], lr=0.1), torch.optim.Adam([parameters[1]], lr=0.1)
    for parameter in parameters:
        parameter.grad = torch.ones_like(start).cumsum(0) + start
    shampoo.step()
    adam.step()
    moves = [parameter.detach() - start for parameter in parameters]
    assert moves[0].norm() == pytest.approx(moves[1].norm().item(), rel=1e-4)
    assert F.cosine_similarity(moves[0].flatten(), moves[1].flatten(), dim=0) < 0.999


def test_the_first_direction_whitens_the_gradient():
    """With G = U S V^T, L^(-1/4) G R^(-1/4) is U V^T up to a factor."""
    generator = torch.Generator().manual_seed(0)
    gradient = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    parameter = nn.Parameter(torch.zeros(4, 4, dtype=torch.float64))
    parameter.grad = gradient
    Shampoo([parameter], lr=1.0).step()
    left, _, right = torch.linalg.svd(gradient)
    direction = -parameter.detach() / parameter.detach().norm()
    torch.testing.assert_close(direction, left @ right / 2, rtol=1e-3, atol=1e-3)


def test_vectors_move_as_with_adam_and_long_sides_are_left_alone():
    parameters = [nn.Parameter(torch.ones(5)) for _ in range(2)]
    optimizers = [Shampoo([parameters[0]], lr=0.1), torch.optim.Adam([parameters[1]], lr=0.1)]
    wide = nn.Parameter(torch.ones(3, 9))
    sided = Shampoo([wide], largest=4)
    for step in range(3):
        for parameter, optimizer in zip(parameters, optimizers, strict=True):
            parameter.grad = torch.arange(5.0) - step
            optimizer.step()
        wide.grad = torch.ones(3, 9).cumsum(1)
        sided.step()
    torch.testing.assert_close(parameters[0], parameters[1])
    assert set(sided.state[wide]) >= {"left", "left root"}
    assert "right" not in sided.state[wide]


def test_shampoo_solves_a_crooked_bowl_faster():
    """A quadratic whose axes are stretched a hundredfold and rotated."""
    generator = torch.Generator().manual_seed(0)
    rotation = torch.linalg.qr(torch.randn(8, 8, generator=generator)).Q
    stretch = rotation @ torch.diag(torch.logspace(0, 2, 8)) @ rotation.T
    goal = torch.randn(8, 8, generator=generator)
    ends = {}
    for name, kind in {"shampoo": Shampoo, "adam": torch.optim.Adam}.items():
        parameter = nn.Parameter(torch.zeros(8, 8))
        optimizer = kind([parameter], lr=0.03)

        def loss(parameter=parameter):
            return (stretch @ (parameter - goal)).square().mean()

        for _ in range(150):
            optimizer.zero_grad()
            loss().backward()
            optimizer.step()
        ends[name] = loss().item()
    assert ends["shampoo"] < 0.7 * ends["adam"]
    again = Shampoo([parameter]).step(lambda: loss().item())
    assert again == pytest.approx(ends["adam"], rel=0.2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lr": 0}, "lr must be greater than 0; got 0"),
        ({"betas": (1.0, 0.9)}, r"betas\[0\] must be between 0 and"),
        ({"eps": 0}, "eps must be greater than 0"),
        ({"weight_decay": -1}, "weight_decay must be at least 0; got -1"),
        ({"every": 0}, "every must be at least 1; got 0"),
        ({"largest": 0}, "largest must be at least 1; got 0"),
    ],
)
def test_bad_numbers_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Shampoo([nn.Parameter(torch.ones(2))], **arguments)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("optimizer", "lion", "optimizer must be one of sgd, adam, adamw, shampoo; got 'lion'"),
        ("clip", 0, "clip must be greater than 0; got 0"),
    ],
)
def test_bad_settings_are_named(field, value, message):
    with pytest.raises(ValueError, match=message):
        TrainSettings(**{field: value})


@pytest.mark.parametrize("optimizer", ["adamw", "shampoo"])
def test_training_with_them_learns_and_repeats(tiny, settings, new_model, optimizer):
    settings = replace(
        settings, optimizer=optimizer, lr=3e-3, weight_decay=1e-4, clip=1.0, epochs=8
    )
    runs = []
    for _ in range(2):
        model = new_model()
        history = fit(model, tiny, settings, seed=0)
        runs.append(weights_digest(model.state_dict()))
    assert history[-1]["loss"] < 0.7 * history[0]["loss"]
    assert runs[0] == runs[1]


def test_clipping_limits_the_step(tiny, settings, new_model):
    """Plain SGD without momentum moves by lr times the clipped gradient."""
    plain = replace(
        settings, epochs=1, momentum=0.0, weight_decay=0.0, lr=1.0, schedule="constant",
        batch_size=96, clip=1e-3,
    )  # fmt: skip
    model = new_model()
    before = torch.cat([p.detach().flatten() for p in model.parameters()])
    fit(model, tiny, plain, seed=0)
    after = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert (after - before).norm() == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize(("count", "batch", "epochs"), [(1020, 512, 5), (96, 36, 4), (10, 10, 3)])
def test_batches_across_epochs_leave_nothing_out(count, batch, epochs):
    settings = TrainSettings(epochs=epochs, batch_size=batch, across_epochs=True)
    generator = torch.Generator().manual_seed(3)
    parts = [order_of_images(count, settings, epoch, generator) for epoch in range(epochs)]
    stream = torch.cat([images.flatten() for _, images in parts])
    assert len(stream) == round(epochs * count / batch) * batch
    for epoch in range(len(stream) // count):
        passed = stream[epoch * count : (epoch + 1) * count]
        assert sorted(passed.tolist()) == list(range(count))
    times = [time for part, _ in parts for time in part]
    np.testing.assert_allclose(times, np.arange(len(times)) * epochs / len(times))
    assert all(len(images) for _, images in parts)


def test_a_batch_knows_its_images_and_the_trainings_noise(tiny, settings, new_model):
    seen = []

    def objective(model, batch):
        seen.append((batch.which.clone(), batch.noise))
        labels = tiny.y_train[batch.which]
        assert torch.equal(labels, batch.labels)
        return {"loss": F.cross_entropy(model(batch.images), labels)}

    fit(new_model(), tiny, replace(settings, epochs=1), seed=0, objective=objective)
    assert sorted(torch.cat([which for which, _ in seen]).tolist()) == list(range(96))
    assert isinstance(seen[0][1], torch.Generator)


def test_orders_across_epochs_share_no_seed_with_other_generators():
    """Once the order of seed s + 1 began with the number of the views of seed s."""
    orders = {epoch_seed(seed, epoch) for seed in range(20) for epoch in range(100)}
    views = {1_000_003 * (seed + 1) for seed in range(20)}
    assert len(orders) == 2000
    assert not orders & (views | set(range(5000)))
    assert max(orders) < 2**32
