from dataclasses import replace

import pytest
import torch

from smallnets.data import load
from smallnets.prune import importance as ie
from smallnets.studies import importance as study
from smallnets.training import fit


@pytest.fixture(scope="module")
def small():
    dataset, settings = study.prepare(
        "digits", "smoke", study.Options(device="cpu", precision="32-true")
    )
    return dataset, settings


@pytest.fixture(scope="module")
def examined(small):
    dataset, settings = small
    return study.evaluate_criteria(dataset, settings, 0)


def test_halves_in_two_processes_make_the_same_whole(examined, small):
    dataset, settings = small
    (again,) = study.evaluate_criteria_each([{"dataset": dataset, "settings": settings, "seed": 0}])
    assert again.cut == examined.cut
    assert again.growing == examined.growing
    assert all(
        torch.equal(again.scores["oracle"][g], s) for g, s in examined.scores["oracle"].items()
    )


def test_images_are_averaged_down(small):
    dataset, _ = study.prepare("glyphs10", "smoke", study.Options(train=64, resolution=8))
    whole = load("glyphs10", train=64)
    mean = whole.x_train[:, :, :4, :4].float().mean((2, 3)).round()
    assert torch.equal(dataset.x_train[:, :, 0, 0].float(), mean)


def test_every_criterion_is_examined(examined, small):
    _, settings = small
    assert set(examined.scores) == {"oracle", *study.ESTIMATES}
    assert set(examined.cut) == set(examined.scores)
    assert all(len(one) == len(settings.levels) for one in examined.cut.values())
    assert set(examined.agreement) == {*study.ESTIMATES, "Taylor output"}
    assert examined.agreement["Taylor SO"]["Spearman"] > examined.agreement["random"]["Spearman"]
    assert set(examined.repeated) == set(settings.tuned)
    assert len(examined.inner) == 3
    modes = {name.split(" mode")[0] for name in examined.samples}
    assert modes == {"evaluation", "training"}


def test_examining_leaves_the_network_as_it_was(small, tmp_path):
    dataset, settings = small
    network = study.train_whole(dataset, settings, 0, tmp_path)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    study.evaluate_criteria(dataset, settings, 0, tmp_path)
    again = study.train_whole(dataset, settings, 0, tmp_path)
    assert all(torch.equal(before[name], value) for name, value in again.state_dict().items())


def test_a_share_is_reached_with_as_few_removals_as_it_takes(small, examined):
    dataset, settings = small
    network = study.train_whole(dataset, settings, 0)
    groups, prices, _ = study.groups_and_costs(network, dataset)
    for share in (0.9, 0.5, 0.2):
        masks = ie.masks_at_macs(examined.scores["Taylor FO"], prices, share)
        assert prices.macs(ie.kept_units(masks)) <= share * prices.macs()
        gone = sum(int((mask == 0).sum()) for mask in masks.values())
        open_ = ie.all_open(groups)
        fewer, _ = ie.select(examined.scores["Taylor FO"], open_, gone - 1)
        assert prices.macs(ie.kept_units(fewer)) > share * prices.macs()
    safe = ie.masks_at_macs(examined.scores["Taylor FO"], prices, 0.5, least=0.25)
    assert all(mask.mean() >= 0.25 for mask in safe.values())


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_shares_are_checked(small, examined, share):
    dataset, settings = small
    _, prices, _ = study.groups_and_costs(
        study.build_network(settings.network, dataset, 0), dataset
    )
    with pytest.raises(ValueError, match="share must be"):
        ie.masks_at_macs(examined.scores["random"], prices, share)
    with pytest.raises(ValueError, match=r"share must be at least 0\.\d+ of this network"):
        ie.masks_at_macs(examined.scores["random"], prices, 0.001, least=0.5)


