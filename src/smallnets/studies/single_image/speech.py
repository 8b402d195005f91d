"""Spoken words: a teacher that knows them, and students that hear one long clip of other words.

Three kinds of recordings. "synthetic" is the words of a made-up language, by a few lines of code:
no speech, but everybody has it. "spoken" is eSpeak NG's English digits, and a fable without digits.
"npz:FILE" is recordings of your own; unless there is a clip of your own as well, half of the words
are what is to be recognised, and the recordings of all others are the clip.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from smallnets import checks
from smallnets.data import (
    Augmentation,
    Dataset,
    Recordings,
    npz_clip,
    npz_recordings,
    spoken_clip,
    spoken_recordings,
    synthetic_clip,
    synthetic_recordings,
)
from smallnets.distill.single_image import (
    NO_VIEW,
    ExcerptGenerator,
    ExcerptSettings,
    Imitation,
    Spectrogram,
    fresh_batches,
    pool_batches,
    spectrogram_dataset,
)
from smallnets.studies.networks import build_network, evaluate_accuracy
from smallnets.studies.seeds import teacher_seed
from smallnets.studies.single_image.plan import Settings
from smallnets.studies.single_image.students import SPEECH, Trained, imitate
from smallnets.studies.watching import train_watched

KINDS = ("synthetic", "spoken", "npz:FILE")
HEARD = Imitation(temperature=2.0, mixing="none", view=NO_VIEW)
# Words stand in silence, and so must excerpts: neither noise nor a second voice fills the gaps.
EXCERPTS = ExcerptSettings(background=0.003, mixing_probability=0.0)
CLIP, HISS, OWN = "clip of other words", "noise", "training words"


@dataclass(frozen=True, eq=False)
class Speech:
    """What is to be recognised, and what a student hears instead.

    Attributes:
        recordings: of words, to train a teacher on and to test on.
        clip: float32 (samples,), of other words.
        others: the words of the clip, where they are known.
        spoken: whether words of a language are spoken in both, by people or by eSpeak NG; tones
            are no speech.
    """

    recordings: Recordings
    clip: Tensor
    others: tuple[str, ...]
    spoken: bool

    @property
    def spectrogram(self) -> Spectrogram:
        """Frames of 25 ms, one in 20 ms, and 24 bands: small, for networks as small as ours."""
        rate = self.recordings.rate
        window = round(0.025 * rate)
        fft = max(256, 2 ** (window - 1).bit_length())
        return Spectrogram(rate, window, round(0.02 * rate), fft, bands=24, highest=0.475 * rate)

    @property
    def dataset(self) -> Dataset:
        """Spectrograms of the words."""
        return spectrogram_dataset(self.recordings, self.spectrogram)


def open_speech(kind: str, settings: Settings, clip: str | None = None) -> Speech:
    """Recordings and clip by name.

    Args:
        kind: "synthetic", "spoken" or "npz:FILE", see `npz_recordings`.
        settings: how many recordings, and how long a clip.
        clip: "npz:FILE" with one long clip of your own, see `npz_clip`.

    Raises:
        ModuleNotFoundError: spoken words without eSpeak NG; the line says how to get it.
        FileNotFoundError: there is no such file.
        ValueError: an unknown kind, a file that is none, words that cannot be divided, or a clip of
            another rate.
    """
    train, test = settings.recordings
    if kind == "synthetic":
        made = synthetic_recordings(train, test)
        speech = Speech(made, synthetic_clip(settings.seconds), (), spoken=False)
    elif kind == "spoken":
        made = spoken_recordings(train, test)
        speech = Speech(made, spoken_clip(), (), spoken=True)
    elif isinstance(kind, str) and kind.startswith("npz:"):
        speech = divided(
            npz_recordings(kind.removeprefix("npz:")), settings, whole=clip is not None
        )
    else:
        raise ValueError(f"speech must be one of {', '.join(KINDS)}; got {kind!r}")
    if clip is None:
        return speech
    wave, rate = npz_clip(clip.removeprefix("npz:"))
    if rate != speech.recordings.rate:
        raise ValueError(
            f"the clip must have the recordings' {speech.recordings.rate} samples a second; "
            f"got {rate}"
        )
    return replace(speech, clip=wave, others=())


def divided(recordings: Recordings, settings: Settings, *, whole: bool = False) -> Speech:
    """Recordings of one's own: the first half of the words to be recognised, the training
    recordings of all others, with the silence around them, as the clip. No word is on both sides.

    Args:
        recordings: of three words at least.
        settings: how many recordings are used, and how long the clip is.
        whole: whether all words are to be recognised, as the clip is another one.

    Raises:
        ValueError: fewer than three words.
    """
    names = recordings.class_names
    checks.at_least("number of words", len(names), 3)
    known = len(names) if whole else (len(names) + 1) // 2
    train, test = settings.recordings
    x_train, y_train = _known(recordings.x_train, recordings.y_train, known, train)
    x_test, y_test = _known(recordings.x_test, recordings.y_test, known, test)
    others = recordings.x_train[recordings.y_train >= known]
    order = torch.randperm(len(others), generator=torch.Generator().manual_seed(1))
    longest = round(settings.seconds * recordings.rate)
    clip = (
        others[order].flatten()[:longest] if known < len(names) else recordings.x_train.new_zeros(1)
    )
    words = replace(
        recordings, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test,
        class_names=names[:known],
    )  # fmt: skip
    return Speech(words, clip, names[known:], spoken=True)


def _known(x: Tensor, y: Tensor, known: int, most: int) -> tuple[Tensor, Tensor]:
    """Recordings of the first words, mixed, and how many at most."""
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    mine = order[y[order] < known][:most]
    return x[mine], y[mine]


def train_speech_teacher(
    speech: Speech, settings: Settings, seed: int, cache_dir: Path | None = None
) -> Trained:
    """A network that learned words from their spectrograms, or the kept one."""
    words, number = speech.dataset, teacher_seed(seed, SPEECH)
    network = build_network(settings.speech_network, words, number)
    training = settings.speech_teaching
    training = replace(
        training, augmentation=Augmentation(crop=3),
        batch_size=min(training.batch_size, len(words.y_train)),
    )  # fmt: skip
    history = train_watched(network, words, training, number, cache_dir, "words")
    return Trained(network, history)


def excerpts(speech: Speech, seed: int, source: str = CLIP) -> ExcerptGenerator:
    """Excerpts of the clip of other words, or of noise as loud and as long."""
    wave = speech.clip
    if source == HISS:
        noise = torch.randn(wave.shape, generator=torch.Generator().manual_seed(seed))
        wave = noise * wave.square().mean().sqrt()
    seconds = speech.recordings.x_train.shape[1] / speech.recordings.rate
    return ExcerptGenerator(wave, replace(EXCERPTS, seconds=seconds), speech.spectrogram, seed)


def train_speech_student(
    speech: Speech, settings: Settings, seed: int, source: str, cache_dir: Path | None = None
) -> Trained:
    """A network that imitates the teacher of words on excerpts of one clip.

    Args:
        speech: words and clip.
        settings: of the study.
        seed: of the repetition.
        source: CLIP, HISS, or OWN, the words that the teacher learned, without labels.
        cache_dir: folder for finished trainings.
    """
    teacher = train_speech_teacher(speech, settings, seed, cache_dir).network
    words, training = speech.dataset, settings.speech_training
    network = build_network(settings.speech_network, words, seed)
    steps = settings.speech_steps
    batches = (
        pool_batches(words.x_train, training.batch_size, steps)
        if source == OWN
        else fresh_batches(excerpts(speech, seed, source), training.batch_size, steps)
    )
    history = imitate(
        network, teacher, batches, words, training, HEARD, seed, cache_dir, "speech student"
    )
    return Trained(network, history)


def measure_speech(
    speech: Speech, settings: Settings, seed: int, cache_dir: Path | None = None
) -> dict[str, float]:
    """Share of the test words that are recognised: by the "teacher", and by its students."""
    found = {"teacher": train_speech_teacher(speech, settings, seed, cache_dir)}
    for source in (CLIP, HISS, OWN):
        found[source] = train_speech_student(speech, settings, seed, source, cache_dir)
    return {name: evaluate_accuracy(one.network, speech.dataset) for name, one in found.items()}
