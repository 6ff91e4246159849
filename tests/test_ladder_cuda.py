"""Every rung of the ladders for GPUs: right over odd shapes, clean under the tracer, and as its docstring counts it."""

import doctest
import json

import numpy as np
import pytest
from cuda_traced import traced
from numba import cuda as numba_cuda
from numba import types
from tolerances import TOLERANCES, assert_close

import kernels
from benchmarks import cuda_code
from benchmarks import ladder as bench
from kernels import ladder
from kernels.cuda import gemm
from kernels.cuda.device import SIMULATED
from kernels.ladder import conv2d_cuda, matmul_cuda
from tinyseg import cli

naive, cuda = kernels.get("naive"), kernels.get("cuda")
BOTH = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
FULL_SIZE = pytest.mark.skipif(SIMULATED, reason="tiles are small in the simulator")


def every_rung(operator):
    """Return the decorator that runs a test for each rung."""
    return pytest.mark.parametrize("rung", [pytest.param(rung, id=rung.name) for rung in ladder.rungs(operator)])


def draw(dtype, *shapes):
    """Return seeded arrays."""
    rng = np.random.default_rng(0)
    return [np.asarray(rng.standard_normal(shape), dtype) for shape in shapes]


# ---- results ---------------------------------------------------------------------------------------------------------

#: M, K, N: within a tile, over its edge, rows that are whole vectors and rows that are not, nothing at all.
PRODUCTS = [
    (1, 1, 1), (5, 7, 3), (16, 8, 16), (17, 12, 20), (33, 20, 4), (4, 17, 18), (18, 6, 2), (3, 0, 4), (0, 3, 4),
    (3, 4, 0),
]  # fmt: skip
#: Shape of x, output channels, kernel, stride, padding.
CONVOLUTIONS = [
    ((1, 1, 1, 1), 1, (3, 3), (1, 1), (1, 1)),
    ((2, 3, 5, 7), 4, (3, 3), (1, 1), (1, 1)),
    ((1, 2, 4, 4), 3, (3, 3), (1, 1), (0, 0)),
    ((1, 9, 3, 5), 17, (2, 3), (1, 1), (1, 0)),
    ((1, 9, 5, 3), 20, (2, 2), (1, 1), (0, 1)),
    ((2, 3, 5, 6), 2, (3, 3), (2, 2), (1, 1)),
    ((1, 2, 7, 9), 5, (2, 5), (3, 2), (0, 4)),
    ((1, 1, 3, 2), 2, (3, 3), (1, 1), (4, 3)),
    ((1, 2, 3, 3), 2, (1, 1), (1, 1), (0, 0)),
    ((1, 0, 5, 4), 2, (3, 3), (1, 1), (1, 1)),
    ((0, 2, 4, 4), 3, (3, 3), (1, 1), (1, 1)),
]


def check_product(rung, dtype, M, K, N):
    """Compare a rung with the naive linear layer, whose weights are b transposed."""
    a, b = draw(dtype, (M, K), (K, N))
    expected = naive.linear_forward(a, np.ascontiguousarray(b.T))
    assert_close(cuda.to_host(rung.function(a, b)), expected, TOLERANCES["linear"].of(dtype), what=f"{M} {K} {N}")


def check_convolution(rung, dtype, x_shape, outputs, kernel, stride, padding, with_bias=True):
    """Compare a rung with the naive convolution."""
    x, weight, bias = draw(dtype, x_shape, (outputs, x_shape[1], *kernel), (outputs,))
    arguments, how = (x, weight, bias if with_bias else None), {"stride": stride, "padding": padding}
    actual, expected = cuda.to_host(rung.function(*arguments, **how)), naive.conv2d_forward(*arguments, **how)
    assert_close(actual, expected, TOLERANCES["conv2d"].of(dtype), what=f"{x_shape} {outputs} {kernel} {how}")


@pytest.mark.cuda
@BOTH
@every_rung("matmul_cuda")
def test_matmul_equals_naive(rung, dtype):
    for row in PRODUCTS:
        check_product(rung, dtype, *row)


@pytest.mark.cuda
@BOTH
@every_rung("conv2d_cuda")
def test_conv2d_equals_naive(rung, dtype):
    for row in CONVOLUTIONS:
        check_convolution(rung, dtype, *row)
    check_convolution(rung, dtype, *CONVOLUTIONS[1], with_bias=False)


