"""The measurements: each is what it says, the same twice, and complete."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from smallnets.book import Parameters, seed_by_seed
from smallnets.studies import replay as study
from smallnets.studies.replay import learners
from smallnets.synthesize import replay as r
from smallnets.training.checkpoint import weights_digest

ACCURACIES = {
    "accuracy", "accuracy, task known", "old", "old, task known", "new", "new, task known", "rate",
    "diverged",
}  # fmt: skip
DESCRIBED = {
    "confidence", "spread", "difference of pairs", "bn distance", "classes hit",
    "shipped variation", "true variation",
}  # fmt: skip
LOOKED = {"before", "over time", "visibility", "lost", "correlation", "by similarity", "by class"}


def digest(network):
    return weights_digest(network.state_dict())


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(scope="module")
def rates(quick):
    return study.best_rates({"held out": {}}, replace(quick, swept=()))


@pytest.fixture(scope="module")
def measured(digits, quick, rates, kept):
    """A seed's measures, of networks that were trained before: nothing more is trained for them."""
    with pytest.MonkeyPatch.context() as here:
        here.setattr(learners, "run_parallel", in_this_process)
        study.train_side_by_side(digits, replace(quick, rates=(0.1,)), 0, kept)
    files = {path.name for path in kept.iterdir()}
    found = study.measure(digits, quick, 0, rates, kept)
    assert {path.name for path in kept.iterdir()} == files
    return found


def in_this_process(function, jobs, **_):
    return [function(**job) for job in jobs]


def test_presets_hold_the_papers_settings():
    paper = study.PRESETS["paper"]
    assert (paper.network, paper.resolution, paper.steps) == ("resnet-34", 32, 5)
    assert paper.training == r.PUBLISHED_TRAINING
    assert (paper.training.epochs, paper.training.batch_size, paper.training.lr) == (150, 128, 0.1)
    assert paper.generator == r.GeneratorSettings()
    assert (paper.generator.epochs, paper.generator.steps, paper.generator.batch) == (500, 120, 512)


def test_evidence_has_every_question_and_small_a_few():
    evidence, small = study.PRESETS["evidence"], study.PRESETS["small"]
    assert (evidence.seeds, evidence.thorough, evidence.further) == (8, True, True)
    core, few = study.core_conditions(evidence), study.core_conditions(small)
    assert len(few) == 14
    every = core | study.further_conditions(evidence)
    assert {one.method for one in every.values()} == set(r.METHODS)
    for scene in study.SCENARIOS:
        assert f"{scene}, noise_replay" in few  # the control is always in the picture
    assert list(few)[:6] == [f"near, {one}" for one in study.compared(small)]  # near first
    swept = set(study.swept_conditions(evidence))
    assert swept == {one.plain for one in core.values()}  # a rate for each that is compared
    assert not set(core) & set(study.further_conditions(evidence))
    for method in ("mfgr", "noise_replay"):  # noise would spoil the running averages more
        plain, frozen = core[f"near, {method}"], core[f"near, {method}, frozen BN"]
        assert frozen == replace(plain, freeze_bn=True)


def test_preparing_puts_what_was_asked_for_in_place():
    options = study.Options(seeds=2, epochs=4, train=300, old=(9, 8, 7), far="digits", sweep=True)
    data, settings = study.prepare("digits", "small", options)
    assert (settings.train, settings.seeds) == (len(data.y_train), 2) == (300, 2)
    assert (settings.old, settings.new) == ((9, 8, 7), (0, 1, 2, 3, 4, 5, 6))
    trained = (settings.training, settings.first, settings.generator)
    assert [one.epochs for one in trained] == [4, 20, 7]
    assert (settings.far, settings.swept) == ("digits", study.compared(settings))
    assert study.prepare("digits", "smoke", study.Options(train=200))[1].far == "photographs"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": "big"}, "scale must be one of smoke, small, evidence, paper; got 'big'"),
        ({"seeds": 0}, "seeds must be at least 1; got 0"),
        ({"epochs": 0}, "epochs must be at least 1; got 0"),
        ({"old": (1, 2)}, r"old must name three different classes or more .*; got \[1, 2\] of 10"),
        ({"old": (1, 2, 2, 3)}, r"old must name three different classes"),
        ({"old": (1, 2, 30)}, "every one of old must be between 0 and 9; got 30"),
        ({"far": "moon"}, "far must be one of photographs, digits; got 'moon'"),
        ({"train": 60}, "number of training images must be at least 100; got 60"),
        ({"old": tuple(range(8)), "train": 100}, "images of the smaller task must be at least 16"),
    ],
)
def test_what_cannot_be_run_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        study.prepare("digits", arguments.pop("scale", "smoke"), study.Options(**arguments))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scenario": "nearby"}, "scenario must be one of near, far; got 'nearby'"),
        ({"method": "mgr"}, "method must be one of mfgr, .*; got 'mgr'"),
        ({"like": "lvf"}, "like must be one of mfgr, .*; got 'lvf'"),
        ({"replay_factor": 0}, "replay_factor must be greater than 0; got 0"),
    ],
)
def test_conditions_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        study.Condition(**{"scenario": "near", "method": "lwf", **changes})


