"""Words: made up, spoken by eSpeak NG, and your own."""

import ctypes
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from smallnets.data import (
    npz_clip,
    npz_recordings,
    speak,
    spoken_clip,
    spoken_recordings,
    spoken_words,
    synthetic_clip,
    synthetic_recordings,
    synthetic_speech,
)
from smallnets.data.synthetic_speech import WORDS, spoken


def test_made_up_words_have_voices_of_their_own():
    some, more = synthetic_recordings(30, 10), synthetic_recordings(40, 12)
    assert some.x_train.shape == (30, 6400)
    assert torch.equal(more.x_train[:30], some.x_train)
    assert torch.equal(more.x_test[:10], some.x_test)
    assert some.y_train.tolist() == [n % 10 for n in range(30)]
    assert some.class_names == WORDS
    assert some.x_train.abs().max() < 0.6
    assert not torch.equal(some.x_train[0], some.x_train[10])
    assert not torch.equal(some.x_train[0], some.x_test[0])
    other = synthetic_recordings(30, 10, seed=1)
    assert not torch.equal(other.x_train, some.x_train)


def test_a_clip_has_no_word_of_the_classes(monkeypatch):
    said = []

    def remembered(word, voice, rate):
        said.append(word)
        return np.full(100, 0.1, np.float32)

    monkeypatch.setattr(synthetic_speech, "spoken", remembered)
    synthetic_clip(300)
    assert len(said) > 2000  # of 900 words
    assert len(set(said)) > 700
    assert set(said).isdisjoint(WORDS)


def test_a_clip_goes_on():
    clip = synthetic_clip(4)
    assert clip.shape == (32_000,)
    assert torch.equal(clip, synthetic_clip(4))
    assert not torch.equal(clip, synthetic_clip(4, seed=1))
    assert clip.unfold(0, 4000, 4000).std(1).min() > 0.01
    with pytest.raises(ValueError, match="a word must be syllables"):
        spoken("xy", np.random.default_rng(0))
    with pytest.raises(ValueError, match="recordings must be at least 1; got 0"):
        synthetic_recordings(0)


@pytest.fixture
def arrays():
    chance = np.random.default_rng(0)
    return {
        "x_train": chance.integers(-9000, 9000, (4, 100), dtype=np.int16),
        "y_train": np.array([0, 1, 2, 1]),
        "x_test": chance.uniform(-1, 1, (2, 100)).astype(np.float32),
        "y_test": np.array([0, 2]),
        "rate": np.array(8000),
    }


def test_recordings_of_your_own(tmp_path, arrays):
    np.savez(tmp_path / "own.npz", **arrays)
    found = npz_recordings(tmp_path / "own.npz")
    np.testing.assert_allclose(found.x_train.numpy(), arrays["x_train"] / 32768, rtol=1e-6)
    assert found.x_test.dtype == torch.float32
    assert found.class_names == ("0", "1", "2")
    named = {"class_names": np.array(["a", "b", "c"]), "y_test": np.array([[0], [2]])}
    np.savez(tmp_path / "named.npz", **(arrays | named))
    assert npz_recordings(tmp_path / "named.npz").class_names == ("a", "b", "c")
    assert npz_recordings(tmp_path / "named.npz").y_test.tolist() == [0, 2]
    assert found.rate == 8000
    np.savez(tmp_path / "clip.npz", wave=arrays["x_train"][0], rate=16000)
    wave, rate = npz_clip(tmp_path / "clip.npz")
    assert torch.equal(wave, found.x_train[0])
    assert rate == 16000


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"x_train": None}, "lacks x_train; it needs x_train, y_train"),
        ({"x_train": np.zeros(5)}, r"x_train must be int16 or floating point \(n, samples\)"),
        ({"x_train": np.zeros((4, 100), np.int32)}, r"must be int16 or .*; got int32 \(4, 100\)"),
        ({"x_train": np.zeros((4, 100), np.int8)}, r"must be int16 or .*; got int8 \(4, 100\)"),
        (
            {"x_train": np.full((4, 9), np.nan)},
            "x_train must be finite and from -1 to 1; got nan to nan",
        ),
        (
            {"x_test": np.full((2, 100), -30.0)},
            "x_test must be finite and from -1 to 1; got -30 to -30",
        ),
        ({"x_test": np.zeros((2, 99))}, "of one length; got 100 and 99 samples"),
        ({"y_train": np.zeros(4)}, "y_train must be whole numbers"),
        ({"y_train": np.array([0, 3, 2, 0])}, "without gaps; the largest is 3 and there is no 1"),
        ({"y_train": np.array([0, -1, 2, 1])}, "labels in y_train must be 0 or greater; got -1"),
        ({"y_train": np.array([0, 1, 2])}, r"y_train must be int64 \(4,\)"),
        ({"y_test": np.array([0, 9])}, "labels in y_test must be among the training labels, 0 to "),
        ({"class_names": np.array(["a", "b"])}, "class_names must be 3 strings, one per class"),
        ({"class_names": np.array([1, 2, 3])}, "class_names must be 3 strings, one per class"),
        ({"rate": np.array([1, 2])}, "rate must be one whole number"),
    ],
)
def test_wrong_recordings_are_refused_in_one_line(tmp_path, arrays, changes, words):
    kept = {key: value for key, value in (arrays | changes).items() if value is not None}
    np.savez(tmp_path / "own.npz", **kept)
    with pytest.raises(ValueError, match=words) as error:
        npz_recordings(tmp_path / "own.npz")
    assert "\n" not in str(error.value)
    assert "own.npz" in str(error.value)


