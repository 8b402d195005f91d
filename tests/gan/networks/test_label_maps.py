"""One-hot label maps and edges of instances."""

import pytest
import torch

from smallnets.gan.networks.label_maps import instance_edges, one_hot_labels


def test_both_sides_of_an_edge_are_marked():
    instances = torch.tensor([[1, 1, 2], [1, 1, 2], [1, 1, 1]])[None, None]
    expected = torch.tensor([[0, 1, 1], [0, 1, 1], [0, 0, 1]]).float()
    assert torch.equal(instance_edges(instances)[0, 0], expected)
    with pytest.raises(ValueError, match=r"\(batch, 1, height, width\)"):
        instance_edges(instances[0])


def test_channels_are_classes_do_not_care_and_edges():
    labels = torch.tensor([[[0, 1], [255, 2]]])
    found = one_hot_labels(labels, 3, torch.zeros(1, 1, 2, 2, dtype=torch.long), dont_care=255)
    assert found.shape == (1, 5, 2, 2)
    assert (found[:, :4].sum(1) == 1).all()
    assert found[0, 3].tolist() == [[0, 0], [1, 0]]
    assert (found[:, 4] == 0).all()
    assert torch.equal(one_hot_labels(labels[:, None], 256), one_hot_labels(labels, 256))


def test_wrong_labels_are_refused():
    with pytest.raises(ValueError, match="from 0 to 2; got 3"):
        one_hot_labels(torch.tensor([[[0, 3]]]), 3)
    with pytest.raises(ValueError, match="from 0 to 2; got -1"):
        one_hot_labels(torch.tensor([[[0, -1]]]), 3)
    with pytest.raises(ValueError, match="from 0 to 2 or 255; got 3"):
        one_hot_labels(torch.tensor([[[255, 3]]]), 3, dont_care=255)
    with pytest.raises(ValueError, match="whole numbers"):
        one_hot_labels(torch.zeros(1, 2, 2), 3)
    with pytest.raises(ValueError, match="whole numbers"):
        one_hot_labels(torch.zeros(2, 2, dtype=torch.long), 3)
    with pytest.raises(ValueError, match=r"instance maps must be \(1, 1, 1, 2\)"):
        one_hot_labels(torch.tensor([[[0, 1]]]), 3, torch.zeros(1, 1, 2, 2, dtype=torch.long))
