"""Boxes as offsets from other boxes: what a network predicts, and what it is trained to predict.

With centre (cx, cy), width w and height h of a proposal, and those of the box sought primed:

    dx = (cx' - cx) / w    dy = (cy' - cy) / h    dw = log(w' / w)    dh = log(h' / h)

each times its weight, as in the papers of R-CNN (Girshick et al., arXiv:1311.2524) and torchvision's ``BoxCoder``.
"""

import math

import numpy as np

#: Largest dw and dh that is decoded: boxes grow by 62.5 at most.
LARGEST_STEP = math.log(1000 / 16)


def encode(boxes, proposals, weights=(1.0, 1.0, 1.0, 1.0)):
    """Return the offsets that turn proposals into boxes.

    Parameters
    ----------
    boxes : ndarray, shape (N, 4)
        Boxes (x1, y1, x2, y2) sought.
    proposals : ndarray, shape (N, 4)
        Where to start from, of the same floating type.
    weights : (float, float, float, float)
        Factors of dx, dy, dw and dh.

    Returns
    -------
    ndarray, shape (N, 4)
        dx, dy, dw, dh.

    Raises
    ------
    TypeError
        If the arrays are not of one floating type.
    ValueError
        If the shapes differ, or a box has no width or height above 0.
    """
    if boxes.shape != proposals.shape or boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes has shape {boxes.shape} and proposals {proposals.shape}; expected (N, 4), both")
    _check_types(boxes=boxes, proposals=proposals)
    (x, y, w, h), (px, py, pw, ph) = _centred("boxes", boxes), _centred("proposals", proposals)
    kx, ky, kw, kh = _factors(weights, proposals.dtype)
    return np.stack([kx * (x - px) / pw, ky * (y - py) / ph, kw * np.log(w / pw), kh * np.log(h / ph)], axis=1)


def decode(codes, proposals, weights=(1.0, 1.0, 1.0, 1.0), largest_step=LARGEST_STEP):
    """Return the boxes that offsets turn proposals into.

    Parameters
    ----------
    codes : ndarray, shape (N, 4 * K)
        dx, dy, dw, dh for each of K classes.
    proposals : ndarray, shape (N, 4)
        Where to start from: boxes (x1, y1, x2, y2) of the same floating type.
    weights : (float, float, float, float)
        Factors that dx, dy, dw and dh were multiplied by.
    largest_step : float
        dw and dh above this are cut to it, so that exp does not overflow.

    Returns
    -------
    ndarray, shape (N, K, 4)
        Boxes.

    Raises
    ------
    TypeError
        If the arrays are not of one floating type.
    ValueError
        If the shapes do not fit.
    """
    if proposals.ndim != 2 or proposals.shape[1] != 4 or codes.ndim != 2 or codes.shape[1] % 4:
        raise ValueError(f"codes has shape {codes.shape}, proposals {proposals.shape}; expected (N, 4 * K) and (N, 4)")
    if len(codes) != len(proposals):
        raise ValueError(f"codes has {len(codes)} rows; expected {len(proposals)}, one per proposal")
    _check_types(codes=codes, proposals=proposals)
    half = proposals.dtype.type(0.5)
    kx, ky, kw, kh = _factors(weights, codes.dtype)
    w, h = proposals[:, 2] - proposals[:, 0], proposals[:, 3] - proposals[:, 1]
    x, y = proposals[:, 0] + half * w, proposals[:, 1] + half * h
    new_x = codes[:, 0::4] / kx * w[:, None] + x[:, None]
    new_y = codes[:, 1::4] / ky * h[:, None] + y[:, None]
    limit = codes.dtype.type(largest_step)
    half_w = half * (np.exp(np.minimum(codes[:, 2::4] / kw, limit)) * w[:, None])
    half_h = half * (np.exp(np.minimum(codes[:, 3::4] / kh, limit)) * h[:, None])
    return np.stack([new_x - half_w, new_y - half_h, new_x + half_w, new_y + half_h], axis=2)


def clip_to_picture(boxes, image_size):
    """Return boxes cut off at the borders of a picture.

    Parameters
    ----------
    boxes : ndarray, shape (..., 4)
        Boxes (x1, y1, x2, y2).
    image_size : (int, int)
        Height H and width W of the picture.

    Returns
    -------
    ndarray, shape (..., 4)
        With x from 0 to W and y from 0 to H, both included; a box beyond a border has no area left.
    """
    height, width = image_size
    limits = np.array([width, height, width, height], boxes.dtype)
    return np.clip(boxes, boxes.dtype.type(0), limits)


def _check_types(**arrays):
    """Raise unless both arrays are of the same floating type: halves of whole numbers would be 0."""
    (name, a), (other, b) = arrays.items()
    if a.dtype.kind != "f" or a.dtype != b.dtype:
        raise TypeError(f"{name} has dtype {a.dtype} and {other} {b.dtype}; expected one floating type")


def _centred(name, boxes):
    """Return centre x, centre y, width and height of boxes that have an area."""
    w, h = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    bad = ~((w > 0) & (h > 0))
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(f"{name} has width {w[row]} and height {h[row]} in row {row}; expected both above 0")
    half = boxes.dtype.type(0.5)
    return boxes[:, 0] + half * w, boxes[:, 1] + half * h, w, h


def _factors(weights, dtype):
    """Return the four weights in the type of the boxes."""
    if len(weights) != 4 or not all(weight > 0 for weight in weights):
        raise ValueError(f"weights is {weights!r}; expected four positive numbers, for dx, dy, dw and dh")
    return np.asarray(weights, dtype)
