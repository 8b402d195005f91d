"""Movements and words: real clips move as they say, and no word of the test is in a source."""

import re
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from smallnets.data import Recordings, spoken_words
from smallnets.data.synthetic_speech import synthetic_words
from smallnets.studies import single_image as study
from smallnets.studies.networks import evaluate_accuracy
from smallnets.studies.single_image import speech as sounds


def middle(frames):
    """Centre of the light of frames (n, height, width): rows and columns."""
    light = frames.double() / frames.double().sum((1, 2), keepdim=True)
    line = torch.arange(frames.shape[-1], dtype=torch.float64)
    return (light.sum(2) * line).sum(1), (light.sum(1) * line).sum(1)


def test_images_move_as_the_label_says():
    spot = torch.zeros(6, 1, 16, 16, dtype=torch.uint8)
    spot[:, :, 6:10, 6:10] = 255
    clips, kinds = study.moving(spot, 5, 0)
    assert clips.shape == (6, 1, 5, 16, 16)
    assert [study.MOVEMENTS[k] for k in kinds] == list(study.MOVEMENTS)
    for clip, name in zip(clips[:, 0], study.MOVEMENTS, strict=True):
        rows, columns = middle(clip)
        across, down = columns[-1] - columns[0], rows[-1] - rows[0]
        grown = clip[-1].float().mean() - clip[0].float().mean()
        moved = {"left": -across, "right": across, "up": -down, "down": down,
                 "nearer": grown, "away": -grown}  # fmt: skip
        assert max(moved, key=moved.get) == name
        assert moved[name] > 0.5


def test_real_clips_are_normalised_as_still_images_are(digits, quick):
    clips = study.real_clips(digits, quick)
    assert len(clips.y_train) == quick.clips
    assert clips.channels == quick.frames
    assert torch.equal(clips.mean, digits.mean.repeat(quick.frames))
    network = study.clip_network(4, 1).eval()
    flat = clips.normalise(clips.x_test[:3])
    assert torch.equal(network(flat), network(flat.unflatten(1, (1, -1))))


def test_fake_clips_are_clips_of_the_photograph(quick):
    fake = study.fake_clips("astronaut", quick, 0).take(range(3))
    assert fake.shape == (3, 1, quick.frames, 16, 16)


def test_a_student_of_fake_clips_is_trained_and_judged(digits, quick, tmp_path):
    student = study.train_clip_student(digits, quick, 0, "astronaut", tmp_path)
    assert student.history[-1].keys() == {"loss", "agreement", "real"}
    found = study.measure_clips(digits, replace(quick, thorough=True), 0, "astronaut", tmp_path)
    clips = study.real_clips(digits, quick)
    assert found["photograph"] == evaluate_accuracy(student.network, clips)
    assert found.keys() == {"teacher", "photograph", "noise", "untrained"}


def test_no_word_of_the_test_is_in_a_source():
    said = set(re.findall(r"[a-z]+", spoken_words.TEXT.lower()))
    assert not said & set(spoken_words.DIGITS)
    assert len(synthetic_words()) == 10  # which `synthetic_clip` leaves out, as its test says


@pytest.fixture
def own():
    """Tones in the place of five words: enough to see which go where."""
    time = np.arange(4000) / 8000
    waves = np.stack([0.5 * np.sin(2 * np.pi * (300 + 200 * (n % 5)) * time) for n in range(40)])
    x, y = torch.from_numpy(waves).float(), torch.arange(40) % 5
    return Recordings("own", x, y, x[:20], y[:20], tuple("abcde"), 8000)


def test_recordings_of_ones_own_are_divided_by_words(own, quick):
    speech = study.divided(own, quick)
    assert (speech.recordings.class_names, speech.others) == (("a", "b", "c"), ("d", "e"))
    assert speech.spoken
    assert int(speech.recordings.y_test.max()) == 2
    assert len(speech.recordings.y_train) == 24
    pitch = torch.fft.rfft(speech.clip[:4000]).abs().argmax() * 2.0
    assert pitch in (900, 1100), "the clip is of the other words"
    whole = study.divided(own, quick, whole=True)
    assert len(whole.recordings.class_names) == 5
    few = replace(own, y_train=own.y_train % 2, y_test=own.y_test % 2, class_names=("a", "b"))
    with pytest.raises(ValueError, match="number of words must be at least 3; got 2"):
        study.divided(few, quick)


def test_recordings_and_clips_come_from_files(own, quick, tmp_path):
    words, clip = tmp_path / "words.npz", tmp_path / "clip.npz"
    np.savez(
        words, x_train=own.x_train, y_train=own.y_train, x_test=own.x_test, y_test=own.y_test,
        rate=8000,
    )  # fmt: skip
    np.savez(clip, wave=0.5 * np.ones(9000), rate=8000)
    np.savez(tmp_path / "fast.npz", wave=0.5 * np.ones(9000), rate=16000)
    assert len(study.open_speech(f"npz:{words}", quick).others) == 2
    both = study.open_speech(f"npz:{words}", quick, f"npz:{clip}")
    assert len(both.recordings.class_names) == 5
    assert len(both.clip) == 9000
    with pytest.raises(ValueError, match="the recordings' 8000 samples a second; got 16000"):
        study.open_speech(f"npz:{words}", quick, f"npz:{tmp_path / 'fast.npz'}")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.npz"):
        study.open_speech("npz:nowhere.npz", quick)
    with pytest.raises(ValueError, match=r"speech must be one of synthetic, .*; got 'song'"):
        study.open_speech("song", quick)


def test_without_espeak_one_line_says_how_to_get_it(quick, monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    spoken_words._library.cache_clear()
    with pytest.raises(ModuleNotFoundError, match=r"GPL-3\.0-or-later.*pip install") as error:
        study.open_speech("spoken", quick)
    assert "\n" not in str(error.value)


def test_noise_is_as_loud_as_the_clip(voices):
    mine, hiss = (study.excerpts(voices, 0, one) for one in (sounds.CLIP, sounds.HISS))
    assert hiss.level == pytest.approx(mine.level, rel=0.02)
    assert mine.take(range(3)).shape[1:] == voices.dataset.x_train.shape[1:]
    assert not torch.equal(mine.take(range(3)), hiss.take(range(3)))


def test_students_of_sound_are_trained_and_judged(voices, quick, tmp_path):
    found = study.measure_speech(voices, quick, 0, tmp_path)
    student = study.train_speech_student(voices, quick, 0, sounds.CLIP, tmp_path)
    assert found[sounds.CLIP] == evaluate_accuracy(student.network, voices.dataset)
    assert student.history[-1].keys() == {"loss", "agreement", "real"}
