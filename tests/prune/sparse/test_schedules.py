"""Gradual, iterative and dynamic pruning, and tickets."""

import copy
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn

from smallnets.batches import Batches
from smallnets.prune.sparse import (
    ClosedFrom,
    Gradual,
    Masked,
    Spliced,
    Surgery,
    Ticket,
    density,
    gradual_sparsity,
    lottery_ticket,
    magnitude_masks,
    prunable_weights,
    prune_by_surgery,
    prune_gradually,
    prune_in_rounds,
    reinitialised,
    shuffled_masks,
    spliced_mask,
    train_masked,
)
from smallnets.training import Classification, fit


def test_the_gradual_schedule_rises_and_ends():
    shares = [gradual_sparsity(t, 0.1, 0.9, 5, 4, 10) for t in range(80)]
    assert shares[:6] == pytest.approx([0.1] * 6)
    assert shares[45:] == [0.9] * 35
    assert shares[5:] == sorted(shares[5:])
    assert shares[15] - shares[5] > shares[45] - shares[35]


def test_gradual_masks_are_nested_and_reach_the_amount(network, batches, settings):
    seen = []

    class Watched(Masked):
        def set_masks(self, masks):
            super().set_masks(masks)
            seen.append({name: mask.clone() for name, mask in self.masks.items()})

    plan = Gradual(0.8, begin=2, times=3, every=2)
    masked = Watched(network, magnitude_masks(network, 0.0))
    history = fit(masked, batches, settings, seed=0, objective=plan)
    assert plan.last == 8
    total = {name: mask.numel() for name, mask in masked.masks.items()}
    assert len(seen) == 1 + 4  # at the start, and at steps 2, 4, 6, 8
    for step, (before, after) in zip((2, 4, 6, 8), pairwise(seen), strict=True):
        for name, mask in after.items():
            assert (mask <= before[name]).all()
            assert int((mask == 0).sum()) == round(plan.sparsity(step) * total[name])
    assert history[-1]["closed"] > history[0]["closed"]


def test_pruning_while_training_fits_the_training(network, batches, settings, example):
    masked, history = prune_gradually(
        network, batches, settings, seed=0, amount=0.7, times=4, scope="global", layers=["conv1"]
    )
    assert masked.names == ("conv1.weight",)
    assert float(masked.closed) == pytest.approx(0.7, abs=1e-2)
    assert len(history) == settings.epochs
    torch.testing.assert_close(masked.plain()(example), masked(example))


def test_one_shot_and_iterative_pruning_end_with_the_amount(network, batches, settings):
    before = copy.deepcopy(network.state_dict())
    (once,) = prune_in_rounds(network, batches, settings, seed=0, amount=0.75)
    rounds = prune_in_rounds(network, batches, settings, seed=0, amount=0.75, rounds=2)
    assert [one.amount for one in rounds] == [0.5, 0.75]
    total = sum(w.numel() for w in prunable_weights(network).values())
    for one in (once, *rounds):
        closed = sum(int((mask == 0).sum()) for mask in one.network.masks.values())
        assert closed == round(one.amount * total)
    first, last = (one.network.masks for one in rounds)
    assert all((last[name] <= first[name]).all() for name in last)
    assert once.network.masks.keys() == magnitude_masks(network, 0.75, "global").keys()
    for name, mask in magnitude_masks(network, 0.75, "global").items():
        assert torch.equal(once.network.masks[name], mask)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("method", ["gradual", "ticket", "surgery"])
def test_a_training_that_was_killed_goes_on_bit_for_bit(
    network, batches, settings, tmp_path, method
):
    class KilledError(Exception):
        pass

    def started():
        start = copy.deepcopy(network)
        ones = magnitude_masks(start, 0.0)
        return {
            "gradual": lambda: (Masked(start, ones), Gradual(0.8, 2, 4, 2)),
            "ticket": lambda: (
                Ticket(start, magnitude_masks(start, 0.5)),
                ClosedFrom(8),
            ),
            "surgery": lambda: (Spliced(start), Surgery(0.5, rate=0.1)),
        }[method]()

    longer = replace(settings, epochs=3)
    whole, objective = started()
    fit(whole, batches, longer, seed=0, objective=objective)
    cut, objective = started()
    passes = []

    def dying():
        passes.append(0)
        if len(passes) == 2:
            raise KilledError
        return iter(batches)

    class Named(Batches):
        key = "the same batches"

    data = Named(dying, length=len(batches))
    with pytest.raises(KilledError):
        fit(cut, data, longer, seed=0, objective=objective, cache_dir=tmp_path)
    fresh, objective = started()
    fit(fresh, data, longer, seed=0, objective=objective, cache_dir=tmp_path)
    assert len(passes) == 4  # the first epoch was not made again
    for name, value in whole.state_dict().items():
        assert torch.equal(value, fresh.state_dict()[name]), name


