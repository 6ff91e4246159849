"""The benchmark for GPUs: the whole command over tiny arrays, on a GPU or in the simulator; its checks, its report."""

import json
import math
import sys

import numpy as np
import pytest

from benchmarks import cases, gpu, gpu_checks, gpu_report, results
from benchmarks.gpu_checks import Check
from benchmarks.measure import Timing
from tinyseg import backend
from tinyseg.cli import main

on_gpu = pytest.mark.cuda
QUICK = ["--turns", "1", "--seconds", "0", "--backends", "cuda,naive", "--against", ""]


@pytest.fixture(autouse=True)
def _same_backend_and_code(monkeypatch):
    monkeypatch.setattr(gpu, "code", lambda: "this")
    before = backend.current_backend()
    yield
    backend.use_backend(before)


def bench(*arguments):
    return main(["bench", "gpu", *map(str, arguments)])


@pytest.fixture
def _tiny(monkeypatch):
    monkeypatch.setattr(gpu, "_cases", lambda sizes: gpu.tiny())


def the_file(folder):
    (path,) = folder.glob("*.json")
    return path


# ---- the command -----------------------------------------------------------------------------------------------------


@on_gpu
@pytest.mark.usefixtures("_tiny")
def test_everything_is_measured_checked_and_left(tmp_path, capsys, monkeypatch):
    from kernels.cuda import relu as relu_file

    monkeypatch.setattr(gpu_checks, "check", lambda name, minutes: (Check("passed", "2 passed in 0.10s", 0.1), "all"))
    monkeypatch.setattr(relu_file._relu._kernel, "_compiled", {})  # another test may have compiled it
    assert bench(*QUICK, "--out", tmp_path) == 0
    path = the_file(tmp_path)
    run = results.read(path)
    assert [row.name for row in run.rows] == [name for name in gpu.every("S") if name.startswith(("oper", "mod"))]
    for row in run.rows:
        timing = row.timings["cuda"]
        assert timing.error is None and timing.seconds[0] > 0 and timing.called[0] > 0, row.name
        assert ("cuda.atomic" in row.timings) == (row.parts[1].startswith("roi_") and row.parts[-1] == "backward")
        assert sum(run.gpu["kernels"][row.name].values()) > 0
    assert run.gpu["compiling"]["relu.relu_kernel"] > 0
    assert set(run.gpu["overlap"]) == {"bytes", "computed", "sent", "waited", "hidden"}
    assert min(run.gpu["overlap"].values()) > 0
    to_device = run.gpu["transfers"]["operators/relu/S/1x2x3x4/forward"]
    assert to_device["to_device"] == to_device["to_host"] == 4 * 2 * 3 * 4 and min(to_device["seconds"].values()) > 0
    assert run.peaks["flops"] > 0 and run.peaks["bytes"] > 0
    assert sum(file.read_text() == "all" for file in tmp_path.glob("*.txt")) == len(gpu_checks.names())
    page, out = path.with_suffix(".md").read_text(), capsys.readouterr().out
    assert "| roi_align/S/1x2x5x6-2x2x2/backward (atomic) |" in page and "| relu/S/1x2x3x4/forward |" in out
    assert "## Copies beside kernels" in page and "overlap: a batch of" in out
    assert "## Transfers" in page and "## Compiling" in page and "tests: passed, 2 passed in 0.10s" in page
    if gpu._simulated():
        assert path.name == "simulator.json" and page.startswith("# Simulated: times mean nothing")
        assert gpu_report.SIMULATED in out and "goal" not in out
    # the same command again has nothing to do
    before = path.read_bytes()
    monkeypatch.setattr(gpu.running, "measured", lambda *_: pytest.fail("measured again"))
    monkeypatch.setattr(gpu_checks, "check", lambda *_: pytest.fail("checked again"))
    assert bench(*QUICK, "--out", tmp_path) == 0
    assert json.loads(path.read_text())["rows"] == json.loads(before)["rows"]


@on_gpu
@pytest.mark.usefixtures("_tiny")
def test_a_wrong_kernel_is_an_error_and_the_rest_goes_on(tmp_path, capsys, monkeypatch):
    from kernels.cuda import array, relu

    monkeypatch.setattr(relu, "relu_forward", lambda x: array.to_device(array.to_host(x) + np.float32(9)))
    monkeypatch.setattr(relu, "relu_backward", lambda dy, y: dy[None])  # of another shape
    assert bench("--only", "relu", "nms", *QUICK, "--out", tmp_path) == 1
    suppression, forward, backward = (row.timings["cuda"] for row in results.read(the_file(tmp_path)).rows)
    assert suppression.seconds and not forward.seconds and not backward.seconds
    assert forward.error.startswith("wrong result: off by 9") and "shape (1, 1, 2, 3, 4)" in backward.error
    assert "ERROR operators/relu/S/1x2x3x4/forward, cuda: wrong result" in capsys.readouterr().out


