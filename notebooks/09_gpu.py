# %% [markdown]
# # The same kernel on a GPU
# A graphics processor (GPU) runs thousands of threads at once. A kernel for it looks like the inside of a loop; what
# makes it fast or slow is how neighbouring threads use memory. You need no GPU for this notebook: `explain.cuda_trace`
# runs a kernel thread by thread on the processor and notes every access.
#
# **You will be able to**
# - write down which thread of which block does what, and guard the end of an array;
# - tell whether a warp's accesses are coalesced, and count the sectors;
# - find a race, and say where the barrier goes;
# - explain bank conflicts and how one column of padding removes them;
# - run tinyseg's networks in the simulator or on a GPU, and say what is copied.
#
# It takes about 45 minutes, and one of computing. You should have read [notebook 8](08_loop_to_kernel.ipynb), where
# operations, bytes and registers are counted.

# %%
# %matplotlib inline
import json
import os
import subprocess
import sys
import tempfile
from importlib import resources

import numpy as np
from numba import cuda, float32

import tinyseg
from kernels import ladder
from kernels.cuda import is_available
from kernels.ladder.matmul_cuda import rung1_global, rung2_coalesced, rung3_shared
from tinyseg import explain

rng = tinyseg.manual_seed(0)

# %% [markdown]
# ## Threads, warps and blocks
# A kernel for a GPU is a function that every thread runs once, each with another number. Threads come in *blocks*; the
# blocks together are the *grid*. The hardware runs the threads of a block 32 at a time: such a group is a *warp*, and
# its threads do the same instruction at the same moment.
#
# Here is the smallest useful kernel. `cuda.grid(1)` is the number of the thread among all threads. (In the library such
# functions are compiled for the GPU; the trace needs nothing but their source.)


# %%
def add(y, a, b):
    i = cuda.grid(1)
    y[i] = a[i] + b[i]


def traced_add(kernel, size, blocks, threads):
    a, y = np.ones(size, np.float32), np.zeros(size, np.float32)
    return explain.cuda_trace(kernel, blocks, threads, y, a, a)


# %% [markdown]
# **Predict.** The arrays have 100 elements. Blocks of 32 threads, so how many blocks are needed? How many threads is
# that, and what do the last ones do?

# %%
trace = traced_add(add, 100, 4, 32)
print(trace)
assert 4 * 32 == 128 and 128 - 100 == 28
assert [(problem.kind, problem.times) for problem in trace.problems] == [("out of bounds", 28)] * 3

# %% [markdown]
# 3 blocks are 96 threads, which is too few; 4 are 128, and 28 of them read and write behind the end. A GPU does not
# stop there: it reads something, or overwrites something of another array. So every kernel guards its end:


# %%
def guarded_add(y, a, b):
    i = cuda.grid(1)
    if i < y.size:
        y[i] = a[i] + b[i]


trace = traced_add(guarded_add, 100, 4, 32)
assert trace.problems == [] and 3 * 32 == 96

# %% [markdown]
# ## What a warp asks for
# Memory comes in *sectors* of 32 bytes, so 8 numbers of 4 bytes. When the 32 threads of a warp read 32 neighbours, that
# is 4 sectors, every byte of which is used: the access is *coalesced*. When they read numbers that lie far apart, it is
# up to 32 sectors.
#
# Take the product of two matrices, with a thread for each element of the result. In the first rung of the ladder,
# neighbouring threads have elements *below* each other; in the second, elements *beside* each other. That is all that
# differs.
#
# Below, `a[m, k] * b[k, n]` is added up over `k` for the element in row `m` and column `n`, and arrays lie in memory
# row by row.

# %% [markdown]
# **Predict.** For one instruction of a warp, how many sectors of `a` and of `b` are read, in the first rung and in the
# second?

# %%
a, b, y = np.ones((64, 16), "f4"), np.ones((16, 64), "f4"), np.empty((64, 64), "f4")
below = explain.cuda_trace(rung1_global.matmul_kernel, 16, 256, y, a, b)
beside = explain.cuda_trace(rung2_coalesced.matmul_kernel, 16, 256, y, a, b)
print(below)

