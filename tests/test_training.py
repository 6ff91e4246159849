"""Training: that it learns, that it resumes bit for bit whatever stopped it, and that its mistakes are named."""

import errno
import math
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from run_results import assert_same_state, rows_of, state_of

from tinyseg import Tensor, files, manual_seed, ops, peak_memory, weights
from tinyseg.data import Sample, SyntheticCells, SyntheticShapes
from tinyseg.models import UNet
from tinyseg.training import Interrupted, Options, RunFolder, checkpoint, fit, load_model, save_model
from tinyseg.training.curve import draw_curve, smoothed
from tinyseg.training.data_source import fingerprint
from tinyseg.training.interrupt import Interruptible
from tinyseg.training.options import differences
from tinyseg.training.run_folder import metrics_text
from tinyseg.training.segmentation import dice_of_classes, make_augmentation

SETTINGS = {"steps": 6, "batch_size": 2, "crop": 16, "steps_per_epoch": 3, "progress": False}


@pytest.fixture(scope="module")
def cells():
    return [*SyntheticCells(4, 32, radius=(4, 8))]


def make_model(seed=0, out_channels=1):
    manual_seed(seed)
    return UNet(1, out_channels, (2, 4))


def stop_at(model, step, act):
    """Call ``act`` when forward pass number ``step`` in training mode is done."""
    count = [0]

    def hook(module, args, output):
        count[0] += model.training
        if count[0] == step and model.training:
            count[0] += 1
            act()

    return model.layer1_conv.register_forward_hook(hook)


# ---- learning --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimiser, rate", [("adam", 0.02), ("adamw", 0.02), ("sgd", 0.1)])
def test_it_learns(cells, optimiser, rate):
    model = make_model()
    settings = {**SETTINGS, "steps": 40, "optimiser": optimiser, "learning_rate": rate, "steps_per_epoch": 40}
    history = fit(model, cells[:3], cells[3:], **settings)
    assert history.step == len(history.losses) == 40
    assert np.mean(history.losses[-5:]) < 0.75 * np.mean(history.losses[:5])
    assert history.rows == [history.best] and 0 < history.best["dice"] <= 1
    assert not model.training


def test_several_classes_with_the_dice_term(rng):
    pictures = [*SyntheticShapes(2, 32, radius=(6, 12), channels=1)]
    model = make_model(out_channels=4)
    history = fit(model, pictures, pictures, **{**SETTINGS, "dice_weight": 0.5})
    assert len(history.rows) == 2 and 0 < history.best["iou"] < 1


def test_dice_of_classes_by_hand():
    scores = np.full((1, 2, 1, 2), -100.0)
    scores[0, 0, 0, 0] = scores[0, 1, 0, 1] = 100.0  # surely class 0, then surely class 1
    right = dice_of_classes(Tensor(scores), np.array([[[0, 1]]]))
    assert right.item() == 0
    # Class 0: nothing in common of 1 and 0 pixels: (0 + 1) / (1 + 1). Class 1: 1 of 1 and 2: (2 + 1) / (3 + 1).
    assert dice_of_classes(Tensor(scores), np.array([[[1, 1]]])).item() == pytest.approx(1 - (1 / 2 + 3 / 4) / 2)


def test_the_rate_follows_one_cycle(cells, tmp_path):
    fit(make_model(), cells, out=tmp_path / "run", **{**SETTINGS, "steps": 10, "steps_per_epoch": 1})
    rates = [float(row["learning_rate"]) for row in rows_of(tmp_path / "run")]
    assert rates[0] == pytest.approx(3e-3 / 25) and max(rates) == rates[2] == pytest.approx(3e-3)
    assert rates[-1] == pytest.approx(3e-3 / 25 / 1e4)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(cells):
    states = []
    for seed in (1, 1, 2):
        model = make_model()
        fit(model, cells, **SETTINGS, seed=seed)
        states.append(state_of(model))
    assert_same_state(states[0], states[1])
    assert (states[0]["layer1_conv.conv1.weight"] != states[2]["layer1_conv.conv1.weight"]).any()


# ---- files -----------------------------------------------------------------------------------------------------------


