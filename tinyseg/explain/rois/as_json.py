"""A `RoITrace` as strict JSON, and back.

One object with these members; arrays are nested lists, exact numbers of the map's type. JSON has no NaN and no
infinity: they are the strings ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``, which Python's ``float`` and JavaScript's
``Number`` turn into numbers.

==================  ====================================================================================================
``format``          ``"tinyseg.explain.roi"``
``version``         1; members may be added without a new one
``op``              ``"roi_pool"``, ``"crop_and_resize"`` or ``"roi_align"``
``dtype``           ``"float32"`` or ``"float64"``
``features``        [C][H][W]: the map; of the one channel only that was asked for
``picture``         which picture of the batch it is
``roi``             [x1, y1, x2, y2], picture pixels
``spatial_scale``   feature cells per picture pixel
``output_size``     [bins down, bins across]
``sampling_ratio``  of RoIAlign, null for others
``aligned``         of RoIAlign, null for others
``scaled``          [x1, y1, x2, y2], feature cells, 0 being the outer edge of the first cell
``box``             [x1, y1, x2, y2] as the operator has it: `RoITrace.box`
``rows``            the vertical axis, see below
``columns``         the horizontal one
``output``          [C][oH][oW]
``argmax``          [C][oH][oW] of RoIPool: row * W + column, or -1; null for others
``bins``            [oH][oW] of the others: {"values": [C][samples], "contributions": [C][samples]}, in the order of
                    the row axis's samples, and for each of them the column axis's; null for RoIPool
==================  ====================================================================================================

An axis of RoIPool: ``start`` and ``end`` (the rounded corners; the end cell belongs to the box), ``size``,
``bin_size``, and ``bins``: for each ``first`` and ``stop``, and ``low`` and ``high``, the same within the map. A stop
is the cell after the last one; a bin with ``high <= low`` has no cells.

An axis of the others: ``start``, ``size``, ``bin_size``, ``grid`` (samples of a bin), ``edges`` ([bins + 1], null for
crop_and_resize), and ``bins``: for each the list of its ``samples``. Each sample has ``index``, ``times`` (how many
are at the same place), ``place`` (0 being the centre of the first cell), ``on_map``, and if so ``cells`` and
``weights``, two of each, else empty lists. The weight of a cell in a sample is that of its row times that of its
column.
"""

import json

import numpy as np

FORMAT = "tinyseg.explain.roi"
VERSION = 1


def document(trace, channel=None):
    """Return a trace as an object that JSON can hold.

    Parameters
    ----------
    trace : RoITrace
        The trace.
    channel : int, optional
        Which channel alone; all without it.

    Returns
    -------
    dict
    """
    channels = slice(None) if channel is None else slice(channel, channel + 1)
    pooled = trace.op == "roi_pool"
    return {
        "format": FORMAT,
        "version": VERSION,
        "op": trace.op,
        "dtype": str(trace.dtype),
        "features": plain(trace.features[channels]),
        "picture": trace.picture,
        "roi": plain(trace.roi),
        "spatial_scale": float(trace.spatial_scale),
        "output_size": list(trace.output_size),
        "sampling_ratio": trace.sampling_ratio,
        "aligned": trace.aligned,
        "scaled": plain(trace.scaled),
        "box": plain(trace.box),
        "rows": (_pool_axis if pooled else _sample_axis)(trace.rows),
        "columns": (_pool_axis if pooled else _sample_axis)(trace.columns),
        "output": plain(trace.output[channels]),
        "argmax": trace.argmax[channels].tolist() if pooled else None,
        "bins": None if pooled else _bins(trace, channels),
    }


def text(document):
    """Return an object that `document` made, or that holds such, as JSON: strict, and one line.

    Parameters
    ----------
    document : dict
        What to write.

    Returns
    -------
    str
    """
    return json.dumps(document, allow_nan=False, separators=(", ", ": ")) + "\n"


def plain(values):
    """Return numbers as lists of Python's, with strings for those that JSON has not.

    Parameters
    ----------
    values : array_like
        The numbers.

    Returns
    -------
    list or float or str
    """
    array = np.asarray(values)
    return array.tolist() if np.isfinite(array).all() else _named(array.tolist())


def numbers(values, dtype):
    """Return what `plain` made as an array again.

    Parameters
    ----------
    values : list
        Nested lists of numbers and names.
    dtype : dtype
        Of the array.

    Returns
    -------
    ndarray
    """
    return np.array(values).astype(dtype)


def _named(value):
    """Return nested lists with names for numbers that are not finite."""
    if isinstance(value, list):
        return [_named(part) for part in value]
    if np.isfinite(value):
        return value
    return "NaN" if np.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _pool_axis(axis):
    names = ("first", "stop", "low", "high")
    bins = zip(*(getattr(axis, name).tolist() for name in names), strict=True)
    return {
        "start": axis.start, "end": axis.end, "size": axis.size, "bin_size": plain(axis.bin_size),
        "bins": [dict(zip(names, cells, strict=True)) for cells in bins],
    }  # fmt: skip


def _sample_axis(axis):
    parts = [part.tolist() for part in axis[5:]]  # from index to weight_high
    bins = []
    for p in range(len(axis.times)):
        samples = []
        for index, times, place, on_map, low, high, *weights in zip(*(a[p] for a in parts), strict=True):
            if times:
                cells, weights = ([low, high], weights) if on_map else ([], [])
                samples.append({
                    "index": index, "times": times, "place": place if np.isfinite(place) else _named(place),
                    "on_map": on_map, "cells": cells, "weights": weights,
                })  # fmt: skip
        bins.append({"samples": samples})
    return {
        "start": plain(axis.start), "size": plain(axis.size), "bin_size": plain(axis.bin_size), "grid": axis.grid,
        "edges": None if axis.edges is None else plain(axis.edges), "bins": bins,
    }  # fmt: skip


def _bins(trace, channels):
    """Return the samples' values and contributions, bin by bin."""
    rows = []
    for py in range(trace.output_size[0]):
        values, contributions = trace.row_contributions(py)
        row = []
        for px in range(trace.output_size[1]):
            across = trace.columns.listed(px)
            both = (part[channels][:, :, px, across] for part in (values, contributions))
            both = (plain(part.reshape(part.shape[0], -1)) for part in both)
            row.append(dict(zip(("values", "contributions"), both, strict=True)))
        rows.append(row)
    return rows
