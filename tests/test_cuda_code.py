"""The table of what compilers make of the CUDA kernels: how it is read, worked out and compared; and the stored one."""

import importlib.metadata
import importlib.util

import pytest

from benchmarks import cuda_code
from benchmarks.cuda_code import PROCESSORS, Code
from kernels.cuda.device import SIMULATED

TURING, HOPPER = PROCESSORS[7, 5], PROCESSORS[9, 0]

REPORT = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_ZN4main' for 'sm_75'
ptxas info    : Function properties for _ZN4main
    16 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 46 registers, used 1 barriers, 6144 bytes smem, 504 bytes cmem[0], 8 bytes cmem[2]
"""


@pytest.mark.parametrize(
    ("processor", "threads", "registers", "shared", "expected"),
    [
        (TURING, 256, 64, 0, 1.0),  # 64 * 32 registers a warp: 8 warps in each of 4 quarters, all 32
        (TURING, 256, 65, 0, 0.75),  # 2304 registers a warp: 7 in each quarter, 28 in all: 3 blocks of 8
        (TURING, 32, 32, 0, 0.5),  # 16 blocks of one warp
        (TURING, 256, 32, 17 << 10, 0.75),  # 3 blocks of 17 KiB in 64
        (HOPPER, 256, 32, 0, 1.0),
        (HOPPER, 256, 40, 0, 0.75),  # 1280 registers a warp: 12 in each quarter, 48 of 64 in all
        (HOPPER, 1024, 64, 0, 0.5),
        (HOPPER, 128, 32, 27 << 10, 0.5),  # 28 KiB with what each block takes beside its own: 8 blocks in 228
        (HOPPER, 1024, 255, 0, 0.0),  # 8 warps at most
        (HOPPER, 33, 16, 0, 1.0),  # two warps each, the second for one thread
    ],
)
def test_occupancy_by_hand(processor, threads, registers, shared, expected):
    assert cuda_code.occupancy(processor, threads, registers, shared) == expected


def test_the_assembler_s_report_is_read():
    assert cuda_code.read_report(REPORT) == (46, 6144, 16, 20)
    called = REPORT.replace("16 bytes stack", "0 bytes stack").replace("46", "20").replace("6144 bytes smem, ", "")
    assert cuda_code.read_report(called) == (20, 0, 0, 20)
    assert cuda_code.read_report(REPORT + called) == (46, 6144, 16, 40)
    with pytest.raises(RuntimeError, match="ptxas reports something else than registers and stack: ptxas fatal"):
        cuda_code.read_report("ptxas fatal   : out of\nmemory")


def test_what_has_changed_is_a_line_each():
    old = {name: Code(256, 40, 1024, 0, 0, 0.75) for name in ("a", "b", "c")}
    assert cuda_code.drift(old, old, 0) == []
    new = {"b": old["b"]._replace(registers=48, threads=128), "c": old["c"]._replace(local=8), "d": old["a"]}
    lines = ["d: is not in the table", "a: is in the table only", "b: threads 256 -> 128"]
    assert cuda_code.drift(old, new, 8) == [*lines, "c: local 0 -> 8"]
    assert cuda_code.drift(old, new, 7) == [*lines, "b: registers 40 -> 48", "c: local 0 -> 8"]


def test_what_no_kernel_may_do():
    good = Code(256, 40, 1024, 0, 0, 0.75)
    codes = {
        "relu.relu_kernel sm_90 float32": good._replace(local=16),  # only slow
        "conv2d.some_kernel sm_90 float32": good._replace(local=16),
        "roi_align.some_kernel sm_90 float32": good._replace(spills=4),
        "nms.some_kernel sm_90 float32": good._replace(occupancy=0.0),
    }
    assert cuda_code.faults(codes) == [
        "conv2d.some_kernel sm_90 float32: keeps 16 bytes in local memory",
        "roi_align.some_kernel sm_90 float32: spills 4 bytes",
        "nms.some_kernel sm_90 float32: a block of 256 threads does not fit into a multiprocessor",
    ]


def test_the_stored_table_holds_every_kernel_and_no_fault():
    versions, codes = cuda_code.stored()
    assert {"python", "numba", "numba-cuda", "ptxas"} <= versions.keys()
    targets = [f"sm_{major}{minor} {name}" for major, minor in cuda_code.TARGETS for name in cuda_code.TYPES]
    # after a new kernel: python -m benchmarks.cuda_code
    kernels = cuda_code.all_kernels()
    assert list(codes) == [f"{name} {target}" for name in kernels for target in targets]
    if not SIMULATED:  # where blocks are small
        assert [code.threads for code in codes.values()] == [k.threads for k in kernels.values() for _ in targets]
    assert cuda_code.faults(codes) == []
    text = cuda_code.PATH.with_suffix(".md").read_text(encoding="utf-8")
    assert text == cuda_code.markdown(versions, codes)
    for key, code in codes.items():
        target = tuple(int(digit) for digit in key.split()[1].removeprefix("sm_"))
        assert code.occupancy == round(cuda_code.occupancy(PROCESSORS[target], *code[:3]), 4)


def test_what_is_missing_is_said_in_one_line(monkeypatch, capsys):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr("kernels.cuda.device.SIMULATED", False)
    with monkeypatch.context() as without:
        without.setattr(importlib.metadata, "version", lambda name: missing(name) if "cuda" in name else "1.0")
        assert cuda_code.main(["--check"]) == 2
    with monkeypatch.context() as without:
        without.setattr(importlib.metadata, "version", lambda name: "1.0")
        without.setattr(importlib.metadata, "files", missing)
        cuda_code.assembler.cache_clear()
        assert cuda_code.main([]) == 2
    cuda_code.assembler.cache_clear()
    monkeypatch.setattr("kernels.cuda.device.SIMULATED", True)
    assert cuda_code.main([]) == 2
    start, hint = "benchmarks.cuda_code: error: ", "is not installed; install it by: pip install 'tinyseg[cuda-check]'"
    assert capsys.readouterr().err.splitlines() == [
        f"{start}numba-cuda {hint}",
        f"{start}nvidia-cuda-nvcc, which holds the assembler ptxas, {hint}",
        f"{start}the simulator compiles nothing: unset the environment variable NUMBA_ENABLE_CUDASIM",
    ]


def test_a_table_that_is_missing_is_said_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(cuda_code, "PATH", tmp_path / "cuda_code.json")
    with pytest.raises(RuntimeError, match="cuda_code.json is missing; write it by: python -m benchmarks.cuda_code"):
        cuda_code.stored()


def test_written_and_read_again(monkeypatch, tmp_path):
    monkeypatch.setattr(cuda_code, "PATH", tmp_path / "cuda_code.json")
    codes = {
        f"a.a_kernel sm_{target} {name}": Code(256, 40, shared, 0, 0, 0.75)
        for target in (75, 90)
        for name, shared in (("float32", 0), ("float64", 1024))
    }
    cuda_code.write({"python": "3.11"}, codes)
    assert cuda_code.stored() == ({"python": "3.11"}, codes)
    text = cuda_code.PATH.with_suffix(".md").read_text(encoding="utf-8")
    assert "| a.a_kernel | 256 | float64 | 40 | 1024 |  | 75% | 40 | 1024 |  | 75% |" in text.splitlines()
