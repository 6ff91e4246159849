"""A trained U-Net in one file: weights, and all that is needed to build the network and to prepare pictures for it."""

import json
import os
import re

import tinyseg
from tinyseg import weights
from tinyseg.data.normalise import check_normalisation
from tinyseg.models import UNet

_KEY = "tinyseg"


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
    info = {"normalisation": {"kind": "standardise"}, "threshold": 0.5, **_shape_of_unet(path, state)}
    if _KEY in metadata:
        info.update(_described(path, metadata[_KEY]))
    elif "tree" in metadata:
        raise ValueError(
            f"{os.fspath(path)} is a training checkpoint, to go on training from; the weights to predict with are in "
            "best.safetensors beside it"
        )
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
    """Return widths and channels by the shapes of the convolutions' weights; nothing for a training checkpoint."""
    if any(name.startswith("state/") for name in state):
        return {}
    layers = sorted(int(m[1]) for m in (re.fullmatch(r"layer(\d+)_conv\.conv1\.weight", name) for name in state) if m)
    depth = (len(layers) + 1) // 2
    last = state.get(f"layer{2 * depth}_conv.weight")
    if layers != list(range(1, 2 * depth)) or last is None or last.ndim != 4:
        raise ValueError(f"{os.fspath(path)} does not hold the weights of a U-Net (layer1_conv.conv1.weight, ...)")
    first = [state[f"layer{i}_conv.conv1.weight"] for i in range(1, depth + 1)]
    if any(weight.ndim != 4 for weight in first):
        raise ValueError(f"{os.fspath(path)} does not hold the weights of a U-Net: its kernels have not four axes")
    return {
        "in_channels": first[0].shape[1],
        "out_channels": last.shape[0],
        "widths": tuple(weight.shape[0] for weight in first),
    }