@on_gpu
@pytest.mark.usefixtures("_tiny")
def test_what_stops_in_the_middle_goes_on(tmp_path, capsys, monkeypatch):
    measured = gpu.running.measured

    def stop(case, *rest):
        if case.direction == "backward":
            raise KeyboardInterrupt
        return measured(case, *rest)

    monkeypatch.setattr(gpu.running, "measured", stop)
    command = ["--only", "relu", "peaks", *QUICK, "--out", tmp_path]
    assert bench(*command) == 130
    assert [row.parts[-1] for row in results.read(the_file(tmp_path)).rows] == ["forward"]
    assert "all until you stopped" in capsys.readouterr().out
    monkeypatch.setattr(gpu.running, "measured", measured)
    assert bench(*command) == 0
    run = results.read(the_file(tmp_path))
    assert [row.parts[-1] for row in run.rows] == ["forward", "backward"] and run.complete


@on_gpu
@pytest.mark.usefixtures("_tiny")
def test_time_runs_out_and_what_is_left_is_named(tmp_path, capsys):
    assert bench("--only", "relu", "--minutes", "0", *QUICK, "--out", tmp_path) == 0
    run = results.read(the_file(tmp_path))
    assert not run.rows and run.gpu["left"] == [f"operators/relu/S/1x2x3x4/{way}" for way in ("forward", "backward")]
    assert "2 steps are left, as 0 minutes are over" in capsys.readouterr().out


@on_gpu
@pytest.mark.usefixtures("_tiny")
def test_a_step_that_ended_the_process_twice_is_left_out(tmp_path, monkeypatch):
    command = ["--only", "relu*forward", *QUICK, "--out", tmp_path]

    def killed(*_):
        raise SystemExit  # as if nothing after it ran

    monkeypatch.setattr(gpu.running, "measured", killed)
    for _ in range(2):
        with pytest.raises(SystemExit):
            bench(*command)
    assert bench(*command) == 1
    (row,) = results.read(the_file(tmp_path)).rows
    assert row.timings["cuda"].error == "the process ended in this step, twice"


@on_gpu
@pytest.mark.usefixtures("_tiny")
def test_results_of_other_code_are_not_mixed_in(tmp_path, fails):
    command = ["--only", "peaks", *QUICK, "--out", tmp_path]
    assert bench(*command) == 0
    path = the_file(tmp_path)
    data = json.loads(path.read_text())
    data["gpu"]["code"] = "older"
    path.write_text(json.dumps(data))
    assert "was measured with code older, where this is" in fails("bench", "gpu", *command)
    assert bench(*command, "--again") == 0
    del data["gpu"]
    path.write_text(json.dumps(data))
    assert "holds no results of a GPU: choose another --out" in fails("bench", "gpu", *command)


