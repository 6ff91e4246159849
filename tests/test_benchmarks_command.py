"""The command ``tinyseg bench`` from end to end: what it writes, when it is stopped, and that mistakes are one line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import kernels
from benchmarks import entrants, memory, peaks, results, running, scaling
from benchmarks.box_operators import nms
from benchmarks.operators import relu
from tinyseg import backend
from tinyseg.cli import main

ROOT = Path(__file__).parents[1]
QUICK = ["--sizes", "S", "--turns", "2", "--seconds", "0", "--no-memory"]


@pytest.fixture(autouse=True)
def quick_peaks_and_same_backend(monkeypatch):
    monkeypatch.setattr(peaks, "peaks", lambda threads: {"flops": 1e11, "bytes": 1e10})
    before = backend.current_backend()
    yield
    backend.use_backend(before)


def bench(*arguments):
    return main(["bench", *map(str, arguments)])


def test_a_run_leaves_tables_and_pictures(tmp_path, capsys):
    assert bench("--only", "relu", "box_iou", *QUICK, "--out", tmp_path / "speed") == 0
    run = results.read(tmp_path / "speed" / "results.json")
    assert [row.parts[1] for row in run.rows] == ["relu", "relu", "box_iou"] and run.complete
    for row in run.rows:
        assert {name: len(timing.seconds) for name, timing in row.timings.items()} == {"cpu": 2, "naive": 2}
    assert "| box_iou/S/100x50/forward |" in (tmp_path / "speed" / "results.md").read_text()
    with Image.open(tmp_path / "speed" / "ratios_operators.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 0
    out = capsys.readouterr().out
    assert "operators/relu/S/2x8x32x32/forward  cpu " in out and "3 rows saved in" in out
    names = {path.name for path in (tmp_path / "speed").iterdir()}
    assert names == {"results.json", "results.md", "ratios_operators.png", "ratios_operators.svg"}


def test_a_network_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "peak_of", lambda case, name, threads: {"cpu": 5_000_000, "naive": None}[name])
    assert bench("--only", "models", *QUICK[:-1], "--out", tmp_path) == 0
    rows = results.read(tmp_path / "results.json").rows
    assert [row.parts[-1] for row in rows] == ["inference", "training_step"]
    assert all(row.checked == "naive" and row.memory == {"cpu": 5_000_000} for row in rows)
    assert "| cpu MB |" in (tmp_path / "results.md").read_text()


def test_a_wrong_kernel_is_an_error_and_not_timed(tmp_path, capsys, monkeypatch):
    cpu, calls = kernels.get("cpu"), []
    right = cpu.relu_forward

    def wrong(x):
        calls.append(1)
        y = right(x)
        y.flat[-1] += 0.5
        return y

    monkeypatch.setattr(cpu, "relu_forward", wrong, raising=False)
    assert bench("--only", "relu*forward", *QUICK, "--out", tmp_path) == 1
    assert len(calls) == 1
    (row,) = results.read(tmp_path / "results.json").rows
    assert row.timings["cpu"].error.startswith("wrong result: off by 0.5") and not row.timings["cpu"].seconds
    assert row.timings["naive"].seconds
    assert "ERROR operators/relu/S/2x8x32x32/forward, cpu: wrong result" in capsys.readouterr().out
    assert "| ERROR |" in (tmp_path / "results.md").read_text()


def test_a_run_that_is_stopped_leaves_what_it_has(tmp_path, capsys, monkeypatch):
    measured = running.measured

    def stop(case, *rest):
        if case.direction == "backward":
            raise KeyboardInterrupt
        return measured(case, *rest)

    monkeypatch.setattr(running, "measured", stop)
    assert bench("--only", "relu", *QUICK, "--out", tmp_path) == 130
    run = results.read(tmp_path / "results.json")
    assert len(run.rows) == 1 and not run.complete
    assert "1 rows saved in" in (out := capsys.readouterr().out) and "until you stopped" in out


def test_libraries_that_are_missing_are_named(tmp_path, capsys, monkeypatch):
    found = entrants.importlib.util.find_spec
    monkeypatch.setattr(entrants.importlib.util, "find_spec", lambda name: None if name == "torch" else found(name))
    assert bench("--only", "relu*forward", *QUICK, "--against", "torch,torchvision", "--out", tmp_path) == 0
    assert "not measured: torch, because torch is not installed" in capsys.readouterr().out
    assert set(results.read(tmp_path / "results.json").absent) == {"torch", "torchvision"}


@pytest.mark.torch
def test_against_pytorch(tmp_path):
    arguments = ["--only", "relu*forward", "unet_small*inference", *QUICK, "--against", "torch", "--out", tmp_path]
    assert bench(*arguments) == 0
    for row in results.read(tmp_path / "results.json").rows:
        assert row.spread("torch") is not None
    assert row.checked == "torch"


def test_the_list_names_the_cases(capsys):
    assert bench("--list", "--sizes", "S,L", "--only", "nms") == 0
    assert capsys.readouterr().out.split() == [f"operators/nms/{n}/forward" for n in ("S/200", "L/2000", "L/12000")]


def test_comparing_two_files_measures_nothing(tmp_path, capsys):
    assert bench("--only", "relu*forward", *QUICK, "--out", tmp_path) == 0
    file = tmp_path / "results.json"
    slow = json.loads(file.read_text())
    timing = slow["rows"][0]["timings"]["cpu"]
    timing["seconds"] = [3 * max(timing["seconds"])] * 2
    (tmp_path / "slow.json").write_text(json.dumps(slow))
    capsys.readouterr()
    assert bench("--compare", file, tmp_path / "slow.json") == 0
    out = capsys.readouterr().out.splitlines()
    assert "slower  operators/relu/S/2x8x32x32/forward, cpu" in out[0] and "0 faster and 1 slower" in out[-1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--only", "nonsense"], "'nonsense' chooses none of 77 cases of size M; --list shows them"),
        (["--sizes", "XL"], "--sizes is 'XL'; expected some of S, M, L"),
        (["--sizes", ","], "--sizes is ''; expected some of S, M, L"),
        (["--backends", "tpu"], "--backends has 'tpu'; expected some of naive, cpu"),
        (["--against", "jax"], "--against has 'jax'; expected some of torch, torchvision, torch.compile, onnxruntime"),
        (["--turns", "0"], "argument --turns: 0 is less than 1"),
        (["--seconds", "soon"], "argument --seconds: 'soon' is no number"),
        (["--threads", "0"], "threads is 0; expected a whole number from 1"),
        (["--compare", "missing.json"], "missing.json: no such file or directory"),
        (["--compare", "a", "b", "c"], "--compare has 3 files; expected"),
        (["--out", __file__, "--only", "relu"], "cannot make the folder"),
        (["dance"], "invalid choice: 'dance'"),
        (["--colour"], "unrecognized arguments: --colour"),
        (["scaling", "--only", "nonsense"], "--only chooses none of: pixels/conv2d"),
        (["scaling", "--backend", "tpu"], "backend is 'tpu'; expected one of 'naive', 'cpu'"),
    ],
)
def test_mistakes_are_one_line(fails, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert words in fails("bench", *arguments)
    assert not list(tmp_path.iterdir())


def test_growth_of_cost(tmp_path, capsys, monkeypatch):
    small = [
        scaling.Growth("pixels", "relu", (8, 16), lambda n: relu(1, 1, n, n)),
        scaling.Growth("boxes", "nms", (10, 20), nms, 2),
    ]
    monkeypatch.setattr(scaling, "growths", lambda: small)
    monkeypatch.setattr(scaling, "slope", lambda sizes, seconds: 1.1)
    arguments = ["scaling", "--seconds", "0", "--out", tmp_path]
    assert bench(*arguments) == 0
    assert bench("--out", tmp_path, "scaling", "--seconds", "0") == 0  # options before it count as well
    assert {path.name for path in tmp_path.iterdir()} == {f"scaling.{end}" for end in ("json", "md", "png", "svg")}
    assert [curve["sizes"] for curve in json.loads((tmp_path / "scaling.json").read_text())["curves"]] == [
        [64, 256],
        [10, 20],
    ]
    monkeypatch.setattr(scaling, "slope", lambda sizes, seconds: 1.9)
    capsys.readouterr()
    assert bench(*arguments) == 1
    assert "| pixels | relu | 1.90 TOO STEEP |" in (out := capsys.readouterr().out) and out.count("TOO STEEP") == 1


@pytest.mark.parametrize("part", [[], ["scaling"]])
def test_help(part, capsys):
    with pytest.raises(SystemExit) as stop:
        bench(*part, "--help")
    assert stop.value.code == 0 and "--out DIR" in capsys.readouterr().out


def run_in(folder, *command):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True)


def test_another_package_of_the_same_name_is_noticed(tmp_path):
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "__init__.py").write_text("")
    done = run_in(tmp_path, "-c", "from tinyseg.cli import main; main(['bench', '--list'])")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "the package 'benchmarks' at " in done.stderr and "is not tinyseg's" in done.stderr
    done = run_in(tmp_path, "-c", "from tinyseg.cli import main; main(['evaluate', '--help'])")
    assert done.returncode == 0  # other commands do not care


def test_the_module_is_the_command(tmp_path):
    done = run_in(tmp_path, "-m", "benchmarks", "--list", "--only", "nms", "--sizes", "S")
    assert done.returncode == 0 and done.stdout.split() == ["operators/nms/S/200/forward"]
