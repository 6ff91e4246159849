"""The RoI operators as the explanations call them: arrays checked once, and the kernels of the backend in use."""

import numpy as np

from tinyseg import backend
from tinyseg.explain import checks

#: Operators by the names that the explanations give them, and what each is called in a title.
TITLES = {
    "roi_pool": "RoIPool",
    "crop_and_resize": "crop_and_resize",
    "roi_align": "RoIAlign, not aligned",
    "roi_align_aligned": "RoIAlign, aligned",
}


def checked_features(features):
    """Return feature maps as an array (N, C, H, W) of the host; whole numbers become float64."""
    array = checks.numbers("features", features, "fiub")
    if not 2 <= array.ndim <= 4 or 0 in array.shape:
        raise ValueError(
            f"features has shape {array.shape}; expected (H, W), (C, H, W) or (N, C, H, W), none of them 0"
        )
    native = array.dtype.newbyteorder("=")
    array = array.astype(native if native in (np.float32, np.float64) else np.float64, copy=False)
    return np.ascontiguousarray(array.reshape((1,) * (4 - array.ndim) + array.shape))


def checked_rois(rois, dtype, pictures, name="rois"):
    """Return boxes as an array (K, 5): those of four numbers get batch index 0."""
    array = checks.numbers(name, rois, "fiu")
    array = np.atleast_2d(array).astype(dtype)
    if array.ndim != 2 or array.shape[1] not in (4, 5):
        raise ValueError(
            f"{name} has shape {array.shape}; expected boxes of four numbers x1, y1, x2, y2, or of five with a batch "
            "index before them"
        )
    if array.shape[1] == 4:
        if pictures > 1:
            raise ValueError(
                f"{name} has boxes of four numbers for {pictures} pictures; expected a batch index before them"
            )
        array = np.insert(array, 0, 0, axis=1)
    return np.ascontiguousarray(array)


def checked_roi(roi, dtype, pictures):
    """Return one box as an array (1, 5)."""
    rois = checked_rois(roi, dtype, pictures, "roi")
    if len(rois) != 1:
        raise ValueError(f"roi has {len(rois)} boxes; expected one")
    return rois


def checked_how(x, rois, output_size, spatial_scale, sampling_ratio):
    """Return the other arguments of a RoI operator as its kernels check them: pair of bins, scale, ratio."""
    how = backend.checked_arguments("roi_align", x, rois, output_size, spatial_scale, sampling_ratio, False)
    return how[2], float(spatial_scale), how[4]


def checked_ops(ops):
    """Return names of operators as a tuple."""
    if not isinstance(ops, str | list | tuple):
        raise TypeError(f"ops is {ops!r}; expected names of operators")
    ops = (ops,) if isinstance(ops, str) else tuple(ops)
    for op in ops:
        if op not in TITLES:
            raise ValueError(f"ops has {op!r}; expected some of {', '.join(map(repr, TITLES))}")
    if not ops or len(set(ops)) != len(ops):
        raise ValueError(f"ops is {ops!r}; expected different operators, at least one")
    return ops


def pool(op, x, rois, output_size, spatial_scale=1.0, sampling_ratio=-1):
    """Return what an operator of `TITLES` gives: ``(K, C, oH, oW)``; ``sampling_ratio`` is for RoIAlign alone."""
    if op == "roi_pool":
        return backend.kernel("roi_pool_forward")(x, rois, output_size, spatial_scale)[0]
    if op == "crop_and_resize":
        return crop_and_resize(x, corners_in_cells(rois, x.shape[2:], spatial_scale), output_size)
    aligned = op == "roi_align_aligned"
    return backend.kernel("roi_align_forward")(x, rois, output_size, spatial_scale, sampling_ratio, aligned=aligned)


def corners_in_cells(rois, map_size, spatial_scale):
    """Return the corners that TensorFlow makes of boxes in picture pixels: divided by the picture's size, and
    multiplied by that of the map less 1."""
    corners = rois.copy()
    for axis, cells in enumerate(map_size):
        T = rois.dtype.type
        for column in (2 - axis, 4 - axis):
            corners[:, column] = rois[:, column] * T(spatial_scale) / T(cells) * T(cells - 1)
    return corners


def crop_and_resize(x, rois, output_size, extrapolation_value=0.0):
    """Return TensorFlow's ``crop_and_resize``, computed by RoIAlign with one sample per bin.

    Parameters
    ----------
    x : ndarray, shape (N, C, H, W)
        Feature maps.
    rois : ndarray, shape (K, 5)
        Batch index and x1, y1, x2, y2 in feature cells: TensorFlow's normalised corners times H - 1 and W - 1. The
        first sample lies on the first corner, the last on the second.
    output_size : (int, int)
        Samples: vertical, horizontal.
    extrapolation_value : float
        What samples outside of the map give: also those less than a cell outside, which RoIAlign moves onto the map.

    Returns
    -------
    ndarray, shape (K, C, oH, oW)
    """
    shifted = crop_boxes(rois, output_size)
    y = backend.kernel("roi_align_forward")(x, shifted, output_size, 1.0, 1, aligned=True)
    rows, columns = (_on_map(rois, axis, output_size, x.shape) for axis in (0, 1))
    inside = rows[:, None, :, None] & columns[:, None, None, :]
    return np.where(inside, y, x.dtype.type(extrapolation_value))


def crop_boxes(rois, output_size):
    """Return the boxes whose bins have the samples of ``crop_and_resize`` at their centres, for ``aligned=True``.

    Samples lie a step of ``(x2 - x1) / (n - 1)`` apart, so the box reaches half a step beyond the first and the last;
    and half a cell is added, which RoIAlign takes off again. A single sample lies in the middle.
    """
    shifted = rois.copy()
    half = rois.dtype.type(0.5)
    for axis, bins in enumerate(output_size):
        low, high = rois[:, 2 - axis], rois[:, 4 - axis]
        if bins > 1:
            beyond = (high - low) / rois.dtype.type(bins - 1) * half
        else:
            low = high = (low + high) * half
            beyond = half
        shifted[:, 2 - axis], shifted[:, 4 - axis] = low - beyond + half, high + beyond + half
    return shifted


def _on_map(rois, axis, output_size, shape):
    """Return which samples of ``crop_and_resize`` lie between the first and the last cell along an axis: (K, bins)."""
    low, high = rois[:, 2 - axis, None], rois[:, 4 - axis, None]
    bins, T = output_size[axis], rois.dtype.type
    if bins > 1:
        places = low + np.arange(bins, dtype=T) * ((high - low) / T(bins - 1))
    else:
        places = T(0.5) * (low + high)
    return (places >= 0) & (places <= shape[2 + axis] - 1)
