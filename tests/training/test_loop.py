import random
import subprocess
import sys
import textwrap
import time
import warnings
from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from smallnets import measure
from smallnets.data import Augmentation
from smallnets.training import Batch, Classification, JointModels, fit, learning_rate, seeded
from smallnets.training.checkpoint import weights_digest


def digest(model):
    return weights_digest(model.state_dict())


def test_training_learns_what_can_be_learnt(tiny, settings, new_model):
    model = new_model()
    before = measure.accuracy(measure.predict(model, tiny.x_test, tiny.normalise), tiny.y_test)
    history = fit(model, tiny, replace(settings, epochs=15), seed=0)
    after = measure.accuracy(measure.predict(model, tiny.x_test, tiny.normalise), tiny.y_test)
    assert len(history) == 15
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]
    assert after > max(before, 0.9)
    assert not model.training


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_same_seed_gives_the_same_bits_and_another_seed_others(
    tiny, settings, new_model, precision
):
    settings = replace(settings, precision=precision)
    runs = []
    for seed in (0, 0, 1):
        model = new_model()
        history = fit(model, tiny, settings, seed=seed)
        runs.append((digest(model), history))
    assert runs[0] == runs[1]
    assert runs[0][0] != runs[2][0]


def test_training_leaves_the_global_random_state_alone(tiny, settings, new_model):
    model = new_model()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(model, tiny, settings, seed=0)
    assert torch.equal(torch.rand(3), expected)


class InterruptionError(Exception):
    pass


@pytest.fixture
def breaks_off(monkeypatch):
    """breaks_off(step) lets the next trainings break off there; returned is the count of steps."""

    def at(step):
        calls = []

        def rate(settings, epoch):
            calls.append(epoch)
            if len(calls) == step:
                raise InterruptionError
            return learning_rate(settings, epoch)

        monkeypatch.setattr("smallnets.training.loop.learning_rate", rate)
        return calls

    return at


def test_a_training_that_broke_off_goes_on_bit_for_bit(
    tiny, settings, new_model, tmp_path, breaks_off
):
    expected = new_model()
    history = fit(expected, tiny, settings, seed=3)

    steps = breaks_off(15)  # six steps an epoch: within the third
    with pytest.raises(InterruptionError):
        fit(new_model(), tiny, settings, seed=3, cache_dir=tmp_path)
    resumed = new_model()
    assert fit(resumed, tiny, settings, seed=3, cache_dir=tmp_path) == history
    assert digest(resumed) == digest(expected)
    assert len(steps) == 15 + 2 * 6  # two epochs were kept, two were left to do


class Drawing(nn.Module):
    """A network with noise from a global generator; `rate` 0 draws and uses nothing of it."""

    def __init__(self, kind, rate=0.5):
        super().__init__()
        self.kind = kind
        self.rate = rate
        self.inner = nn.Linear(192, 32)
        self.outer = nn.Linear(32, 4)

    def forward(self, x):
        x = self.inner(x.flatten(1))
        if self.kind == "dropout":
            x = F.dropout(x, self.rate, self.training)
        elif self.kind == "rrelu":
            x = F.rrelu(x, training=self.training)
        elif self.kind == "gumbel":
            x = x + F.gumbel_softmax(x, dim=1)
        elif self.kind == "noise":
            x = x + self.rate * torch.randn_like(x)
        elif self.kind == "depth" and self.training:
            x = x * (torch.rand(()) < self.rate)
        elif self.kind == "numpy":
            x = x + self.rate * np.random.normal()
        elif self.kind == "python":
            x = x + random.gauss(0, self.rate)
        return self.outer(x)


KINDS = ["dropout", "rrelu", "gumbel", "noise", "depth", "numpy", "python"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_network_draws_is_the_seeds_and_goes_on_after_a_break(
    tiny, settings, tmp_path, breaks_off, kind
):
    def trained(**how):
        with seeded(0):
            network = Drawing(kind)
        history = fit(network, tiny, settings, **{"seed": 0, **how})
        return digest(network), history

    expected = trained()
    for generator in (torch.manual_seed, np.random.seed, random.seed):
        generator(99)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    assert trained() == expected
    breaks_off(15)
    with pytest.raises(InterruptionError):
        trained(cache_dir=tmp_path)
    after = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]
    assert trained(cache_dir=tmp_path) == expected


