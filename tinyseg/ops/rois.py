"""Pooling over regions of interest."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tinyseg.backend import is_on_device, kernel, moved
from tinyseg.function import Function
from tinyseg.ops.shapes import index_beside
from tinyseg.tensor import Tensor


class RoiPool(Function):
    def forward(self, x, *, rois, output_size, spatial_scale):
        y, argmax = kernel("roi_pool_forward")(x, rois, output_size, spatial_scale)
        self.saved = (argmax,)
        self.rois, self.shape = rois, x.shape
        return y

    def backward(self, dy):
        (argmax,) = self.saved
        return kernel("roi_pool_backward")(dy, self.rois, argmax, self.shape)


class RoiAlign(Function):
    def forward(self, x, *, rois, output_size, **how):
        self.rois, self.shape, self.how = rois, x.shape, how
        return kernel("roi_align_forward")(x, rois, output_size, **how)

    def backward(self, dy):
        return kernel("roi_align_backward")(dy, self.rois, self.shape, **self.how)


class MultiScale(Function):
    """A RoI operator on several maps: each box from the map of its own level."""

    def forward(self, *maps, operator, rois, levels, scales, output_size, **how):
        y = None
        self.nodes: list = []  # of each map, with the rows of its boxes: None for all rows
        for level, (x, scale) in enumerate(zip(maps, scales, strict=True)):
            rows: Any = np.flatnonzero(levels == level)
            if len(rois) and not len(rows):
                self.nodes.append(None)
                continue
            node = operator()
            part = node.forward(x, rois=rois[rows], output_size=output_size, spatial_scale=scale, **how)
            if len(rows) == len(rois):  # all boxes on one level: nothing to put in order
                y, rows = part, None
            else:
                y = np.empty((len(rois), *part.shape[1:]), part.dtype, like=part) if y is None else y
                rows = index_beside(y, rows)
                y[rows] = part
            self.nodes.append((node, rows))
        self.saved = tuple(array for made in self.nodes if made for array in made[0].saved)
        return y

    def backward(self, dy):
        return [
            made[0].backward(dy if made[1] is None else dy[made[1]]) if needed and made and len(dy) else None
            for needed, made in zip(self.needs, self.nodes, strict=True)
        ]


def roi_pool(input, boxes, output_size, spatial_scale=1.0):
    """Return the largest value of each bin of each box. Arguments and their order follow torchvision.

    Parameters
    ----------
    input : Tensor
        Feature maps ``(N, C, H, W)``.
    boxes : Tensor, ndarray or list of them
        ``(K, 5)``: batch index, x1, y1, x2, y2 of each box, in picture coordinates; or for each picture an array
        ``(L, 4)`` of x1, y1, x2, y2. No gradient flows to them. They are few: those of the host are copied to where the
        maps lie.
    output_size : int or (int, int)
        Number of bins: vertical, horizontal.
    spatial_scale : float
        Feature cells per picture pixel.

    Returns
    -------
    Tensor
        ``(K, C, oH, oW)``.

    Raises
    ------
    TypeError, ValueError
        If a type, shape or parameter does not fit; if a coordinate is not finite or a batch index out of range; if
        boxes require gradients.

    Notes
    -----
    Corners are rounded to whole cells (halves away from zero), and both end cells belong to the box: see
    ``kernels.naive.roi_pool``. Girshick, Fast R-CNN, arXiv:1504.08083.
    """
    rois = _rois_beside(input, boxes)
    return RoiPool.apply(input, rois=rois, output_size=_size(output_size), spatial_scale=spatial_scale)


def roi_align(input, boxes, output_size, spatial_scale=1.0, sampling_ratio=-1, *, aligned):
    """Return the mean of interpolated samples in each bin of each box. Arguments and their order follow torchvision.

    Parameters
    ----------
    input : Tensor
        Feature maps ``(N, C, H, W)``.
    boxes : Tensor, ndarray or list of them
        ``(K, 5)``: batch index, x1, y1, x2, y2 of each box, in picture coordinates; or for each picture an array
        ``(L, 4)`` of x1, y1, x2, y2. No gradient flows to them. They are few: those of the host are copied to where the
        maps lie.
    output_size : int or (int, int)
        Number of bins: vertical, horizontal.
    spatial_scale : float
        Feature cells per picture pixel.
    sampling_ratio : int
        Samples per bin and axis; 0 or less for as many as the bin has cells, rounded up ("adaptive").
    aligned : bool
        Whether cells are numbered by their centres, so that half a cell is subtracted from the scaled corners. To be
        given by name: torchvision's default is False, detectron2's True.

    Returns
    -------
    Tensor
        ``(K, C, oH, oW)``.

    Raises
    ------
    TypeError, ValueError
        If a type, shape or parameter does not fit; if a coordinate is not finite or a batch index out of range; if a
        box is reversed with ``aligned=True`` and adaptive sampling; if boxes require gradients.

    Notes
    -----
    See ``kernels.naive.roi_align``. He et al., Mask R-CNN, arXiv:1703.06870.
    """
    return RoiAlign.apply(
        input,
        rois=_rois_beside(input, boxes),
        output_size=_size(output_size),
        spatial_scale=spatial_scale,
        sampling_ratio=sampling_ratio,
        aligned=aligned,
    )


def multi_scale_roi(inputs, boxes, output_size, scales, levels, *, roi_op="align", sampling_ratio=-1, aligned=False):
    """Pool each box from one of several feature maps.

    Parameters
    ----------
    inputs : sequence of Tensor
        Feature maps ``(N, C, h, w)`` of one type and number of channels.
    boxes : Tensor, ndarray or list of them
        As `roi_align` takes them, K in all.
    output_size : int or (int, int)
        Number of bins: vertical, horizontal.
    scales : sequence of float
        Feature cells per picture pixel of each map.
    levels : ndarray of int, shape (K,)
        Which of the maps each box is pooled from, by number.
    roi_op : {"align", "pool"}
        `roi_align` or `roi_pool`.
    sampling_ratio : int
        For ``"align"``, as `roi_align` takes it.
    aligned : bool
        For ``"align"``, as `roi_align` takes it.

    Returns
    -------
    Tensor
        ``(K, C, oH, oW)``, in the order of the boxes.

    Raises
    ------
    TypeError, ValueError
        As `roi_align` and `roi_pool`; and if maps, scales and levels do not fit together.

    Notes
    -----
    Lin et al., Feature Pyramid Networks, arXiv:1612.03144.
    """
    if roi_op not in ("align", "pool"):
        raise ValueError(f"roi_op is {roi_op!r}; expected 'align' or 'pool'")
    if not inputs or len(scales) != len(inputs) or len({(x.dtype, *x.shape[:2]) for x in inputs}) != 1:
        raise ValueError(
            f"inputs have shapes {[x.shape for x in inputs]} and there are {len(scales)} scales; expected one scale "
            "per map, and maps of one type, number of pictures and channels"
        )
    rois, levels = _rois(inputs[0], boxes), np.asarray(levels)
    if levels.shape != (len(rois),) or levels.dtype.kind not in "iu":
        raise ValueError(f"levels has dtype {levels.dtype}, shape {levels.shape}; expected integers, ({len(rois)},)")
    if len(levels) and not (levels.min() >= 0 and levels.max() < len(inputs)):
        raise ValueError(f"levels run from {levels.min()} to {levels.max()}; expected 0 to {len(inputs) - 1}")
    size = _size(output_size)
    how = {"sampling_ratio": sampling_ratio, "aligned": aligned} if roi_op == "align" else {}
    return MultiScale.apply(
        *inputs,
        operator=RoiAlign if roi_op == "align" else RoiPool,
        rois=rois,
        levels=levels,
        scales=scales,
        output_size=size if isinstance(size, tuple) else (size, size),
        **how,
    )


def _size(output_size):
    """Return any sequence of two as a tuple, as torchvision takes it."""
    return tuple(output_size) if isinstance(output_size, Sequence) else output_size


def _rois_beside(input, boxes):
    """Return boxes of either form as one array (K, 5), which lies on the host or where the input does.

    Those of the host stay there: the kernels look at them there, without waiting for the device, and copy them.
    """
    rois = _rois(input, boxes)
    return rois if is_on_device(input.array if isinstance(input, Tensor) else input) else moved(rois, "cpu")


def _rois(input, boxes):
    """Return boxes of either form as one array (K, 5) of the input's type, apart from what the caller holds."""
    if not isinstance(input, Tensor | np.ndarray):
        raise TypeError(f"input is a {type(input).__name__}; expected a Tensor")
    with np.errstate(over="ignore"):  # what is too large for the type becomes infinite, which the kernels refuse
        return _joined(input.dtype, input.shape[0], boxes)


