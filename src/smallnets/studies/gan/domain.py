"""What is translated: scenes, or pairs and sets of the reader's own."""

from dataclasses import dataclass, field, replace
from hashlib import sha256

from smallnets import checks
from smallnets.data.scenes import load_translation, scenes
from smallnets.data.translation import NPZ, Translation

LEAST_SIDE = 16  # pixels: two halvings, and what a padding of two can mirror
MULTIPLE = 4


@dataclass(frozen=True, eq=False)
class Domain:
    """The same kind of pictures, to be learned from in different ways.

    Attributes:
        name: as it was asked for.
        pairs: inputs and targets; None where a file holds none, see `learners.pairs_of`.
        loose: two sets that do not belong together, image by image.
        drawn: whether these are scenes, which can be drawn in further kinds.
        key: changes when any image does; domains of one key are equal.
    """

    name: str
    pairs: Translation | None
    loose: Translation
    drawn: bool = False
    key: str = field(init=False)

    def __post_init__(self) -> None:
        digest = sha256(self.name.encode())
        for data in (self.pairs, self.loose):
            if data is not None:
                digest.update(data.key.encode())
                for images in (data.a_test, data.b_test):
                    digest.update(images.contiguous().numpy())
        object.__setattr__(self, "key", digest.hexdigest()[:16])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Domain) and other.key == self.key

    def __hash__(self) -> int:
        return hash(self.key)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.loose.size

    def __repr__(self) -> str:
        return repr(self.loose if self.pairs is None else self.pairs)


def open_domain(
    name: str,
    *,
    train: int | None,
    test: int | None,
    size: int | None = None,
    paired: bool | None = None,
) -> Domain:
    """A domain by name.

    Args:
        name: "scenes", or "npz:FILE", see `smallnets.data.translation.translation_npz`.
        train, test: images of each set; None takes the usual number, or all of a file.
        size: pixels a side of scenes; None is 64. A file has its own.
        paired: whether image i of a file's A belongs to image i of its B; None is that they do.

    Raises:
        ValueError: another name, a size or `paired` where it cannot be chosen, sides that are no
            multiples of 4 or below 16, or fewer than 8 training images.
        FileNotFoundError: there is no such file.
    """
    if isinstance(name, str) and name.startswith(NPZ):
        if size is not None:
            raise ValueError(f"size must be None for a file, which has its own; got {size}")
        checks.one_of("paired", str(paired), ("None", "True", "False"))
        kind = "unpaired" if paired is False else "paired"
        return _of_file(name, load_translation(name, kind=kind, train=train, test=test))
    if paired is not None:
        raise ValueError(f"paired must be None for scenes, which come in all kinds; got {paired}")
    side = 64 if size is None else size
    checks.one_of("dataset", name, ("scenes", f"{NPZ}FILE"))
    checks.whole("size", side, LEAST_SIDE)
    _check_sides((side, side))
    counts = {"train": 1500 if train is None else train, "test": 300 if test is None else test}
    checks.whole("train", counts["train"], 8)
    pairs, loose = (scenes(kind, size=side, **counts) for kind in ("paired", "unpaired"))
    return Domain(name, pairs, loose, drawn=True)


def _of_file(name: str, data: Translation) -> Domain:
    _check_sides(data.size)
    checks.at_least(f"training images of each set in {name}", _fewest(data), 8)
    return Domain(name, data, torn(data)) if data.paired else Domain(name, None, data)


def _fewest(data: Translation) -> int:
    return min(len(data.a_train), len(data.b_train))


def _check_sides(size: tuple[int, int]) -> None:
    if min(size) < LEAST_SIDE or any(side % MULTIPLE for side in size):
        raise ValueError(
            f"height and width must be multiples of {MULTIPLE}, at least {LEAST_SIDE}; "
            f"got {size[0]} x {size[1]}"
        )


def torn(pairs: Translation) -> Translation:
    """Pairs torn apart: the inputs of the first half and the targets of the second, so that no
    input is learned from together with its own target. In the test part they still belong together.
    """
    half = len(pairs.a_train) // 2
    labels = pairs.labels_train
    return replace(
        pairs,
        name=f"{pairs.name}, torn",
        a_train=pairs.a_train[:half],
        b_train=pairs.b_train[half : 2 * half],
        labels_train=None if labels is None else labels[half : 2 * half],
        paired=False,
        aligned=True,
    )