def test_what_a_run_leaves(cells, tmp_path):
    run, model = tmp_path / "run", make_model()
    history = fit(model, cells[:3], cells[3:], out=run, info={"class_names": ["nothing", "cell"]}, **SETTINGS)
    assert sorted(os.listdir(run)) == [
        "best.safetensors",
        "config.json",
        "curve.png",
        "last.safetensors",
        "metrics.csv",
    ]
    rows = rows_of(run)
    assert [(row["epoch"], row["step"]) for row in rows] == [("1", "3"), ("2", "6")]
    assert float(rows[0]["loss"]) == pytest.approx(np.mean(history.losses[:3]), rel=1e-5)
    assert float(rows[1]["dice"]) == pytest.approx(history.rows[1]["dice"], rel=1e-5)
    assert (run / "curve.png").read_bytes().startswith(b"\x89PNG")
    best, info = load_model(run / "best.safetensors")
    assert info["widths"] == (2, 4) and info["normalisation"] == {"kind": "standardise"} and info["threshold"] == 0.5
    assert info["step"] == history.best["step"] and info["class_names"] == ["nothing", "cell"]
    assert info["trained_on"] == ["0", "1", "2"]
    if history.best["step"] == 6:
        assert_same_state(state_of(best), state_of(model))
    assert_same_state(checkpoint.load(run / "last.safetensors")["model"], state_of(model))


def test_best_is_the_highest_dice(cells, tmp_path):
    run = tmp_path / "run"
    history = fit(make_model(), cells[:3], cells[3:], out=run, **{**SETTINGS, "steps": 12, "steps_per_epoch": 2})
    dices = [row["dice"] for row in history.rows]
    assert history.best["step"] == 2 * (1 + int(np.argmax(dices)))
    assert load_model(run / "best.safetensors")[1]["scores"]["dice"] == max(dices)


def test_without_validation_the_last_weights_are_the_best(cells, tmp_path):
    model = make_model()
    history = fit(model, cells, [], out=tmp_path / "run", **SETTINGS)
    assert history.best["step"] == 6 and history.best["dice"] is None
    assert rows_of(tmp_path / "run")[0]["dice"] == ""
    assert_same_state(state_of(load_model(tmp_path / "run" / "best.safetensors")[0]), state_of(model))


def test_a_run_is_never_overwritten(cells, tmp_path):
    fit(make_model(), cells, out=tmp_path, **SETTINGS)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(FileExistsError, match="already holds a run, which is never overwritten: add --resume"):
        fit(make_model(1), cells, out=tmp_path, **SETTINGS)
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir()}