def test_absent_and_broken_files_are_refused_in_one_line(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no recordings .*own.npz.*wave, rate"):
        npz_clip(tmp_path / "own.npz")
    (tmp_path / "own.npz").write_bytes(b"no zip")
    with pytest.raises(ValueError, match=r"own.npz is no .npz file, or is damaged"):
        npz_clip(tmp_path / "own.npz")


def test_where_espeak_is_absent_a_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    spoken_words._library.cache_clear()
    with pytest.raises(
        ModuleNotFoundError, match=r"GPL-3.0.*pip install 'espeakng-loader"
    ) as error:
        speak("seven")
    assert "\n" not in str(error.value)


class Espeak:
    """Says a beep as long as the text, through the interface of eSpeak NG."""

    def __init__(self):
        self.said, self.set, self.rate = [], {}, 22050

    def espeak_Initialize(self, output, length, data, options):  # noqa: N802
        return self.rate

    def espeak_SetVoiceByName(self, name):  # noqa: N802
        self.voice = name.decode()
        return 2 if "nobody" in self.voice else 0

    def espeak_SetParameter(self, which, value, relative):  # noqa: N802
        self.set[which] = value

    def espeak_SetSynthCallback(self, callback):  # noqa: N802
        self.callback = callback

    def espeak_Synth(self, text, size, *rest):  # noqa: N802
        self.said.append(text.rstrip(b"\0").decode())
        beep = 8000 * np.sin(np.arange(300 * len(self.said[-1])) / 5)
        wave = np.concatenate([np.zeros(500), beep, np.zeros(500)]).astype(np.int16)
        pointer = wave.ctypes.data_as(ctypes.POINTER(ctypes.c_short))
        self.callback(pointer, len(wave), None)
        self.callback(None, 0, None)

    def espeak_Synchronize(self):  # noqa: N802
        pass


@pytest.fixture
def espeak(monkeypatch):
    library = Espeak()
    loader = SimpleNamespace(get_library_path=lambda: "here", get_data_path=lambda: "there")
    monkeypatch.setitem(sys.modules, "espeakng_loader", loader)
    monkeypatch.setattr(ctypes, "CDLL", lambda path: library)
    spoken_words._library.cache_clear()
    yield library
    spoken_words._library.cache_clear()


def test_spoken_words_in_many_voices(espeak):
    found = spoken_recordings(12, 4, words=("one", "two"))
    assert found.x_train.shape == (12, 8000)
    assert found.y_train.tolist() == [0, 1] * 6
    assert espeak.said[:2] == ["one", "two"]
    assert espeak.set.keys() == {1, 3}
    wave = speak("three", voice="en-us+f2", speed=200, pitch=30)
    assert espeak.voice == "en-us+f2"
    assert espeak.set == {1: 200, 3: 30}
    assert len(wave) == pytest.approx(1500 * 8000 / 22050, abs=10)  # without the silence
    assert wave.abs().max() == pytest.approx(8000 / 32768, rel=0.05)
    clip = spoken_clip("Here it is. There it was.", voices=3)
    assert espeak.said[-2:] == ["Here it is", " There it was"]
    assert len(clip) > 3000


def test_espeak_s_refusals_are_one_line(espeak):
    with pytest.raises(ValueError, match="voice must be one of eSpeak NG's; got 'nobody'"):
        speak("one", voice="nobody")
    with pytest.raises(ValueError, match="text must hold something to say; got ''"):
        speak("")
    with pytest.raises(ValueError, match="speed must be at least 80"):
        speak("one", speed=10)
    spoken_words._library.cache_clear()
    espeak.rate = -1
    with pytest.raises(ValueError, match="did not start: it answered -1"):
        speak("one")
