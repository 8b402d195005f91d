"""Initial weights."""

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from smallnets.gan.networks.start import KINDS, initialise


def network():
    return nn.Sequential(nn.Conv2d(8, 64, 5), nn.BatchNorm2d(64), nn.Flatten(), nn.Linear(64, 32))


def drawn(kind, seed=0, gain=0.02):
    return initialise(network(), kind, gain, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", KINDS)
def test_draws_repeat_and_biases_are_zero(kind):
    a, b, c = drawn(kind), drawn(kind), drawn(kind, 1)
    assert torch.equal(a[0].weight, b[0].weight)
    assert not torch.equal(a[0].weight, c[0].weight)
    assert all((a[place].bias == 0).all() for place in (0, 1, 3))
    assert abs(a[1].weight.mean() - 1) < 0.02


def test_spreads():
    assert drawn("normal")[0].weight.std().item() == pytest.approx(0.02, rel=0.05)
    fans = 25 * (8 + 64)
    assert drawn("xavier")[0].weight.std().item() == pytest.approx(
        0.02 * (2 / fans) ** 0.5, rel=0.05
    )
    assert drawn("kaiming")[0].weight.std().item() == pytest.approx((2 / 200) ** 0.5, rel=0.05)
    rows = drawn("orthogonal", gain=1.0)[3].weight
    assert torch.allclose(rows @ rows.T, torch.eye(32), atol=1e-5)


def test_weights_under_a_spectral_norm_are_drawn_too():
    made = nn.Sequential(spectral_norm(nn.Conv2d(8, 64, 5)))
    initialise(made, generator=torch.Generator().manual_seed(0))
    drawn = made[0].parametrizations.weight.original
    assert isinstance(drawn, nn.Parameter)
    assert drawn.std().item() == pytest.approx(0.02, rel=0.05)


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="kind must be one of"):
        initialise(network(), "zeros")
    with pytest.raises(ValueError, match="gain must be greater than 0"):
        initialise(network(), gain=0)