@pytest.mark.parametrize("failing", ["last", "metrics", "curve", "best"])
def test_a_full_disk_loses_nothing(cells, tmp_path, monkeypatch, failing):
    whole = make_model()
    fit(whole, cells[:3], cells[3:], **SETTINGS)
    run, really, count = tmp_path / "run", os.replace, [0]

    def replace(source, target):
        if Path(target).name.startswith(failing):
            count[0] += 1
            if count[0] == 2 or failing in ("curve", "best"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        really(source, target)

    monkeypatch.setattr(files.os, "replace", replace)
    with pytest.raises(
        OSError, match=r"no space is left on the disk\. The run is safe in .*last.safetensors; .*--resume"
    ):
        fit(make_model(), cells[:3], cells[3:], out=run, **SETTINGS)
    monkeypatch.undo()
    resumed = make_model(9)
    fit(resumed, cells[:3], cells[3:], out=run, resume=True, **SETTINGS)
    assert_same_state(state_of(resumed), state_of(whole))
    assert len(rows_of(run)) == 2 and not [name for name in os.listdir(run) if name.startswith(".")]


def test_a_folder_that_cannot_be_made(cells, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot make the folder .*file"):
        fit(make_model(), cells, out=tmp_path / "file" / "run", **SETTINGS)


# ---- stopping and resuming -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [2, 3])
def test_ctrl_c_finishes_the_step_saves_and_resumes_bit_for_bit(cells, tmp_path, step, number):
    whole = make_model()
    history = fit(whole, cells[:3], cells[3:], **SETTINGS)
    model, handler = make_model(), signal.getsignal(number)
    stop_at(model, step, lambda: signal.raise_signal(number))
    with pytest.raises(
        Interrupted, match=f"stopped after step {step} of 6, saved in .*last.safetensors. Go on with --resume"
    ):
        fit(model, cells[:3], cells[3:], out=tmp_path, **SETTINGS)
    assert signal.getsignal(number) is handler
    assert len(rows_of(tmp_path)) == 0  # after step 3 too: a validation that nobody waits for is put off
    resumed = make_model(9)
    again = fit(resumed, cells[:3], cells[3:], out=tmp_path, resume=True, **SETTINGS)
    assert_same_state(state_of(resumed), state_of(whole))
    assert again.losses == history.losses and again.best["dice"] == history.best["dice"]
    assert [row["step"] for row in rows_of(tmp_path)] == ["3", "6"]


def test_a_second_ctrl_c_stops_at_once_and_leaves_files_whole(cells, tmp_path):
    def twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    model = make_model()
    stop_at(model, 5, twice)
    with pytest.raises(KeyboardInterrupt) as stopped:
        fit(model, cells[:3], cells[3:], out=tmp_path, **SETTINGS)
    assert not isinstance(stopped.value, Interrupted)
    assert checkpoint.load(tmp_path / "last.safetensors")["history"]["step"] == 3


def test_signals_are_left_alone_outside_the_main_thread(cells):
    import threading

    seen = []

    def work():
        with Interruptible() as stop:
            seen.append((stop.requested, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, signal.getsignal(signal.SIGINT))]


KILLS = [("step", 1), ("rename", 1), ("step", 5), ("renamed", 4), ("write", 3), ("rename", 2), ("step", 2)]


def test_killed_at_any_moment_it_ends_in_the_same_weights(tmp_path):
    script = Path(__file__).with_name("killed_training.py")
    environment = {**os.environ, "PYTHONPATH": str(script.parents[1]), "MPLBACKEND": "Agg"}

    def train(run, event, number):
        command = [sys.executable, str(script), str(tmp_path / run), event, str(number)]
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    done = train("whole", "never", 1)
    assert done.returncode == 0, done.stderr
    for event, number in KILLS:
        assert train("killed", event, number).returncode == 137, (event, number)
    done = train("killed", "never", 1)
    assert done.returncode == 0, done.stderr
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    a, b = (checkpoint.load(run / "last.safetensors") for run in (whole, killed))
    assert_same_state(a["model"], b["model"])
    for number, state in a["optimiser"]["state"].items():
        np.testing.assert_array_equal(state["exp_avg"], b["optimiser"]["state"][number]["exp_avg"])
    assert_same_state(*(weights.load(run / "best.safetensors") for run in (whole, killed)))
    scores = [[{k: v for k, v in row.items() if k != "seconds"} for row in rows_of(run)] for run in (whole, killed)]
    assert scores[0] == scores[1] and len(scores[0]) == 3
    assert sorted(os.listdir(whole)) == sorted(os.listdir(killed))


@pytest.mark.parametrize(
    "change, words",
    [
        ({"steps": 9}, "steps was 6 and is 9"),
        ({"learning_rate": 0.5, "seed": 4}, r"learning_rate was 0.003 and is 0.5; seed was 0 and is 4"),
        ({"clip_norm": None}, "clip_norm was 1.0 and is not set"),
        ({"normalisation": "none"}, "normalisation was .*standardise.* and is .*none"),
    ],
)
def test_resuming_with_other_options_is_refused(cells, tmp_path, change, words):
    fit(make_model(), cells, out=tmp_path, **SETTINGS)
    before = (tmp_path / "last.safetensors").read_bytes()
    with pytest.raises(ValueError, match=f"cannot resume .*: {words}"):
        fit(make_model(), cells, out=tmp_path, resume=True, **{**SETTINGS, **change})
    assert before == (tmp_path / "last.safetensors").read_bytes()


def test_resuming_with_another_network_or_other_data_is_refused(cells, tmp_path):
    fit(make_model(), cells, out=tmp_path, **SETTINGS)
    with pytest.raises(ValueError, match="widths was 2,4 and is 3,4"):
        fit(UNet(1, 1, (3, 4)), cells, out=tmp_path, resume=True, **SETTINGS)
    with pytest.raises(ValueError, match=r"training pictures was 4 pictures \(checksum \w+\) and is 3 pictures"):
        fit(make_model(), cells[:3], out=tmp_path, resume=True, **SETTINGS)


def test_resuming_nothing_starts_and_resuming_a_finished_run_returns_it(cells, tmp_path):
    first = fit(make_model(), cells, out=tmp_path / "run", resume=True, **SETTINGS)
    model = make_model(5)
    again = fit(model, cells, out=tmp_path / "run", resume=True, **SETTINGS)
    assert again.losses == first.losses and again.rows == first.rows and not model.training
    with pytest.raises(ValueError, match="resume is True but out is None"):
        fit(make_model(), cells, resume=True, **SETTINGS)


def test_damaged_checkpoints_are_named(cells, tmp_path):
    fit(make_model(), cells, out=tmp_path, **SETTINGS)
    last = tmp_path / "last.safetensors"
    whole = last.read_bytes()
    last.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="last.safetensors"):
        fit(make_model(), cells, out=tmp_path, resume=True, **SETTINGS)
    last.write_bytes((tmp_path / "best.safetensors").read_bytes())
    with pytest.raises(ValueError, match="is not a checkpoint of tinyseg's training"):
        checkpoint.load(last)
    last.unlink()
    with pytest.raises(ValueError, match=r"has no last.safetensors to resume from"):
        RunFolder(tmp_path).prepare(resume=True)


def test_checkpoints_by_steps(cells, tmp_path):
    model, saved = make_model(), []
    settings = {**SETTINGS, "steps": 5, "steps_per_epoch": 5, "checkpoint_every": ("steps", 2)}

    def look(module, args, output):
        if model.training:
            saved.append(checkpoint.load(tmp_path / "last.safetensors")["history"]["step"])

    model.layer1_conv.register_forward_hook(look)
    fit(model, cells, out=tmp_path, **settings)
    assert saved == [0, 0, 2, 2, 4]


# ---- NaN -------------------------------------------------------------------------------------------------------------


def test_a_nan_names_the_first_layer_and_keeps_the_last_good_checkpoint(cells, tmp_path):
    model = make_model()

    def spoil():
        model.layer2_conv.conv2.weight.array[0, 0, 0, 0] = np.nan

    stop_at(model, 5, spoil)
    with pytest.raises(
        FloatingPointError, match="layer2_conv.conv2 .Conv2d., because its weight has it already"
    ) as caught:
        fit(model, cells, out=tmp_path, **SETTINGS)
    assert "the loss of step 5 is nan" in str(caught.value) and "last good checkpoint" in str(caught.value)
    kept = checkpoint.load(tmp_path / "last.safetensors")
    assert kept["history"]["step"] == 3
    assert all(np.isfinite(value).all() for value in kept["model"].values())


def test_a_layer_that_makes_a_nan_of_finite_weights(cells):
    model = make_model()
    model.layer3_conv.bn1.register_forward_hook(lambda module, args, y: y * float("inf"))
    with (
        np.errstate(invalid="ignore"),
        pytest.raises(FloatingPointError, match=r"output has it is layer3_conv.bn1 \(BatchNorm2d\)"),
    ):
        fit(model, cells, **SETTINGS)


def test_a_nan_in_the_gradient_alone(cells):
    from tinyseg.function import Function

    class BrokenBackward(Function):
        def forward(self, x):
            return x.copy()

        def backward(self, dy):
            return dy * np.float32(np.nan)

    model = make_model()
    model.layer1_conv.conv1.register_forward_hook(lambda module, args, y: BrokenBackward.apply(y))
    with pytest.raises(FloatingPointError, match=r"gradient of step 1 is nan.* gradient has it is layer1_conv.conv1"):
        fit(model, cells, **SETTINGS)


def test_a_nan_in_the_data(cells):
    picture = cells[0].picture.copy()
    picture[0, 5, 5] = np.nan
    with pytest.raises(FloatingPointError, match="the pictures of the batch hold it already"):
        fit(make_model(), [Sample(picture, cells[0].mask, "bad")], **SETTINGS)


def test_a_step_that_is_too_large_never_reaches_a_checkpoint(cells, tmp_path):
    settings = {**SETTINGS, "optimiser": "sgd", "learning_rate": 3e38, "schedule": "constant", "clip_norm": None}
    with (
        np.errstate(all="ignore"),
        pytest.raises(FloatingPointError, match="A lower learning rate .3e.38 now. often helps"),
    ):
        fit(make_model(), cells, out=tmp_path, **{**settings, "steps_per_epoch": 1})
    kept = checkpoint.load(tmp_path / "last.safetensors")
    assert all(np.isfinite(value).all() for value in kept["model"].values())


# ---- options and data that do not fit --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, error, words",
    [
        ({"steps": 0}, ValueError, "steps is 0; expected at least 1"),
        ({"batch_size": 2.0}, TypeError, "batch_size is 2.0; expected a whole number"),
        ({"learning_rate": math.nan}, ValueError, "learning_rate is nan"),
        ({"learning_rate": "fast"}, TypeError, "learning_rate is 'fast'; expected a number"),
        ({"clip_norm": 0}, ValueError, "clip_norm is 0; expected a finite number above 0"),
        ({"optimiser": "lion"}, ValueError, "optimiser is 'lion'; expected one of 'adam', 'adamw', 'sgd'"),
        ({"augment": "wild"}, ValueError, "augment is 'wild'"),
        ({"schedule": "wavy"}, ValueError, "schedule is 'wavy'"),
        ({"normalisation": "odd"}, ValueError, "normalisation is 'odd'"),
        ({"seed": -1}, ValueError, "seed is -1"),
        ({"stepps": 5}, TypeError, "stepps"),
    ],
)
def test_wrong_options_are_named(options, error, words):
    with pytest.raises(error, match=words):
        Options(**options)


