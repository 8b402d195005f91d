import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from smallnets.training import TrainSettings, learning_rate, new_optimizer


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("epochs", 0, "epochs must be at least 1; got 0"),
        ("epochs", 1.5, "epochs must be a whole number of at least 1; got 1.5"),
        ("batch_size", -2, "batch_size must be at least 1; got -2"),
        ("lr", 0.0, "lr must be greater than 0; got 0.0"),
        ("momentum", 1.5, "momentum must be between 0 and 1; got 1.5"),
        ("weight_decay", -1e-4, "weight_decay must be at least 0; got -0.0001"),
        ("schedule", "cos", "schedule must be one of cosine, linear, step, constant; got 'cos'"),
        ("final_lr", 0.2, "final_lr must be between 0 and 0.1; got 0.2"),
        ("warmup_epochs", 11, "warmup_epochs must be less than the 10 epochs; got 11"),
        ("optimizer", "lbfgs", "optimizer must be one of sgd, adam, adamw, shampoo; got 'lbfgs'"),
        ("device", "gpu", "device must be one of auto, cpu, cuda; got 'gpu'"),
        ("precision", "int8", "precision must be one of auto, 32-true, bf16-mixed; got 'int8'"),
    ],
)
def test_a_bad_setting_is_named_with_what_is_allowed(field, value, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011, the whole message is compared
        TrainSettings(**{field: value})
    assert str(error.value) == message


def test_cosine_starts_at_the_top_halves_in_the_middle_and_ends_at_the_bottom():
    settings = TrainSettings(epochs=10, lr=0.2, final_lr=0.02)
    assert learning_rate(settings, 0) == pytest.approx(0.2)
    assert learning_rate(settings, 5) == pytest.approx(0.11)
    assert learning_rate(settings, 10) == pytest.approx(0.02)


def test_a_linear_schedule_falls_evenly_to_its_end():
    settings = TrainSettings(epochs=10, lr=0.2, final_lr=0.02, schedule="linear")
    rates = [learning_rate(settings, epoch) for epoch in (0, 5, 10)]
    assert rates == pytest.approx([0.2, 0.11, 0.02])


@pytest.mark.parametrize("schedule", ["cosine", "linear", "step", "constant"])
def test_past_its_end_a_schedule_stays_where_it_ended(schedule):
    settings = TrainSettings(
        epochs=10, lr=0.2, final_lr=0.02, warmup_epochs=1, schedule=schedule, milestones=(4, 12)
    )
    end = learning_rate(settings, 10)
    assert {learning_rate(settings, epoch) for epoch in (10.01, 12, 15, 20, 1000)} == {end}
    assert end == pytest.approx(0.04 if schedule == "step" else settings.final_lr) or (
        schedule == "constant"
    )


def test_steps_are_those_of_the_published_wide_resnet_schedule():
    settings = TrainSettings(
        epochs=200, lr=0.1, schedule="step", milestones=(60, 120, 160), decay=0.2
    )
    rates = [learning_rate(settings, epoch) for epoch in (59.99, 60, 120, 160, 199)]
    assert rates == pytest.approx([0.1, 0.02, 0.004, 0.0008, 0.0008])


def test_warm_up_is_linear_and_hands_over_without_a_jump():
    settings = TrainSettings(epochs=10, warmup_epochs=2)
    assert learning_rate(settings, 0) == 0
    assert learning_rate(settings, 1) == pytest.approx(0.05)
    assert learning_rate(settings, 2) == pytest.approx(0.1)
    assert math.isclose(learning_rate(settings, 10), 0, abs_tol=1e-12)


def test_the_rate_may_change_from_epoch_to_epoch_only():
    settings = TrainSettings(epochs=10, lr=0.2, whole_epochs=True)
    assert learning_rate(settings, 4.9) == learning_rate(settings, 4)
    assert learning_rate(settings, 5) < learning_rate(settings, 4.9)


def test_the_optimiser_is_the_one_asked_for_and_each_of_them_learns():
    for name, kind in (("sgd", torch.optim.SGD), ("adam", torch.optim.Adam)):
        model = torch.nn.Linear(3, 1)
        weight = model.weight
        settings = TrainSettings(optimizer=name, lr=0.1, weight_decay=0.01)
        optimiser = new_optimizer(model, settings)
        assert isinstance(optimiser, kind)
        assert optimiser.param_groups[0]["weight_decay"] == 0.01
        before = weight.square().sum()
        before.backward()
        optimiser.step()
        assert weight.square().sum() < before


def test_a_constant_rate_stays():
    settings = TrainSettings(schedule="constant", lr=0.3)
    assert {learning_rate(settings, epoch) for epoch in (0, 0.5, 9.9)} == {0.3}


def test_auto_precision_is_one_that_can_be_asked_for():
    automatic = TrainSettings(device="cpu").arithmetic
    assert TrainSettings(device="cpu", precision=automatic).arithmetic == automatic
    assert TrainSettings(precision="32-true").arithmetic == "32-true"


@given(epochs=st.integers(1, 300), warmup=st.floats(0.1, 29.9))
def test_another_length_keeps_the_shape(epochs, warmup):
    settings = TrainSettings(
        epochs=30, warmup_epochs=warmup, schedule="step", milestones=(10, 20), final_lr=0
    )
    changed = settings.with_epochs(epochs)
    assert changed.epochs == epochs
    for share in (0.1, 0.5):
        same = [learning_rate(one, share * one.warmup_epochs) for one in (settings, changed)]
        assert same[0] == pytest.approx(same[1])
    assert changed.milestones == (round(epochs / 3), round(2 * epochs / 3))
    assert changed.with_epochs(30).warmup_epochs == pytest.approx(warmup)


def test_another_length_is_a_length():
    with pytest.raises(ValueError, match="epochs must be at least 1; got 0"):
        TrainSettings().with_epochs(0)
