"""Two processes under Lightning Fabric (gloo): the path to several GPUs, kept without one."""

import textwrap
from pathlib import Path

import torch
from torch.distributed.run import main as torchrun

from smallnets.data import Augmentation, load
from smallnets.models import convnet
from smallnets.training import TrainSettings, fit, seeded
from smallnets.training.checkpoint import weights_digest

SCRIPT = """
    import sys
    from pathlib import Path
    import torch
    from lightning_fabric import Fabric
    from smallnets.data import Augmentation, load
    from smallnets.models import convnet
    from smallnets.training import TrainSettings, fit, seeded
    from smallnets.training.checkpoint import Running

    torch.set_num_threads(1)
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp", precision="32-true")
    fabric.launch()
    folder, crop, how, epochs, lr = Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]

    def train():
        with seeded(0):
            model = convnet(4, 10, in_channels=1, norm="layer")
        settings = TrainSettings(epochs=int(epochs), batch_size=32, lr=float(lr), device="cpu",
                                 augmentation=Augmentation(crop=crop), precision="32-true")
        data = load("digits").take(320, 100)
        fit(model, data, settings, seed=0, fabric=fabric, cache_dir=folder / how)
        return model

    if how == "interrupted":
        save = Running.save

        def save_and_fail(self, history):
            save(self, history)
            if len(history) == 2:
                raise KeyboardInterrupt

        Running.save = save_and_fail
        try:
            train()
        except KeyboardInterrupt:
            Running.save = save
    model = train()
    if fabric.is_global_zero:
        torch.save(model.state_dict(), folder / f"{how}.pt")
"""


def in_two_processes(
    folder: Path, crop: int, how: str, epochs: int = 3, lr: float = 0.1
) -> dict[str, torch.Tensor]:
    """Weights of a training by two processes: "whole", or "interrupted" and started again."""
    script = folder / "train.py"
    script.write_text(textwrap.dedent(SCRIPT))
    torchrun(
        [
            "--standalone",
            "--nproc_per_node=2",
            str(script),
            str(folder),
            str(crop),
            how,
            str(epochs),
            str(lr),
        ]
    )
    return torch.load(folder / f"{how}.pt", weights_only=True)


def test_two_processes_train_what_one_would(tmp_path: Path):
    """To rounding: half batches are summed in another order, which long training would amplify."""
    shared = in_two_processes(tmp_path, 0, "whole", epochs=1, lr=0.02)
    with seeded(0):
        model = convnet(4, 10, in_channels=1, norm="layer")
    start = weights_digest(model.state_dict())
    settings = TrainSettings(
        epochs=1,
        batch_size=32,
        lr=0.02,
        augmentation=Augmentation(crop=0),
        device="cpu",
        precision="32-true",
    )
    fit(model, load("digits").take(320, 100), settings, seed=0)
    assert weights_digest(model.state_dict()) != start
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(shared[name], weight, rtol=1e-3, atol=1e-5)


def test_two_processes_go_on_where_they_were(tmp_path: Path):
    whole, resumed = (in_two_processes(tmp_path, 2, how) for how in ("whole", "interrupted"))
    assert weights_digest(whole) == weights_digest(resumed)
