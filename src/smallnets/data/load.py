"""One door to every data set: `load(name)`."""

from dataclasses import replace

from smallnets.checks import one_of
from smallnets.data import generated, sets
from smallnets.data.dataset import Dataset
from smallnets.data.files import npz_dataset

NPZ = "npz:"


def names() -> tuple[str, ...]:
    """What `load` accepts; "npz:FILE" stands for any file of your own."""
    return (*generated.GLYPHS, "digits", f"{NPZ}FILE", *sets.ARRAYS, *sets.PICTURES, *sets.FOLDERS)


def load(
    name: str,
    *,
    train: int | None = None,
    test: int | None = None,
    seed: int = 0,
    size: int | None = None,
    flips: bool | None = None,
) -> Dataset:
    """Load a data set by name.

    Args:
        name: one of `names()`; "npz:FILE" reads a file as `npz_dataset` describes.
        train, test: how many images of either part, or as many as there are; None takes the usual
            number (glyphs) or all. Glyphs are made in any number; other sets give their first
            images.
        seed: which glyphs are drawn; the other sets are the same for every seed.
        size: height and width in pixels of sets whose pictures come in many sizes (64 unless
            given): shorter side resized, middle cropped.
        flips: whether a mirrored image keeps its label. None takes the answer that fits the set,
            which for a file is False: pass True for natural photographs of your own.

    Raises:
        ValueError: if the name is unknown, a number is out of range or a file has wrong content.
        FileNotFoundError: if a file or folder is not there; the message says what to put where.
        ConnectionError: if a set has to be downloaded and cannot be.
    """
    if not isinstance(name, str) or not name.startswith(NPZ):
        one_of("dataset", name, names())
    if flips not in (True, False, None):
        raise ValueError(f"flips must be True, False or None; got {flips!r}")
    if size is not None and name not in sets.RESIZED:
        raise ValueError(f"size can be given for {', '.join(sets.RESIZED)}; got it for {name!r}")

    if name in generated.GLYPHS:
        data = generated.glyphs(name, train, test, seed)
    elif name in sets.RESIZED:
        data = sets.picture_set(name, size, train, test)
    elif name in sets.ARRAYS:
        data = sets.array_set(name).take(train, test)
    elif name == "digits":
        data = generated.digits().take(train, test)
    else:
        data = npz_dataset(name.removeprefix(NPZ)).take(train, test)
    return data if flips is None else replace(data, flips=flips)
