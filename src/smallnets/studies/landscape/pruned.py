"""The second family: fewer weights, fewer channels, or less of the network for an easy image."""

from functools import partial

import torch
from torch import Tensor, nn

from smallnets.data import Dataset
from smallnets.measure import evaluating
from smallnets.prune import sparse
from smallnets.prune import structured as channels
from smallnets.prune.sparse.schedules import steps_of
from smallnets.prune.structured.lasso import unit_norms
from smallnets.prune.structured.slimming import norm_scales
from smallnets.studies.landscape.making import PRUNED, Bench, Made, Remedy
from smallnets.studies.landscape.plan import Settings
from smallnets.studies.seeds import MOST
from smallnets.training import TrainSettings
from smallnets.training.settings import learning_rate

# What the table's representatives lose: of the weights; of a layer's channels, and of all.
AMOUNT, CUT, SLIMMED = 0.8, 0.5, 0.3
SLIM = 0.5  # how far slimming pulls, see `Settings.pull`
GATES, GATES_LR = 5.0, 5e-2  # strength of the penalty on gates; their rate, by Adam
EARLY = 0.5  # share of the training images that leave early


def gradually(bench: Bench, amount: float) -> Made:
    """The smallest weights of all layers go little by little while the others learn."""
    network = bench.dense()
    masked, _ = sparse.prune_gradually(
        network, amount=amount, scope="global", **bench.common(bench.settings.tuning)
    )
    return Made(masked.plain())


def in_rounds(bench: Bench, scope: str, rounds: int) -> Made:
    """The smallest weights go, and the others are trained on, once or in rounds."""
    found = sparse.prune_in_rounds(
        bench.dense(), amount=AMOUNT, scope=scope, rounds=rounds,
        **bench.common(bench.settings.short),
    )  # fmt: skip
    return Made(found[-1].network.plain())


def surgery(bench: Bench) -> Made:
    """Weights go, and may come back."""
    spliced, _ = sparse.prune_by_surgery(bench.dense(), **bench.common(bench.settings.short))
    return Made(spliced.plain())


def snip(bench: Bench) -> Made:
    """The connections of the trained network go to which the loss is least sensitive."""
    network = bench.dense()
    masks = sparse.snip_masks(network, bench.judged, AMOUNT)
    found = sparse.train_masked(network, masks, label="snip", **bench.common(bench.settings.short))
    return Made(found.network.plain())


