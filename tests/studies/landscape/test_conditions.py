"""What a network is called is what it is."""

from dataclasses import replace

import pytest
import torch

from smallnets import structure
from smallnets.deploy.cost import cost
from smallnets.prune.structured import EarlyExit
from smallnets.quantize.modules import ACTIVATIONS, WEIGHTS, quantized_layers, widths
from smallnets.studies import landscape as study
from smallnets.studies.landscape import pruned, quantised
from smallnets.training import Batch
from smallnets.training.checkpoint import weights_digest
from smallnets.training.settings import learning_rate

CHECKLIST = {  # parts of the three families that must have a representative
    "I quantised": {
        "early, post-training", "post-training", "binary weights", "binary weights and activations",
        "k-bit uniform", "learned clipping", "learned step", "ternary", "power of two",
        "mixed precision", "probabilistic", "wide and low precision",
    },
    "II pruned": {
        "unstructured, criterion", "unstructured, schedule", "gradual schedule", "lottery ticket",
        "structured, criterion", "structured, filter norm", "structured, learned", "Bayesian",
        "dynamic",
    },
    "III structural": {
        "weight sharing", "knowledge distillation", "special matrices", "manual design",
        "architecture search", "narrower",
    },
}  # fmt: skip


def digest(network):
    return weights_digest(network.state_dict())


@pytest.fixture(scope="module")
def make(bench):
    """make(name) -> what a condition makes, once; what the study itself trains stays untrained."""

    class Untrained(study.Bench):
        def fit(self, network, *_, **__):
            return network.eval()

        def accuracy(self, network):
            return 0.0

    idle, made = Untrained(bench.dataset, bench.settings, 0, bench.cache_dir), {}

    def one(name):
        if name not in made:
            made[name] = study.conditions(bench.settings)[name].make(idle)
        return made[name]

    return one


def test_every_part_of_every_family_has_a_representative(quick):
    rows = study.conditions(quick)
    shown = [rows[name] for name in study.taxonomy(quick)]
    found = {family: {one.kind for one in shown if one.family == family} for family in CHECKLIST}
    assert found == CHECKLIST
    assert study.taxonomy(quick)[0] == study.FLOAT
    families = [one.family for one in shown[1:]]
    assert families == sorted(families)


def test_experiments_name_networks_that_are_made_with_every_seed(quick):
    core = set(study.core_conditions(quick))
    for side in study.SIDES:
        assert set(study.sweep(quick, side).values()) <= core
        assert set(study.sweep(quick, side, trained=False).values()) <= core
    assert {*study.named(quick), *study.equals(quick), *study.trade_off(quick)} <= core
    assert {"LSQ, 2/2, taught", "ticket", "ticket, drawn anew", "ticket, random masks"} <= core


def test_names_say_the_widths_between_the_first_and_the_last_layer(quick, make):
    rows = study.conditions(quick)
    names = [name for name in rows if name in study.pairs(list(rows)) and "probab" not in name]
    assert len(names) > 20
    for name in names:
        found = widths(make(name).network)
        if name not in ("BNN, 1/1", "XNOR, 1/1", "TTQ, 2/32"):  # by Adam: ends stay as they are
            assert found.pop("conv") == found.pop("classifier") == (8, 8), name
        assert {"conv", "classifier"}.isdisjoint(found)
        assert set(found.values()) == {study.pairs([name])[name]}, name


def test_quantisers_are_those_of_the_name(make):
    for name, weights, acts in (
        ("LSQ, 2/2", "lsq", "lsq"),
        ("PACT, 2/2", "dorefa", "pact"),
        ("DoReFa, 2/2", "dorefa", "dorefa"),
        ("TWN, 2/32", "twn", None),
        ("TTQ, 2/32", "ttq", None),
        ("BWN, 1/32", "bwn", None),
        ("BNN, 1/1", "binary", "sign"),
        ("XNOR, 1/1", "xnor", "xnor"),
        ("INQ, 4/32", "incremental", None),
        ("power of two, 4/32", "power_of_two", None),
    ):
        layer = list(quantized_layers(make(name).network).values())[1]
        assert type(layer.w_quant) is type(WEIGHTS[weights](4)), name
        assert type(layer.a_quant) is (type(None) if acts is None else type(ACTIVATIONS[acts](4)))


def test_mixed_precision_keeps_its_budget(bench, make):
    network = make("mixed, 3 bits a weight").network
    layers, bits = quantized_layers(network), widths(network)
    total = sum(bits[name][0] * layer.weight.numel() for name, layer in layers.items())
    assert total <= 3 * sum(layer.weight.numel() for layer in layers.values())
    assert len(set(bits.values())) > 1


def test_weights_of_distributions_end_with_three_values(make):
    made = make("probabilistic, 2/32")
    convolutions = [n for n, m in made.network.named_modules() if isinstance(m, torch.nn.Conv2d)]
    assert {*made.bits} == {n for n in convolutions[1:] if "shortcut" not in n}
    for name in made.bits:
        assert len(made.network.get_submodule(name).weight.unique()) <= 3


def test_pruned_networks_have_lost_what_their_names_say(bench, make):
    full = cost(make("float").network, bench.shape)
    weights = sum(
        one.weight.numel()
        for one in make("float").network.modules()
        if isinstance(one, torch.nn.Conv2d | torch.nn.Linear)
    )
    tickets = ("ticket", "ticket, drawn anew", "ticket, random masks")
    others = ("magnitude, global", "magnitude, layer by layer", "SNIP", "iterative")
    for name in ("unstructured, 80 %", *others, *tickets):
        found = cost(make(name).network, bench.shape)
        assert full.nonzero - found.nonzero == pytest.approx(0.8 * weights, abs=8), name
    half = cost(make("structured, 50 %").network, bench.shape)
    assert half.macs < 0.4 * full.macs
    assert cost(make("half as wide").network, bench.shape).macs == pytest.approx(half.macs, rel=0.2)


