from io import BytesIO
from zipfile import ZipFile

import numpy as np
import pytest
import torch

from smallnets.data import load, npz_dataset

rng = np.random.default_rng(0)


def arrays(**change):
    content = {
        "x_train": rng.integers(0, 256, (6, 4, 5, 3), dtype=np.uint8),
        "y_train": np.array([0, 2, 1, 0, 1, 2]),
        "x_test": rng.integers(0, 256, (3, 4, 5, 3), dtype=np.uint8),
        "y_test": np.array([2, 0, 0]),
    } | change
    return {key: array for key, array in content.items() if array is not None}


@pytest.fixture
def save(tmp_path):
    def write(**change):
        file = tmp_path / "mine.npz"
        np.savez(file, **arrays(**change))
        return file

    return write


def test_reads_colour_images_in_the_order_of_the_file(save):
    content = arrays()
    data = load(f"npz:{save(**content)}")
    assert data.x_train.shape == (6, 3, 4, 5)
    assert np.array_equal(data.x_train.permute(0, 2, 3, 1).numpy(), content["x_train"])
    assert data.y_train.tolist() == [0, 2, 1, 0, 1, 2]
    assert data.y_test.tolist() == [2, 0, 0]
    assert data.class_names == ("0", "1", "2")
    assert data.x_train.is_contiguous()


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((4, 5), (1, 4, 5)),
        ((4, 5, 1), (1, 4, 5)),
        ((4, 5, 3), (3, 4, 5)),
        ((1, 4, 5), (1, 4, 5)),
        ((3, 4, 5), (3, 4, 5)),
        ((3, 4, 3), (3, 3, 4)),
    ],
)
def test_takes_every_layout(save, shape, expected):
    file = save(
        x_train=rng.integers(0, 256, (6, *shape), dtype=np.uint8),
        x_test=rng.integers(0, 256, (3, *shape), dtype=np.uint8),
    )
    assert npz_dataset(file).x_train.shape == (6, *expected)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_takes_floating_point_images_from_zero_to_one(save, dtype):
    grey = rng.integers(0, 256, (6, 4, 5, 3))
    file = save(x_train=(grey / 255).astype(dtype))
    found = npz_dataset(file).x_train.permute(0, 2, 3, 1).numpy()
    assert np.abs(found - grey).max() == 0


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint64, np.int16])
def test_takes_labels_of_any_integer_type_and_as_a_column(save, dtype):
    file = save(y_train=np.array([[0], [2], [1], [0], [1], [2]], dtype=dtype))
    data = npz_dataset(file)
    assert data.y_train.dtype == torch.int64
    assert data.y_train.tolist() == [0, 2, 1, 0, 1, 2]


def test_takes_class_names(save):
    assert npz_dataset(save(class_names=np.array(["ant", "bee", "cat"]))).class_names[1] == "bee"


def test_flips_are_off_unless_asked_for(save):
    file = save()
    assert not load(f"npz:{file}").flips
    assert load(f"npz:{file}", flips=True).flips
    assert npz_dataset(file, flips=True).flips


def test_prefix_of_a_file(save):
    data = load(f"npz:{save()}", train=4, test=1)
    assert data.y_train.tolist() == [0, 2, 1, 0]
    assert data.y_test.tolist() == [2]
    assert data.num_classes == 3