# %%
print(beside)


def sectors(trace, array):
    (row,) = (row for row in trace.rows if row.array == array)
    return row.pieces / row.instructions


assert 32 // 4 == 8 and 32 * 4 / 32 == 4
assert (sectors(below, "a"), sectors(below, "b"), sectors(below, "y")) == (32, 1, 32)
assert (sectors(beside, "a"), sectors(beside, "b"), sectors(beside, "y")) == (1, 4, 4)

# %% [markdown]
# The columns `pieces` and `least` tell it. Below each other: 32 sectors of `a`, since its rows lie 16 numbers apart,
# and 1 of `b`, since all threads want the same number, which is fetched once. Beside each other: 1 of `a` and 4 of `b`.
# In all, 33 sectors against 5 for the same work, by a change of one line.
#
# The picture shows a single instruction: threads above, memory below.

# %%
assert a.shape[1] == 16 and 32 + 1 == 33 and 1 + 4 == 5
line = next(row.line for row in below.rows if row.array == "a")
below.figure(line, "a")

# %%
line = next(row.line for row in beside.rows if row.array == "b")
beside.figure(line, "b")

# %% [markdown]
# ## Shared memory, barriers and races
# A block has some memory of its own, on the chip and about as fast as a cache: *shared memory*. The threads of a block
# fetch what all of them need once, put it there, and read it from there. But threads run in no given order. Between
# writing and reading, all must wait for each other: `cuda.syncthreads()`, a *barrier*.
#
# This kernel turns each block of an array round. One thing is missing.


# %%
def turn_round(y, x):
    part = cuda.shared.array(64, float32)
    t = cuda.threadIdx.x
    part[t] = x[cuda.grid(1)]
    y[cuda.grid(1)] = part[63 - t]


# %% [markdown]
# **Predict.** What does a thread read that comes to the last line early? Which threads are safe from it?

# %%
x, y = np.arange(128, dtype=np.float32), np.zeros(128, np.float32)
trace = explain.cuda_trace(turn_round, 2, 64, y, x)
for problem in trace.problems:
    print(f"{problem.kind}, line {problem.line}: {problem.text}\n    {problem.source}")
assert {problem.kind for problem in trace.problems} >= {"race"}

# %% [markdown]
# It reads what nobody has written yet, or what was there before. No thread is safe: thread $t$ reads what thread
# $63 - t$ writes, which is never itself and never even of its own warp. In a block of one warp such code could go well
# for years, since the threads of a warp used to run in step, and fail on the next generation of hardware. The trace
# does not wait for it to go wrong: two threads touch the same place, one of them writes, and no barrier lies between.
# That is a *race*.


# %%
def turn_round_safely(y, x):
    part = cuda.shared.array(64, float32)
    t = cuda.threadIdx.x
    part[t] = x[cuda.grid(1)]
    cuda.syncthreads()
    y[cuda.grid(1)] = part[63 - t]


trace = explain.cuda_trace(turn_round_safely, 2, 64, y, x)
assert trace.problems == []
assert (y == x.reshape(2, 64)[:, ::-1].ravel()).all()

# %% [markdown]
# ## Banks
# Shared memory is 32 *banks* beside each other; neighbouring words of 4 bytes lie in neighbouring banks, and each bank
# gives one word at a time. 32 threads that read 32 different banks are served in one pass. Threads that want different
# words of the *same* bank queue.
#
# A transposition reads rows and writes columns, or the other way round, so one side would be uncoalesced in global
# memory. Through a *tile*, a square piece of the matrix, in shared memory both sides are coalesced.


# %%
def transpose(y, x):
    part = cuda.shared.array((32, 32), float32)
    row, column = cuda.threadIdx.y, cuda.threadIdx.x
    part[row, column] = x[row, column]
    cuda.syncthreads()
    y[row, column] = part[column, row]


