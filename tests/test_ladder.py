"""Every rung of every ladder: right over odd shapes, in any number of threads, and each index inside its array."""

import json
import os
import subprocess
import sys

import numba
import numpy as np
import pytest
from cases import of
from tolerances import TOLERANCES, Tolerance, assert_close

import kernels
from benchmarks import ladder as bench
from benchmarks.measure import Effort, Entrant
from kernels import ladder
from kernels.ladder import conv2d, roi_align
from kernels.ladder.conv2d import register_tile, rung5_tile, rung6_winograd
from kernels.ladder.roi_align import rung5_registers

naive = kernels.get("naive")
BOTH = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
WITHOUT_JIT = bool(numba.config.DISABLE_JIT)
NEEDS_JIT = pytest.mark.skipif(WITHOUT_JIT, reason="writes vector instructions by hand")


def every_rung(operator):
    """Return the decorator that runs a test for each rung; without the JIT, for those that Python can run."""
    return pytest.mark.parametrize(
        "rung",
        [
            pytest.param(rung, id=rung.name, marks=() if rung.steppable else NEEDS_JIT)
            for rung in ladder.rungs(operator)
        ],
    )


# ---- conv2d ----------------------------------------------------------------------------------------------------------

#: Shape of x, output channels, kernel, stride, padding.
CONVOLUTIONS = [
    ((1, 1, 1, 1), 1, (3, 3), (1, 1), (1, 1)),
    ((2, 3, 5, 7), 4, (3, 3), (1, 1), (1, 1)),
    ((1, 2, 4, 4), 3, (3, 3), (1, 1), (0, 0)),
    ((1, 2, 9, 50), 9, (3, 3), (1, 1), (1, 1)),
    ((2, 5, 13, 49), 8, (3, 3), (1, 1), (0, 2)),
    ((1, 1, 6, 201), 3, (3, 3), (1, 1), (2, 0)),
    ((1, 4, 31, 18), 17, (3, 3), (1, 1), (3, 3)),
    ((3, 20, 7, 7), 21, (3, 3), (1, 1), (1, 1)),
    ((1, 2, 5, 20), 3, (3, 3), (1, 1), (1, 100)),
    ((1, 1, 3, 2), 2, (3, 3), (1, 1), (9, 8)),
    ((1, 0, 5, 4), 2, (3, 3), (1, 1), (1, 1)),
    ((0, 2, 4, 4), 3, (3, 3), (1, 1), (1, 1)),
    ((1, 2, 3, 3), 2, (1, 1), (1, 1), (0, 0)),
    ((2, 3, 8, 9), 5, (2, 4), (1, 1), (1, 2)),
    ((2, 3, 11, 10), 6, (3, 3), (2, 2), (1, 1)),
    ((1, 2, 10, 23), 4, (3, 3), (1, 3), (2, 0)),
    ((1, 2, 9, 16), 5, (2, 5), (3, 2), (0, 4)),
]
_WINOGRAD = Tolerance(5e-5, 1e-12, "the transforms' entries grow with their points, and so do rounding errors")


def draw_convolution(dtype, x_shape, outputs, kernel, seed=0):
    """Return seeded x, weight and bias."""
    rng = np.random.default_rng(seed)
    shapes = x_shape, (outputs, x_shape[1], *kernel), (outputs,)
    return [np.asarray(rng.standard_normal(shape), dtype) for shape in shapes]


def check_convolution(rung, dtype, x_shape, outputs, kernel, stride, padding):
    """Compare a rung with the naive kernel."""
    arrays = draw_convolution(dtype, x_shape, outputs, kernel)
    expected = naive.conv2d_forward(*arrays, stride=stride, padding=padding)
    actual = rung.function(*arrays, stride=stride, padding=padding)
    tolerance = _WINOGRAD if rung.name in ("winograd", "final") else TOLERANCES["conv2d"]
    assert_close(actual, expected, tolerance.of(dtype), what=f"{x_shape} {outputs} {kernel} {stride} {padding}")


