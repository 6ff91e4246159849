# %% [markdown]
# # From a textbook loop to a fast kernel
# The same sum can take a hundred times as long, or not. This notebook climbs from seven nested loops to the convolution
# that tinyseg uses, one change at a time, and measures each on your machine.
#
# **You will be able to**
# - count the operations and the bytes of a layer, and say which of the two limits it on your machine;
# - read a roofline;
# - name five changes that make a loop fast, and why each helps;
# - say what a faster kernel may change in the numbers, and what it must not.
#
# It takes about 30 minutes, and one or two of computing. You should have read [notebook 2](02_convolution.ipynb); the
# last part uses RoIAlign, of [notebook 6](06_roi_pool_roi_align.ipynb).

# %%
# %matplotlib inline
import inspect
import time

import numpy as np

import tinyseg
from benchmarks import ladder as bench
from benchmarks.measure import Effort
from kernels import ladder
from kernels.ladder.conv2d import rung1_textbook, rung2_order, rung6_winograd
from tinyseg import backend, explain

rng = tinyseg.manual_seed(0)

# %% [markdown]
# ## What there is to do
# The layer of this notebook takes 64 maps of 100 by 152 cells and gives as many of the same size, with weights of 3 by
# 3 and a border of zeros. A *kernel* is a function that computes on arrays, as everywhere in this course; in the code,
# `kernel` alone is the height and width of the weights.
#
# Each output number is a sum over 64 channels and 9 weights, so 576 products, each multiplied and added: one
# *multiply-add* counts as two *operations*.

# %% [markdown]
# **Predict.** How many operations is that in all, and how many bytes must be read and written if every number (4 bytes
# each) is touched once? Round as you like; the order of magnitude is what counts.

# %%
channels, height, width, kernel = 64, 100, 152, 3
maps = channels * height * width
products = channels * kernel * kernel
operations = 2 * products * maps
touched = maps + channels * channels * kernel * kernel + maps  # x, weights, y
print(f"{operations:,} operations, {4 * touched:,} bytes: {operations / (4 * touched):.1f} operations per byte")

assert (channels, height, width, kernel) == (64, 100, 152, 3) and products == 576
assert round(operations / 1e9, 1) == 1.1
assert round(4 * touched / 1e6, 1) == 7.9
assert round(operations / (4 * touched)) == 141

# %% [markdown]
# About 1.1 thousand million operations on 7.9 megabytes: 141 operations for each byte. The ratio is called the
# *arithmetic intensity* of the layer.
#
# ## What the machine can do
# A processor core has units that multiply and add; they work on *vectors*, several numbers at once. Memory delivers
# bytes at a rate of its own, its *bandwidth*. Both rates can be measured: the first by a loop that multiplies and adds
# numbers that never leave the *registers* (the few places where a core can compute), the second by copying arrays that
# are too large for any *cache* (the small, fast memory near a core).
#
# To compare like with like, this notebook uses one thread, so one core, until it says otherwise.

# %%
tinyseg.set_num_threads(1)
peaks = backend.machine_peaks()
balance = peaks["flops"] / peaks["bytes"]
print(f"one core: {peaks['flops'] / 1e9:.0f} thousand million operations a second (GFLOP/s)")
print(f"          {peaks['bytes'] / 1e9:.1f} thousand million bytes a second (GB/s)")
print(f"          so {balance:.1f} operations in the time of one byte")

# %% [markdown]
# A layer that does more operations per byte than this last number is limited by arithmetic; one that does fewer, by
# memory. Draw the greatest rate over the arithmetic intensity, and you have the *roofline* (Williams, Waterman and
# Patterson, 2009): a slope where memory is the limit, then a flat roof.

# %% [markdown]
# **Predict.** ReLU, max(x, 0), reads a number of 4 bytes, does one operation and writes 4 bytes. Batch normalisation in
# evaluation is one multiply-add per number. Where do they lie, and how many times faster would they run on a processor
# with twice as many multipliers?


# %%
def seconds_of(call, turns=7):
    call()  # the first call may have to compile
    times = []
    for _ in range(turns):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


