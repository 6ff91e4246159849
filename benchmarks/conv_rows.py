"""Time the convolutions of a U-Net against a plain row kernel, and against PyTorch where it is installed.

    python benchmarks/conv_rows.py --batch 8 --repeats 7

The row kernel is what one gets from Numba without registers in mind: four output channels per pass over a row, the
inner loop left to LLVM. The fast kernels must never be slower than that. Everything is timed in turns within one
run, so that a busy machine slows all alike; what counts is the median of the ratios, with its middle half.
Results are compared before anything is timed.
"""

import argparse
import importlib.util
import sys
import time
from pathlib import Path

import numba
import numpy as np
from numba import prange

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from a checkout, installed or not

from kernels import get
from kernels.jit import RELAXED, jit

#: Input channels, output channels, height and width of the 3x3 convolutions of a U-Net of widths 8 to 128.
UNET_LAYERS = (
    *((1, 8, 256), (8, 8, 256), (8, 16, 128), (16, 16, 128), (16, 32, 64), (32, 32, 64), (32, 64, 32), (64, 64, 32)),
    *((64, 128, 16), (128, 128, 16), (128, 64, 32), (64, 64, 32), (64, 32, 64), (32, 32, 64), (32, 16, 128)),
    *((16, 16, 128), (16, 8, 256), (8, 8, 256), (8, 1, 256)),
)


@jit(parallel=True, fastmath=RELAXED)
def row_kernel(y, padded, weight, bias):
    """Convolve with stride 1: a task is one output row, four channels at a time."""
    pictures, channels, height, _ = y.shape
    for task in prange(pictures * height):
        _one_row(y, padded, weight, bias, np.int64(task) // height, np.int64(task) % height)


@jit(fastmath=RELAXED)
def _one_row(y, padded, weight, bias, n, row):
    """Compute row ``row`` of picture ``n`` for all output channels; the last four may overlap with those before."""
    channels, width = y.shape[1], y.shape[3]
    for first in range(0, channels, 4):
        a = max(0, min(first, channels - 4))
        b, c, d = min(a + 1, channels - 1), min(a + 2, channels - 1), min(a + 3, channels - 1)
        sums = np.empty((4, width), y.dtype)
        sums[0], sums[1], sums[2], sums[3] = bias[a], bias[b], bias[c], bias[d]
        for i in range(weight.shape[1]):
            for ky in range(weight.shape[2]):
                for kx in range(weight.shape[3]):
                    pixels = padded[n, i, row + ky, kx : kx + width]
                    wa, wb, wc, wd = (
                        weight[a, i, ky, kx],
                        weight[b, i, ky, kx],
                        weight[c, i, ky, kx],
                        weight[d, i, ky, kx],
                    )
                    for x in range(width):
                        sums[0, x] += wa * pixels[x]
                        sums[1, x] += wb * pixels[x]
                        sums[2, x] += wc * pixels[x]
                        sums[3, x] += wd * pixels[x]
        y[n, a, row], y[n, b, row], y[n, c, row], y[n, d, row] = sums[0], sums[1], sums[2], sums[3]


def convolve_by_rows(x, weight, bias):
    """Return the 3x3 convolution of ``x`` with padding 1, by the row kernel."""
    y = np.empty((x.shape[0], weight.shape[0], *x.shape[2:]), x.dtype)
    row_kernel(y, np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))), weight, bias)
    return y


def pytorch_calls(x, weight, bias, dy):
    """Return PyTorch's forward, input gradient and weight gradient of a layer as calls without arguments."""
    import torch

    x, weight, bias, dy = map(torch.from_numpy, (x, weight, bias, dy))

    def backward(*wanted):
        arguments = (dy, x, weight, [weight.shape[0]], [1, 1], [1, 1], [1, 1], False, [0, 0], 1, wanted)
        return [g.numpy() for g in torch.ops.aten.convolution_backward(*arguments) if g is not None]

    return {
        "forward": lambda: torch.conv2d(x, weight, bias, padding=1).numpy(),
        "dx": lambda: backward(True, False, False)[0],
        "dweight": lambda: backward(False, True, True)[0],
    }