def test_penalties_reach_as_far_as_they_are_told(bench):
    full = cost(bench.dense(), bench.shape).macs
    for pull, closes in ((1e-3, False), (20.0, True)):
        told = study.Bench(bench.dataset, replace(bench.settings, pull=pull), 0, bench.cache_dir)
        for make in (pruned.lasso, pruned.scales):
            assert (cost(make(told).network, bench.shape).macs < full / 2) == closes


def test_a_weight_that_is_always_pulled_alike_travels_as_far_as_is_said(bench):
    how = replace(bench.settings.short, momentum=0.0, nesterov=False, weight_decay=0.0)
    weight = torch.nn.Parameter(torch.zeros(()))
    steps = how.epochs * len(bench.dataset.y_train) // how.batch_size
    optimizer = torch.optim.SGD([weight])
    for step in range(steps):
        weight.grad = torch.ones(())
        optimizer.param_groups[0]["lr"] = learning_rate(how, how.epochs * step / steps)
        optimizer.step()
    assert pruned.travel(how, bench.dataset) == pytest.approx(-weight.item())
    assert pruned.travel(replace(how, momentum=0.9), bench.dataset) == pytest.approx(
        -10 * weight.item()
    )


def test_tickets_and_their_controls_have_as_many_weights_a_layer(make):
    def left(name):
        return {
            key: (int(one.count_nonzero()), (one != 0))
            for key, one in make(name).network.state_dict().items()
            if one.dim() > 1
        }

    found, anew, shuffled = map(left, ("ticket", "ticket, drawn anew", "ticket, random masks"))
    assert all(torch.equal(found[key][1], anew[key][1]) for key in found)
    assert {key: one[0] for key, one in found.items()} == {
        key: one[0] for key, one in shuffled.items()
    }
    assert any(not torch.equal(found[key][1], shuffled[key][1]) for key in found)


def test_structural_networks_hold_what_their_names_say(make):
    for name, kind in (
        ("hashed", structure.HashedConv2d),
        ("code book", structure.CodebookConv2d),
        ("Tucker-2", structure.Tucker2Conv2d),
        ("CP", structure.CPConv2d),
        ("separable from dense", structure.SeparableConv2d),
        ("tensor train", structure.TTLinear),
        ("circulant", structure.CirculantLinear),
        ("low rank", (structure.LowRankConv2d, structure.BasisConv2d)),
        ("fire", structure.Fire),
        ("shuffle unit", structure.ShuffleUnit),
    ):
        assert any(isinstance(one, kind) for one in make(name).network.modules()), name
    assert isinstance(make("early exit").network, EarlyExit)


def test_searches_keep_their_budget(bench, make):
    space = structure.SearchSpace.of(
        bench.dataset, width=4, blocks=1, candidates=("dense", "separable", "inverted2", "skip")
    )
    budget = (space.fixed_macs + sum(map(max, space.macs))) // 2
    for name in ("searched by gradients", "searched at random"):
        assert cost(make(name).network, bench.shape).macs <= budget


def test_every_converter_starts_from_the_one_dense_network_and_leaves_it_alone(bench, make):
    before = digest(bench.dense())
    assert digest(make("float").network) == before
    for name in study.further_conditions(bench.settings):
        make(name)
    assert digest(bench.dense()) == before
    stays = make("post-training, 4/32").network.state_dict()
    dense = bench.dense().state_dict()
    assert all(torch.equal(stays[key], one) for key, one in dense.items() if one.dim() > 1)


def test_a_student_is_taught_by_the_dense_network(bench, make, monkeypatch):
    seen = []
    monkeypatch.setattr(
        quantised, "kd_loss", lambda s, t, T: seen.append(t.detach()) or (s * 0).sum()
    )
    alone = replace(bench.settings, tuning=replace(bench.settings.tuning, lr=0.03))
    quantised.taught(study.Bench(bench.dataset, alone, 0, None), 2)
    assert len(seen) == 10  # a batch a step
    assert all(said.shape == (8, 4) for said in seen)


def test_networks_of_signs_have_one_relu_which_stands_before_the_classifier(make):
    for name in ("BNN, 1/1", "XNOR, 1/1"):
        network = make(name).network
        (last,) = [one for one in network.modules() if isinstance(one, torch.nn.ReLU)]
        assert last is network.stage3[-1].relu2
        assert not any(isinstance(one, torch.nn.Hardtanh) for one in network.modules())
    dense = make("LSQ, 2/2").network
    assert sum(isinstance(one, torch.nn.ReLU) for one in dense.modules()) == 7


def test_rounding_trains_without_decay_of_steps(bench, make):
    network = quantised.quantised(bench, "lsq", "lsq", 2, 2).network.train()
    plain, decayed = quantised.Rounded(0.0), quantised.Rounded(0.1)
    batch = Batch(*bench.dataset.for_choosing(8))
    losses = [one(network, batch)["loss"] for one in (plain, decayed)]
    weights = sum(one.square().sum() for one in network.parameters() if one.dim() > 1) / 2
    steps = [one for name, one in network.named_parameters() if name.endswith("quant.step")]
    assert steps
    torch.testing.assert_close(losses[1] - losses[0], 0.1 * weights, rtol=1e-3, atol=1e-4)


def test_seeds_have_networks_of_their_own(bench):
    other = study.Bench(bench.dataset, bench.settings, 1, bench.cache_dir)
    assert digest(bench.start()) != digest(other.start())
    assert digest(bench.start()) == digest(bench.start())
