from dataclasses import replace

import pytest
import torch

from smallnets.data import load
from smallnets.measure.ranking import pooled
from smallnets.prune import importance as ie
from smallnets.studies import importance as study
from smallnets.studies.importance.experiments import tune_all
from smallnets.training import fit


@pytest.fixture(scope="module")
def small():
    dataset, settings = study.prepare(
        "digits", "smoke", study.Options(device="cpu", precision="32-true")
    )
    return dataset, settings


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(scope="module")
def measured(small, folder):
    dataset, settings = small
    return study.measure(dataset, settings, 0, folder)


@pytest.fixture(scope="module")
def trained(small, folder, measured):
    return study.train_whole(*small, 0, folder)


def score(measured, name):
    joined = {group: [values] for group, values in measured["scores"][name].items()}
    return study.scores_of({"scores": {name: joined}}, name, 0)


def test_images_are_averaged_down(small):
    dataset, _ = study.prepare("glyphs10", "smoke", study.Options(train=64, resolution=8))
    whole = load("glyphs10", train=64)
    mean = whole.x_train[:, :, :4, :4].float().mean((2, 3)).round()
    assert torch.equal(dataset.x_train[:, :, 0, 0].float(), mean)


def test_everything_is_measured_by_names_that_do_not_depend_on_the_scale(measured, small):
    _, settings = small
    assert set(measured["agreement"]) == {*study.ESTIMATES, "Taylor output"}
    assert (
        measured["agreement"]["Taylor SO"]["Spearman"] > measured["agreement"]["random"]["Spearman"]
    )
    assert set(measured["scores"]) == set(study.SHOWN)
    assert set(measured["cut"]) == set(measured["kept"]) == set(study.SHOWN)
    assert all(len(one) == len(settings.levels) for one in measured["cut"].values())
    assert set(measured["accuracy"]) == {"whole", "whole, tuned"}
    assert set(measured["rounds"]) == set(measured["tuned"]) == {"60%", "30%"}
    ways = {*settings.criteria, *map(study.iterative, settings.criteria)}
    assert set(measured["tuned"]["30%"]) == set(measured["untuned"]["30%"]) == ways
    assert len(measured["growing"]) == 3
    assert "training mode" in measured["samples"]
    assert list(measured["minibatches"]["8"])[-1] == "all"


def test_a_curve_has_a_point_an_epoch_and_looking_changes_no_training(small, measured):
    dataset, settings = small
    curve = measured["curve"]
    assert len(curve["train"]) == len(curve["test"]) == settings.training.epochs
    assert all(0 <= value <= 1 for values in curve.values() for value in values)
    looked, plain = (study.start(dataset, settings, 0) for _ in range(2))
    fit(looked, dataset, settings.training, seed=0, objective=study.watched(dataset))
    fit(plain, dataset, settings.training, seed=0)
    for one, other in zip(looked.state_dict().values(), plain.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_measuring_leaves_the_network_as_it_was(small, trained):
    dataset, settings = small
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    found = study.all_scores(trained, dataset, settings, 0)
    study.sampled(trained, dataset, settings)
    study.prune_and_tune(trained, dataset, settings, 0, 0.6, found["Taylor FO"])
    study.prune_and_tune(trained, dataset, settings, 0, 0.6, None)
    assert all(torch.equal(before[name], value) for name, value in trained.state_dict().items())


def test_one_pass_gives_the_scores_of_every_size_of_minibatch(small, trained):
    """Gradients and losses of larger minibatches are means of those of smaller ones."""
    dataset, settings = small
    groups, _, _ = study.groups_and_costs(trained, dataset)
    groups = study.inner_groups(groups)
    sites = ie.group_sites(groups)
    mine, others = study.scoring_batches(dataset, settings)
    split = ie.gate_gradients(trained, sites, mine)
    base, without = ie.losses_without(trained, sites, others)
    found = study.minibatch_study(split, base, without)
    images, labels = (torch.cat(parts) for parts in zip(*mine, strict=True))
    whole = [tuple(torch.cat(parts) for parts in zip(*others, strict=True))]
    for judge, batches in (("8", others), ("all", whole)):
        exact = ie.scores(trained, groups, batches, ("oracle",))["oracle"]
        for label, size in (("1", 1), ("4", 4), ("all", len(labels))):
            parts = list(zip(images.split(size), labels.split(size), strict=True))
            slow = ie.scores(trained, groups, parts)["Taylor FO"]
            expected = pooled(slow, exact).spearman
            assert found[judge][label] == pytest.approx(expected, abs=5e-3)


def test_a_share_is_reached_with_as_few_removals_as_it_takes(small, trained, measured):
    dataset, _ = small
    groups, prices, _ = study.groups_and_costs(trained, dataset)
    ranking = score(measured, "Taylor FO")
    for share in (0.9, 0.5, 0.2):
        masks = ie.masks_at_macs(ranking, prices, share)
        assert prices.macs(ie.kept_units(masks)) <= share * prices.macs()
        gone = sum(int((mask == 0).sum()) for mask in masks.values())
        fewer, _ = ie.select(ranking, ie.all_open(groups), gone - 1)
        assert prices.macs(ie.kept_units(fewer)) > share * prices.macs()
    safe = ie.masks_at_macs(ranking, prices, 0.5, least=0.25)
    assert all(mask.mean() >= 0.25 for mask in safe.values())


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_shares_are_checked(small, measured, share):
    dataset, settings = small
    _, prices, _ = study.groups_and_costs(study.start(dataset, settings, 0), dataset)
    with pytest.raises(ValueError, match="share must be"):
        ie.masks_at_macs(score(measured, "random"), prices, share)
    with pytest.raises(ValueError, match=r"share must be at least 0\.\d+ of this network"):
        ie.masks_at_macs(score(measured, "random"), prices, 0.001, least=0.5)


def test_rounds_close_more_and_more_gates_and_look_again(small, trained, measured):
    dataset, settings = small
    network = trained
    groups, prices, _ = study.groups_and_costs(network, dataset)
    batches, _ = study.scoring_batches(dataset, settings)
    once = ie.iterative_masks(network, groups, batches, prices, 0.5, rounds=1)
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            once.values(),
            ie.masks_at_macs(score(measured, "Taylor FO"), prices, 0.5).values(),
            strict=True,
        )
    )
    often = ie.iterative_masks(network, groups, batches, prices, 0.5, rounds=4)
    assert prices.macs(ie.kept_units(often)) <= 0.5 * prices.macs()
    assert any(not torch.equal(once[name], often[name]) for name in once)
    with pytest.raises(ValueError, match="rounds must be at least 1; got 0"):
        ie.iterative_masks(network, groups, batches, prices, 0.5, rounds=0)


