"""Groups, masks and removal, on networks of many kinds."""

import warnings

import pytest
import torch
import torchvision
from torch import nn

from smallnets.measure import macs, parameters
from smallnets.models import cifar_resnet, convnet
from smallnets.prune.importance import coupled_scores, gate_free_gradients, kept_units, scores
from smallnets.prune.importance.groups import channel_groups
from smallnets.prune.importance.pruning import all_open
from smallnets.prune.importance.surgery import costs, masked, masks_keeping, remove

# Of every family of torchvision's classification networks the smallest, side of its images, and
# settings.
PLAIN = {"init_weights": False}
FAMILIES = {
    "alexnet": ("alexnet", 64, {}),
    "convnext": ("convnext_tiny", 32, {}),
    "densenet": ("densenet121", 32, {}),
    "efficientnet_b": ("efficientnet_b0", 32, {}),
    "efficientnet_v2": ("efficientnet_v2_s", 32, {}),
    "googlenet": ("googlenet", 32, PLAIN),
    "inception": ("inception_v3", 80, PLAIN),
    "maxvit": ("maxvit_t", 224, {}),
    "mnasnet": ("mnasnet0_5", 32, {}),
    "mobilenet_v2": ("mobilenet_v2", 32, {}),
    "mobilenet_v3": ("mobilenet_v3_small", 32, {}),
    "regnet_x": ("regnet_x_400mf", 32, {}),
    "regnet_y": ("regnet_y_400mf", 32, {}),
    "resnet": ("resnet18", 32, {}),
    "resnext": ("resnext50_32x4d", 32, {}),
    "shufflenet": ("shufflenet_v2_x0_5", 32, {}),
    "squeezenet": ("squeezenet1_1", 32, {}),
    "swin_v2": ("swin_v2_t", 32, {}),
    "swin": ("swin_t", 32, {}),
    "vgg": ("vgg11_bn", 32, PLAIN),
    "vit": ("vit_b_16", 32, {"image_size": 32}),
    "wide_resnet": ("wide_resnet50_2", 32, {}),
}


def shaken(network, seed=0):
    """Norms and biases with values that a removal would get wrong if it forgot them."""
    noise = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5, generator=noise)
            module.bias.data.uniform_(-0.5, 0.5, generator=noise)
            module.running_mean.uniform_(-0.3, 0.3, generator=noise)
    return network.eval()


def at_random(groups, share=0.3, seed=0):
    noise = torch.Generator().manual_seed(seed)
    masks = {n: (torch.rand(g.size, generator=noise) > share).float() for n, g in groups.items()}
    for mask in masks.values():
        mask[0] = 1
    return masks


def test_every_classification_network_of_torchvision_has_its_family_here():
    names = torchvision.models.list_models(module=torchvision.models)
    assert len(names) > 70
    assert [name for name in names if not name.startswith(tuple(FAMILIES))] == []


@pytest.mark.parametrize("family", FAMILIES)
def test_removal_is_masking_and_costs_are_counted_for_networks_of_torchvision(family):
    name, side, options = FAMILIES[family]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        network = torchvision.models.get_model(name, weights=None, num_classes=7, **options)
    shaken(network)
    images = torch.randn(1 if side > 100 else 2, 3, side, side)
    groups = channel_groups(network, images)
    masks, prices = at_random(groups), costs(network, groups, images)
    smaller = remove(network, groups, masks, images)  # compares logits by itself
    with torch.no_grad(), masked(network, groups, masks):
        expected = network(images)
        logits = smaller(images)
    assert logits.shape == (len(images), 7)
    assert torch.allclose(logits, expected, rtol=1e-3, atol=1e-3 * expected.abs().max())
    shape = (3, side, side)
    assert prices.macs() == macs(network, shape)
    assert prices.parameters() == parameters(network)
    assert prices.macs(kept_units(masks)) == macs(smaller, shape) < macs(network, shape)
    assert prices.parameters(kept_units(masks)) == parameters(smaller) < 0.9 * parameters(network)