@BOTH
@every_rung("conv2d")
def test_conv2d_equals_naive(rung, dtype):
    taken = [row for row in CONVOLUTIONS if rung.takes(stride=row[3], kernel=row[2])]
    assert len(taken) >= 9
    if WITHOUT_JIT:  # a hundredth of the speed
        taken = [row for row in taken if np.prod(row[0]) * row[1] < 5000]
    for row in taken:
        check_convolution(rung, dtype, *row)


@BOTH
@pytest.mark.parametrize("rung", [pytest.param(rung, id=rung.name) for rung in conv2d.RUNGS[3:6]])
@NEEDS_JIT
def test_conv2d_at_every_remainder_of_a_tile(rung, dtype):
    for outputs in range(1, 2 * register_tile.ROWS + 2):
        check_convolution(rung, dtype, (1, 2, 6, 5), outputs, (3, 3), (1, 1), (1, 1))
    for width in range(1, 2 * register_tile.tile_width(dtype) + 3):
        check_convolution(rung, dtype, (1, 1, 5, width), 2, (3, 3), (1, 1), (1, 1))


@every_rung("conv2d")
def test_conv2d_takes_what_callers_give(rung):
    x, weight, _ = draw_convolution(np.float32, (2, 3, 6, 8), 4, (3, 3))
    expected = naive.conv2d_forward(x, weight, padding=1)
    mirrored, fixed = np.ascontiguousarray(x[..., ::-1])[..., ::-1], weight.copy()
    fixed.flags.writeable = False
    np.testing.assert_allclose(rung.function(mirrored, fixed, padding=1), expected, rtol=0, atol=2e-4)


@every_rung("conv2d")
def test_conv2d_keeps_nan_to_the_patch_it_is_in(rung):
    x, weight, bias = draw_convolution(np.float32, (1, 2, 9, 22), 3, (3, 3))
    x[0, 1, 4, 9] = np.nan
    expected = naive.conv2d_forward(x, weight, bias, padding=1)
    actual = rung.function(x, weight, bias, padding=1)
    assert np.isnan(actual[np.isnan(expected)]).all()
    # a patch of Winograd's reads 6x6 pixels for each of its 4x4 outputs
    far = np.ones((9, 22), bool)
    far[0:9, 4:14] = False
    near = 1e-4 * np.nanmax(np.abs(expected))
    np.testing.assert_allclose(actual[..., far], expected[..., far], rtol=0, atol=near)


@pytest.mark.parametrize("name", ["tile", "winograd"])
def test_conv2d_rungs_refuse_what_they_cannot_do(name):
    rung = next(rung for rung in conv2d.RUNGS if rung.name == name)
    x, weight, bias = draw_convolution(np.float32, (1, 2, 9, 9), 3, (3, 3))
    with pytest.raises(ValueError, match=rf"stride is \(1, 2\); expected 1: the rung '{name}'"):
        rung.function(x, weight, bias, stride=(1, 2))
    if name == "winograd":
        with pytest.raises(ValueError, match="the kernel is 2x3; expected 3x3: the rung 'winograd'"):
            rung.function(x, weight[:, :, 1:], bias)


def test_winograd_matrices_are_those_of_lavin_and_gray():
    a, g, b = rung6_winograd.transform_matrices()
    assert a.tolist() == [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]
    np.testing.assert_allclose(24 * g, [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]])
    assert b.tolist() == [
        [4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1],
    ]  # fmt: skip


@pytest.mark.parametrize(("points", "out", "kernel"), [((0, 1, -1), 2, 3), ((0, 1, -1, 2), 3, 3), ((0, 1), 2, 2)])
def test_winograd_matrices_of_other_points_correlate(rng, points, out, kernel):
    a, g, b = rung6_winograd.transform_matrices(points, out, kernel)
    weight, pixels = rng.standard_normal(kernel), rng.standard_normal(out + kernel - 1)
    expected = np.correlate(pixels, weight, "valid")
    np.testing.assert_allclose(a @ ((g @ weight) * (b @ pixels)), expected, rtol=0, atol=1e-12)


# ---- roi_align -------------------------------------------------------------------------------------------------------


