"""Every operator once more as loop-free NumPy in float64: a second opinion on the naive kernels.

``EXPRESSIONS[function](inputs, parameters, gradient_of)`` returns the results by the names of ``cases.evaluate``.
``gradient_of(y)`` gives the gradient of the output.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


def _pair(value):
    return tuple(value) if isinstance(value, (tuple, list)) else (value, value)


def _window_pixels(height, width, kernel, stride, padding, dilation):
    """Return which pixel (counted row by row) each cell of each window reads; ``height * width`` for the padding.

    The shape is (windows down, windows across, kH, kW).
    """
    (kh, kw), (sh, sw), (ph, pw), (dh, dw) = kernel, stride, padding, dilation
    pixels = np.arange(height * width).reshape(height, width)
    pixels = np.pad(pixels, ((ph, ph), (pw, pw)), constant_values=height * width)
    windows = sliding_window_view(pixels, (dh * (kh - 1) + 1, dw * (kw - 1) + 1))
    return windows[::sh, ::sw, ::dh, ::dw]


def _extended(x, value):
    """Return (N, C, H * W + 1): the pixels, and one more for the padding."""
    n, c, h, w = x.shape
    return np.concatenate([x.reshape(n, c, h * w), np.full((n, c, 1), value)], axis=2)


def _scattered(windows, pixels, shape):
    """Return the sum of ``windows`` over the pixels they were read from: (N, C, H, W)."""
    n, c, h, w = shape
    result = np.zeros((n, c, h * w + 1))
    np.add.at(result, (slice(None), slice(None), pixels), windows)
    return result[:, :, :-1].reshape(shape)


def _needed(names, gradients, needs):
    return {name: value if need else None for name, value, need in zip(names, gradients, needs, strict=True)}


_WEIGHTED = ("dx", "dweight", "dbias")


def conv2d(inputs, gradient_of, stride=1, padding=0, dilation=1, groups=1, needs=(True, True, True)):
    x, weight, bias = inputs["x"], inputs["weight"], inputs["bias"]
    n, c, h, w = x.shape
    o, _, kh, kw = weight.shape
    pixels = _window_pixels(h, w, (kh, kw), _pair(stride), _pair(padding), _pair(dilation))
    windows = _extended(x, 0)[:, :, pixels].reshape(n, groups, c // groups, *pixels.shape)
    grouped = weight.reshape(groups, o // groups, c // groups, kh, kw)
    y = np.einsum("ngcyxij,gocij->ngoyx", windows, grouped).reshape(n, o, *pixels.shape[:2])
    if bias is not None:
        y = y + bias[:, None, None]
    dy = gradient_of(y).reshape(n, groups, o // groups, *pixels.shape[:2])
    dwindows = np.einsum("ngoyx,gocij->ngcyxij", dy, grouped).reshape(n, c, *pixels.shape)
    dweight = np.einsum("ngoyx,ngcyxij->gocij", dy, windows).reshape(weight.shape)
    dx = _scattered(dwindows, pixels, x.shape)
    return {"y": y} | _needed(_WEIGHTED, (dx, dweight, dy.sum((0, 3, 4)).reshape(o)), needs)


def conv_transpose2d(
    inputs,
    gradient_of,
    stride=1,
    padding=0,
    output_padding=0,
    dilation=1,
    groups=1,
    needs=(True, True, True),
):
    x, weight, bias = inputs["x"], inputs["weight"], inputs["bias"]
    n, c, h, w = x.shape
    _, o, kh, kw = weight.shape  # outputs of one group
    geometry = zip((h, w), _pair(stride), _pair(padding), _pair(dilation), (kh, kw), _pair(output_padding), strict=True)
    oh, ow = ((size - 1) * s - 2 * p + d * (k - 1) + op + 1 for size, s, p, d, k, op in geometry)
    # the windows of a convolution of the output, of which an output padding can make more than there are pixels
    pixels = _window_pixels(oh, ow, (kh, kw), _pair(stride), _pair(padding), _pair(dilation))[:h, :w]
    grouped_x = x.reshape(n, groups, c // groups, h, w)
    grouped = weight.reshape(groups, c // groups, o, kh, kw)
    stamps = np.einsum("ngcyx,gcoij->ngoyxij", grouped_x, grouped).reshape(n, groups * o, *pixels.shape)
    y = _scattered(stamps, pixels, (n, groups * o, oh, ow))
    if bias is not None:
        y = y + bias[:, None, None]
    dy = gradient_of(y)
    windows = _extended(dy, 0)[:, :, pixels].reshape(n, groups, o, *pixels.shape)
    dx = np.einsum("ngoyxij,gcoij->ngcyx", windows, grouped).reshape(x.shape)
    dweight = np.einsum("ngoyxij,ngcyx->gcoij", windows, grouped_x).reshape(weight.shape)
    return {"y": y} | _needed(_WEIGHTED, (dx, dweight, dy.sum((0, 2, 3))), needs)


def linear(inputs, gradient_of, needs=(True, True, True)):
    x, weight, bias = inputs["x"], inputs["weight"], inputs["bias"]
    y = x @ weight.T + (0 if bias is None else bias)
    dy = gradient_of(y)
    return {"y": y} | _needed(_WEIGHTED, (dy @ weight, dy.T @ x, dy.sum(0)), needs)


def batch_norm(inputs, gradient_of, training, momentum=0.1, eps=1e-5):
    x, channels = inputs["x"], inputs["x"].shape[1]
    gamma = np.ones(channels) if inputs["gamma"] is None else inputs["gamma"]
    beta = np.zeros(channels) if inputs["beta"] is None else inputs["beta"]
    running_mean, running_var = inputs["running_mean"], inputs["running_var"]
    count = x.size // channels

    def down(a):
        return a[None, :, None, None]

    if not training:
        mean, inv_std = running_mean, 1 / np.sqrt(running_var + eps)
    elif not count:
        mean, inv_std = np.zeros(channels), np.zeros(channels)
    else:
        mean, inv_std = x.mean((0, 2, 3)), 1 / np.sqrt(x.var((0, 2, 3)) + eps)
        if running_mean is not None:
            unbiased = x.var((0, 2, 3), ddof=1)
            running_mean = (1 - momentum) * running_mean + momentum * mean
            running_var = (1 - momentum) * running_var + momentum * unbiased
    normal = (x - down(mean)) * down(inv_std)
    y = normal * down(gamma) + down(beta)
    dy = gradient_of(y)
    dbeta, dgamma = dy.sum((0, 2, 3)), (dy * normal).sum((0, 2, 3))
    dx = dy
    if training and count:
        dx = dy - down(dbeta) / count - normal * down(dgamma) / count
    return {
        "y": y,
        "mean": mean,
        "inv_std": inv_std,
        "dx": dx * down(gamma * inv_std),
        "dgamma": dgamma,
        "dbeta": dbeta,
        "running_mean": running_mean,
        "running_var": running_var,
    }


def max_pool2d(inputs, gradient_of, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    x = inputs["x"]
    n, c, h, w = x.shape
    kernel, padding, dilation = _pair(kernel_size), _pair(padding), _pair(dilation)
    stride = kernel if stride is None else _pair(stride)
    # pad generously at the end, then keep as many windows as there should be
    spans = [size + 2 * p - d * (k - 1) - 1 for size, p, d, k in zip((h, w), padding, dilation, kernel, strict=True)]
    counts = [(-(-span // s) if ceil_mode else span // s) + 1 for span, s in zip(spans, stride, strict=True)]
    starts = [np.arange(count) * s - p for count, s, p in zip(counts, stride, padding, strict=True)]
    rows, columns = (start[start < size] for start, size in zip(starts, (h, w), strict=True))
    iy = rows[:, None, None, None] + np.arange(kernel[0])[:, None] * dilation[0]
    ix = columns[:, None, None] + np.arange(kernel[1]) * dilation[1]
    inside = (iy >= 0) & (iy < h) & (ix >= 0) & (ix < w)
    pixels = np.where(inside, iy * w + ix, h * w).reshape(len(rows), len(columns), -1)
    windows = _extended(x, -np.inf)[:, :, pixels]
    last_nan = windows.shape[-1] - 1 - np.isnan(windows)[..., ::-1].argmax(-1)
    first_inside = (pixels < h * w).argmax(-1)
    largest = np.where(windows.max(-1) == -np.inf, first_inside, windows.argmax(-1))
    chosen = np.where(np.isnan(windows).any(-1), last_nan, largest)
    y = np.take_along_axis(windows, chosen[..., None], -1)[..., 0]
    indices = np.take_along_axis(np.broadcast_to(pixels, windows.shape), chosen[..., None], -1)[..., 0]
    dx = np.zeros((n, c, h * w))
    np.add.at(dx, (np.arange(n)[:, None, None, None], np.arange(c)[:, None, None], indices), gradient_of(y))
    return {"y": y, "indices": indices, "dx": dx.reshape(x.shape)}


def _resizing(size_in, size_out, factor, mode, align_corners, dtype):
    """Return the matrix (size_out, size_in) that resizes one axis."""
    position = np.arange(size_out, dtype=np.float32 if mode == "nearest" else dtype)
    if align_corners:
        step = (size_in - 1) / max(size_out - 1, 1)
    else:
        step = 1 / factor if factor and size_in != size_out else size_in / size_out
    step, half = position.dtype.type(step), position.dtype.type(0.5)
    if mode == "nearest":
        return np.eye(size_in)[np.minimum(np.floor(position * step).astype(int), size_in - 1)]
    position = position * step if align_corners else np.maximum((position + half) * step - half, 0)
    position = np.minimum(position, size_in - 1).astype(np.float64)
    # a tent of width one around each input pixel
    return np.maximum(1 - np.abs(position[:, None] - np.arange(size_in)), 0)


def upsample2d(inputs, gradient_of, size=None, scale_factor=None, mode="nearest", align_corners=False):
    x = inputs["x"]
    h, w = x.shape[2:]
    factors = (None, None) if scale_factor is None else _pair(scale_factor)
    oh, ow = _pair(size) if scale_factor is None else (int(h * factors[0]), int(w * factors[1]))
    down = _resizing(h, oh, factors[0], mode, align_corners, inputs["dtype"])
    across = _resizing(w, ow, factors[1], mode, align_corners, inputs["dtype"])
    y = down @ x @ across.T
    return {"y": y, "dx": down.T @ gradient_of(y) @ across}


def relu(inputs, gradient_of):
    x = inputs["x"]
    y = np.maximum(x, 0)
    return {"y": y, "dx": np.where(y <= 0, 0, gradient_of(y))}


def _sigmoid(x):
    return np.exp(-np.logaddexp(0, -x))


def sigmoid(inputs, gradient_of):
    y = _sigmoid(inputs["x"])
    return {"y": y, "dx": gradient_of(y) * y * (1 - y)}


def softmax(inputs, gradient_of, axis=1):
    x = inputs["x"]
    y = np.exp(x - x.max(axis, keepdims=True))
    y = y / y.sum(axis, keepdims=True)
    dy = gradient_of(y)
    return {"y": y, "dx": y * (dy - (dy * y).sum(axis, keepdims=True))}


def _summed_to(dy, shape):
    added = dy.ndim - len(shape)
    repeated = tuple(range(added)) + tuple(i + added for i, size in enumerate(shape) if size == 1)
    return dy.sum(repeated, keepdims=True).reshape(shape)


def add(inputs, gradient_of):
    a, b = inputs["a"], inputs["b"]
    y = np.asarray(a + b)
    dy = gradient_of(y)
    return {"y": y, "da": _summed_to(dy, a.shape), "db": _summed_to(dy, b.shape)}


def concat(inputs, gradient_of, axis=1):
    arrays = inputs["arrays"]
    y = np.concatenate(arrays, axis)
    parts = np.split(gradient_of(y), np.cumsum([a.shape[axis] for a in arrays])[:-1], axis)
    return {"y": y} | {f"darrays[{i}]": part for i, part in enumerate(parts)}


def _reduced(losses, slopes, gradient_of, reduction, count=None):
    """Return the loss and its gradient, from each element's loss and its slope."""
    count = losses.size if count is None else count
    y = {"none": losses, "sum": losses.sum(), "mean": losses.sum() / count if count else 0.0}[reduction]
    dy = gradient_of(np.asarray(y))
    share = (1 / count if count else 0.0) if reduction == "mean" else 1
    return np.asarray(y), dy * share * slopes


