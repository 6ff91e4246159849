"""How the files of this folder were made: by PyTorch 2.13 itself, so that the tests read real files without it.

Run in this folder: ``python make.py``. ``expected.npz`` holds what must be read from each of them.
"""

from collections import OrderedDict

import numpy as np
import torch


def state_dict():
    """Return a state dict of every dtype and layout that matters, with the modules' versions as PyTorch keeps them."""
    ramp = torch.arange(60.0)
    shared = torch.arange(12.0)
    state = OrderedDict(
        {
            "float32": ramp[:24].reshape(2, 3, 4).clone() - 7.5,
            "float64": torch.linspace(-1, 1, 5, dtype=torch.float64),
            "float16": torch.tensor([0.5, -2.0, 65504.0], dtype=torch.float16),
            "bfloat16": torch.tensor([1.0, -3.140625, 1e30], dtype=torch.bfloat16),
            "int64": torch.tensor([-(2**62), 0, 2**62]),
            "uint8": torch.arange(250, 256, dtype=torch.uint8),
            "bool": torch.tensor([True, False, True]),
            "scalar": torch.tensor(41),
            "empty": torch.zeros(0, 3),
            "transposed": ramp.reshape(3, 4, 5).permute(2, 0, 1),
            "every_third": ramp[4:40:3],
            "first_half": shared[:6],
            "second_half": shared[6:].reshape(2, 3),
            "expanded": torch.arange(3.0).expand(2, 3),
            "parameter": torch.nn.Parameter(torch.tensor([1.5, 2.5])),
        }
    )
    state._metadata = OrderedDict({"": {"version": 1}, "layer.norm": {"version": 2}})
    return state


def main():
    """Write the files."""
    state = state_dict()
    torch.save(state, "state.pth")
    torch.save(state, "state_stream.pth", _use_new_zipfile_serialization=False)
    torch.save(state, "state_protocol4.pth", pickle_protocol=4)
    optimiser = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}
    checkpoint = {"epoch": 7, "name": "unet", "optimizer": optimiser, "state_dict": {"weight": torch.arange(4.0)}}
    torch.save(checkpoint, "checkpoint.pth")
    torch.save(checkpoint, "checkpoint_stream.pth", _use_new_zipfile_serialization=False)
    torch.save(torch.nn.Linear(2, 1), "module.pth")
    with torch.no_grad():
        arrays = {name: (t.float() if t.dtype == torch.bfloat16 else t).numpy() for name, t in state.items()}
    np.savez_compressed("expected.npz", **arrays)


if __name__ == "__main__":
    main()
