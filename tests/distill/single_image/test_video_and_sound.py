"""Fake clips of a photograph, and excerpts of a long sound."""

import math
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from smallnets.data import Recordings, synthetic_clip, synthetic_recordings
from smallnets.distill import single_image as si
from smallnets.distill.single_image import colour
from smallnets.distill.single_image.render import TOGETHER

QUICK = si.PatchSettings(size=12)


def test_boxes_move_in_a_line():
    first, last = torch.tensor([[0.0, 4, 10, 20], [5, 5, 5, 5]]), torch.tensor([[8.0, 0, 2, 4]] * 2)
    boxes = si.interpolate_boxes(first, last, 5)
    assert boxes.shape == (2, 5, 4)
    torch.testing.assert_close(boxes[:, 0].float(), first)
    torch.testing.assert_close(boxes[:, -1].float(), last)
    assert boxes.diff(dim=1).diff(dim=1).abs().max() < 1e-12


def test_the_ends_of_a_clip_are_the_two_boxes(picture):
    first, last = torch.tensor([4.0, 6, 40, 44]), torch.tensor([30.0, 50, 20, 18])
    clip = si.fake_clip(picture, first, last, 6, 16)
    assert clip.shape == (6, 3, 16, 16)
    exact = si.fake_clip_reference(picture, first, last, 6, 16)
    for frame, box in ((0, first), (5, last)):
        still = si.fake_clip(picture, box, box, 2, 16)
        assert torch.equal(clip[frame], still[0])
        assert (clip[frame].float() - exact[frame].float()).abs().mean() < 6
    both = si.fake_clip(picture, torch.stack([first, last]), torch.stack([last, first]), 6, 16)
    assert torch.equal(both[0], clip)
    assert torch.equal(both[1], clip.flip(0))


def test_clips_by_number_do_not_depend_on_their_batch(picture):
    made = si.ClipGenerator(picture, QUICK, frames=4, seed=3)
    clips = made.take(range(10))
    assert clips.shape == (10, 3, 4, 12, 12)
    order = torch.tensor([7, 2, 9])
    assert torch.equal(made.take(order), clips[order])
    assert torch.equal(made.take([3, 1]), clips[[3, 1]])
    drawn, boxes = made.parameters(range(10))
    square = drawn.initial.double()[:, None]
    assert (boxes[..., :2] >= square[..., :2] - 1e-9).all()
    assert (boxes[..., :2] + boxes[..., 2:] <= square[..., :2] + square[..., 2:] + 1e-9).all()
    still = (clips[~drawn.jitter].diff(dim=2) == 0).float().mean()
    assert still < 0.9


def test_colours_change_once_a_clip():
    image = torch.tensor([180, 120, 60], dtype=torch.uint8)[:, None, None].expand(3, 64, 64)
    clips = si.ClipGenerator(image, QUICK, frames=3).take(range(40))
    assert (clips == clips[:, :, :1, :1, :1]).all()
    assert len(clips[:, :, 0, 0, 0].unique(dim=0)) > 10


def test_frames_are_read_in_parts_that_fit_into_memory(picture, monkeypatch):
    plain, pixels = si.Pyramid.read, []

    def read(self, places, *rest):
        pixels.append(places.shape[:3].numel())
        return plain(self, places, *rest)

    monkeypatch.setattr(si.Pyramid, "read", read)
    alike = si.PatchSettings(size=64, inverse_scale=(1.0, 1.0), aspect=(1.0, 1.0))
    made = si.ClipGenerator(picture, alike, frames=16)
    made.take(range(3))
    assert sum(pixels) == 3 * 16 * 128**2
    assert max(pixels) <= TOGETHER * 32**2
    pixels.clear()
    box = torch.tensor([[0.0, 0, 50, 50]] * 3)
    si.fake_clip(picture, box, box, 16, 64)
    assert sum(pixels) == 3 * 16 * 128**2
    assert max(pixels) <= TOGETHER * 32**2


def test_clips_of_many_photographs_and_without_colour(picture):
    shades = torch.arange(40, 240, 20, dtype=torch.uint8)
    images = shades[:, None, None, None].expand(10, 3, 48, 48)
    settings = si.PatchSettings(size=12, jitter_probability=0.0)
    made = si.ClipGenerator(images, settings, frames=3)
    source = made.parameters(range(60))[0].source
    assert len(source.unique()) == 10
    assert (made.take(range(60)) == shades[source][:, None, None, None, None]).all()
    coloured = si.ClipGenerator(picture, QUICK, frames=3).take(range(4))
    grey = si.ClipGenerator(picture, si.PatchSettings(size=12, channels=1), frames=3)
    assert grey.take(range(4)).shape == (4, 1, 3, 12, 12)
    luma = colour.grey(coloured.flatten(2, 3).float()).view(4, 1, 3, 12, 12)
    assert (grey.take(range(4)).float() - luma).abs().max() <= 1.5


