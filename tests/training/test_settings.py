import math

import pytest

from smallnets.training import TrainSettings, learning_rate


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("epochs", 0, "epochs must be at least 1; got 0"),
        ("epochs", 1.5, "epochs must be a whole number of at least 1; got 1.5"),
        ("batch_size", -2, "batch_size must be at least 1; got -2"),
        ("lr", 0.0, "lr must be greater than 0; got 0.0"),
        ("momentum", 1.5, "momentum must be between 0 and 1; got 1.5"),
        ("weight_decay", -1e-4, "weight_decay must be at least 0; got -0.0001"),
        (
            "schedule",
            "cosin",
            "schedule must be one of cosine, linear, step, constant; got 'cosin'",
        ),
        ("final_lr", 0.2, "final_lr must be between 0 and 0.1; got 0.2"),
        ("warmup_epochs", 11, "warmup_epochs must be between 0 and 10; got 11"),
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


def test_a_constant_rate_stays():
    settings = TrainSettings(schedule="constant", lr=0.3)
    assert {learning_rate(settings, epoch) for epoch in (0, 0.5, 9.9)} == {0.3}


def test_auto_precision_is_one_that_can_be_asked_for():
    automatic = TrainSettings(device="cpu").arithmetic
    assert TrainSettings(device="cpu", precision=automatic).arithmetic == automatic
    assert TrainSettings(precision="32-true").arithmetic == "32-true"