def test_flattened_maps_and_layers_without_norms():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(72, 10),
        nn.ReLU(), nn.Linear(10, 5),
    )  # fmt: skip
    images = torch.randn(4, 3, 8, 8)
    groups = channel_groups(network, images)
    assert {name: group.size for name, group in groups.items()} == {"0": 8, "4": 10}
    masks = {"0": torch.tensor([1, 0, 1, 1, 0, 1, 1, 1.0]), "4": (torch.arange(10) < 7).float()}
    smaller = remove(network, groups, masks, images)
    assert smaller[4].weight.shape == (7, 54)
    with masked(network, groups, masks):
        assert torch.allclose(network(images), smaller(images), atol=1e-6)
    assert costs(network, groups, images).parameters(kept_units(masks)) == parameters(smaller)


def test_double_precision_agrees_to_the_last_digits():
    network = shaken(cifar_resnet(8, 5, width=4).double())
    images = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    groups = channel_groups(network, images)
    masks = at_random(groups)
    smaller = remove(network, groups, masks, images)
    with masked(network, groups, masks):
        assert torch.allclose(network(images), smaller(images), atol=1e-12)


def test_the_original_stays_and_the_copy_can_be_trained_and_stored():
    network = shaken(cifar_resnet(8, 5, width=4))
    images = torch.randn(4, 3, 8, 8)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    groups = channel_groups(network, images)
    smaller = remove(network, groups, at_random(groups), images)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    smaller.train()(images).square().mean().backward()
    torch.optim.SGD(smaller.parameters(), 0.1).step()
    other = remove(network, groups, at_random(groups), images)
    other.load_state_dict(smaller.state_dict())
    assert torch.equal(other.eval()(images), smaller.eval()(images))


def test_frozen_networks_have_groups_too():
    network = cifar_resnet(8, 5, width=4).requires_grad_(False)
    assert len(channel_groups(network, torch.randn(1, 3, 8, 8))) == 6
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_ignored_layers_keep_their_channels():
    network = convnet(4, 5)
    images = torch.randn(1, 3, 8, 8)
    assert set(channel_groups(network, images)) == {f"stage{i}.conv" for i in (1, 2, 3)}
    assert set(channel_groups(network, images, ["stage1.conv"])) == {"stage2.conv", "stage3.conv"}