@BOTH
@every_rung("roi_align")
def test_roi_align_equals_naive(rung, dtype):
    cases = of("roi_align")
    assert len(cases) > 40
    for case in cases[:: 14 if WITHOUT_JIT else 1]:
        inputs = case.inputs(dtype)
        expected = naive.roi_align_forward(**inputs, **case.parameters)
        actual = rung.function(**inputs, **case.parameters)
        assert_close(actual, expected, TOLERANCES["roi_align"].of(dtype), case.scale, f"{case} {rung.name}")


@pytest.mark.parametrize("rung", [pytest.param(rung, id=rung.name) for rung in roi_align.RUNGS[:-1]])
def test_roi_align_refuses_too_many_samples(rung):
    x, rois = np.zeros((1, 1, 4, 4), np.float32), np.array([[0, 0, 0, 1e9, 2]], np.float32)
    with pytest.raises(ValueError, match=r"a bin has 5e\+08 samples along an axis; the ladder takes up to 100000"):
        rung.function(x, rois, 2, aligned=True)


# ---- vector instructions ---------------------------------------------------------------------------------------------


def tile_in_python(dtype, calls):
    """Return `register_tile` in NumPy, which counts its calls and refuses an index that is outside of its array."""
    width, rows = register_tile.tile_width(dtype), register_tile.ROWS

    def tile(out, out_start, out_step, pixels, pixel_start, taps, tap_count, weights, weight_start):
        out, pixels = out.reshape(-1), pixels.reshape(-1)
        assert out_start >= 0 and out_start + (rows - 1) * out_step + width <= out.size
        assert weight_start >= 0 and weight_start + tap_count * rows <= weights.size and tap_count <= taps.size
        factors = weights.reshape(-1)[weight_start : weight_start + tap_count * rows].reshape(tap_count, rows)
        places = pixel_start + taps[:tap_count, None] + np.arange(width)
        assert ((places >= 0) & (places < pixels.size)).all()
        for m, row in enumerate(factors.T @ pixels[places]):
            out[out_start + m * out_step : out_start + m * out_step + width] = row
        calls.append(1)

    return tile


@BOTH
@pytest.mark.parametrize(("module", "kernel"), [(rung5_tile, "_tile_kernel"), (rung6_winograd, "_winograd_kernel")])
@NEEDS_JIT
def test_tiles_stay_inside_their_arrays(monkeypatch, module, kernel, dtype):
    calls = []
    monkeypatch.setattr(module, "register_tile", tile_in_python(dtype, calls))
    monkeypatch.setattr(module, "native", lambda function, *_: function.py_func)
    monkeypatch.setattr(module, kernel, getattr(module, kernel).py_func)
    rung = next(rung for rung in conv2d.RUNGS if rung.function is module.conv2d_forward)
    shapes = [row for row in CONVOLUTIONS if rung.takes(stride=row[3], kernel=row[2])]
    for width in (44, 45, 46, 47, 48, 49, 50, 51, 95):
        shapes.append(((1, 2, 5, width), 3, (3, 3), (1, 1), (1, 1)))
    for row in shapes:
        check_convolution(rung, dtype, *row)
    assert len(calls) > len(shapes)


@BOTH
@NEEDS_JIT
def test_one_row_per_task_gives_the_same_bits(monkeypatch, dtype):
    arrays = draw_convolution(dtype, (2, 3, 11, 30), 9, (3, 3))
    whole = rung5_tile.conv2d_forward(*arrays, padding=1)
    monkeypatch.setattr(rung5_tile, "PACKED_BYTES", 1)
    assert rung5_tile.conv2d_forward(*arrays, padding=1).tobytes() == whole.tobytes()


@numba.njit
def _write_tile(out, start, step, pixels, from_pixel, taps, weights, from_weight):
    register_tile.register_tile(out, start, step, pixels, from_pixel, taps, taps.size, weights, from_weight)


