import pytest
import torch
from scipy import stats

from smallnets.distill.matching import mix, mixing_share, mixup


def test_one_share_for_all_tensors(generator):
    x = torch.rand(6, 3, 4, 4)
    a, b, share = mixup(x, 2 * x, generator=generator)
    torch.testing.assert_close(2 * a, b)
    torch.testing.assert_close(a, share * x + (1 - share) * x.roll(1, 0))
    torch.testing.assert_close(a.mean(dim=0), x.mean(dim=0))  # the batch keeps its mean


def test_a_share_of_one_changes_nothing(generator):
    x = torch.rand(5, 2)
    assert torch.equal(mix(x, 1.0), x)
    assert torch.equal(mixup(x, alpha=0, generator=generator)[0], x)
    assert torch.equal(mix(x[:1], 0.7), x[:1])  # a batch of one mixes with itself


def test_shares_are_beta_folded_at_a_half(generator):
    drawn = torch.stack([mixing_share(1.0, 4, generator) for _ in range(1500)]).numpy()
    assert drawn.min() >= 0.5
    assert stats.kstest(drawn, stats.uniform(0.5, 0.5).cdf).pvalue > 1e-3
    each = mixing_share(0.5, 5000, generator, per_image=True).numpy()
    beta = stats.beta(0.5, 0.5)
    assert stats.kstest(each, lambda a: beta.cdf(a) - beta.cdf(1 - a)).pvalue > 1e-3


def test_a_share_for_every_image(generator):
    x = torch.rand(4, 3, 2, 2)
    mixed, shares = mixup(x, per_image=True, generator=generator)
    assert shares.shape == (4,)
    for i in range(4):
        torch.testing.assert_close(mixed[i], shares[i] * x[i] + (1 - shares[i]) * x[i - 1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g: mixup(generator=g), "must share one batch .* got batches of nothing"),
        (lambda g: mixup(torch.rand(2), torch.rand(3), generator=g), r"got batches of \[2, 3\]"),
        (lambda g: mixup(torch.rand(0, 3), generator=g), r"not empty; got batches of \[0\]"),
        (lambda g: mixing_share(-1, 2, g), "alpha must be at least 0; got -1"),
        (lambda g: mix(torch.rand(2), 1.5), "share must be between 0 and 1; got 1.5"),
        (lambda g: mix(torch.rand(2), torch.rand(3)), r"share must be one number or 2; got \(3,\)"),
    ],
)
def test_bad_inputs_are_named(call, message, generator):
    with pytest.raises(ValueError, match=message):
        call(generator)
