"""Spaces of configurations: a width for every layer, each from a list of its own.

A configuration is a tuple of whole numbers; files and tables write it as 16_16_32_16_32_32_16_16.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from smallnets import checks

Config = tuple[int, ...]
BIASES = ("uniform", "arithmetic", "geometric")
LEAST_RATIO = 1.0001  # nearer to one the published code draws uniformly


def encode(config: Sequence[int]) -> str:
    """(16, 16, 32) -> "16_16_32"."""
    return "_".join(str(width) for width in config)


def decode(text: str) -> Config:
    """A configuration from its text: "16_16_32" -> (16, 16, 32).

    Raises:
        ValueError: anything else than whole numbers above 0 between underscores.
    """
    parts = text.split("_") if isinstance(text, str) else []
    if not parts or not all(part.isascii() and part.isdigit() and int(part) for part in parts):
        raise ValueError(
            f"a configuration must be whole numbers above 0, as 16_16_32; got {text!r}"
        )
    return tuple(int(part) for part in parts)


def as_config(config: Sequence[int]) -> Config:
    """A configuration as a tuple.

    Raises:
        ValueError: a text (see `decode`), or anything else that is no sequence.
    """
    if isinstance(config, str) or not isinstance(config, Iterable):
        raise ValueError(f"a configuration must be a sequence of whole numbers; got {config!r}")
    return tuple(config)


def check_config(config: Sequence[int], full: Sequence[int]) -> Config:
    """A configuration as a tuple, if it has as many widths as `full`, each from 1 to that one.

    Raises:
        ValueError: another length, no whole numbers, or a width that does not fit.
    """
    config = as_config(config)
    if len(config) != len(full):
        raise ValueError(f"a configuration must have {len(full)} widths; got {len(config)}")
    for place, (width, most) in enumerate(zip(config, full, strict=True)):
        checks.whole(f"width {place} of the configuration", width, 1)
        if width > most:
            raise ValueError(
                f"width {place} of the configuration must be at most {most}; got {width}"
            )
    return tuple(int(width) for width in config)


@dataclass(frozen=True)
class ConfigSpace:
    """All configurations that take each width from its list.

    Attributes:
        widths: for every layer the widths to choose from, as the published lists in descending
            order.

    Raises:
        ValueError: no list, an empty one, widths that are no whole numbers above 0, or one twice.
    """

    widths: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        if not len(self.widths):
            raise ValueError("widths must hold a list for every layer; got none")
        for place, choices in enumerate(self.widths):
            name = f"widths of layer {place}"
            checks.each(name, tuple(choices), checks.whole, 1)
            if len(set(choices)) < len(choices):
                raise ValueError(f"{name} must differ; got {tuple(choices)}")
        plain = tuple(tuple(int(width) for width in choices) for choices in self.widths)
        object.__setattr__(self, "widths", plain)

    @property
    def size(self) -> int:
        """How many configurations there are (len() cannot say more than 2^63 - 1)."""
        return math.prod(len(choices) for choices in self.widths)

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[Config]:
        """Every configuration, the last width changing fastest."""
        return itertools.product(*self.widths)

    def __contains__(self, config: object) -> bool:
        return (
            isinstance(config, Sequence)
            and len(config) == len(self.widths)
            and all(width in choices for width, choices in zip(config, self.widths, strict=True))
        )

    def smallest(self) -> Config:
        """The narrowest of every list."""
        return tuple(map(min, self.widths))

    def largest(self) -> Config:
        """The widest of every list."""
        return tuple(map(max, self.widths))

    def check(self, config: Sequence[int]) -> Config:
        """A configuration of this space, as a tuple.

        Raises:
            ValueError: a width that is not in its list, or another length.
        """
        config = check_config(config, self.largest())
        for place, (width, choices) in enumerate(zip(config, self.widths, strict=True)):
            if width not in choices:
                raise ValueError(
                    f"width {place} of the configuration must be one of "
                    f"{', '.join(map(str, choices))}; got {width}"
                )
        return config

    def probabilities(self, bias: str = "uniform", ratio: float = 1.0) -> list[list[float]]:
        """Probabilities with which a first generation draws each width of each list, which has to
        be in descending order: the later, the likelier.

            arithmetic   p_i ~ (L - 1) / (ratio - 1) + i       the last is `ratio` times the first
            geometric    p_i ~ ratio^i

        Args:
            bias: "uniform", "arithmetic" or "geometric".
            ratio: at least 1; up to 1.0001 draws are uniform.

        Raises:
            ValueError: an unknown bias, or a ratio below 1.
        """
        checks.one_of("bias", bias, BIASES)
        checks.at_least("ratio", ratio, 1)
        found = []
        for choices in self.widths:
            length = len(choices)
            if bias == "uniform" or ratio <= LEAST_RATIO:
                weights = [1.0] * length
            elif bias == "arithmetic":
                weights = [(length - 1) / (ratio - 1) + i for i in range(length)]
            else:
                weights = [float(ratio) ** i for i in range(length)]
            # a list of one width has no first and last to weigh
            total = sum(weights)
            found.append([w / total for w in weights] if total else [1.0])
        return found

    def sample(
        self, generator: torch.Generator, probabilities: Sequence[Sequence[float]] | None = None
    ) -> Config:
        """One configuration, every width drawn by itself.

        Args:
            generator: of random numbers.
            probabilities: for every layer and width, see `probabilities`; by default equal.

        Raises:
            ValueError: probabilities of another shape.
        """
        if probabilities is None:
            uniform = torch.rand(len(self.widths), generator=generator, dtype=torch.float64)
            return tuple(
                choices[int(share * len(choices))]
                for share, choices in zip(uniform.tolist(), self.widths, strict=True)
            )
        if list(map(len, probabilities)) != list(map(len, self.widths)):
            raise ValueError(
                f"probabilities must be lists of {', '.join(str(len(c)) for c in self.widths)}; "
                f"got {', '.join(str(len(p)) for p in probabilities)}"
            )
        return tuple(
            choices[int(torch.multinomial(torch.tensor(p), 1, generator=generator))]
            for p, choices in zip(probabilities, self.widths, strict=True)
        )
