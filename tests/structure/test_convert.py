"""Converters on networks as users have them."""

import copy

import pytest
import torch
import torchvision
from torch import nn

from smallnets import measure
from smallnets import structure as st
from smallnets.deploy import onnx_runtime

CONVERTERS = {
    "low rank": lambda network, **how: st.to_low_rank(network, cost=0.5, **how),
    "filters": lambda network, **how: st.to_low_rank(network, share=0.3, reshape="channels", **how),
    "kernels": lambda network, **how: st.to_low_rank(network, rank=2, reshape="kernels", **how),
    "energy": lambda network, **how: st.to_low_rank(network, energy=0.6, **how),
    "tucker": lambda network, **how: st.to_tucker2(network, cost=0.4, sweeps=1, **how),
    "tucker energy": lambda network, **how: st.to_tucker2(network, energy=0.7, **how),
    "cp": lambda network, **how: st.to_cp(network, cost=0.4, sweeps=3, **how),
    "separable": st.to_separable,
    "train": lambda network, **how: st.to_tensor_train(network, rank=3, **how),
    "circulant": lambda network, **how: st.to_circulant(network, block=5, **how),
    "hashed": lambda network, **how: st.to_hashed(network, share=0.2, **how),
    "code book": lambda network, **how: st.to_codebook(network, k=4, **how),
}
every = pytest.mark.parametrize("convert", CONVERTERS.values(), ids=CONVERTERS)


@every
def test_the_copy_is_smaller_and_the_network_is_left_alone(convert, network, images, untouched):
    still = untouched(network)
    made = convert(network)
    still()
    assert st.structured(made)
    assert st.stored_bits(made) < st.stored_bits(network)
    theirs = {one.data_ptr() for one in network.parameters()}
    assert not theirs & {one.data_ptr() for one in made.parameters()}
    assert made(images).shape == (2, 5)
    torch.testing.assert_close(st.to_dense(made)(images), made(images))
    assert not st.structured(st.to_dense(made))
    errors = st.relative_errors(network, made)
    assert errors.keys() == st.structured(made).keys()
    assert all(0 < error < 1 for error in errors.values())


@every
def test_the_copy_is_copied_stored_trained_and_exported(convert, network, images):
    made = convert(network)
    assert torch.equal(copy.deepcopy(made)(images), made(images))
    fresh = copy.deepcopy(made)
    with torch.no_grad():
        for one in [*fresh.parameters(), *(b for n, b in fresh.named_buffers() if "labels" in n)]:
            one.zero_()
    assert not torch.equal(fresh(images), made(images))
    fresh.load_state_dict(made.state_dict())
    assert torch.equal(fresh(images), made(images))
    session = onnx_runtime.load(onnx_runtime.export(made, (3, 8, 8)))
    assert onnx_runtime.difference(made, session, images) < 1e-5
    made.train()(images).square().sum().backward()
    assert all(one.grad is not None for one in made.parameters())


@every
def test_mode_type_and_training_are_those_of_each_layer(convert, network):
    network.train()
    network[3].eval()
    network[10].requires_grad_(False)
    network.double()
    made = convert(network)
    for name, one in st.structured(made).items():
        layer = network.get_submodule(name)
        assert {p.dtype for p in one.parameters()} == {torch.float64}
        assert {p.requires_grad for p in one.parameters()} == {name != "10"}
        assert {m.training for m in one.modules()} == {layer.training}
    assert made.training


@every
def test_the_draws_of_the_caller_are_left_alone(convert, network):
    state = torch.get_rng_state()
    convert(network)
    assert torch.equal(torch.get_rng_state(), state)


def test_channels_last_and_unbatched_images(network, images):
    made = st.to_low_rank(network[:8], rank=2, reshape="kernels")
    expected = made(images)
    torch.testing.assert_close(made(images.contiguous(memory_format=torch.channels_last)), expected)
    alone = made[0](images[0])
    torch.testing.assert_close(alone, made[0](images)[0])


def test_cheaper_takes_the_cheaper_reshape(network):
    kinds = {
        reshape: st.to_low_rank(network, rank=1, reshape=reshape, layers=["3"])
        for reshape in st.RESHAPES
    }
    macs = {one: measure.macs(made, (3, 8, 8)) for one, made in kinds.items()}
    assert macs["cheaper"] == min(macs["channels"], macs["kernels"])
    assert macs["channels"] != macs["kernels"]


def test_only_what_is_worth_it(network):
    """The most that a rank may be is m n / (m + n)."""
    made = st.to_low_rank(network, rank=18)
    assert [*st.structured(made)] == ["10"]  # 18 < 30 * 48 / 78
    with pytest.raises(ValueError, match=r"^the network must have .* that is worth replacing"):
        st.to_low_rank(network, rank=19)
    named = st.to_low_rank(network, rank=19, layers=["10"])
    assert st.stored_bits(named) > st.stored_bits(network)


