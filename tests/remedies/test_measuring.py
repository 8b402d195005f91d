"""What judges files."""

import pytest
import torch
from torch import nn

from smallnets.deploy import onnx_runtime
from smallnets.remedies.measuring import judged


def exported(network, shape):
    return onnx_runtime.export(network.eval(), shape)


class Overflows(nn.Module):
    """Finite for small images only."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(4, 2)

    def forward(self, x):
        return self.last(x.exp().exp())


def test_a_file_that_says_no_numbers_is_refused_and_the_others_go_on():
    network = Overflows()
    with torch.no_grad():
        network.last.weight.fill_(0.5)
    files = {
        "original": exported(nn.Sequential(nn.Linear(4, 2)), (4,)),
        "other": exported(network, (4,)),
    }
    batches = [
        (torch.zeros(3, 4), torch.ones(3, dtype=torch.int64)),
        (torch.full((2, 4), 9.0), torch.zeros(2, dtype=torch.int64)),
    ]
    found, refused = judged(files, batches)
    assert list(found) == ["original"]
    assert found["original"].examples == 5
    assert refused == {"other": "it must say finite numbers of the images judged; it does not"}
    with pytest.raises(ValueError, match="the network must say finite numbers of the images"):
        judged(dict(reversed(files.items())), batches)
