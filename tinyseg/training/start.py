"""Starting from weights of another network: all of them, or those parts that fit."""

import os

from tinyseg import weights
from tinyseg.training.model_file import ABOUT, description

#: Parts of a detector, any of which may be missing from a file as a whole.
_PARTS = {
    "backbone.body.": "backbone",
    "backbone.fpn.": "feature pyramid",
    "rpn.": "proposals",
    "roi_heads.box_head.": "box head",
    "roi_heads.box_predictor.": "classes and boxes",
    "roi_heads.mask_head.": "mask head",
    "roi_heads.mask_predictor.": "masks",
}

#: Layers whose shapes depend on the classes and on the number of anchors: they may start anew.
_ANEW = ("roi_heads.box_predictor.", "roi_heads.mask_predictor.", "rpn.head.cls_logits.", "rpn.head.bbox_pred.")

#: What torchvision's weights expect: mean and standard deviation of ImageNet's pictures.
IMAGENET = {"kind": "fixed", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def start_from(model, path):
    """Copy the weights of a file into a detector, as far as they fit.

    Parameters
    ----------
    model : tinyseg.models.FasterRCNN or MaskRCNN
        Changed in place.
    path : str or path-like
        Weights of a detector, of tinyseg or torchvision, or of a ResNet alone (``conv1.weight``, ...), which is taken
        as the backbone. A part of the network may be missing as a whole; layers for other classes or anchors are left
        as they are.

    Returns
    -------
    normalisation : dict
        How pictures are prepared for these weights: as the file says, or as torchvision does.
    new : list of str
        What was not in the file, in words; empty where everything was.

    Raises
    ------
    ValueError
        If the file holds another network, or no network.
    OSError
        If it cannot be read.
    """
    state, metadata = weights.load(path, metadata=True)
    if "tree" in metadata:
        raise ValueError(f"{os.fspath(path)} is a training checkpoint; expected the best.safetensors beside it")
    if "conv1.weight" in state and not any(name.startswith("backbone.") for name in state):
        state = {f"backbone.body.{name}": value for name, value in state.items() if not name.startswith("fc.")}
    own = {name: value.shape for name, value in model.state_dict().items()}
    other = [name for name, value in state.items() if name in own and value.shape != own[name]]
    wrong = next((name for name in other if not name.startswith(_ANEW)), None)
    if wrong is not None:
        raise ValueError(
            f"{os.fspath(path)} is of another network: {wrong!r} has shape {state[wrong].shape}; expected {own[wrong]}"
        )
    try:
        found = model.load_state_dict({name: state[name] for name in state if name not in other}, strict=False)
    except (KeyError, ValueError, TypeError) as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from None
    new = _new_parts(path, own, {*found.missing_keys} - {*other})
    return _normalisation(path, metadata), [*new, *_new_layers(other)]


def _new_parts(path, own, missing):
    """Return the names of parts that are missing as a whole; a part with some of its values missing is an error."""
    new = []
    for prefix, words in _PARTS.items():
        names = [name for name in own if name.startswith(prefix) and not name.endswith("num_batches_tracked")]
        lacking = [name for name in names if name in missing]
        if names and len(lacking) == len(names):
            new.append(words)
        elif lacking:
            raise ValueError(
                f"{os.fspath(path)} is of another network: it has no {lacking[0]!r}, but others of its kind"
            )
    if len(new) == sum(any(name.startswith(prefix) for name in own) for prefix in _PARTS):
        raise ValueError(
            f"{os.fspath(path)} holds nothing of this network; expected weights of a detector or of a ResNet, such as "
            "'backbone.body.conv1.weight' or 'conv1.weight'"
        )
    return new


def _new_layers(names):
    """Return layers of other shapes, each once."""
    return sorted({name.rpartition(".")[0] for name in names})


def _normalisation(path, metadata):
    """Return the normalisation that a file's description names, or torchvision's."""
    if ABOUT not in metadata:
        return IMAGENET
    return description(path, metadata[ABOUT])["normalisation"]
