"""What exported files answer, and how long they take."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from smallnets.batches import Batches
from smallnets.checks import each, whole
from smallnets.deploy import onnx_runtime
from smallnets.deploy.files import input_shape
from smallnets.measure import Latency
from smallnets.storage import one_line


@dataclass(frozen=True)
class Judged:
    """How good the answers of a file are.

    Attributes:
        accuracy: share of right ones; None without labels.
        agreement: share of those that are the original's.
        examples: how many there were.
    """

    accuracy: float | None
    agreement: float
    examples: int


def times_of(
    files: Mapping[str, bytes],
    *,
    batches: Sequence[int] = (1, 32),
    threads: int = 1,
    rounds: int = 30,
) -> dict[str, dict[int, Latency]]:
    """Seconds a pass of several files, in turns: name -> batch -> time.

    Raises:
        ValueError: numbers below 1, or a file that does not take a batch of that size.
    """
    whole("threads", threads, 1)
    whole("rounds", rounds, 1)
    found: dict[str, dict[int, Latency]] = {name: {} for name in files}
    if not len(batches):
        return found
    each("batches", batches, whole, 1)
    sessions = {name: onnx_runtime.load(file, threads) for name, file in files.items()}
    shape = input_shape(next(iter(files.values())))
    for batch in batches:
        try:
            times = onnx_runtime.latencies(sessions, shape, batch=batch, rounds=rounds)
        except Exception as error:  # ONNX Runtime's own have no common ancestor
            raise ValueError(
                f"a file must take a batch of {batch}; it fails with {one_line(error)[:200]}"
            ) from None
        for name, time in times.items():
            found[name][int(batch)] = time
    return found


def judged(
    files: Mapping[str, bytes],
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    *,
    labelled: bool = True,
    threads: int = 1,
) -> tuple[dict[str, Judged], dict[str, str]]:
    """What files answer to examples, in one pass over them.

    Args:
        files: name -> exported file; the first is the original.
        batches: pairs (inputs, labels), read once; labels are not looked at unless `labelled`.
        labelled: whether there are labels.
        threads: of ONNX Runtime.

    Returns:
        Judgements by name; and why others have none.

    Raises:
        ValueError: no example, an image or a label that is none, or answers of the original that
            are not finite.
    """
    sessions = {name: onnx_runtime.load(file, threads) for name, file in files.items()}
    original = next(iter(sessions))
    right, same = dict.fromkeys(files, 0), dict.fromkeys(files, 0)
    refused: dict[str, str] = {}
    count = 0
    for inputs, labels in batches:
        check_images(inputs)
        wanted = None
        for name, session in sessions.items():
            if name in refused:
                continue
            answers = onnx_runtime.predict(session, inputs.contiguous())
            if not bool(answers.isfinite().all()):
                refused[name] = "it must say finite numbers of the images judged; it does not"
                continue
            said = answers.argmax(1)
            if wanted is None:
                wanted = said
                if labelled and int(labels.max()) >= answers.shape[1]:
                    raise ValueError(
                        f"labels must be between 0 and {answers.shape[1] - 1}; "
                        f"got {int(labels.max())}"
                    )
            same[name] += int((said == wanted).sum())
            right[name] += int((said == labels).sum())
        if original in refused:
            raise ValueError("the network must say finite numbers of the images; it does not")
        count += len(inputs)
    found = {
        name: Judged(right[name] / count if labelled else None, same[name] / count, count)
        for name in files
        if name not in refused
    }
    return found, refused


def check_images(inputs: torch.Tensor) -> None:
    """Raise ValueError unless all numbers are finite."""
    if not bool(inputs.isfinite().all()):
        raise ValueError("images must hold finite numbers; got some that are not")


def without_first(batches: Batches) -> Iterable[tuple[torch.Tensor, torch.Tensor]]:
    """All batches but the first.

    Raises:
        ValueError: there is no other.
    """
    seen = 0
    for pair in batches:
        if seen:
            yield pair
        seen += 1
    if seen < 2:
        raise ValueError(
            "without a train loader, the first batch calibrates and the others judge: the loader "
            "must give at least 2 batches; got 1"
        )
