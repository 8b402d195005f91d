"""The networks of the study by name, and which of them every seed has."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from torch import nn

from smallnets import checks, gan
from smallnets.studies.gan.domain import Domain
from smallnets.studies.gan.learners import (
    DECOMPOSED,
    LOOSE,
    STUDENTS,
    Config,
    alone,
    cycle_teacher,
    decomposed,
    held_score,
    lesson,
    loose_student,
    scratch,
    student,
    train_supernet,
    tune,
)
from smallnets.studies.gan.plan import Settings, uniform
from smallnets.studies.gan.searching import search, search_full_pipeline, widest_uniform

CYCLE_TEACHER = "cycle teacher"
FURTHER = ("found, scratch", "uniform, scratch", "uniform, distilled", *STUDENTS, "full pipeline")
Make = Callable[[Domain, Settings, int, Path], nn.Module]


def sub_networks(settings: Settings) -> dict[str, float]:
    """Name -> share of ngf, of the uniform sub-networks of a supernet."""
    return {f"{share:g}": share for share in settings.shares}


def learned_alone(settings: Settings) -> dict[str, float]:
    """Name -> share of ngf, of networks that were trained from nothing at these widths."""
    return {f"scratch {share:g}": share for share in settings.scratch}


def core_names(settings: Settings) -> tuple[str, ...]:
    """The networks from pairs that every seed has."""
    return (
        "teacher", *DECOMPOSED, *learned_alone(settings), *sub_networks(settings),
        "found", "found, tuned", "compressed", "best random",
    )  # fmt: skip


def loose_names() -> tuple[str, ...]:
    """The networks without pairs."""
    return CYCLE_TEACHER, *LOOSE


def network(domain: Domain, settings: Settings, seed: int, name: str, cache_dir: Path) -> nn.Module:
    """A trained network of a name, in evaluation mode.

    Args:
        domain, settings, seed, cache_dir: see `learners.alone`.
        name: one of `core_names`, `loose_names` or `FURTHER`.

    Raises:
        ValueError: another name.
    """
    makers = _makers(settings)
    checks.one_of("name", name, makers)
    return makers[name](domain, settings, seed, cache_dir).eval()


def _makers(settings: Settings) -> dict[str, Make]:
    """Name -> what makes it."""
    makers: dict[str, Make] = {
        "teacher": lambda *here: alone(*here).network,
        "found": _found,
        "found, tuned": _tuned,
        "compressed": _compressed,
        "best random": _best_random,
        CYCLE_TEACHER: lambda *here: cycle_teacher(*here).network,
        "full pipeline": _full,
        "found, scratch": lambda *here: _mobile(scratch, best(*here), *here),
        "uniform, scratch": lambda *here: _mobile(scratch, widest_uniform(*here), *here),
        "uniform, distilled": lambda *here: _mobile(student, widest_uniform(*here), *here),
    }
    makers |= {name: partial(_named, decomposed, name) for name in DECOMPOSED}
    makers |= {name: partial(_named, loose_student, name) for name in LOOSE}
    for name, share in learned_alone(settings).items():
        makers[name] = partial(_mobile, scratch, uniform(settings, share))
    for name, share in sub_networks(settings).items():
        makers[name] = partial(_part, uniform(settings, share))
    narrow = uniform(settings, settings.student_share)
    for name, (features, inherited) in STUDENTS.items():
        learner = partial(student, features=features, inherited=inherited)
        makers[name] = partial(_mobile, learner, narrow)
    return makers


def best(domain: Domain, settings: Settings, seed: int, cache_dir: Path) -> Config:
    """What evolution found in the seed's supernet."""
    return search(domain, settings, seed, cache_dir).best


def _named(
    make: Callable[..., object],
    name: str,
    domain: Domain,
    settings: Settings,
    seed: int,
    cache_dir: Path,
) -> nn.Module:
    return _network(make(domain, settings, seed, name, cache_dir))


def _mobile(
    make: Callable[..., object],
    config: Config,
    domain: Domain,
    settings: Settings,
    seed: int,
    cache_dir: Path,
) -> nn.Module:
    return _network(make(domain, settings, seed, config, cache_dir))


def _network(trained: object) -> nn.Module:
    made = getattr(trained, "network", None)
    assert isinstance(made, nn.Module)
    return made


def _part(
    config: Config, domain: Domain, settings: Settings, seed: int, cache_dir: Path
) -> nn.Module:
    return gan.export(train_supernet(domain, settings, seed, cache_dir).network, config)


def _found(domain: Domain, settings: Settings, seed: int, cache_dir: Path) -> nn.Module:
    here = domain, settings, seed, cache_dir
    return gan.export(train_supernet(*here).network, best(*here), cache_dir=cache_dir)


def _tuned(domain: Domain, settings: Settings, seed: int, cache_dir: Path) -> nn.Module:
    config = best(domain, settings, seed, cache_dir)
    made = tune(domain, settings, seed, config, cache_dir)
    return gan.export(made, config, cache_dir=cache_dir)


def _best_random(domain: Domain, settings: Settings, seed: int, cache_dir: Path) -> nn.Module:
    config = search(domain, settings, seed, cache_dir, "random").best
    return _part(config, domain, settings, seed, cache_dir)


def _full(domain: Domain, settings: Settings, seed: int, cache_dir: Path) -> nn.Module:
    made, found = search_full_pipeline(domain, settings, seed, cache_dir)
    return gan.export(made.network, found.best, cache_dir=cache_dir)


def _compressed(domain: Domain, settings: Settings, seed: int, cache_dir: Path) -> nn.Module:
    """What is exported: the configuration that was found, as it is in the supernet or tuned,
    whichever has the smaller error on held-out images.
    """
    here = domain, settings, seed, cache_dir
    config = best(*here)
    held = lesson(domain, settings, cache_dir)
    supernets = train_supernet(*here).network, tune(domain, settings, seed, config, cache_dir)
    chosen = min(supernets, key=lambda one: held_score(one, held)(config))
    return gan.export(chosen, config, cache_dir=cache_dir)
