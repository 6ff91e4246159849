"""A trained U-Net in one file: weights, and all that is needed to build the network and to prepare pictures for it."""

import difflib
import json
import os
import re

import tinyseg
from tinyseg import weights
from tinyseg.data.normalise import check_normalisation
from tinyseg.models import UNet

_KEY = "tinyseg"
#: How a U-Net's parameters and buffers are called.
_NAME = re.compile(r"(layer|deconv)\d+(_conv)?\.((conv|bn)\d\.)?(weight|bias|running_(mean|var)|num_batches_tracked)")


def save_model(path, model, info=None):
    """Write a U-Net so that `load_model` needs nothing else.

    Parameters
    ----------
    path : str or path-like
        Ends in ``.safetensors``, ``.npz`` or ``.pth``. An older file stays until the new one is complete.
    model : tinyseg.models.UNet
        The network.
    info : dict, optional
        More to keep, as plain values: ``normalisation``, ``threshold``, ``class_names``, scores, ...

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    about = {
        "architecture": "unet",
        "in_channels": model.in_channels,
        "out_channels": model.out_channels,
        "widths": list(model.widths),
        "normalisation": {"kind": "standardise"},
        "threshold": 0.5,
        "tinyseg": tinyseg.__version__,
        **(info or {}),
    }
    weights.save(path, model.state_dict(), {_KEY: json.dumps(about)})


def load_model(path):
    """Read a U-Net with what is known about it.

    Parameters
    ----------
    path : str or path-like
        A file of `save_model`, or any file of weights with the U-Net's parameter names (PyTorch's too): then widths
        and channels follow from the shapes, and pictures are normalised one by one.

    Returns
    -------
    model : tinyseg.models.UNet
        In evaluation mode.
    info : dict
        ``in_channels``, ``out_channels``, ``widths``, ``normalisation``, ``threshold`` and whatever else was saved.

    Raises
    ------
    ValueError
        If the file is damaged, or holds other weights.
    OSError
        If it cannot be read.
    """
    state, metadata = weights.load(path, metadata=True)
    if "tree" in metadata:
        raise ValueError(
            f"{os.fspath(path)} is a training checkpoint, to go on training from; the weights to predict with are in "
            "best.safetensors beside it"
        )
    if _KEY in metadata:
        info = _described(path, metadata[_KEY])
    else:
        info = {"normalisation": {"kind": "standardise"}, "threshold": 0.5, **_shape_of_unet(path, state)}
    model = UNet(info["in_channels"], info["out_channels"], info["widths"])
    try:
        model.load_state_dict(state)
    except (KeyError, ValueError, TypeError) as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from None
    return model.eval(), info


def _described(path, text):
    """Return the description in a file's metadata, checked as far as code relies on it."""
    try:
        about = json.loads(text)
        if about["architecture"] != "unet":
            raise ValueError(f"{os.fspath(path)} is a {about['architecture']!r}; expected a 'unet'")
        about["widths"] = tuple(about["widths"])
        about["normalisation"] = check_normalisation(about["normalisation"])
        if not 0 <= about["threshold"] <= 1:
            raise KeyError
    except (KeyError, TypeError, json.JSONDecodeError):
        raise ValueError(f"{os.fspath(path)} has a description that is damaged or of a later version") from None
    return about


def _shape_of_unet(path, state):
    """Return widths and channels by the shapes of the convolutions' weights."""
    numbers = [int(match[1]) for match in (re.match(r"layer(\d+)_conv\.", name) for name in state) if match]
    depth = max(numbers, default=0) // 2
    if not depth:
        raise ValueError(f"{os.fspath(path)} does not hold the weights of a U-Net (layer1_conv.conv1.weight, ...)")
    names = [*(f"layer{i}_conv.conv1.weight" for i in range(1, depth + 1)), f"layer{2 * depth}_conv.weight"]
    for name in names:
        if name not in state:
            odd = [other for other in state if len(other) < 200 and not _NAME.fullmatch(other)]
            near = difflib.get_close_matches(name, odd, 1)
            hint = f"; the nearest name there is {near[0]!r}" if near else ""
            raise ValueError(f"{os.fspath(path)} has no {name!r}, of a U-Net of {depth} levels{hint}")
        if state[name].ndim != 4:
            raise ValueError(f"{os.fspath(path)}: {name!r} has shape {state[name].shape}; expected four axes")
    *first, last = (state[name] for name in names)
    return {
        "in_channels": first[0].shape[1],
        "out_channels": last.shape[0],
        "widths": tuple(weight.shape[0] for weight in first),
    }
