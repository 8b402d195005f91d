"""Every chapter runs: as it stands, on other data, twice alike, and not on nonsense."""

from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.chapters
UNPAIRED = Path(__file__).parents[2] / "chapters" / "07_gan_compression.ipynb"


@pytest.fixture(scope="module")
def grey_file(tmp_path_factory):
    """Three hundred grey 28x28 images of five classes, in a file of one's own, and pairs: forty of
    them and their negatives.
    """
    generator = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 220), ("test", 80)):
        labels = np.arange(count) % 5
        images = generator.integers(0, 100, (count, 28, 28), dtype=np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[5 * label : 5 * label + 6] += 150
        arrays |= {f"x_{part}": images, f"y_{part}": labels}
        arrays |= {f"a_{part}": images[:40], f"b_{part}": 255 - images[:40]}
    path = tmp_path_factory.mktemp("data") / "grey.npz"
    np.savez(path, **arrays)
    return path


def test_every_cell_runs_at_the_scale_smoke(notebook, start):
    record = start(notebook, scale="smoke")
    assert record["measurements"]
    assert {claim["verdict"] for claim in record["claims"]} <= {"not judged", "not at this scale"}
    assert len(record["claims"]) >= 4


def test_a_kernel_and_this_process_give_the_same_numbers(first_notebook, run, start):
    notebook = first_notebook
    kernel, here = run(notebook, scale="smoke"), start(notebook, scale="smoke")
    assert kernel["measurements"] == here["measurements"]
    assert kernel["arithmetic"] == here["arithmetic"]


def test_grey_images_of_another_size_from_a_file(notebook, start, grey_file):
    record = start(notebook, scale="smoke", dataset=f"npz:{grey_file}")
    assert record["dataset"] == "npz:grey.npz"
    measured = record["measurements"]
    judged = measured["accuracy" if "accuracy" in measured else "distance"]
    assert all(np.isfinite(list(judged.values())).flat)


def test_two_sets_that_are_no_pairs(start, grey_file):
    record = start(UNPAIRED, scale="smoke", dataset=f"npz:{grey_file}", paired=False)
    error = record["measurements"]["error"]
    assert error["cycle teacher"] == [0.0]  # it is the distance from that network's images
    assert min(*error["GAN only"], *error["pseudo pairs"], *error["compressed"]) > 0


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"dataset": "cats"}, "dataset must be one of (glyphs10|scenes), .*; got 'cats'"),
        ({"scale": "huge"}, "scale must be one of smoke, small, evidence, paper; got 'huge'"),
        ({"seeds": -1}, "seeds must be at least 1; got -1"),
        ({"device": "tpu"}, "device must be one of auto, cpu, cuda; got 'tpu'"),
        ({"precision": "half"}, "precision must be one of auto, 32-true, bf16-mixed; got 'half'"),
        ({"output_dir": ""}, "output_dir must name a folder; got an empty string"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_nonsense_is_refused_in_one_line_before_any_training(
    notebook, start, parameters, message, monkeypatch
):
    monkeypatch.setattr("smallnets.training.loop.order_of_images", None)  # nobody gets to train
    with pytest.raises(ValueError, match=message) as error:
        start(notebook, **{"scale": "smoke", **parameters})
    assert "\n" not in str(error.value)


def test_files_that_cannot_be_used_are_refused(notebook, start, grey_file, tmp_path):
    arrays = dict(np.load(grey_file))
    for name in ("y_test", "b_test"):
        arrays.pop(name)
    np.savez(tmp_path / "incomplete.npz", **arrays)
    with pytest.raises(ValueError, match=r"y_test|b_test") as error:
        start(notebook, scale="smoke", dataset=f"npz:{tmp_path / 'incomplete.npz'}")
    assert "\n" not in str(error.value)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.npz"):
        start(notebook, scale="smoke", dataset="npz:nowhere.npz")


def test_unknown_parameters_are_refused(notebook, run):
    with pytest.raises(ValueError, match=r"has the parameters .*dataset.*; got temprature"):
        run(notebook, scale="smoke", temprature=3)
