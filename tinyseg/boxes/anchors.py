"""Anchors: the boxes of fixed sizes and shapes, around every cell of a feature map, that proposals start from."""

import numpy as np


def cell_anchors(sizes, aspect_ratios):
    """Return the anchors of one cell, centred on 0.

    Parameters
    ----------
    sizes : sequence of float
        Side, in picture pixels, of the square that has an anchor's area.
    aspect_ratios : sequence of float
        Height by width.

    Returns
    -------
    ndarray of float32, shape (len(aspect_ratios) * len(sizes), 4)
        Boxes (x1, y1, x2, y2): all sizes of the first ratio, then those of the next. Corners are rounded, halves to
        even.

    Raises
    ------
    ValueError
        If there is no size or ratio, or one is not positive.

    Notes
    -----
    As torchvision's ``AnchorGenerator.generate_anchors``, in float32.
    """
    lengths = {}
    for name, values in (("sizes", sizes), ("aspect_ratios", aspect_ratios)):
        lengths[name] = np.asarray(values, np.float32)
        if lengths[name].ndim != 1 or not lengths[name].size or not (lengths[name] > 0).all():
            raise ValueError(f"{name} is {values!r}; expected one or more positive numbers")
    heights = np.sqrt(lengths["aspect_ratios"])
    widths = np.float32(1) / heights
    w = (widths[:, None] * lengths["sizes"]).ravel()
    h = (heights[:, None] * lengths["sizes"]).ravel()
    return np.rint(np.stack([-w, -h, w, h], axis=1) / np.float32(2))


def grid_anchors(cells, feature_size, image_size):
    """Return the anchors of every cell of a feature map.

    Parameters
    ----------
    cells : ndarray, shape (A, 4)
        The anchors of one cell, as `cell_anchors` gives them.
    feature_size : (int, int)
        Height and width of the feature map, in cells.
    image_size : (int, int)
        Height and width of the picture, in pixels.

    Returns
    -------
    ndarray, shape (height * width * A, 4)
        Boxes in picture coordinates: row by row, cell by cell, the anchors of a cell together. They may reach beyond
        the picture.

    Raises
    ------
    ValueError
        If the feature map is empty or larger than the picture.

    Notes
    -----
    The stride is ``picture size // feature size`` along each axis, as in torchvision, so that a picture whose size is
    odd may have two different ones; and the first cell lies around (0, 0).
    """
    (rows, columns), (height, width) = feature_size, image_size
    if not (1 <= rows <= height and 1 <= columns <= width):
        raise ValueError(
            f"the feature map has {rows}x{columns} cells and the picture {height}x{width} pixels; "
            "expected at least one cell, and not more cells than pixels"
        )
    x = np.arange(columns, dtype=cells.dtype) * (width // columns)
    y = np.arange(rows, dtype=cells.dtype) * (height // rows)
    y, x = (a.ravel() for a in np.meshgrid(y, x, indexing="ij"))
    return (np.stack([x, y, x, y], axis=1)[:, None] + cells).reshape(-1, 4)


class AnchorGenerator:
    """Anchors on one or several feature maps.

    Parameters
    ----------
    sizes : sequence of sequences of float
        For each feature map, the sizes of its anchors in pixels.
    aspect_ratios : sequence of sequences of float
        For each feature map, the ratios of height to width. One sequence of them alone serves every map.

    Raises
    ------
    ValueError
        If the two do not have one entry per feature map, or a size or ratio is not positive.

    Notes
    -----
    What is given if nothing is: 5 sizes of 3 shapes on a single feature map, 15 anchors a cell. With a feature pyramid,
    ``sizes=((32,), (64,), (128,), (256,), (512,))`` is torchvision's choice.
    """

    def __init__(self, sizes=((32, 64, 128, 256, 512),), aspect_ratios=(0.5, 1.0, 2.0)):
        if np.isscalar(aspect_ratios[0]):
            aspect_ratios = (aspect_ratios,) * len(sizes)
        if len(aspect_ratios) != len(sizes):
            raise ValueError(
                f"aspect_ratios has {len(aspect_ratios)} entries and sizes {len(sizes)}; expected one per feature map"
            )
        self.cells = [cell_anchors(s, r) for s, r in zip(sizes, aspect_ratios, strict=True)]

    def num_anchors_per_location(self):
        """Return how many anchors a cell of each feature map has."""
        return [len(cells) for cells in self.cells]

    def __call__(self, image_size, feature_sizes):
        """Return the anchors of a picture.

        Parameters
        ----------
        image_size : (int, int)
            Height and width of the picture, in pixels.
        feature_sizes : sequence of (int, int)
            Height and width of each feature map, in cells.

        Returns
        -------
        list of ndarray
            For each feature map, its anchors ``(height * width * anchors, 4)``, as `grid_anchors` gives them.
        """
        if len(feature_sizes) != len(self.cells):
            raise ValueError(f"feature_sizes has {len(feature_sizes)} entries; expected {len(self.cells)}")
        return [grid_anchors(c, f, image_size) for c, f in zip(self.cells, feature_sizes, strict=True)]