def binary_cross_entropy(inputs, gradient_of, reduction="mean"):
    p, t, weight = inputs["p"], inputs["target"], inputs.get("weight", 1)
    losses = -weight * (t * np.maximum(np.log(p), -100) + (1 - t) * np.maximum(np.log(1 - p), -100))
    slopes = weight * (p - t) / np.maximum(p * (1 - p), 1e-12)
    y, dp = _reduced(losses, slopes, gradient_of, reduction)
    return {"y": y, "dx": dp}


def binary_cross_entropy_with_logits(inputs, gradient_of, reduction="mean"):
    x, t = inputs["x"], inputs["target"]
    weight, pos_weight = inputs.get("weight", 1), inputs.get("pos_weight", 1)
    losses = weight * (pos_weight * t * np.logaddexp(0, -x) + (1 - t) * np.logaddexp(0, x))
    slopes = weight * ((1 - t) * _sigmoid(x) - pos_weight * t * _sigmoid(-x))
    y, dx = _reduced(losses, slopes, gradient_of, reduction)
    return {"y": y, "dx": dx}


def cross_entropy(inputs, gradient_of, ignore_index=-100, label_smoothing=0.0, reduction="mean"):
    x, target = np.moveaxis(inputs["x"], 1, -1), inputs["target"]
    classes = x.shape[-1]
    weight = inputs.get("weight", np.ones(classes))
    kept = target != ignore_index
    true = np.eye(classes)[np.where(kept, target, 0)]
    share = weight * (label_smoothing / classes + (1 - label_smoothing) * true) * kept[..., None]
    shifted = x - x.max(-1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    losses = -(share * log_p).sum(-1)
    slopes = np.exp(log_p) * share.sum(-1, keepdims=True) - share
    total_weight = (weight * true * kept[..., None]).sum()
    y, dx = _reduced(
        losses,
        np.moveaxis(slopes, -1, 0),
        gradient_of,
        reduction,
        total_weight,
    )
    return {"y": y, "dx": np.moveaxis(dx, 0, 1)}


def smooth_l1(inputs, gradient_of, beta=1.0, reduction="mean"):
    d = inputs["x"] - inputs["target"]
    inner = np.minimum(np.abs(d), beta)
    # the area under the slope, which grows to 1 at beta and stays there
    losses = np.abs(d) - inner + (inner**2 / (2 * beta) if beta else 0)
    slopes = np.clip(d / beta, -1, 1) if beta else np.sign(d)
    y, dx = _reduced(losses, slopes, gradient_of, reduction)
    return {"y": y, "dx": dx}


def sigmoid_focal(inputs, gradient_of, alpha=0.25, gamma=2.0, reduction="none"):
    x, t = inputs["x"], inputs["target"]
    p, one_minus_p = _sigmoid(x), _sigmoid(-x)
    entropy = t * np.logaddexp(0, -x) + (1 - t) * np.logaddexp(0, x)
    miss = t * one_minus_p + (1 - t) * p
    factor = alpha * t + (1 - alpha) * (1 - t) if alpha >= 0 else 1
    dmiss = (1 - 2 * t) * p * one_minus_p
    dentropy = (1 - t) * p - t * one_minus_p
    slopes = factor * (miss**gamma * dentropy + gamma * miss ** max(gamma - 1, 0) * dmiss * entropy)
    y, dx = _reduced(factor * miss**gamma * entropy, slopes, gradient_of, reduction)
    return {"y": y, "dx": dx}


def dice(inputs, gradient_of, smooth=1.0, per_sample=False, reduction="mean"):
    x, t = inputs["x"], inputs["target"]
    axes = tuple(range(1, x.ndim)) if per_sample else None
    p = _sigmoid(x)
    overlap = 2 * (p * t).sum(axes, keepdims=True) + smooth
    areas = (p + t).sum(axes, keepdims=True) + smooth
    slopes = (overlap - 2 * t * areas) / areas**2 * p * (1 - p)
    losses = (1 - overlap / areas).reshape((-1,) if per_sample else ())
    y, dx = _reduced(losses, np.moveaxis(slopes, 0, -1) if per_sample else slopes, gradient_of, reduction)
    return {"y": y, "dx": np.moveaxis(dx, -1, 0) if per_sample else dx}


EXPRESSIONS = {
    function.__name__: function
    for function in (
        conv2d,
        conv_transpose2d,
        linear,
        batch_norm,
        max_pool2d,
        upsample2d,
        relu,
        sigmoid,
        softmax,
        add,
        concat,
        binary_cross_entropy,
        binary_cross_entropy_with_logits,
        cross_entropy,
        smooth_l1,
        sigmoid_focal,
        dice,
    )
}