def test_tuned_networks_have_the_share_that_was_asked_for(small, trained, measured, tmp_path):
    for ranking in (score(measured, "Taylor FO"), None):
        first = study.prune_and_tune(trained, *small, 0, 0.6, ranking, tmp_path)
        assert 0.3 < first["macs"] <= 0.6
        assert 0 < first["parameters"] < 1
        files = set(tmp_path.iterdir())
        assert study.prune_and_tune(trained, *small, 0, 0.6, ranking, tmp_path) == first
        assert set(tmp_path.iterdir()) == files  # nothing was trained twice


@pytest.mark.parametrize("criterion", ["Taylor FO", "magnitude", "random"])
def test_pruning_while_training(small, criterion):
    dataset, settings = small
    network = study.start(dataset, settings, 0)
    groups, _, example = study.groups_and_costs(network, dataset)
    schedule = ie.Schedule(every=2, remove=2, prunings=3, momentum=0.5)
    model = ie.Prunable(network, groups, schedule)
    steps = replace(settings.tuning, epochs=2)
    history = fit(model, dataset, steps, seed=0, objective=ie.PruneWhileTraining(criterion))
    assert 4 <= model.ranking.gone <= 6
    assert history[-1]["kept"] < history[0]["kept"] <= 1
    smaller = ie.remove(model.network, groups, model.ranking.masks, example)
    assert torch.allclose(smaller(example), model(example), atol=1e-4)


def test_scores_while_training_are_those_of_the_gates(small):
    dataset, settings = small
    network = study.start(dataset, settings, 0)
    groups, _, _ = study.groups_and_costs(network, dataset)
    model = ie.Prunable(network, groups, ie.Schedule(every=100))
    model.train()
    (batch, *_), _ = study.scoring_batches(dataset, settings)
    expected = ie.scores(network, groups, [batch])["Taylor FO"]
    from smallnets.training import Batch

    ie.PruneWhileTraining()(model, Batch(*batch))["loss"].backward()
    assert int(model.ranking.counts[1]) == 1
    sizes = [group.size for group in groups.values()]
    total = dict(zip(groups, model.ranking.total.split(sizes), strict=True))
    for name in groups:
        assert torch.allclose(total[name].float(), expected[name], rtol=1e-4, atol=1e-12)


