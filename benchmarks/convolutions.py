"""Convolutions, transposed convolutions and matrix products as operators to measure."""

import numpy as np

from benchmarks.operator_case import Operator, normal, text

#: Either gradient by itself: a training step needs both but for the first layer.
GRADIENTS = {"input_gradient": ("x",), "weight_gradient": ("weight", "bias")}
_READS = {"forward": ("x", "weight", "bias"), "input_gradient": ("dy", "weight"), "weight_gradient": ("dy", "x")}
_NEEDS = {"input_gradient": (True, False, False), "weight_gradient": (False, True, True)}
#: Sums of up to some thousand products in float32; Winograd convolution rounds to about 1e-5. A weight gradient sums
#: over all pixels, up to a million, and PyTorch's is off by 6e-4.
_TOLERANCE = 1e-4
_TOLERANCES = {"weight_gradient": 2e-3}

_ENDS = [0, -1]  # first and last of an axis: what is checked of a large result


def conv2d(x, weight, stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1, tag=""):
    """Return the operator of a convolution of shape ``x``, (N, C, H, W), with ``weight``, (O, C / groups, kH, kW)."""
    how = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    size = [(n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, p, d, k, s in zip(x[2:], padding, dilation, weight[2:], stride, strict=True)]  # fmt: skip
    y = (x[0], weight[0], *size)

    def make(rng):
        return {
            "x": normal(rng, *x),
            "weight": normal(rng, *weight) / np.float32(np.sqrt(np.prod(weight[1:]))),
            "bias": normal(rng, weight[0]),
            "dy": normal(rng, *y),
        }

    def probe(direction, a):
        if direction == "forward":
            return {"x": a.x[-1:], "weight": a.weight[_ENDS], "bias": a.bias[_ENDS]}, [np.ix_([-1], _ENDS)]
        if direction == "input_gradient":
            small = {"x": a.x[-1:, _ENDS], "weight": a.weight[:, _ENDS], "dy": a.dy[-1:], "bias": a.bias}
            return small, [np.ix_([-1], _ENDS)]
        small = {"x": a.x[:, _ENDS], "weight": a.weight[np.ix_(_ENDS, _ENDS)], "dy": a.dy[:, _ENDS], "bias": a.bias}
        return small, [np.ix_(_ENDS, _ENDS), _ENDS]

    calls = _calls("conv2d", how)
    if x[1] <= 3:
        del calls["input_gradient"]  # the picture itself needs none
    return Operator(
        "conv2d",
        tag + text(*x) + "-" + text(weight[0], *weight[2:]) + _settings(stride, dilation, groups),
        make,
        calls,
        theirs=lambda torch, t: torch.conv2d(t.x, t.weight, t.bias, **how),
        gradients=GRADIENTS,
        reads=_READS,
        flops=dict.fromkeys(_READS, 2 * int(np.prod(y)) * int(np.prod(weight[1:]))),
        probe=probe if groups == 1 else None,
        tolerance=_TOLERANCE,
        tolerances=_TOLERANCES,
    )


def _settings(stride, dilation, groups):
    """Return what is unusual about a convolution, as a word."""
    words = (("s", stride[0]), ("d", dilation[0]), ("g", groups))
    return "".join(f"{letter}{value}" for letter, value in words if value != 1)


def _calls(name, how):
    """Return the calls of a kind of convolution, one per direction."""

    def gradient(needs):
        return lambda k, a, saved: getattr(k, f"{name}_backward")(a.dy, a.x, a.weight, **how, needs=needs)

    def forward(k, a, saved):
        return getattr(k, f"{name}_forward")(a.x, a.weight, a.bias, **how)

    return {"forward": forward, **{direction: gradient(needs) for direction, needs in _NEEDS.items()}}


def conv_transpose2d(x, weight, stride=(2, 2), tag=""):
    """Return the operator of a transposed convolution of shape ``x`` with ``weight``, (C, O, kH, kW)."""
    size = [(n - 1) * s + k for n, s, k in zip(x[2:], stride, weight[2:], strict=True)]
    y = (x[0], weight[1], *size)

    def make(rng):
        return {
            "x": normal(rng, *x),
            "weight": normal(rng, *weight) / np.float32(np.sqrt(x[1])),
            "bias": normal(rng, weight[1]),
            "dy": normal(rng, *y),
        }

    def probe(direction, a):
        if direction == "forward":
            return {"x": a.x[-1:], "weight": a.weight[:, _ENDS], "bias": a.bias[_ENDS]}, [np.ix_([-1], _ENDS)]
        if direction == "input_gradient":
            small = {"x": a.x[-1:, _ENDS], "weight": a.weight[_ENDS], "dy": a.dy[-1:], "bias": a.bias}
            return small, [np.ix_([-1], _ENDS)]
        small = {"x": a.x[:, _ENDS], "weight": a.weight[np.ix_(_ENDS, _ENDS)], "dy": a.dy[:, _ENDS], "bias": a.bias}
        return small, [np.ix_(_ENDS, _ENDS), _ENDS]

    return Operator(
        "conv_transpose2d",
        tag + text(*x) + "-" + text(weight[1], *weight[2:]) + _settings(stride, (1, 1), 1),
        make,
        _calls("conv_transpose2d", {"stride": stride}),
        theirs=lambda torch, t: torch.conv_transpose2d(t.x, t.weight, t.bias, stride),
        gradients=GRADIENTS,
        reads=_READS,
        flops=dict.fromkeys(_READS, 2 * int(np.prod(x)) * int(np.prod(weight[1:]))),
        probe=probe,
        tolerance=_TOLERANCE,
        tolerances=_TOLERANCES,
    )


def linear(x, weight, tag=""):
    """Return the operator of a matrix product of ``x``, (N, in), with ``weight``, (out, in)."""

    def make(rng):
        return {
            "x": normal(rng, *x),
            "weight": normal(rng, *weight) / np.float32(np.sqrt(x[1])),
            "bias": normal(rng, weight[0]),
            "dy": normal(rng, x[0], weight[0]),
        }

    def probe(direction, a):
        if direction == "forward":
            return {"x": a.x[_ENDS], "weight": a.weight, "bias": a.bias}, [_ENDS]
        if direction == "input_gradient":
            return {"x": a.x[_ENDS], "weight": a.weight, "bias": a.bias, "dy": a.dy[_ENDS]}, [_ENDS]
        return {"x": a.x, "weight": a.weight[_ENDS], "bias": a.bias, "dy": a.dy[:, _ENDS]}, [_ENDS, _ENDS]

    return Operator(
        "linear",
        tag + text(*x) + f"-{weight[0]}",
        make,
        _calls("linear", {}),
        theirs=lambda torch, t: torch.nn.functional.linear(t.x, t.weight, t.bias),
        gradients=GRADIENTS,
        reads=_READS,
        flops=dict.fromkeys(_READS, 2 * x[0] * weight[0] * x[1]),
        probe=probe,
        tolerance=_TOLERANCE,
        tolerances=_TOLERANCES,
    )