def variational(bench: Bench) -> Made:
    """Weights go that noise drowns."""
    how, noisy = bench.settings.short, sparse.Variational(bench.dense())
    steps = steps_of(bench.dataset, how)
    bound = sparse.VariationalDropout(len(bench.dataset.y_train), warm_up=steps // 2)
    bench.fit(noisy, how, bound, label="variational")
    return Made(noisy.plain())


def ticket(bench: Bench, control: str = "") -> Made:
    """A network pruned at its start: the ticket that trainings from there show, or a control. The
    first of them is that of the dense network.

    Args:
        bench: of the seed.
        control: "drawn anew" has the ticket's masks and another start, "random masks" the ticket's
            start and as many weights a layer elsewhere; "" is the ticket.
    """
    settings, start = bench.settings, bench.start()
    common = bench.common(settings.training.with_epochs(settings.ticket_epochs))
    found: nn.Module = bench.dense()
    for number in range(1, settings.rounds + 1):
        amount = 1 - (1 - AMOUNT) ** (number / settings.rounds)
        masks = sparse.magnitude_masks(found, amount, "global")
        if number < settings.rounds or not control:
            found = sparse.train_masked(start, masks, label="ticket", **common).network
    if control == "drawn anew":
        start = sparse.reinitialised(start, bench.seed + MOST)
    elif control:
        masks = sparse.shuffled_masks(masks, torch.Generator().manual_seed(bench.seed))
    if control:
        found = sparse.train_masked(start, masks, label="control", **common).network
    assert isinstance(found, sparse.Masked)
    return Made(found.plain())


def fewer_channels(
    bench: Bench, cut: float, criterion: str = "magnitude L1", *, short: bool = False
) -> Made:
    """A smaller network without the least important channels of every layer, trained on."""
    network = channels.prune_channels(
        bench.dense(), bench.images[:8], cut, criterion, batches=bench.judged
    )
    return bench.tune(network, "fewer channels", short=short)


def travel(training: TrainSettings, dataset: Dataset) -> float:
    """How far a training moves a weight whose gradient is always 1, momentum included."""
    steps = steps_of(dataset, training)
    rates = [learning_rate(training, training.epochs * step / steps) for step in range(steps)]
    return sum(rates) / (1 - training.momentum)


def slimming(bench: Bench) -> Made:
    """Channels go whose BatchNorm scales a penalty has made small; a quarter of a layer stays."""
    how, example = bench.settings.short, bench.images[:8]
    grouped = channels.Grouped.of(bench.dense(), example)
    sizes = torch.cat([one.detach().abs() for one in norm_scales(grouped).values()])
    pull = SLIM * float(sizes.median()) / travel(how, bench.dataset)
    bench.fit(grouped, how, channels.Slimming(pull), label="slimming")
    least = min(group.size for group in grouped.groups.values()) // 4
    slim = channels.slimmed(grouped, SLIMMED, example, least=max(1, least))
    return bench.tune(slim, "slimmed", short=True)


def lasso(bench: Bench) -> Made:
    """Channels go that a proximal step has made zero; the others are trained on."""
    how, example = bench.settings.short, bench.images[:8]
    grouped = channels.Grouped.of(bench.dense(), example)
    with torch.no_grad():
        norms = [unit_norms(grouped.network, group) for group in grouped.groups.values()]
    reach = (1 - how.momentum) * travel(how, bench.dataset)  # the step itself has no momentum
    pull = bench.settings.pull * float(torch.cat(norms).median()) / reach
    channels.fit_lasso(grouped, lasso=channels.GroupLasso(pull, by_size=False), **bench.common(how))
    return bench.tune(channels.without_zero_units(grouped, example), "lasso", short=True)


def gates(bench: Bench) -> Made:
    """Channels go whose hard concrete gates close in a long training; the others are trained on."""
    example = bench.images[:8]
    network = channels.GatedChannels.of(bench.dense(), example, channels.HardConcrete)
    bench.fit(network, bench.slowly(GATES_LR), channels.L0(GATES), label="gates")
    return bench.tune(network.plain(example), "gated", short=True)


def scales(bench: Bench) -> Made:
    """Channels go whose learned scales fall into a dead zone; the others are trained on."""
    how, example = bench.settings.short, bench.images[:8]
    network = channels.GatedChannels.of(bench.dense(), example, channels.StructureScale)
    pull = bench.settings.pull / travel(how, bench.dataset)
    bench.fit(network, how, channels.ScaleDecay(pull), label="scales")
    return bench.tune(network.plain(example), "scaled channels", short=True)


def early_exit(bench: Bench) -> Made:
    """Images leave at the first exit that is sure; multiply-adds are the mean over test images.

    How sure it has to be is found on training images, of which half leave early: with a fixed
    number all images would stay in a network of short training, and nothing would be saved.
    """
    dense = bench.dense()
    names: tuple[str, ...] = dense.stage_names[:-1]  # type: ignore[assignment, index]
    network = channels.EarlyExit(dense, names, bench.images, seed=bench.seed)
    bench.fit(network, bench.settings.short, channels.AllExits(), label="exits")
    network.threshold = _sure_enough(network, bench.images)
    return Made(network, macs=average_macs_on_test(network, bench.dataset))


def _sure_enough(network: channels.EarlyExit, images: Tensor) -> float:
    """The probability that a share `EARLY` of the images reaches at an exit."""
    place = next(network.parameters()).device
    with evaluating(network), torch.no_grad():
        *exits, _ = network(images.to(place), everywhere=True)
    sure = torch.stack([logits.softmax(1).amax(1) for logits in exits]).amax(0)
    return float(sure.quantile(1 - EARLY))


def average_macs_on_test(network: channels.EarlyExit, dataset: Dataset) -> float:
    """Multiply-adds of a test image, on average."""
    images, labels = dataset.normalise(dataset.x_test), dataset.y_test
    batches = list(zip(images.split(100), labels.split(100), strict=True))
    return channels.exit_report(network, batches).average_macs


def pruning_remedies(settings: Settings) -> dict[str, Remedy]:
    """What is compared at several sizes: single weights, and whole channels."""
    found = {
        unstructured_name(one): Remedy(PRUNED, "gradual schedule", partial(gradually, amount=one))
        for one in settings.sparsities
    }
    return found | {
        structured_name(one): Remedy(
            PRUNED, "structured, filter norm", partial(fewer_channels, cut=one)
        )
        for one in settings.cuts
    }


def unstructured_name(amount: float) -> str:
    """What a network without a share of its weights is called."""
    return f"unstructured, {100 * amount:.0f} %"


def structured_name(cut: float) -> str:
    """What a network without a share of its channels is called."""
    return f"structured, {100 * cut:.0f} %"


def ticket_remedies(settings: Settings) -> dict[str, Remedy]:
    """The lottery ticket and its controls."""
    names = {"ticket": ""} | {f"ticket, {one}": one for one in settings.controls}
    return {
        name: Remedy(PRUNED, "lottery ticket", partial(ticket, control=control))
        for name, control in names.items()
    }


def further_remedies() -> dict[str, Remedy]:
    """What only the table of all families shows."""
    single, whole = "unstructured, criterion", "structured, criterion"
    return {
        "magnitude, layer by layer": Remedy(
            PRUNED, single, partial(in_rounds, scope="layer", rounds=1)
        ),
        "magnitude, global": Remedy(PRUNED, single, partial(in_rounds, scope="global", rounds=1)),
        "SNIP": Remedy(PRUNED, single, snip),
        "iterative": Remedy(
            PRUNED, "unstructured, schedule", partial(in_rounds, scope="global", rounds=3)
        ),
        "network surgery": Remedy(PRUNED, "unstructured, schedule", surgery),
        "BN scales (slimming)": Remedy(PRUNED, whole, slimming),
        "Taylor": Remedy(
            PRUNED, whole, partial(fewer_channels, cut=CUT, criterion="Taylor FO", short=True)
        ),
        "group lasso": Remedy(PRUNED, "structured, learned", lasso),
        "PSP": Remedy(PRUNED, "structured, learned", scales),
        "L0 gates": Remedy(PRUNED, "Bayesian", gates),
        "variational dropout": Remedy(PRUNED, "Bayesian", variational),
        "early exit": Remedy(PRUNED, "dynamic", early_exit),
    }
