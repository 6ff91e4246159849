"""RoI operators once more, a whole RoI at a time: as a masked maximum, and as a product of three matrices."""

import numpy as np


def _pair(value):
    return tuple(value) if isinstance(value, (tuple, list)) else (value, value)


def _corners(inputs, spatial_scale):
    """Return, in the type of the case, the scaled low and high corners: each (K, 2), vertical first."""
    dtype = inputs["dtype"]
    corners = inputs["rois"][:, 1:].astype(dtype) * dtype(spatial_scale)
    return corners[:, 1::-1], corners[:, :1:-1]


def _pool_mask(start, end, bins, size, dtype):
    """Return which cells belong to which bin along one axis: (bins, size)."""
    step = dtype(max(end - start + 1, 1)) / dtype(bins)
    p, cells = np.arange(bins).astype(dtype)[:, None], np.arange(size)
    return (cells >= start + np.floor(p * step)) & (cells < start + np.ceil((p + dtype(1)) * step))


def roi_pool(inputs, gradient_of, output_size, spatial_scale=1.0):
    x, picture, dtype = inputs["x"], inputs["rois"][:, 0].astype(int), inputs["dtype"]
    (oh, ow), (n, c, h, w) = _pair(output_size), x.shape
    low, high = (np.sign(a) * np.floor(np.abs(a.astype(np.float64)) + 0.5) for a in _corners(inputs, spatial_scale))
    y, argmax = np.zeros((len(picture), c, oh, ow)), np.full((len(picture), c, oh, ow), -1, np.int32)
    lowest = -float(np.finfo(np.float32).max)
    for k in range(len(picture)):
        rows, columns = (_pool_mask(low[k, a], high[k, a], (oh, ow)[a], (h, w)[a], dtype) for a in (0, 1))
        inside = (rows[:, None, :, None] & columns[None, :, None, :]).reshape(1, oh, ow, h * w)
        values = x[picture[k]].reshape(c, 1, 1, h * w)
        values = np.where(inside & (values > lowest), values, -np.inf)
        found = values.max(-1) > lowest
        y[k] = np.where(found, values.max(-1), np.where(inside.any(-1), lowest, 0))
        argmax[k] = np.where(found, values.argmax(-1), -1)
    dx = np.zeros((n, c, h * w + 1))  # the last one takes what goes nowhere
    places = (picture[:, None, None, None], np.arange(c)[:, None, None], argmax)
    np.add.at(dx, places, gradient_of(y))
    return {"y": y, "argmax": argmax, "dx": dx[:, :, :-1].reshape(x.shape)}


def _align_matrix(start, end, bins, size, sampling_ratio, aligned, dtype):
    """Return the weight of each cell in each bin along one axis, and whether it is read: two arrays (bins, size)."""
    extent = end - start if aligned else np.maximum(end - start, dtype(1))
    step = extent / dtype(bins)
    grid = sampling_ratio if sampling_ratio > 0 else int(np.ceil(step))
    p, i = np.arange(bins).astype(dtype)[:, None], np.arange(grid).astype(dtype)
    places = start + p * step + (i + dtype(0.5)) * step / dtype(max(grid, 1))
    on_map = ((places >= -1) & (places <= size))[:, :, None]
    places, cells = np.clip(places, 0, size - 1)[:, :, None].astype(np.float64), np.arange(size)
    weights = np.maximum(1 - np.abs(places - cells), 0) * on_map
    # a cell of weight 0 is read too where a place is exactly on its neighbour
    read = ((cells == np.floor(places)) | (cells == np.floor(places) + 1)) & on_map
    return np.stack([weights.sum(1) / max(grid, 1), read.any(1)])


def roi_align(inputs, gradient_of, output_size, spatial_scale=1.0, sampling_ratio=-1, *, aligned):
    x, picture, dtype = inputs["x"], inputs["rois"][:, 0].astype(int), inputs["dtype"]
    low, high = (corner - dtype(0.5 if aligned else 0) for corner in _corners(inputs, spatial_scale))
    size, bins = x.shape[2:], _pair(output_size)
    matrices = []
    for a in (0, 1):
        ends = zip(low[:, a], high[:, a], strict=True)
        each = [_align_matrix(*pair, bins[a], size[a], sampling_ratio, aligned, dtype) for pair in ends]
        matrices.append(np.array(each).reshape(-1, 2, bins[a], size[a]))
    (rows, rows_read), (columns, columns_read) = (matrix.swapaxes(0, 1) for matrix in matrices)
    values = x[picture]
    y = np.einsum("kpi,kcij,kqj->kcpq", rows, np.nan_to_num(values), columns)
    y[np.einsum("kpi,kcij,kqj->kcpq", rows_read, np.isnan(values), columns_read) > 0] = np.nan
    dx = np.zeros(x.shape)
    np.add.at(dx, picture, np.einsum("kpi,kcpq,kqj->kcij", rows, gradient_of(y), columns))
    return {"y": y, "dx": dx}


EXPRESSIONS = {"roi_pool": roi_pool, "roi_align": roi_align}
