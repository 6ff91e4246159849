"""What each layer of a network puts out in one run, by name."""

import difflib
import re
from contextlib import ExitStack

import numpy as np

from tinyseg.backend import moved
from tinyseg.explain import checks
from tinyseg.models import GeneralizedRCNN
from tinyseg.tensor import Tensor, no_grad

#: The name of what the network itself puts out.
OUTPUT = "output"


def network_for_maps(model):
    """Return the part of a network that makes maps of whole pictures: of a detector its backbone."""
    checks.network(model)
    return model.backbone if isinstance(model, GeneralizedRCNN) else model


def prepared(model, picture):
    """Return a picture as a network takes it.

    Parameters
    ----------
    model : Module
        The network; a detector's pictures are normalised, scaled and padded.
    picture : ndarray or Tensor
        ``(H, W)``, ``(C, H, W)`` or ``(1, C, H, W)``.

    Returns
    -------
    ndarray, shape (1, C, H, W)
        In the network's type.
    """
    array = checks.numbers("picture", picture, "fiub")
    if array.ndim not in (2, 3, 4) or 0 in array.shape or (array.ndim == 4 and len(array) != 1):
        raise ValueError(f"picture has shape {array.shape}; expected (H, W), (C, H, W) or (1, C, H, W)")
    if array.dtype.kind != "f":
        raise TypeError(f"picture has dtype {array.dtype}; expected floats, usually from 0 to 1")
    array = array.reshape(1, *((1, 1, *array.shape)[-3:]))
    parameter = next(model.parameters(), None)
    array = np.ascontiguousarray(array, np.float32 if parameter is None else parameter.dtype)
    if isinstance(model, GeneralizedRCNN):
        with no_grad():
            batch, _ = model.transform([moved(array[0], next(model.parameters()).device)])
        return moved(batch.tensors.array, "cpu")
    return array


def layer_outputs(model, x, only=None):
    """Run a network and return what its layers put out.

    Parameters
    ----------
    model : Module
        The network, as `network_for_maps` gives it. Layers that are watched run one by one, not folded into others.
    x : Tensor
        What it is given.
    only : str, optional
        Name of the output that is wanted, or of the layer that gives it; all if left out.

    Returns
    -------
    dict of str to Tensor
        By the modules' names, in the order in which they were done; last, ``"output"``, that of the network. Of a
        module that gives a dictionary, list or tuple, ``"fpn[0]"`` and so on; of one that runs several times, from the
        second time on ``"head#2"``.

    Raises
    ------
    ValueError
        If there is no such output.
    """
    seen: dict = {}
    runs: dict = {}

    def watch(name):
        def hook(module, args, output):
            runs[name] = runs.get(name, 0) + 1
            _add(seen, name if runs[name] == 1 else f"{name}#{runs[name]}", output)

        return hook

    with ExitStack() as stack:
        for name, module in model.named_modules():
            if name and (only is None or name == layer_of(only)):
                stack.callback(module.register_forward_hook(watch(name)).remove)
        output = model(x)
    _add(seen, OUTPUT, output)
    if only is None:
        return seen
    wanted = {name: tensor for name, tensor in seen.items() if only in (name, layer_of(name))}
    if not wanted:
        near = difflib.get_close_matches(only, [name for name, _ in model.named_modules() if name], 3, 0)
        raise ValueError(f"layer is {only!r}; expected the name of one, such as {', '.join(map(repr, near))}")
    return wanted


def layer_of(name):
    """Return the name of the layer that an output belongs to."""
    return re.sub(r"[#\[].*", "", name)


def _add(seen, name, output):
    """Keep the tensors of one output."""
    if isinstance(output, Tensor):
        seen[name] = output
    elif isinstance(output, dict | list | tuple):
        for key, value in output.items() if isinstance(output, dict) else enumerate(output):
            _add(seen, f"{name}[{key}]", value)
