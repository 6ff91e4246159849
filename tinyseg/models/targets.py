"""The truth that a detector is trained on, checked."""

import numpy as np

from tinyseg.backend import moved
from tinyseg.tensor import array_of


def check_targets(targets, images, num_classes, with_masks):
    """Return the truth of a batch as new dictionaries of arrays.

    Parameters
    ----------
    targets : list of dict
        For each picture ``boxes`` ``(K, 4)``, ``labels`` ``(K,)`` and, ``with_masks``, ``masks`` ``(K, H, W)``:
        tensors or arrays. What else is in there is left out; what lies on the device is copied to the host.
    images : list of ndarray or DeviceArray
        The pictures ``(C, H, W)``.
    num_classes : int
        Classes with the background.
    with_masks : bool
        Whether masks are needed.

    Returns
    -------
    list of dict of ndarray
        ``boxes`` in the type of the pictures, ``labels`` int64, ``masks`` as they are.

    Raises
    ------
    ValueError, TypeError
        If something is missing or does not fit; one sentence that names the picture and the object.
    """
    if targets is None:
        raise ValueError("targets is None; a detector needs the truth in training (or call eval() first)")
    targets = list(targets)
    if len(targets) != len(images):
        raise ValueError(f"targets has {len(targets)} entries; expected one for each of {len(images)} pictures")
    return [
        _checked(n, target, image, num_classes, with_masks)
        for n, (target, image) in enumerate(zip(targets, images, strict=True))
    ]


def _checked(n, target, image, num_classes, with_masks):
    """Return the truth of picture ``n``."""
    keys = ("boxes", "labels", "masks") if with_masks else ("boxes", "labels")
    for key in keys:
        if key not in target:
            raise ValueError(f"targets[{n}] has no {key!r}; expected {', '.join(keys)}")
    checked = {key: moved(array_of(target[key]), "cpu") for key in keys}
    boxes, labels = checked["boxes"], checked["labels"]
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes of targets[{n}] has shape {boxes.shape}; expected (K, 4)")
    if boxes.dtype.kind not in "fiu":
        raise TypeError(f"boxes of targets[{n}] has dtype {boxes.dtype}; expected numbers")
    if labels.shape != boxes.shape[:1] or labels.dtype.kind not in "iu" and labels.size:
        raise ValueError(
            f"labels of targets[{n}] has shape {labels.shape} and dtype {labels.dtype}; expected integers, "
            f"({len(boxes)},), one per box"
        )
    boxes, labels = boxes.astype(image.dtype), labels.astype(np.int64)
    bad = ~(np.isfinite(boxes).all(axis=1) & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]))
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(f"box {row} of targets[{n}] is {boxes[row].tolist()}; expected x1 < x2 and y1 < y2, finite")
    wrong = (labels < 1) | (labels >= num_classes)
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(f"label {row} of targets[{n}] is {labels[row]}; expected a class from 1 to {num_classes - 1}")
    if with_masks and checked["masks"].shape != (len(boxes), *image.shape[1:]):
        raise ValueError(
            f"masks of targets[{n}] has shape {checked['masks'].shape}; expected {(len(boxes), *image.shape[1:])}, "
            "one per box, of the picture's size"
        )
    return {**checked, "boxes": boxes, "labels": labels}
