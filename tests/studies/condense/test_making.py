"""A set is made as its recipe says, once, from training images alone."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from smallnets.data import load
from smallnets.studies import condense as study
from smallnets.studies.condense import making
from smallnets.studies.condense.recipes import FRESH, ONE, TEN, TRAINED
from smallnets.synthesize import condense as method


def as_bytes(images):
    return {image.numpy().tobytes() for image in images}


@pytest.fixture
def asked(monkeypatch):
    """asked(recipe) -> what learning it would be given."""
    seen = []

    def learned(data, settings, **named):
        seen.append(SimpleNamespace(data=data, settings=settings, **named))
        return SimpleNamespace(set="the set", state=None)

    for name in ("condense", "match_gradients"):
        monkeypatch.setattr(method, name, learned)
    monkeypatch.setattr(making, "is_raced", lambda *_: False)

    def of(digits, settings, recipe, seed=3):
        study.make_set(digits, settings, seed, recipe)
        return seen[-1]

    return of


def test_a_set_of_dm_is_learned_as_its_recipe_says(digits, quick, asked):
    plain = asked(digits, quick, study.Recipe(ipc=2))
    assert plain.seed == 3
    assert plain.data is digits
    assert plain.settings == replace(
        quick.matching, ipc=2, lr=quick.rate(2), network=quick.network, batch_real=7
    )
    assert isinstance(plain.embed_factory, method.Fresh)
    assert plain.embed_factory.name == quick.network
    changes = {
        "init": ({"init": "noise"}, "noise"),
        "strategy": ({"augmented": False}, None),
        "iterations": ({"length": 2.0}, 2 * quick.matching.iterations),
        "lr": ({"rate": 0.1}, quick.rate(2) * 0.1),
        "align_corners": ({"align_corners": True}, True),
        "batch_syn": ({"few": 1}, 1),
        "network": ({"network": "MLP"}, "MLP"),
    }
    for field, (change, value) in changes.items():
        other = asked(digits, quick, study.Recipe(ipc=2, **change))
        assert getattr(other.settings, field) == value
        assert replace(other.settings, **{field: getattr(plain.settings, field)}) == plain.settings
        assert other.embed_factory.name == (change.get("network") or quick.network)


def test_dc_starts_from_noise_and_matches_plainly_and_dsa_does_neither(digits, quick, asked):
    dc, dsa = (asked(digits, quick, study.Recipe(name, 2)).settings for name in ("DC", "DSA"))
    assert (dc.init, dc.strategy) == ("noise", None)
    assert (dsa.init, dsa.strategy) == ("real", method.DIGITS)
    assert dc.lr == quick.from_noise * dsa.lr == quick.from_noise * quick.gradients.lr
    assert replace(dc, init=dsa.init, strategy=dsa.strategy, lr=dsa.lr) == dsa
    assert (dsa.ipc, dsa.network) == (2, quick.network)
    assert dsa.batch_real == min(quick.gradients.batch_real, making.smallest_class(digits))


@pytest.mark.parametrize("name", ["DC", "DSA"])
@pytest.mark.parametrize("ipc", [1, 10, 50])
def test_rivals_may_cost_a_multiple_of_dm(name, ipc):
    digits, settings = study.prepare("digits", "evidence")

    def cost(recipe):
        updates = study.updates_of(digits, settings, recipe)
        return updates * study.passes_of_update(digits, settings, recipe)

    rival, dm = study.Recipe(name, ipc), study.Recipe(ipc=ipc)
    assert cost(rival) == pytest.approx(settings.budget * cost(dm), rel=0.15)
    half = replace(rival, length=0.5)
    assert study.updates_of(digits, settings, half) == pytest.approx(
        study.updates_of(digits, settings, rival) / 2, abs=0.5
    )
    poor = replace(settings, budget=1e-9)
    assert study.updates_of(digits, poor, rival) == 1


def test_no_batch_is_larger_than_the_smallest_class(digits, quick, asked):
    hungry = replace(quick, matching=replace(quick.matching, batch_real=500))
    smallest = int(digits.y_train.bincount().min())
    assert asked(digits, hungry, study.Recipe(ipc=2)).settings.batch_real == smallest


def test_embedding_networks_come_from_where_the_recipe_says(digits, quick):
    def networks(embedding, seed=0):
        made = making.sampler(digits, quick, seed, study.Recipe(ipc=2, embedding=embedding))
        return made if embedding == FRESH else made.networks

    assert networks(FRESH).name == quick.network
    one, ten = networks(ONE), networks(TEN)
    assert (len(one), len(ten)) == (1, 10)
    weights = [next(network.parameters()) for network in (*ten, *networks(ONE, seed=1))]
    assert torch.equal(next(one[0].parameters()), weights[0])
    for place, mine in enumerate(weights):
        assert not any(torch.equal(mine, other) for other in weights[place + 1 :])
    trained = networks(TRAINED)
    steps = quick.whole.steps(len(digits.y_train) - quick.held_out)
    assert len(trained) == quick.trainings * len(study.looks_at(steps, 99))


def test_bands_are_of_equally_many_networks_and_rise(digits, quick):
    seen = method.AccuracyBands([torch.nn.Linear(1, n) for n in range(1, 9)],
                                [0.3, 0.1, 0.8, 0.2, 0.2, 0.6, 0.7, 0.2])  # fmt: skip
    bands = making.Bands(seen, 4)
    assert [bands.of(k) for k in (1, 2, 3, 4)] == [[1, 3], [4, 7], [0, 5], [6, 2]]
    assert [bands.mean(k) for k in (1, 2, 3, 4)] == pytest.approx([0.15, 0.2, 0.45, 0.75])
    assert sorted(bands.of(0)) == list(range(8))
    assert bands.pool(4).networks == [seen.networks[6], seen.networks[2]]
    assert bands.mean(0) == pytest.approx(0.3875)


def test_networks_of_bands_are_judged_by_images_that_they_were_not_shown(
    digits, quick, monkeypatch
):
    shown, judged = [], []
    real = method.accuracy
    monkeypatch.setattr(method, "accuracy", lambda network, data: (
        judged.append(data), real(network, data))[1])  # fmt: skip
    train = method.train_on
    monkeypatch.setattr(method, "train_on", lambda images, *given, **named: (
        shown.append(images), train(images, *given, **named))[1])  # fmt: skip
    bands = making.embedding_bands(digits, quick, 0)
    last = method.train_on(
        judged[0], lambda: study.build(digits, quick.network), quick.whole,
        making.member_seed(0, making.ON_REST),
    ).network  # fmt: skip
    whole = bands.seen.networks[-1]
    for (name, mine), (_, theirs) in zip(
        whole.state_dict().items(), last.state_dict().items(), strict=True
    ):
        assert torch.equal(mine, theirs), name
    weights = [next(network.parameters()) for network in bands.seen.networks]
    assert not torch.equal(weights[0], weights[-1])
    again = [real(network, judged[0]) for network in bands.seen.networks]
    assert again == bands.seen.accuracies
    known = as_bytes(digits.x_train)
    for one in judged:
        assert as_bytes(one.x_test) <= known
        assert len(one.y_test) == quick.held_out
    for one in shown:
        assert as_bytes(one.x_train) == known - as_bytes(judged[0].x_test)


def test_random_images_are_what_learning_starts_from(digits, quick):
    still = replace(quick, matching=replace(quick.matching, lr=1e-9, iterations=1))
    for ipc in (1, 2):
        before, after, losses, seconds = study.pictures(digits, still, 4, ipc)
        torch.testing.assert_close(before.images, after.images)
        assert torch.equal(before.labels, after.labels)
        assert len(losses) == 1
        assert seconds > 0
    other = study.make_set(digits, still, 5, study.Recipe("random", 2))
    assert not torch.equal(other.images, before.images)


def test_chosen_images_are_training_images_chosen_by_their_method(digits, quick, tmp_path):
    normalised = as_bytes(digits.normalise(digits.x_train))
    whole = study.train_whole(digits, quick, 0, tmp_path)
    for name in ("random", "herding", "k-center", "forgetting"):
        made = study.make_set(digits, quick, 0, study.Recipe(name, 2), tmp_path)
        expected = method.select(
            digits, name, 2, seed=0, features=whole.features, forgetting=whole.forgetting
        )
        assert torch.equal(made.images, expected.images)
        assert as_bytes(made.images) <= normalised
        assert made.ipc == 2


def test_a_training_on_all_images_says_what_choosing_needs(digits, quick, tmp_path):
    whole = study.train_whole(digits, quick, 0, tmp_path)
    count = len(digits.y_train)
    assert len(whole.features) == len(whole.forgetting.events) == count
    assert len(whole.train) == len(whole.test) == quick.whole.epochs + 1
    network = lambda: study.build(digits, quick.network)  # noqa: E731
    number = making.member_seed(0, making.ON_ALL)
    trained = method.train_on(digits, network, quick.whole, number)
    assert whole.accuracy == method.accuracy(trained.network, digits)
    assert whole.train[-1] == pytest.approx(trained.train_accuracy)
    assert torch.equal(whole.features, method.features(trained.network, digits))
    forgotten = method.watch_forgetting(digits, network, quick.whole, number)
    assert torch.equal(whole.forgetting.events, forgotten.events)
    assert torch.equal(whole.forgetting.never, forgotten.never)
    assert study.train_whole(digits, quick, 0, tmp_path).accuracy == whole.accuracy
    again = study.train_whole(digits, quick, 1)
    assert not torch.equal(again.features, whole.features)


@pytest.mark.parametrize("name", study.LEARNED)
def test_looks_on_the_way_change_nothing(digits, quick, name, tmp_path):
    settings = replace(quick, budget=None, gradients=replace(quick.gradients, iterations=2))
    recipe = study.Recipe(name, quick.ipc)
    stages = study.stages(digits, settings, 0, recipe, tmp_path)
    updates = 2 if name != "DM" else quick.matching.iterations
    assert study.updates_of(digits, settings, recipe) == updates
    assert [one.state.iteration for one in stages] == study.looks_at(updates, 2)
    whole = making._learn(digits, settings, 0, recipe)
    assert torch.equal(stages[-1].set.images, whole.set.images)
    assert torch.equal(stages[-1].set.labels, whole.set.labels)
    assert stages[-1].losses == whole.losses
    assert not torch.equal(stages[0].set.images, whole.set.images)
    kept = study.stages(digits, settings, 0, recipe, tmp_path)
    assert [one.seconds for one in kept] == [one.seconds for one in stages]
    assert study.seconds_of(digits, settings, 0, tmp_path)[name] == [one.seconds for one in kept]
    (last,) = (file for file in tmp_path.glob(f"{name},*.npz")
               if making._found(file).iteration == updates)  # fmt: skip
    last.write_bytes(last.read_bytes()[:100])
    with pytest.warns(UserWarning, match="condensing again"):
        mended = study.learn(digits, settings, 0, recipe, tmp_path)
    assert torch.equal(mended.set.images, whole.set.images)


def test_a_raced_set_keeps_to_its_budget(digits, quick):
    cheap = replace(quick, budget=3.0, looks=1)
    made = study.learn(digits, cheap, 0, study.Recipe("DSA", 2))
    asked = study.passes_of_update(digits, cheap, study.Recipe(ipc=2)) * quick.matching.iterations
    each = study.passes_of_update(digits, cheap, study.Recipe("DSA", 2))
    assert made.state.iteration == round(3 * asked / each) == 2


def test_what_is_kept_is_kept_under_all_that_decides_it(digits, quick, tmp_path):
    different = [
        {},
        {"seed": 1},
        {"recipe": study.Recipe(ipc=quick.ipc, init="noise")},
        {"settings": replace(quick, network="ConvNetW8")},
        {"settings": replace(quick, matching=replace(quick.matching, lr=1.0))},
        {"dataset": load("digits").take(110, 60)},
    ]
    job = {"dataset": digits, "settings": quick, "seed": 0, "recipe": study.Recipe(ipc=quick.ipc)}
    found = [study.learn(**{**job, **one}, cache_dir=tmp_path).set.images for one in different]
    for place, mine in enumerate(found):
        assert not any(torch.equal(mine, other) for other in found[place + 1 :])
    assert torch.equal(study.learn(**job, cache_dir=tmp_path).set.images, found[0])


class Counting(torch.nn.Module):
    """A network that counts the images that pass."""

    seen = 0

    def __init__(self):
        super().__init__()
        self.body = torch.nn.Linear(256, 10)

    def embed(self, x):
        Counting.seen += len(x)
        return self.body(x.flatten(1))

    def forward(self, x):
        return self.embed(x)


def test_passes_are_counted_as_they_happen(digits, quick, monkeypatch):
    counts = []
    for iterations in (1, 2):
        Counting.seen = 0
        asked = making.matching_settings(digits, quick, study.Recipe(ipc=2))
        method.condense(digits, replace(asked, iterations=iterations), embed_factory=Counting)
        counts.append(Counting.seen)
    forward = counts[1] - counts[0]
    backward = 2 * 10  # through the pixels of two images a class
    assert study.passes_of_update(digits, quick, study.Recipe(ipc=2)) == forward + backward

    gradients = replace(quick.gradients, outer=2, inner=3)
    settings = replace(quick, gradients=gradients)
    asked = making.gradient_settings(digits, settings, study.Recipe("DC", 2))
    Counting.seen = 0
    method.match_gradients(digits, replace(asked, iterations=1), factory=Counting)
    matched, trained = 2 * 10 * (asked.batch_real + 2), 3 * 20
    assert Counting.seen == matched + trained
    dear = 2 * 10 * (3 * asked.batch_real + 9 * 2) + 3 * trained
    assert study.passes_of_update(digits, settings, study.Recipe("DC", 2)) == dear
