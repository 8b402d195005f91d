"""A width for every layer under a budget."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from smallnets.quantize.mixed import choose_bits, width_factor
from smallnets.quantize.modules import quantize_model, widths
from smallnets.training import seeded

X = torch.randn(48, 6, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > X[:, 1]).long()
LOADER = DataLoader(TensorDataset(X, Y), 16)


@pytest.fixture(scope="module")
def model():
    with seeded(0):
        made = nn.Sequential(
            nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 2)
        )
        optimizer = torch.optim.Adam(made.parameters(), 0.02)
        for _ in range(60):
            optimizer.zero_grad()
            nn.functional.cross_entropy(made(X), Y).backward()
            optimizer.step()
        return made.eval()


WEIGHTS = 60 + 200 + 40


@pytest.mark.parametrize("budget", [8 * WEIGHTS, 5 * WEIGHTS, 2 * WEIGHTS])
def test_the_budget_of_bits_is_kept(model, budget):
    found = choose_bits(model, LOADER, budget)
    counted = sum(
        bits * size for (bits, _), size in zip(found.bits.values(), (60, 200, 40), strict=True)
    )
    assert counted == found.cost <= budget
    network = quantize_model(
        model, "symmetric", "affine", weight_bits=8, activation_bits=8, bits=found.bits, skip=()
    )
    assert widths(network) == found.bits
    if budget == 8 * WEIGHTS:
        assert found.steps == ()
        assert found.increase == 0


def test_bit_operations_and_exact_activations(model):
    found = choose_bits(model, LOADER, 40 * WEIGHTS, cost="bit_operations", candidates=(2, 4, 8))
    assert found.cost <= 40 * WEIGHTS
    exact = choose_bits(
        model, LOADER, 4 * 32 * WEIGHTS, cost="bit_operations", activations=False, keep=["4"]
    )
    assert exact.cost <= 4 * 32 * WEIGHTS
    assert exact.bits["4"] == (8, None)
    assert all(bits is None for _, bits in exact.bits.values())


def test_the_layer_that_matters_keeps_its_bits(model):
    """The last layer of this network gets a weight that dwarfs all others."""
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    with seeded(0):
        fragile = nn.Sequential(
            nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 2)
        ).eval()
    fragile.load_state_dict(weights)
    fragile[4].weight.data[:, 0] = 60 * fragile[4].weight.data.abs().max()
    fragile[2].weight.data[0] = 0
    fragile[2].bias.data[0] = 0
    found = choose_bits(fragile, LOADER, 4 * WEIGHTS, activations=False)
    assert found.bits["4"][0] == 8
    assert min(bits for bits, _ in found.bits.values()) < 8
    assert found.sensitivity["4"][2] > max(found.sensitivity["0"][6], found.sensitivity["2"][6])


def test_predictions_add_up(model):
    found = choose_bits(model, LOADER, 4 * WEIGHTS)
    total = sum(found.sensitivity[name][bits] for name, (bits, _) in found.bits.items())
    assert found.increase == pytest.approx(total)
    for name, width in found.steps:
        assert width in found.sensitivity[name]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget": 100}, rf"budget must be at least {2 * WEIGHTS} bits, which .*; got 100"),
        ({"budget": 0}, "budget must be greater than 0; got 0"),
        ({"cost": "bytes"}, "cost must be one of bits, bit_operations; got 'bytes'"),
        ({"candidates": (1, 8)}, "candidates must be at least 2; got 1"),
        ({"candidates": (2, 20)}, "every one of candidates must be between 2 and 16; got 20"),
        ({"candidates": ()}, "candidates must hold at least one number; got none"),
        ({"keep": ["body"]}, r"keep must name layers \(0, 2, 4\); got 'body'"),
        ({"batches": iter([(X, Y)])}, "batches must start anew with every loop"),
        ({"batches": []}, "data must give at least one batch; got none"),
        ({"loss": lambda outputs, labels: outputs.sum() * torch.nan}, "the loss must be finite"),
    ],
)
def test_bad_settings(model, change, message):
    given = {"batches": LOADER, "budget": 5 * WEIGHTS, **change}
    batches, budget = given.pop("batches"), given.pop("budget")
    with pytest.raises(ValueError, match=message) as error:
        choose_bits(model, batches, budget, **given)
    assert "\n" not in str(error.value)


def test_width_in_place_of_bits():
    assert width_factor((32, 32)) == 1
    assert width_factor((2, 2), (8, 8)) == 4
    assert width_factor((4, 8)) == pytest.approx(32**0.5)
    for bad, message in (((0, 4), "at least 1; got 0"), (4, "two widths"), ((2, 33), "1 and 32")):
        with pytest.raises(ValueError, match=message):
            width_factor(bad)
