"""Spoken words, made offline by eSpeak NG: the optional extra "speech".

The package `espeakng-loader` brings the eSpeak NG library and its voices. eSpeak NG's licence is
the GNU General Public License, version 3 or later: whoever passes the library on has to pass on its
source and its licence, too. That is why it is no dependency of this package, and why the chapters
do without. Making recordings with it for yourself asks for nothing.
"""

import ctypes
from collections.abc import Sequence
from functools import cache
from math import gcd
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smallnets import checks
from smallnets.data.recordings import Recordings

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ACCENTS = ("en", "en-us", "en-gb-scotland", "en-gb-x-rp", "en-029")
VARIANTS = ("m1", "m2", "m3", "m4", "m5", "m6", "m7", "f1", "f2", "f3", "f4", "f5")
TEXT = """
Once upon a time the north wind and the sun could not agree which of them was stronger, when a
traveller came along wrapped in a warm cloak. They said that whoever first made the traveller take
off the cloak should be called the stronger. Then the wind blew as hard as it could, but the harder
it blew, the closer did the traveller fold the cloak around him; and at last the wind gave up. Then
the sun shone warmly, and at once the traveller took off the cloak. A bird sang in the garden while
yellow leaves fell on the quiet water, and a child laughed at a dog that chased its own shadow.
"""
SYNCHRONOUS, UTF8, SPEED, PITCH = 2, 1, 1, 3  # eSpeak's numbers for these


def spoken_recordings(
    train: int = 600,
    test: int = 300,
    seed: int = 0,
    *,
    words: Sequence[str] = DIGITS,
    seconds: float = 1.0,
    rate: int = 8000,
) -> Recordings:
    """Each word in turn, every time in another voice; the voices of the test part are others.

    Args:
        train, test: recordings; fewer are the beginning of more.
        seed: of voices, speeds and pitches.
        words: English ones.
        seconds: of a recording; what is longer is cut off.
        rate: samples a second.

    Raises:
        ModuleNotFoundError: eSpeak NG is not installed; the line says how to get it.
        ValueError: a number out of range, or no words.
    """
    checks.at_least("number of words", len(words), 1)
    checks.above("seconds", seconds, 0)
    samples = round(seconds * checks.whole("rate", rate, 8000))

    def part(variants: Sequence[str], which: int, count: int) -> tuple[Tensor, Tensor]:
        waves = torch.zeros(checks.whole("recordings", count, 1), samples)
        for n in range(count):
            chance = np.random.default_rng([seed, which, n])
            wave = _said(words[n % len(words)], variants, chance, rate)[:samples]
            begin = int(chance.integers(0, samples - len(wave) + 1))
            waves[n, begin : begin + len(wave)] = wave
        return waves, torch.arange(count) % len(words)

    heard, unheard = VARIANTS[::2] + VARIANTS[1::4], VARIANTS[3::4]
    return Recordings("spoken", *part(heard, 0, train), *part(unheard, 1, test), tuple(words), rate)


def spoken_clip(text: str = TEXT, seed: int = 0, *, voices: int = 8, rate: int = 8000) -> Tensor:
    """A text, each sentence in another voice: float32 (samples,).

    Args:
        text: English; unless told otherwise, a fable without digits.
        seed: of voices, speeds and pitches.
        voices: how often the text is read.
        rate: samples a second.

    Raises: as `spoken_recordings`.
    """
    checks.whole("voices", voices, 1)
    sentences = [one for one in text.replace("\n", " ").replace(";", ".").split(".") if one.strip()]
    parts = [
        _said(sentence, VARIANTS, np.random.default_rng([seed, 2, reading, n]), rate)
        for reading in range(voices)
        for n, sentence in enumerate(sentences)
    ]
    checks.at_least("number of sentences", len(parts), 1)
    return torch.cat(parts)


def _said(text: str, variants: Sequence[str], chance: np.random.Generator, rate: int) -> Tensor:
    voice = f"{chance.choice(ACCENTS)}+{chance.choice(variants)}"
    speed, pitch = int(chance.integers(120, 221)), int(chance.integers(25, 76))
    return speak(text, voice=voice, speed=speed, pitch=pitch, rate=rate)


def speak(
    text: str, *, voice: str = "en-us", speed: int = 175, pitch: int = 50, rate: int = 8000
) -> Tensor:
    """A text as eSpeak NG says it: float32 (samples,) within -1 to 1, without the silence around.

    Args:
        text: what to say.
        voice: a language, with a variant if one is wanted: "en-us", "en-gb-x-rp+f2".
        speed: words a minute, 80 to 450.
        pitch: 0 to 99.
        rate: samples a second.

    Raises:
        ModuleNotFoundError: eSpeak NG is not installed; the line says how to get it.
        ValueError: a voice that it does not have, a number out of range, or nothing was said.
    """
    from scipy.signal import resample_poly

    checks.between("speed", checks.whole("speed", speed, 80), 80, 450)
    checks.between("pitch", checks.whole("pitch", pitch, 0), 0, 99)
    library, own_rate = _library()
    if library.espeak_SetVoiceByName(voice.encode()) != 0:
        raise ValueError(f"voice must be one of eSpeak NG's; got {voice!r}")
    library.espeak_SetParameter(SPEED, speed, 0)
    library.espeak_SetParameter(PITCH, pitch, 0)
    pieces: list[np.ndarray] = []

    def heard(wave: Any, count: int, events: Any) -> int:
        if count > 0:
            pieces.append(np.ctypeslib.as_array(wave, (count,)).copy())
        return 0

    callback = _CALLBACK(heard)
    library.espeak_SetSynthCallback(callback)
    said = text.encode() + b"\0"
    library.espeak_Synth(said, len(said), 0, 0, 0, UTF8, None, None)
    library.espeak_Synchronize()
    wave = np.concatenate(pieces) / 32768 if pieces else np.zeros(0)
    loud = np.flatnonzero(np.abs(wave) > 0.002)
    if len(loud) == 0:
        raise ValueError(f"text must hold something to say; got {text!r}")
    wave = wave[loud[0] : loud[-1] + 1]
    common = gcd(rate, own_rate)
    return torch.from_numpy(resample_poly(wave, rate // common, own_rate // common)).float()


_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


@cache
def _library() -> tuple[Any, int]:
    """eSpeak NG, set up, and its samples a second."""
    try:
        import espeakng_loader
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "spoken words need eSpeak NG (GPL-3.0-or-later), which is not installed: "
            "pip install 'espeakng-loader>=0.2.4,<1', or take synthetic words or recordings of "
            "your own"
        ) from error
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    data = espeakng_loader.get_data_path().encode()
    rate = library.espeak_Initialize(SYNCHRONOUS, 0, data, 0)
    if rate <= 0:
        raise ValueError(f"eSpeak NG did not start: it answered {rate}")
    return library, rate
