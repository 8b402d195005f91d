"""The third family: weights that are fewer because of how they are arranged."""

from functools import partial

from torch import nn

from smallnets import structure
from smallnets.studies.landscape.making import STRUCTURAL, Bench, Made, Remedy
from smallnets.studies.landscape.plan import WIDTH, Settings
from smallnets.training import seeded

DESIGNS = {
    "dense": "plain blocks",
    "separable": "depthwise separable",
    "inverted2": "inverted residual, expansion 2",
    "inverted": "inverted residual, expansion 4",
    "fire": "fire",
    "shuffle": "shuffle unit",
    "grouped": "grouped and shuffled",
    "excited": "squeeze and excite",
}
HASHED, CENTROIDS, RANK = 0.25, 16, 2  # share of values, values of a code book, rank of a train
SPACE = ("dense", "separable", "inverted2", "skip")  # what the tiny search chooses from


def low_rank(bench: Bench, cost: float) -> Made:
    """Layers as products of two, a share of weights and multiply-adds at most, trained on."""
    network = structure.to_low_rank(bench.dense(), cost=cost, skip=("first", "last"))
    return bench.tune(network, "low rank")


def decomposed(bench: Bench, kind: str) -> Made:
    """Layers between the first and the last as another decomposition, trained on."""
    dense, ends = bench.dense(), ("first", "last")
    if kind == "Tucker-2":
        network = structure.to_tucker2(dense, cost=0.5, skip=ends)
    elif kind == "CP":
        network = structure.to_cp(dense, cost=0.5, sweeps=10, skip=ends)
    else:
        network = structure.to_separable(dense, rank=2, skip=ends)
    return bench.tune(network, kind, short=True)


def special_classifier(bench: Bench, kind: str) -> Made:
    """The classifier as a tensor train or of circulant blocks, trained on with all layers."""
    dense, layers = bench.dense(), ["classifier"]
    if kind == "tensor train":
        network = structure.to_tensor_train(dense, rank=RANK, count=2, layers=layers)
    else:
        network = structure.to_circulant(dense, layers=layers)
    return bench.tune(network, kind, short=True)


def shared(bench: Bench, kind: str) -> Made:
    """Weights between the first and the last layer that share their values."""
    dense, ends = bench.dense(), ("first", "last")
    if kind == "hashed":
        network = structure.to_hashed(dense, share=HASHED, seed=bench.seed, skip=ends)
    else:
        network = structure.to_codebook(dense, k=CENTROIDS, skip=ends)
    return bench.tune(network, kind, short=True)


def width_of(network: str) -> int:
    """Channels of the first stage of a network, by its name: at least 4, and 16 times the number in
    the name of a wide residual network.
    """
    found = WIDTH.fullmatch(network)
    width = int(found[2]) if found else 8
    return max(4, 16 * width if network.startswith("wrn-") else width)


def designed(bench: Bench, block: str, *, short: bool = False) -> Made:
    """A network of one hand-designed block, as wide as the dense one, trained from its start."""
    settings, data = bench.settings, bench.dataset
    width = width_of(settings.network)
    with seeded(bench.seed):
        network: nn.Module = structure.small_by_design(
            block, width + width % 2, data.num_classes, data.channels
        )
    if short:
        return bench.anew(network, "design")
    return Made(bench.fit(network, settings.training, label="design"))


def searched(bench: Bench, how: str) -> Made:
    """The architecture that a tiny search finds at half the multiply-adds of its largest one, or
    the best of as many random ones; trained from its start. A search trains, if only for an epoch.
    """
    width = width_of(bench.settings.network)
    space = structure.SearchSpace.of(
        bench.dataset, width=width + width % 2, blocks=1, candidates=SPACE
    )
    budget = (space.fixed_macs + sum(map(max, space.macs))) // 2
    search = structure.gradient_search if how == "gradients" else structure.random_search
    epochs = bench.settings.anew_epochs
    training = bench.settings.training.with_epochs(max(1, epochs))
    found = search(
        space, bench.dataset, training, budget=budget, seed=bench.seed,
        cache_dir=bench.cache_dir,
    )  # fmt: skip
    return Made(found.best.network.eval(), trained=epochs > 0)


def scaled(bench: Bench) -> Made:
    """The network of depthwise separable blocks, grown by one step of compound scaling."""
    data, width = bench.dataset, width_of(bench.settings.network)
    blocks, wide, _ = structure.compound_scaling(1).of(2, width, data.size[0], multiple=2)
    with seeded(bench.seed):
        network: nn.Module = structure.small_by_design(
            "separable", wide, data.num_classes, data.channels, blocks=blocks
        )
    return bench.anew(network, "scaled")


def trade_off_remedies(settings: Settings) -> dict[str, Remedy]:
    """What is compared with quantised and pruned networks."""
    found = {
        "low rank": Remedy(
            STRUCTURAL, "special matrices", partial(low_rank, cost=settings.rank_cost)
        )
    }
    return found | {
        DESIGNS[one]: Remedy(STRUCTURAL, "manual design", partial(designed, block=one))
        for one in settings.designs
    }


def further_remedies(settings: Settings) -> dict[str, Remedy]:
    """What only the table of all families shows."""
    matrices = "special matrices"
    found = {
        "hashed": Remedy(STRUCTURAL, "weight sharing", partial(shared, kind="hashed")),
        "code book": Remedy(STRUCTURAL, "weight sharing", partial(shared, kind="code book")),
        **{
            kind: Remedy(STRUCTURAL, matrices, partial(decomposed, kind=kind))
            for kind in ("Tucker-2", "CP", "separable from dense")
        },
        **{
            kind: Remedy(STRUCTURAL, matrices, partial(special_classifier, kind=kind))
            for kind in ("tensor train", "circulant")
        },
    }
    found |= {
        name: Remedy(STRUCTURAL, "manual design", partial(designed, block=one, short=True))
        for one, name in DESIGNS.items()
        if one not in (*settings.designs, "dense")
    }
    return found | {
        "searched by gradients": Remedy(
            STRUCTURAL, "architecture search", partial(searched, how="gradients")
        ),
        "searched at random": Remedy(
            STRUCTURAL, "architecture search", partial(searched, how="random")
        ),
        "separable, scaled up": Remedy(STRUCTURAL, "architecture search", scaled),
    }
