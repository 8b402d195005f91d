"""One step: a classifier that knows some classes learns those of a task."""

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from smallnets import checks
from smallnets.batches import moved_to
from smallnets.data import Batches, Dataset
from smallnets.synthesize.replay.generation import (
    GeneratorResult,
    GeneratorSettings,
    train_generator,
)
from smallnets.synthesize.replay.heads import OpenClassifier, grow_head, head_name, head_of
from smallnets.synthesize.replay.importance import (
    Importance,
    added,
    fisher_importance,
    sensitivity_importance,
)
from smallnets.synthesize.replay.objective import (
    PUBLISHED,
    Dreaming,
    IncrementalSettings,
    Inheritance,
)
from smallnets.synthesize.replay.sources import (
    GeneratedImages,
    NoiseImages,
    ReplaySource,
    real_images,
    training_tensors,
)
from smallnets.synthesize.replay.supervision import (
    METHODS,
    Method,
    balance_weight,
    term_weights,
)
from smallnets.synthesize.replay.tasks import Task
from smallnets.training import check_network, fit, teaching

HEAD, TRAINING, GENERATOR, IMPORTANCE = range(4)  # what the random numbers of a step are for


@dataclass(frozen=True, eq=False)
class LearnedStep:
    """What a step left behind.

    Attributes:
        model: in evaluation mode, with a column for every class seen.
        history: of the training, one line an epoch, see `smallnets.training.fit`.
        generator: that was trained from the model before; None where none was.
        importance: of this model's weights to all tasks so far, where the method needs it.
        seconds: of this step, when it was computed.
    """

    model: nn.Module
    history: list[dict[str, float]]
    generator: GeneratorResult | None
    importance: Importance | None
    seconds: float


def learn_task(
    model: nn.Module,
    task: Task,
    method: str | Method = "mfgr",
    settings: IncrementalSettings = PUBLISHED,
    *,
    step: int,
    seed: int = 0,
    importance: Importance | None = None,
    earlier: Sequence[Task] = (),
    generator: GeneratorResult | None = None,
    head: str | None = None,
    cache_dir: Path | None = None,
) -> LearnedStep:
    """One step: a model that knows the classes before learns those of a task.

    Args:
        model: left as it is. In step 0 it has the task's classes and is simply trained.
        task: its training images, with `earlier` ones those of other tasks, are all that is read.
        method: a name in `METHODS`, or a row of your own.
        settings: how.
        step: i, from 0.
        seed: of everything random; every step and purpose has its own numbers from it.
        importance: of the model's weights, for "ewc" and "mas", from the step before.
        earlier: tasks 0 to i - 1, for methods that are not memory-free; others must not be given
            any.
        generator: made before from this model; by default it is trained here.
        head: of the classifier, see `head_name`.
        cache_dir: folder in which the trainings of generator and classifier are kept, each epoch
            meanwhile, see `smallnets.training.fit`. Variants share what they have in common.

    Raises:
        ValueError: an unknown method, earlier tasks for a memory-free method or none for another,
            a generator for another number of classes, columns that do not follow the model's
            classes, or as `train_generator` and `fit`.
    """
    began = time.perf_counter()
    ask = method_of(method)
    checks.whole("step", step, 0)
    name = head_name(model, head)
    n_old = 0 if step == 0 else head_of(model, name).out_features
    _check_step(model, task, ask, step, n_old, earlier, name)
    n_new = len(task.classes)
    glance = task.train.glance()  # type: ignore[union-attr]
    check_network("model", model, glance)
    data = _training_data(task, earlier if ask.all_data else (), n_old + n_new, settings)
    if step == 0:
        new = copy.deepcopy(model)
        history = fit(
            new, data, settings.first_training, seed=number(seed, step, TRAINING),
            cache_dir=cache_dir, label="step-0",
        )  # fmt: skip
        more = _importance(ask, new, task, settings, number(seed, step, IMPORTANCE), None)
        return LearnedStep(new, history, None, more, time.perf_counter() - began)

    old = copy.deepcopy(model).eval().requires_grad_(False)
    new = grow_head(model, n_new, seed=number(seed, step, HEAD), head=name).requires_grad_(True)
    if ask.replay == "generator" and generator is None:
        generator = train_generator(
            old, tuple(glance.shape[1:]), _generator_settings(ask, settings), n_old=n_old,
            seed=number(seed, step, GENERATOR), head=name, cache_dir=cache_dir,
        )  # fmt: skip
    if generator is not None and generator.n_old != n_old:
        raise ValueError(
            f"the generator must be one for the {n_old} old classes; got one for {generator.n_old}"
        )
    source = _source(ask, generator, earlier, settings)
    alpha = balance_weight(n_old, n_new, settings.alpha_rule, step)
    weights = settings.weights or term_weights(ask, alpha)
    trained: nn.Module = new
    objective: Inheritance | Dreaming
    if ask.dreaming:
        assert source is not None
        trained = OpenClassifier(new, name)
        opened = OpenClassifier(old, name).eval()
        objective = Dreaming(
            opened, head_of(new, name), n_old, n_new, source, settings.dreaming.mu,
            settings.replay_batch, settings.freeze_bn,
        )  # fmt: skip
    else:
        held: tuple[Tensor, ...] = ()
        strength = {"ewc": settings.ewc_strength, "mas": settings.mas_strength}.get(
            ask.penalty, 0.0
        )
        if ask.penalty != "none":
            if importance is None:
                raise ValueError(
                    "importance must be that of the model's weights for a method with a penalty; "
                    "got None"
                )
            held = tuple(importance[key] for key, _ in old.named_parameters())
        objective = Inheritance(
            ask, old, n_old, n_new, weights, settings.temperature, source, settings.replay_batch,
            settings.joint_pass, settings.freeze_bn, held, strength,
        )  # fmt: skip
    teachers = [old] if generator is None else [old, generator.generator]
    with teaching(teachers, settings.training.accelerator, torch.channels_last):
        history = fit(
            trained, data, settings.training, seed=number(seed, step, TRAINING),
            objective=objective, cache_dir=cache_dir, label=f"step-{step}",
        )  # fmt: skip
    more = _importance(ask, new, task, settings, number(seed, step, IMPORTANCE), importance)
    return LearnedStep(new, history, generator, more, time.perf_counter() - began)


