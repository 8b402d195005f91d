"""The same idea for sound (section 3.7): one long clip, short excerpts, log-mel spectrograms.

The paper's audio code was not released; what is here follows its description. An excerpt is cut at
a random place, resampled, mixed with another (the counterpart of CutMix and MixUp for sound), set
at a random level and laid over background noise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from smallnets import checks
from smallnets.data import Dataset, Recordings
from smallnets.distill.single_image.chance import below, between, normals, uniforms

FLOOR = 1e-5
TOGETHER = 32  # excerpts that are made at a time: what fits into a core's cache


@dataclass(frozen=True)
class Spectrogram:
    """A log-mel spectrogram.

    Attributes:
        rate: samples a second.
        window, hop: of a frame and between frames, in samples: 25 and 10 ms.
        fft: points of the transform; a frame is filled up with zeros at its end.
        bands: of the mel scale, 64 at 16 kHz and 32 to 40 at 8 kHz.
        lowest, highest: where the bands begin and end, in Hz.

    Raises:
        ValueError: a field is out of range.
    """

    rate: int = 8000
    window: int = 200
    hop: int = 80
    fft: int = 256
    bands: int = 32
    lowest: float = 60.0
    highest: float = 3800.0

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        for name in ("rate", "window", "hop", "bands"):
            checks.whole(name, getattr(self, name), 1)
        checks.whole("fft", self.fft, self.window)
        checks.at_least("lowest", self.lowest, 0)
        checks.above("highest", self.highest, self.lowest)
        checks.between("highest", self.highest, self.lowest, self.rate / 2)


def mel(hertz: np.ndarray | float) -> np.ndarray:
    """Pitch on the mel scale of HTK."""
    return 2595 * np.log10(1 + np.asarray(hertz) / 700)


@cache
def mel_filterbank(settings: Spectrogram = Spectrogram()) -> Tensor:
    """Triangles of peak 1, evenly spaced on the mel scale: float64 (bands, fft // 2 + 1).

    Raises:
        ValueError: a band between two points of the transform.
    """
    edges = np.linspace(mel(settings.lowest), mel(settings.highest), settings.bands + 2)
    edges = 700 * (10 ** (edges / 2595) - 1)
    points = np.arange(settings.fft // 2 + 1) * (settings.rate / settings.fft)
    rise = (points - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - points) / (edges[2:] - edges[1:-1])[:, None]
    bank = np.maximum(0, np.minimum(rise, fall))
    empty = int((bank.sum(axis=1) == 0).sum())
    if empty:
        raise ValueError(
            f"every band must hold a frequency of the transform, and {empty} of {settings.bands} "
            f"hold none: fewer bands, or a longer fft than {settings.fft}"
        )
    return torch.from_numpy(bank)


def log_mel(wave: Tensor, settings: Spectrogram = Spectrogram()) -> Tensor:
    """log(mel energies of the magnitudes + 1e-5), (batch, 1, bands, frames) of the wave's type.

    Frames lie wholly in the wave; there is no padding. The window is a periodic Hann window.

    Args:
        wave: floating point (batch, samples).
        settings: of the spectrogram.

    Raises:
        ValueError: another shape or type, or less than one frame.
    """
    if wave.dim() != 2 or not wave.is_floating_point():
        raise ValueError(
            f"a wave must be floating point (batch, samples); got {wave.dtype} {tuple(wave.shape)}"
        )
    checks.at_least("samples of a wave", wave.shape[1], settings.window)
    # torch.stft puts a window in the middle of its points; ours begins with them.
    window = torch.hann_window(settings.window, dtype=wave.dtype, device=wave.device)
    window = F.pad(window, (0, settings.fft - settings.window))
    frames = (wave.shape[1] - settings.window) // settings.hop + 1
    filled = F.pad(wave, (0, settings.fft - settings.window))
    spectrum = torch.stft(
        filled, settings.fft, settings.hop, window=window, center=False, return_complex=True
    )[:, :, :frames]
    energies = mel_filterbank(settings).to(wave) @ spectrum.abs()
    return (energies + FLOOR).log()[:, None]


def as_images(log_energies: Tensor) -> Tensor:
    """Log-mel energies as grey levels, uint8 of the same shape: 16 levels a nat, from the floor on.

    So a spectrogram is an image of a `smallnets.data.Dataset` like any other.
    """
    return ((log_energies - np.log(FLOOR)) * 16).round().clamp(0, 255).to(torch.uint8)


def spectrogram_dataset(recordings: Recordings, settings: Spectrogram = Spectrogram()) -> Dataset:
    """Recordings as images of one channel, (bands, frames) pixels each.

    Raises:
        ValueError: recordings of another rate than the spectrograms', or shorter than one frame.
    """
    if recordings.rate != settings.rate:
        raise ValueError(
            f"recordings must have the spectrograms' {settings.rate} samples a second; "
            f"got {recordings.rate}"
        )

    def images(waves: Tensor) -> Tensor:
        return torch.cat([as_images(log_mel(part, settings)) for part in waves.split(256)])

    return Dataset(
        recordings.name,
        images(recordings.x_train),
        recordings.y_train,
        images(recordings.x_test),
        recordings.y_test,
        recordings.class_names,
        flips=False,
    )


@dataclass(frozen=True)
class ExcerptSettings:
    """How excerpts of a long clip are cut and changed.

    Attributes:
        seconds: of an excerpt.
        gain: largest change of the level to either side, in decibels.
        stretch: range of the resampling factor: 0.8 is slower and lower, 1.25 faster and higher.
        mixing_probability: share of the excerpts that are mixed with another.
        background: highest level of added noise, relative to the excerpt's own (root mean square).

    Raises:
        ValueError: a field is out of range.
    """

    seconds: float = 1.0
    gain: float = 6.0
    stretch: tuple[float, float] = (0.8, 1.25)
    mixing_probability: float = 0.5
    background: float = 0.1

    def __post_init__(self) -> None:
        checks.plain_fields(self)
        checks.above("seconds", self.seconds, 0)
        checks.at_least("gain", self.gain, 0)
        low, high = self.stretch
        checks.at_least("upper end of stretch", high, checks.above("stretch", low, 0))
        checks.between("mixing_probability", self.mixing_probability, 0, 1)
        checks.at_least("background", self.background, 0)


class ExcerptGenerator:
    """Excerpts of one clip as spectrograms, by their numbers; each depends on nothing else.

    Args:
        clip: floating point (samples,), mostly within -1 to 1.
        settings: of the excerpts.
        spectrogram: of the spectrograms, and the clip's rate.
        seed: another seed gives other excerpts.

    Raises:
        ValueError: another shape or type, numbers that are not finite, or a clip that is shorter
            than one excerpt.
    """

    def __init__(
        self,
        clip: Tensor,
        settings: ExcerptSettings = ExcerptSettings(),
        spectrogram: Spectrogram = Spectrogram(),
        seed: int = 0,
    ) -> None:
        if clip.dim() != 1 or not clip.is_floating_point():
            raise ValueError(
                f"a clip must be floating point (samples,); got {clip.dtype} {tuple(clip.shape)}"
            )
        if not bool(clip.isfinite().all()):
            raise ValueError("a clip must be finite; got NaN or infinity")
        self.clip = clip.float().cpu()
        self.level = float(self.clip.square().mean().sqrt())
        self.settings = settings
        self.spectrogram = spectrogram
        self.seed = checks.whole("seed", seed, 0)
        self.samples = round(settings.seconds * spectrogram.rate)
        # One long noise, of which each excerpt's background is a part.
        long = range(1000, 1000 + max(2**16, 4 * self.samples))
        self.noise = normals(self.seed, np.array([0]), long)[0].astype(np.float32)
        longest = int(np.ceil(self.samples * settings.stretch[1])) + 1
        if len(clip) < longest:
            raise ValueError(
                f"the clip is shorter than one excerpt: {settings.seconds:g} s, up to "
                f"{settings.stretch[1]:g} times as fast, take {longest} samples; got {len(clip)}"
            )

    @property
    def key(self) -> str:
        """A text that changes when any excerpt would."""
        digest = sha256(
            f"{self.settings} {self.spectrogram} {self.seed} {len(self.clip)} ".encode()
        )
        digest.update(self.clip.numpy())
        return f"excerpts {digest.hexdigest()}"

    def waves(self, numbers: Sequence[int] | range | Tensor | np.ndarray) -> Tensor:
        """Excerpts float32 (n, samples)."""
        ids = np.asarray(numbers, dtype=np.int64)
        drawn = uniforms(self.seed, ids, range(10))
        first = _level(self._cut(drawn[:, 0], drawn[:, 1]))
        other = _level(self._cut(drawn[:, 2], drawn[:, 3]))
        share = np.where(
            drawn[:, 4] < self.settings.mixing_probability, between(drawn[:, 5], 0.5, 1), 1.0
        )[:, None]
        noise = self.settings.background * drawn[:, 6:7]
        mixture = share * first + (1 - share) * other
        begin = below(drawn[:, 8], len(self.noise) - self.samples)
        hiss = self.noise[begin[:, None] + np.arange(self.samples)]
        loud = 10 ** (between(drawn[:, 7:8], -1, 1) * self.settings.gain / 20)
        return torch.from_numpy((loud * self.level * (mixture + noise * hiss)).astype(np.float32))

    def take(self, numbers: Sequence[int] | range | Tensor) -> Tensor:
        """Spectrograms uint8 (n, 1, bands, frames), see `as_images`."""
        ids = np.asarray(numbers, dtype=np.int64)
        parts = [ids[start : start + TOGETHER] for start in range(0, len(ids), TOGETHER)]
        return torch.cat([as_images(log_mel(self.waves(part), self.spectrogram)) for part in parts])

    def _cut(self, place: np.ndarray, speed: np.ndarray) -> np.ndarray:
        """Parts of the clip, resampled linearly, float64 (n, samples)."""
        low, high = np.log(self.settings.stretch)
        factor = np.exp(between(speed, low, high))
        room = (len(self.clip) - np.ceil(self.samples * factor)).astype(np.int64)
        begin = below(place, np.maximum(room, 1))
        at = begin[:, None] + factor[:, None] * np.arange(self.samples)
        whole = np.minimum(at.astype(np.int64), len(self.clip) - 2)
        part = at - whole
        wave = self.clip.numpy()  # float32, and float64 from here on
        return wave[whole] * (1 - part) + wave[whole + 1] * part


def _level(waves: np.ndarray) -> np.ndarray:
    """Waves (n, samples) at a root mean square of 1; silence stays."""
    power = np.sqrt(np.square(waves).mean(axis=1, keepdims=True))
    return waves / np.maximum(power, 1e-3)