x = tinyseg.Tensor(rng.normal(size=(1, 64, 400, 400)).astype(np.float32))
weight = tinyseg.Tensor(rng.normal(size=(64, 64, 3, 3)).astype(np.float32))
point = tinyseg.Tensor(weight.numpy()[:, :, :1, :1].copy())
numbers, weights = x.numpy().size, weight.numpy().size
norm = tinyseg.nn.BatchNorm2d(64).eval()
with tinyseg.no_grad():
    measured = [
        ("relu", numbers, 8 * numbers, seconds_of(lambda: tinyseg.ops.relu(x))),
        ("batch norm", 2 * numbers, 8 * numbers, seconds_of(lambda: norm(x))),
        ("conv 1x1", 2 * 64 * numbers, 8 * numbers, seconds_of(lambda: tinyseg.ops.conv2d(x, point))),
        (
            "conv 3x3",
            2 * 64 * 9 * numbers,
            8 * numbers + 4 * weights,
            seconds_of(lambda: tinyseg.ops.conv2d(x, weight, padding=1)),
        ),
    ]
assert measured[0][1] / measured[0][2] == 0.125 and measured[1][1] / measured[1][2] == 0.25  # operations per byte
explain.roofline(measured, peaks, title="Four layers on 64 maps of 400 x 400, one core")

# %% [markdown]
# ReLU does 0.125 operations per byte, batch normalisation 0.25. Both lie far to the left, at the slope (a little above
# it where a cache kept a part of the map): a second multiplier would have nothing to do, so they would be no faster,
# and only less traffic helps. This is why a fast library computes the ReLU while the convolution before it still holds
# the number in a register. The 3x3 convolution lies far to the right: there the multipliers are all that counts. It may
# even lie above the roof; how that is possible comes below.
#
# ## The first rung: the formula
# The way up is a *ladder*: versions of one kernel, its *rungs*, each with one change against the one before. The first
# is the textbook, compiled: seven loops, and a test for the border in the innermost.

# %%
rungs = ladder.rungs("conv2d")
print(inspect.getsource(rung1_textbook._textbook_kernel.py_func))

# %% [markdown]
# `@jit` has Numba turn the function into machine code. How much does that alone give? Python itself would take minutes
# for so many operations, so it computes a corner of 8 by 8 outputs of one channel, and we scale the time up.

# %% [markdown]
# **Predict.** How many times faster than Python is the very same loop, compiled: 2, 20 or 200 times?

# %%
x = rng.normal(size=(1, channels, height, width)).astype(np.float32)
weight = (rng.normal(size=(channels, channels, 3, 3)) / 24).astype(np.float32)


def corner_in_python(x, weight, corner=8):
    y = np.zeros((corner, corner), np.float32)
    for oy in range(corner):
        for ox in range(corner):
            total = 0.0
            for c in range(x.shape[1]):
                for ky in range(3):
                    for kx in range(3):
                        iy, ix = oy - 1 + ky, ox - 1 + kx
                        if 0 <= iy < x.shape[2] and 0 <= ix < x.shape[3]:
                            total += weight[0, c, ky, kx] * x[0, c, iy, ix]
            y[oy, ox] = total
    return y


textbook = rungs[0].function
np.testing.assert_allclose(corner_in_python(x, weight), textbook(x, weight, padding=1)[0, 0, :8, :8], atol=1e-4)
in_python = seconds_of(lambda: corner_in_python(x, weight), turns=3) * maps / 8**2
compiled = seconds_of(lambda: textbook(x, weight, padding=1), turns=1)
print(f"Python, scaled up: {in_python:.0f} s; compiled: {compiled:.1f} s; {in_python / compiled:.0f} times as fast")
assert in_python / compiled > 20

# %% [markdown]
# More than 20 times, and on most machines far more. Python looks up types and makes an object for each number; machine
# code does not.
#
# And yet the compiled loop is nowhere near the roof. Two reasons: every multiply-add waits for the one before, since
# they all add to the same `total`, and the compiler must keep their order; and the test for the border keeps it from
# computing several pixels at once.
#
# ## The climb
# The ladder has seven rungs. Each changes one thing against the rung before, and says why in its docstring. (A *tap* is
# one of the nine weights, or, further below, one of the cells that a sample reads.)

