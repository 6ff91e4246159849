"""``tinyseg evaluate`` with detectors, and with files of detections."""

import csv
import json

import numpy as np
import pytest

from tinyseg import manual_seed, models, no_grad
from tinyseg.cli import main
from tinyseg.cli.evaluate_objects import csv_text, table
from tinyseg.data import SyntheticShapes, write_picture
from tinyseg.data.pictures import save
from tinyseg.data.run_lengths import mask_tools
from tinyseg.evaluation import CocoScores, evaluate_detector, read_results, to_results, write_results
from tinyseg.training import save_model

SIZE = 48
ANCHORS = tuple((size,) for size in (8, 16, 32, 64, 128))
FEW = {"box_score_thresh": 0.0, "box_detections_per_img": 20, "rpn_post_nms_top_n_test": 30}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of three pictures with label pictures."""
    root = tmp_path_factory.mktemp("objects")
    for name in ("images", "labels"):
        (root / name).mkdir()
    for i in range(3):
        sample = SyntheticShapes(3, SIZE)[i]
        write_picture(root / "images" / f"{i:02d}.png", sample.picture)
        save(root / "labels" / f"{i:02d}.png", sample.instances.astype(np.uint16))
    return root


@pytest.fixture(scope="module")
def dataset(data):
    from tinyseg.data import FolderDataset

    return FolderDataset(data / "images", data / "labels", channels=3, instances=True)


def network(classes=2, **options):
    """Return a small detector with random weights that keeps whatever it finds."""
    manual_seed(0)
    return models.mask_rcnn(classes, anchor_sizes=ANCHORS, **FEW, **options)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "best.safetensors"
    save_model(path, network(), {"class_names": ["background", "cell"], "trained_on": ["01", "77"]})
    return path


def call(*arguments):
    return main([str(argument) for argument in arguments])


def answers(dataset, ids=True):
    """Return the truth as results: the boxes of all objects, the masks of all, scores falling."""
    entries = []
    for number, sample in enumerate(dataset, 1):
        prediction = {"boxes": sample.boxes, "labels": sample.classes, "masks": sample.instance_masks}
        found = to_results({**prediction, "scores": np.linspace(1, 0.5, len(sample.classes))}, number)
        entries += found if ids else [{**entry, "file_name": f"{sample.name}.png"} for entry in found]
    return entries


# ---- results files -------------------------------------------------------------------------------------------------


def test_the_truth_as_results_is_perfect(data, dataset, tmp_path, capsys):
    write_results(tmp_path / "found.json", answers(dataset))
    assert call("evaluate", "--results", tmp_path / "found.json", "--data", data, "--out", tmp_path / "scores") == 0
    out = capsys.readouterr().out
    scores = json.loads((tmp_path / "scores" / "scores.json").read_text())
    assert scores["box"]["AP"] == scores["mask"]["AP"] == pytest.approx(1, abs=1e-9)
    assert scores["pictures"] == 3
    assert scores["objects"] == scores["detections"] == sum(len(sample.classes) for sample in dataset) > 3
    assert scores["results"] == str((tmp_path / "found.json").resolve()) and scores["data"] == str(data.resolve())
    assert f"all  {scores['objects']:>9}  mask    1.0000  1.0000  1.0000" in out
    with open(tmp_path / "scores" / "scores.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["class"], row["kind"], float(row["AP50"])) for row in rows] == [
        ("all", "box", pytest.approx(1)),
        ("all", "mask", pytest.approx(1)),
    ]
    assert rows[0]["APl"] == "" and scores["box"]["APl"] is None


def test_some_pictures_of_a_results_file(data, dataset, tmp_path, capsys, fails):
    path = tmp_path / "found.json"
    command = ["evaluate", "--results", path, "--data", data, "--out", tmp_path / "scores"]
    for ids in (True, False):
        write_results(path, answers(dataset, ids))
        assert call(*command, "--val", "01-02") == 0
        scores = json.loads((tmp_path / "scores" / "scores.json").read_text())
        assert (scores["pictures"], scores["mask"]["AP50"]) == (2, pytest.approx(1))
    write_results(path, [{**entry, "image_id": entry["image_id"] + 1} for entry in answers(dataset)])
    assert "detections of 1 pictures that the data set does not have: 4" in fails(*command)


def test_detections_of_unknown_categories_are_mentioned(data, dataset, tmp_path, capsys):
    write_results(tmp_path / "found.json", [{**entry, "category_id": 8} for entry in answers(dataset)])
    assert call("evaluate", "--results", tmp_path / "found.json", "--data", data, "--out", tmp_path / "scores") == 0
    assert "the data have no category 8" in capsys.readouterr().out
    assert json.loads((tmp_path / "scores" / "scores.json").read_text())["box"]["AP"] == 0


def test_mistakes_are_one_line(data, dataset, weights, tmp_path, fails):
    path = tmp_path / "found.json"
    assert "not there" in fails("evaluate", "--results", path, "--data", tmp_path / "absent") or not path.exists()
    path.write_text('[{"image_id": 1}]')
    assert f"{path}: detection 0 has no 'category_id'" in fails("evaluate", "--results", path, "--data", data)
    write_results(path, answers(dataset))
    assert "--data is missing" in fails("evaluate", "--results", path)
    assert "--tile goes with --weights" in fails("evaluate", "--results", path, "--data", data, "--tile", 64)
    assert "not allowed with" in fails("evaluate", "--results", path, "--weights", weights, "--data", data)
    assert "one of the arguments --weights --results is required" in fails("evaluate", "--data", data)
    assert "--tile is for U-Nets" in fails("evaluate", "--weights", weights, "--data", data, "--tile", 64)
    many = tmp_path / "many.safetensors"
    save_model(many, network(4))
    assert "the network tells 3 classes of objects apart; the data have 1" in fails(
        "evaluate", "--weights", many, "--data", data
    )


# ---- a network -----------------------------------------------------------------------------------------------------


def test_a_detector_is_scored_and_its_detections_saved(data, dataset, weights, tmp_path, capsys):
    command = ["evaluate", "--data", data, "--val", "01", "--out", tmp_path / "scores", "--max-objects", 7]
    assert call(*command, "--weights", weights) == 0
    printed = capsys.readouterr().out
    scores = json.loads((tmp_path / "scores" / "scores.json").read_text())
    assert scores["max_detections"] == scores["detections"] == 7
    assert "trained on pictures of 1 of these names (01" in printed
    assert scores["objects"] == scores["per_class"]["object"]["objects"] == len(dataset[1].classes)
    assert f"all  {scores['objects']:>9}  box" in printed
    found = tmp_path / "scores" / "detections.json"
    entries = read_results(found)
    assert len(entries) == 7 and {entry["image_id"] for entry in entries} == {2}
    # and scored again, from the file
    assert call(*command, "--results", found) == 0
    again = json.loads((tmp_path / "scores" / "scores.json").read_text())
    assert (again["box"], again["mask"]) == (scores["box"], scores["mask"])


def test_masks_are_those_of_the_plain_call(dataset):
    model, sample = network().eval(), dataset[0]
    scores = evaluate_detector(model, [sample], threshold=0.4)
    plain = CocoScores(threshold=0.4)
    with no_grad():  # as the evaluation: batch norms folded into the convolutions round in another place
        plain.update(model([sample.picture])[0], sample)
    assert scores.results() == plain.results()
    assert len(plain.results()) == 20 and any(mask_tools().area(entry["segmentation"]) for entry in plain.results())


def test_a_detector_without_masks_has_box_scores_only(dataset):
    manual_seed(0)
    model = models.faster_rcnn(2, anchor_sizes=ANCHORS, **FEW)
    summary = evaluate_detector(model.train(), [dataset[0]]).summary()
    assert model.training and "mask" not in summary and summary["detections"] > 0
    assert [line.split()[2] for line in table(summary).splitlines()[2:]] == ["box"]


# ---- the table -----------------------------------------------------------------------------------------------------


def test_the_table_by_hand():
    scores = {"AP": 0.7, "AP50": 1.0, "AP75": 1.0, "APs": 0.7, "APm": None, "APl": None, "AR": 0.7}
    entry = {"objects": 1, "box": scores}
    summary = {"pictures": 1, "objects": 2, "detections": 3, "max_detections": 300, "box": scores}
    summary["per_class"] = {"cell": entry, "none": {**entry, "objects": 0}, "dust": entry}
    assert table(summary).splitlines() == [
        "1 pictures, 2 objects, 3 detections (up to 300 of a picture and class count)",
        "class  objects              AP    AP50    AP75   small  medium   large      AR",
        "all          2  box     0.7000  1.0000  1.0000  0.7000       -       -  0.7000",
        "cell         1  box     0.7000  1.0000  1.0000  0.7000       -       -  0.7000",
        "dust         1  box     0.7000  1.0000  1.0000  0.7000       -       -  0.7000",
    ]
    assert csv_text(summary).splitlines()[:2] == [
        "class,objects,kind,AP,AP50,AP75,APs,APm,APl,AR",
        "all,2,box,0.7,1.0,1.0,0.7,,,0.7",
    ]


def test_the_table_says_that_there_are_no_objects():
    lines = table(CocoScores().summary()).splitlines()
    assert lines[-1] == "no objects in these pictures: there is nothing to score"
    assert lines[2].split() == ["all", "0", "box", *"-------"]