def our_calls(x, weight, bias, dy):
    """Return our forward, input gradient and weight gradient of a layer as calls without arguments."""
    cpu = get("cpu")
    return {
        "forward": lambda: cpu.conv2d_forward(x, weight, bias, padding=1),
        "dx": lambda: cpu.conv2d_backward(dy, x, weight, padding=1, needs=(True, False, False))[0],
        "dweight": lambda: cpu.conv2d_backward(dy, x, weight, padding=1, needs=(False, True, True))[1],
    }


def in_turns(calls, repeats):
    """Return the seconds of each call, shape (calls, repeats), each repeat running all of them in turn."""
    seconds = np.empty((len(calls), repeats))
    for repeat in range(repeats):
        for i, call in enumerate(calls):
            start = time.perf_counter()
            call()
            seconds[i, repeat] = time.perf_counter() - start
    return seconds


def describe(seconds, operations, name):
    """Return what one competitor took, and how many times slower than ours it was: median and middle half."""
    low, middle, high = np.percentile(seconds[1] / seconds[0], (25, 50, 75))
    rate = operations / np.median(seconds[1]) / 1e9
    took = f"{np.median(seconds[1]) * 1e3:6.2f} ms {rate:4.0f} GFLOP/s"
    return f"{name} {took}, {middle:5.2f} times ours [{low:.2f}, {high:.2f}]"


def time_layer(layer, batch, repeats, with_pytorch):
    """Time one layer and print a line per direction; return our and PyTorch's median seconds by direction."""
    channels, outputs, size = layer
    rng = np.random.default_rng(0)
    shapes = (batch, channels, size, size), (outputs, channels, 3, 3), (outputs,), (batch, outputs, size, size)
    arrays = [np.asarray(rng.standard_normal(shape), np.float32) for shape in shapes]
    operations = 2 * 9 * batch * channels * outputs * size * size
    ours, rows = our_calls(*arrays), {"forward": lambda: convolve_by_rows(*arrays[:3])}
    competitors = {"row kernel": rows, "PyTorch": pytorch_calls(*arrays) if with_pytorch else {}}
    medians = {}
    for direction, our_call in ours.items():
        if direction == "dx" and channels == 1:
            continue  # the picture itself needs no gradient
        expected = our_call()
        line = []
        for name, calls in competitors.items():
            if direction in calls:
                actual = calls[direction]()
                assert np.abs(actual - expected).max() <= 1e-4 * np.abs(expected).max(), (layer, direction, name)
                seconds = in_turns([our_call, calls[direction]], repeats)
                line.append(describe(seconds, operations, name))
                medians[direction] = np.median(seconds, axis=1)
        if not line:
            medians[direction] = seconds = np.median(in_turns([our_call], repeats), axis=1)
        rate = operations / medians[direction][0] / 1e9
        print(
            f"{channels:3d} -> {outputs:3d} at {size:3d}  {direction:8s} {medians[direction][0] * 1e3:6.2f} ms "
            f"{rate:4.0f} GFLOP/s | " + " | ".join(line),
            flush=True,
        )
    return medians


def main():
    """Time all layers and print the sums."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8, help="pictures per call")
    parser.add_argument("--repeats", type=int, default=7, help="times each call is made")
    parser.add_argument("--threads", type=int, default=numba.get_num_threads(), help="threads for all")
    options = parser.parse_args()
    numba.set_num_threads(options.threads)
    with_pytorch = importlib.util.find_spec("torch") is not None
    if with_pytorch:
        import torch

        torch.set_num_threads(options.threads)
        torch.set_grad_enabled(False)
    medians = {
        layer: time_layer(layer, options.batch, options.repeats, with_pytorch) for layer in dict.fromkeys(UNET_LAYERS)
    }
    totals = [sum(t) for t in zip(*(tuple(t) for layer in UNET_LAYERS for t in medians[layer].values()), strict=False)]
    print(f"all layers, forward and backward: {totals[0] * 1e3:.0f} ms", end="")
    print(f", PyTorch {totals[1] * 1e3:.0f} ms" if with_pytorch else "")


if __name__ == "__main__":
    main()
