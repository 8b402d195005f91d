"""Training on batches of one's own: the same loop, and what it asks of them."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from smallnets.data import Augmentation, Batches
from smallnets.training import check_apart, check_networks, fit, seeded, teaching
from smallnets.training.checkpoint import weights_digest
from smallnets.training.draws import (
    epoch_seed,
    global_draws_kept,
    leaving_global_draws,
    seed_global,
)
from smallnets.training.loop import order_of_images


class Signals(nn.Module):
    """Of signals (batch, 2, time)."""

    def __init__(self, classes=3):
        super().__init__()
        self.body = nn.Sequential(nn.Conv1d(2, 6, 3), nn.BatchNorm1d(6), nn.ReLU())
        self.last = nn.Linear(6, classes)

    def forward(self, x):
        return self.last(self.body(x).mean(2))


Y = torch.arange(50) % 3
X = torch.randn(50, 2, 12, generator=torch.Generator().manual_seed(0)) + Y.view(-1, 1, 1)
PAIRS = [(X[:20], Y[:20]), (X[20:40], Y[20:40]), (X[40:], Y[40:])]


class Norm(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(24, 3), nn.BatchNorm1d(3))


def digest(model):
    return weights_digest(model.state_dict())


def in_its_order(data, settings, seed):
    """A function that gives, epoch by epoch, the batches that `fit` takes of a data set."""
    order = torch.Generator().manual_seed(seed)
    epochs = iter(range(settings.epochs))

    def epoch():
        _, batches = order_of_images(len(data.y_train), settings, next(epochs), order)
        return [(data.normalise(data.x_train[b]), data.y_train[b]) for b in batches]

    return epoch


def test_the_same_batches_give_the_same_bits_as_a_dataset(tiny, settings, new_model):
    bare = replace(settings, augmentation=Augmentation(crop=0))
    expected, model = new_model(), new_model()
    history = fit(expected, tiny, bare, seed=3)
    batches = Batches(in_its_order(tiny, bare, 3), length=6)
    plain = replace(settings, augmentation=None)
    assert fit(model, batches, plain, seed=3) == history
    assert digest(model) == digest(expected)


def test_images_are_augmented_only_where_that_was_asked_for(tiny, settings, new_model):
    batches = [(tiny.glance(32), tiny.y_train[:32])]
    found = []
    for view in (None, Augmentation(crop=0), Augmentation(crop=2)):
        model = new_model()
        fit(model, batches, replace(settings, augmentation=view), seed=0)
        found.append(digest(model))
    assert found[0] == found[1] != found[2]


def test_a_dataset_has_the_usual_augmentation_unless_told_otherwise(tiny, settings, new_model):
    found = []
    for view in (None, Augmentation(), Augmentation(crop=0)):
        model = new_model()
        fit(model, tiny, replace(settings, epochs=1, augmentation=view), seed=0)
        found.append(digest(model))
    assert found[0] == found[1] != found[2]


def test_a_loader_that_shuffles_and_ends_with_a_smaller_batch_is_learnt_from(settings):
    loader = DataLoader(TensorDataset(X, Y), 16, shuffle=True)
    with seeded(0):
        history = fit(Signals(), loader, replace(settings, augmentation=None, epochs=20), seed=0)
    assert history[-1]["loss"] < 0.8 * history[0]["loss"]


def test_the_log_is_the_mean_over_batches_and_the_rate_falls_within_an_epoch(settings):
    rates, losses = [], []

    class Watched(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.last = nn.Linear(24, 3)

        def forward(self, x):
            return self.last(x.flatten(1))

    model = Watched()
    original = torch.optim.SGD.step

    def step(self, *rest):
        rates.append(self.param_groups[0]["lr"])
        return original(self, *rest)

    def objective(model, batch):
        loss = nn.functional.cross_entropy(model(batch.images), batch.labels)
        losses.append(loss.item())
        return {"loss": loss}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.SGD, "step", step)
        plain = replace(settings, augmentation=None, epochs=1, schedule="linear")
        (found,) = fit(model, PAIRS, plain, seed=0, objective=objective)
    assert found["loss"] == pytest.approx(sum(losses) / 3)
    assert rates == pytest.approx([0.1, 0.2 / 3, 0.1 / 3])


def test_a_length_that_is_too_short_holds_the_end_of_the_epoch(settings):
    wrong = Batches(PAIRS, length=2)
    plain = replace(settings, augmentation=None, epochs=1, schedule="linear")
    fit(Signals(), wrong, plain, seed=0)  # whose third batch begins when the epoch ends


def test_inputs_of_the_network_s_own_type_and_of_five_dimensions(settings):
    plain = replace(settings, augmentation=None, epochs=1)
    fit(Signals().double(), PAIRS, plain, seed=0)
    volumes = nn.Sequential(nn.Conv3d(1, 2, 3), nn.Flatten(), nn.Linear(16, 3))
    fit(volumes, [(torch.randn(8, 1, 4, 4, 4), Y[:8])], plain, seed=0)
    words = nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Linear(20, 3))
    fit(words, [(torch.randint(0, 7, (8, 5)), Y[:8])], plain, seed=0)


class Dictionary(Signals):
    def forward(self, x):
        return {"logits": super().forward(x)}


@pytest.mark.parametrize(
    ("model", "data", "changes", "message"),
    [
        (Signals, iter(PAIRS), {}, "start anew in each of 4 epochs; got list_iterator"),
        (Signals, PAIRS, {"across_epochs": True}, "across_epochs must be False"),
        (Signals, lambda: PAIRS, {}, "'cosine' needs the number of batches an epoch"),
        (Signals, lambda: PAIRS, {"schedule": "step", "warmup_epochs": 1}, "needs the number"),
        (lambda: Signals(2), PAIRS, {}, "labels must be between 0 and 1, .*; got 2"),
        (Dictionary, PAIRS, {}, "logits as one tensor; got dict"),
        (Signals, Batches(PAIRS, labelled=False), {}, "must have labels here; got labelled=False"),
        (Norm, [PAIRS[0], (X[:1], Y[:1])], {}, "2 examples for BatchNorm; got 1: .* drop_last"),
    ],
)
def test_what_the_loop_cannot_use_is_said_in_one_line(settings, model, data, changes, message):
    plain = replace(settings, augmentation=None, **changes)
    with pytest.raises(ValueError, match=message) as error:
        fit(model(), data, plain, seed=0)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "changes", [{"schedule": "constant"}, {"whole_epochs": True}, {"schedule": "step"}]
)
def test_a_length_is_needed_only_where_the_rate_changes_within_an_epoch(settings, changes):
    plain = replace(settings, augmentation=None, epochs=2, **changes)
    assert len(fit(Signals(), lambda: PAIRS, plain, seed=0)) == 2


def test_a_generator_will_do_for_one_epoch(settings):
    once = replace(settings, epochs=1, augmentation=None, schedule="constant")
    assert len(fit(Signals(), iter(PAIRS), once, seed=0)) == 1


def test_a_training_is_kept_where_its_batches_have_a_name(settings, tmp_path):
    plain = replace(settings, augmentation=None, epochs=1)
    expected, found = Signals(), Signals()
    found.load_state_dict(expected.state_dict())
    fit(expected, PAIRS, plain, seed=0, cache_dir=tmp_path)
    kept = list(tmp_path.iterdir())
    fit(found, [(x.clone(), y) for x, y in PAIRS], plain, seed=0, cache_dir=tmp_path)
    assert digest(found) == digest(expected)
    assert list(tmp_path.iterdir()) == kept
    with pytest.raises(ValueError, match="has no name; got function"):
        fit(Signals(), lambda: PAIRS, plain, seed=0, cache_dir=tmp_path)


class Several:
    """A fabric of several processes, as far as it is asked before a training."""

    world_size = 3


def test_several_processes_keep_nothing_of_batches_of_their_own(settings, tmp_path):
    with pytest.raises(ValueError, match="cache_dir must be None for batches of your own in 3"):
        fit(Signals(), PAIRS, settings, seed=0, cache_dir=tmp_path, fabric=Several())
    with pytest.raises(AttributeError):  # past the checks: the size of batches is their own
        fit(Signals(), PAIRS, settings, seed=0, fabric=Several())


def test_student_and_teacher_have_weights_of_one_type():
    with pytest.raises(ValueError, match=r"of one type; got torch.float32 and torch.float64"):
        check_apart(Signals(), Signals().double())
    check_apart(Signals(), nn.Flatten())


def test_cuda_is_started_before_its_generators_are_kept(settings, monkeypatch):
    said = []
    monkeypatch.setattr(torch.cuda, "init", lambda: said.append("init"))

    @leaving_global_draws
    def train(model, dataset, settings):
        said.append(model)
        torch.rand(3)

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(1, None, settings)
    train(2, None, settings=SimpleNamespace(accelerator="cuda"))
    assert said == [1, "init", 2]
    assert torch.equal(torch.rand(3), expected)


def test_networks_must_agree_about_classes_where_nobody_says_how_many():
    assert check_networks({"teacher": Signals(), "student": Signals()}, X[:2]) == 3
    with pytest.raises(ValueError, match="student has 2 classes"):
        check_networks({"teacher": Signals(), "student": Signals(2)}, X[:2])
    with pytest.raises(ValueError, match=r"teacher must say one tensor .*; got dict"):
        check_networks({"teacher": Dictionary()}, X[:2])
    with pytest.raises(ValueError, match="does not take images of shape"):
        check_networks({"teacher": Signals()}, X[:2, :1])


def test_teachers_come_back_in_the_mode_of_every_part():
    teacher = Signals().train()
    teacher.body.eval()
    with teaching([teacher], "cpu", torch.channels_last):
        assert not any(part.training for part in teacher.modules())
    assert teacher.training
    assert teacher.last.training
    assert not teacher.body.training


def test_generators_of_two_purposes_never_start_alike():
    """PyTorch looks at the lowest 32 bits of a seed alone."""
    started = set()
    with global_draws_kept():
        for seed in range(50):
            seed_global(seed)
            started.add(float(torch.rand((), dtype=torch.float64)))
            for other in (seed, 1_000_003 * (seed + 1), epoch_seed(seed, 0), epoch_seed(seed, 1)):
                torch.manual_seed(other)
                started.add(float(torch.rand((), dtype=torch.float64)))
    assert len(started) == 5 * 50