def test_a_pruning_that_was_killed_goes_on_where_it_was(small, tmp_path, monkeypatch):
    dataset, settings = small
    steps = replace(settings.tuning, epochs=3)

    def model():
        network = study.start(dataset, settings, 0)
        groups, _, _ = study.groups_and_costs(network, dataset)
        return ie.Prunable(network, groups, ie.Schedule(every=3, remove=1, prunings=5))

    def until(last):
        """An objective that fails after so many minibatches, as a killed process would."""
        real = ie.PruneWhileTraining.__call__

        def dying(self, model, batch):
            if model.ranking.counts[0] >= last:
                raise KeyboardInterrupt
            return real(self, model, batch)

        return dying

    straight, broken, resumed = model(), model(), model()
    fit(straight, dataset, steps, seed=0, objective=ie.PruneWhileTraining())
    monkeypatch.setattr(ie.PruneWhileTraining, "__call__", until(9))
    with pytest.raises(KeyboardInterrupt):
        fit(broken, dataset, steps, seed=0, objective=ie.PruneWhileTraining(), cache_dir=tmp_path)
    monkeypatch.undo()
    fit(resumed, dataset, steps, seed=0, objective=ie.PruneWhileTraining(), cache_dir=tmp_path)
    kept = model()
    fit(kept, dataset, steps, seed=0, objective=ie.PruneWhileTraining(), cache_dir=tmp_path)
    for other in (resumed, kept):
        assert torch.equal(straight.ranking.mask, other.ranking.mask)
        assert torch.equal(straight.ranking.average, other.ranking.average)


def test_one_gate_bends_the_loss_as_its_derivatives_say(small, trained):
    dataset, settings = small
    network = trained
    groups, _, _ = study.groups_and_costs(network, dataset)
    (batch, *_), _ = study.scoring_batches(dataset, settings)
    values = torch.tensor([0.0, 0.98, 1.0])
    curve, tangent, parabola = study.loss_along_gate(
        network, groups, batch, "stage1.0.conv1", 1, values
    )
    assert curve[2] == tangent[2] == parabola[2]
    found = ie.scores(network, groups, [batch], ("oracle", "Taylor FO", "Taylor SO"))
    for name, line in (("oracle", curve), ("Taylor FO", tangent), ("Taylor SO", parabola)):
        change = (line[0] - line[2]).square().item()
        expected = found[name]["stage1.0.conv1"][1].item()
        assert change == pytest.approx(expected, rel=1e-2, abs=1e-10)


def test_every_criterion_prunes_to_every_share_at_once_and_iteratively(
    small, trained, measured, monkeypatch
):
    dataset, settings = small
    asked = []

    def prune_and_tune(network, dataset, settings, seed, share, ranking, cache_dir, *, criterion):
        asked.append((share, criterion, ranking is None))
        return {"accuracy": share, "untuned": seed}

    monkeypatch.setattr("smallnets.studies.importance.experiments.prune_and_tune", prune_and_tune)
    found = {name: score(measured, name) for name in settings.criteria}
    results = tune_all(trained, dataset, settings, 5, found)
    assert sorted(asked) == sorted(
        (share, name, slowly)
        for share in settings.tuned
        for name in settings.criteria
        for slowly in (False, True)
    )
    assert set(results["tuned"]["60%"].values()) == {0.6}
    assert set(results["untuned"]["30%"].values()) == {5}


def test_a_first_convolution_strides_on_fine_images_of_a_residual_network_only():
    def stride(**options):
        return study.prepare("glyphs10", "small", study.Options(**options))[1].stem_stride

    assert stride() == 2
    assert stride(resolution=16) == stride(network="convnet-4") == stride(network="resnet18") == 1


def test_shorter_trainings_have_shorter_tunings():
    _, settings = study.prepare("glyphs10", "evidence", study.Options(epochs=6, train=500))
    assert (settings.training.epochs, settings.tuning.epochs, settings.gradual) == (6, 2, 1)
    _, settings = study.prepare("glyphs10", "evidence", study.Options(epochs=90))
    assert (settings.training.epochs, settings.tuning.epochs, settings.gradual) == (90, 12, 4)


def test_settings_take_what_was_asked_for():
    dataset, settings = study.prepare(
        "glyphs10",
        "smoke",
        study.Options(seeds=3, train=128, resolution=12, epochs=5, network="resnet18", flips=True),
    )
    assert dataset.size == (12, 12)
    assert (settings.seeds, settings.train, settings.training.epochs) == (3, 128, 5)
    assert settings.training.augmentation.flip
    network = study.start(dataset, settings, 0)
    assert type(network).__name__ == "ResNet"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": "huge"}, "scale must be one of smoke, small, evidence, paper"),
        ({"seeds": 0}, "seeds must be at least 1"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"resolution": 64}, "resolution must be between 8 and 32; got 64"),
        ({"train": 20}, "number of training images must be at least"),
    ],
)
def test_bad_settings_are_refused_in_one_line(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        study.prepare("glyphs10", arguments.pop("scale", "smoke"), study.Options(**arguments))
    assert "\n" not in str(error.value)


def test_unknown_networks_and_criteria_are_refused(small):
    with pytest.raises(ValueError, match=r"network must be one of .*; got 'net'"):
        study.build_network("net", small[0], 0)
    with pytest.raises(ValueError, match="criterion must be one of Taylor FO"):
        ie.PruneWhileTraining("oracle")
