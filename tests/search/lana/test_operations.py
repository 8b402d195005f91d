import pytest
import torch

from smallnets import measure
from smallnets.search.lana import FULL_POOL, ImpossibleError, Shape, available, operation
from smallnets.search.lana.operations import parsed
from smallnets.training import seeded


def test_the_full_pool_has_197_names_and_all_can_be_built():
    shape = Shape(32, 32, 1, 4, 3)
    assert len(FULL_POOL) == len(set(FULL_POOL)) == 197
    names = available(FULL_POOL[1:], shape)
    assert len(names) == 196
    x = torch.rand(2, 32, 4, 3)
    with torch.no_grad():
        for name in names:
            assert operation(name, shape)(x).shape == x.shape, name


def test_strides_halve_odd_sizes_upwards_for_every_operation():
    shape = Shape(8, 16, 2, 7, 5)
    names = available(FULL_POOL[1:], shape)
    assert len(names) > 150
    assert not any(name.startswith(("mhsa", "vit")) for name in names)
    for name in names:
        assert operation(name, shape)(torch.rand(2, 8, 7, 5)).shape == (2, 16, 4, 3), name


def test_skip_is_the_identity_where_it_can_be():
    x = torch.rand(2, 4, 3, 3)
    assert operation("skip", Shape(4, 4))(x) is x
    assert measure.parameters(operation("skip", Shape(4, 8))) == 4 * 8 + 2 * 8


def test_blocks_add_their_input_and_end_without_activation():
    with seeded(0):
        for name in ("basic", "bottleneck_r0.5_k3", "ir_e3_k3", "fused_e3_k3", "next_e2_k3"):
            block = operation(name, Shape(4, 4, 1, 6, 6)).eval()
            torch.nn.init.zeros_(list(block.path.modules())[-1].weight)  # the last norm
            x = torch.randn(2, 4, 6, 6)
            assert torch.equal(block(x), x), name


def test_attention_mixes_all_positions_and_pools_its_keys():
    shape = Shape(8, 8, 1, 4, 4)
    with seeded(0):
        full, pooled = (operation(name, shape) for name in ("mhsa2", "mhsa2_pool2"))
    x = torch.randn(1, 8, 4, 4, requires_grad=True)
    (grad,) = torch.autograd.grad(full(x)[0, :, 0, 0].sum(), x)
    assert (grad.abs().sum(dim=(0, 1)) > 0).all()
    assert measure.macs(pooled, (8, 4, 4)) == measure.macs(full, (8, 4, 4)) - 2 * 16 * 12 * 8


def test_names_are_families_with_options():
    assert parsed("ir_e3_k5_se0.25") == ("ir", {"e": 3, "k": 5, "se": 0.25})
    assert parsed("mhsa4") == ("mhsa", {"n": 4})


@pytest.mark.parametrize(
    "name", ["convolution", "conv", "ir_e3", "ir_e3_k3_x2", "", "conv3x3", "teacher"]
)
def test_unknown_names_are_refused_in_one_line(name):
    message = rf"operation must be one of skip, conv, .*such as conv3 .*; got '{name}'"
    with pytest.raises(ValueError, match=message) as error:
        operation(name, Shape(4, 4))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("mhsa3", Shape(8, 8), "divisible by 3 heads; got 8"),
        ("vit2_e2", Shape(8, 16), "keeps the shape of its input; got 8 to 16 channels"),
        ("group4_k3", Shape(6, 8), "divisible by 4 groups; got 6 and 8"),
        ("ghost3", Shape(4, 5), "ghost3 needs an even number of channels; got 5"),
    ],
)
def test_operations_that_a_shape_cannot_have(name, shape, message):
    with pytest.raises(ImpossibleError, match=message):
        operation(name, shape)
    assert available([name, "skip"], shape) == ("skip",)


def test_names_and_shapes_are_checked():
    with pytest.raises(ValueError, match="names of operations must differ; got 'conv3' twice"):
        available(["conv3", "skip", "conv3"], Shape(4, 4))
    with pytest.raises(ValueError, match="operation must be one of"):
        available(["cnv3"], Shape(4, 4))
    with pytest.raises(ValueError, match="stride must be at least 1; got 0"):
        Shape(4, 4, 0)