def test_a_spliced_mask_moves_outside_its_thresholds():
    weight = torch.tensor([0.5, -0.8, 1.05, -1.2, 0.95])
    mask = torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0])
    assert spliced_mask(weight, mask, 0.9, 1.1).tolist() == [0, 0, 0, 1, 1]
    assert spliced_mask(weight, mask, 9.0, 9.0).tolist() == [0, 0, 0, 1, 0]  # its largest stays


def test_closed_weights_learn_and_come_back(network, batches, settings):
    spliced = Spliced(network)
    masks = magnitude_masks(network, 0.5)
    spliced.set_masks(masks)
    images, labels = batches[0]
    nn.functional.cross_entropy(spliced(images), labels).backward()
    closed = masks["conv1.weight"] == 0
    assert (network.conv1.weight.grad[closed] != 0).any()
    plain = spliced.plain().train()
    torch.testing.assert_close(plain(images), spliced(images))

    with torch.no_grad():  # a closed weight has grown
        place = int(closed.flatten().nonzero()[0])
        network.conv1.weight.view(-1)[place] = 10
    spliced.set_thresholds(0.0)
    spliced.look(0.1)
    assert spliced.masks["conv1.weight"].view(-1)[place] == 1


def test_surgery_closes_weights_by_their_layers_spread(network, batches, settings):
    sizes = {n: w.detach().abs().clone() for n, w in prunable_weights(network).items()}
    spliced, history = prune_by_surgery(
        network, batches, settings, seed=0, surgery=Surgery(0.5, rate=0.0)
    )
    for size, threshold in zip(sizes.values(), spliced.thresholds, strict=True):
        expected = size.mean() + 0.5 * size.std(correction=0)
        torch.testing.assert_close(threshold, expected)
    assert 0.3 < history[-1]["closed"] < 0.95
    assert history[0]["closed"] != history[1]["closed"]
    rested = fit(Spliced(network), batches, settings, seed=0, objective=Surgery(0.5, stop=1))
    assert rested[0]["closed"] == rested[1]["closed"] > 0
    never = fit(Spliced(network), batches, settings, seed=0, objective=Surgery(0.5, rate=1e9))
    assert never[0]["closed"] == never[1]["closed"]  # after the first step there is no chance


@pytest.mark.parametrize("rewind", [0, 4])
def test_a_ticket_is_rewound_whole(network, batches, settings, rewind):
    start = copy.deepcopy(network.state_dict())
    states, closed = [], []

    class Noting:
        """Notes the network's state before the step after the rewind."""

        def __init__(self):
            self.steps = 0

        def __call__(self, model, batch):
            closed.append(float(model.closed))
            if self.steps == rewind:
                states.append(copy.deepcopy(model.network.state_dict()))
            self.steps += 1
            return Classification()(model, batch)

    for number in range(2):
        masks = magnitude_masks(network, 0.5 * number, "global")
        train_masked(network, masks, batches, settings, seed=3, rewind=rewind, objective=Noting())
    assert len(states) == 2
    assert closed == [0.0] * (12 + rewind) + [pytest.approx(0.5, abs=1e-2)] * (12 - rewind)
    for name, value in states[0].items():  # weights, norms, their statistics
        assert torch.equal(value, states[1][name]), name
    moved = any(not torch.equal(states[0][name], start[name]) for name in start)
    assert moved == (rewind > 0)


def test_tickets_lose_a_share_of_what_is_left(network, batches, settings):
    before = copy.deepcopy(network.state_dict())
    rounds = lottery_ticket(network, batches, settings, seed=0, rounds=2, share=0.4, rewind=3)
    total = sum(w.numel() for w in prunable_weights(network).values())
    for number, one in enumerate(rounds):
        closed = sum(int((mask == 0).sum()) for mask in one.network.masks.values())
        assert closed == round((1 - 0.6**number) * total)
        assert one.amount == pytest.approx(closed / total, abs=1e-6)
        assert len(one.history) == settings.epochs  # equal steps in every round
    masks = [one.network.masks for one in rounds]
    for earlier, later in pairwise(masks):
        assert all((later[name] <= earlier[name]).all() for name in later)
    trained = rounds[0].network.network  # the next masks are those of the trained weights
    for name, mask in magnitude_masks(trained, 0.4, "global").items():
        assert torch.equal(mask, masks[1][name])
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_the_controls_have_another_start_or_other_masks(network, batches, settings):
    masks = magnitude_masks(network, 0.6)
    other = reinitialised(network, seed=5)
    assert not torch.equal(other.conv1.weight, network.conv1.weight)
    assert torch.equal(other.conv1.weight, reinitialised(network, seed=5).conv1.weight)
    assert torch.equal(other.norm.weight, torch.ones(6))
    shuffled = shuffled_masks(masks, torch.Generator().manual_seed(0))
    runs = [
        train_masked(start, chosen, batches, settings, seed=0)
        for start, chosen in ((network, masks), (other, masks), (network, shuffled))
    ]
    assert len({one.amount for one in runs}) == 1
    assert len({one.history[-1]["loss"] for one in runs}) == 3
    assert density(runs[1].network.masks) == density(masks)