def test_sorted_files_are_shuffled_so_that_a_prefix_is_a_sample(tmp_path):
    y = np.repeat(np.arange(5), 40)
    x = np.broadcast_to(y[:, None, None].astype(np.uint8), (200, 2, 2))
    np.savez(tmp_path / "sorted.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    data = npz_dataset(tmp_path / "sorted.npz")
    assert len(data.y_train[:40].unique()) == 5
    assert torch.equal(data.x_train[:, 0, 0, 0].long(), data.y_train)
    assert npz_dataset(tmp_path / "sorted.npz").key == data.key


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no data file .*none\.npz; expected an \.npz"):
        load(f"npz:{tmp_path}/none.npz")


def test_missing_arrays_are_named(save):
    file = save(y_train=None, x_test=None)
    with pytest.raises(ValueError, match="lacks y_train, x_test; it needs x_train, y_train"):
        npz_dataset(file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x_train": np.zeros((6, 4), np.uint8)}, r"x_train must have shape .*uint8 \(6, 4\)"),
        ({"x_train": np.zeros((6, 4, 5, 2), np.uint8)}, "with 1 or 3 channels"),
        ({"x_test": np.zeros((3, 2, 4, 5, 3), np.uint8)}, "x_test must have shape"),
        ({"x_test": np.zeros((3, 5, 5, 3), np.uint8)}, "images of one shape"),
        ({"x_test": np.zeros((3, 4, 5), np.uint8)}, "images of one shape"),
        ({"x_train": np.zeros((0, 4, 5, 3), np.uint8)}, "x_train is empty"),
        ({"x_train": np.zeros((6, 4, 5, 3), np.int64)}, "x_train must be uint8, or floating"),
        ({"x_train": np.full((6, 4, 5, 3), 255.0)}, "from 0 to 1; got 255 to 255"),
        ({"x_train": np.full((6, 4, 5, 3), np.nan)}, "finite and from 0 to 1; got nan"),
        ({"x_test": np.full((3, 4, 5, 3), np.inf)}, "finite and from 0 to 1; got inf"),
        ({"y_train": np.array([0, 1, 2])}, "x_train has 6 images but y_train 3 labels"),
        ({"y_test": np.array([0, 1, 2, 0])}, "x_test has 3 images but y_test 4 labels"),
        ({"y_train": np.zeros(6)}, "y_train must be whole numbers of shape"),
        ({"y_train": np.zeros((6, 3), int)}, r"y_train must be whole .*\(6, 3\)"),
        ({"y_test": np.zeros(0, int)}, "y_test must be whole numbers of shape"),
        ({"y_train": np.array([0, -1, 1, 0, 1, 2])}, "y_train must be 0 or greater; got -1"),
        ({"y_train": np.array([0, 3, 1, 0, 1, 3])}, "the largest is 3 and there is no 2"),
        ({"y_test": np.array([0, 1, 3])}, "y_test must be among the training labels, 0 to 2"),
        ({"class_names": np.array(["ant"])}, "class_names must be 3 strings"),
        ({"class_names": np.array([1, 2, 3])}, "class_names must be 3 strings"),
        ({"y_train": np.array([0, None] * 3, dtype=object)}, "cannot be read"),
    ],
)
def test_wrong_content_is_refused_in_one_line(save, change, message):
    with pytest.raises(ValueError, match=message) as error:
        npz_dataset(save(**change))
    assert "\n" not in str(error.value)


def test_damaged_and_foreign_files(save, tmp_path):
    text = tmp_path / "text.npz"
    text.write_text("hello", encoding="utf-8")
    with pytest.raises(ValueError, match=r"is no \.npz file"):
        npz_dataset(text)
    file = save()
    content = bytearray(file.read_bytes())
    content[400] ^= 255
    file.write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read"):
        npz_dataset(file)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_whatever_bit_flips_the_error_is_one_line(tmp_path, write):
    file = tmp_path / "mine.npz"
    write(file, **arrays())
    raw = file.read_bytes()
    refusals = []
    for bit in range(0, 8 * len(raw), 53):
        data = bytearray(raw)
        data[bit // 8] ^= 1 << bit % 8
        file.write_bytes(bytes(data))
        try:
            npz_dataset(file)
        except ValueError as error:
            refusals.append(str(error))
    assert len(refusals) > 20
    assert not any("\n" in text for text in refusals)


def test_a_header_that_claims_a_huge_array_is_a_damaged_file(tmp_path):
    header = BytesIO()
    claim = {"descr": "|u1", "fortran_order": False, "shape": (10**14,)}
    np.lib.format.write_array_header_1_0(header, claim)
    with ZipFile(tmp_path / "mine.npz", "w") as archive:
        archive.writestr("x_train.npy", header.getvalue())
    with pytest.raises(ValueError, match=r"mine\.npz cannot be read: ") as error:
        npz_dataset(tmp_path / "mine.npz")
    assert "\n" not in str(error.value)


def test_a_home_folder_that_nobody_knows_is_one_line():
    with pytest.raises(ValueError, match=r"the home folder of ~nobody-here/x\.npz is not known"):
        load("npz:~nobody-here/x.npz")


@pytest.mark.parametrize("name", ["a{b}.npz", "50 %.npz", "with space #2.npz", "größe.npz"])
def test_any_name_of_a_file_will_do(tmp_path, name):
    np.savez(tmp_path / name, **arrays())
    assert load(f"npz:{tmp_path / name}").x_train.shape == (6, 3, 4, 5)


@pytest.mark.parametrize("given", [10, None, 0.5, True])
def test_a_data_set_that_is_no_name_is_refused_in_one_line(given):
    with pytest.raises(ValueError, match=f"dataset must be one of glyphs10, .*; got {given}"):
        load(given)


def test_one_pixel_one_channel_and_one_class(tmp_path):
    x, y = np.arange(4, dtype=np.uint8).reshape(4, 1, 1), np.zeros(4, int)
    np.savez(tmp_path / "least.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    data = load(f"npz:{tmp_path}/least.npz")
    assert (data.channels, data.size, data.num_classes) == (1, (1, 1), 1)
    assert data.normalise(data.x_train).isfinite().all()
