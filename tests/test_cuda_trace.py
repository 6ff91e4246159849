"""`cuda_trace`: planted mistakes are found by line, clean kernels have none, and results are those of the kernel."""

import inspect
import json
import warnings

import numpy as np
import pytest
from numba import cuda, float32, float64, int64, types

from tinyseg import explain
from tinyseg.explain import cuda_trace

ROW = np.arange(256, dtype=np.float32)


def line_of(function, text):
    """Return the number of the only line of a function that has a text."""
    lines, first = inspect.getsourcelines(getattr(function, "py_func", function))
    (line,) = (first + i for i, line in enumerate(lines) if text in line)
    return line


def kinds(trace):
    return [(problem.kind, problem.line, problem.array) for problem in trace.problems]


def row(trace, array, kind):
    (found,) = (row for row in trace.rows if (row.array, row.kind) == (array, kind))
    return found


# ---- planted mistakes ------------------------------------------------------------------------------------------------


def reverse(y, x, barrier):
    part = cuda.shared.array(64, float32)
    t = cuda.threadIdx.x
    part[t] = x[cuda.grid(1)]
    if barrier:
        cuda.syncthreads()
    y[cuda.grid(1)] = part[63 - t]


def test_a_race_in_shared_memory():
    trace = cuda_trace(reverse, 4, 64, np.zeros(256, np.float32), ROW, False)
    race = next(problem for problem in trace.problems if problem.kind == "race")
    assert (race.line, race.array, race.times) == (line_of(reverse, "part[t] ="), "part", 256)
    assert f"reads it in line {line_of(reverse, '63 - t')}, with no barrier between" in race.text
    assert race.source == "part[t] = x[cuda.grid(1)]"


def test_the_barrier_ends_the_race():
    y = np.zeros(256, np.float32)
    trace = cuda_trace(reverse, 4, 64, y, ROW, True)
    assert trace.problems == []
    np.testing.assert_array_equal(y, ROW.reshape(4, 64)[:, ::-1].ravel())


def test_a_read_before_any_write():
    trace = cuda_trace(reverse, 1, 64, np.zeros(64, np.float32), ROW[:64], False)
    assert ("uninitialised", line_of(reverse, "63 - t"), "part") in kinds(trace)


def neighbours(y, x):
    i = cuda.grid(1)
    y[i] = x[i - 1] + x[i]


def test_out_of_bounds_and_indices_from_the_end():
    y = np.full(60, -1, np.float32)
    trace = cuda_trace(neighbours, 2, 32, y, ROW[:62])
    line = line_of(neighbours, "x[i - 1]")
    assert kinds(trace) == [
        ("negative index", line, "x"), ("out of bounds", line, "y"), ("out of bounds", line, "x"),
    ]  # fmt: skip
    written = next(problem for problem in trace.problems if problem.array == "y")
    assert written.times == 4
    assert written.text == "write of y[60], whose shape is (60,), 4 times, first by thread 28 of block 1"
    np.testing.assert_array_equal(y, np.roll(ROW[:62], 1)[:60] + ROW[:60])


def test_out_of_bounds_along_one_axis_of_two():
    def kernel(y):
        i, j = cuda.grid(2)
        y[j, i] = 1

    y = np.zeros((4, 5), np.float32)
    trace = cuda_trace(kernel, 1, (6, 4), y)  # y[0, 5] lies in the array's memory, but is no element of row 0
    assert kinds(trace) == [("out of bounds", line_of(kernel, "y[j, i]"), "y")]
    assert "y[(0, 5)]" in trace.problems[0].text and y.min() == 1


def columns(y, x):
    i = cuda.grid(1)
    y[i] = x[i, 0]


def test_an_uncoalesced_read():
    trace = cuda_trace(columns, 2, 32, np.zeros(64, np.float32), np.zeros((64, 64), np.float32))
    assert kinds(trace) == [("uncoalesced", line_of(columns, "x[i, 0]"), "x")]
    read, write = row(trace, "x", "read"), row(trace, "y", "write")
    assert (read.instructions, read.pieces, read.least_pieces, read.lines, read.most_pieces) == (2, 64, 8, 64, 32)
    assert (write.instructions, write.pieces, write.least_pieces, write.lines) == (2, 8, 8, 2)