class Reshaped(nn.Module):
    """Reads its channels in a way that no graph understands."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 6, 1), nn.Linear(6, 2)

    def forward(self, x):
        x = self.first(x).flatten(2).sum(2)
        return self.last(x.reshape(-1, 3, 2).transpose(1, 2).reshape(-1, 6))


NETWORK = cifar_resnet(8, 5, width=4).eval()
IMAGES = torch.randn(2, 3, 8, 8)
GROUPS = channel_groups(NETWORK, IMAGES)


def removed(masks):
    return remove(NETWORK, GROUPS, masks, IMAGES)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda: removed({"conv9": torch.ones(4)}), "group must be one of"),
        (lambda: removed({"conv": torch.ones(5)}), r"'conv' must have shape \(4,\); got \(5,\)"),
        (lambda: removed({"conv": torch.zeros(4)}), "must keep at least one channel; it keeps"),
        (lambda: masks_keeping({"conv": []}, GROUPS), "at least one channel; got an empty list"),
        (lambda: masks_keeping({"conv": [0, 4]}, GROUPS), "numbers from 0 to 3; got 4"),
        (lambda: masks_keeping({"conv": [-1]}, GROUPS), "numbers from 0 to 3; got -1"),
        (lambda: masks_keeping({"conv": [1, 1]}, GROUPS), "different numbers .*; got 1"),
        (lambda: masks_keeping({"none": [1]}, GROUPS), "group must be one of"),
        (lambda: channel_groups(NETWORK, IMAGES, ["nope"]), "ignored module must be one of"),
        (lambda: channel_groups(NETWORK, torch.randn(2, 4, 8, 8)), "must be traceable"),
        (
            lambda: channel_groups(nn.Sequential(nn.Flatten(), nn.Linear(192, 2)), IMAGES),
            "none was",
        ),
    ],
)
def test_bad_inputs_are_refused_in_one_line(action, message):
    with pytest.raises(ValueError, match=message) as error:
        action()
    assert "\n" not in str(error.value)


def test_channels_whose_readers_are_not_understood_are_not_removed():
    torch.manual_seed(0)
    network = Reshaped().eval()
    images = torch.randn(4, 3, 4, 4)
    groups = channel_groups(network, images)
    masks = {"first": torch.tensor([1, 0, 1, 1, 0, 1.0])}
    with pytest.raises(ValueError, match="must be") as error:
        remove(network, groups, masks, images)
    assert "\n" not in str(error.value)


def test_lists_become_masks():
    assert masks_keeping({"conv": [2, 0]}, GROUPS)["conv"].tolist() == [1, 0, 1, 0]
    assert all(mask.all() for mask in all_open(GROUPS).values())


def layers(norm=None, second=None):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), norm or nn.BatchNorm2d(8), nn.ReLU(),
        second or nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    ).eval()  # fmt: skip


def without_the_first(network, x):
    groups = channel_groups(network, x)
    masks = all_open(groups)
    for mask in masks.values():
        mask[0] = 0
    return remove(network, groups, masks, x)


@pytest.mark.filterwarnings("ignore")
def test_weights_that_are_no_parameters_get_one_line():
    x, y = torch.randn(4, 3, 8, 8), torch.arange(4)
    normed = layers(second=nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 3, padding=1)))
    groups = channel_groups(normed, x)
    for call in (
        lambda: without_the_first(normed, x),
        lambda: scores(normed, groups, [(x, y)], ("Taylor weights",)),
        lambda: scores(normed, groups, [(x, y)], ("magnitude",)),
        lambda: coupled_scores(normed, groups["3"], weighing="magnitude"),
        lambda: costs(normed, groups, x),
    ):
        with pytest.raises(ValueError, match=r"^the weight of layer '3' must be a plain parameter"):
            call()


def test_norms_without_scale_have_no_part_in_scores_of_weights():
    x, y = torch.randn(4, 3, 8, 8), torch.arange(4)
    network = layers(norm=nn.BatchNorm2d(8, affine=False))
    groups = channel_groups(network, x)
    found = scores(network, groups, [(x, y)], ("Taylor weights", "weights as a group"))
    assert all(score.gt(0).all() for score in found["Taylor weights"].values())
    assert without_the_first(network, x)[0].out_channels == 7
    for call in (
        lambda: scores(network, groups, [(x, y)], ("Taylor scale",)),
        lambda: gate_free_gradients(network, groups, [(x, y)]),
    ):
        with pytest.raises(ValueError, match=r"^the weight of layer '1' must be .* missing"):
            call()


def test_tied_weights_are_not_torn_apart():
    network, x = layers(), torch.randn(4, 3, 8, 8)
    network[3].twin = nn.Conv2d(8, 8, 3)
    network[3].twin.weight = network[3].weight
    with pytest.raises(ValueError, match=r"^layer '3' must have parameters of its own; .*'3.twin'"):
        without_the_first(network, x)


def test_a_compiled_network_is_pruned_as_the_plain_one():
    network, x = layers(), torch.randn(4, 3, 8, 8)
    plain = channel_groups(network, x)
    wanted = costs(network, plain, x).macs()
    network.compile(backend="eager")
    network(x)
    groups = channel_groups(network, x)
    assert groups == plain
    assert costs(network, groups, x).macs() == wanted
    assert without_the_first(network, x)[0].out_channels == 7
