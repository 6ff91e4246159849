"""Convolution and its transpose on the device: what the kernels are started with, and which of them suits.

A large product of matrices in almost all cases, see ``implicit_gemm``. Groups of very few channels, in depthwise
convolutions above all, are left to ``direct_convolution``.
"""

from math import ceil, gcd
from typing import NamedTuple

from kernels.cuda.array import DeviceArray, empty
from kernels.cuda.device import tile
from kernels.cuda.direct_convolution import direct_kernel
from kernels.cuda.gemm import DEPTH, cut, finish, tile_of
from kernels.cuda.implicit_gemm import GATHER, Plan
from kernels.cuda.packing import packed_weights

#: Output channels of a group up to which threads work for themselves, and values of the output that keep a GPU busy.
_FEW_CHANNELS, _MANY_VALUES = tile(4, 1), tile(2**15, 1)


class Ending(NamedTuple):
    """What a convolution ends in.

    Attributes
    ----------
    scale : DeviceArray or None
        What the weights of each output channel are multiplied by.
    residual : DeviceArray or None
        What is added to the output, of its shape.
    relu : bool
        Whether what is then below 0 becomes 0.
    """

    scale: DeviceArray | None = None
    residual: DeviceArray | None = None
    relu: bool = False


_PLAIN = Ending()


def gather(x, weight, bias, g, source, target, ending=_PLAIN):
    """Return the convolution of ``x``, as its geometry says.

    Parameters
    ----------
    x : DeviceArray, shape (N, channels, *source)
        What is convolved.
    weight : DeviceArray, shape (output channels, channels / groups, kH, kW)
        Kernels.
    bias : DeviceArray or None
        Added to each output channel.
    g : ConvGeometry
        Its parameters are used.
    source, target : (int, int)
        Sizes of the maps.
    ending : Ending
        What happens to the sums.

    Returns
    -------
    DeviceArray, shape (N, output channels, *target)
    """
    axes = [
        _Axis(pixels=n, phases=1, modulus=1, scale=s, padding=-p, dilation=-d, skip=1)
        for n, s, p, d in zip(target, (g.sH, g.sW), (g.pH, g.pW), (g.dH, g.dW), strict=True)
    ]
    # weight[o, c, tap]: o is an output channel, c one of its group's inputs
    rows, channels = weight.shape[0] // g.groups, weight.shape[1]
    return _run(x, weight, bias, g, source, target, axes, rows, channels, ending, transposed=False)


def scatter(x, weight, bias, g, source, target, ending=_PLAIN):
    """Return the transpose of the convolution that `gather` is with source and target exchanged.

    Parameters
    ----------
    x : DeviceArray, shape (N, channels, *source)
        What is scattered.
    weight : DeviceArray, shape (channels, output channels / groups, kH, kW)
        Kernels.
    bias, g, source, target, ending
        As for `gather`.

    Returns
    -------
    DeviceArray, shape (N, output channels, *target)
    """
    axes = [
        _Axis(pixels=ceil(n / s), phases=min(n, s), modulus=s, scale=1, padding=p, dilation=d, skip=s // gcd(s, d))
        for n, s, p, d in zip(target, (g.sH, g.sW), (g.pH, g.pW), (g.dH, g.dW), strict=True)
    ]
    rows, channels = weight.shape[1], weight.shape[0] // g.groups
    return _run(x, weight, bias, g, source, target, axes, rows, channels, ending, transposed=True)


class _Axis(NamedTuple):
    """What `Plan` says of one axis."""

    pixels: int
    phases: int
    modulus: int
    scale: int
    padding: int
    dilation: int
    skip: int


def _run(x, weight, bias, g, source, target, axes, rows, channels, ending, *, transposed):
    """Pack the weights, choose tiles, start the kernel and add up the parts."""
    down, along = axes
    y = empty((x.shape[0], rows * g.groups, *target), x.dtype)
    if not y.size:
        return y
    taps, chunks = g.kH * g.kW, ceil(channels / DEPTH)
    phases, cols = down.phases * along.phases, x.shape[0] * down.pixels * along.pixels
    few = rows <= _FEW_CHANNELS and y.size >= _MANY_VALUES
    cuts = cut(rows, cols, ceil(taps / phases) * chunks, g.groups * phases, x.dtype)
    whole = few or cuts.splits == 1  # otherwise what adds up the parts does the rest
    plan = Plan(
        rows, channels, g.groups, source[0], source[1], target[0], target[1], g.kH, g.kW, down.pixels, along.pixels,
        down.phases, along.phases, down.modulus, along.modulus, down.scale, along.scale,
        down.padding, along.padding, down.dilation, along.dilation, down.skip, along.skip,
        -down.skip * down.dilation // down.modulus, -along.skip * along.dilation // along.modulus,
        cols, cuts.rows, cuts.cols, cuts.splits, y.size, int(bias is not None and whole),
        int(ending.residual is not None and whole), int(ending.relu and whole),
    )  # fmt: skip
    if few:
        planes, pixels = y.shape[0] * y.shape[1], target[0] * target[1]
        arrays = x.raw, weight.raw, *(_or(a, y) for a in (bias, ending.scale, ending.residual))
        scaled = int(ending.scale is not None)
        direct_kernel.over_rows(planes, pixels, y.raw, *arrays, planes, pixels, int(transposed), scaled, plan)
        return y
    shape = tile_of(cuts.size, x.dtype)
    packed = packed_weights(
        weight, ending.scale, g.groups, rows, channels, cuts.rows * shape.rows, transposed=transposed
    )
    parts = y if cuts.splits == 1 else empty((cuts.splits, *y.shape), y.dtype)
    blocks = cuts.rows * cuts.cols * cuts.splits * g.groups * phases
    arrays = parts.raw, x.raw, packed.raw, _or(bias, packed), _or(ending.residual, packed)
    ends = ending.residual is not None or ending.relu
    GATHER[cuts.size, ends and whole].run(blocks, shape.threads, *arrays, plan)
    return finish(y, parts, bias, target[0] * target[1], y.shape[1], ending.residual, ending.relu)


def _or(a, other):
    """Return what a kernel is given for an array that may be missing: it does not look at the other one."""
    return (other if a is None else a).raw