@pytest.mark.parametrize("value", [5, ("hours", 1), ("steps", 0), ("steps", "2")])
def test_wrong_checkpoint_intervals_are_named(cells, value):
    with pytest.raises(ValueError, match="checkpoint_every is"):
        fit(make_model(), cells, checkpoint_every=value, **SETTINGS)


def test_data_that_do_not_fit_are_named(cells):
    with pytest.raises(ValueError, match="training set is empty"):
        fit(make_model(), [], **SETTINGS)
    with pytest.raises(ValueError, match="training picture a has no mask"):
        fit(make_model(), [Sample(cells[0].picture, None, "a")], **SETTINGS)
    with pytest.raises(ValueError, match="validation picture a has 3 channels; expected 1"):
        fit(make_model(), cells, [Sample(np.zeros((3, 32, 32), np.float32), cells[0].mask, "a")], **SETTINGS)
    mixed = [cells[0], Sample(np.zeros((3, 32, 32), np.float32), cells[0].mask, "a")]
    with pytest.raises(ValueError, match="channels|shapes"):
        fit(make_model(), mixed, **SETTINGS)


def test_differences_name_what_changed():
    assert differences({"a": 1, "w": (1, 2), "n": None}, {"a": 1, "w": [1, 2], "n": None}) == []
    assert differences({"a": 1, "gone": 2}, {"a": 2, "new": [3, 4]}) == [
        "a was 1 and is 2",
        "gone was 2 and is not set",
        "new was not set and is 3,4",
    ]