# %%
for number, rung in enumerate(rungs, 1):
    print(f"{number} {rung.name:<9} {rung.change}")
assert len(rungs) == 7

# %% [markdown]
# **Predict.** Which of these changes gains most on one thread? Which gains nothing on one thread? Write down your order
# before you run the next cell. It compiles the rungs, checks each against the naive kernel, and times them in turns.

# %%
climb = bench.climb("conv2d", "M", (), Effort(9, 3), peaks)
assert not any(step.error for step in climb.rungs)  # every rung gave the naive kernel's numbers
bench.draw([climb], {"processor": "this machine", "threads": 1})

# %% [markdown]
# Read the bars from top to bottom. Behind each stand its rate and how many times the rate of the rung before that is;
# the grey line is the spread of the measurements.
#
# - **order.** The innermost loop now runs along a row. Neighbouring pixels lie side by side in memory and their sums do
#   not wait for each other, so one vector instruction handles several of them. Nothing about the formula changed, only
#   which loop is inside.
# - **threads.** Each output map is a task of its own. With one thread this gains nothing.
# - **reuse.** The rung before loads a pixel and a sum, and stores the sum, for a single multiply-add. Four output
#   channels and three columns of weights at once make twelve multiply-adds of seven loads.
# - **tile.** A block of sums stays in registers until it is complete, so it is stored once.
# - **winograd.** Fewer multiplications for the same result; see below.
# - **final.** What `tinyseg.ops.conv2d` runs: the best of these for the shape at hand.
#
# On the roofline the rungs climb straight up: the arithmetic intensity belongs to the layer, not to the kernel.

# %%
points = [(step.name, climb.flops, climb.bytes, step.spread.median) for step in climb.rungs]
explain.roofline(points, peaks, title="The ladder of conv2d: 64 to 64 channels, 100 x 152, one core")

# %% [markdown]
# To see what a rung changed, read it. This is the inner part of rung 2:

# %%
print(inspect.getsource(rung2_order.convolve_plane.py_func))

# %% [markdown]
# ## More than one core
# Rung 3 replaced two `range`s by one `prange`: output planes are shared out to threads.

# %% [markdown]
# **Predict.** No output depends on another. Will the numbers be the same with one thread and with all, to the last bit?

# %%
threaded = rungs[2].function
alone = threaded(x, weight, padding=1)
seconds_alone = seconds_of(lambda: threaded(x, weight, padding=1))
tinyseg.set_num_threads()
together = threaded(x, weight, padding=1)
seconds_together = seconds_of(lambda: threaded(x, weight, padding=1))
cores = backend.get_num_threads()
print(f"1 thread: {seconds_alone * 1e3:.2f} ms; {cores} threads: {seconds_together * 1e3:.2f} ms")
assert (alone == together).all()

# %% [markdown]
# To the last bit. Each sum is added up by one thread, in the same order whoever does it. That is a rule for all of
# tinyseg's kernels on the CPU: the result does not depend on the number of threads. Speed is another matter: with
# something else running on your machine, a thread waits for its neighbour, and two may take longer than one.
#
# ## What may change in the numbers
# A faster kernel adds in another order, and floating-point addition rounds after each step. So the last digits differ.

# %% [markdown]
# **Predict.** Compare each rung with the exact sum, computed in float64. Which one is worst?

# %%
exact = rungs[0].function(x.astype(np.float64), weight.astype(np.float64), padding=1)
error = {}
for rung in rungs[:6]:
    error[rung.name] = np.abs(rung.function(x, weight, padding=1) - exact).max() / np.abs(exact).max()
    print(f"{rung.name:<9} largest error {error[rung.name]:.1e} of the largest value")

assert max(error[name] for name in error if name != "winograd") < 2e-6
assert error["winograd"] < 1e-4
assert error["winograd"] > 2 * error["tile"]