@BOTH
@NEEDS_JIT
def test_register_tile_writes_its_tile_and_nothing_else(rng, dtype):
    rows, width = register_tile.ROWS, register_tile.tile_width(dtype)
    taps = np.array([0, 5, 2], np.int64)
    pixels = np.asarray(rng.standard_normal(3 + width + 5), dtype)
    weights = np.asarray(rng.standard_normal(4 + taps.size * rows), dtype)
    out, expected = (np.full(7 + rows * (width + 2), np.nan, dtype) for _ in range(2))
    _write_tile(out, 7, width + 2, pixels, 3, taps, weights, 4)
    tile_in_python(dtype, [])(expected, 7, width + 2, pixels, 3, taps, taps.size, weights, 4)
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-5)
    assert np.isnan(out).sum() == out.size - rows * width


@numba.njit
def _write_taps(out, start, x, from_x, places, weights, count):
    rung5_registers.add_taps(out, start, x, from_x, places, weights, count)


@BOTH
@NEEDS_JIT
@pytest.mark.parametrize("count", [0, 1, 3])
def test_add_taps_writes_its_sums_and_nothing_else(rng, dtype, count):
    width = rung5_registers.VECTORS * rung5_registers.lanes(dtype)
    x, weights = np.asarray(rng.standard_normal(2 + 9 + width), dtype), np.asarray(rng.standard_normal(3), dtype)
    places, out = np.array([9, 0, 4], np.int64), np.full(5 + width + 3, np.nan, dtype)
    _write_taps(out, 5, x, 2, places, weights, count)
    expected = sum(weights[t] * x[2 + places[t] :][:width] for t in range(count)) + np.zeros(width)
    np.testing.assert_allclose(out[5 : 5 + width], expected, rtol=0, atol=1e-5)
    assert np.isnan(out).sum() == 8


# ---- all ladders -----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="needs two processors")
@pytest.mark.parametrize("operator", ladder.OPERATORS)
@NEEDS_JIT
def test_threads_do_not_change_a_bit(operator, rng):
    if operator == "conv2d":
        arguments, how = draw_convolution(np.float32, (2, 5, 19, 60), 21, (3, 3)), {"padding": 1}
    else:
        rois = np.column_stack([rng.integers(0, 2, 9), rng.uniform(0, 5, (9, 2)), rng.uniform(5, 20, (9, 2))])
        arguments = np.asarray(rng.standard_normal((2, 70, 15, 17)), np.float32), rois.astype(np.float32), 3
        how = {"aligned": True, "sampling_ratio": 2}
    before = numba.get_num_threads()
    try:
        results = []
        for threads in (1, 2):
            numba.set_num_threads(threads)
            results.append([rung.function(*arguments, **how).tobytes() for rung in ladder.rungs(operator)])
    finally:
        numba.set_num_threads(before)
    assert results[0] == results[1]


@pytest.mark.parametrize("operator", ladder.OPERATORS)
def test_a_ladder_begins_with_the_textbook_and_ends_with_the_kernel_in_use(operator):
    rungs = ladder.rungs(operator)
    assert 5 <= len(rungs) <= 7 and len({rung.name for rung in rungs}) == len(rungs)
    assert rungs[0].name == "textbook" and rungs[0].steppable
    assert rungs[-1].name == "final" and rungs[-1].function is getattr(kernels.get("cpu"), f"{operator}_forward")


@pytest.mark.parametrize("operator", ladder.OPERATORS)
def test_every_rung_says_what_it_changes_why_and_what_was_measured(operator):
    first, *others = ladder.rungs(operator)[:-1]
    for rung in (first, *others):
        assert "Measured: " in rung.function.__doc__, rung.name
    for rung in others:
        assert "Changes: " in rung.function.__doc__ and "Why: " in rung.function.__doc__, rung.name


def test_no_such_ladder():
    with pytest.raises(ValueError, match="operator is 'relu'; expected one of 'conv2d', 'roi_align'"):
        ladder.rungs("relu")


