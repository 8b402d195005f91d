"""Finished steps of a sequence, kept on disk: a learner without a memory has nothing else."""

import copy
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from smallnets.storage import atomic_path, one_line
from smallnets.synthesize.replay.evaluation import StepAccuracies
from smallnets.synthesize.replay.generation import GeneratorResult
from smallnets.synthesize.replay.generators import ReplayGenerator, check_shape
from smallnets.synthesize.replay.heads import grow_head
from smallnets.synthesize.replay.objective import IncrementalSettings
from smallnets.synthesize.replay.steps import LearnedStep
from smallnets.synthesize.replay.supervision import Method
from smallnets.training.checkpoint import weights_digest
from smallnets.training.naming import name_of

Kept = tuple[LearnedStep, StepAccuracies]


@dataclass(frozen=True, eq=False)
class Progress:
    """The files of one sequence, one a step.

    Attributes:
        folder: None keeps nothing.
        start: the model before step 0.
        settings: of the sequence.
        name: of the files' beginning; it changes with start, method, settings and seed.
        head: of the model, see `head_name`.
    """

    folder: Path | None
    start: nn.Module
    settings: IncrementalSettings
    name: str
    head: str | None

    @classmethod
    def of(
        cls,
        folder: Path | None,
        start: nn.Module,
        method: Method,
        settings: IncrementalSettings,
        seed: int,
        head: str | None,
    ) -> "Progress":
        """The files of a sequence in a folder."""
        name = ""
        if folder is not None:
            name = name_of(start=start, method=method, settings=settings, seed=seed, head=head)
        return cls(folder, start, settings, name, head)

    def file(self, sizes: Sequence[int]) -> Path | None:
        """Of the step that has brought classes to the last of `sizes`."""
        if self.folder is None:
            return None
        groups = "-".join(map(str, sizes))
        return self.folder / f"{self.name}-{groups}.safetensors"

    def save(self, sizes: Sequence[int], step: LearnedStep, accuracies: StepAccuracies) -> None:
        """Write a finished step, atomically."""
        path = self.file(sizes)
        if path is None:
            return
        tensors = {f"model/{key}": one for key, one in step.model.state_dict().items()}
        tensors |= {f"importance/{key}": one for key, one in (step.importance or {}).items()}
        for key in ("agnostic", "aware", "among_old", "confusion"):
            tensors[f"accuracy/{key}"] = getattr(accuracies, key)
        said: dict[str, object] = {"history": step.history, "seconds": step.seconds}
        if step.generator is not None:
            made = step.generator
            tensors |= {f"generator/{key}": one for key, one in made.generator.state_dict().items()}
            tensors["made/class_histogram"] = made.class_histogram
            tensors["made/mean_probabilities"] = made.mean_probabilities
            said["generator"] = {
                key: getattr(made, key)
                for key in ("history", "n_old", "confidence", "spread", "bn_distance")
            }
            assert isinstance(made.generator, ReplayGenerator)
            said["image_shape"] = made.generator.image_shape
        tensors = {key: one.detach().cpu().contiguous().clone() for key, one in tensors.items()}
        header = {"said": json.dumps(said), "digest": weights_digest(tensors)}
        with atomic_path(path) as temporary:
            save_file(tensors, temporary, metadata=header)

    def load(self, sizes: Sequence[int]) -> Kept | None:
        """A kept step, or None if there is none that can be trusted."""
        path = self.file(sizes)
        if path is None or not path.exists():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                header = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            if header["digest"] != weights_digest(tensors):
                raise ValueError("its digest differs")
            return self._made_of(json.loads(header["said"]), tensors, sizes)
        except (SafetensorError, KeyError, ValueError, RuntimeError, OSError) as error:
            warnings.warn(
                f"{path.name} cannot be read ({one_line(error)}): learning the step again",
                stacklevel=3,
            )
            return None

    def _made_of(
        self, said: dict[str, Any], tensors: dict[str, Tensor], sizes: Sequence[int]
    ) -> Kept:
        def under(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        more = sum(sizes[1:])
        model = copy.deepcopy(self.start)
        model = grow_head(model, more, head=self.head) if more else model
        model.load_state_dict(under("model/"))
        generator = None
        if "generator" in said:
            network = self.settings.generator.network(check_shape(said["image_shape"]), 0)
            network.load_state_dict(under("generator/"))
            generator = GeneratorResult(generator=network, **under("made/"), **said["generator"])
        step = LearnedStep(
            model.eval(), said["history"], generator, under("importance/") or None, said["seconds"]
        )
        accuracies = StepAccuracies(sizes=tuple(sizes), **under("accuracy/"))
        return step, accuracies