def test_another_seed_draws_otherwise_inside_a_network(tiny, settings):
    quiet = replace(settings, augmentation=Augmentation(crop=0), batch_size=96, epochs=1)
    networks = {}
    for seed in (0, 1):  # one step with all images: only what is drawn inside differs
        with seeded(0):
            networks[seed] = Drawing("noise")
        history = fit(networks[seed], tiny, quiet, seed=seed)
        networks[seed] = history[-1]["loss"]
    assert abs(networks[0] - networks[1]) > 1e-3


def test_nothing_finished_is_trained_again(tiny, settings, new_model, tmp_path):
    first, again = new_model(), new_model()
    history = fit(first, tiny, settings, seed=0, cache_dir=tmp_path, label="model")
    written = next(tmp_path.iterdir()).stat().st_mtime_ns
    assert fit(again, tiny, settings, seed=0, cache_dir=tmp_path, label="model") == history
    assert not again.training
    assert digest(first) == digest(again)
    assert [file.suffix for file in tmp_path.iterdir()] == [".safetensors"]
    assert next(tmp_path.iterdir()).stat().st_mtime_ns == written


@pytest.mark.parametrize("change", ["seed", "epochs", "data", "start"])
def test_a_changed_training_is_another_training(tiny, settings, new_model, tmp_path, change):
    fit(new_model(), tiny, settings, seed=0, cache_dir=tmp_path)
    fit(
        new_model(1 if change == "start" else 0),
        tiny.take(80) if change == "data" else tiny,
        replace(settings, epochs=5) if change == "epochs" else settings,
        seed=1 if change == "seed" else 0,
        cache_dir=tmp_path,
    )
    assert len(list(tmp_path.glob("*.safetensors"))) == 2


def flip_a_bit(file):
    content = bytearray(file.read_bytes())
    content[-10] ^= 1
    file.write_bytes(content)


def cut_short(file):
    file.write_bytes(file.read_bytes()[:-100])


def empty(file):
    file.write_bytes(b"")