@pytest.mark.cuda
@every_rung("matmul_cuda")
def test_matmul_takes_device_arrays_and_views_of_the_host(rung):
    a, b = draw(np.float32, (8, 5), (4, 8))
    result = rung.function(cuda.to_device(np.ascontiguousarray(a.T)), b[:, ::-1].T)
    assert isinstance(result, cuda.DeviceArray)
    np.testing.assert_allclose(cuda.to_host(result), a.T @ b[:, ::-1].T, rtol=0, atol=1e-5)


@pytest.mark.cuda
@every_rung("matmul_cuda")
def test_matmul_says_what_is_wrong(rung):
    a, b = draw(np.float32, (2, 3), (4, 5))
    with pytest.raises(ValueError, match=r"b has shape \(4, 5\); expected 3 rows, as many as a has columns"):
        rung.function(a, b)
    with pytest.raises(TypeError, match="b has dtype float64; expected float32, as the other arrays have"):
        rung.function(a, b.astype(np.float64))


@pytest.mark.cuda
@every_rung("conv2d_cuda")
def test_conv2d_says_what_is_wrong(rung):
    x, weight = draw(np.float32, (1, 2, 5, 5), (3, 1, 3, 3))
    with pytest.raises(ValueError, match=r"weight has shape \(3, 1, 3, 3\), for 1 input channels .*; x has 2"):
        rung.function(x, weight)


# ---- traces: tiles of full size, without a GPU -----------------------------------------------------------------------

#: What docstrings count: M, K, N; and as in CONVOLUTIONS.
COUNTED_PRODUCT = 128, 16, 128
COUNTED_CONVOLUTION = (1, 8, 4, 16), 64, (3, 3), (1, 1), (1, 1)


@FULL_SIZE
@BOTH
@every_rung("matmul_cuda")
def test_matmul_is_clean(rung, dtype):
    with traced() as traces:
        check_product(rung, dtype, 20, 12, 36)
    assert traces and not [problem for _, trace in traces for problem in trace.mistakes]


@FULL_SIZE
@BOTH
@every_rung("conv2d_cuda")
def test_conv2d_is_clean(rung, dtype):
    with traced() as traces:
        check_convolution(rung, dtype, (2, 2, 5, 4), 8, (2, 3), (2, 1), (1, 0))
    assert traces and not [problem for _, trace in traces for problem in trace.mistakes]


@pytest.fixture(scope="module")
def counted():
    """Return a function that gives the traces of a rung on the arrays that docstrings count, each made once."""
    known: dict = {}

    def count(operator, rung):
        if (operator, rung.name) not in known:
            with traced() as traces, pytest.MonkeyPatch.context() as patch:
                if operator == "matmul_cuda":  # the final kernel as it runs with large matrices
                    patch.setattr(gemm, "cut", lambda *sizes: gemm.Cut("large", 1, 1, 1))
                    check_product(rung, np.float32, *COUNTED_PRODUCT)
                else:
                    check_convolution(rung, np.float32, *COUNTED_CONVOLUTION)
            known[operator, rung.name] = Count(operator, traces)
        return known[operator, rung.name]

    return count


class Count:
    """What the traces of a launch say in numbers."""

    def __init__(self, operator, traces):
        if operator == "matmul_cuda":
            operations = 2 * np.prod(COUNTED_PRODUCT)
        else:
            (_, channels, rows, columns), outputs, kernel, *_ = COUNTED_CONVOLUTION
            operations = 2 * channels * rows * columns * outputs * np.prod(kernel)
        *before, (kernel, trace) = traces
        _, codes = cuda_code.stored()
        self.trace, self.before = trace, [_read("global", trace) for _, trace in before]
        self.requests, self.sectors = _read("global", trace)
        self.shared = _read("shared", trace)
        self.bytes = 32 * self.sectors / operations
        self.code = codes[f"{kernel.name} sm_90 float32"] if kernel.name.startswith("rung") else None

    def __str__(self):
        text = (
            f"Counted: {self.requests} requests read {self.sectors} sectors of global memory, {self.bytes:.3g} bytes "
            "per operation"
        )
        if self.shared[0]:
            text += f"; {self.shared[0]} requests read shared memory in {self.shared[1]} passes"
        if self.code:
            text += f"; {self.code.registers} registers"
        for requests, sectors in self.before:
            text += f". Before that, {requests} requests read {sectors} sectors"
        return text + "."


