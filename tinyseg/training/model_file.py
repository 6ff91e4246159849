"""A trained network in one file: weights, and all that is needed to build it and to prepare pictures for it."""

import difflib
import json
import os
import re

import tinyseg
from tinyseg import models, weights
from tinyseg.data.normalise import check_normalisation

#: Key of the description in a file's metadata.
ABOUT = "tinyseg"
#: Kinds of networks that find objects, and what people call them.
DETECTORS = {"maskrcnn": "a Mask R-CNN", "fasterrcnn": "a Faster R-CNN"}
_NAMES = {"unet": "a U-Net", **DETECTORS}
#: How a U-Net's parameters and buffers are called.
_NAME = re.compile(r"(layer|deconv)\d+(_conv)?\.((conv|bn)\d\.)?(weight|bias|running_(mean|var)|num_batches_tracked)")


def kind_of(model):
    """Return ``"unet"``, ``"maskrcnn"`` or ``"fasterrcnn"``; anything else is a TypeError."""
    if isinstance(model, models.UNet):
        return "unet"
    config = getattr(model, "config", None)
    kind = config.get("kind") if isinstance(config, dict) else None
    if kind in DETECTORS:
        return kind
    raise TypeError(
        f"model is a {type(model).__name__}; expected a UNet, or a detector made by a function of tinyseg.models, "
        "which has a config"
    )


def save_model(path, model, info=None):
    """Write a network so that `load_model` needs nothing else.

    Parameters
    ----------
    path : str or path-like
        Ends in ``.safetensors``, ``.npz`` or ``.pth``. An older file stays until the new one is complete.
    model : tinyseg.models.UNet, FasterRCNN or MaskRCNN
        The network; a detector was made by a function that leaves its ``config``.
    info : dict, optional
        More to keep, as plain values: ``normalisation``, ``threshold``, ``class_names``, scores, ...

    Raises
    ------
    OSError
        If the file cannot be written.
    TypeError
        If the model is of another kind.
    """
    kind = kind_of(model)
    if kind == "unet":
        shape = {name: getattr(model, name) for name in ("in_channels", "out_channels")}
        shape["widths"] = list(model.widths)
    else:
        shape = {"config": model.config}
    about = {
        "architecture": kind,
        **shape,
        "normalisation": {"kind": "standardise"},
        "threshold": 0.5,
        "tinyseg": tinyseg.__version__,
        **(info or {}),
    }
    weights.save(path, model.state_dict(), {ABOUT: json.dumps(about)})


def load_model(path, kinds=None):
    """Read a network with what is known about it.

    Parameters
    ----------
    path : str or path-like
        A file of `save_model`, or any file of weights with the U-Net's parameter names (PyTorch's too): then widths
        and channels follow from the shapes, and pictures are normalised one by one.
    kinds : sequence of str, optional
        Which of ``"unet"``, ``"maskrcnn"`` and ``"fasterrcnn"`` will do; all by default.

    Returns
    -------
    model : tinyseg.models.UNet, FasterRCNN or MaskRCNN
        In evaluation mode.
    info : dict
        ``kind``, ``normalisation``, ``threshold`` and whatever else was saved; of a U-Net also ``in_channels``,
        ``out_channels`` and ``widths``, of a detector ``config``, ``class_names`` (index 0 is the background; empty
        where they are unknown) and ``category_ids`` (of each class from 1, as COCO's files number it).

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
    if ABOUT in metadata:
        info = description(path, metadata[ABOUT])
    else:
        shape = _shape_of_unet(path, state)
        info = {"kind": "unet", "normalisation": {"kind": "standardise"}, "threshold": 0.5, **shape}
    if kinds is not None and info["kind"] not in kinds:
        wanted = " or ".join(_NAMES[kind] for kind in kinds)
        raise ValueError(f"{os.fspath(path)} holds {_NAMES[info['kind']]}; expected {wanted}")
    try:
        model = _build(info)
        model.load_state_dict(state)
    except (KeyError, ValueError, TypeError) as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from None
    return model.eval(), info


def _build(info):
    """Return the network that a description names, with random weights."""
    if info["kind"] == "unet":
        return models.UNet(info["in_channels"], info["out_channels"], info["widths"])
    return models.from_config(info["config"])


def description(path, text):
    """Return the description in a file's metadata, checked as far as code relies on it."""
    try:
        about = json.loads(text)
        kind = about["architecture"]
        if kind not in _NAMES:
            raise ValueError(f"{os.fspath(path)} is a {kind!r}; expected a {', '.join(map(repr, _NAMES))}")
        about["kind"] = kind
        about["normalisation"] = check_normalisation(about["normalisation"])
        if not 0 <= about["threshold"] <= 1:
            raise KeyError
        if kind == "unet":
            about["widths"] = tuple(about["widths"])
        else:
            _check_classes(about)
    except (KeyError, TypeError, json.JSONDecodeError):
        raise ValueError(f"{os.fspath(path)} has a description that is damaged or of a later version") from None
    return about


def _check_classes(about):
    """Fill in and check what a detector's description says of its classes."""
    count = about["config"]["num_classes"] - 1
    about["class_names"] = [str(name) for name in about.get("class_names", ())]
    about["category_ids"] = [int(number) for number in about.get("category_ids", range(1, count + 1))]
    if about["config"]["kind"] != about["kind"] or len(about["category_ids"]) != count:
        raise KeyError
    if about["class_names"] and len(about["class_names"]) != count + 1:
        raise KeyError


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
