"""What patches are cut out of."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from smallnets.distill import single_image as si


def test_photographs_and_generated_pictures_by_name():
    assert set(si.source_names()) >= {"astronaut", "noise", "blank", "gradient", "universe"}
    noise = si.source_image("noise", (64, 96), seed=1)
    assert noise.shape == (3, 64, 96)
    assert noise.float().mean() == pytest.approx(127.5, abs=2)
    assert torch.equal(noise, si.source_image("noise", (64, 96), seed=1))
    assert not torch.equal(noise, si.source_image("noise", (64, 96), seed=2))
    assert len(si.source_image("blank", (8, 8)).unique()) == 1
    sky = si.source_image("universe", (256, 256)).float()
    assert (sky.amax(0) < 8).float().mean() > 0.5
    assert sky.max() > 100
    smooth = si.source_image("gradient", (64, 64)).float()
    assert smooth.diff(dim=1).abs().max() < 8
    small = si.source_image("coffee", at_most=100)
    assert max(small.shape[1:]) == 100
    assert si.source_image("coffee").shape[2] == 600
    with pytest.raises(ValueError, match=r"source must be one of .*noise.*file:PHOTO; got 'cofee'"):
        si.source_image("cofee")


def saved(folder, name, pixels, **changes):
    path = folder / name
    Image.fromarray(pixels, **changes).save(path)
    return path


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)


def test_a_file_of_your_own(tmp_path, pixels):
    path = saved(tmp_path, "own.png", pixels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = si.source_image(f"file:{path}")
    assert np.array_equal(found.permute(1, 2, 0).numpy(), pixels)
    assert si.patch_pool(found, 2).shape == (2, 3, 32, 32)


@pytest.mark.parametrize(
    ("convert", "words"),
    [
        (lambda rgb: rgb[:, :, 0], "grey became colour"),
        (lambda rgb: np.dstack([rgb, rgb[:, :, :1]]), "transparency was dropped"),
        (lambda rgb: rgb[:, :, 0].astype(np.uint16) * 257, "16 bits became 8 and grey became col"),
    ],
    ids=["grey", "rgba", "16-bit"],
)
def test_other_kinds_are_converted_and_said_so(tmp_path, pixels, convert, words):
    path = saved(tmp_path, "own.png", convert(pixels))
    with pytest.warns(UserWarning, match=words):
        found = si.source_image(f"file:{path}")
    assert found.dtype == torch.uint8
    assert np.array_equal(found[0].numpy(), pixels[:, :, 0])


def test_pictures_are_upright(tmp_path, pixels):
    picture = Image.fromarray(pixels)
    exif = picture.getexif()
    exif[0x0112] = 6  # the camera was turned
    picture.save(tmp_path / "turned.png", exif=exif)
    assert si.source_image(f"file:{tmp_path / 'turned.png'}").shape == (3, 20, 12)


def test_files_that_are_no_pictures_are_refused_in_one_line(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no photograph .*nothing.jpg"):
        si.source_image(f"file:{tmp_path / 'nothing.jpg'}")
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(ValueError, match=r"text.jpg is no picture that can be read") as error:
        si.source_image(f"file:{tmp_path / 'text.jpg'}")
    assert "\n" not in str(error.value)
    Image.fromarray(np.full((4, 4), np.nan, np.float32)).save(tmp_path / "nan.tiff")
    with pytest.raises(ValueError, match=r"nan.tiff must be finite; got NaN"):
        si.source_image(f"file:{tmp_path / 'nan.tiff'}")


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (torch.zeros(5, 5), r"must be a tensor \(3, height, width\); got \(5, 5\)"),
        (torch.zeros(4, 5, 5), "3 channels, or 1"),
        (torch.zeros(3, 1, 5), "sides of at least 2 pixels"),
        (torch.full((3, 5, 5), float("nan")), "must be finite; got NaN"),
        (torch.full((3, 5, 5), 2.0), "between 0 and 1; got 2 to 2"),
        (torch.zeros(3, 5, 5, dtype=torch.int64), "uint8 or floating point; got torch.int64"),
        ("photo", "must be a tensor .*; got str"),
    ],
)
def test_tensors_that_are_no_photographs_are_refused_in_one_line(image, words):
    with pytest.raises(ValueError, match=words):
        si.PatchGenerator(image)


def test_one_channel_is_repeated_and_unit_numbers_are_grey_levels():
    grey = torch.rand(1, 8, 8)
    found = si.as_photographs(grey)
    assert found.shape == (1, 3, 8, 8)
    assert torch.equal(found[0, 2], (grey[0] * 255).round().to(torch.uint8))


def test_statistics_tell_busy_from_plain_pictures():
    blank, noise, photo = (
        si.source_statistics(si.source_image(name, (128, 128), at_most=128))
        for name in ("blank", "noise", "astronaut")
    )
    assert blank.entropy == 0
    assert blank.edge_density == 0
    assert blank.colourfulness == 0
    assert 7 < noise.entropy < 8
    assert blank.jpeg_bytes < photo.jpeg_bytes < noise.jpeg_bytes
    assert blank.edge_density < photo.edge_density < noise.edge_density
    assert photo.pixels == 128 * 128
    with pytest.raises(ValueError, match="statistics are of one picture; got 2"):
        si.source_statistics(torch.zeros(2, 3, 8, 8))