def _check_step(
    model: nn.Module,
    task: Task,
    method: Method,
    step: int,
    n_old: int,
    earlier: Sequence[Task],
    head: str,
) -> None:
    expected = tuple(range(n_old, n_old + len(task.classes)))
    if task.classes != expected:
        raise ValueError(
            f"classes of the task of step {step} must be {list(expected)}, after those that the "
            f"model has; got {list(task.classes)}"
        )
    if step == 0 and head_of(model, head).out_features != len(task.classes):
        raise ValueError(
            f"the model must have the {len(task.classes)} classes of the first task; "
            f"got {head_of(model, head).out_features}"
        )
    if earlier and method.memory_free:
        raise ValueError("earlier tasks must not be given to a memory-free method; got some")
    if step > 0 and not method.memory_free and len(earlier) != step:
        raise ValueError(
            f"earlier must hold the {step} tasks before for a method that keeps images; "
            f"got {len(earlier)}"
        )


def _generator_settings(method: Method, settings: IncrementalSettings) -> GeneratorSettings:
    if not method.dreaming:
        return settings.generator
    own = settings.dreaming
    return replace(settings.generator, weights=own.weights, lr=own.generator_lr)


def _source(
    method: Method,
    generator: GeneratorResult | None,
    earlier: Sequence[Task],
    settings: IncrementalSettings,
) -> ReplaySource | None:
    if method.replay == "generator":
        assert generator is not None
        latent = getattr(generator.generator, "latent", settings.generator.latent)
        return GeneratedImages(generator.generator, latent, settings.replay_mode)
    if method.replay == "noise":
        return NoiseImages()
    if method.replay == "real":
        return real_images(earlier, settings.training.view)
    return None


def _training_data(
    task: Task, earlier: Sequence[Task], classes: int, settings: IncrementalSettings
) -> Dataset | Batches:
    """What a step trains on, without any test image: neither read, nor part of a kept name."""
    own = task.train
    if isinstance(own, Dataset):
        images, labels = own.x_train, own.y_train
        if earlier:
            parts = [training_tensors(one) for one in [*earlier, task]]
            images, labels = (torch.cat(side) for side in zip(*parts, strict=True))
        return Dataset(
            "task", images, labels, images[:1], labels[:1], tuple(map(str, range(classes))),
            own.flips, (own.mean, own.std),
        )  # fmt: skip
    assert isinstance(own, Batches)
    if not earlier:
        return own.of_classes(classes)
    parts = [training_tensors(one) for one in [*earlier, task]]
    joint = TensorDataset(*(torch.cat(side) for side in zip(*parts, strict=True)))
    size = min(settings.training.batch_size, len(joint))
    return Batches(DataLoader(joint, size, shuffle=True, drop_last=True), classes)


def _importance(
    method: Method,
    model: nn.Module,
    task: Task,
    settings: IncrementalSettings,
    seed: int,
    before: Importance | None,
) -> Importance | None:
    if method.penalty == "none":
        return None
    generator = torch.Generator().manual_seed(seed)
    images = training_tensors(task)[0]
    chosen = torch.randperm(len(images), generator=generator)[: settings.importance_images]
    images = images[chosen]
    if isinstance(task.train, Dataset):
        images = task.train.normalise(images)
    images = moved_to(model, images)
    if method.penalty == "ewc":
        more = fisher_importance(model, images, generator)
    else:
        more = sensitivity_importance(model, images)
    return added(before, more)


def number(seed: int, step: int, purpose: int) -> int:
    """A seed of its own for every step and purpose: a hash, as sums of small numbers meet."""
    checks.whole("seed", seed, 0)
    return int(np.random.SeedSequence((seed, step, purpose)).generate_state(1)[0])


def method_of(method: str | Method) -> Method:
    """A row of `METHODS` by its name, or a row of your own as it is.

    Raises:
        ValueError: no such name.
    """
    if isinstance(method, Method):
        return method
    return METHODS[checks.one_of("method", method, METHODS)]