def padded_transpose(y, x):
    part = cuda.shared.array((32, 33), float32)
    row, column = cuda.threadIdx.y, cuda.threadIdx.x
    part[row, column] = x[row, column]
    cuda.syncthreads()
    y[row, column] = part[column, row]


# %% [markdown]
# **Predict.** The last line reads a column of the tile. In how many passes is a warp served by the first kernel, and in
# how many by the second, whose rows are one number longer?

# %%
x, y = np.arange(1024, dtype=np.float32).reshape(32, 32), np.zeros((32, 32), np.float32)
conflicts = explain.cuda_trace(transpose, 1, (32, 32), y, x)
assert (y == x.T).all()
free = explain.cuda_trace(padded_transpose, 1, (32, 32), y, x)
assert (y == x.T).all()


def passes(trace):
    (row,) = (row for row in trace.rows if row.array == "part" and row.kind == "read")
    return row.pieces / row.instructions


print(passes(conflicts), passes(free))
assert (passes(conflicts), passes(free)) == (32, 1)
assert [problem.kind for problem in conflicts.problems] == ["bank conflict"] and free.problems == []

# %%
line = next(row.line for row in conflicts.rows if row.array == "part" and row.kind == "read")
conflicts.figure(line, "part")

# %% [markdown]
# A row of 32 words fills all banks once, so the numbers of a column all lie in one bank: 32 passes. With 33 words, each
# row begins one bank further on, and a column touches every bank: 1 pass. The price is 32 words that hold nothing.
#
# ## The ladder
# How a matrix product becomes fast on a GPU, in six steps. What each asks of memory was counted by the trace, for
# matrices of 128 by 16 and 16 by 128.

# %%
assert len(ladder.rungs("matmul_cuda")) == 6
for number, rung in enumerate(ladder.rungs("matmul_cuda"), 1):
    counted = rung.function.__doc__.split("Counted:")[1].split("Parameters")[0]
    print(f"{number} {rung.name:<10} {rung.change}\n  {' '.join(counted.split())}")
assert "128 x 16 and 16 x 128" in sys.modules["kernels.ladder.matmul_cuda"].__doc__

# %% [markdown]
# From 16.5 bytes per operation down to 0.0312. Compare the third rung with what you have seen:

# %%
a, b, y = np.ones((64, 16), "f4"), np.ones((16, 64), "f4"), np.empty((64, 64), "f4")
tiled = explain.cuda_trace(rung3_shared.matmul_kernel, 16, (16, 16), y, a, b)
print(tiled)
assert tiled.problems == []
counted = {rung.name: rung.function.__doc__ for rung in ladder.rungs("matmul_cuda")}
assert str(16.5) in counted["global"] and str(0.0312) in counted["final"]

assert tiled.totals()["a"]["read"] * 16 == below.totals()["a"]["read"]

# %% [markdown]
# It reads global memory 16 times less often than the first two, because each number that was fetched serves 16 threads
# from shared memory; and no read of shared memory has a conflict.
#
# ## What the compiler makes of it
# Registers are where a thread keeps its numbers. A *multiprocessor*, the part of a GPU on which a block runs, has a
# fixed number of them, so the more a thread takes, the fewer threads run at once; the share of the possible is the
# *occupancy*. Too many live numbers, and the compiler *spills* some into memory, which is slow. tinyseg compiles all
# its kernels without a GPU and keeps the table; here are those of the convolutions, for an H100 (`sm_90`) in float32.

# %%
table = json.loads(resources.files("benchmarks").joinpath("cuda_code.json").read_text("utf-8"))["kernels"]
print(f"{'kernel':<45}{'threads':>8}{'registers':>10}{'shared':>8}{'spills':>7}{'occupancy':>10}")
for name, row in table.items():
    kernel, *target = name.split()
    if target == ["sm_90", "float32"] and "conv" in kernel and "." in kernel:
        print(
            f"{kernel:<45}{row['threads']:>8}{row['registers']:>10}{row['shared']:>8}{row['spills']:>7}"
            f"{row['occupancy']:>10.0%}"
        )