@pytest.mark.skipif(WITHOUT_JIT, reason="is itself without the JIT")
def test_rungs_that_can_be_stepped_through_run_without_the_jit():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, "-k", "equals_naive"]
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=os.path.dirname(__file__))
    assert result.returncode == 0, result.stdout + result.stderr
    rungs = [*conv2d.RUNGS, *roi_align.RUNGS]
    steppable = sum(rung.steppable for rung in rungs)
    assert f"{2 * steppable} passed, {2 * (len(rungs) - steppable)} skipped" in result.stdout


# ---- the benchmark ---------------------------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch):
    """Make size S tiny, and the peaks of the machine known."""
    monkeypatch.setitem(bench.CONVOLUTIONS, "S", ((1, 3, 9, 11), 5))
    monkeypatch.setitem(bench.REGIONS, "S", ((1, 3, 9, 11), 4, 3))
    monkeypatch.setattr(bench.peaks, "peaks", lambda threads: {"flops": 1e11, "bytes": 1e10})


def run_benchmark(*arguments):
    from tinyseg import cli

    return cli.main(["bench", "ladder", "--sizes", "S", "--turns", "3", "--seconds", "0", *map(str, arguments)])


@NEEDS_JIT
def test_benchmark_leaves_tables_numbers_and_a_picture(small, tmp_path, capsys):
    assert run_benchmark("--out", tmp_path) == 0
    printed, page = capsys.readouterr().out, (tmp_path / "ladder.md").read_text()
    found = json.loads((tmp_path / "ladder.json").read_text())["ladders"]
    assert [climbed["operator"] for climbed in found] == list(ladder.OPERATORS)
    for climbed in found:
        assert [step["name"] for step in climbed["rungs"]] == [r.name for r in ladder.rungs(climbed["operator"])]
        for i, step in enumerate(climbed["rungs"], 1):
            assert len(step["seconds"]) == 3 and step["error"] is None
            assert f"| {i} {step['name']} " in printed and f"| {i} {step['name']} " in page
    assert {path.name for path in tmp_path.iterdir()} == {f"ladder.{end}" for end in ("json", "md", "png", "svg")}


@NEEDS_JIT
def test_benchmark_tells_of_a_wrong_rung_and_does_not_time_it(small, monkeypatch, tmp_path, capsys):
    right = conv2d.RUNGS[0]

    def wrong(*arrays, **how):
        return right.function(*arrays, **how) * np.float32(1.01)

    monkeypatch.setattr(conv2d, "RUNGS", (right, right._replace(name="wrong", function=wrong)))
    assert run_benchmark("conv2d", "--out", tmp_path) == 1
    assert "ERROR wrong result: off by" in capsys.readouterr().out
    (climbed,) = json.loads((tmp_path / "ladder.json").read_text())["ladders"]
    assert [len(step["seconds"]) for step in climbed["rungs"]] == [3, 0]


def test_slow_rungs_take_part_in_few_turns_spread_over_the_run(monkeypatch):
    took, order = {"slow": 60.0, "middle": 1.0, "fast": 1e-3}, []

    def seconds(call, often):
        order.append(call())
        return took[call()]

    monkeypatch.setattr(bench, "_seconds", seconds)
    result = bench.in_turns({name: Entrant(lambda name=name: name, None) for name in took}, Effort(20, 15.0))
    assert {name: len(times) for name, times in result.items()} == {"slow": 3, "middle": 5, "fast": 20}
    turns = "".join(name[0] for name in order[3:]).split("f")[1:]
    assert [i for i, others in enumerate(turns) if "s" in others] != [0, 1, 2]
    assert max(len(others) for others in turns) <= 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["relu"], "there is no ladder of 'relu'; expected some of conv2d, roi_align, matmul_cuda, conv2d_cuda"),
        (["--sizes", "S,XL"], "--sizes is 'S,XL'; expected some of S, M, L"),
        (["--against", "jax"], "--against has 'jax'; expected some of torch, torchvision, torch.cuda"),
        (["--turns", "2"], "argument --turns: 2 is less than 3 (see 'tinyseg bench ladder --help')"),
    ],
)
def test_benchmark_says_what_is_wrong_in_one_line(fails, arguments, message):
    assert fails("bench", "ladder", *arguments) == message