def test_a_seed_measures_every_condition(digits, quick, measured):
    names = set(study.core_conditions(quick))
    assert set(measured) == ACCURACIES | DESCRIBED | LOOKED
    assert all(set(measured[name]) == names for name in ACCURACIES)
    made = {*study.generators_of_every_seed(quick), "old images"}
    assert all(set(measured[name]) == made for name in DESCRIBED)
    sizes = len(quick.old), len(quick.new)
    for name in names:
        old, new, total = (measured[one][name] for one in ("old", "new", "accuracy"))
        assert total == pytest.approx((sizes[0] * old + sizes[1] * new) / sum(sizes))
        assert measured["old, task known"][name] >= old
        assert measured["new, task known"][name] >= new
    assert len(measured["over time"]["train"]) == quick.first.epochs
    pairs = len(quick.old) * (len(quick.old) - 1) // 2
    groups = measured["by similarity"]
    assert all(len(one) == min(10, pairs) for one in groups.values())
    assert groups["similarity"] == sorted(groups["similarity"])
    assert measured["by class"]["nearest"] == sorted(measured["by class"]["nearest"])
    kinds = {"new, near", "new, far", "generated", "noise", "old"}
    assert set(measured["visibility"]) == {f"{k}, {n}" for k in ("fine", "coarse") for n in kinds}
    assert all(-1 <= one <= 1 for one in measured["correlation"].values())


def test_what_is_kept_changes_nothing(digits, quick, rates, measured):
    for name in ("near, mfgr", "far, lwf"):
        condition = study.core_conditions(quick)[name]
        network = study.learn(digits, quick, 0, condition, rates[name])
        found = study.accuracies(digits, quick, condition, network)
        assert found == {one: measured[one][name] for one in found}


def test_seeds_are_independent_and_conditions_of_a_seed_are_paired(digits, quick, kept):
    ends = [digest(study.train_first(digits, quick, seed, kept).network) for seed in (0, 0, 1)]
    assert ends[0] == ends[1] != ends[2]
    made = [
        study.train_generator(digits, quick, 0, name, kept).generator
        for name in ("shipped", "no BN")
    ]
    assert digest(made[0]) != digest(made[1])
    noise = [study.shown_images(digits, quick, seed, kept)["noise"] for seed in (0, 0, 1)]
    assert torch.equal(noise[0], noise[1])
    assert not torch.equal(noise[0], noise[2])


def test_a_run_that_was_stopped_ends_with_the_same_bits(digits, quick, tmp_path, kept, monkeypatch):
    monkeypatch.setattr("smallnets.book.seedwise.run_parallel", in_this_process)

    def run(name):
        return Parameters("digits", "smoke", None, "cpu", "32-true", str(tmp_path / name))

    settings = replace(quick, rates=(0.1,), swept=("noise_replay",))
    shared = {"dataset": digits, "settings": settings, "cache_dir": kept}
    seed_by_seed(study.try_rates, run("stopped"), seeds=1, **shared)
    resumed = seed_by_seed(study.try_rates, run("stopped"), seeds=2, **shared)
    assert resumed == seed_by_seed(study.try_rates, run("whole"), seeds=2, **shared)
    assert set(resumed["held out"]) == {"near, noise_replay, 0.1", "far, noise_replay, 0.1"}