# %% [markdown]
# All but one stay below 2e-6. Winograd's method (Lavin and Gray, 2016) computes outputs in patches of 4 by 4 from 6 by
# 6 pixels, transforms both sides, and multiplies 36 pairs where the textbook multiplies 144: a quarter, which is how a
# point gets above the roof. The transforms contain factors up to 8, and rounding grows with them. tinyseg uses it where
# it pays; `tinyseg.use_winograd(False)` does without.
#
# What must *not* change: which number wins a tie, what happens to NaN and infinity, and what lies beyond the border.
# The tests hold every fast kernel against the naive one on those too.

# %%
a, g, b = rung6_winograd.transform_matrices()
assert a.shape == (4, 6) and (6 * 6, 4 * 4 * 9) == (36, 144)
assert np.abs(a).max() == 8
assert 36 / 144 == 1 / 4

# %% [markdown]
# ## Another operator, another ladder
# RoIAlign reads a few cells for each output, at places that depend on the box. Its ladder begins as badly, but for
# another reason: where a sample lies, and with which weights, is the same for all channels, and the textbook works it
# out again for each.

# %%
for number, rung in enumerate(ladder.rungs("roi_align"), 1):
    print(f"{number} {rung.name:<14} {rung.change}")

# %% [markdown]
# **Predict.** Is RoIAlign limited by arithmetic or by memory? Where on the way does it gain most?

# %%
tinyseg.set_num_threads(1)
climb = bench.climb("roi_align", "M", (), Effort(9, 3), peaks)
assert not any(step.error for step in climb.rungs)
bench.draw([climb], {"processor": "this machine", "threads": 1})

# %%
points = [(step.name, climb.flops, climb.bytes, step.spread.median) for step in climb.rungs]
explain.roofline(points, peaks, title="The ladder of roi_align: 100 boxes on 256 maps of 50 x 68, one core")

# %% [markdown]
# It does few operations per byte, so memory is the nearer limit. The large steps are the ones that change how memory is
# read: all channels of a cell side by side (`channels_last`), so that a *cache line*, the stretch of bytes that is
# fetched from memory at a time, is used to its end, and sums that stay in registers.
#
# ## A whole network
# `explain.plan` runs a network and lists every kernel call: what was folded into the same pass, which algorithm was
# chosen for the shape, the least time that the roofline allows, and the measured one.

# %%
tinyseg.set_num_threads()
model = tinyseg.models.UNet(widths=(8, 16, 32))
plan = explain.plan(model, (1, 1, 128, 128))
plan

# %%
explain.roofline(plan, title="A small U-Net, 128 x 128, all cores")

# %% [markdown]
# Convolutions of few channels lie on the slope, those of many near the roof. A network is fast when its large layers
# are near the roof, and its small ones are few.

# %% [markdown]
# ## Questions
# Replace the `...` and run the cell; it says whether you are right.
#
# **1.** How many multiply-adds has a 3x3 convolution from 64 to 128 channels that gives maps of 56 by 56?

# %%
answer = ...
tinyseg.lessons.check("speed.1", answer)

# %% [markdown]
# **2.** A machine does 200 GFLOP/s and copies 20 GB/s. A kernel does 4 operations per byte. How many GFLOP/s can it
# reach at most?

# %%
answer = ...
tinyseg.lessons.check("speed.2", answer)

# %% [markdown]
# **3.** Someone replaces the multiplication in a ReLU-like layer by a cheaper instruction. How many times as fast does
# the layer get on the machine of question 2, if it did 0.125 operations per byte before?

# %%
answer = ...
tinyseg.lessons.check("speed.3", answer)

# %% [markdown]
# **4.** Winograd's method with patches of 4 by 4: how many multiplications per output and input channel are left of the
# textbook's nine?

# %%
answer = ...
tinyseg.lessons.check("speed.4", answer)

# %% [markdown]
# **5.** In rung 2, why can several pixels be computed at once, and not in rung 1? Answer `"sums"` if it is since
# neighbouring sums do not wait for each other, `"threads"` if more cores take part, `"cache"` if fewer bytes are read.

# %%
answer = ...
tinyseg.lessons.check("speed.5", answer)
