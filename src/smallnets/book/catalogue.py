"""The twelve chapters of the book, in reading order."""

from dataclasses import dataclass

from smallnets import checks


@dataclass(frozen=True)
class Chapter:
    """One chapter: its number, the name of its files, its title, its paper and its part.

    `paper` is the key of the paper in `book/references.bib`.
    """

    number: str
    slug: str
    title: str
    paper: str
    part: str

    @property
    def stem(self) -> str:
        """Name of the chapter's files without ending, such as `02_similarity_preserving`."""
        return f"{self.number}_{self.slug.replace('-', '_')}"

    @property
    def notebook(self) -> str:
        """Name of the chapter's notebook, such as `02_similarity_preserving.ipynb`."""
        return f"{self.stem}.ipynb"


CHAPTERS: tuple[Chapter, ...] = (
    Chapter(
        "01",
        "resource-efficient",
        "Resource-efficient neural networks for embedded systems",
        "roth2024resource",
        "The landscape",
    ),
    Chapter(
        "02",
        "similarity-preserving",
        "Similarity-preserving knowledge distillation",
        "tung2019similarity",
        "Distillation",
    ),
    Chapter(
        "03",
        "does-kd-work",
        "Does knowledge distillation really work?",
        "stanton2021does",
        "Distillation",
    ),
    Chapter(
        "04",
        "patient-teacher",
        "A good teacher is patient and consistent",
        "beyer2022knowledge",
        "Distillation",
    ),
    Chapter(
        "05",
        "taylor-pruning",
        "Importance estimation for pruning",
        "molchanov2019importance",
        "Structure",
    ),
    Chapter(
        "06",
        "lana",
        "Latency-aware network acceleration",
        "molchanov2022lana",
        "Structure",
    ),
    Chapter(
        "07",
        "gan-compression",
        "Compressing conditional generators",
        "li2020gan",
        "Structure",
    ),
    Chapter(
        "08",
        "vertical-layering",
        "Vertical layering of quantised networks",
        "wu2023vertical",
        "Precision",
    ),
    Chapter(
        "09",
        "genie",
        "Quantisation without data",
        "jeon2023genie",
        "Precision",
    ),
    Chapter(
        "10",
        "distribution-matching",
        "Dataset condensation with distribution matching",
        "zhao2023dataset",
        "Data",
    ),
    Chapter(
        "11",
        "single-image",
        "A thousand classes from a single image",
        "asano2023augmented",
        "Data",
    ),
    Chapter(
        "12",
        "memory-free-replay",
        "Memory-free generative replay",
        "xin2021memory",
        "Data",
    ),
)


def chapter(number: str) -> Chapter:
    """The chapter with a number such as "02" (or "2").

    Raises:
        ValueError: there is no such chapter.
    """
    numbers = {one.number: one for one in CHAPTERS}
    checks.one_of("chapter", number.zfill(2), numbers)
    return numbers[number.zfill(2)]