def test_a_sequence_that_was_stopped_between_steps_goes_on(digits, quick, tmp_path, monkeypatch):
    common = digits, quick, 0, 0, "mfgr", 0.1
    whole = study.learn_in_order(*common)
    real = r.incremental.learn_task

    def dies(*given, step, **others):
        if step == 2:
            raise KeyboardInterrupt
        return real(*given, step=step, **others)

    monkeypatch.setattr(r.incremental, "learn_task", dies)
    with pytest.raises(KeyboardInterrupt):
        study.learn_in_order(*common, cache_dir=tmp_path)
    begun = []

    def noted(*given, step, **others):
        begun.append(step)
        return real(*given, step=step, **others)

    monkeypatch.setattr(r.incremental, "learn_task", noted)
    resumed = study.learn_in_order(*common, cache_dir=tmp_path)
    assert begun == [2]
    assert digest(resumed.steps[-1].model) == digest(whole.steps[-1].model)
    assert resumed.summary() == whole.summary()


def test_sequences_that_only_begin_alike_share_no_steps(digits, quick, tmp_path):
    first, other = (replace(quick, old=old, new=new) for old, new in (
        ((0, 1, 2, 3, 4, 5), (6, 7, 8, 9)), ((0, 1, 2, 3, 9, 8), (7, 6, 5, 4)),
    ))  # fmt: skip
    kept = [
        study.learn_in_order(digits, one, 0, None, "finetune", 0.1, tmp_path)
        for one in (first, other)
    ]
    ends = [digest(one.steps[-1].model) for one in kept]
    assert digest(kept[0].steps[0].model) == digest(kept[1].steps[0].model)
    assert ends[0] != ends[1]


def test_further_conditions_have_the_same_measures(digits, quick, rates, kept, monkeypatch):
    place = "smallnets.studies.replay.experiments"
    first = study.train_first(digits, quick, 0, kept).network
    grown, asked = r.grow_head(first, len(quick.new)), []
    monkeypatch.setattr(f"{place}.learn_or_guess", lambda *given: asked.append(given[3:5]) or grown)
    found = study.measure_further(digits, quick, 0, rates, kept)
    assert set(found) == ACCURACIES | DESCRIBED
    further = study.further_conditions(quick)
    assert set(found["accuracy"]) == set(further)
    assert [one for one, _ in asked] == list(further.values())
    assert {rate for _, rate in asked} == {quick.training.lr}
    of_others = set(study.generators(quick)) - set(study.generators_of_every_seed(quick))
    assert set(found["spread"]) == of_others


def test_every_order_is_measured_with_every_average(digits, quick, rates, monkeypatch):
    result = SimpleResult()
    monkeypatch.setattr(
        "smallnets.studies.replay.experiments.learn_in_order_or_guess",
        lambda *given: result.of(given),
    )
    found = study.measure_orders(digits, quick, 0, rates)
    assert set(found) == {"last accuracy, agnostic", "forgetting, aware", "diverged"}
    assert set(found["diverged"].values()) == {0.0}
    names = {f"{order}, {method}" for order in ("fixed order", "order 0")
             for method in ("finetune", "lwf", "mfgr", "noise_replay", "joint")}  # fmt: skip
    assert set(found["forgetting, aware"]) == names
    assert [given[3] for given in result.asked] == [None] * 5 + [0] * 5
    assert all(given[5] == rates[f"near, {given[4]}"] for given in result.asked)


class SimpleResult:
    def __init__(self):
        self.asked = []
        self.steps = [SimpleNamespace(model=None)]

    def of(self, given):
        self.asked.append(given)
        return self

    def summary(self):
        return {"last accuracy, agnostic": 0.5, "forgetting, aware": 0.1}


@pytest.fixture
def diverges(monkeypatch):
    """Every step after the first diverges, as with a rate that is far too high."""
    real = r.incremental.learn_task

    def step(*given, step, **others):
        if step == 0:
            return real(*given, step=step, **others)
        raise r.DivergedError("logits must be finite")

    monkeypatch.setattr(learners.r, "learn_task", step)
    monkeypatch.setattr(r.incremental, "learn_task", step)


def test_a_seed_in_which_a_rate_diverges_guesses_and_says_so(digits, quick, rates, kept, diverges):
    found = study.measure(digits, quick, 0, rates, kept)
    assert set(found) == ACCURACIES | DESCRIBED | LOOKED
    assert set(found["diverged"].values()) == {1.0}
    old, classes = len(quick.old), len(quick.old) + len(quick.new)
    for measure, chance in (("accuracy", 1 / classes), ("old, task known", 1 / old)):
        assert all(abs(one - chance) < 0.15 for one in found[measure].values())
    first = study.train_first(digits, quick, 0, kept).network
    known = study.scenario(digits, quick, study.NEAR).training[:1]
    assert found["before"]["old"] == r.evaluate(first, known).total  # the first one is as it was
    assert found == study.measure(digits, quick, 0, rates, kept)
    further = study.measure_further(digits, quick, 0, rates, kept)
    assert set(further["diverged"].values()) == {1.0}
    counts, _ = study.confusion(digits, quick, 0, "near, lwf", rates, kept)
    assert int((counts.sum(0) > 0).sum()) == classes  # any class may be answered