@pytest.mark.parametrize("damage", [flip_a_bit, cut_short, empty])
def test_a_damaged_file_is_trained_again_with_a_word(tiny, settings, new_model, tmp_path, damage):
    model, again = new_model(), new_model()
    history = fit(model, tiny, settings, seed=0, cache_dir=tmp_path)
    damage(next(tmp_path.glob("*.safetensors")))
    with pytest.warns(UserWarning, match="is damaged .* training again"):
        assert fit(again, tiny, settings, seed=0, cache_dir=tmp_path) == history
    assert digest(again) == digest(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(new_model(), tiny, settings, seed=0, cache_dir=tmp_path)


def test_a_training_of_other_code_is_another_training(
    tiny, settings, new_model, tmp_path, monkeypatch
):
    fit(new_model(), tiny, settings, seed=0, cache_dir=tmp_path)
    monkeypatch.setattr("smallnets.training.loop.code_digest", lambda: "newer")
    fit(new_model(), tiny, settings, seed=0, cache_dir=tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) == 2


def weighted(weight):
    def objective(model, batch):
        return {"loss": weight * F.cross_entropy(model(batch.images).float(), batch.labels)}

    return objective


def with_weight(model, batch, weight):
    return weighted(weight)(model, batch)


@pytest.mark.parametrize("make", [weighted, lambda weight: partial(with_weight, weight=weight)])
def test_what_an_objective_closes_over_decides_a_training(
    tiny, settings, new_model, tmp_path, make
):
    one, other = (
        fit(new_model(), tiny, settings, seed=0, objective=make(weight), cache_dir=tmp_path)
        for weight in (1, 100)
    )
    assert other[0]["loss"] > 10 * one[0]["loss"]


@dataclass(frozen=True)
class Scale:
    factor: float


class Scaled(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale
        self.layer = nn.Linear(192, 10)

    def forward(self, x):
        factor = self.scale.factor if isinstance(self.scale, Scale) else self.scale
        return self.layer(factor * x.flatten(1))


@pytest.mark.parametrize("kind", [float, Scale])
def test_attributes_of_a_network_decide_a_training(tiny, settings, tmp_path, kind):
    histories = []
    for scale in (1.0, 0.0):
        with seeded(0):
            network = Scaled(kind(scale))
        histories.append(fit(network, tiny, settings, seed=0, cache_dir=tmp_path))
    assert histories[0] != histories[1]


SCRIPT = """
    import sys, time
    from pathlib import Path
    import torch
    from smallnets.data import Augmentation, load
    from smallnets.models import convnet
    from smallnets.training import TrainSettings, fit, seeded
    from smallnets.training.checkpoint import weights_digest

    torch.set_num_threads(1)
    with seeded(0):
        model = convnet(4, 10, in_channels=1)
    settings = TrainSettings(epochs=30, batch_size=32, augmentation=Augmentation(2), device="cpu")
    digits = load("digits").take(640, 100)
    history = fit(model, digits, settings, seed=0, cache_dir=Path(sys.argv[1]))
    print(weights_digest(model.state_dict()), history[-1])
"""


def test_a_killed_process_started_again_ends_as_if_it_had_not_been_killed(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(textwrap.dedent(SCRIPT))

    def start(folder):
        return subprocess.Popen(
            [sys.executable, script, tmp_path / folder], stdout=subprocess.PIPE, text=True
        )

    undisturbed = start("a").communicate(timeout=300)[0]

    killed = start("b")
    deadline = time.monotonic() + 120
    while not list((tmp_path / "b").glob("*.running")) and time.monotonic() < deadline:
        time.sleep(0.01)
    killed.kill()
    killed.communicate()
    assert list((tmp_path / "b").glob("*.running")), "killed too late or too early to test anything"
    assert not list((tmp_path / "b").glob("*.safetensors"))

    assert start("b").communicate(timeout=300)[0] == undisturbed
    assert len(undisturbed.split()[0]) == 64


@pytest.mark.parametrize(
    ("batch_size", "message"),
    [(97, "batch_size must be between 1 and 96; got 97")],
)
def test_more_images_a_batch_than_there_are(tiny, settings, new_model, batch_size, message):
    with pytest.raises(ValueError, match=message):
        fit(new_model(), tiny, replace(settings, batch_size=batch_size), seed=0)


def test_processes_must_share_a_batch_evenly(tiny, settings, new_model):
    three = SimpleNamespace(world_size=3)
    with pytest.raises(ValueError, match="must be a multiple of the 3 processes; got 16"):
        fit(new_model(), tiny, settings, seed=0, fabric=three)


class CohortClassification:
    def __call__(self, model, batch):
        losses = [
            F.cross_entropy(seen.logits, batch.labels) for seen in model(batch.images).values()
        ]
        return {"loss": torch.stack(losses).sum()}


def test_members_of_a_cohort_train_as_they_would_alone(tiny, settings, new_model):
    alone = [new_model(seed) for seed in (0, 1)]
    together = [new_model(seed) for seed in (0, 1)]
    for model in alone:
        fit(model, tiny, settings, seed=7)
    cohort = JointModels({"first": together[0], "second": together[1]})
    fit(cohort, tiny, settings, seed=7, objective=CohortClassification())
    assert [digest(model) for model in alone] == [digest(model) for model in together]


def test_label_smoothing_is_torchs_own(tiny, new_model):
    model, batch = new_model().eval(), Batch(tiny.normalise(tiny.x_train), tiny.y_train)
    loss = Classification(label_smoothing=0.2)(model, batch)["loss"]
    expected = F.cross_entropy(model(batch.images), batch.labels, label_smoothing=0.2)
    assert torch.equal(loss, expected)
    with pytest.raises(ValueError, match="label_smoothing must be between 0 and 1; got 2"):
        Classification(label_smoothing=2)


def test_adam_trains(tiny, settings, new_model):
    model = new_model()
    history = fit(model, tiny, replace(settings, optimizer="adam", lr=0.01, epochs=8), seed=0)
    assert history[-1]["loss"] < history[0]["loss"]
