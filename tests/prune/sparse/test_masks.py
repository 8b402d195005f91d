import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations, prune

from smallnets.prune.sparse import (
    Masked,
    density,
    keep_largest,
    magnitude_masks,
    prunable_weights,
    shuffled_masks,
    snip_masks,
    snip_scores,
)
from smallnets.training import fit


def random_scores(seed, *shapes):
    noise = torch.Generator().manual_seed(seed)
    return {f"w{i}": torch.rand(shape, generator=noise) for i, shape in enumerate(shapes)}


@given(st.integers(0, 99), st.floats(0, 1), st.sampled_from(["layer", "global"]))
def test_the_count_is_exact_and_the_largest_stay(seed, amount, scope):
    scores = random_scores(seed, (3, 4), (5, 2, 2), (1, 9))
    masks = keep_largest(scores, amount, scope, least=0)
    parts = [[name] for name in scores] if scope == "layer" else [list(scores)]
    for names in parts:
        open_ = torch.cat([masks[name].flatten() for name in names]) > 0
        values = torch.cat([scores[name].flatten() for name in names])
        assert int((~open_).sum()) == round(amount * len(values))
        if open_.any() and not open_.all():
            assert values[open_].min() >= values[~open_].max()


@given(st.integers(0, 99), st.lists(st.floats(0, 0.9), min_size=2, max_size=5))
def test_masks_are_nested_where_the_last_ones_are_given(seed, amounts):
    masks = None
    for step, amount in enumerate(sorted(amounts)):
        new = keep_largest(
            random_scores(seed + step, (4, 5), (3, 3)), amount, "global", masks=masks
        )
        if masks is not None:
            assert all((new[name] <= masks[name]).all() for name in new)
        assert 29 - round(density(new) * 29) == round(amount * 29)
        masks = new


def test_a_layer_keeps_its_largest_and_others_give_more():
    scores = {"small": torch.tensor([0.1, 0.2]), "large": torch.tensor([1.0, 2.0, 3.0, 4.0])}
    masks = keep_largest(scores, 0.5, "global")
    assert (masks["small"].tolist(), masks["large"].tolist()) == ([0, 1], [0, 0, 1, 1])
    masks = keep_largest(scores, 0.5, "global", least=0)
    assert (masks["small"].tolist(), masks["large"].tolist()) == ([0, 0], [0, 1, 1, 1])


def test_what_is_closed_is_not_opened_to_keep_a_number():
    masks = {"w": torch.tensor([0.0, 0.0, 1.0])}
    kept = keep_largest({"w": torch.tensor([3.0, 2.0, 1.0])}, 0.0, masks=masks, least=2)
    assert kept["w"].tolist() == [0, 0, 1]


def test_equal_scores_go_one_by_one():
    assert keep_largest({"w": torch.zeros(4)}, 0.5)["w"].tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_magnitudes_go_as_in_pytorch(network, scope):
    masks = magnitude_masks(network, 0.4, scope)
    theirs = copy.deepcopy(network)
    layers = [(m, "weight") for m in theirs.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    if scope == "global":
        prune.global_unstructured(layers, prune.L1Unstructured, amount=0.4)
    else:
        for layer, name in layers:
            prune.l1_unstructured(layer, name, amount=0.4)
    for name, mask in masks.items():
        assert torch.equal(mask, theirs.get_buffer(f"{name}_mask"))


def test_shuffled_masks_keep_as_many_in_every_layer_elsewhere(network):
    masks = magnitude_masks(network, 0.5, "global")
    other = shuffled_masks(masks, torch.Generator().manual_seed(0))
    assert {n: int(m.sum()) for n, m in other.items()} == {
        n: int(m.sum()) for n, m in masks.items()
    }
    assert any(not torch.equal(masks[name], other[name]) for name in masks)
    assert density(other) == density(masks) == pytest.approx(0.5, abs=1e-2)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "shampoo"])
