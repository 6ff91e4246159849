"""What stands between the convolutions: normalisation, activations, pooling, resizing, losses."""

import numpy as np

from benchmarks.operator_case import Operator, normal, text


def _maps(*shape):
    """Return the function that makes maps and their gradient, of one shape."""
    return lambda rng: {"x": normal(rng, *shape), "dy": normal(rng, *shape)}


def batch_norm(*shape):
    """Return batch normalisation: ``forward`` and ``backward`` as in training, ``evaluation`` by running statistics."""
    channels = shape[1]

    def make(rng):
        names = ("gamma", "beta", "mean")
        some = {name: normal(rng, channels) for name in names}
        return {**_maps(*shape)(rng), **some, "var": rng.uniform(0.5, 1.5, channels).astype(np.float32)}

    def forward(k, a, saved, training=True):
        return k.batch_norm_forward(a.x, a.gamma, a.beta, a.mean.copy(), a.var.copy(), training)

    def theirs(torch, t):
        return torch.nn.functional.batch_norm(t.x, t.mean.clone(), t.var.clone(), t.gamma, t.beta, training=True)

    return Operator(
        "batch_norm",
        text(*shape),
        make,
        {
            "forward": forward,
            "backward": lambda k, a, saved: k.batch_norm_backward(a.dy, a.x, a.gamma, *saved, True),
        },
        save=lambda k, a: forward(k, a, None)[1:],
        theirs=theirs,
        gradients={"backward": ("x", "gamma", "beta")},
        tolerance=3e-5,
    )


def batch_norm_evaluation(*shape):
    """Return batch normalisation by running statistics, which needs no sums."""
    training = batch_norm(*shape)

    def forward(k, a, saved):
        return k.batch_norm_forward(a.x, a.gamma, a.beta, a.mean, a.var, False)

    def theirs(torch, t):
        return torch.nn.functional.batch_norm(t.x, t.mean, t.var, t.gamma, t.beta)

    return Operator("batch_norm", text(*shape), training.make, {"evaluation": forward}, theirs=theirs)


def _from_output(name, shape, theirs):
    """Return an activation, whose gradient follows from its output."""
    forward, backward = f"{name}_forward", f"{name}_backward"
    return Operator(
        name,
        text(*shape),
        _maps(*shape),
        {
            "forward": lambda k, a, saved: getattr(k, forward)(a.x),
            "backward": lambda k, a, y: getattr(k, backward)(a.dy, y),
        },
        save=lambda k, a: getattr(k, forward)(a.x),
        theirs=theirs,
    )


def relu(*shape):
    """Return ReLU."""
    return _from_output("relu", shape, lambda torch, t: torch.relu(t.x))


def sigmoid(*shape):
    """Return the sigmoid."""
    return _from_output("sigmoid", shape, lambda torch, t: torch.sigmoid(t.x))


def softmax(*shape):
    """Return the softmax over channels."""
    return _from_output("softmax", shape, lambda torch, t: torch.softmax(t.x, 1))


def add(*shape):
    """Return the sum of two arrays of one shape."""
    return Operator(
        "add",
        text(*shape),
        lambda rng: {"x": normal(rng, *shape), "b": normal(rng, *shape)},
        {"forward": lambda k, a, saved: k.add_forward(a.x, a.b)},
        theirs=lambda torch, t: t.x + t.b,
        gradients={},
    )


def concat(*shape):
    """Return two maps put one behind the other along the channels."""
    return Operator(
        "concat",
        text(*shape),
        lambda rng: {"x": normal(rng, *shape), "b": normal(rng, *shape)},
        {"forward": lambda k, a, saved: k.concat_forward([a.x, a.b])},
        theirs=lambda torch, t: torch.cat([t.x, t.b], 1),
        gradients={},
    )


def max_pool2d(shape, kernel, stride, padding=0):
    """Return max-pooling."""
    size = [(n + 2 * padding - kernel) // stride + 1 for n in shape[2:]]

    def forward(k, a, saved):
        return k.max_pool2d_forward(a.x, kernel, stride, padding)

    return Operator(
        "max_pool2d",
        f"{text(*shape)}-{kernel}x{kernel}s{stride}",
        lambda rng: {"x": normal(rng, *shape), "dy": normal(rng, *shape[:2], *size)},
        {"forward": forward, "backward": lambda k, a, saved: k.max_pool2d_backward(a.dy, saved[1], a.x.shape)},
        save=lambda k, a: forward(k, a, None),
        theirs=lambda torch, t: torch.max_pool2d(t.x, kernel, stride, padding),
        reads={"backward": ("dy",)},
        exact=True,
    )


def upsample2d(shape, mode):
    """Return resizing to twice the height and width."""
    size = (2 * shape[2], 2 * shape[3])
    return Operator(
        "upsample2d",
        f"{text(*shape)}-{mode}",
        lambda rng: {"x": normal(rng, *shape), "dy": normal(rng, *shape[:2], *size)},
        {
            "forward": lambda k, a, saved: k.upsample2d_forward(a.x, size, mode=mode),
            "backward": lambda k, a, saved: k.upsample2d_backward(a.dy, a.x.shape, size, mode=mode),
        },
        theirs=lambda torch, t: torch.nn.functional.interpolate(t.x, size, mode=mode),
        reads={"backward": ("dy",)},
    )


# ---- losses ----------------------------------------------------------------------------------------------------------


def _loss(name, arrays, make, theirs):
    """Return a loss, averaged over everything: of scores ``x`` and a ``target``."""

    def make_with_dy(rng):
        return {**make(rng), "dy": np.ones((), np.float32)}

    return Operator(
        name,
        arrays,
        make_with_dy,
        {
            "forward": lambda k, a, saved: getattr(k, f"{name}_forward")(a.x, a.target, reduction="mean"),
            "backward": lambda k, a, saved: getattr(k, f"{name}_backward")(a.dy, a.x, a.target, reduction="mean"),
        },
        theirs=theirs,
        tolerance=3e-5,
    )


def binary_cross_entropy_with_logits(*shape):
    """Return binary cross entropy of raw scores."""
    return _loss(
        "binary_cross_entropy_with_logits",
        text(*shape),
        lambda rng: {"x": normal(rng, *shape), "target": (rng.random(shape) < 0.5).astype(np.float32)},
        lambda torch, t: torch.nn.functional.binary_cross_entropy_with_logits(t.x, t.target),
    )


def cross_entropy(*shape):
    """Return cross entropy of raw scores with the number of the right class: per picture, or per pixel."""
    return _loss(
        "cross_entropy",
        text(*shape),
        lambda rng: {"x": normal(rng, *shape), "target": rng.integers(0, shape[1], (shape[0], *shape[2:]))},
        lambda torch, t: torch.nn.functional.cross_entropy(t.x, t.target),
    )


def smooth_l1(*shape):
    """Return the smooth L1 loss."""
    return _loss(
        "smooth_l1",
        text(*shape),
        lambda rng: {"x": normal(rng, *shape), "target": normal(rng, *shape)},
        lambda torch, t: torch.nn.functional.smooth_l1_loss(t.x, t.target),
    )