def test_layers_and_skips(network):
    assert [*st.structured(st.to_codebook(network, k=4, layers=["12", "3"]))] == ["3", "12"]
    rest = st.structured(st.to_codebook(network, k=4, skip=["first", "last", "5"]))
    assert [*rest] == ["3", "7", "10"]
    nested = nn.Sequential(network, nn.Linear(5, 40))
    assert [*st.structured(st.to_codebook(nested, k=2, skip=["0"]))] == ["1"]
    several = (name for name in ["0.3", "0.10"])
    assert [*st.structured(st.to_codebook(nested, k=2, layers=several))] == ["0.3", "0.10"]


def test_code_books_in_decomposed_layers(network, images):
    once = st.to_tucker2(network, cost=0.4, layers=["3"])
    twice = st.to_codebook(once, k=4)
    assert {"3", "3.core", "3.expand"} <= st.structured(twice).keys()
    torch.testing.assert_close(st.to_dense(twice)(images), twice(images))
    assert "3" in st.relative_errors(network, twice)
    again = st.to_low_rank(once, cost=0.5)
    assert isinstance(again[3].core, nn.Conv2d)  # what is decomposed is not decomposed again
    basis = st.to_codebook(st.to_low_rank(network, rank=2, reshape="kernels"), k=4)
    torch.testing.assert_close(st.to_dense(basis)(images), basis(images))


def test_what_cannot_be_replaced_is_left_alone(images):
    class Own(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(24, 2, batch_first=True)
            self.block = nn.TransformerEncoderLayer(24, 2, 48, batch_first=True)
            self.own = Own(24, 24)
            self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(24, 24))
            self.tied, self.tie = nn.Linear(24, 24), nn.Linear(24, 24)
            self.tie.weight = self.tied.weight
            self.plain = self.twice = nn.Linear(24, 24)

        def forward(self, x):
            x = self.block(self.attention(x, x, x, need_weights=False)[0])
            return self.twice(self.plain(self.tie(self.tied(self.normed(self.own(x))))))

    network = Net().eval()
    x = torch.randn(2, 3, 24)
    made = st.to_low_rank(network, rank=4)
    assert [*st.structured(made)] == ["plain"]
    assert made.plain is made.twice
    assert [*st.structured(st.to_low_rank(network, rank=4, layers=["twice", "plain"]))] == ["plain"]
    with pytest.raises(ValueError, match="of the 0 that may be replaced none"):
        st.to_low_rank(network, rank=4, skip=["twice"])
    with pytest.raises(ValueError, match="of the 0 that may be replaced none"):
        st.to_low_rank(network.block, rank=4)
    with torch.no_grad():
        assert made(x).shape == (2, 3, 24)
    for name, why in (
        ("own", "must compute as Linear does"),
        ("normed", "must be a plain parameter"),
        ("tied", "must have parameters of its own"),
        ("block.linear1", "must not be part of attention"),
        ("attention.out_proj", "must not be part of attention"),
    ):
        with pytest.raises(ValueError, match=f"^layer '{name}' {why}|of layer '{name}' {why}"):
            st.to_low_rank(network, rank=4, layers=[name])


def test_energy_keeps_what_it_says(network):
    made = st.to_low_rank(network, energy=0.8, reshape="channels")
    for error in st.relative_errors(network, made).values():
        assert error**2 <= 0.2 + 1e-6


def test_cost_keeps_what_it_says(network):
    for convert in (st.to_low_rank, st.to_tucker2, st.to_cp, st.to_separable):
        made = convert(network, cost=0.4)
        for name, one in st.structured(made).items():
            layer = network.get_submodule(name)
            weights = sum(p.numel() for p in one.parameters() if p.dim() > 1)
            assert weights <= 0.4 * layer.weight.numel()


def test_networks_of_others():
    torch.manual_seed(0)
    network = torchvision.models.mobilenet_v3_small(num_classes=10).eval()
    images = torch.randn(1, 3, 32, 32)
    for made in (
        st.to_low_rank(network, cost=0.3, reshape="channels", skip=["first", "classifier"]),
        st.to_codebook(network, k=16, layers=["features.12.0", "classifier.0"]),
    ):
        assert st.stored_bits(made) < st.stored_bits(network)
        assert made(images).shape == (1, 10)
    # Depthwise kernels are matrices of one row: no rank is worth it.
    low = st.to_low_rank(network, cost=0.3, reshape="channels")
    for name in st.structured(low):
        assert getattr(network.get_submodule(name), "groups", 1) == 1


def test_transforms_are_counted():
    network = nn.Sequential(nn.Linear(16, 16, bias=False))
    made = st.to_circulant(network)
    assert st.multiply_adds(network, (16,)) == 256
    assert st.multiply_adds(made, (16,)) == st.fft_macs(1, 1, 16)
    rows = nn.Sequential(st.CirculantLinear(10, 7, 3))
    assert st.multiply_adds(rows, (5, 10)) == 5 * st.fft_macs(3, 4, 3)