def test_reinitialising_leaves_global_random_numbers_alone(network):
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    reinitialised(network, seed=1)
    assert torch.equal(torch.rand(3), expected)


class Free(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))


def unknown_length(batches):
    return Batches(lambda: iter(batches))


REFUSED = {
    "step": (lambda n, b, s: gradual_sparsity(-1, 0, 1, 0, 3, 1), "t must be at least 0"),
    "share": (lambda n, b, s: gradual_sparsity(0, 0, 1.2, 0, 3, 1), "end must be between 0 and 1"),
    "times": (lambda n, b, s: gradual_sparsity(0, 0, 1, 0, 0, 1), "times must be at least 1"),
    "every": (lambda n, b, s: gradual_sparsity(0, 0, 1, 0, 3, 0), "every must be greater than 0"),
    "nan": (lambda n, b, s: gradual_sparsity(0, float("nan"), 1, 0, 3, 1), "start must be between"),
    "backwards": (lambda n, b, s: Gradual(0.5, 0, 3, 1, start=0.6), "start must be between 0 and"),
    "gradual scope": (lambda n, b, s: Gradual(0.5, 0, 3, 1, scope="all"), "scope must be one of"),
    "begin": (lambda n, b, s: Gradual(0.5, 0.5, 3, 1), "begin must be a whole number"),
    "not masked": (
        lambda n, b, s: fit(n, b, s, seed=0, objective=Gradual(0.5, 0, 3, 1)),
        "Gradual trains networks of the class Masked; got Residual",
    ),
    "too short": (
        lambda n, b, s: prune_gradually(n, b, s, seed=0, amount=0.5, first=0.5, last=0.5),
        "must have steps between first and last; it has 12 in all",
    ),
    "first": (
        lambda n, b, s: prune_gradually(n, b, s, seed=0, amount=0.5, first=0.9),
        "first must be between 0 and 0.75; got 0.9",
    ),
    "unknown number": (
        lambda n, b, s: prune_gradually(n, unknown_length(b), s, seed=0, amount=0.5),
        "number of batches an epoch must be known",
    ),
    "rounds": (
        lambda n, b, s: prune_in_rounds(n, b, s, seed=0, amount=0.5, rounds=0),
        "rounds must be at least 1; got 0",
    ),
    "rounds' amount": (
        lambda n, b, s: prune_in_rounds(n, b, s, seed=0, amount=2), "amount must be between"
    ),
    "c": (lambda n, b, s: Surgery(c=float("inf")), "c must be between"),
    "margin": (lambda n, b, s: Surgery(margin=-1), "margin must be between 0 and 1"),
    "stop": (lambda n, b, s: Surgery(stop=0), "stop must be at least 1"),
    "not spliced": (
        lambda n, b, s: fit(
            Masked(n, magnitude_masks(n, 0.5)), b, s, seed=0, objective=Surgery()
        ),
        "Surgery trains networks of the class Spliced; got Masked",
    ),
    "ticket's share": (
        lambda n, b, s: lottery_ticket(n, b, s, seed=0, rounds=1, share=1.5),
        "share must be between"
    ),
    "ticket's rounds": (
        lambda n, b, s: lottery_ticket(n, b, s, seed=0, rounds=True),
        "rounds must be a whole number"
    ),
    "rewind": (
        lambda n, b, s: lottery_ticket(n, b, s, seed=0, rounds=1, rewind=12),
        "rewind must be below the 12 steps of the training; got 12",
    ),
    "ticket's masks": (
        lambda n, b, s: train_masked(n, {"head.weight": torch.zeros(3, 6)}, b, s, seed=0),
        "must keep at least one weight",
    ),
    "no start": (
        lambda n, b, s: reinitialised(nn.Sequential(n, Free()), 0),
        "layer '1' must say how it starts; Free has no reset_parameters",
    ),
    "seed": (lambda n, b, s: reinitialised(n, -1), "seed must be at least 0; got -1"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_bad_inputs(network, batches, settings, case):
    function, message = REFUSED[case]
    with pytest.raises(ValueError, match=rf"^[^\n]*{message}[^\n]*$"):
        function(network, batches, settings)
