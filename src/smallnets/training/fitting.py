"""Do networks fit the images, the classes and each other? Asked before any training."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from smallnets import checks, measure
from smallnets.batches import first_weights, moved_to
from smallnets.models.layout import volumes
from smallnets.training.joint import ModelOutputs, observe


def check_network(
    role: str,
    network: nn.Module,
    images: Tensor,
    classes: int | None = None,
    layers: Sequence[str] = (),
) -> ModelOutputs:
    """Push a few examples through a network in evaluation mode, and return what it said.

    Args:
        role: what the network is called in errors.
        network: left as it is.
        images: prepared inputs (n, ...), which go to where the network is.
        classes: how many the network should have; None is any number.
        layers: names of layers that it should have.

    Raises:
        ValueError: it does not take the images, has other classes or no such layer, or says
            something that is not a finite number; one line says what was given.
    """
    try:
        with measure.evaluating(network), torch.no_grad():
            seen = observe(network, moved_to(network, images), tuple(layers))
    except (AttributeError, IndexError, RuntimeError, TypeError) as error:
        raise ValueError(
            f"{role} does not take images of shape {tuple(images.shape[1:])}: "
            f"{str(error).splitlines()[0]}"
        ) from error
    logits = seen.logits
    if not isinstance(logits, Tensor):
        raise ValueError(
            f"{role} must say one tensor (images, classes); got {type(logits).__name__}: "
            "wrap it in a module that returns its logits"
        )
    if logits.dim() < 2 or logits.shape[0] != len(images):
        raise ValueError(
            f"{role} must say (images, classes) for {len(images)} images; "
            f"got the shape {tuple(logits.shape)}"
        )
    if classes is not None and logits.shape[-1] != classes:
        raise ValueError(f"{role} has {logits.shape[-1]} classes; the dataset has {classes}")
    if not logits.isfinite().all():
        raise ValueError(f"{role} must say finite numbers; got {logits[0].tolist()}")
    return seen


def check_networks(
    networks: Mapping[str, nn.Module], images: Tensor, classes: int | None = None
) -> int:
    """`check_network` of one or several, by role, and how many classes they have. Where nobody says
    how many there should be, all have those of the first.
    """
    for role, network in networks.items():
        classes = check_network(role, network, images, classes).logits.shape[-1]
    return checks.whole("number of classes", classes or 0, 1)


@contextmanager
def teaching(
    teachers: Iterable[nn.Module], device: str, layout: torch.memory_format | None = None
) -> Iterator[None]:
    """Teachers in evaluation mode on the device of a training, for as long as it lasts.

    Args:
        teachers: afterwards they are in the mode in which they were, submodule by submodule, and
            each, as a whole, on the device of its first weights.
        device: where their students are trained.
        layout: of their weights meanwhile, unless some have five dimensions; afterwards they are
            contiguous. None leaves both as they are.
    """
    with ExitStack() as stack:
        for teacher in teachers:
            stack.enter_context(measure.evaluating(teacher))
            weights = first_weights(teacher)
            home = "cpu" if weights is None else weights.device
            fast = layout if layout is not None and not volumes(teacher) else None
            back = None if fast is None else torch.contiguous_format
            teacher.to(device, memory_format=fast)
            stack.callback(teacher.to, home, memory_format=back)
        yield


def check_apart(student: nn.Module, teacher: nn.Module) -> None:
    """A teacher stays as it is, so it may not be made of its student's parameters; and it sees the
    same images.

    Raises:
        ValueError: it shares some, or has weights of another type.
    """
    mine = {id(parameter) for parameter in student.parameters()}
    if any(id(parameter) in mine for parameter in teacher.parameters()):
        raise ValueError("teachers must not share parameters with the student; got one that does")
    weights = first_weights(student), first_weights(teacher)
    kinds = [one.dtype for one in weights if one is not None]
    if len(set(kinds)) > 1:
        raise ValueError(
            f"student and teacher must have weights of one type; got {kinds[0]} and {kinds[1]}"
        )