assert all(row["spills"] == 0 for row in table.values())

# %% [markdown]
# None spills. A low occupancy is not bad in itself: a thread with many sums in registers keeps the multipliers busy
# alone.
#
# ## Running it
# With a GPU, `tensor.to("cuda")` and `model.to("cuda")` move data to it, the *device*, and operators run where their
# data lie. Without one, Numba's *simulator* runs the same kernels as Python threads: right, and very slow. It is
# switched on by the environment variable `NUMBA_ENABLE_CUDASIM=1` before Python starts; in a notebook, before the first
# import, by `os.environ`. Here it runs in a second Python, so that this one stays as it is.

# %%
program = """
import numpy as np
import tinyseg
from kernels.cuda import transfers
from tinyseg import Tensor, ops

rng = np.random.default_rng(0)
x, w = Tensor(rng.normal(size=(1, 3, 8, 8))), Tensor(rng.normal(size=(4, 3, 3, 3)))
there = ops.relu(ops.conv2d(x.to("cuda"), w.to("cuda"), padding=1))
before = transfers()
again = ops.max_pool2d(there, 2)
print("copied by max_pool2d:", transfers().to_device - before.to_device, transfers().to_host - before.to_host)
here = ops.max_pool2d(ops.relu(ops.conv2d(x, w, padding=1)), 2)
print("largest difference:", abs(again.to("cpu").numpy() - here.numpy()).max())
"""


# %% [markdown]
# **Predict.** The program convolves on the device and on the processor. How much is copied between the two while
# `max_pool2d` runs there? Do the results agree to the last bit?

# %%
where = dict(os.environ) if is_available() else dict(os.environ, NUMBA_ENABLE_CUDASIM="1")
done = subprocess.run([sys.executable, "-c", program], env=where, capture_output=True, text=True, check=True)
print("on a GPU" if is_available() else "in the simulator")
print(done.stdout)
assert "copied by max_pool2d: 0 0\n" in done.stdout
assert float(done.stdout.split()[-1]) < 1e-12

# %% [markdown]
# Nothing is copied: what is on the device stays there until somebody asks for its numbers. Copies are the usual reason
# why a GPU disappoints, since the path between processor and GPU is many times slower than the memory of either. And
# the results agree up to rounding: the sums are added in another order.
#
# ## Is it faster?
# Where there is a GPU, this cell climbs the ladder of convolution on it and times each step by the GPU's own events;
# without one it says so. A table of all operators and networks on the processor and the GPU, transfers apart, beside
# PyTorch on the same GPU, is made by `python -m benchmarks gpu`.

# %%
if is_available():
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks", "ladder", "conv2d_cuda", "--out", folder]
        print(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
else:
    print("There is no GPU here, so there is nothing to measure.")

# %% [markdown]
# ## Questions
# Replace the `...` and run the cell; it says whether you are right.
#
# **1.** An array has 1000 elements, blocks have 256 threads. How many threads does a launch start that covers it?

# %%
answer = ...
tinyseg.lessons.check("gpu.1", answer)

# %% [markdown]
# **2.** The 32 threads of a warp read 32 neighbouring numbers of 8 bytes each, from the beginning of a sector on. How
# many sectors is that?

# %%
answer = ...
tinyseg.lessons.check("gpu.2", answer)

# %% [markdown]
# **3.** They read every second number of 4 bytes: 0, 2, 4, and so on. How many sectors now?

# %%
answer = ...
tinyseg.lessons.check("gpu.3", answer)

# %% [markdown]
# **4.** A tile in shared memory has rows of 48 numbers of 4 bytes; the 32 threads of a warp read a column. In how many
# passes?

# %%
answer = ...
tinyseg.lessons.check("gpu.4", answer)

# %% [markdown]
# **5.** Where does a kernel need a barrier? `"between"`: between a thread's write to shared memory and another thread's
# read of it; `"every"`: after every write to memory; `"end"`: at the end of the kernel.

# %%
answer = ...
tinyseg.lessons.check("gpu.5", answer)
