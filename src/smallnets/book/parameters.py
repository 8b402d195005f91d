"""The parameters that every chapter has, checked before anything is trained. A run begins here."""

from dataclasses import dataclass
from pathlib import Path

from smallnets import checks
from smallnets.book.machine import METER
from smallnets.storage import cache_directory
from smallnets.training import DEVICES, PRECISIONS

SCALES = ("smoke", "small", "evidence", "paper")


@dataclass(frozen=True)
class Parameters:
    """Parameters of one run of a chapter.

    Attributes:
        dataset: a name that `smallnets.data.load` knows, such as "glyphs10" or "npz:FILE".
        scale: "smoke" runs every cell in seconds, "small" is what the stored outputs show,
            "evidence" is what verdicts come from, "paper" is the published architecture and
            schedule.
        seeds: how many repetitions; None is as many as the scale asks for.
        device: "auto", "cpu" or "cuda".
        precision: "auto", "32-true" or "bf16-mixed".
        output_dir: folder for the run's record.

    Raises:
        ValueError: a parameter is not allowed; the message names what was given and what is
            allowed.
    """

    dataset: str
    scale: str
    seeds: int | None
    device: str
    precision: str
    output_dir: str

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        checks.one_of("scale", self.scale, SCALES)
        if self.seeds is not None:
            checks.whole("seeds", self.seeds, 1)
        checks.one_of("device", self.device, DEVICES)
        checks.one_of("precision", self.precision, PRECISIONS)
        for name in ("dataset", "output_dir"):
            value = getattr(self, name)
            if not isinstance(value, str):
                raise ValueError(f"{name} must be text in quotes; got {value!r}")
        if not self.output_dir:
            raise ValueError("output_dir must name a folder; got an empty string")
        METER.start()

    @property
    def folder(self) -> Path:
        """The output folder as a path."""
        return Path(self.output_dir)

    @property
    def cache_dir(self) -> Path:
        """Where finished trainings are kept, for every chapter and run."""
        return cache_directory() / "trainings"
