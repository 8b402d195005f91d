import pytest
import torch
from torchvision.models import get_model

from smallnets.measure import macs, parameters
from smallnets.prune.importance import PUBLISHED
from smallnets.prune.importance.arithmetic import REPORTED, concentrated, counted, even, explain
from smallnets.prune.importance.surgery import remove


@pytest.fixture(scope="module")
def fifty():
    return counted("resnet50")


def test_published_gates_and_sizes(fifty):
    assert (fifty.gates, fifty.costs.macs(), fifty.costs.parameters()) == (
        11392,
        4_089_184_256,
        25_557_032,
    )
    inner = sum(fifty.prunable[n] for part, names in fifty.parts.items() if "inner" in part
                for n in names)  # fmt: skip
    assert (inner, fifty.gates - inner) == (7552, 3840)


def test_shares_of_gates_are_those_of_the_schedules():
    """All but one of the published schedules leave the share that they are named by."""
    for network, gates in (("resnet50", 11392), ("resnet101", 20096)):
        for share, schedule in PUBLISHED[network].items():
            left = 1 - schedule.limit / gates
            assert schedule.limit == schedule.remove * schedule.prunings
            assert (abs(left - share) < 0.006) is (share != 0.56)
        assert PUBLISHED[network].keys() == REPORTED[network].keys()


def test_even_and_concentrated_shares_remove_as_many_as_asked(fifty):
    for shares in (even(fifty, 1000), concentrated(fifty, "stage 4 inner", 1000)):
        gone = fifty.gates - sum(fifty.kept(shares).values())
        assert gone == pytest.approx(1000)
    assert fifty.by_part(concentrated(fifty, "stage 4 inner", 1536))["stage 4 inner"] == 0.5
    assert fifty.priced(even(fifty, 0)) == (4.089184256, 25.557032)


def test_an_explanation_meets_its_numbers_and_the_real_network_agrees(fifty):
    gone, (work, size) = PUBLISHED["resnet50"][0.72].limit, REPORTED["resnet50"][0.72]
    shares = explain(fifty, gone, work, size)
    assert fifty.priced(shares) == pytest.approx((work, size), rel=1e-3)
    assert fifty.gates - sum(fifty.kept(shares).values()) == pytest.approx(gone, rel=1e-3)
    masks = fifty.masks(shares)
    network = get_model("resnet50", weights=None).eval()
    smaller = remove(network, fifty.groups, masks, torch.randn(1, 3, 32, 32))
    left = {name: int(mask.sum()) for name, mask in masks.items()}
    assert (
        parameters(smaller) == fifty.costs.parameters(left) == pytest.approx(1e6 * size, rel=0.01)
    )
    assert macs(smaller.to("meta"), (3, 224, 224)) == fifty.costs.macs(left)


def test_rounding_decides_no_channel_of_an_explanation():
    network = counted("resnet101")
    gone, (work, size) = PUBLISHED["resnet101"][0.75].limit, REPORTED["resnet101"][0.75]
    first, *others = (
        network.masks(explain(network, gone, work * (1 + off), size)) for off in (0, 1e-10, -1e-10)
    )
    for other in others:
        assert all(torch.equal(mask, other[name]) for name, mask in first.items())


def test_what_cannot_be_has_no_explanation(fifty):
    assert explain(fifty, 1000, 0.5, 25.0) is None


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda net: counted("resnet18"), "network must be one of resnet50, resnet101"),
        (lambda net: even(net, 11392), "gone must be between 0 and 11391; got 11392"),
        (lambda net: concentrated(net, "stage 5", 1), "part must be one of stage 1 inner"),
        (lambda net: concentrated(net, "stage 1 stream", 256), "between 0 and 255; got 256"),
    ],
)
def test_bad_inputs_are_refused(fifty, action, message):
    with pytest.raises(ValueError, match=message):
        action(fifty)
