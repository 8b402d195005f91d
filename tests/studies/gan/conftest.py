from dataclasses import replace

import numpy as np
import pytest

from smallnets import gan
from smallnets.studies import gan as study
from smallnets.studies.gan import together


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SMALLNETS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_process():
    """One after the other: at this size a worker's start takes longer than its work."""

    def run(function, jobs, **how):
        return [function(**job) for job in jobs]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(together, "run_parallel", run)
        yield


@pytest.fixture(scope="session")
def opened():
    """Scenes, and settings that take a second."""
    options = study.Options(device="cpu", train=24, test=4, size=16, ngf=2)
    domain, settings = study.prepare("scenes", "smoke", options)
    return domain, replace(
        settings, shares=(1.0, 0.5), coarse=(1.0, 0.5), budget=0.5, average=2, supernets=2,
        search=gan.Evolution(population=2, generations=1), reader_width=2, timed=3, timed_side=16,
        rounds=1, family_train=(20, 20), family_ngf=4,
    )  # fmt: skip


@pytest.fixture(scope="session")
def domain(opened):
    return opened[0]


@pytest.fixture(scope="session")
def quick(opened):
    return opened[1]


@pytest.fixture(scope="session")
def kept(tmp_path_factory):
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(scope="session")
def measured(domain, quick, kept):
    study.train_side_by_side(domain, quick, 0, kept)
    return study.measure(domain, quick, 0, kept)


@pytest.fixture
def own_file(tmp_path):
    """Makes a file of one's own: of one channel, another size, and not square."""

    def make(shape=(30, 20, 16), paired=True):
        count, height, width = shape
        generator = np.random.default_rng(0)
        a = generator.integers(256, size=(count, height, width), dtype=np.uint8)
        b = 255 - a if paired else a[::-1][: count - 2]
        path = tmp_path / "own.npz"
        np.savez(path, a_train=a, b_train=b, a_test=a[:6], b_test=b[: 6 if paired else 5])
        return f"npz:{path}"

    return make
