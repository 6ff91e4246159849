"""The command line: what it writes, and that every mistake is one line."""

import csv
import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from tinyseg import backend
from tinyseg.cli import build_parser, main
from tinyseg.cli.common import error_line, interval
from tinyseg.cli.evaluate import table
from tinyseg.cli.predict import plan_outputs
from tinyseg.cli.train_unet import DEFAULTS
from tinyseg.data import SyntheticCells, read_mask, read_picture, write_mask, write_picture
from tinyseg.evaluation import SegmentationScores, predict, to_mask
from tinyseg.training import Options, checkpoint, load_model

ROOT = Path(__file__).parents[1]
QUICK = ["--widths", "2,4", "--steps", "4", "--batch", "2", "--crop", "16", "--steps-per-epoch", "2", "--quiet"]


@pytest.fixture(autouse=True)
def same_backend_afterwards():
    before = backend.current_backend()
    yield
    backend.use_backend(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of five pictures and masks."""
    root = tmp_path_factory.mktemp("data")
    for name in ("raw", "masks"):
        (root / name).mkdir()
    for i, cell in enumerate(SyntheticCells(5, 40, radius=(4, 8))):
        write_picture(root / "raw" / f"{i:02d}.png", cell.picture)
        write_mask(root / "masks" / f"{i:02d}.png", cell.mask)
    return root


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """A finished run on it."""
    out = tmp_path_factory.mktemp("runs") / "run"
    assert (
        main(["train", "unet", "--data", str(data), "--train", "00-03", "--val", "04", "--out", str(out), *QUICK]) == 0
    )
    return out


# ---- help ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [[], ["demo"], ["train"], ["train", "unet"], ["predict"], ["evaluate"]])
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    out = capsys.readouterr().out
    assert stop.value.code == 0 and out.startswith("usage: tinyseg")
    if command != ["train"]:
        assert "example" in out


def test_without_a_command_there_is_help(capsys):
    assert main([]) == 0
    assert capsys.readouterr().out.startswith("usage: tinyseg")


def test_help_imports_nothing_slow():
    code = "import sys; from tinyseg.cli import build_parser; build_parser().format_help(); print(sorted(sys.modules))"
    loaded = eval(
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    )
    assert not {"numba", "matplotlib", "tqdm", "PIL", "tifffile", "safetensors"} & set(loaded)


def test_the_module_is_the_command():
    done = subprocess.run([sys.executable, "-m", "tinyseg.cli", "--version"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("tinyseg 0.")
    done = subprocess.run([sys.executable, "-m", "tinyseg.cli", "predict"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("tinyseg: error: ") and len(done.stderr.splitlines()) == 1


def test_the_defaults_are_those_of_fit():
    options = Options().as_dict()
    for ours, theirs in (("steps", "steps"), ("batch", "batch_size"), ("crop", "crop"), ("lr", "learning_rate")):
        assert DEFAULTS[ours] == options[theirs]
    for name in ("optimiser", "schedule", "weight_decay", "dice_weight", "augment", "steps_per_epoch", "seed"):
        assert DEFAULTS[name] == options[name]
    assert DEFAULTS["clip"] == options["clip_norm"]


# ---- train -----------------------------------------------------------------------------------------------------------


def test_training_leaves_a_run(run):
    assert {path.name for path in run.iterdir()} == {
        "best.safetensors",
        "config.json",
        "curve.png",
        "last.safetensors",
        "metrics.csv",
    }
    model, info = load_model(run / "best.safetensors")
    assert model.widths == (2, 4) and info["trained_on"] == ["00", "01", "02", "03"]
    config = json.loads((run / "config.json").read_text())
    assert config["steps"] == 4 and config["info"]["command"]["train"] == "00-03"


def test_resuming_needs_the_folder_only_and_changes_nothing_that_is_done(run, data, capsys):
    before = (run / "best.safetensors").read_bytes()
    assert main(["train", "unet", "--out", str(run), "--resume"]) == 0
    assert "best after step" in capsys.readouterr().out
    assert (run / "best.safetensors").read_bytes() == before


def test_resuming_finds_data_that_moved(run, data, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(data, moved)
    assert main(["train", "unet", "--out", str(run), "--resume", "--data", str(moved), "--quiet"]) == 0


def test_resuming_with_other_settings_is_refused(run, fails):
    line = fails("train", "unet", "--out", run, "--resume", "--steps", 9, "--lr", 0.5, "--quiet")
    assert "cannot resume" in line and "steps was 4 and is 9; learning_rate was 0.003 and is 0.5" in line


def test_a_run_is_not_overwritten(run, data, fails):
    assert "already holds a run" in fails("train", "unet", "--data", data, "--out", run, *QUICK)


def test_a_stopped_run_says_how_to_go_on(data, tmp_path, capsys, monkeypatch):
    from tinyseg.training.data_source import Source

    batch = Source.batch

    def stop_then_batch(self, step):
        if step == 1:
            signal.raise_signal(signal.SIGINT)
        return batch(self, step)

    monkeypatch.setattr(Source, "batch", stop_then_batch)
    out = tmp_path / "my run"
    assert main(["train", "unet", "--data", str(data), "--out", str(out), *QUICK]) == 130
    err = capsys.readouterr().err
    assert "stopped after step 2 of 4" in err and "tinyseg train unet --resume --out '" in err
    monkeypatch.undo()
    assert main(["train", "unet", "--resume", "--out", str(out), "--quiet"]) == 0
    assert checkpoint.load(out / "last.safetensors")["history"]["step"] == 4


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--steps", "0"], "argument --steps: 0 is less than 1"),
        (["--steps", "ten"], "argument --steps: 'ten' is no whole number"),
        (["--lr", "0"], "argument --lr: 0 is out of range"),
        (["--lr", "nan"], "argument --lr: nan is out of range"),
        (["--widths", "8,x"], "argument --widths: '8,x' is no list of channels such as 8,16,32,64,128"),
        (["--checkpoint-every", "2h"], "argument --checkpoint-every: '2h' is neither"),
        (["--tile", "-3"], "argument --tile"),
        (["--optimiser", "lion"], "argument --optimiser: invalid choice: 'lion'"),
        (["--step", "5"], "unrecognized arguments: --step"),
        (["--train", "7*"], "'7\\*' chooses none of 5 pictures"),
        (["--train", "00-02", "--val", "02"], "02 would be trained on and validated on"),
        (["--masks", "masks"], "only one of --pictures and --masks was given"),
        (["--pictures", "raw", "--masks", "nothing"], "nothing is not there; expected a folder of pictures"),
        (["--backend", "tpu"], "backend is 'tpu'; expected one of 'naive', 'cpu'"),
        (["--threads", "0"], "threads is 0; expected a whole number from 1"),
    ],
)
def test_mistakes_in_training_are_one_line(data, tmp_path, fails, arguments, words):
    assert re.search(words, fails("train", "unet", "--data", data, "--out", tmp_path / "run", *QUICK, *arguments))
    assert not (tmp_path / "run").exists()


def test_missing_arguments_are_one_line(tmp_path, fails):
    assert "--data is missing" in fails("train", "unet", "--out", tmp_path / "run")
    assert "--out" in fails("train", "unet", "--data", tmp_path)
    assert "NETWORK" in fails("train")
    assert "invalid choice: 'dance'" in fails("dance")


def test_bad_data_is_one_line(data, tmp_path, fails):
    copy = tmp_path / "copy"
    shutil.copytree(data, copy)
    command = ["train", "unet", "--data", copy, "--out", tmp_path / "run", *QUICK]
    whole = (copy / "raw" / "00.png").read_bytes()
    (copy / "raw" / "00.png").write_bytes(whole[: len(whole) // 2])
    assert "00.png is truncated" in fails(*command)
    (copy / "raw" / "00.png").write_bytes(b"")
    assert "00.png is empty" in fails(*command)
    (copy / "raw" / "00.png").write_bytes(whole)
    write_mask(copy / "masks" / "00.png", np.zeros((9, 40), np.uint8))
    assert "00.png is 9 x 40 (height x width); expected 40 x 40" in fails(*command)
    write_picture(copy / "masks" / "00.png", np.full((40, 40), 7, np.uint8))
    assert "00.png holds 7 at row 0, column 0" in fails(*command)
    (copy / "masks" / "00.png").unlink()
    assert "no mask for 1 of 5 pictures" in fails(*command)
    shutil.rmtree(copy / "raw")
    (copy / "raw").mkdir()
    assert "raw has no pictures" in fails(*command)


def test_an_output_folder_that_cannot_be_made_is_one_line(data, tmp_path, fails):
    (tmp_path / "file").write_text("")
    assert "cannot make the folder" in fails(
        "train", "unet", "--data", data, "--out", tmp_path / "file" / "run", *QUICK
    )


def test_debug_shows_the_traceback(tmp_path):
    with pytest.raises(ValueError, match="--data is missing"):
        main(["train", "unet", "--out", str(tmp_path / "run"), "--debug"])


# ---- predict ---------------------------------------------------------------------------------------------------------


def test_prediction_writes_mask_probability_and_overlay(run, data, tmp_path, capsys):
    weights, out = run / "best.safetensors", tmp_path / "out"
    assert main(["predict", "--weights", str(weights), str(data / "raw"), "--out", str(out), "--threshold", "0.4"]) == 0
    assert len(list(out.iterdir())) == 15
    model, info = load_model(weights)
    expected = predict(model, read_picture(data / "raw" / "02.png"), normalisation=info["normalisation"])
    stored = read_picture(out / "02_probability.png")
    np.testing.assert_allclose(stored, expected, rtol=0, atol=0.5 / 65535 + 1e-7)
    np.testing.assert_array_equal(read_mask(out / "02_mask.png"), to_mask(expected, 0.4))
    assert read_picture(out / "02_overlay.png").shape == (3, 40, 40)
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("5 of 5 pictures done"))
    assert backend.peak_memory() is None or re.search(r"; peak memory \d+ MiB$", line)


def test_tiles_are_an_option(run, data, tmp_path):
    """Tiles of 22 pixels, whose results differ from the single pass by rounding at most."""
    write_picture(tmp_path / "wide.png", np.random.default_rng(0).random((50, 90)))
    for tile in ("22", "none"):
        command = ["predict", "--weights", str(run / "best.safetensors"), str(tmp_path / "wide.png")]
        assert main([*command, "--out", str(tmp_path / tile), "--tile", tile]) == 0
    a, b = (read_picture(tmp_path / tile / "wide_probability.png") for tile in ("22", "none"))
    assert abs(a - b).max() <= 1.01 / 65535


def test_a_bad_picture_is_named_and_passed_over(run, data, tmp_path, capsys):
    (tmp_path / "torn.png").write_bytes((data / "raw" / "00.png").read_bytes()[:200])
    pictures = [tmp_path / "torn.png", data / "raw" / "01.png", tmp_path / "absent.png"]
    command = ["predict", "--weights", run / "best.safetensors", *pictures, "--out", tmp_path / "out"]
    assert main([str(part) for part in command]) == 1
    captured = capsys.readouterr()
    assert "1 of 3 pictures done" in captured.out
    assert "2 failed" in captured.err and "torn.png is truncated" in captured.err and "absent.png" in captured.err
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "01_mask.png",
        "01_overlay.png",
        "01_probability.png",
    }


def test_colour_becomes_grey_and_says_so(run, tmp_path, capsys, rng):
    write_picture(tmp_path / "photo.jpg", rng.random((3, 30, 40)))
    command = ["predict", "--weights", run / "best.safetensors", tmp_path / "photo.jpg", "--out", tmp_path / "out"]
    assert main([str(part) for part in command]) == 0
    assert "photo.jpg (turned to grey for this network)" in capsys.readouterr().out
    assert read_mask(tmp_path / "out" / "photo_mask.png").shape == (30, 40)


def test_pages_of_a_tiff_become_pictures_of_their_own(run, tmp_path, rng):
    tifffile.imwrite(tmp_path / "stack.tif", rng.integers(0, 65535, (2, 24, 30), np.uint16), photometric="minisblack")
    command = ["predict", "--weights", run / "best.safetensors", tmp_path / "stack.tif", "--out", tmp_path / "out"]
    assert main([str(part) for part in command]) == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"stack_000_mask.png", "stack_001_mask.png"} <= names and len(names) == 6


def test_several_classes_write_a_page_each(tmp_path, rng):
    from tinyseg import manual_seed
    from tinyseg.models import UNet
    from tinyseg.training import save_model

    manual_seed(0)
    model = UNet(1, 3, (2, 4))
    save_model(tmp_path / "w.npz", model)
    write_picture(tmp_path / "a.png", rng.random((20, 24)))
    command = ["predict", "--weights", tmp_path / "w.npz", tmp_path / "a.png", "--out", tmp_path / "out"]
    assert main([str(part) for part in command]) == 0
    pages = tifffile.imread(tmp_path / "out" / "a_probability.tif")
    assert pages.shape == (3, 20, 24) and pages.dtype == np.uint16
    assert abs(pages.astype(int).sum(0) - 65535).max() <= 2
    np.testing.assert_array_equal(read_mask(tmp_path / "out" / "a_mask.png", 3), pages.argmax(0))


def test_pictures_are_never_overwritten_nor_is_anything_unasked(run, tmp_path, fails, rng):
    write_picture(tmp_path / "a.png", rng.random((20, 24)))
    write_picture(tmp_path / "a_mask.png", rng.random((20, 24)))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    base = ["predict", "--weights", run / "best.safetensors", "--out", tmp_path]
    line = fails(*base, tmp_path / "a.png", tmp_path / "a_mask.png", "--overwrite")
    assert "a_mask.png is one of the pictures and would be written over" in line
    assert "a_mask.png is there already; add --overwrite" in fails(*base, tmp_path / "a.png")
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert main([str(part) for part in (*base, tmp_path / "a.png", "--overwrite")]) == 0


def test_names_of_outputs_are_distinct(tmp_path):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
    pages = [
        (tmp_path / "x" / "a.png", None),
        (tmp_path / "x" / "A.tif", None),
        (tmp_path / "y" / "a.png", None),
        (tmp_path / "y" / "b.png", None),
        (tmp_path / "y" / "s.tif", 0),
        (tmp_path / "y" / "s.tif", 1),
    ]
    names = [outputs["mask"].name for _, _, outputs in plan_outputs(pages, tmp_path, {"mask": "_mask.png"})]
    assert names == [
        "x_a_png_mask.png",
        "A_tif_mask.png",
        "y_a_png_mask.png",
        "b_mask.png",
        "s_000_mask.png",
        "s_001_mask.png",
    ]
    same = [(tmp_path / a / "x" / "a.png", None) for a in ("p", "q")]
    names = {outputs["mask"].name for _, _, outputs in plan_outputs(same, tmp_path, {"mask": "_mask.png"})}
    assert names == {"x_a_png_mask.png", "x_a_png_2_mask.png"}


def test_a_picture_given_twice_is_predicted_once(run, data, tmp_path, capsys):
    command = ["predict", "--weights", run / "best.safetensors", data / "raw" / "01.png", data / "raw" / "0[12].png"]
    assert main([str(part) for part in (*command, "--out", tmp_path)]) == 0
    assert "2 of 2 pictures done" in capsys.readouterr().out


def test_wrong_weights_are_one_line(run, data, tmp_path, fails):
    picture = data / "raw" / "00.png"
    assert "best.safetensors beside it" in fails("predict", "--weights", run / "last.safetensors", picture)
    (tmp_path / "w.safetensors").write_bytes((run / "best.safetensors").read_bytes()[:500])
    assert "w.safetensors" in fails("predict", "--weights", tmp_path / "w.safetensors", picture)
    assert "no such file" in fails("predict", "--weights", tmp_path / "absent.safetensors", picture)
    assert "neither safetensors" in fails("predict", "--weights", picture, picture)


# ---- evaluate --------------------------------------------------------------------------------------------------------


def test_evaluation_prints_and_saves_scores(run, data, tmp_path, capsys):
    command = [
        "evaluate",
        "--weights",
        run / "best.safetensors",
        "--data",
        data,
        "--val",
        "03-04",
        "--out",
        tmp_path / "s",
    ]
    assert main([str(part) for part in command]) == 0
    out = capsys.readouterr().out
    scores = json.loads((tmp_path / "s" / "scores.json").read_text())
    assert [picture["name"] for picture in scores["pictures"]] == ["03", "04"]
    assert scores["mean"]["dice"] == pytest.approx(np.mean([picture["dice"] for picture in scores["pictures"]]))
    assert f"{scores['mean']['dice']:6.4f}" in out and "trained on pictures of 1 of these names (03" in out
    with open(tmp_path / "s" / "scores.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["picture"] for row in rows] == ["03", "04", "mean", "pooled"]
    assert float(rows[2]["iou"]) == scores["mean"]["iou"]
    # The best checkpoint's scores on the validation picture are those of its own evaluation in training.
    kept = load_model(run / "best.safetensors")[1]["scores"]
    assert scores["pictures"][1]["dice"] == pytest.approx(kept["dice"], abs=1e-12)


def test_the_table_lists_classes_where_there_are_several():
    scores = SegmentationScores(3)
    scores.update([[0, 1, 2, 2]], [[0, 1, 1, 2]], "a")
    assert table(scores.summary()).splitlines() == [
        "picture            Dice     IoU  pixel error",
        "a                0.7778  0.6667       0.2500",
        "class 0, pooled  1.0000  1.0000",
        "class 1, pooled  0.6667  0.5000",
        "class 2, pooled  0.6667  0.5000",
        "--------------------------------------------",
        "mean             0.7778  0.6667       0.2500",
        "pooled           0.7778  0.6667       0.2500",
    ]


def test_evaluation_without_data_is_one_line(run, fails, tmp_path):
    assert "--data is missing" in fails("evaluate", "--weights", run / "best.safetensors")
    assert "not there" in fails("evaluate", "--weights", run / "best.safetensors", "--data", tmp_path / "absent")


# ---- small parts -----------------------------------------------------------------------------------------------------


def test_errors_become_one_line():
    assert error_line(ValueError("a\n  b")) == "a b"
    assert error_line(MemoryError()) == "not enough memory: try a smaller --batch, --crop or --tile"
    assert error_line(FileNotFoundError(2, "No such file or directory", "x.png")) == "x.png: no such file or directory"
    assert error_line(OSError("cannot write x: no space")) == "cannot write x: no space"
    assert error_line(ValueError()) == "ValueError"


def test_intervals():
    assert (
        interval("100") == ("steps", 100) and interval("30s") == ("seconds", 30) and interval("1.5m") == ("seconds", 90)
    )


def test_interrupts_and_memory_end_without_a_traceback(monkeypatch, capsys):
    parser = build_parser()
    for error, code, words in (
        (KeyboardInterrupt(), 130, "tinyseg: interrupted"),
        (MemoryError(), 2, "tinyseg: error: not enough memory"),
        (ImportError("no module x; install tinyseg[coco]"), 2, "install tinyseg[coco]"),
    ):

        def fail(args, error=error):
            raise error

        args = parser.parse_args(["predict", "--weights", "w", "p"])
        args.run = fail
        monkeypatch.setattr(
            "tinyseg.cli.build_parser", lambda args=args: type("P", (), {"parse_args": lambda self, _: args})()
        )
        assert main([]) == code
        assert words in capsys.readouterr().err
