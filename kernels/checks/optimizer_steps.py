"""Checks of the optimiser steps, which change arrays in place."""

import numpy as np

from kernels.checks.arguments import FLOATS, array, is_on_device, number


def arrays_in_place(name, arrays, like=None, on_device=False):
    """Return a list of arrays that can be written to, of one type; of the shapes of those in ``like``, where given.

    They are NumPy arrays, or device arrays where the kernels work ``on_device``.
    """
    arrays = list(arrays)
    if like is not None and len(arrays) != len(like):
        raise ValueError(f"{name} has {len(arrays)} arrays; expected {len(like)}, as values has")
    for i, a in enumerate(arrays):
        if on_device and not is_on_device(a):
            raise TypeError(f"{name} has a {type(a).__name__}; expected device arrays, which are changed in place")
        if not on_device and not isinstance(a, np.ndarray):
            raise TypeError(f"{name} has a {type(a).__name__}; expected NumPy arrays")
        if a.dtype not in FLOATS or not a.dtype.isnative:
            raise TypeError(f"{name} has an array of dtype {a.dtype}; expected float32 or float64 of native byte order")
        if a.dtype != (arrays if like is None else like)[0].dtype:
            raise TypeError(f"{name} has an array of dtype {a.dtype}; expected one type for all")
        if not on_device and (not a.flags.c_contiguous or not a.flags.writeable):
            raise ValueError(f"{name} has an array that is read-only or not C-contiguous; it is changed in place")
        if like is not None and a.shape != like[i].shape:
            raise ValueError(f"{name} has an array of shape {a.shape}; expected {like[i].shape}, as in values")
    return arrays


def gradients(gradients, values):
    """Return the gradients of ``values``, C-contiguous."""
    if len(gradients) != len(values):
        raise ValueError(f"gradients has {len(gradients)} arrays; expected {len(values)}, as values has")
    checked = [array("gradients", g, dtype=v.dtype) for g, v in zip(gradients, values, strict=True)]
    for g, v in zip(checked, values, strict=True):
        if g.shape != v.shape:
            raise ValueError(f"gradients has an array of shape {g.shape}; expected {v.shape}, as in values")
    return checked


def per_array(name, items, values):
    """Return a list of one item for each array."""
    items = list(items)
    if len(items) != len(values):
        raise ValueError(f"{name} has {len(items)} items; expected {len(values)}, as values has")
    return items


def sgd_step(values, grads, buffers, fresh, settings, on_device=False):
    """Return ``values, gradients, buffers, fresh`` and the settings as floats; buffers None without momentum."""
    values = arrays_in_place("values", values, None, on_device)
    grads = gradients(grads, values)
    if buffers is not None:
        buffers = arrays_in_place("buffers", buffers, values, on_device)
        fresh = per_array("fresh", fresh, values)
    return values, grads, buffers, fresh, {name: number(name, value) for name, value in settings.items()}


def adam_step(values, grads, means, squares, largest, steps, settings, on_device=False):
    """Return ``values, gradients, means, squares, largest, steps`` and the settings as floats."""
    values = arrays_in_place("values", values, None, on_device)
    grads = gradients(grads, values)
    means = arrays_in_place("means", means, values, on_device)
    squares = arrays_in_place("squares", squares, values, on_device)
    largest = None if largest is None else arrays_in_place("largest", largest, values, on_device)
    steps = [number("steps", step, 1) for step in per_array("steps", steps, values)]
    return values, grads, means, squares, largest, steps, {name: number(name, v) for name, v in settings.items()}


def float_arrays(name, arrays):
    """Return a list of C-contiguous arrays of one type."""
    arrays = list(arrays)
    return [array(name, a, dtype=arrays[0].dtype.newbyteorder("=") if i else None) for i, a in enumerate(arrays)]