@on_gpu
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--only", "nonsense"], "--only: 'nonsense' chooses none of "),
        (["--sizes", "XL"], "--sizes is 'XL'; expected some of S, M, L"),
        (["--backends", "cpu"], "--backends is 'cpu'; expected cuda first"),
        (["--against", "jax"], "--against has 'jax'; expected some of"),
        (["--minutes", "-1"], "argument --minutes: -1 is out of range"),
        (["--out", __file__], "cannot make the folder"),
    ],
)
def test_mistakes_are_one_line(fails, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert words in fails("bench", "gpu", *arguments)
    assert not list(tmp_path.iterdir())


def test_without_a_gpu_it_ends_in_one_sentence(fails, monkeypatch):
    from kernels.cuda import device

    monkeypatch.setattr(device, "why_not", lambda: "no GPU today")
    for command in (["bench", "gpu"], ["bench", "--backends", "cuda", "--only", "relu"]):
        assert fails(*command).startswith("the cuda backend cannot run: no GPU today; install the driver")


def test_a_numba_cuda_that_does_not_load_is_one_sentence(fails, monkeypatch):
    monkeypatch.setitem(sys.modules, "kernels.cuda.device", None)
    assert "numba.cuda does not load with NumPy" in fails("bench", "gpu")


def test_code_is_known_by_every_byte(monkeypatch, tmp_path):
    monkeypatch.undo()
    monkeypatch.setattr(gpu, "__file__", str(tmp_path / "benchmarks" / "gpu.py"))
    for package in ("benchmarks", "kernels", "tinyseg"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "a.py").write_text("1")
    before = gpu.code()
    (tmp_path / "kernels" / "a.md").write_text("2")
    assert gpu.code() == before
    (tmp_path / "kernels" / "a.py").write_text("2")
    assert gpu.code() != before


@on_gpu
def test_an_ordinary_run_takes_the_gpu_too(tmp_path, monkeypatch):
    tiny = [case for case in gpu.tiny() if case.subject.name == "relu"]
    monkeypatch.setattr(cases, "choose", lambda patterns, sizes: tiny)
    arguments = ["--backends", "cuda,naive", "--turns", "1", "--seconds", "0", "--out", str(tmp_path)]
    assert main(["bench", *arguments]) == 0
    run = results.read(tmp_path / "results.json")
    assert [row.timings["cuda"].called is None for row in run.rows] == [False, False] and "gpu" in run.machine
    assert "| relu/S/1x2x3x4/forward |" in (tmp_path / "results.md").read_text()


# ---- checks ----------------------------------------------------------------------------------------------------------


def test_only_files_with_tests_for_a_gpu_are_read():
    files = gpu_checks.files_of_tests()
    assert "tests/test_cuda_rois.py" in files and "tests/test_demo.py" not in files
    assert set(gpu_checks.SANITIZED) <= set(files)


@pytest.mark.parametrize(
    ("code", "outcome", "words"),
    [
        ("print('3 passed in 0.01s')", "passed", "3 passed in 0.01s"),
        ("print('1 failed in 0.01s'); raise SystemExit(1)", "FAILED", "1 failed in 0.01s"),
        (
            "print('== ERROR SUMMARY: 2 errors'); raise SystemExit(86)",
            "FAILED",
            "ended with 86: ERROR SUMMARY: 2",
        ),
        ("import time; print('1 of 2', flush=True); time.sleep(60)", "FAILED", "not finished in 0.05 minutes: 1 of 2"),
    ],
)
def test_outcomes_of_checks(code, outcome, words):
    check, output = gpu_checks._outcome([sys.executable, "-c", code], 0.05, 1)
    assert check.outcome == outcome and check.words.startswith(words) and check.words.split(": ")[-1] in output


def test_checks_that_cannot_run_say_why(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(gpu_checks, "_USUAL_PLACE", tmp_path / "none")
    assert "compute-sanitizer" in gpu_checks.check("sanitizer/memcheck", 1)[0].words
    monkeypatch.setattr(gpu_checks, "ROOT", tmp_path)
    assert gpu_checks.check("tests", 1)[0][:2] == (
        "not run",
        "the tests come with a checkout of the project, which this is not",
    )
    monkeypatch.setattr(gpu_checks, "find_spec", lambda name: None)
    assert gpu_checks.check("tests", 1)[0] == Check("not run", "pytest is not installed")


# ---- the report ------------------------------------------------------------------------------------------------------

ALIGN = "operators/roi_align/L/1x256x50x68-512x7x7/forward"
UNET = "models/unet/M/10x1x224x224/inference"


def run_of(name="NVIDIA H100 80GB HBM3", simulated=False, **seconds):
    """Return a run with a row of RoIAlign and one of U-Net."""
    ours, theirs = seconds.get("ours", [1e-3] * 3), seconds.get("theirs", [1.6e-3] * 3)
    rows = [
        results.Row(ALIGN, 10**9, 10**6, "textbook kernels", {
            "cuda": Timing(0.5, ours, None, [3e-3] * 3, True),
            "torchvision.cuda": Timing(0.1, theirs, None, [2e-3] * 3, False),
        }),
        results.Row(UNET, 10**9, 0, "torch", {
            "cuda": Timing(0.5, [1e-3] * 3, None, [3e-3] * 3, False),
            "torch.cuda": Timing(0.1, [2e-3] * 3, None, [2e-3] * 3, False),
            "cpu": Timing(0.1, [4e-1] * 3),
        }),
    ]  # fmt: skip
    about = {name: {} for name in ("checks", "overlap", "transfers", "kernels", "compiling", "in_cache", "begun")}
    about |= {"simulated": simulated, "code": "abc", "left": []}
    machine = {"gpu": name, "processor": "some", "threads": 2}
    return results.Run("tinyseg bench gpu", machine, {"flops": 1e13, "bytes": 1e12}, rows, gpu=about)


def test_verdicts_judge_operators_by_the_gpu_and_networks_by_the_call():
    run = run_of()
    lines = gpu_report.verdicts(run)
    assert "RoIAlign forward, 1x256x50x68-512x7x7: 1.60 [1.60, 1.60] times, goal 1.5: met" in lines
    assert "U-Net of the article, inference, 10x1x224x224: 0.67 [0.67, 0.67] times, goal 1: MISSED" in lines
    page = gpu_report.markdown(run)
    assert page.startswith("# NVIDIA H100 80GB HBM3\n")
    # 1e9 operations and 1e6 bytes in a millisecond; at best 1e13 and 1e12 per second
    assert "1.00 [1.00, 1.00] | 1000 | 1 | 10% | 3.00 | 1.60 | 2.00 | 1.60 [1.60, 1.60] | 0.67 [0.67, 0.67]" in page
    assert "goal 1.5: met |" in page and "| waits for the GPU | textbook kernels |" in page
    assert "| 400 |" in page.splitlines()[-1] or "| 400 | 400 |" in page


def test_what_was_not_measured_is_said_and_has_no_verdict():
    run = run_of(theirs=[])
    run.rows[0].timings["torchvision.cuda"] = Timing(math.nan, [], "RuntimeError: no kernel image")
    run.absent = {"onnxruntime": "onnxruntime is not installed"}
    run.gpu["overlap"] = {"bytes": 2e6, "computed": 4e-3, "sent": 2e-3, "waited": 6e-3, "hidden": 4.5e-3}
    line = "takes 2.00 ms to send and 4.00 ms to compute, 6.00 ms when it is waited for and 4.50 ms beside the kernels"
    assert f"overlap: a batch of 2.00 MB {line}: 75% of sending is hidden" in gpu_report.short(run)
    assert line in gpu_report.markdown(run)
    run.gpu["overlap"] = {"error": "the bus is out"}
    assert "overlap: ERROR the bus is out" in gpu_report.short(run)
    run.gpu["checks"] = {"sanitizer/memcheck": ["not run", "compute-sanitizer is not installed", 0.0]}
    run.gpu["left"] = ["operators/nms/L/2000/forward"]
    text = gpu_report.markdown(run)
    assert "RoIAlign forward, 1x256x50x68-512x7x7: - times, goal 1.5: NOT MEASURED" in text
    assert "NMS: goal 1: NOT MEASURED" in text and "met" not in text.replace("met |", "")
    assert "convolution, ResNet-50-FPN, forward: 0 of 39 layers measured, goal 0.7: NOT MEASURED" in text
    assert "NOT MEASURED onnxruntime: onnxruntime is not installed" in text and "RuntimeError: no kernel image" in text
    assert "sanitizer/memcheck: not run, compute-sanitizer is not installed" in text
    assert "left for another run, 1 steps" in text


def test_the_layers_of_a_network_count_together():
    run = run_of()
    wanted = [case.name for case in cases.every() if gpu_report.goal_of(case.name) == gpu_report.GOALS[-3]]
    for name in wanted:
        seconds = {"cuda": Timing(0.1, [1e-3]), "torch.cuda": Timing(0.1, [0.75e-3])}
        run.rows.append(results.Row(name, 1, 1, "textbook kernels", seconds))
    total = sum(layer["count"] for layer in gpu_report_layers() if layer["x"][0] == 1)
    line = next(line for line in gpu_report.verdicts(run) if line.startswith("convolution, ResNet-50-FPN, forward"))
    assert f"0.75 times, all {len(wanted)} layers together ({total} by {0.75 * total:.3g} ms), goal 0.7: met" in line
    run.rows.pop()
    line = next(line for line in gpu_report.verdicts(run) if line.startswith("convolution, ResNet-50-FPN, forward"))
    assert f"{len(wanted) - 1} of {len(wanted)} layers measured, goal 0.7: NOT MEASURED" in line


def gpu_report_layers():
    from benchmarks import layers

    return [layer for layer in layers.stored()["maskrcnn"] if layer["kind"] == "conv2d"]


def test_other_gpus_and_the_simulator_have_no_verdict():
    assert "goal 1.5 is for an H100 or H200" in gpu_report.line(run_of("NVIDIA T4").rows[0], run_of("NVIDIA T4"))
    simulated = run_of("simulator", simulated=True)
    text = gpu_report.markdown(simulated) + gpu_report.short(simulated)
    assert "goal 1" not in text and text.startswith("# Simulated: times mean nothing")
    assert gpu_report.SIMULATED in text


def test_results_of_a_gpu_survive_the_file(tmp_path):
    run = run_of()
    results.write(tmp_path / "a.json", run)
    back = results.read(tmp_path / "a.json")
    assert back == run
    assert "called" not in json.loads((tmp_path / "a.json").read_text())["rows"][1]["timings"]["cpu"]