def test_threads_that_skip_rounds_of_a_loop_are_still_side_by_side():
    def kernel(y, x):
        for i in range(cuda.grid(1), x.size, cuda.gridsize(1)):
            if x[i] < 0:
                y[i] = 0
            else:
                for _ in range(5):
                    if x[i] < 1:
                        break
                    y[i] = x[i]

    x = np.random.default_rng(0).standard_normal(32 * 40).astype(np.float32)
    trace = cuda_trace(kernel, 2, 32, np.zeros_like(x), x)
    assert trace.problems == []
    zero = next(row for row in trace.rows if row.source == "y[i] = 0")
    assert zero.instructions == 40 and zero.accesses == np.sum(x < 0) and zero.pieces <= 4 * 40


def transpose(y, x, width, dtype):
    tile = cuda.shared.array((32, width), dtype)
    column, first = cuda.threadIdx.x, cuda.threadIdx.y
    for line in range(first, 32, 8):
        tile[line, column] = x[line, column]
    cuda.syncthreads()
    for line in range(first, 32, 8):
        y[line, column] = tile[column, line]


@pytest.mark.parametrize(
    ("dtype", "width", "passes", "least"), [("f4", 32, 32, 1), ("f4", 33, 1, 1), ("f8", 32, 32, 2), ("f8", 33, 2, 2)]
)
def test_bank_conflicts_of_a_transpose(dtype, width, passes, least):
    def kernel(y, x):
        transpose(y, x, width, types.float32 if dtype == "f4" else types.float64)

    x = np.arange(1024, dtype=dtype).reshape(32, 32)
    y = np.zeros_like(x)
    trace = cuda_trace(kernel, 1, (32, 8), y, x)
    np.testing.assert_array_equal(y, x.T)
    read = row(trace, "tile", "read")
    assert (read.pieces, read.least_pieces, read.most_pieces) == (32 * passes, 32 * least, passes)
    conflict = [("bank conflict", line_of(transpose, "tile[column, line]"), "tile")]
    assert kinds(trace) == (conflict if passes > least else [])


@pytest.mark.parametrize(("dtype", "count"), [("f4", 4), ("f8", 2)])
def test_neighbours_of_an_aligned_piece_are_read_at_once(dtype, count):
    kind = {"f4": float32, "f8": float64}[dtype]

    def kernel(y, x, piece, first):
        part = cuda.shared.array(32 * count + 1, kind, alignment=piece)
        t = cuda.threadIdx.x
        for i in range(t, x.size, 32):
            part[i] = x[i]
        cuda.syncthreads()
        own = cuda.local.array(count, kind)
        for i in range(count):
            own[i] = part[first + t * count + i]
        for i in range(count):
            y[i, t] = own[i]

    x, line = np.arange(32 * count + 1, dtype=dtype), line_of(kernel, "part[first")
    for piece, first, instructions, passes, turns in (
        (16, 0, 1, 4, 1), (None, 0, count, 4 * count, count), (16, 1, 2, None, 2),
    ):  # fmt: skip
        y = np.zeros((count, 32), dtype)
        trace = cuda_trace(kernel, 1, 32, y, x, piece, first)
        np.testing.assert_array_equal(y, x[first : first + 32 * count].reshape(32, count).T)
        read = row(trace, "part", "read")
        assert (read.accesses, read.instructions) == (32 * count, instructions)
        assert passes in (None, read.pieces) and len({a.turn for a in trace.accesses(line, "part")}) == turns
        assert (kinds(trace) == []) == (piece == 16 and first == 0)
    texts = [text.get_text() for text in cuda_trace(kernel, 1, 32, y, x, 16, 0).figure(line, "part").axes[0].texts]
    assert "4 passes through the banks; without conflicts it would be 4" in texts


