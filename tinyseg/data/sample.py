"""One picture with its truth."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

#: No more than this many bytes of masks are stacked for one picture.
_MOST_BYTES = 2**33


@dataclass(frozen=True)
class Sample:
    """One picture with its truth, as every data set of tinyseg gives it.

    Parameters
    ----------
    picture : ndarray
        (C, H, W) float32; in [0, 1] unless the file holds floats.
    mask : ndarray or None
        (H, W) integers: the class of each pixel, 0 the background.
    name : str
        What the picture is called: the file's name without its ending, or a number.
    instances : ndarray or None
        (H, W) int32: the object that each pixel shows, 1 to K, 0 the background.
    classes : ndarray or None
        (K,) int64: the class of each object, from 1.
    boxes : ndarray or None
        (K, 4) float32: ``(x1, y1, x2, y2)`` around what is visible of each object, in picture pixels. A pixel of
        column ``x`` covers ``x`` to ``x + 1``, so ``x2`` is one more than the last column.
    class_names : tuple of str
        Names of class 0, 1, ..., where they are known.
    masks : ndarray, RunLengthMasks or None
        (K, H, W) bool: the pixels of each object, which may overlap; where ``instances`` says it all, None.
    crowd : ndarray or None
        (K,) bool: which objects are crowds, one mask over many objects. They are not trained on, and detections
        inside them do not count (COCO's ``iscrowd``). None: there are none.
    image_id : int or None
        Number of the picture in its data set, where that gives numbers.
    areas : ndarray or None
        (K,) float64: COCO's ``area`` of each object in pixels, which decides whether it counts as small or large.
        None: that of its mask, or of its box.
    """

    picture: np.ndarray
    mask: np.ndarray | None = None
    name: str = ""
    instances: np.ndarray | None = None
    classes: np.ndarray | None = None
    boxes: np.ndarray | None = None
    class_names: tuple = ()
    masks: Any = None  # an array, or RunLengthMasks, which becomes one
    crowd: np.ndarray | None = None
    image_id: int | None = None
    areas: np.ndarray | None = None

    @property
    def instance_masks(self):
        """(K, H, W) bool: one mask per object; None where the truth has none."""
        count = len(self.masks) if self.masks is not None else 0 if self.classes is None else len(self.classes)
        if self.masks is None and (self.instances is None or self.classes is None):
            return None
        height, width = self.picture.shape[1:]
        if count * height * width > _MOST_BYTES:
            raise ValueError(
                f"{self.name} has {count} objects on {height} x {width} pixels; expected fewer, or a smaller picture: "
                f"their masks together would take more than {_MOST_BYTES >> 30} GiB"
            )
        if self.masks is not None:
            return np.asarray(self.masks, bool)
        return self.instances == np.arange(1, count + 1)[:, None, None]

    def with_objects(self, keep):
        """Return the same picture with only some of its objects.

        Parameters
        ----------
        keep : ndarray
            (K,) bool: which objects stay, in the same order. What is left of `instances` is numbered anew.

        Returns
        -------
        Sample
            Its `mask` is the same as before.
        """
        keep = np.asarray(keep, bool)
        if keep.all():
            return self
        chosen = {
            name: value[keep]
            for name in ("classes", "boxes", "masks", "crowd", "areas")
            if (value := getattr(self, name)) is not None
        }
        if self.instances is not None:
            chosen["instances"] = np.concatenate([[0], np.where(keep, np.cumsum(keep), 0)]).astype(np.int32)[
                self.instances
            ]
        return replace(self, **chosen)


def boxes_of(instances, count):
    """Return the boxes of numbered objects.

    Parameters
    ----------
    instances : ndarray
        (H, W) integers from 0 to ``count``; each of 1 to ``count`` occurs.
    count : int
        Number of objects, K.

    Returns
    -------
    ndarray
        (K, 4) float32 ``(x1, y1, x2, y2)``, as `Sample` describes.
    """
    height, width = instances.shape
    in_row = np.zeros((count + 1, height), bool)
    in_column = np.zeros((count + 1, width), bool)
    ys, xs = np.nonzero(instances)
    numbers = instances[ys, xs]
    in_row[numbers, ys] = True
    in_column[numbers, xs] = True
    return _around(in_row[1:], in_column[1:])


def boxes_of_masks(masks):
    """Return the boxes of objects that may overlap.

    Parameters
    ----------
    masks : ndarray
        (K, H, W) bool.

    Returns
    -------
    ndarray
        (K, 4) float32 ``(x1, y1, x2, y2)``, as `Sample` describes; all 0 where a mask has no pixel.
    """
    in_row, in_column = masks.any(axis=2), masks.any(axis=1)
    return _around(in_row, in_column) * in_row.any(axis=1, keepdims=True).astype(np.float32)


def _around(in_row, in_column):
    """Return the boxes of objects of which (K, H) and (K, W) bool say which rows and columns they reach."""
    if 0 in in_row.shape or 0 in in_column.shape:
        return np.zeros((len(in_row), 4), np.float32)
    first = (in_column.argmax(1), in_row.argmax(1))
    last = (in_column.shape[1] - in_column[:, ::-1].argmax(1), in_row.shape[1] - in_row[:, ::-1].argmax(1))
    return np.stack([*first, *last], axis=1).astype(np.float32)