def test_augmentations_make_crops_of_the_size(cells, rng):
    for name in ("turns", "strong", "photo", "none"):
        picture, mask = make_augmentation(name, 20)(cells[0].picture, cells[0].mask, rng)
        assert picture.shape == (1, 20, 20) and mask.shape == (20, 20)


def test_fingerprints_see_pixels_names_and_masks(cells):
    same = fingerprint([Sample(s.picture.copy(), s.mask.copy(), s.name) for s in cells])
    assert fingerprint(cells) == same and fingerprint(None) == fingerprint([]) == "none"
    for change in ("picture", "mask"):
        arrays = {"picture": cells[2].picture.copy(), "mask": cells[2].mask.copy()}
        arrays[change][..., 3, 3] = 1 - arrays[change][..., 3, 3]
        assert fingerprint([*cells[:2], Sample(**arrays, name="2"), cells[3]]) != same


# ---- files of their own ----------------------------------------------------------------------------------------------


def test_checkpoints_keep_everything_exactly(tmp_path):
    tree = {
        "numbers": {0: 0.1, 1: 1e-300, 2: [1, True, None, "é"]},
        "arrays": {
            "a.b/c": np.arange(3, dtype=np.int64),
            "scalar": np.float64(0.3),
            "zero_d": np.array(2.5, np.float32),
        },
        "tensor": Tensor(np.array([[1, -0.0]], np.float32)),
        "tuple": (1, 2),
    }
    checkpoint.save(tmp_path / "a.safetensors", tree)
    back = checkpoint.load(tmp_path / "a.safetensors")
    assert back["numbers"] == tree["numbers"] and back["tuple"] == [1, 2]
    assert back["arrays"]["scalar"] == 0.3 and back["arrays"]["a.b/c"].tolist() == [0, 1, 2]
    assert back["arrays"]["zero_d"].shape == () and back["arrays"]["zero_d"].dtype == np.float32
    assert np.signbit(back["tensor"]).tolist() == [[False, True]]
    for wrong in ({"f": lambda: 0}, {1.5: 0}):
        with pytest.raises(TypeError, match="state"):
            checkpoint.save(tmp_path / "b.safetensors", wrong)