def test_one_word_for_all_threads_is_no_conflict():
    def kernel(y):
        part = cuda.shared.array(2, float32)
        t = cuda.threadIdx.x
        if t < 2:
            part[t] = t
        cuda.syncthreads()
        y[t] = part[t // 16]

    trace = cuda_trace(kernel, 1, 32, np.zeros(32, np.float32))
    assert trace.problems == [] and row(trace, "part", "read").pieces == 1


def test_threads_that_miss_a_barrier():
    def kernel(y):
        if cuda.threadIdx.x < 10:
            cuda.syncthreads()
        y[cuda.threadIdx.x] = 1

    trace = cuda_trace(kernel, 1, 32, np.zeros(32, np.float32))
    assert kinds(trace) == [("barrier", line_of(kernel, "syncthreads"), "")]
    assert "only 10 of 32 threads of block 0 reach syncthreads: thread 10 has ended" in trace.problems[0].text


def test_threads_at_different_barriers():
    def kernel(y):
        if cuda.threadIdx.x < 10:
            cuda.syncthreads()  # the first
        else:
            cuda.syncthreads()
        y[cuda.threadIdx.x] = 1

    trace = cuda_trace(kernel, 1, 32, np.zeros(32, np.float32))
    assert kinds(trace) == [("barrier", line_of(kernel, "# the first"), "")]


def test_races_between_blocks():
    def kernel(total, seen, x):
        i = cuda.grid(1)
        total[0] += x[i]
        cuda.atomic.add(seen, 0, 1)
        seen[1] = 5  # by all, the same: no race

    total, seen = np.zeros(1, np.float32), np.zeros(2, np.int64)
    trace = cuda_trace(kernel, 4, 1, total, seen, ROW)
    assert {(problem.kind, problem.line, problem.array) for problem in trace.problems} == {
        ("race", line_of(kernel, "total[0]"), "total")
    }
    assert "nothing orders blocks" in trace.problems[0].text
    assert (total[0], seen.tolist()) == (6, [4, 5])


def test_syncwarp_orders_a_warp_but_not_a_block():
    def kernel(y):
        part = cuda.shared.array(64, float32)
        t = cuda.threadIdx.x
        part[t] = t
        cuda.syncwarp()
        y[t] = part[t ^ y[0:1].size]

    assert cuda_trace(kernel, 1, 64, np.zeros(64, np.float32)).problems == []

    def wider(y):
        part = cuda.shared.array(64, float32)
        t = cuda.threadIdx.x
        part[t] = t
        cuda.syncwarp()
        y[t] = part[t ^ 32]

    trace = cuda_trace(wider, 1, 64, np.zeros(64, np.float32))
    assert ("race", line_of(wider, "part[t] = t"), "part") in kinds(trace)


# ---- results ---------------------------------------------------------------------------------------------------------


def test_sum_of_a_warp_by_shuffles():
    def kernel(y, x):
        value = x[cuda.grid(1)]
        distance = 16
        while distance:
            value += cuda.shfl_down_sync(0xFFFFFFFF, value, distance)
            distance //= 2
        if cuda.laneid == 0:
            y[cuda.grid(1) // 32] = value

    y = np.zeros(4, np.float32)
    trace = cuda_trace(kernel, 2, 64, y, ROW[:128])
    assert trace.problems == []
    np.testing.assert_array_equal(y, ROW[:128].reshape(4, 32).sum(1))


def test_votes_and_counts():
    def kernel(y, x):
        positive = x[cuda.threadIdx.x] > 20
        y[0] = cuda.syncthreads_count(positive)
        y[1] = cuda.popc(cuda.ballot_sync(0xFFFFFFFF, positive)) if cuda.threadIdx.x < 32 else 11
        y[2] = cuda.syncthreads_or(positive) + cuda.syncthreads_and(positive)

    y = np.zeros(3, np.int64)
    assert cuda_trace(kernel, 1, 32, y, ROW).problems == []
    assert y.tolist() == [11, 11, 1]


def test_atomic_operations():
    def kernel(y):
        t = cuda.threadIdx.x
        cuda.atomic.add(y, 0, t)
        cuda.atomic.max(y, 1, t)
        cuda.atomic.min(y, 2, -t)
        cuda.atomic.exch(y, 3, 7)
        cuda.atomic.or_(y, 4, 1 << t)
        if cuda.atomic.cas(y, 5, 0, t + 1) == 0:
            y[6] = t + 1

    y = np.zeros(7, np.int32)
    assert cuda_trace(kernel, 1, 32, y).problems == []
    assert y.tolist() == [496, 31, -31, 7, -1, 1, 1]


@cuda.jit
def _jitted(y, x):
    part = cuda.local.array(2, int64)
    part[0] = 3
    y[cuda.grid(1)] = _helper(x, part[0])


@cuda.jit(device=True)
def _helper(x, index):
    return x[index + _SHIFT[0]]


_SHIFT = np.array([2])


def test_a_jitted_kernel_its_device_functions_and_constants():
    y = np.zeros(2, np.float32)
    trace = cuda_trace(_jitted, 1, 2, y, ROW)
    assert trace.problems == [] and y.tolist() == [5, 5]
    assert {row.line for row in trace.rows if row.array == "x"} == {_line("return x[index")}


def _line(text):
    lines = inspect.getsource(inspect.getmodule(kinds)).splitlines()
    return next(i for i, line in enumerate(lines, 1) if line.strip().startswith(text))


def test_a_local_array_read_before_it_is_written():
    def kernel(y):
        part = cuda.local.array(4, float32)
        y[0] = part[1]

    y = np.zeros(1, np.float32)
    assert kinds(cuda_trace(kernel, 1, 1, y)) == [("uninitialised", line_of(kernel, "part[1]"), "part")]
    assert np.isnan(y[0])


def test_dynamic_shared_memory():
    def kernel(y):
        part = cuda.shared.array(0, float64)
        t = cuda.threadIdx.x
        part[t] = t
        cuda.syncthreads()
        y[t] = part[cuda.blockDim.x - 1 - t]

    y = np.zeros(8)
    assert cuda_trace(kernel, 1, 8, y, shared_bytes=64).problems == []
    assert y.tolist() == [*range(7, -1, -1)]
    assert {problem.kind for problem in cuda_trace(kernel, 1, 8, y, shared_bytes=32).problems} == {"out of bounds"}


def test_large_blocks_and_many_barriers():
    def kernel(y):
        part = cuda.shared.array(1024, int64)
        t = cuda.threadIdx.x
        part[t] = 1
        step = 512
        while step:
            cuda.syncthreads()
            if t < step:
                part[t] += part[t + step]
            step //= 2
        if t == 0:
            y[cuda.blockIdx.x] = part[0]

    y = np.zeros(2, np.int64)
    trace = cuda_trace(kernel, 2, 1024, y)
    assert trace.problems == [] and y.tolist() == [1024, 1024]


def test_the_same_array_under_two_names_is_one_memory():
    def kernel(y, x):
        i = cuda.grid(1)
        y[i] = x[i + 1]

    values = np.arange(33, dtype=np.float32)
    assert kinds(cuda_trace(kernel, 1, 32, values, values)) == [("race", line_of(kernel, "y[i]"), "y")]


def test_two_traces_are_the_same():
    first, second = (cuda_trace(reverse, 4, 64, np.zeros(256, np.float32), ROW, False) for _ in range(2))
    assert str(first) == str(second) and first.accesses() == second.accesses()


def test_arrays_by_their_addresses():
    def kernel(table):
        source, target = cuda.at_address(table[0]), cuda.at_address(table[1])
        target[cuda.grid(1)] = source[31 - cuda.grid(1)]

    x, y = ROW[:32].copy(), np.zeros(31, np.float32)
    table = np.array([x.ctypes.data, y.ctypes.data])
    trace = cuda_trace(kernel, 1, 32, table, by_address={"x": x, "y": y})
    assert kinds(trace) == [("out of bounds", line_of(kernel, "target["), "y")]
    np.testing.assert_array_equal(y, x[:0:-1])


# ---- the result ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trace():
    return cuda_trace(reverse, 2, 64, np.zeros(128, np.float32), ROW[:128], False)


def test_the_table(trace):
    text = str(trace)
    assert text.startswith("reverse: 2 blocks of 64 threads\n")
    assert "part[t] = x[cuda.grid(1)]" in text and "\n- line " in text
    assert str(cuda_trace(reverse, 1, 64, np.zeros(64, np.float32), ROW, True)).endswith("Problems:\n- none")


def test_totals_and_single_accesses(trace):
    assert trace.totals()["part"] == {"read": 128, "write": 128, "atomic": 0}
    first = trace.accesses(line=line_of(reverse, "63 - t"), array="part")[1]
    assert first == explain.CudaAccess("part", "read", 62, (0, 0, 0), (1, 0, 0), line_of(reverse, "63 - t"), 0, 0)
    assert len(trace.accesses()) == 512
    assert {problem.kind for problem in trace.mistakes} == {"race", "uninitialised"} and trace.slow == []


def test_json(trace):
    whole = json.loads(trace.to_json())
    assert whole["kernel"] == "reverse" and whole["grid"] == [2, 1, 1] and whole["block"] == [64, 1, 1]
    assert [row["pieces"] for row in whole["rows"]] == [row.pieces for row in trace.rows]
    assert [problem["kind"] for problem in whole["problems"]] == [problem.kind for problem in trace.problems]


def test_figures(trace):
    line = line_of(reverse, "part[t] =")
    for array, words in (("x", "4 sectors of 32 bytes are fetched"), ("part", "1 passes through the banks")):
        figure = trace.figure(line, array, warp=3)
        texts = [text.get_text() for text in figure.axes[0].texts]
        assert any(words in text for text in texts) and "31" in texts
        figure.canvas.draw()
    with pytest.raises(ValueError, match="line is 1, array None: no such access; there are accesses in lines"):
        trace.figure(1)
    with pytest.raises(ValueError, match="warp is 4, turn 0: this warp does not come to line"):
        trace.figure(line, warp=4)


# ---- bad input -------------------------------------------------------------------------------------------------------


def test_bad_arguments():
    y = np.zeros(4, np.float32)
    for arguments, error, message in (
        ((len, 1, 1), TypeError, "kernel is a builtin_function_or_method; expected a Python function"),
        ((neighbours, 1, 1, y), TypeError, r"'neighbours' takes 2 arguments \(y, x\), but is given 1"),
        ((neighbours, 1, 1, y, [1]), TypeError, "x is a list; expected a NumPy array, a number or a tuple"),
        ((neighbours, 0, 1, y, y), ValueError, "grid is 0; expected one to three numbers, each at least 1"),
        ((neighbours, 1, 1.5, y, y), TypeError, "block is 1.5; expected whole numbers"),
        ((neighbours, 1, (64, 32), y, y), ValueError, r"block is \(64, 32, 1\), 2048 threads; expected at most 1024"),
    ):
        with pytest.raises(error, match=message):
            cuda_trace(*arguments)


def test_a_kernel_that_fails_tells_where():
    def kernel(y):
        cuda.syncthreads()
        if cuda.threadIdx.x == 3:
            y[0] = 1 // (cuda.blockIdx.x - 1)

    message = r"'kernel' failed in block \(1, 0, 0\), thread \(3, 0, 0\), line \d+: y\[0\] = 1 // .*: ZeroDivisionError"
    with pytest.raises(RuntimeError, match=message):
        cuda_trace(kernel, 2, 32, np.zeros(4))


def test_an_endless_loop_ends():
    def kernel(y):
        while y[0] == 0:
            y[1] = 1

    with pytest.raises(RuntimeError, match="'kernel' made more than 1000 accesses to arrays"):
        cuda_trace(kernel, 1, 32, np.zeros(4), limit=1000)


def test_what_is_not_known_is_named():
    def kernel(y):
        cuda.cg.this_grid()

    with pytest.raises(RuntimeError, match="cuda_trace does not know cuda.cg"):
        cuda_trace(kernel, 1, 1, ROW)


def test_a_read_only_array():
    y = np.zeros(32)
    y.flags.writeable = False
    with pytest.raises(RuntimeError, match="the kernel writes to 'y', which is read-only"):
        cuda_trace(neighbours, 1, 32, y, y)


def test_whole_numbers_wrap_and_arithmetic_is_silent():
    def kernel(y, x):
        y[0] = 1 << 31
        y[1] = 2**32 + 5
        x[0] = np.float32(1) / x[1]

    y, x = np.zeros(2, np.int32), np.zeros(2, np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cuda_trace(kernel, 1, 1, y, x)
    assert y.tolist() == [-(2**31), 5] and np.isinf(x[0])
