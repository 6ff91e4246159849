"""A tiny training run in a process of its own that ends itself, as abruptly as ``kill -9`` would, at a chosen event.

Called as ``python killed_training.py RUN EVENT N``: the N-th time that EVENT comes, the process ends without any
cleaning up. Events are ``step`` (a forward pass is done), ``write`` (half of a file is written), ``rename`` (a whole
file is about to get its name) and ``renamed``; ``never`` lets the run end. Resumes what is in RUN.
"""

import os
import sys

from tinyseg import files, manual_seed
from tinyseg.data import SyntheticCells
from tinyseg.models import UNet
from tinyseg.training import fit


def main(run, event, number):
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
    model = UNet(1, 1, (2, 4))
    model.layer1_conv.register_forward_hook(lambda *_: happens("step"))
    cells = [*SyntheticCells(4, 32, radius=(4, 8))]
    fit(
        model,
        cells[:3],
        cells[3:],
        out=run,
        resume=True,
        checkpoint_every=("steps", 3),
        progress=False,
        steps=12,
        batch_size=2,
        crop=16,
        steps_per_epoch=5,
        seed=3,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
