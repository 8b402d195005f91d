"""Taylor scores and pruning of torchvision's ResNet-18: ours against Torch-Pruning's.

Both do the same work on the same graph library: one backward pass over 32 images of 64 pixels, a
score for every channel of every group, a global ranking, half of the channels out. Torch-Pruning
multiplies all weights of a group, rows and columns, by their gradients; ours takes the gate's
derivative from the norms, so the gradients of the convolutions are never computed. Finding the
groups and cutting tensors is the library's in both.
"""

import copy

import torch
import torch_pruning
from _race import race, report
from torch.nn import functional as F
from torchvision.models import resnet18

from smallnets.prune import importance as ie

SHARE = 0.5


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = resnet18(weights=None, num_classes=10).eval()
    images, labels = torch.randn(32, 3, 64, 64), torch.randint(0, 10, (32,))
    example = images[:1]
    groups = ie.channel_groups(network, example)
    units = sum(group.size for group in groups.values())

    def our_scores() -> dict[str, torch.Tensor]:
        slopes = ie.gate_free_gradients(network, groups, [(images, labels)])
        return {name: ie.taylor_fo(slope) for name, slope in slopes.items()}

    def ours() -> torch.nn.Module:
        found = ie.channel_groups(network, example)
        masks, _ = ie.select(our_scores(), ie.all_open(found), int(SHARE * units))
        return ie.remove(network, found, masks, example)

    theirs = torch_pruning.importance.TaylorImportance(normalizer=None)

    def their_gradients(model: torch.nn.Module) -> None:
        model.zero_grad()
        F.cross_entropy(model(images), labels).backward()

    graph = torch_pruning.DependencyGraph().build_dependency(network, example)
    their_groups = list(graph.get_all_groups(ignored_layers=[network.fc]))

    def their_scores() -> list[torch.Tensor]:
        their_gradients(network)
        return [theirs(group) for group in their_groups]

    def their_pruning() -> torch.nn.Module:
        model = copy.deepcopy(network)
        pruner = torch_pruning.BasePruner(
            model,
            example,
            theirs,
            global_pruning=True,
            pruning_ratio=SHARE,
            ignored_layers=[model.fc],
        )
        their_gradients(model)
        pruner.step()
        return model

    for title, rivals in (
        (
            "backward pass and scores of all channels, ResNet-18, one thread",
            {"ours, from the norms": our_scores, "Torch-Pruning, Taylor": their_scores},
        ),
        (
            "the same, and groups found, channels out, checked (ours only)",
            {"ours, from the norms": ours, "Torch-Pruning, Taylor": their_pruning},
        ),
    ):
        report(title, race(rivals, rounds=7), "ours, from the norms")


if __name__ == "__main__":
    main()