@pytest.mark.parametrize("ending", ["safetensors", "npz", "pth"])
def test_a_model_file_needs_nothing_else(tmp_path, rng, ending):
    model = UNet(3, 4, (2, 3, 5)).eval()
    save_model(tmp_path / f"m.{ending}", model, {"threshold": 0.25})
    read, info = load_model(tmp_path / f"m.{ending}")
    assert info["threshold"] == 0.25 and not read.training
    x = Tensor(rng.random((1, 3, 9, 7), np.float32))
    np.testing.assert_array_equal(read(x).numpy(), model(x).numpy())


def test_metrics_are_csv():
    row = {"epoch": 1, "step": 3, "loss": 0.123456789, "learning_rate": 1e-8, "dice": None, "seconds": 2.0}
    columns = ["epoch", "step", "loss", "learning_rate", "dice", "iou", "pixel_error", "seconds"]
    assert metrics_text([row], columns).splitlines() == [
        "epoch,step,loss,learning_rate,dice,iou,pixel_error,seconds",
        "1,3,0.123457,1e-08,,,,2",
    ]


def test_the_curve_is_smoothed_by_the_mean_of_what_came_before():
    assert smoothed([1, 2, 3, 4], 2).tolist() == [1, 1.5, 2.5, 3.5]
    assert smoothed([], 3).tolist() == []
    assert draw_curve([1.0, 0.5], []).startswith(b"\x89PNG")


def test_progress_says_what_happens(cells, capsys):
    fit(make_model(), cells[:3], cells[3:], **{**SETTINGS, "progress": True})
    out, err = capsys.readouterr()
    assert "epoch   1  step     3  loss" in out and "Dice" in out and "pixel error" in out
    assert "compiling kernels" in err and "loss=" in err and "6/6" in err
    assert peak_memory() is None or re.search(r"^peak memory \d+ MiB$", out, re.MULTILINE)


def test_the_loss_of_a_step_is_the_loss_of_its_batch(cells):
    """The first loss is that of batch 0 under the first weights, computed here without the loop."""
    from tinyseg.data import Batches

    model = make_model()
    history = fit(model, cells, **{**SETTINGS, "steps": 1})
    batches = Batches(cells, 2, 0, make_augmentation("turns", 16), "standardise", 1)
    x, target = batches[0]
    expected = ops.binary_cross_entropy_with_logits(make_model().logits(Tensor(x)), target)
    assert history.losses == [expected.item()]
