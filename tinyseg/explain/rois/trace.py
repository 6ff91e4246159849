"""The RoI microscope: every number between a box and what a RoI operator makes of it."""

import numpy as np

from tinyseg.backend import checked_arguments
from tinyseg.explain.rois.axes import align_axis, crop_axis, pool_axis
from tinyseg.explain.rois.calls import checked_features, checked_roi
from tinyseg.explain.rois.report import RoITrace
from tinyseg.explain.rois.values import refuse_many

OPERATORS = ("roi_pool", "crop_and_resize", "roi_align")


def roi(features, roi, op="roi_align", *, output_size, spatial_scale=1.0, sampling_ratio=-1, aligned=None):
    """Trace what a RoI operator makes of one box: every number from the box to the output.

    Parameters
    ----------
    features : array or Tensor, shape (H, W), (C, H, W) or (N, C, H, W)
        The feature map. Its type, float32 or float64, is that of all arithmetic; whole numbers become float64.
    roi : array_like of 4 or 5 numbers
        ``x1, y1, x2, y2`` of the box in picture pixels; a batch index before them where there are several pictures.
    op : {"roi_align", "roi_pool", "crop_and_resize"}
        The operator; the last is TensorFlow's, see below.
    output_size : int or pair of int
        Number of bins: vertical, horizontal.
    spatial_scale : float
        Feature cells per picture pixel.
    sampling_ratio : int
        For ``"roi_align"`` alone: samples per bin and axis; 0 or less for as many as the bin has cells, rounded up.
    aligned : bool, optional
        For ``"roi_align"`` alone, which needs it: whether half a cell is subtracted from the scaled corners.

    Returns
    -------
    RoITrace

    Raises
    ------
    TypeError, ValueError
        As `tinyseg.ops.roi_align` and `tinyseg.ops.roi_pool`; if ``op`` is another; if an option is given that the
        operator does not have; and if a trace would hold more than four million samples on the map.

    Notes
    -----
    The output equals that of the ``"naive"`` kernels bit for bit, in both types; nothing is compiled for it.
    ``"roi_pool"`` and ``"roi_align"`` are torchvision's: Girshick, arXiv:1504.08083; He et al., arXiv:1703.06870.

    ``"crop_and_resize"`` follows ``tf.image.crop_and_resize`` with ``method="bilinear"`` and
    ``extrapolation_value=0``, which takes normalised boxes. As in TensorFlow's detectors the box is divided by the
    size of the picture, which is ``W / spatial_scale`` by ``H / spatial_scale`` pixels: 0 is its left or upper edge
    and 1 the right or lower one. TensorFlow multiplies by ``W - 1`` and ``H - 1``, so that 0 is the centre of the
    first cell and 1 that of the last. Each bin is one bilinear sample. The first is at one corner of the box and the
    last at the other, with equal steps between; where there is one bin, its sample is in the middle. Samples beyond
    the centres of the outer cells give 0.

    Examples
    --------
    >>> import numpy as np
    >>> from tinyseg import explain
    >>> ramp = np.arange(25.0).reshape(5, 5)
    >>> trace = explain.roi(ramp, (0, 0, 2, 2), output_size=2, sampling_ratio=2, aligned=True)
    >>> trace.output[0].tolist()
    [[0.75, 1.625], [5.125, 6.0]]
    >>> [sample.value for sample in trace.samples(0, 1)]
    [0.75, 1.25, 2.0, 2.5]
    """
    if op not in OPERATORS:
        raise ValueError(f"op is {op!r}; expected one of {', '.join(map(repr, OPERATORS))}")
    x = checked_features(features)
    with np.errstate(over="ignore"):  # what is too large for the type becomes infinite, which is refused below
        rois = checked_roi(roi, x.dtype, len(x))
    if op == "roi_align":
        *checked, ratio, aligned = checked_arguments(op, x, rois, output_size, spatial_scale, sampling_ratio, aligned)
    else:
        if aligned is not None or sampling_ratio != -1:
            name, value, usual = ("aligned", aligned, None) if aligned is not None else (
                "sampling_ratio", sampling_ratio, -1
            )  # fmt: skip
            raise ValueError(f"{name} is {value!r}; expected {usual} with op {op!r}, which has no such option")
        checked, ratio = checked_arguments("roi_pool", x, rois, output_size, spatial_scale), None
    x, rois, size, scale = checked
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):  # places far away, and NaN on the map
        axes = [
            _axis(op, rois[0, 2 - axis], rois[0, 4 - axis], x.shape[2 + axis], size[axis], scale, ratio, aligned)
            for axis in (0, 1)
        ]
        return RoITrace(op, x[int(rois[0, 0])], rois[0], scale, size, ratio, aligned, *axes)


def _axis(op, low, high, cells, bins, scale, ratio, aligned):
    """Return one axis of an operator."""
    if op == "roi_pool":
        return pool_axis(low, high, cells, bins, scale)
    if op == "crop_and_resize":
        return crop_axis(low, high, cells, bins, scale)
    refuse_many(bins * max(ratio, 0), f"sampling_ratio is {ratio}")
    return align_axis(low, high, cells, bins, scale, ratio, aligned)
