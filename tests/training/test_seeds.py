from dataclasses import dataclass

import pytest
import torch

from smallnets.training import for_seeds, seeded, side_by_side, with_seeds
from smallnets.training.seeds import threads


def test_seeded_draws_are_repeatable_and_leave_no_trace():
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    with seeded(9):
        first = torch.rand(4)
    assert torch.equal(torch.rand(2), expected)
    with seeded(9):
        assert torch.equal(torch.rand(4), first)


def test_results_come_in_the_order_of_the_jobs_each_from_one_thread():
    def describe_job(number: int, scale: int) -> tuple[int, int]:
        return number * scale, torch.get_num_threads()

    jobs = [{"number": number, "scale": 10} for number in range(5)]
    assert side_by_side(describe_job, jobs, workers=2) == [(10 * n, 1) for n in range(5)]
    assert side_by_side(describe_job, jobs[:1], workers=1) == [(0, 1)]
    assert side_by_side(describe_job, []) == []


def test_threads_are_given_back():
    before = torch.get_num_threads()
    with threads(3):
        assert torch.get_num_threads() == 3
    assert torch.get_num_threads() == before


def test_an_error_in_a_job_reaches_the_caller():
    def fail(seed: int) -> None:
        raise ValueError(f"seed {seed} is unlucky")

    with pytest.raises(ValueError, match="seed 0 is unlucky"):
        side_by_side(fail, for_seeds(1), workers=2)


def test_jobs_for_seeds_share_the_rest():
    assert for_seeds(2, size=3) == [{"size": 3, "seed": 0}, {"size": 3, "seed": 1}]


@dataclass(frozen=True)
class Plan:
    seeds: int = 5
    side_seeds: int = 3
    epochs: int = 8


def test_seeds_asked_for_bound_those_of_side_experiments():
    assert with_seeds(Plan(), None) == Plan()
    assert with_seeds(Plan(), 9) == Plan(seeds=9)
    assert with_seeds(Plan(), 2) == Plan(seeds=2, side_seeds=2)
    with pytest.raises(ValueError, match="seeds must be at least 1; got 0"):
        with_seeds(Plan(), 0)