def test_rounds_close_more_and_more_gates_and_look_again(small, examined):
    dataset, settings = small
    network = study.train_whole(dataset, settings, 0)
    groups, prices, _ = study.groups_and_costs(network, dataset)
    batches = study.scoring_batches(dataset, settings)
    once = ie.iterative_masks(network, groups, batches, prices, 0.5, rounds=1)
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            once.values(),
            ie.masks_at_macs(examined.scores["Taylor FO"], prices, 0.5).values(),
            strict=True,
        )
    )
    often = ie.iterative_masks(network, groups, batches, prices, 0.5, rounds=4)
    assert prices.macs(ie.kept_units(often)) <= 0.5 * prices.macs()
    assert any(not torch.equal(once[name], often[name]) for name in once)
    with pytest.raises(ValueError, match="rounds must be at least 1; got 0"):
        ie.iterative_masks(network, groups, batches, prices, 0.5, rounds=0)


def test_tuned_networks_have_the_share_that_was_asked_for(small, examined, tmp_path):
    dataset, settings = small
    common = {"dataset": dataset, "settings": settings, "seed": 0, "cache_dir": tmp_path}
    for ranking in (examined.scores["Taylor FO"], None):
        first = study.prune_and_tune(share=0.6, ranking=ranking, **common)
        assert 0.3 < first["macs"] <= 0.6
        assert 0 < first["parameters"] < 1
        files = set(tmp_path.iterdir())
        assert study.prune_and_tune(share=0.6, ranking=ranking, **common) == first
        assert set(tmp_path.iterdir()) == files  # nothing was trained twice


@pytest.mark.parametrize("criterion", ["Taylor FO", "magnitude", "random"])
def test_pruning_while_training(small, criterion):
    dataset, settings = small
    network = study.build_network(settings.network, dataset, 0)
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
    network = study.build_network(settings.network, dataset, 0)
    groups, _, _ = study.groups_and_costs(network, dataset)
    model = ie.Prunable(network, groups, ie.Schedule(every=100))
    model.train()
    (batch, *_) = study.scoring_batches(dataset, settings)
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
        network = study.build_network(settings.network, dataset, 0)
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


def test_one_gate_bends_the_loss_as_its_derivatives_say(small):
    dataset, settings = small
    network = study.train_whole(dataset, settings, 0)
    groups, _, _ = study.groups_and_costs(network, dataset)
    batch = study.scoring_batches(dataset, settings)[0]
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


def test_the_grid_covers_every_criterion_share_and_seed(small, examined, monkeypatch):
    dataset, settings = small
    groups, prices, _ = study.groups_and_costs(
        study.build_network(settings.network, dataset, 0), dataset
    )
    monkeypatch.setattr(
        "smallnets.studies.importance.experiments.prune_and_tune",
        lambda seed, share, ranking, **_: {
            "accuracy": seed + share,
            "at once": ranking is not None,
        },
    )
    monkeypatch.setattr("smallnets.training.seeds.workers_that_fit", lambda most: 1)
    results = study.tune_all(dataset, settings, [examined] * 2, groups)
    assert len(results) == 1 + len(settings.tuned) * (len(study.TUNED) + 1)
    share = settings.tuned[0]
    table = study.by_share(results, share)
    assert set(table) == {*study.TUNED, "iterative"}
    assert all(values == [share, 1 + share] for values in table.values())
    once = study.by_share(results, share, "at once")
    assert [name for name, values in once.items() if not any(values)] == ["iterative"]
    kept = study.widths(examined, groups, prices, settings, "Taylor FO", 0.5)
    assert set(kept) == set(groups)
    assert 0.25 <= min(kept.values()) < 1


def test_settings_take_what_was_asked_for():
    dataset, settings = study.prepare(
        "glyphs10",
        "smoke",
        study.Options(seeds=3, train=128, resolution=12, epochs=5, network="resnet18", flips=True),
    )
    assert dataset.size == (12, 12)
    assert (settings.seeds, settings.train, settings.training.epochs) == (3, 128, 5)
    assert settings.training.augmentation.flip
    network = study.build_network(settings.network, dataset, 0)
    assert type(network).__name__ == "ResNet"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": "huge"}, "scale must be one of smoke, small, paper"),
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