def test_no_optimiser_brings_a_weight_back(network, batches, settings, optimizer, example):
    masked = Masked(network, magnitude_masks(network, 0.6))
    before = {name: mask.clone() for name, mask in masked.masks.items()}
    rate = 0.1 if optimizer == "sgd" else 0.01
    fit(masked, batches, replace(settings, optimizer=optimizer, lr=rate), seed=0)
    plain = masked.plain()
    for name, weight in prunable_weights(plain).items():
        assert torch.equal(weight != 0, before[name] > 0)
    torch.testing.assert_close(plain(example), masked(example))
    assert type(plain) is type(network)


def test_a_masked_network_says_what_pytorchs_says_and_learns_the_same(network, batches):
    masks = magnitude_masks(network, 0.5)
    theirs, masked = copy.deepcopy(network), Masked(network, masks)
    for name, mask in masks.items():
        prune.custom_from_mask(theirs.get_submodule(name.removesuffix(".weight")), "weight", mask)
    images, labels = batches[0]
    for one in (theirs, masked):
        nn.functional.cross_entropy(one(images), labels).backward()
    assert torch.equal(theirs(images), masked(images))
    for name in masks:
        gradient = theirs.get_parameter(f"{name}_orig").grad
        assert torch.equal(network.get_parameter(name).grad, gradient)
        assert (gradient[masks[name] == 0] == 0).all()


def test_masks_travel_with_the_state_and_with_the_type(network, example):
    masked = Masked(network, magnitude_masks(network, 0.5))
    other = Masked(copy.deepcopy(network), magnitude_masks(network, 0.0))
    other.load_state_dict(masked.state_dict())
    assert torch.equal(other.eval()(example), masked.eval()(example))
    half = copy.deepcopy(masked).to(torch.bfloat16)
    assert half(example.bfloat16()).dtype == torch.bfloat16
    channels_last = example.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(masked(channels_last), masked(example))


def test_zeros_of_a_plain_network_stay(network):
    plain = Masked(network, magnitude_masks(network, 0.7)).plain()
    again = Masked.of_zeros(plain)
    assert density(again.masks) == pytest.approx(0.3, abs=1e-2)
    assert float(again.closed) == pytest.approx(1 - density(again.masks))
    further = magnitude_masks(again, 0.8)
    assert all((further[name] <= mask).all() for name, mask in again.masks.items())


def test_a_weight_that_layers_share_has_one_mask():
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    tied = nn.Sequential(first, second)
    masked = Masked(tied, magnitude_masks(tied, 0.5))
    assert masked.names == ("0.weight",)
    x = torch.randn(2, 4)
    assert torch.equal(masked(x), masked.plain()(x))


def test_a_single_layer_is_a_network():
    layer = nn.Linear(4, 3)
    masked = Masked(layer, magnitude_masks(layer, 0.5))
    assert masked.names == ("weight",)
    assert int(masked.plain().weight.count_nonzero()) == 6


def test_snip_is_the_derivative_by_a_mask_of_ones(network, batches):
    found = snip_scores(network.eval(), batches[:1])
    ones = {n: torch.ones_like(w).requires_grad_() for n, w in prunable_weights(network).items()}
    weights = {name: w.detach() * ones[name] for name, w in prunable_weights(network).items()}
    images, labels = batches[0]
    logits = torch.func.functional_call(network, weights, (images,))
    slopes = torch.autograd.grad(nn.functional.cross_entropy(logits, labels), list(ones.values()))
    total = sum(slope.abs().sum() for slope in slopes)
    for name, slope in zip(ones, slopes, strict=True):
        torch.testing.assert_close(found[name], slope.abs() / total)
    masks = snip_masks(network, batches[:1], 0.9)
    assert density(masks) == pytest.approx(0.1, abs=1e-2)
    kept = torch.cat([found[name][mask > 0] for name, mask in masks.items()])
    gone = torch.cat([found[name][mask == 0] for name, mask in masks.items()])
    assert int((gone > kept.min()).sum()) == 0


