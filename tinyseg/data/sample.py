"""One picture with its truth."""

from dataclasses import dataclass

import numpy as np


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
        (K,) int64: the class of each object.
    boxes : ndarray or None
        (K, 4) float32: ``(x1, y1, x2, y2)`` around what is visible of each object, in picture pixels. A pixel of
        column ``x`` covers ``x`` to ``x + 1``, so ``x2`` is one more than the last column.
    class_names : tuple of str
        Names of class 0, 1, ..., where they are known.
    """

    picture: np.ndarray
    mask: np.ndarray | None = None
    name: str = ""
    instances: np.ndarray | None = None
    classes: np.ndarray | None = None
    boxes: np.ndarray | None = None
    class_names: tuple = ()

    @property
    def instance_masks(self):
        """(K, H, W) bool: one mask per object."""
        if self.instances is None or self.classes is None:
            return None
        return self.instances == np.arange(1, len(self.classes) + 1)[:, None, None]


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
    first = (in_column[1:].argmax(1), in_row[1:].argmax(1))
    last = (width - in_column[1:, ::-1].argmax(1), height - in_row[1:, ::-1].argmax(1))
    return np.stack([*first, *last], axis=1).astype(np.float32)
