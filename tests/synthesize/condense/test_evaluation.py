"""One protocol for every set, and the tables that stand on it."""

from dataclasses import replace

import pytest
import torch

from smallnets.data import load
from smallnets.synthesize import condense as dm

QUICK = dm.EvalSettings(epochs=5, lr=0.05, batch_size=16, device="cpu")


def test_passes_rates_and_steps_are_as_published():
    settings = dm.EvalSettings()
    assert len(settings.rates) == 1001
    assert settings.rates[501] == 0.01
    assert settings.rates[502] == pytest.approx(0.001)
    short = dm.EvalSettings(epochs=6)
    assert [round(rate, 4) for rate in short.rates] == [0.01] * 5 + [0.001] * 2
    assert short.steps(100) == 7
    assert short.steps(257) == 14
    assert replace(short, iterations=9).steps(257) == 9


def test_every_epoch_sees_every_image_once_and_parameters_are_of_images(real, net, monkeypatch):
    drawn = []
    original = dm.sample_dsa

    def sampled(strategy, n, *rest):
        drawn.append(n)
        return original(strategy, n, *rest)

    monkeypatch.setattr("smallnets.synthesize.condense.evaluation.sample_dsa", sampled)
    places = []
    dm.train_on(real, net(), QUICK, seen=lambda which, right: places.append(which))
    assert drawn == [16, 16, 16] * 6
    for epoch in range(6):
        together = torch.cat(places[3 * epoch : 3 * epoch + 3])
        assert together.sort().values.tolist() == list(range(48))


def test_momentum_is_forgotten_at_the_drop(real, net, monkeypatch):
    made = []
    original = torch.optim.SGD

    class Recorded(original):
        def __init__(self, *arguments, **named):
            super().__init__(*arguments, **named)
            made.append(self.param_groups[0]["lr"])

    monkeypatch.setattr(torch.optim, "SGD", Recorded)
    dm.train_on(real, net(), replace(QUICK, epochs=6))
    assert made == [0.05, pytest.approx(0.005)]


def test_training_stops_after_so_many_steps(real, net):
    places, epochs = [], []
    dm.train_on(
        real, net(), replace(QUICK, iterations=4), seen=lambda which, right: places.append(which),
        after_epoch=lambda epoch, network: epochs.append(epoch),
    )  # fmt: skip
    assert len(places) == 4
    assert epochs == [0, 1]


def test_a_seed_repeats_a_training_and_the_whole_set_is_one_too(real, net, made):
    test = made(seed=7)
    one, again = (dm.evaluate_set(real, test, net(), QUICK, (0, 1), workers=1) for _ in "ab")
    assert torch.equal(one.accuracies, again.accuracies)
    assert one.accuracies.shape == (1, 2)
    assert one.mean > 0.5
    small = dm.evaluate_set(
        [dm.select(real, "random", 1, seed=s) for s in range(2)], test, net(), QUICK, [0], workers=1
    )
    assert small.mean < one.mean
    assert small.accuracies.shape == (2, 1)
    assert small.error == pytest.approx(float(small.accuracies.std()) / 2**0.5)
    assert one.error != one.error  # one set says nothing about the spread over sets


def test_worker_processes_find_what_one_process_does(real, net, made):
    test = made(seed=7)
    alone, side_by_side = (
        dm.evaluate_set(real, test, net(), replace(QUICK, epochs=0), (0, 1), workers=workers)
        for workers in (1, 2)
    )
    assert torch.equal(alone.accuracies, side_by_side.accuracies)


def test_features_and_forgetting_come_from_a_training_on_the_whole_set(real, net):
    found = dm.trained_features(real, net(), QUICK)
    assert found.shape == (48, net()().dimension)
    network = dm.train_on(real, net(), QUICK).network
    torch.testing.assert_close(dm.features(network, real), found)
    forgetting = dm.watch_forgetting(real, net(), QUICK)
    assert forgetting.events.shape == forgetting.never.shape == (48,)
    assert int(forgetting.events.max()) >= 1
    learned = dm.watch_forgetting(real, net(), replace(QUICK, epochs=30, strategy=None))
    assert int(learned.never.sum()) == 0


def test_cross_architecture_table(real, net, made):
    sets = {"ConvNet": [dm.select(real, "random", 2)], "random": [dm.select(real, "random", 1)]}
    factories = {"narrow": net(), "deep": net(depth=3), "batch": net(norm="batch")}
    table = dm.transfer_table(sets, made(seed=7), factories, QUICK, [0], workers=1)
    assert {learned: list(row) for learned, row in table.items()} == {
        "ConvNet": ["narrow", "deep", "batch"],
        "random": ["narrow", "deep", "batch"],
    }
    assert table["ConvNet"]["deep"].shape == (1, 1)


def test_accuracy_grows_with_the_size_of_the_set(real, net, made):
    makers = {"random": lambda ipc, seed: dm.select(real, "random", ipc, seed=seed)}
    found = dm.accuracy_by_ipc(
        makers, (1, 10), made(seed=7), net(), replace(QUICK, epochs=20), sets=2, seeds=[0],
        workers=1,
    )  # fmt: skip
    assert found["random"].shape == (2, 2, 1)
    assert found["random"][1].mean() > found["random"][0].mean()


def test_costs():
    assert dm.cost_of(lambda: sum(range(1000))).seconds >= 0
    assert dm.cost_of(lambda: None).peak_bytes > 50e6
    assert dm.seconds_to(0.5, [0, 10, 20], [0.1, 0.3, 0.7]) == pytest.approx(15)
    assert dm.seconds_to(0.1, [3, 10], [0.1, 0.3]) == 3
    assert dm.seconds_to(0.9, [3, 10], [0.1, 0.3]) == float("inf")
    with pytest.raises(ValueError, match="equally many"):
        dm.seconds_to(0.5, [1], [])
    with pytest.raises(ValueError, match="seconds must rise"):
        dm.seconds_to(0.5, [2, 1], [0.1, 0.2])


def test_bad_inputs_are_refused_in_one_line(real, net, made):
    test = made(seed=7)
    other = replace(test, mean=test.mean + 0.1)
    for call, words in (
        (lambda: replace(QUICK, lr=0), "lr must be greater than 0"),
        (lambda: replace(QUICK, epochs=-1), "epochs must be at least 0"),
        (lambda: replace(QUICK, batch_size=0), "batch_size must be at least 1"),
        (lambda: replace(QUICK, strategy="crop_crop"), "every family once"),
        (lambda: replace(QUICK, iterations=0), "iterations must be at least 1"),
        (lambda: dm.evaluate_set(real, other, net()), "both sets must be normalised alike"),
        (lambda: dm.evaluate_set(real, load("digits"), net()), "must be normalised alike"),
        (lambda: dm.evaluate_set([], test, net()), "at least one set and one seed"),
        (lambda: dm.evaluate_set(real, test, net(), seeds=[]), "at least one set and one seed"),
        (lambda: dm.train_on(real, net(3), QUICK), "at least 4 classes; got 3"),
        (
            lambda: dm.train_on(real, net(norm="none"), replace(QUICK, lr=1e20)),
            r"the loss must stay finite; got (nan|inf) with lr 1e\+20",
        ),
        (lambda: dm.accuracy_by_ipc({}, [], test, net()), "at least one number"),
    ):
        with pytest.raises(ValueError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)
