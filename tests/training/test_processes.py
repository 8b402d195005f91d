"""Two processes under Lightning Fabric (gloo): the path to several GPUs, kept without one."""

import textwrap
from pathlib import Path

import torch
from torch.distributed.run import main as torchrun

from smallnets.training import fit
from smallnets.training.checkpoint import weights_digest

SCRIPT = """
    import json, sys
    from pathlib import Path
    import torch
    from lightning_fabric import Fabric
    from smallnets.data import Augmentation, load
    from smallnets.models import convnet
    from smallnets.training import TrainSettings, fit, seeded

    torch.set_num_threads(1)
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp", precision="32-true")
    fabric.launch()
    with seeded(0):
        model = convnet(4, 10, in_channels=1, norm="layer")
    settings = TrainSettings(epochs=3, batch_size=32, augmentation=Augmentation(crop=0),
                             device="cpu", precision="32-true")
    history = fit(model, load("digits").take(320, 100), settings, seed=0, fabric=fabric)
    if fabric.is_global_zero:
        torch.save(model.state_dict(), Path(sys.argv[1]) / "weights.pt")
"""


def test_two_processes_train_what_one_would(tmp_path: Path):
    from smallnets.data import Augmentation, load
    from smallnets.models import convnet
    from smallnets.training import TrainSettings, seeded

    script = tmp_path / "train.py"
    script.write_text(textwrap.dedent(SCRIPT))
    torchrun(["--standalone", "--nproc_per_node=2", str(script), str(tmp_path)])
    shared = torch.load(tmp_path / "weights.pt", weights_only=True)

    with seeded(0):
        model = convnet(4, 10, in_channels=1, norm="layer")
    start = weights_digest(model.state_dict())
    settings = TrainSettings(
        epochs=3,
        batch_size=32,
        augmentation=Augmentation(crop=0),
        device="cpu",
        precision="32-true",
    )
    fit(model, load("digits").take(320, 100), settings, seed=0)
    assert weights_digest(model.state_dict()) != start
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(shared[name], weight, rtol=1e-3, atol=1e-5)