def _read(space, trace):
    """Return the requests that read a memory, and the pieces that they touch."""
    rows = [row for row in trace.rows if (row.space, row.kind) == (space, "read")]
    return sum(row.instructions for row in rows), sum(row.pieces for row in rows)


DOCUMENTED = [
    pytest.param(operator, rung, id=f"{operator}-{rung.name}")
    for operator in ladder.CUDA_OPERATORS
    for rung in ladder.rungs(operator)
    if rung.function is not cuda.conv2d_forward  # whose docstring is that of the backend's function
]


@FULL_SIZE
@pytest.mark.slow
@pytest.mark.parametrize(("operator", "rung"), DOCUMENTED)
def test_docstrings_state_what_is_counted(operator, rung, counted):
    assert str(counted(operator, rung)) in " ".join(rung.function.__doc__.split())


@FULL_SIZE
@pytest.mark.slow
@pytest.mark.parametrize("operator", ladder.CUDA_OPERATORS)
def test_global_memory_is_asked_for_less_from_rung_to_rung(operator, counted):
    rungs = {rung.name: counted(operator, rung) for rung in ladder.rungs(operator)}
    by_sectors = ["global", "coalesced", "shared", "registers", *(["final"] if operator == "matmul_cuda" else [])]
    sectors = [rungs[name].sectors for name in by_sectors]
    assert sectors == sorted(set(sectors), reverse=True)
    registers, vectors = rungs["registers"], rungs["vectors"]
    assert vectors.sectors == registers.sectors and vectors.requests < registers.requests
    assert vectors.shared[0] < registers.shared[0] < rungs["shared"].shared[0]


#: What the tracer calls slow: a column for each warp; and what is written wide, whose elements it sees one by one.
SLOW = {
    "global": {("uncoalesced", "a"), ("uncoalesced", "weight"), ("uncoalesced", "y")},
    "vectors": {("bank conflict", "left"), ("bank conflict", "right"), ("uncoalesced", "y")},
    "final": {("uncoalesced", "y")},
}


@FULL_SIZE
@pytest.mark.slow
@pytest.mark.parametrize("operator", ladder.CUDA_OPERATORS)
def test_the_tracer_finds_slow_what_the_ladder_says_is_slow(operator, counted):
    for rung in ladder.rungs(operator):
        trace = counted(operator, rung).trace
        assert trace.mistakes == []
        assert {(problem.kind, problem.array) for problem in trace.problems} <= SLOW.get(rung.name, set()), rung.name
        if rung.name == "vectors":
            assert all(problem.source == "a[index * count + i] = values[place + i]" for problem in trace.problems)
    first = counted(operator, ladder.rungs(operator)[0]).trace.problems
    assert [problem.kind for problem in first] == ["uncoalesced", "uncoalesced"]


@FULL_SIZE
def test_the_example_draws_what_a_warp_asks_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert doctest.testmod(matmul_cuda) == (0, 7)
    assert (tmp_path / "rung1.png").stat().st_size > 1000


# ---- what the compilers make of them ---------------------------------------------------------------------------------


def _why_not_compiled():
    """Return why kernels cannot be compiled here, or None if they can."""
    try:
        cuda_code.compilers()
    except RuntimeError as error:
        return str(error)
    return None


