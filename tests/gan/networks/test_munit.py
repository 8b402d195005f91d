"""MUNIT generators, their supernet, and what one direction is assembled from."""

import pytest
import torch

from smallnets.gan.networks.counting import count
from smallnets.gan.networks.munit import MUNITGenerator, assemble
from smallnets.gan.networks.munit_cost import munit_cost
from smallnets.gan.networks.super_munit import SuperMUNITGenerator

X = 2 * torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) - 1
Z = torch.randn(2, 3, generator=torch.Generator().manual_seed(1))
SMALL = {"ngf": 2, "style_dim": 3, "mlp_dim": 5, "n_res": 2}
CONFIGS = [(2,) * 10, (1,) * 10, (2, 1, 2, 1, 1, 2, 1, 2, 1, 2)]


def small_super(**options):
    torch.manual_seed(0)
    return SuperMUNITGenerator(**SMALL, **options)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("separable", [True, False])
def test_exports_are_slices_bit_for_bit(config, separable):
    supernet = small_super(separable=separable)
    exported = supernet.export(config)
    image, (content,) = supernet(X, config, taps=True, style=Z)
    same, (same_content,) = exported(X, taps=True, style=Z)
    assert torch.equal(image, same)
    assert torch.equal(content, same_content)
    assert torch.equal(supernet(X, config), exported(X))
    assert [content.shape[1]] == supernet.tap_channels(config) == exported.tap_channels()
    assert (
        supernet.cost(config, (16, 16)) == exported.cost((16, 16)) == count(exported, (3, 16, 16))
    )


def test_full_configuration_is_the_plain_network():
    supernet, plain = small_super(), MUNITGenerator(**SMALL, separable=True)
    plain.load_state_dict(supernet.state_dict())
    assert torch.equal(supernet(X), plain(X))


def test_a_picture_in_its_own_style_is_decoded_from_its_codes():
    network = MUNITGenerator(**SMALL)
    content, style = network.encode(X)
    assert torch.equal(network.decode(content, style), network(X))
    assert torch.equal(network.decode(content, style.flatten(1)), network(X))
    assert not torch.equal(network(X), network(X, style=Z))


def test_only_blocks_and_ways_up_are_separable():
    names = {
        name.rsplit(".conv.0.weight")[0]
        for name, _ in MUNITGenerator(**SMALL, separable=True).named_parameters()
        if name.endswith(".conv.0.weight")
    }
    assert names == {
        *(f"enc_content.model.3.model.{b}.model.{c}.conv" for b in (0, 1) for c in (0, 1)),
        *(f"dec.model.0.model.{b}.model.{c}.conv" for b in (0, 1) for c in (0, 1)),
        "dec.model.2.conv",
        "dec.model.4.conv",
    }


def test_gradients_of_the_mlp_reach_the_rows_that_are_exported():
    supernet, config = small_super(), CONFIGS[2]
    supernet(X, config, style=Z).square().mean().backward()
    last = supernet.mlp.model[2].fc
    touched = (last.weight.grad != 0).any(1).nonzero().flatten().tolist()
    with torch.no_grad():
        last.bias.copy_(torch.arange(len(last.bias)))
    exported = supernet.export(config).mlp.model[2].fc.bias.tolist()
    assert len(touched) > len(exported) / 2  # a ReLU may be closed everywhere
    assert set(touched) <= set(exported)
    assert exported == sorted(exported)
    assert len(exported) == 2 * (4 * 1 + 4 + 4 * 2 + 4) < len(last.bias)


@pytest.mark.parametrize("gene", range(10))
def test_costs_grow_with_every_gene(gene):
    narrow, wide = [2] * 10, [2] * 10
    wide[gene] = 3
    small, large = (munit_cost(c, (32, 32)) for c in (narrow, wide))
    for name in ("published", "outsized", "exact", "parameters"):
        assert getattr(small, name) < getattr(large, name)


def test_one_direction_has_the_content_of_a_and_the_style_of_b():
    torch.manual_seed(0)
    a, b = MUNITGenerator(**SMALL), MUNITGenerator(**SMALL)
    both = assemble(a, b)
    assert torch.equal(both(X, style=Z), b.decode(a.content(X), Z))
    assert torch.equal(both.style(X), b.style(X))
    with torch.no_grad():
        both.enc_content.model[0].conv.weight.zero_()
    assert a.enc_content.model[0].conv.weight.abs().sum() > 0
    other = MUNITGenerator(**{**SMALL, "ngf": 3})
    with pytest.raises(ValueError, match="equal channels; got 8 and 12"):
        assemble(a, other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_res": 3}, "n_res must be even"),
        ({"ngf": 0}, "ngf must be at least 1"),
        ({"config": (1,) * 8}, "10 widths; got 8"),
    ],
)
def test_wrong_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MUNITGenerator(**{**SMALL, **options})


def test_wrong_configurations_images_and_styles_are_refused():
    supernet = small_super()
    with pytest.raises(ValueError, match="width 9 of the configuration must be at most 2; got 3"):
        supernet(X, (1,) * 9 + (3,))
    with pytest.raises(ValueError, match="at least 16; got 8 x 8"):
        supernet(X[..., :8, :8])
    assert supernet(X[..., :8, :8], style=Z).shape == (2, 3, 8, 8)
    with pytest.raises(ValueError, match="at least 8; got 4 x 8"):
        supernet(X[..., :4, :8], style=Z)
    with pytest.raises(ValueError, match=r"\(batch, 3, height, width\)"):
        supernet(X[:, :2])
    with pytest.raises(ValueError, match=r"styles must be \(2, 3\)"):
        supernet(X, style=Z[:, :2])