def test_the_contrast_of_a_clip_has_the_exact_mean():
    """Its pixels sum to more than the whole numbers of float32."""
    levels = torch.full((16 * 160 * 160,), 127.0)
    levels[: len(levels) // 2 - 1] = 128  # one less than a half: 127.4999976
    image = levels.view(1, 1, -1, 160).repeat(1, 3, 1, 1)
    assert (colour.contrast(image, torch.zeros(1, 1, 1, 1)) == 127).all()


def test_bad_clips_are_refused_in_one_line(picture):
    box = torch.tensor([0.0, 0, 8, 8])
    with pytest.raises(ValueError, match="frames must be at least 2; got 1"):
        si.fake_clip(picture, box, box, 1)
    with pytest.raises(ValueError, match="boxes must lie in the photograph of 96x128"):
        si.fake_clip(picture, box, box + 100, 4, 8)
    with pytest.raises(ValueError, match=r"boxes must be \(\.\.\., 4\) of one shape"):
        si.interpolate_boxes(box, box[:3], 4)
    with pytest.raises(ValueError, match="frames must be at least 2"):
        si.ClipGenerator(picture, QUICK, frames=1)
    with pytest.raises(ValueError, match="seed must be at least 0; got -1"):
        si.ClipGenerator(picture, QUICK, seed=-1)
    with pytest.raises(ValueError, match="the photograph is too small"):
        si.ClipGenerator(torch.zeros(3, 3, 9), QUICK)


def test_a_tone_stands_in_its_band():
    settings = si.Spectrogram(rate=16000, window=400, hop=160, fft=512, bands=64, highest=7600)
    wave = torch.sin(2 * math.pi * 1000 * torch.arange(16000) / 16000)[None]
    found = si.log_mel(wave, settings)
    assert found.shape == (1, 1, 64, 98)
    band = int(found[0, 0].mean(1).argmax())
    bank = si.mel_filterbank(settings)
    assert bank.shape == (64, 257)
    assert int(bank[:, round(1000 / 16000 * 512)].argmax()) == band
    assert bank.max() <= 1
    louder = si.log_mel(10 * wave, settings)[0, 0, band]
    assert (louder - found[0, 0, band]).mean() == pytest.approx(math.log(10), abs=1e-3)
    silence = si.log_mel(torch.zeros(2, 4000), settings)
    assert silence.allclose(torch.tensor(math.log(1e-5)))
    assert si.as_images(silence).max() == 0
    assert si.as_images(found).dtype == torch.uint8


def test_frames_are_those_of_a_plain_transform():
    settings, wave = si.Spectrogram(), torch.randn(1000, dtype=torch.float64)
    frame = wave[80:280] * torch.hann_window(200, dtype=torch.float64)
    energies = si.mel_filterbank(settings) @ torch.fft.rfft(frame, 256).abs()
    found = si.log_mel(wave[None], settings)
    torch.testing.assert_close(found[0, 0, :, 1], (energies + 1e-5).log())
    assert found.shape[-1] == (1000 - 200) // 80 + 1


def test_excerpts_depend_on_seed_and_number_alone():
    clip = synthetic_clip(6, seed=1)
    made = si.ExcerptGenerator(clip, si.ExcerptSettings(seconds=0.5), seed=2)
    first = made.take(range(12))
    assert first.shape == (12, 1, 32, 48)
    assert first.dtype == torch.uint8
    assert torch.equal(made.take(torch.tensor([5, 3])), first[[5, 3]])
    assert torch.equal(made.take([11]), first[11:])
    other = si.ExcerptGenerator(clip, si.ExcerptSettings(seconds=0.5), seed=3)
    assert (other.take(range(12)) != first).flatten(1).any(1).all()
    assert other.key != made.key
    assert made.waves(range(3)).shape == (3, 4000)
    batches = si.fresh_batches(made, 4, steps=2)
    assert [x.shape for x, _ in batches] == [(4, 1, 32, 48)] * 2


def test_without_any_change_an_excerpt_is_a_part_of_the_clip():
    clip = synthetic_clip(2, seed=1)
    settings = si.ExcerptSettings(
        seconds=0.25, gain=0.0, stretch=(1.0, 1.0), mixing_probability=0.0, background=0.0
    )
    wave = si.ExcerptGenerator(clip, settings).waves([4])[0]
    windows = clip.unfold(0, len(wave), 1)
    match = torch.nn.functional.cosine_similarity(windows, wave[None])
    assert match.max() == pytest.approx(1, abs=1e-5)


def test_levels_and_mixtures_follow_the_settings():
    clip = torch.randn(40_000, generator=torch.Generator().manual_seed(0)) / 10
    loud = si.ExcerptSettings(seconds=0.25, gain=12.0, mixing_probability=0.0, background=0.0)
    waves = si.ExcerptGenerator(clip, loud).waves(range(300))
    levels = 20 * (waves.square().mean(1).sqrt() / clip.square().mean().sqrt()).log10()
    assert stats.kstest(((levels + 12) / 24).numpy(), "uniform").pvalue > 0.001
    assert levels.abs().max() < 12.1


def test_mixtures_and_backgrounds_follow_the_settings():
    clip = torch.randn(40_000, generator=torch.Generator().manual_seed(0)) / 10
    plain = si.ExcerptSettings(
        seconds=0.25, gain=0.0, stretch=(1.0, 1.0), mixing_probability=0.0, background=0.0
    )
    level = clip.square().mean().sqrt()

    def waves(**changes):
        return si.ExcerptGenerator(clip, replace(plain, **changes)).waves(range(300)) / level

    alone = waves()
    torch.testing.assert_close(alone.square().mean(1), torch.ones(300))
    mixed = waves(mixing_probability=1.0)
    # Two parts of a clip of noise are nearly orthogonal: the share is the projection.
    share = (mixed * alone).mean(1)
    assert stats.kstest((2 * share - 1).numpy(), "uniform").statistic < 0.15
    rest = (mixed - share[:, None] * alone).square().mean(1).sqrt()
    torch.testing.assert_close(rest, 1 - share, atol=0.1, rtol=0)
    some = (waves(mixing_probability=0.3) != alone).any(1)
    assert some.float().mean() == pytest.approx(0.3, abs=0.08)
    noise = (waves(background=0.5) - alone).square().mean(1).sqrt()
    assert stats.kstest((noise / 0.5).numpy(), "uniform").statistic < 0.1


def test_a_long_clip_is_measured_once_and_never_copied_whole():
    clip = torch.linspace(-1, 1, 1_000_000)
    made = si.ExcerptGenerator(clip, si.ExcerptSettings(seconds=0.25))
    tracemalloc.start()
    try:
        waves = made.waves(range(3))
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    made.level *= 2
    torch.testing.assert_close(made.waves(range(3)), 2 * waves)


def test_recordings_become_images_of_a_dataset():
    recordings = synthetic_recordings(20, 10)
    data = si.spectrogram_dataset(recordings)
    assert data.x_train.shape == (20, 1, 32, 78)
    assert data.class_names == recordings.class_names
    assert not data.flips
    same = data.x_train[recordings.y_train == 0].float()
    assert same.std() > 10
    with pytest.raises(ValueError, match="spectrograms' 16000 samples a second; got 8000"):
        si.spectrogram_dataset(recordings, si.Spectrogram(rate=16000))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: si.ExcerptGenerator(torch.zeros(500)), r"shorter than one excerpt.*got 500"),
        (lambda: si.ExcerptGenerator(torch.zeros(2, 50000)), r"floating point \(samples,\)"),
        (lambda: si.ExcerptGenerator(torch.full((50000,), np.nan)), "clip must be finite"),
        (lambda: si.ExcerptSettings(seconds=0), "seconds must be greater than 0"),
        (lambda: si.ExcerptSettings(stretch=(1.2, 0.8)), "upper end of stretch must be at least 1"),
        (lambda: si.ExcerptSettings(mixing_probability=2), "mixing_probability must be between"),
        (
            lambda: si.log_mel(torch.zeros(2, 100)),
            "samples of a wave must be at least 200; got 100",
        ),
        (lambda: si.log_mel(torch.zeros(300)), r"floating point \(batch, samples\)"),
        (lambda: si.Spectrogram(fft=100), "fft must be at least 200; got 100"),
        (lambda: si.Spectrogram(highest=5000), "highest must be between 60.0 and 4000.0"),
        (lambda: si.mel_filterbank(si.Spectrogram(bands=128)), "every band must hold a frequency"),
    ],
)
def test_bad_sounds_are_refused_in_one_line(call, words):
    with pytest.raises(ValueError, match=words) as error:
        call()
    assert "\n" not in str(error.value)


def test_recordings_must_fit_together():
    x, y = torch.zeros(3, 10), torch.zeros(3, dtype=torch.int64)
    with pytest.raises(ValueError, match="labels in y_test must be from 0 to 0; got 1 to 1"):
        Recordings("own", x, y, x, y + 1, ("a",), 8000)
