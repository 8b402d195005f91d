import pytest
import torch

from smallnets.data import FINE_GROUPS, fine_groups
from smallnets.data.glyphs import CHARACTERS, DIGITS


def test_groups_are_a_partition_of_the_62_characters():
    assert sorted("".join(FINE_GROUPS)) == sorted(CHARACTERS)


@pytest.mark.parametrize("alike", ["OQ0CGco", "Il1J", "B8RP", "S52Zsz", "xX", "VvUu", "Ww", "kK"])
def test_lookalikes_share_a_group(alike):
    labels = torch.tensor([CHARACTERS.index(character) for character in alike])
    assert len(fine_groups(labels).unique()) == 1


def test_labels_become_groups_and_keep_their_shape():
    labels = torch.arange(62).view(2, 31)
    groups = fine_groups(labels)
    assert groups.shape == (2, 31)
    assert groups.dtype == torch.int64
    for label, group in zip(labels.flatten(), groups.flatten(), strict=True):
        assert CHARACTERS[label] in FINE_GROUPS[group]


def test_digits_and_chosen_classes_have_the_groups_of_their_characters():
    labels = torch.arange(10)
    assert torch.equal(fine_groups(labels, tuple(DIGITS)), fine_groups(labels))
    a, b = fine_groups(torch.tensor([0, 1]), ("Q", "8"))
    assert "O" in FINE_GROUPS[a]
    assert "B" in FINE_GROUPS[b]


def test_refuses_classes_that_are_no_characters():
    with pytest.raises(ValueError, match="single letters or digits; got 'horse'"):
        fine_groups(torch.tensor([0]), ("horse",))