def _joined(dtype, pictures, boxes):
    """Return boxes of either form as one new array (K, 5)."""
    if not isinstance(boxes, tuple | list):
        return _plain("boxes", boxes).astype(dtype)
    if len(boxes) != pictures:
        raise ValueError(f"boxes is a list of {len(boxes)}; expected one array for each of {pictures} pictures")
    rois = []
    for n, item in enumerate(boxes):
        array = _plain(f"boxes[{n}]", item)
        if array.ndim != 2 or array.shape[1] != 4:
            raise ValueError(f"boxes[{n}] has shape {array.shape}; expected (L, 4): x1, y1, x2, y2")
        array = array.astype(dtype, copy=False)
        rois.append(np.concatenate([np.full_like(array, n, shape=(len(array), 1)), array], axis=1))
    return np.concatenate(rois) if rois else np.empty((0, 5), dtype)


def _plain(name, boxes):
    """Return boxes as an array of numbers that no gradient flows to."""
    if isinstance(boxes, Tensor):
        if boxes.requires_grad:
            raise ValueError(f"{name} requires gradients, which RoI operators do not give to boxes; detach() it")
        boxes = boxes.array
    if not isinstance(boxes, np.ndarray) and not is_on_device(boxes):
        raise TypeError(f"{name} is a {type(boxes).__name__}; expected a Tensor or a NumPy array")
    if boxes.dtype.kind not in "fiu":
        raise TypeError(f"{name} has dtype {boxes.dtype}; expected numbers")
    return boxes
