"""Every bad input has one line that names what was given and what is allowed."""

import numpy as np
import pytest
import torch
from torch import nn

from smallnets import structure as st
from smallnets.data import Dataset
from smallnets.structure.networks import places
from smallnets.training import TrainSettings

LINEAR, CONV = nn.Linear(6, 5), nn.Conv2d(4, 6, 3)
GROUPED = nn.Conv2d(4, 6, 3, groups=2)
NETWORK = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(32, 5))
SPACE = st.SearchSpace(4, 1, (8, 8), width=4, blocks=1)


def nan(layer):
    with torch.no_grad():
        layer.weight[0, 0] = torch.nan
    return layer


class Uncopied(nn.Module):
    def __deepcopy__(self, memo):
        raise RuntimeError("only leaves can be copied")


BAD = [
    # ranks
    (lambda: st.LowRankLinear.from_linear(LINEAR, 6), "rank must be between 1 and 5; got 6"),
    (lambda: st.LowRankLinear.from_linear(LINEAR, 0), "rank must be at least 1; got 0"),
    (lambda: st.LowRankLinear.from_linear(LINEAR, True), "rank must be a whole number"),
    (lambda: st.LowRankLinear(6, 5, 9), "rank must be between 1 and 5; got 9"),
    (lambda: st.LowRankConv2d.from_conv(CONV, 7), "rank must be between 1 and 6; got 7"),
    (lambda: st.BasisConv2d.from_conv(CONV, 10), "rank must be between 1 and 9; got 10"),
    (lambda: st.Tucker2Conv2d.from_conv(CONV, 7, 1), "out_rank must be between 1 and 6; got 7"),
    (lambda: st.Tucker2Conv2d.from_conv(CONV, 1, 5), "in_rank must be between 1 and 4; got 5"),
    (lambda: st.Tucker2Conv2d.from_conv(CONV, 2, 2, -1), "sweeps must be at least 0; got -1"),
    (lambda: st.CPConv2d.from_conv(CONV, 0), "rank must be at least 1; got 0"),
    (lambda: st.CPConv2d.from_conv(CONV, 1, 0), "sweeps must be at least 1; got 0"),
    (lambda: st.SeparableConv2d.from_conv(CONV, 7), "rank must be between 1 and 6; got 7"),
    (lambda: st.TTLinear.from_linear(LINEAR, 0), "max_rank must be at least 1; got 0"),
    (lambda: st.truncation_error(torch.ones(3), 4), "rank must be between 0 and 3; got 4"),
    (lambda: st.RankRule(), "exactly one of rank, share, energy and cost; got none"),
    (lambda: st.RankRule(3, energy=0.5), "exactly one of rank, share, .*; got rank, energy"),
    (lambda: st.RankRule(share=0), "share must be greater than 0; got 0"),
    (lambda: st.RankRule(energy=1.1), "energy must be between 0 and 1; got 1.1"),
    (lambda: st.RankRule(energy=float("nan")), "energy must be greater than 0; got nan"),
    (lambda: st.RankRule(cost=True), "cost must be a number; got True"),
    (lambda: st.RankRule(rank=()), "rank must hold at least one number; got none"),
    (lambda: st.RankRule(rank=2.5), "rank must be a whole number of at least 1; got 2.5"),
    (lambda: st.to_low_rank(NETWORK, rank=(2, 2)), r"rank must be 1 number\(s\); got \(2, 2\)"),
    (lambda: st.to_cp(NETWORK), "exactly one of rank, share, energy and cost; got none"),
    # layers of another kind
    (lambda: st.LowRankLinear.from_linear(CONV, 1), "must be a Linear; got Conv2d"),
    (lambda: st.LowRankConv2d.from_conv(LINEAR, 1), "must be a Conv2d; got Linear"),
    (lambda: st.CPConv2d.from_conv(GROUPED, 1), "CP needs a convolution in one group; got 2"),
    (lambda: st.SeparableConv2d.from_conv(GROUPED), "needs a convolution in one group; got 2"),
    (lambda: st.HashedConv2d.from_conv(nn.ConvTranspose2d(4, 6, 3), 3),
     "must be a Conv2d; got ConvTranspose2d"),
    (lambda: st.CodebookLinear.from_linear(nn.LazyLinear(3), 3), "it is not there yet"),
    # numbers that are none
    *((lambda make=make: make(), "must be finite; got NaN or infinity") for make in (
        lambda: st.LowRankLinear.from_linear(nan(nn.Linear(6, 5)), 2),
        lambda: st.Tucker2Conv2d.from_conv(nan(nn.Conv2d(4, 6, 3)), 2, 2),
        lambda: st.CodebookLinear.from_linear(nan(nn.Linear(6, 5)), 2),
        lambda: st.HashedLinear.from_linear(nan(nn.Linear(6, 5)), 2),
        lambda: st.CirculantLinear.from_linear(nan(nn.Linear(6, 5))),
        lambda: st.low_rank_factors(torch.full((2, 3), torch.inf), 1),
        lambda: st.cp(torch.full((2, 3, 4), torch.nan), 1),
        lambda: st.tt_cores(torch.full((2, 3), torch.nan), (2, 1), (3, 1), 1),
        lambda: st.start_centroids(torch.tensor([torch.nan]), 1),
    )),
    # modes and blocks
    (lambda: st.TTLinear.from_linear(LINEAR, 2, (3, 2), (5, 2)),
     r"out_modes must be .*with the product 5; got \(5, 2\)"),
    (lambda: st.TTLinear.from_linear(LINEAR, 2, (3, 3), (5, 1)),
     r"in_modes must be .*with the product 6; got \(3, 3\)"),
    (lambda: st.TTLinear((3, 2), (5,), 2), "must be as many numbers as the others"),
    (lambda: st.TTLinear((), (), 2), "out_modes must hold at least one number; got none"),
    (lambda: st.to_tensor_train(NETWORK, rank=2, count=1), "count must be at least 2; got 1"),
    (lambda: st.CirculantLinear(6, 5, 7), "block must be between 1 and 6; got 7"),
    (lambda: st.CirculantLinear(6, 5, 0), "block must be at least 1; got 0"),
    (lambda: st.circulant_product(torch.ones(4), torch.ones(2, 5)),
     r"column \(n,\) and inputs \(..., n\); got \(4,\) and \(2, 5\)"),
    (lambda: st.separable_kernel(torch.ones(4, 2, 3, 3), torch.ones(6, 4, 1, 1)),
     r"kernels must be .*; got \(4, 2, 3, 3\)"),
    # sharing
    (lambda: st.HashedLinear(6, 5, 31), "buckets must be between 1 and 30; got 31"),
    (lambda: st.HashedLinear(6, 5, 0), "buckets must be at least 1; got 0"),
    (lambda: st.HashedLinear(6, 5, 3, seed=-1), "seed must be at least 0; got -1"),
    (lambda: st.to_hashed(NETWORK, share=0), "share must be greater than 0; got 0"),
    (lambda: st.to_hashed(NETWORK, share=1.5), "share must be between 0 and 1; got 1.5"),
    (lambda: st.CodebookLinear.from_linear(LINEAR, 31), "k must be between 1 and 30; got 31"),
    (lambda: st.CodebookLinear.from_linear(LINEAR, 0), "k must be at least 1; got 0"),
    (lambda: st.CodebookLinear(6, 5, 3, start="best"),
     "start must be one of linear, density, random; got 'best'"),
    (lambda: st.to_codebook(NETWORK, k=2.0), "k must be a whole number of at least 1; got 2.0"),
    (lambda: st.k_means(torch.ones(3), torch.ones(1), 0), "sweeps must be at least 1; got 0"),
    (lambda: st.k_means(torch.ones(3), torch.ones(0)), "number of centroids must be .* got 0"),
    (lambda: st.huffman_lengths(torch.zeros(3)), r"needs a label that occurs; got counts \[0"),
    (lambda: st.huffman_bits(torch.tensor([0, 4]), 4), "labels must be from 0 to 3; got 0 to 4"),
    *((lambda make=make: make(), message) for make, message in (
        (lambda: st.low_rank_factors(torch.ones(3), 1), "2 or more dimensions"),
        (lambda: st.low_rank_factors(torch.ones(3, 3).half(), 1), "got torch.float16"),
        (lambda: st.tucker2(torch.ones(3, 3, 3), 1, 1), r"4 or more dimensions.*\(3, 3, 3\)"),
        (lambda: st.cp(torch.ones(3, 3), 1), "with 3 dimensions"),
        (lambda: st.tt_cores(torch.ones(2, 2, 2), (2,), (2,), 1), "with 2 dimensions"),
        (lambda: st.nearest_circulant(torch.ones(4, 4).int(), 2), "got torch.int32"),
        (lambda: st.nearest_circulant(torch.ones(0, 4), 2), "not empty"),
    )),
    (lambda: st.pack_codes(torch.tensor([4]), 2), "codes of 2 bits must be from 0 to 3; got 4"),
    (lambda: st.unpack_codes(torch.zeros(2, dtype=torch.uint8), 2, 3),
     r"3 codes of 2 bits must be uint8 \(1,\); got torch.uint8 \(2,\)"),
    (lambda: st.load_packed(LINEAR, {}), "the state must be that of such a network"),
    (lambda: st.stored_bits(LINEAR, 0), "bits must be greater than 0; got 0"),
    # networks
    (lambda: st.to_separable(LINEAR), "must have a Conv2d that is worth replacing; of the 0 that"),
    (lambda: st.to_separable(CONV), "the network must hold its layers; got a single layer"),
    (lambda: st.to_codebook(nn.Sequential(nn.ReLU()), k=2), "a Linear or Conv2d that is worth"),
    (lambda: st.to_codebook("resnet18", k=2), "must be a torch.nn.Module; got str"),
    (lambda: st.to_codebook(nn.Sequential(Uncopied()), k=2),
     "must be one that copy.deepcopy copies; only leaves can be copied"),
    (lambda: st.to_codebook(NETWORK, k=2, layers=[]), "layers must name at least one layer"),
    (lambda: st.to_codebook(NETWORK, k=2, layers="0"), "layers must be a list of names; got '0'"),
    (lambda: st.to_codebook(NETWORK, k=2, layers=[0]), "a list of names; got 0 among them"),
    (lambda: st.to_codebook(NETWORK, k=2, layers=["conv"]),
     "layer 'conv' must be a Linear or Conv2d; there is nothing"),
    (lambda: st.to_separable(NETWORK, layers=["2"]), "'2' must be a Conv2d; there is Linear"),
    (lambda: st.to_codebook(NETWORK, k=2, skip=["conv"]),
     "skip must name layers of the network, or be first or last; got 'conv'"),
    (lambda: st.to_low_rank(NETWORK, rank=1, reshape="rows"),
     "reshape must be one of channels, kernels, cheaper; got 'rows'"),
    (lambda: st.relative_errors(nn.Sequential(nn.Linear(3, 2)), nn.Sequential(
        st.LowRankLinear(6, 5, 2))), r"must have a layer '0' with a weight of shape \(5, 6\)"),
    # blocks
    (lambda: st.make_block("residual", 8, 8), "block must be one of dense, .*; got 'residual'"),
    (lambda: st.make_block("dense", 8, 8, groups=2), "'dense' has no such option; got groups"),
    (lambda: st.make_block("dense", 8, 8, kernel=4), "kernel must be odd; got 4"),
    (lambda: st.make_block("dense", 8, 0), "channels must be at least 1; got 0"),
    (lambda: st.make_block("shuffle", 7, 8), "must be divisible by 2 halves; got 7"),
    (lambda: st.make_block("grouped", 8, 9), "must be divisible by 2 groups; got 9"),
    (lambda: st.make_block("fire", 8, 1), "channels must be at least 2; got 1"),
    (lambda: st.block_cost("grouped", 9, 8, 4), "must be divisible by 2 groups; got 9"),
    (lambda: st.block_cost("dense", 8, 8, 0), "pixels must be at least 1; got 0"),
    (lambda: st.channel_shuffle(torch.ones(1, 6, 1, 1), 4), "divisible by 4 groups; got 6"),
    (lambda: st.small_by_design("skip", 8, 5), "skip needs as many channels as it gives"),
    (lambda: st.assembled(["dense"] * 4, 8, 5), "three stages of blocks; got 4 blocks"),
    (lambda: st.assembled([], 8, 5), "three stages of blocks; got 0 blocks"),
    (lambda: places(8, 0), "blocks must be at least 1; got 0"),
    (lambda: st.compound_scaling(float("nan")), "phi must be greater than -inf; got nan"),
    (lambda: st.compound_scaling(1, beta=0.9), "beta must be at least 1; got 0.9"),
    (lambda: st.compound_scaling(1).of(0, 8, 8), "blocks must be at least 1; got 0"),
    # search
    (lambda: st.SearchSpace(4, candidates=("dense", "mlp")), "candidates must be one of .*'mlp'"),
    (lambda: st.SearchSpace(4, candidates=("dense", "dense")), "candidates must differ"),
    (lambda: st.SearchSpace(4, candidates=()), "number of candidates must be at least 1; got 0"),
    (lambda: st.SearchSpace(4, candidates="dense"), "must be names of blocks; got 'dense'"),
    (lambda: st.SearchSpace(4, candidates=("skip",)),
     "every place must have a candidate; 8 to 16 channels with stride 2 can have none of skip"),
    (lambda: st.SearchSpace(4, size=8), "size must be a height and a width; got 8"),
    (lambda: st.SearchSpace(4, width=7, candidates=("shuffle",)), "can have none of shuffle"),
    (lambda: SPACE.network(["dense"]), "choices must name 3 blocks; got 1"),
    (lambda: SPACE.cost(["dense", "skip", "dense"]), "choice of place 1 must be one of .*'skip'"),
    (lambda: SPACE.check_budget(10), "budget must be at least [0-9]+ multiply-adds, .*; got 10"),
    (lambda: SPACE.check_budget(float("nan")), "budget must be greater than 0; got nan"),
    (lambda: SPACE.at_random(10, 1, np.random.default_rng(0)), "budget must be at least"),
    (lambda: SPACE.likeliest([[0.0] * 5] * 3, 10**6, 0), "count must be at least 1; got 0"),
    (lambda: st.gumbel_weights(torch.zeros(2, 3), 0), "temperature must be greater than 0; got 0"),
    (lambda: st.mac_penalty(torch.tensor(1.0), 0), "budget must be greater than 0; got 0"),
    (lambda: st.mac_penalty(torch.tensor(1.0), 1, "l1"), "penalty must be one of log, hinge"),
    (lambda: st.ChoiceSettings(cold=0), "cold must be greater than 0; got 0"),
    (lambda: st.ChoiceSettings(weight=-1), "weight must be at least 0; got -1"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_inputs_have_one_line(call, message):
    with pytest.raises(ValueError, match=rf"^[^\n]*{message}[^\n]*$"):
        call()


SEARCHES = (st.gradient_search, st.random_search)


@pytest.mark.parametrize("search", SEARCHES)
def test_bad_searches_have_one_line(search):
    images = torch.zeros(20, 1, 8, 8, dtype=torch.uint8)
    labels = torch.arange(20) % 4
    data = Dataset("blank", images, labels, images, labels, tuple("abcd"), flips=False)
    settings, pairs = TrainSettings(epochs=1, batch_size=4), [(torch.zeros(4, 1, 8, 8), labels[:4])]
    for arguments, message in (
        ({"budget": 10}, "budget must be at least"),
        ({"count": 0}, "count must be at least 1; got 0"),
        ({"space": st.SearchSpace(5, 1, (8, 8), width=4)}, "has 5 classes; the dataset has 4"),
        ({"space": st.SearchSpace(4, 3, (8, 8), width=4)}, "does not take images of shape"),
        ({"choosing": pairs}, "choosing must be None with a Dataset"),
        ({"data": pairs}, "choosing must be others"),
        (
            {"data": [(pairs[0][0], labels[:4] + 3)], "choosing": pairs},
            "labels must be between 0 and 3; got 3 to 6",
        ),
        ({"data": pairs, "choosing": data}, "choosing must be batches, as data are"),
        ({"data": pairs, "choosing": iter(pairs)}, "choosing must start anew"),
    ):
        given = {"space": SPACE, "data": data, "budget": 10**6, **arguments}
        with pytest.raises(ValueError, match=rf"^[^\n]*{message}[^\n]*$"):
            search(given.pop("space"), given.pop("data"), settings, seed=0, **given)


def test_batches_of_unknown_number_have_one_line():
    pairs = [(torch.zeros(4, 1, 8, 8), torch.arange(4))]
    with pytest.raises(ValueError, match=r"^a search needs the number of batches an epoch"):
        st.search_theta(
            SPACE, lambda: iter(pairs), pairs, TrainSettings(epochs=1), budget=10**6, seed=0
        )
