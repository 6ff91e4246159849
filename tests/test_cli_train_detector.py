"""``tinyseg train maskrcnn`` and ``fasterrcnn``: what they write, and that every mistake is one line."""

import json
import re
import signal

import numpy as np
import pytest

from tinyseg import weights
from tinyseg.cli import main
from tinyseg.cli.detector_setup import Survey, anchor_sizes, survey
from tinyseg.cli.train_detector import DEFAULTS
from tinyseg.data import SyntheticShapes, write_mask, write_picture
from tinyseg.training import DetectorOptions, checkpoint, load_model

QUICK = ["--width", "4", "--steps", "2", "--batch", "1", "--steps-per-epoch", "1", "--quiet"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of four pictures and label pictures."""
    root = tmp_path_factory.mktemp("data")
    for name in ("images", "labels"):
        (root / name).mkdir()
    for i, sample in enumerate(SyntheticShapes(4, 64, radius=(8, 20), count=(1, 3))):
        write_picture(root / "images" / f"{i:02d}.png", sample.picture)
        write_mask(root / "labels" / f"{i:02d}.png", sample.instances, 256)
    return root


@pytest.fixture(scope="module")
def coco(data):
    """The same pictures as a COCO json file of two categories."""
    images, annotations = [], []
    for i, sample in enumerate(SyntheticShapes(4, 64, radius=(8, 20), count=(1, 3))):
        images.append({"id": 10 + i, "file_name": f"{i:02d}.png", "height": 64, "width": 64})
        for kind, (x1, y1, x2, y2) in zip(sample.classes, sample.boxes.tolist(), strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": 10 + i,
                    "category_id": 7 if kind == 1 else 30,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": 0,
                }
            )
    categories = [{"id": 7, "name": "disc"}, {"id": 30, "name": "other"}]
    path = data / "truth.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """A finished run on the folder."""
    out = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", "maskrcnn", "--data", str(data), "--val", "03", "--out", str(out), *QUICK]) == 0
    return out


@pytest.mark.parametrize("network, name", [("maskrcnn", "Mask R-CNN"), ("fasterrcnn", "Faster R-CNN")])
def test_help_explains(network, name, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", network, "--help"])
    out = capsys.readouterr().out
    assert stop.value.code == 0 and f"Train a {name}" in out and f"tinyseg train {network} --data nuclei" in out
    assert "{" not in out.split("options:")[0].split("Train a")[1]


def test_the_defaults_are_those_of_fit():
    options = DetectorOptions().as_dict()
    theirs = {"batch": "batch_size", "lr": "learning_rate", "clip": "clip_norm"}
    names = ("steps", "batch", "lr", "optimiser", "schedule", "warm_up", "weight_decay", "clip", "augment", "seed")
    for name in (*names, "steps_per_epoch"):
        assert DEFAULTS[name] == options[theirs.get(name, name)], name


def test_training_leaves_a_run(run):
    model, info = load_model(run / "best.safetensors", ("maskrcnn",))
    assert info["trained_on"] == ["00", "01", "02"] and info["class_names"] == ["background", "object"]
    assert info["config"]["backbone"] == "resnet18" and info["config"]["channels"] == 16
    assert info["config"]["box_batch_size_per_image"] == DEFAULTS["rois"] == 128
    assert info["config"]["min_size"] is None and info["normalisation"] == {"kind": "standardise"}
    command = checkpoint.load(run / "last.safetensors")["info"]["command"]
    assert command["network"] == "maskrcnn" and command["val"] == "03"
    assert info["config"]["anchor_sizes"] == [[size] for size in command["anchor_sizes"]]
    assert len(json.loads((run / "config.json").read_text())["anchor_sizes"]) == 5


def test_it_says_what_it_found_and_what_is_next(data, tmp_path, capsys):
    command = ["train", "maskrcnn", "--data", data, "--val-fraction", "0", "--out", tmp_path / "run", *QUICK[:-1]]
    assert main([str(part) for part in command]) == 0
    out = capsys.readouterr().out
    assert re.search(r"objects: \d+ seen, \d+ pixels across .*; anchors of 32, 64, 128, 256, 512 pixels follow", out)
    assert "note: no picture has more than one object; in label pictures" in out
    assert "training a Mask R-CNN (resnet18) on 4 pictures, without scoring it" in out
    assert "tinyseg predict --weights" in out


def test_resuming_needs_the_folder_only(run, capsys):
    before = (run / "best.safetensors").read_bytes()
    assert main(["train", "maskrcnn", "--out", str(run), "--resume"]) == 0
    assert "mask AP 0." in capsys.readouterr().out
    assert (run / "best.safetensors").read_bytes() == before


def test_resuming_with_other_settings_is_refused(run, fails):
    again = ["train", "maskrcnn", "--out", run, "--resume", "--quiet"]
    assert "steps was 2 and is 9" in fails(*again, "--steps", 9)
    assert "roi_op was align and is pool" in fails(*again, "--roi-op", "pool")
    line = fails("train", "fasterrcnn", "--out", run, "--resume", "--quiet")
    assert "holds a run of 'tinyseg train maskrcnn': go on with it by that command" in line
    assert "holds a run of 'tinyseg train maskrcnn'" in fails("train", "unet", "--out", run, "--resume", "--quiet")


def test_a_stopped_run_says_how_to_go_on(data, tmp_path, capsys, monkeypatch):
    from tinyseg.training.data_source import Source

    batch = Source.batch

    def stop_then_batch(self, step):
        signal.raise_signal(signal.SIGINT)
        return batch(self, step)

    monkeypatch.setattr(Source, "batch", stop_then_batch)
    out = tmp_path / "run"
    command = ["train", "fasterrcnn", "--data", str(data), "--val", "03", "--out", str(out), *QUICK]
    assert main(command) == 130
    err = capsys.readouterr().err
    assert "stopped after step 1 of 2" in err and "tinyseg train fasterrcnn --resume --out" in err
    monkeypatch.undo()
    assert main(["train", "fasterrcnn", "--resume", "--out", str(out), "--quiet"]) == 0
    assert checkpoint.load(out / "last.safetensors")["history"]["step"] == 2


def test_a_coco_file_gives_names_and_ids_of_classes(coco, data, tmp_path):
    command = ["train", "fasterrcnn", "--data", coco, "--pictures", data / "images", "--val-data", coco]
    options = ["--single-level", "--roi-op", "pool", "--anchor-sizes", "10,20,40", "--size", "48", "--val-most", "1"]
    assert main([str(part) for part in (*command, *options, "--out", tmp_path / "run", *QUICK)]) == 0
    model, info = load_model(tmp_path / "run" / "best.safetensors")
    assert info["kind"] == "fasterrcnn" and info["class_names"] == ["background", "disc", "other"]
    assert info["category_ids"] == [7, 30] and info["trained_on"] == ["00", "01", "02", "03"]
    config = info["config"]
    assert config["anchor_sizes"] == [[10, 20, 40]] and not config["fpn"] and config["roi_op"] == "pool"
    assert config["min_size"] == 48 and info["scores"]["box_ap"] is not None


def test_starting_from_weights(run, data, tmp_path, capsys):
    command = ["train", "maskrcnn", "--data", data, "--val", "03", "--anchor-sizes", "16,32,64,128,256"]
    command += ["--weights", run / "best.safetensors", "--out", tmp_path / "run", *QUICK[:-1], "--lr", "1e-12"]
    assert main([str(part) for part in command]) == 0
    assert "best.safetensors, all of it" in capsys.readouterr().out
    a, b = (weights.load(path / "best.safetensors") for path in (run, tmp_path / "run"))
    np.testing.assert_allclose(a["rpn.head.conv.0.0.weight"], b["rpn.head.conv.0.0.weight"], atol=1e-6)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--anchor-sizes", "8,x"], "argument --anchor-sizes: '8,x' is no list of numbers of at least 1"),
        (["--anchor-sizes", "8,16"], "--anchor-sizes has 2 sizes; expected 5, one for each level"),
        (["--backbone", "vgg"], "argument --backbone: invalid choice: 'vgg'"),
        (["--rois", "0"], "argument --rois: 0 is less than 1"),
        (["--size", "4"], "argument --size: 4 is less than 16"),
        (["--norm", "frozen"], "--norm frozen without --weights"),
        (["--weights", "absent.pth"], "absent.pth: no such file"),
        (["--val", "zz"], "'zz' chooses none of 4 pictures"),
        (["--labels", "labels"], "only one of --pictures and --labels was given"),
        (["--crop", "32"], "unrecognized arguments: --crop"),
        (["--val-data", "nowhere"], "nowhere is not there; expected a folder of data"),
    ],
)
def test_mistakes_are_one_line(data, tmp_path, fails, arguments, words):
    line = fails("train", "maskrcnn", "--data", data, "--out", tmp_path / "run", *QUICK, *arguments)
    assert words in line
    assert not (tmp_path / "run").exists()


def test_bad_data_are_one_line(data, coco, tmp_path, fails):
    out = ["--out", tmp_path / "run", *QUICK]
    assert "--data is missing" in fails("train", "maskrcnn", *out)
    command = ["train", "fasterrcnn", "--data", coco, "--pictures", data / "images"]
    assert "--labels was given with" in fails(*command, "--labels", data / "labels", *out)
    assert "--val-folder is for a json --val-data" in fails(*command, "--val-data", data, "--val-folder", data, *out)
    assert "expected the same classes" in fails(*command, "--val-data", data, *out)
    line = fails("train", "fasterrcnn", "--data", coco, *out)
    assert "does not have 4 of the 4 pictures" in line and line.endswith("give the folder of the pictures (--pictures)")
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    write_picture(tmp_path / "images" / "a.png", np.zeros((1, 32, 32)))
    write_mask(tmp_path / "labels" / "a.png", np.zeros((32, 32), np.uint8))
    command = ["train", "maskrcnn", "--data", tmp_path, "--val-fraction", "0", *out]
    assert "there is no object in 1 training pictures" in fails(*command)
    assert not (tmp_path / "run").exists()


def test_anchors_follow_from_the_objects():
    assert anchor_sizes(Survey(np.linspace(6, 25, 200), 50)) == (8, 16, 32, 64, 128)
    assert anchor_sizes(Survey(np.full(9, 45.0), 1)) == (32, 64, 128, 256, 512)
    assert anchor_sizes(Survey(np.linspace(9, 1000, 1000), 1))[0] == 128
    wide = anchor_sizes(Survey(np.array([10.0] * 50 + [900.0] * 50), 1))
    assert wide[0] == 8 and wide[-1] == 900
    assert anchor_sizes(Survey(np.array([16.0] * 20 + [64.0] * 20), 1), pyramid=False) == (16, 23, 32, 45, 64)


def test_the_survey_counts_objects_as_they_are_after_resizing():
    shapes = [*SyntheticShapes(3, 64, radius=(8, 20), count=(1, 3))]
    found, doubled = survey(shapes), survey(shapes, size=128)
    np.testing.assert_allclose(doubled.sides, 2 * found.sides)
    assert len(found.sides) == sum(len(sample.boxes) for sample in shapes)
    assert found.most == doubled.most == max(len(sample.boxes) for sample in shapes)
