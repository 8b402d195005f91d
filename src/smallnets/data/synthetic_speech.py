"""Words of a made-up language, sung by a few lines of code: the speech that needs no package.

A word is two syllables, a consonant and a vowel each. A voice is a sum of harmonics of a gliding
pitch, whose strengths follow the vowel's formants (Peterson & Barney, 1952, rounded); consonants
are bursts and hisses of noise. Voices differ in pitch, formants, speed and breath.
"""

import numpy as np
import torch
from torch import Tensor

from smallnets import checks
from smallnets.data.recordings import Recordings

# Formants in Hz of five vowels; band of the noise in Hz, seconds and loudness of the consonants.
VOWELS = {
    "a": (730, 1090, 2440), "e": (530, 1840, 2480), "i": (270, 2290, 3010),
    "o": (570, 840, 2410), "u": (300, 870, 2240),
}  # fmt: skip
CONSONANTS = {
    "p": (300, 1200, 0.03, 0.8), "t": (2200, 3800, 0.03, 0.8), "k": (1200, 2400, 0.04, 0.8),
    "s": (2600, 3900, 0.12, 0.5), "f": (900, 3800, 0.10, 0.2), "m": (150, 400, 0.08, 0.3),
}  # fmt: skip
WORDS = ("pati", "tosu", "kefa", "sami", "fuko", "mipo", "paku", "teso", "kifu", "sote")


def synthetic_words() -> tuple[str, ...]:
    """The ten words of the recordings."""
    return WORDS


def synthetic_recordings(
    train: int = 600,
    test: int = 300,
    seed: int = 0,
    *,
    seconds: float = 0.8,
    rate: int = 8000,
) -> Recordings:
    """Each of the ten words in turn, every time by another voice; test voices are others.

    Args:
        train, test: recordings; fewer are the beginning of more.
        seed: of the voices.
        seconds: of a recording.
        rate: samples a second.
    """
    checks.above("seconds", seconds, 0.2)
    checks.whole("rate", rate, 8000)
    samples = round(seconds * rate)

    def part(which: int, count: int) -> tuple[Tensor, Tensor]:
        waves = np.zeros((checks.whole("recordings", count, 1), samples), np.float32)
        for n in range(count):
            chance = np.random.default_rng([seed, which, n])
            word = spoken(WORDS[n % len(WORDS)], chance, rate)[:samples]
            begin = int(chance.integers(0, samples - len(word) + 1))
            waves[n, begin : begin + len(word)] = word
            waves[n] += chance.normal(0, 0.003, samples)
        return torch.from_numpy(waves), torch.arange(count) % len(WORDS)

    return Recordings("synthetic", *part(0, train), *part(1, test), WORDS, rate)


def synthetic_clip(
    seconds: float = 60.0, seed: int = 0, *, voices: int = 20, rate: int = 8000
) -> Tensor:
    """One long clip in which voices take turns in other words: float32 (samples,).

    Args:
        seconds: of the clip.
        seed: of voices and words; no voice is one of the recordings'.
        voices: how many there are; one alone makes a poorer clip.
        rate: samples a second.
    """
    checks.above("seconds", seconds, 0)
    checks.whole("voices", voices, 1)
    checks.whole("rate", rate, 8000)
    chance = np.random.default_rng([seed, 2])
    wave = np.zeros(round(seconds * rate), np.float32)
    place = 0
    while place < len(wave):
        word = "".join(
            chance.choice(list(CONSONANTS)) + chance.choice(list(VOWELS)) for _ in range(2)
        )
        if word in WORDS:
            continue
        voice = np.random.default_rng([seed, 3, int(chance.integers(voices))])
        sound = spoken(word, voice, rate)[: len(wave) - place]
        wave[place : place + len(sound)] = sound
        place += len(sound) + int(rate * chance.uniform(0.02, 0.15))
    return torch.from_numpy(wave + chance.normal(0, 0.003, len(wave)).astype(np.float32))


def spoken(word: str, voice: np.random.Generator, rate: int = 8000) -> np.ndarray:
    """One word in a voice that the random numbers decide: float32 (samples,), peak 0.5.

    Raises:
        ValueError: a word that is no row of syllables of `CONSONANTS` and `VOWELS`.
    """
    if (
        not word
        or len(word) % 2
        or any(
            c not in CONSONANTS or v not in VOWELS
            for c, v in zip(word[::2], word[1::2], strict=True)
        )
    ):
        raise ValueError(
            f"a word must be syllables of {', '.join(CONSONANTS)} and {', '.join(VOWELS)}; "
            f"got {word!r}"
        )
    pitch, tract = voice.uniform(90, 250), voice.uniform(0.88, 1.15)
    speed, breath = voice.uniform(0.8, 1.25), voice.uniform(0.0, 0.05)
    glide = voice.uniform(-0.2, 0.2)
    sounds = []
    for consonant, vowel in zip(word[::2], word[1::2], strict=True):
        low, high, length, loud = CONSONANTS[consonant]
        length *= voice.uniform(0.8, 1.2) / speed
        sounds.append(loud * _noise(low * tract, high * tract, round(length * rate), rate, voice))
        formants = np.array(VOWELS[vowel]) * tract * voice.uniform(0.96, 1.04, 3)
        samples = round(voice.uniform(0.11, 0.16) / speed * rate)
        tone = _vowel(formants, pitch, glide, samples, rate)
        sounds.append(tone + breath * voice.normal(0, 1, samples))
    wave = np.concatenate(sounds)
    return (0.5 * wave / np.abs(wave).max()).astype(np.float32)


def _vowel(formants: np.ndarray, pitch: float, glide: float, samples: int, rate: int) -> np.ndarray:
    """Harmonics under the formants' resonances, faded in and out; peak 1."""
    time = np.arange(samples) / samples
    phase = 2 * np.pi * np.cumsum(pitch * (1 + glide * (time - 0.5))) / rate
    numbers = np.arange(1, int(0.48 * rate / (1.1 * pitch)) + 1)
    widths = np.array([80.0, 120.0, 160.0])
    gap = (numbers[:, None] * pitch - formants) / widths
    strength = (np.array([1.0, 0.6, 0.3]) / (1 + gap**2)).sum(axis=1) + 0.01
    wave = strength @ np.sin(numbers[:, None] * phase)
    wave *= np.minimum(1, np.minimum(time, 1 - time) * 8)
    return wave / max(np.abs(wave).max(), 1e-9)


def _noise(
    low: float, high: float, samples: int, rate: int, chance: np.random.Generator
) -> np.ndarray:
    """Noise of a band, dying away; peak 1."""
    spectrum = np.fft.rfft(chance.normal(0, 1, max(samples, 8)))
    frequency = np.fft.rfftfreq(max(samples, 8), 1 / rate)
    spectrum[(frequency < low) | (frequency > high)] *= 0.05
    wave = np.fft.irfft(spectrum, max(samples, 8)) * np.linspace(1, 0.3, max(samples, 8))
    return wave / max(np.abs(wave).max(), 1e-9)
