"""Structural efficiency: weights that are fewer because of how they are arranged.

The third family of remedies in Roth et al., Resource-Efficient Neural Networks for Embedded Systems
(JMLR 2024, arXiv:2001.03048), with a representative of every sub-family.

- `to_low_rank`, `to_tucker2`, `to_cp`, `to_separable`, `to_tensor_train`, `to_circulant`,
  `to_hashed`, `to_codebook`: a copy of any network with such layers where they are worth it;
  `structured`, `relative_errors`, `to_dense`: which, how far away, and back again.
- `LowRankLinear`, `LowRankConv2d`, `BasisConv2d`, `Tucker2Conv2d`, `CPConv2d`, `SeparableConv2d`,
  `TTLinear`, `CirculantLinear`: special matrices, each with `from_linear` or `from_conv`, `cost`
  and `dense`. `RankRule`: how ranks are found.
- `HashedLinear`, `HashedConv2d`, `CodebookLinear`, `CodebookConv2d`: weights that are shared.
- `low_rank_factors`, `tucker2`, `cp`, `tt_cores`, `nearest_circulant`, `k_means`, ...: the
  decompositions themselves, on tensors.
- `stored_bits`, `multiply_adds`: what a network with them costs. `huffman_bits`: what a Huffman
  code saves; `packed_state`, `load_packed`: a file with indices of few bits.
- `BLOCKS`, `make_block`, `block_cost`: hand-designed blocks and their closed-form counts;
  `small_by_design`: whole networks of one; `compound_scaling`: larger ones.
- `SearchSpace`, `gradient_search`, `random_search`: a tiny architecture search and its baseline.

Distillation, which the paper counts here too, is `smallnets.distill`.
"""

from smallnets.packing import pack_codes, unpack_codes
from smallnets.structure.blocks import (
    BLOCKS,
    ChannelShuffle,
    Fire,
    ShuffleUnit,
    block_cost,
    channel_shuffle,
    dense_block,
    excited_block,
    grouped_block,
    inverted_block,
    make_block,
    separable_block,
    skip_block,
)
from smallnets.structure.circulant import (
    CirculantLinear,
    circulant_matrix,
    circulant_product,
    fft_macs,
    nearest_circulant,
)
from smallnets.structure.codebook import (
    STARTS,
    CodebookConv2d,
    CodebookLinear,
    codebook_bits,
    huffman_bits,
    huffman_lengths,
    k_means,
    start_centroids,
)
from smallnets.structure.convert import (
    RESHAPES,
    relative_errors,
    structured,
    to_circulant,
    to_codebook,
    to_cp,
    to_dense,
    to_hashed,
    to_low_rank,
    to_separable,
    to_tensor_train,
    to_tucker2,
)
from smallnets.structure.costs import multiply_adds, stored_bits
from smallnets.structure.cp import CP, CPConv2d, cp
from smallnets.structure.hashed import HashedConv2d, HashedLinear, hash_positions
from smallnets.structure.layers import Cost, dense_cost
from smallnets.structure.low_rank import (
    BasisConv2d,
    LowRankConv2d,
    LowRankLinear,
    low_rank_factors,
)
from smallnets.structure.networks import Scaling, assembled, compound_scaling, small_by_design
from smallnets.structure.packing import load_packed, packed_state
from smallnets.structure.ranks import RankRule, energy_rank, share_rank, truncation_error
from smallnets.structure.search import (
    PENALTIES,
    ChoiceSettings,
    Outcome,
    Supernet,
    Trained,
    expected_macs,
    gradient_search,
    gumbel_weights,
    mac_penalty,
    random_search,
    search_theta,
)
from smallnets.structure.separable import SeparableConv2d, separable_kernel
from smallnets.structure.space import CANDIDATES, SearchSpace
from smallnets.structure.tensor_train import (
    TTLinear,
    balanced_modes,
    tt_cores,
    tt_matrix,
    tt_ranks,
)
from smallnets.structure.tucker import Tucker2, Tucker2Conv2d, tucker2

__all__ = [
    "BLOCKS",
    "CANDIDATES",
    "CP",
    "PENALTIES",
    "RESHAPES",
    "STARTS",
    "BasisConv2d",
    "CPConv2d",
    "ChannelShuffle",
    "ChoiceSettings",
    "CirculantLinear",
    "CodebookConv2d",
    "CodebookLinear",
    "Cost",
    "Fire",
    "HashedConv2d",
    "HashedLinear",
    "LowRankConv2d",
    "LowRankLinear",
    "Outcome",
    "RankRule",
    "Scaling",
    "SearchSpace",
    "SeparableConv2d",
    "ShuffleUnit",
    "Supernet",
    "TTLinear",
    "Trained",
    "Tucker2",
    "Tucker2Conv2d",
    "assembled",
    "balanced_modes",
    "block_cost",
    "channel_shuffle",
    "circulant_matrix",
    "circulant_product",
    "codebook_bits",
    "compound_scaling",
    "cp",
    "dense_block",
    "dense_cost",
    "energy_rank",
    "excited_block",
    "expected_macs",
    "fft_macs",
    "gradient_search",
    "grouped_block",
    "gumbel_weights",
    "hash_positions",
    "huffman_bits",
    "huffman_lengths",
    "inverted_block",
    "k_means",
    "load_packed",
    "low_rank_factors",
    "mac_penalty",
    "make_block",
    "multiply_adds",
    "nearest_circulant",
    "pack_codes",
    "packed_state",
    "random_search",
    "relative_errors",
    "search_theta",
    "separable_block",
    "separable_kernel",
    "share_rank",
    "skip_block",
    "small_by_design",
    "start_centroids",
    "stored_bits",
    "structured",
    "to_circulant",
    "to_codebook",
    "to_cp",
    "to_dense",
    "to_hashed",
    "to_low_rank",
    "to_separable",
    "to_tensor_train",
    "to_tucker2",
    "truncation_error",
    "tt_cores",
    "tt_matrix",
    "tt_ranks",
    "tucker2",
    "unpack_codes",
]
