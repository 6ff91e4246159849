"""A tiny training run in a process of its own that ends itself, as abruptly as ``kill -9`` would, at a chosen event.

Called as ``python killed_training.py RUN EVENT N [detector]``: the N-th time that EVENT comes, the process ends
without any cleaning up. Events are ``step`` (a forward pass is done), ``write`` (half of a file is written), ``rename``
(a whole file is about to get its name) and ``renamed``; ``never`` lets the run end. Resumes what is in RUN. Trains a
U-Net, or a Mask R-CNN.
"""

import os
import sys

from tinyseg import files, manual_seed
from tinyseg.data import SyntheticCells, SyntheticShapes
from tinyseg.models import UNet, mask_rcnn
from tinyseg.training import fit


def unet():
    """Return a U-Net, the layer that its forward pass begins with, pictures, and options of `fit`."""
    model = UNet(1, 1, (2, 4))
    pictures = [*SyntheticCells(4, 32, radius=(4, 8))]
    return model, model.layer1_conv, pictures, {"steps": 12, "crop": 16, "steps_per_epoch": 5}


def detector():
    """Return the same for a Mask R-CNN."""
    model = mask_rcnn(
        4,
        width=4,
        channels=8,
        representation_size=16,
        mask_channels=8,
        anchor_sizes=[[8], [16], [24], [32], [48]],
        rpn_post_nms_top_n_train=50,
        rpn_post_nms_top_n_test=20,
        box_batch_size_per_image=32,
    )
    pictures = [*SyntheticShapes(4, 64, radius=(10, 20), count=(1, 3))]
    return model, model.backbone.body.conv1, pictures, {"steps": 9, "steps_per_epoch": 4}


def main(run, event, number, network="unet"):
    """Train, and end at the N-th ``event``."""
    left = {event: int(number)}

    def happens(name):
        left[name] = left.get(name, 0) - 1
        if left[name] == 0:
            os._exit(137)

    def replace(source, target, really=os.replace):
        happens("rename")
        really(source, target)
        happens("renamed")

    def fsync(handle, really=os.fsync):
        if left.get("write") == 1:
            try:
                os.truncate(handle, os.fstat(handle).st_size // 2)
            except OSError:  # a folder
                left["write"] += 1
        happens("write")
        really(handle)

    files.os.replace, files.os.fsync = replace, fsync
    manual_seed(3)
    model, layer, pictures, options = {"unet": unet, "detector": detector}[network]()
    layer.register_forward_hook(lambda *_: happens("step"))
    fit(
        model,
        pictures[:3],
        pictures[3:],
        out=run,
        resume=True,
        checkpoint_every=("steps", 3),
        progress=False,
        batch_size=2,
        seed=3,
        **options,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