def weight_norm(network):
    parametrizations.weight_norm(network.head)
    return network


SCORES = {"w": torch.rand(2, 5)}
REFUSED = {
    "amount above 1": (lambda n: keep_largest(SCORES, 1.5), "amount must be between 0 and 1"),
    "amount below 0": (lambda n: keep_largest(SCORES, -0.1), "amount must be between 0 and 1"),
    "amount nan": (lambda n: keep_largest(SCORES, float("nan")), "amount must be between 0 and 1"),
    "amount bool": (lambda n: keep_largest(SCORES, True), "amount must be a number; got True"),
    "everything": (lambda n: keep_largest(SCORES, 1.0), r"at most 0\.9.* for 'w'; got 1\.0"),
    "everything, all": (lambda n: keep_largest(SCORES, 1.0, "global"), "for all tensors together"),
    "scope": (lambda n: keep_largest(SCORES, 0.5, "net"), "scope must be one of layer, global"),
    "no scores": (lambda n: keep_largest({}, 0.5), "at least one tensor; got none"),
    "nan": (lambda n: keep_largest({"w": torch.tensor([0.0, torch.nan])}, 0.5), "must be finite"),
    "least": (lambda n: keep_largest(SCORES, 0.5, least=0.5), "least must be a whole number"),
    "other mask": (lambda n: keep_largest(SCORES, 0.5, masks={}), "mask must be one of"),
    "mask's shape": (
        lambda n: keep_largest(SCORES, 0.5, masks={"w": torch.ones(3)}),
        r"mask of 'w' must have shape \(2, 5\); got \(3,\)",
    ),
    "unknown layer": (lambda n: magnitude_masks(n, 0.5, layers=["body"]), "layer must be one of"),
    "a norm": (
        lambda n: magnitude_masks(n, 0.5, layers=["norm"]),
        "'norm' must be a convolution or linear layer; got BatchNorm2d",
    ),
    "one name": (lambda n: magnitude_masks(n, 0.5, layers="head"), "must be a list of names"),
    "no layer": (lambda n: magnitude_masks(n, 0.5, layers=[]), "Residual has none"),
    "nothing to prune": (lambda n: magnitude_masks(nn.ReLU(), 0.5), "ReLU has none"),
    "computed weight": (lambda n: magnitude_masks(weight_norm(n), 0.5), "bake it in"),
    "unknown weight": (lambda n: Masked(n, {"x": torch.ones(1)}), "masked weight must be one of"),
    "no mask": (lambda n: Masked(n, {}), "masks must be of at least one weight; got none"),
    "density": (lambda n: density({}), "masks must be of at least one weight; got none"),
    "other numbers": (
        lambda n: Masked(n, {"head.weight": torch.full((3, 6), 0.5)}),
        "must hold zeros and ones",
    ),
    "empties a layer": (
        lambda n: Masked(n, {"head.weight": torch.zeros(3, 6)}),
        "'head.weight' must keep at least one weight; it keeps none",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_inputs(network, case):
    function, message = REFUSED[case]
    with pytest.raises(ValueError, match=rf"^[^\n]*{message}[^\n]*$"):
        function(network)


def test_layers_may_come_from_a_generator(network):
    assert list(magnitude_masks(network, 0.5, layers=(n for n in ["head"]))) == ["head.weight"]


def test_snip_leaves_the_network_as_it_is(network, batches):
    before = copy.deepcopy(network.train().state_dict())
    snip_masks(network, batches[:2], 0.5)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_snip_refuses_a_network_that_learns_nothing(network, batches):
    for parameter in network.head.parameters():
        nn.init.zeros_(parameter)
    network.head.requires_grad_(False)
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        snip_scores(network, batches)
    with pytest.raises(ValueError, match="sensitivities must have a sum above 0; got 0"):
        snip_scores(network, batches, layers=["stem", "conv1", "conv2"])
