import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from smallnets.measure import accuracy, macs
from smallnets.prune.structured import AllExits, EarlyExit, exit_macs, exit_report
from smallnets.training import fit


def exits(network, example, **settings):
    return EarlyExit(network, ["norm", "conv1"], example, **settings)


def test_the_threshold_decides_where_images_leave(network, example):
    early = exits(network, example, threshold=0.0).eval()
    logits, taken = early.leaving(example)
    assert taken.tolist() == [0] * 4
    every = early(example, True)
    assert len(every) == 3
    assert torch.equal(logits, every[0])
    early.threshold = 1.1
    logits, taken = early.leaving(example)
    assert taken.tolist() == [2] * 4
    assert torch.equal(early(example), network(example))
    assert torch.equal(every[-1], network(example))


def test_every_image_takes_the_first_sure_answer(network, example):
    early = exits(network, example).eval()
    with torch.no_grad():
        early.heads[0].linear.weight.mul_(6)
        every = torch.stack(early(example, True))
        sure = every.softmax(2).amax(2)
        early.threshold = float(sure[0].sort().values[1:3].mean())
        logits, taken = early.leaving(example)
        assert sorted(taken.tolist())[:2] == [0, 0] != sorted(taken.tolist())[2:]
        for image, place in enumerate(taken.tolist()):
            assert torch.equal(logits[image], every[place, image])
            assert place == 2 or sure[place, image] >= early.threshold
            assert (sure[:place, image] < early.threshold).all()
        alone = torch.cat([early(one[None]) for one in example])
        torch.testing.assert_close(alone, logits)


def test_what_comes_after_the_last_image_has_left_is_not_computed(network, example):
    early, ran = exits(network, example, threshold=0.0).eval(), []
    network.conv2.register_forward_hook(lambda *_: ran.append("conv2"))
    early(example)
    assert ran == []
    early.threshold = 1.1
    early(example)
    assert ran == ["conv2"]


def test_multiply_adds_up_to_each_exit(network, example):
    early = exits(network, example)
    stem, conv1 = 64 * 27 * 6, 64 * 54 * 5
    found = exit_macs(early, (3, 8, 8))
    assert found[:2] == (stem + 18, stem + 18 + conv1 + 15)
    assert found[2] == macs(network, (3, 8, 8)) + 18 + 15


def test_exits_learn_and_the_report_counts_what_they_save(network, example, batches, settings):
    early = exits(network, example, threshold=0.5)
    history = fit(early, batches, settings, seed=0, objective=AllExits())
    assert history[-1].keys() == {"loss", "end", "exit norm", "exit conv1"}
    assert history[-1]["exit norm"] < history[0]["exit norm"]
    report = exit_report(early, batches)
    assert sum(report.shares) == pytest.approx(1)
    assert report.macs == exit_macs(early, (3, 8, 8))
    by_hand = sum(s * m for s, m in zip(report.shares, report.macs, strict=True))
    assert report.average_macs == pytest.approx(by_hand)
    assert report.macs[0] <= report.average_macs <= report.macs[-1]
    images, labels = (torch.cat(side) for side in zip(*batches, strict=True))
    logits, taken = early.eval().leaving(images)
    assert report.accuracy == pytest.approx((logits.argmax(1) == labels).float().mean().item())
    assert report.shares[0] == pytest.approx((taken == 0).float().mean().item())
    loader = DataLoader(TensorDataset(images, labels), batch_size=7)
    other = exit_report(early.train(), loader)
    assert other.shares == pytest.approx(report.shares)
    assert early.training
    assert exit_report(early, iter(batches)) == report
    early.threshold = 1.1
    assert exit_report(early, batches).average_macs == report.macs[-1]
    assert accuracy(early.eval()(images), labels) == accuracy(early.network(images), labels)


def test_exits_start_alike_and_leave_global_random_numbers_alone(network, example):
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    first, second = exits(network, example), exits(network, example)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(first.heads[0].linear.weight, second.heads[0].linear.weight)
    half = exits(network.to(torch.bfloat16), example.bfloat16()).eval()
    assert half(example.bfloat16()).dtype == torch.bfloat16


class Sum(nn.Module):
    def forward(self, x):
        return x.sum(0)


REFUSED = {
    "no layer": (lambda n, x: EarlyExit(n, [], x), "layers must be at least one"),
    "unknown": (lambda n, x: EarlyExit(n, ["body"], x), "body"),
    "order": (
        lambda n, x: EarlyExit(n, ["conv1", "norm"], x),
        "in which they run, norm, conv1; got conv1, norm",
    ),
    "twice": (lambda n, x: EarlyExit(n, ["norm", "norm"], x), "norm"),
    "threshold": (
        lambda n, x: EarlyExit(n, ["norm"], x, threshold=1.5), "threshold must be between 0 and 1"
    ),
    "example": (lambda n, x: EarlyExit(n, ["norm"], x[:, :2]), "does not take images of shape"),
    "weight": (lambda n, x: AllExits(0.0), "weight must be greater than 0"),
    "not early": (lambda n, x: AllExits()(n, None), "of the class EarlyExit; got Residual"),
    "no batches": (lambda n, x: exit_report(exits(n, x), []), "at least one batch; got none"),
    "seed": (lambda n, x: exits(n, x, seed=-1), "seed must be at least 0"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_bad_inputs(network, example, case):
    function, message = REFUSED[case]
    with pytest.raises(ValueError, match=rf"^[^\n]*{message}[^\n]*$"):
        function(network, example)