@pytest.mark.skipif(_why_not_compiled() is not None, reason="the compilers of CUDA are not installed")
@pytest.mark.parametrize(("T", "wide"), [(types.float32, "v4.f32"), (types.float64, "v2.f64")], ids=str)
@pytest.mark.parametrize(
    ("kernel", "instructions"),
    [
        (matmul_cuda.rung5_vectors.matmul_kernel, ("ld.global", "st.shared", "ld.shared", "st.global")),
        (conv2d_cuda.rung5_vectors.conv2d_kernel, ("ld.global", "st.shared", "ld.shared")),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_vectors_are_compiled_to_wide_instructions(kernel, instructions, T, wide):
    code, _ = numba_cuda.compile_ptx(kernel.source(T), kernel.signature(T), cc=(9, 0))
    for instruction in instructions:
        assert f"{instruction}.{wide}" in code, instruction


# ---- both ladders ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operator", ladder.CUDA_OPERATORS)
def test_a_ladder_begins_in_global_memory_and_ends_with_the_kernel_in_use(operator):
    rungs = ladder.rungs(operator)
    assert [rung.name for rung in rungs] == ["global", "coalesced", "shared", "registers", "vectors", "final"]
    for rung in rungs[1:5]:
        assert "Changes: " in rung.function.__doc__ and "Why: " in rung.function.__doc__, rung.name
    assert conv2d_cuda.RUNGS[-1].function is cuda.conv2d_forward


@pytest.mark.parametrize("operator", ladder.CUDA_OPERATORS)
def test_the_stored_table_holds_every_rung_without_spills(operator):
    _, codes = cuda_code.stored()
    for number, rung in enumerate(ladder.rungs(operator)[:-1], 1):
        name = f"rung{number}_{rung.name}.{operator.removesuffix('_cuda')}_kernel"
        of_rung = {key: code for key, code in codes.items() if key.startswith(f"{name} ")}
        assert len(of_rung) == len(cuda_code.TARGETS) * len(cuda_code.TYPES), name
        assert all(code.spills == code.local == 0 for code in of_rung.values())


# ---- the benchmark ---------------------------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch):
    """Make size S tiny, and the peaks of the GPU known."""
    monkeypatch.setitem(bench.MATRICES, "S", 8)
    monkeypatch.setitem(bench.CONVOLUTIONS, "S", ((1, 2, 4, 5), 3))
    monkeypatch.setattr(bench, "_peaks", lambda place: {"cuda": {"flops": 1e13, "bytes": 1e12}}[place])


def run_benchmark(operators, tmp_path):
    """Run the benchmark; return its exit code and what it left as JSON."""
    command = ["bench", "ladder", *operators, "--sizes", "S", "--turns", "3", "--seconds", "0", "--out", str(tmp_path)]
    code = cli.main(command)
    return code, json.loads((tmp_path / "ladder.json").read_text())


@pytest.mark.cuda
def test_benchmark_climbs_on_the_gpu(small, tmp_path, capsys):
    code, found = run_benchmark(ladder.CUDA_OPERATORS, tmp_path)
    assert code == 0 and found["machine"]["gpu"]
    printed, page = capsys.readouterr().out, (tmp_path / "ladder.md").read_text()
    assert [climbed["operator"] for climbed in found["ladders"]] == list(ladder.CUDA_OPERATORS)
    for climbed in found["ladders"]:
        assert climbed["peaks"] == {"flops": 1e13, "bytes": 1e12}
        assert [step["name"] for step in climbed["rungs"]] == [r.name for r in ladder.rungs(climbed["operator"])]
        for number, step in enumerate(climbed["rungs"], 1):
            assert len(step["seconds"]) == 3 and min(step["seconds"]) > 0 and step["error"] is None
            assert f"| {number} {step['name']} " in printed and f"| {number} {step['name']} " in page


@pytest.mark.cuda
def test_benchmark_tells_of_a_wrong_rung_and_does_not_time_it(small, monkeypatch, tmp_path, capsys):
    right = matmul_cuda.RUNGS[0]
    wrong = right._replace(name="wrong", function=lambda a, b: right.function(b, a))
    monkeypatch.setattr(matmul_cuda, "RUNGS", (right, wrong))
    code, found = run_benchmark(["matmul_cuda"], tmp_path)
    assert code == 1 and "ERROR wrong result: off by" in capsys.readouterr().out
    assert [len(step["seconds"]) for step in found["ladders"][0]["rungs"]] == [3, 0]


@pytest.mark.parametrize("operator", ladder.CUDA_OPERATORS)
def test_benchmark_without_a_gpu_says_so_in_one_line(fails, monkeypatch, operator):
    monkeypatch.setattr(bench, "why_not", lambda: "no NVIDIA GPU with its driver was found")
    message = f"the ladder of {operator!r} needs a GPU to be timed on: no NVIDIA GPU with its driver was found"
    assert fails("bench", "ladder", "conv2d", operator) == message
