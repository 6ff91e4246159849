"""Checks of pooling over regions of interest.

Values of arrays on a device are not looked at here: the backend does that itself.
"""

import numpy as np

from kernels.checks.arguments import (
    array,
    has_pixels,
    index_array,
    integer,
    is_on_device,
    number,
    pair,
    same_shape,
    shape,
)

_CORNERS = ("x1", "y1", "x2", "y2")
#: Cells of a plane that RoIPool can tell apart by numbers of 32 bits.
_MOST_CELLS = 2**31 - 1


def _rois(rois, pictures, dtype):
    """Return ``rois`` after checking what holds for every operator: shape, finite corners, batch indices."""
    rois = array("rois", rois, dtype=dtype)
    if rois.ndim != 2 or rois.shape[1] != 5:
        raise ValueError(f"rois has shape {rois.shape}; expected (K, 5): batch index, x1, y1, x2, y2")
    if is_on_device(rois):
        return rois
    for row, corner in np.argwhere(~np.isfinite(rois[:, 1:]))[:1]:
        raise ValueError(
            f"row {row} of rois has {_CORNERS[corner]} {rois[row, 1 + corner]:g}; expected a finite number"
        )
    index = rois[:, 0]
    # written so that NaN is wrong too
    for row in np.flatnonzero(~((index >= 0) & (index < pictures) & (index == np.floor(index))))[:1]:
        expected = f"a whole number from 0 to {pictures - 1}" if pictures else "none, since there are no pictures"
        raise ValueError(f"row {row} of rois has batch index {index[row]:g}; expected {expected}")
    return rois


def _scale(rois, spatial_scale):
    """Return ``spatial_scale`` in the type of ``rois``, after checking that no scaled box leaves the type's range."""
    scale = number("spatial_scale", spatial_scale)
    if scale <= 0:
        raise ValueError(f"spatial_scale is {scale}; expected more than 0")
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        scale = rois.dtype.type(scale)
        if is_on_device(rois):
            return scale
        corners = rois[:, 1:] * scale
        sizes = corners[:, 2:] - corners[:, :2]
    for row, corner in np.argwhere(~np.isfinite(corners))[:1]:
        raise ValueError(
            f"row {row} of rois has {_CORNERS[corner]} {rois[row, 1 + corner]:g}; "
            f"expected a number that stays finite in {rois.dtype} when multiplied by spatial_scale {spatial_scale}"
        )
    for row, axis in np.argwhere(~np.isfinite(sizes))[:1]:
        raise ValueError(
            f"row {row} of rois has {_CORNERS[axis]} {rois[row, 1 + axis]:g} and {_CORNERS[2 + axis]} "
            f"{rois[row, 3 + axis]:g}; expected a difference that is finite in {rois.dtype}"
        )
    return scale


def _refuse_reversed(rois, sampling_ratio, aligned):
    """Refuse boxes of negative size where the number of samples would follow from that size."""
    if not aligned or sampling_ratio > 0 or is_on_device(rois):
        return
    for row, axis in np.argwhere(rois[:, 3:] < rois[:, 1:3])[:1]:
        raise ValueError(
            f"row {row} of rois has {_CORNERS[2 + axis]} {rois[row, 3 + axis]:g}, less than {_CORNERS[axis]} "
            f"{rois[row, 1 + axis]:g}; expected no reversed box with aligned=True and adaptive sampling "
            f"(sampling_ratio {sampling_ratio})"
        )


def _flag(name, value):
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} is {value!r}; expected True or False")
    return bool(value)


def _forward(x, rois, output_size, spatial_scale):
    """Return ``x, rois, output_size, spatial_scale``; the size as a pair, the scale in the type of x."""
    x = array("x", x, 4)
    has_pixels("x", x.shape)
    rois = _rois(rois, x.shape[0], x.dtype)
    return x, rois, pair("output_size", output_size, 1), _scale(rois, spatial_scale)


def roi_pool(x, rois, output_size, spatial_scale):
    """Return ``x, rois, output_size, spatial_scale``; the size as a pair, the scale in the type of x."""
    x, rois, output_size, scale = _forward(x, rois, output_size, spatial_scale)
    _few_cells("x", x.shape)
    return x, rois, output_size, scale


def _few_cells(name, shape):
    """Refuse planes with cells that a number of 32 bits cannot tell apart."""
    if shape[2] * shape[3] > _MOST_CELLS:
        raise ValueError(f"{name} has shape {shape}; expected at most {_MOST_CELLS} cells in a plane")


def roi_pool_gradient(dy, rois, argmax, input_shape, *, places=True):
    """Return ``dy, rois, argmax, input_shape``; each index is an int32, and is -1 or lies inside a plane of the input.

    Without ``places``, indices that are int32 already are left to a kernel that looks at them itself, and then calls
    ``check_places``.
    """
    dy = array("dy", dy, 4)
    input_shape = shape("input_shape", input_shape, 4)
    has_pixels("the input", input_shape)
    _few_cells("the input", input_shape)
    rois = _rois(rois, input_shape[0], dy.dtype)
    same_shape("dy", dy, (len(rois), input_shape[1], *dy.shape[2:]), "one output per RoI and channel")
    if is_on_device(argmax):
        return dy, rois, index_array("argmax", argmax, dy.shape, np.int32), input_shape
    argmax = index_array("argmax", argmax, dy.shape, getattr(argmax, "dtype", None))
    if argmax.size and (places or argmax.dtype != np.int32):
        check_places(argmax.min(), argmax.max(), input_shape)
    return dy, rois, np.asarray(argmax, np.int32), input_shape


def check_places(lowest, highest, input_shape):
    """Refuse an ``argmax`` whose values from ``lowest`` to ``highest`` do not all lie in a plane, or are -1."""
    cells = input_shape[2] * input_shape[3]
    if lowest < -1 or highest >= cells:
        raise ValueError(f"argmax has values from {lowest} to {highest}; expected -1 to {cells - 1}")


def roi_align(x, rois, output_size, spatial_scale, sampling_ratio, aligned):
    """Return ``x, rois, output_size, spatial_scale, sampling_ratio, aligned``; the scale in the type of x."""
    x, rois, output_size, scale = _forward(x, rois, output_size, spatial_scale)
    sampling_ratio, aligned = integer("sampling_ratio", sampling_ratio), _flag("aligned", aligned)
    _refuse_reversed(rois, sampling_ratio, aligned)
    return x, rois, output_size, scale, sampling_ratio, aligned


def roi_align_gradient(dy, rois, input_shape, spatial_scale, sampling_ratio, aligned):
    """Return ``dy, rois, input_shape, spatial_scale, sampling_ratio, aligned``; the scale in the type of dy."""
    dy = array("dy", dy, 4)
    if dy.shape[2] < 1 or dy.shape[3] < 1:
        raise ValueError(f"dy has shape {dy.shape}; expected an output size of at least 1x1")
    input_shape = shape("input_shape", input_shape, 4)
    has_pixels("the input", input_shape)
    rois = _rois(rois, input_shape[0], dy.dtype)
    same_shape("dy", dy, (len(rois), input_shape[1], *dy.shape[2:]), "one output per RoI and channel")
    scale = _scale(rois, spatial_scale)
    sampling_ratio, aligned = integer("sampling_ratio", sampling_ratio), _flag("aligned", aligned)
    _refuse_reversed(rois, sampling_ratio, aligned)
    return dy, rois, input_shape, scale, sampling_ratio, aligned