def test_a_diverged_job_stops_no_other(digits, quick, rates, kept, diverges, monkeypatch):
    monkeypatch.setattr(learners, "run_parallel", in_this_process)
    study.train_side_by_side(digits, replace(quick, rates=(0.1,)), 0, kept)
    study.train_the_others(digits, quick, 0, rates, kept)


def test_a_network_with_weights_that_are_not_finite_guesses(digits, quick, kept, monkeypatch):
    network = r.grow_head(study.train_first(digits, quick, 0, kept).network, len(quick.new))
    condition = study.Condition("near", "lwf")
    monkeypatch.setattr(learners, "learn", lambda *_: network)
    assert learners.learn_or_guess(digits, quick, 0, condition, 0.1) is network
    with torch.no_grad():
        r.head_of(network).weight.fill_(torch.nan)
    assert learners.diverged(learners.learn_or_guess(digits, quick, 0, condition, 0.1)) == 1


def test_a_sequence_that_diverges_guesses_and_says_so(digits, quick, rates, kept, diverges):
    found = study.measure_orders(digits, quick, 0, rates, kept)
    assert set(found["diverged"].values()) == {1.0}
    assert all(0 < one < 0.25 for one in found["last accuracy, agnostic"].values())


def test_images_are_described_by_what_they_are(digits, quick, kept):
    first = study.train_first(digits, quick, 0, kept).network
    board = r.checkerboard(16, 16, 1).expand(32, -1, -1, -1)
    found = study.describe(board, first, len(quick.old))
    assert set(found) == DESCRIBED
    assert found["shipped variation"] == pytest.approx(0, abs=1e-6)
    assert found["true variation"] == pytest.approx(1, abs=0.05)  # of four directions, two have 2
    assert found["spread"] == found["difference of pairs"] == 0
    assert found["classes hit"] == pytest.approx(1 / len(quick.old))
    own = study.shown_images(digits, quick, 0, kept)["old"]
    half = torch.arange(len(own) // 2)
    apart = float(r.pair_diversity(own, indices=(half, half + len(half))))
    assert study.describe(own, first, len(quick.old))["difference of pairs"] == -apart > 0
    with r.ClassifierTap(first) as tap, torch.no_grad():
        first(own)
        expected = float(r.bn_norm_loss(tap.inputs, tap.statistics))
    assert study.describe(own, first, len(quick.old))["bn distance"] == pytest.approx(expected)


def test_what_is_lost_is_a_share_of_what_was_known():
    damage = r.PairDamage(torch.tensor([0.9, 0.7, 0.5]), torch.tensor([0.7, 0.5, 0.6]))
    assert study.lost_share(damage, torch.tensor([True, True, False])) == pytest.approx(0.4 / 0.6)
    assert study.lost_share(damage, torch.tensor([True, False, False])) == pytest.approx(0.5)
    assert study.lost_share(damage, torch.tensor([False, False, True])) == pytest.approx(-10)


def test_importance_is_that_of_the_old_tasks_images(digits, quick, kept, monkeypatch):
    seen = []
    monkeypatch.setattr(
        learners.r, "fisher_importance", lambda network, images, _: seen.append(images) or {}
    )
    learners.keep_importance(digits, quick, 0, r.METHODS["ewc"], kept)
    assert torch.equal(seen[0], study.shown_images(digits, quick, 0, kept)["old"])
    held = learners.keep_importance(digits, quick, 0, r.METHODS["mas"], kept)
    assert all(float(one.min()) >= 0 for one in held.values())


def test_what_is_drawn_has_the_shape_of_what_it_shows(digits, quick, rates, kept):
    shown = study.pictures(digits, quick, 0, "shipped", 6, kept)
    assert (shown.dtype, tuple(shown.shape)) == (torch.uint8, (6, 1, 16, 16))
    old = study.scenario(digits, quick, study.NEAR).training[0].train
    assert torch.equal(study.pictures(digits, quick, 0, "old", 6, kept), old.x_train[:6])
    counts, names = study.confusion(digits, quick, 0, "near, lwf", rates, kept)
    assert int(counts.sum()) == 120
    assert names == list("0123456789")
