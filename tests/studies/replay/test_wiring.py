"""What a condition is called is what is learned, and who may see which image."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from smallnets.data import Augmentation, Dataset, load
from smallnets.data.glyphs import BACKGROUNDS
from smallnets.studies import replay as study
from smallnets.studies.networks import build_network
from smallnets.studies.replay import choosing, learners, scenarios
from smallnets.synthesize import replay as r


def as_bytes(images):
    return {image.numpy().tobytes() for image in images}


@pytest.fixture
def first(digits, quick):
    """An untrained network for the old task."""
    old = study.scenario(digits, quick, study.NEAR).training[0].train
    return build_network(quick.network, old, 0).eval()


@pytest.fixture
def before(first, quick, monkeypatch):
    """What is there when a new task comes: the network, generators, and numbers for weights."""
    shape = (1, 16, 16)
    made = {
        name: SimpleNamespace(generator=how.network(shape, number), n_old=len(quick.old))
        for number, (name, how) in enumerate(study.generators(quick).items())
    }
    held = {name: torch.ones_like(one) for name, one in first.named_parameters()}
    monkeypatch.setattr(learners, "train_first", lambda *_: study.First(first, []))
    monkeypatch.setattr(learners, "train_generator", lambda *given: made[given[3]])
    monkeypatch.setattr(learners, "keep_importance", lambda *_: held)
    return made


class Closed:
    """A task that is over: whoever asks for its images is told so."""

    def __init__(self, classes):
        self.classes = classes

    @property
    def train(self):
        raise AssertionError("a training image of an old task was read")


@pytest.fixture
def over(digits, quick, monkeypatch):
    """The old task has ended, and its images are gone."""
    real = scenarios.scenario

    def scenario(*given):
        old, new = real(*given).training
        return r.HeldOut([Closed(old.classes), new], [])

    monkeypatch.setattr(learners, "scenario", scenario)


EVERY = study.core_conditions(study.PRESETS["evidence"])
FURTHER = study.further_conditions(study.PRESETS["evidence"])


@pytest.mark.parametrize(
    "name", [*(f"near, {one}" for one in study.compared(study.PRESETS["evidence"])), "far, mfgr"]
)
def test_no_image_of_the_old_task_reaches_the_step_of_a_memory_free_method(
    name, digits, quick, before, over
):
    condition = EVERY[name]
    if r.METHODS[condition.method].memory_free:
        network = study.learn(digits, quick, 0, condition, 0.1)
        assert r.head_of(network).out_features == len(quick.old) + len(quick.new)
    else:
        with pytest.raises(AssertionError, match="a training image of an old task was read"):
            study.learn(digits, quick, 0, condition, 0.1)


@pytest.fixture
def asked(before, monkeypatch):
    """asked(condition, ...) -> what the step is given."""
    given = {}

    def step(model, task, method, settings, **others):
        given.update(task=task, method=method, settings=settings, **others)
        return SimpleNamespace(model=model)

    monkeypatch.setattr(learners.r, "learn_task", step)

    def call(digits, settings, condition, rate=0.1, seed=3):
        study.learn(digits, settings, seed, condition, rate)
        return SimpleNamespace(**given)

    return call


@pytest.mark.parametrize("name", [*EVERY, *FURTHER])
def test_a_condition_is_learned_as_it_is_called(name, digits, quick, asked, before):
    settings = replace(quick, diversities=study.PRESETS["evidence"].diversities)
    for weight in settings.diversities:
        before[study.diversity(weight)] = SimpleNamespace(generator=f"diverse {weight}")
    condition = (EVERY | FURTHER)[name]
    found = asked(digits, settings, condition, rate=0.07)
    scene, method, *change = name.split(", ")
    images = found.task.train.x_train
    assert (found.method, found.step, found.seed) == (method, 1, 3)
    assert found.settings.training.lr == 0.07
    near = study.scenario(digits, settings, scene).training[1].train.x_train
    assert torch.equal(images, near)
    plain = "abd" if method == "abd" else "shipped"
    generator = next((one for one in change if one in before), plain)
    used = r.METHODS[method].replay == "generator"
    assert found.generator is (before[generator] if used else None)
    assert (found.importance is None) == (method not in ("ewc", "mas"))
    assert len(found.earlier) == (method in ("joint", "real_replay"))
    assert found.settings.joint_pass == (change == ["one batch"])
    assert found.settings.freeze_bn == (change == ["frozen BN"])
    assert found.settings.replay_mode == ("running" if method == "abd" else "batch")
    count = None
    if change == ["4 x as many images"]:
        count = round(4 * settings.training.batch_size * len(settings.old) / len(settings.new))
    assert found.settings.replay_batch == count


def test_digits_are_never_mirrored(digits, quick, asked):
    view = Augmentation(crop=1, flip=True)
    settings = replace(quick, training=replace(quick.training, augmentation=view))
    for far, scene, flip in (
        ("digits", "far", False), ("digits", "near", True), ("photographs", "far", True),
    ):  # fmt: skip
        found = asked(digits, replace(settings, far=far), study.Condition(scene, "joint"))
        assert found.settings.training.view == replace(view, flip=flip)


def test_what_replay_does_to_knowledge_is_asked_at_the_rate_of_lwf(quick):
    settings = replace(quick, thorough=True)
    core = study.core_conditions(settings)
    even = {name: one for name, one in core.items() if name.endswith(", rate of lwf")}
    both = [
        f"{scene}, {method}" for scene in study.SCENARIOS for method in ("mfgr", "noise_replay")
    ]
    assert set(even) == {f"{name}, rate of lwf" for name in both}
    rates = {one.plain: number for number, one in enumerate(core.values(), start=1)}
    for name, one in even.items():
        scene, method, _ = name.split(", ")
        assert (one.scenario, one.method) == (scene, method)
        rate = study.rate_of(one, rates, settings)
        assert rate == study.rate_of(core[f"{scene}, lwf"], rates, settings)
        assert rate != study.rate_of(core[f"{scene}, {method}"], rates, settings)
    assert not set(even) & set(study.swept_conditions(replace(settings, swept=r.METHODS)))


def test_generators_differ_in_what_they_are_called():
    settings = study.PRESETS["evidence"]
    made = study.generators(settings)
    shipped = made["shipped"]
    assert (shipped.weights, shipped.variation) == (r.GeneratorWeights(), "telescoped")
    assert made["no BN"] == replace(shipped, weights=r.GeneratorWeights(bn=0.0))
    assert made["diversity 0.1"] == replace(shipped, weights=r.GeneratorWeights(diversity=0.1))
    assert made["diversity 1"].weights == r.GeneratorWeights(diversity=1.0)
    assert made["true variation"] == replace(shipped, variation="l1")
    assert made["no BN, true variation"] == replace(made["no BN"], variation="l1")
    assert made["abd"] == replace(shipped, weights=r.DreamingWeights(), lr=1e-3)
    used = {one.generator for one in (EVERY | FURTHER).values()}
    assert used <= set(made)


def test_near_and_far_share_the_old_task_and_differ_in_the_new_one(digits, quick):
    near, far = (study.scenario(digits, quick, one) for one in study.SCENARIOS)
    assert torch.equal(near.training[0].train.x_train, far.training[0].train.x_train)
    assert near.training[1].classes == far.training[1].classes == (6, 7, 8, 9)
    images = far.training[1].train
    assert images.x_train.shape[1:] == digits.x_train.shape[1:]
    assert not as_bytes(images.x_train) & as_bytes(near.training[1].train.x_train)
    assert torch.equal(images.mean, near.training[0].train.mean)
    assert images.class_names[6:] == ("brick", "grass", "china", "hubble")
    counts = [len(one.training[1].train.y_train) for one in (near, far)]
    assert counts[0] == pytest.approx(counts[1], abs=6)


def test_a_network_that_learns_far_sees_nothing_that_lies_behind_old_test_images():
    assert set(scenarios.PHOTOGRAPHS) <= set(BACKGROUNDS["train"])
    assert set(scenarios.PHOTOGRAPHS).isdisjoint(BACKGROUNDS["test"])


@pytest.mark.parametrize(("channels", "size"), [(1, 12), (3, 20)])
def test_far_images_are_as_those_of_any_data_set(channels, size, digits, quick):
    generator = torch.Generator().manual_seed(0)
    shape = (200, channels, size, size)
    x = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
    y = torch.arange(200) % 10
    names = tuple("abcdefghij")
    own = Dataset("own", x, y, x[:40], y[:40], names, flips=False)
    for source in ("photographs", "digits"):
        settings = replace(quick, far=source)
        task = study.scenario(own, settings, study.FAR).training[1].train
        assert task.x_train.shape[1:] == (channels, size, size)
        assert set(task.y_train.tolist()) == {6, 7, 8, 9}
        assert float(task.x_train.float().std()) > 5  # a picture, not a surface


def test_patches_for_tests_come_from_another_part_of_the_photographs(digits):
    made = scenarios.patches(2, 50, digits)
    assert (len(made.x_train), len(made.x_test)) == (100, 50)
    assert not as_bytes(made.x_train) & as_bytes(made.x_test)
    again = scenarios.patches(2, 50, digits)
    assert torch.equal(made.x_train, again.x_train)


def test_what_is_held_out_is_a_part_of_every_task_that_nobody_trains_on(digits, quick):
    for scene in study.SCENARIOS:
        held = study.scenario(digits, quick, scene)
        for trained, judged in zip(held.training, held.choosing, strict=True):
            share = len(judged.test.y_test) / (len(judged.test.y_test) + len(trained.train.y_train))
            assert share == pytest.approx(0.15, abs=0.02)
            assert not as_bytes(judged.test.x_test) & as_bytes(trained.train.x_train)
            assert not as_bytes(judged.test.x_test) & as_bytes(trained.test.x_test)


def test_rates_are_chosen_on_held_out_training_images(digits, quick, monkeypatch):
    settings = replace(quick, swept=("lwf", "joint"), rates=(0.1, 0.3, 1.0))
    learned, judged = [], []

    def learn(dataset, settings, seed, condition, rate, cache_dir):
        if rate == 1.0:
            raise r.DivergedError("logits must be finite")
        learned.append((condition.plain, rate))
        return rate

    def evaluate(network, tasks):
        judged.append(tasks)
        return SimpleNamespace(total=network, total_aware=1.0)

    monkeypatch.setattr(choosing, "learn", learn)
    monkeypatch.setattr(choosing.r, "evaluate", evaluate)
    tried = study.try_rates(digits, settings, 0)
    names = ["near, lwf", "near, joint", "far, lwf", "far, joint"]
    assert learned == [(name, rate) for name in names for rate in (0.1, 0.3)]
    assert tried["held out"]["near, lwf, 0.3"] == 0.3
    assert tried["held out"]["near, lwf, 1"] == tried["held out, task known"]["far, joint, 1"] == 0
    seen = as_bytes(digits.x_train)
    unseen = as_bytes(digits.x_test)
    for old, new in judged[:4]:  # near
        for task in (old, new):
            assert as_bytes(task.test.x_test) <= seen
            assert not as_bytes(task.test.x_test) & unseen


def test_a_training_that_diverged_in_its_last_step_is_judged_too(digits, quick, first, monkeypatch):
    network = r.grow_head(first, len(quick.new))
    with torch.no_grad():
        r.head_of(network).weight.fill_(torch.nan)
    monkeypatch.setattr(choosing, "learn", lambda *_: network)
    condition = study.Condition("near", "lwf")
    assert study.judge(digits, quick, 0, condition, 3.0) == (0.0, 0.0)


def test_the_best_rate_of_every_method_is_taken_and_others_are_as_settings_say(quick):
    settings = replace(quick, swept=("lwf",), rates=(0.1, 0.3, 1.0), chosen=(("near, mfgr", 0.4),))
    near = {"near, lwf, 0.1": [0.5, 0.1], "near, lwf, 0.3": [0.4, 0.4], "near, lwf, 1": [0.4, 0.4]}
    far = {"far, lwf, 0.1": [0.5, 0.6], "far, lwf, 0.3": [0.0, 0.0], "far, lwf, 1": [0.0, 0.0]}
    rates = study.best_rates({"held out": near | far}, settings)
    assert rates["near, lwf"] == 0.3
    assert rates["far, lwf"] == 0.1
    assert rates["near, mfgr"] == 0.4
    assert rates["far, mfgr"] == settings.training.lr
    variant = study.Condition("near", "mfgr", "no BN")
    assert study.rate_of(variant, rates, settings) == 0.4
    assert study.rate_of(study.Condition("near", "gnce"), rates, settings) == 0.4


def test_methods_that_hold_on_to_weights_may_learn_as_little_as_is_good(digits, quick, monkeypatch):
    swept = ("lwf", "ewc", "mas", "mfgr", "noise_replay")
    settings = replace(quick, thorough=True, swept=swept, rates=(0.1, 0.3), lower=(0.001, 0.01))
    monkeypatch.setattr(choosing, "learn", lambda *given: given[4])
    monkeypatch.setattr(
        choosing.r, "evaluate", lambda rate, _: SimpleNamespace(total=1 - rate, total_aware=1.0)
    )
    tried = study.try_rates(digits, settings, 0)
    for scene in study.SCENARIOS:
        for method, count in (("lwf", 2), ("ewc", 4), ("mas", 4)):
            known = [one for one in tried["held out"] if one.startswith(f"{scene}, {method}, ")]
            assert len(known) == count
    rates = study.best_rates(tried, settings)
    assert (rates["near, lwf"], rates["near, ewc"], rates["far, mas"]) == (0.1, 0.001, 0.001)
    for method in ("mfgr", "noise_replay"):  # at the rates of others they diverge
        frozen = study.Condition("near", method, freeze_bn=True)
        assert study.rate_of(frozen, rates, settings) == 0.001
        assert study.rate_of(replace(frozen, freeze_bn=False), rates, settings) == 0.1
    with pytest.raises(ValueError, match=r"lower must be between 0 and 0\.1; got 0\.2"):
        replace(settings, lower=(0.2,))


def test_batches_and_heads_grow_independently_of_each_other(digits, quick, before, monkeypatch):
    for old, size in (((0, 1, 2), 7), (tuple(range(8)), 16)):
        new = tuple(one for one in range(10) if one not in old)
        settings = replace(
            quick, old=old, new=new, training=replace(quick.training, batch_size=size)
        )
        task = study.scenario(digits, settings, study.NEAR).training[0].train
        network = build_network(quick.network, task, 0)
        known = study.First(network, [])
        monkeypatch.setattr(learners, "train_first", lambda *_, known=known: known)
        for name in ("noise_replay", "lwf", "joint"):
            learned = study.learn(digits, settings, 0, study.Condition("near", name), 0.05)
            assert r.head_of(learned).out_features == 10


def test_characters_that_look_alike_are_fine_grained_pairs():
    data = load("glyphs62", train=62 * 8, test=62 * 4)
    _, settings = study.prepare("glyphs62", "smoke", study.Options(train=62 * 8, test=62 * 4))
    assert "".join(data.class_names[one] for one in settings.old) == "OQ0CIl1JB8RPS5Z2"
    assert not set(settings.old) & set(settings.new)
    pairs = r.class_pairs(len(settings.old))
    fine = study.alike(data, settings, torch.zeros(len(pairs)), pairs)
    assert int(fine.sum()) == 4 * 6  # four groups of four
    groups = study.groups_of(data, settings)
    order = r.grouped_order(groups)
    assert sorted(order[:16].tolist()) == list(range(16))  # old ones first
    together = "".join(data.class_names[settings.old[one]] for one in order[:16].tolist())
    assert {frozenset(together[at : at + 4]) for at in (0, 4, 8, 12)} == {
        frozenset(group) for group in ("OQ0C", "Il1J", "B8RP", "S5Z2")
    }


def test_elsewhere_the_most_similar_quarter_is(digits, quick):
    pairs = r.class_pairs(6)
    similarity = torch.arange(15.0)
    fine = study.alike(digits, quick, similarity, pairs)
    assert fine.tolist() == [False] * 12 + [True] * 3
    assert study.groups_of(digits, quick).tolist() == list(range(10))


def test_sequences_have_all_classes_in_their_order(digits, quick):
    fixed, other = (study.sequence(digits, quick, order) for order in (None, 0))
    assert [len(task.classes) for task in fixed] == [len(task.classes) for task in other]
    assert sum(len(task.classes) for task in fixed) == 10
    names = [tasks[-1].train.class_names for tasks in (fixed, other)]
    assert names[0] == tuple("0123456789")
    assert names[1] != names[0]
    assert set(names[1]) == set(names[0])
