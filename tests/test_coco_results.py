"""Detections in COCO's results format: what is written, what is read back, and every mistake in one line."""

import json
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as mask_tools
from pycocotools.coco import COCO

from tinyseg import Tensor, nn
from tinyseg.data import Sample, SyntheticShapes
from tinyseg.evaluation import (
    CocoScores,
    evaluate_detector,
    evaluate_results,
    read_results,
    to_results,
    write_results,
)
from tinyseg.evaluation.coco_results import run_lengths

MASK = np.array([[0, 1, 1], [0, 1, 0]], bool)
ENTRY = {
    "image_id": 7,
    "category_id": 5,
    "bbox": [1.0, 0.0, 2.0, 1.5],
    "score": 0.5,
    "segmentation": {"size": [2, 3], "counts": [2, 3, 1]},
}


def prediction():
    return {
        "boxes": np.array([[1, 0, 3, 1.5]], np.float32),
        "labels": np.array([2]),
        "scores": np.array([0.5], np.float32),
        "masks": MASK[None, None].astype(np.float32),
    }


def compressed(mask):
    return mask_tools.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()


def decoded(run_lengths):
    """Return the pixels that pycocotools reads; it warns, as its arrays are older than NumPy 2's rules for copies."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return mask_tools.decode(run_lengths)


# ---- writing -------------------------------------------------------------------------------------------------------


def test_one_detection_by_hand():
    (entry,) = to_results(prediction(), 7, category_ids=(3, 5))
    assert entry == {**ENTRY, "segmentation": {"size": [2, 3], "counts": compressed(MASK)}}
    assert json.loads(json.dumps(entry)) == entry
    (entry,) = to_results({**prediction(), "masks": None}, 7)
    assert entry == {"image_id": 7, "category_id": 2, "bbox": [1.0, 0.0, 2.0, 1.5], "score": 0.5}
    assert to_results({name: array[:0] for name, array in prediction().items()}, 7) == []


@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9)))
def test_run_lengths_are_read_back_as_the_same_pixels(mask):
    encoded = run_lengths(mask)
    assert encoded["size"] == list(mask.shape)
    np.testing.assert_array_equal(decoded(encoded), mask)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"boxes": None}, "boxes has shape"),
        ({"boxes": np.zeros((2, 4))}, r"boxes has shape \(2, 4\); expected \(1, 4\) as there are 1 scores"),
        ({"labels": np.array([0])}, "an object has class 0; expected 1 to"),
        ({"labels": np.array([[1]])}, "labels has shape"),
        ({"scores": np.array([np.nan])}, "scores holds a number that is not finite"),
        ({"boxes": np.array([[0, 0, np.inf, 1]])}, "boxes holds a number that is not finite"),
        ({"boxes": np.array([[3.0, 0, 1, 1]])}, r"boxes has \[3.0, 0.0, 1.0, 1.0\] in row 0; expected x1 <= x2"),
        ({"masks": MASK[None, :, :, None]}, r"masks has shape \(1, 2, 3, 1\); expected \(1, H, W\) or"),
        ({"masks": np.stack([MASK, MASK])}, r"masks has shape \(2, 2, 3\)"),
    ],
)
def test_a_wrong_prediction_is_named(change, words):
    with pytest.raises(ValueError, match=words):
        to_results({**prediction(), **change}, 7)


def test_other_mistakes_in_predictions():
    wrong = prediction()
    with pytest.raises(TypeError, match="labels has dtype float64; expected whole numbers"):
        to_results({**wrong, "labels": np.array([1.0])}, 7)
    del wrong["labels"]
    with pytest.raises(ValueError, match="the prediction has no 'labels'; it has 'boxes', 'scores', 'masks'"):
        to_results(wrong, 7)


def test_pycocotools_reads_what_was_written(tmp_path, capsys):
    path = tmp_path / "results.json"
    write_results(path, to_results(prediction(), 7, (3, 5)))
    truth = COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": 7, "height": 2, "width": 3}],
        "categories": [{"id": 5}],
        "annotations": [],
    }
    truth.createIndex()
    found = truth.loadRes(str(path))
    np.testing.assert_array_equal(decoded(found.anns[1]["segmentation"]), MASK)
    assert found.anns[1]["area"] == 3.0  # of the box: loadRes goes by that
    capsys.readouterr()


# ---- reading -------------------------------------------------------------------------------------------------------


def test_results_are_read_as_they_were_written(tmp_path):
    path = tmp_path / "results.json"
    entries = [entry for i in range(3) for entry in to_results(prediction(), i)]
    for written in (entries, [{**entry, "file_name": "a.png"} for entry in entries], []):
        write_results(path, written)
        assert read_results(path) == written


def test_plain_run_lengths_and_missing_boxes_are_filled_in(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps([{key: value for key, value in ENTRY.items() if key != "bbox"}]))
    (entry,) = read_results(path)
    assert entry["bbox"] == [1.0, 0.0, 2.0, 2.0]
    np.testing.assert_array_equal(decoded(entry["segmentation"]), MASK)


@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40)))
def test_any_mask_passes_the_reader(mask):
    from tinyseg.evaluation.coco_results import _checked_run_lengths

    assert _checked_run_lengths(run_lengths(mask)) == run_lengths(mask)


@given(st.text(st.characters(min_codepoint=40, max_codepoint=120), max_size=8))
def test_no_text_for_run_lengths_reaches_pycocotools_unless_it_counts_the_pixels(text):
    from tinyseg.evaluation.coco_results import _checked_run_lengths

    try:
        result = _checked_run_lengths({"size": [2, 3], "counts": text})
    except ValueError as error:
        assert str(error).startswith("has run-lengths whose counts ")
    else:
        assert decoded(result).shape == (2, 3)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"image_id": None}, "has image_id null; expected a whole number"),
        ({"image_id": True}, "has image_id true"),
        ({"category_id": "cell"}, 'has category_id "cell"'),
        ({"score": "high"}, 'has score "high"; expected a number'),
        ({"score": float("nan")}, "has score NaN"),
        ({"bbox": [1, 2, 3]}, r"has bbox \[1, 2, 3\]; expected \[x, y, width, height\]"),
        ({"bbox": [1, 2, -3, 4]}, r"has bbox \[1, 2, -3, 4\]"),
        ({"bbox": [1, 2, 3, float("inf")]}, "has bbox"),
        ({"segmentation": [[0, 0, 1, 1, 1, 0]]}, r"has segmentation \[\[0, 0, 1, 1, 1, 0\]\]; expected run-lengths"),
        ({"segmentation": {"size": [2], "counts": "0"}}, "has segmentation"),
        ({"segmentation": {"size": [-2, -3], "counts": [2, 3, 1]}}, "has segmentation"),
        ({"segmentation": {"size": [2, 3], "counts": [2, 3]}}, "has run-lengths whose counts "),
        ({"segmentation": {"size": [2, 3], "counts": [7, -1]}}, "has run-lengths whose counts "),
        (
            {"segmentation": {"size": [3, 3], "counts": compressed(MASK)}},
            "has run-lengths whose counts count 6 pixels, not the 3 x 3",
        ),
        ({"segmentation": {"size": [2, 3], "counts": "PPP"}}, "has run-lengths whose counts "),
        ({"segmentation": {"size": [2, 3], "counts": "ä"}}, "has run-lengths whose counts "),
    ],
)
def test_a_wrong_entry_is_named(tmp_path, change, words):
    path = tmp_path / "results.json"
    path.write_text(json.dumps([ENTRY, {**ENTRY, **change}]))
    with pytest.raises(ValueError, match=f"results.json: detection 1 {words}") as caught:
        read_results(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize("key", ["image_id", "category_id", "score", "segmentation", "bbox"])
def test_a_missing_key_is_named(tmp_path, key):
    path = tmp_path / "results.json"
    less = {name: value for name, value in ENTRY.items() if name not in (key, "segmentation")}
    path.write_text(json.dumps([ENTRY, less]))
    with pytest.raises(ValueError, match=f"detection 1 has no '{key}'"):
        read_results(path)


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "is no JSON"),
        ("[1, ", "is no JSON"),
        ("[" * 100000, "is no JSON"),
        ('{"annotations": []}', "is no list of detections, .*; this is the truth of a data set"),
        ("7", "is no list of detections"),
        ("[7]", "detection 0 is 7; expected an object with 'image_id'"),
    ],
)
def test_another_file_is_named(tmp_path, text, words):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"results.json:? {words}"):
        read_results(path)
    path.write_bytes(b"\xff\x00")
    with pytest.raises(ValueError, match="is no JSON"):
        read_results(path)


# ---- a data set ----------------------------------------------------------------------------------------------------


class Repeats(nn.Module):
    """A detector that knows the answers, and keeps what it was shown."""

    def __init__(self, samples):
        super().__init__()
        self.samples, self.seen = list(samples), []

    def forward(self, pictures):
        assert not self.training and len(pictures) == 1
        assert not (Tensor(np.ones(1), requires_grad=True) * 2.0).requires_grad  # nothing is taped
        sample = self.samples[len(self.seen)]
        self.seen.append(np.asarray(pictures[0]))
        masks = sample.instance_masks[:, None].astype(np.float32)
        scores = np.linspace(1, 0.5, len(sample.classes), dtype=np.float32)
        found = {"boxes": sample.boxes, "labels": sample.classes, "scores": scores, "masks": masks}
        return [{name: Tensor(array) for name, array in found.items()}]


@pytest.fixture(scope="module")
def shapes():
    return [SyntheticShapes(4, 48)[i] for i in range(4)]


def test_a_detector_that_knows_the_answers_is_perfect(shapes):
    model, calls = Repeats(shapes).train(), []
    scores = evaluate_detector(
        model, shapes, normalisation="standardise", before_picture=lambda done, total: calls.append((done, total))
    )
    summary = scores.summary()
    for score in ("AP", "AP50", "AP75", "AR"):
        assert summary["box"][score] == summary["mask"][score] == pytest.approx(1, abs=1e-12)
    assert summary["objects"] == sum(len(sample.classes) for sample in shapes) > 4
    assert list(summary["per_class"]) == list(shapes[0].class_names[1:])
    assert calls == [(0, 4), (1, 4), (2, 4), (3, 4)]
    assert model.training
    assert all(abs(picture.mean()) < 1e-5 and picture.std() == pytest.approx(1, abs=1e-4) for picture in model.seen)


def test_pictures_are_shown_as_they_are_without_a_normalisation(shapes):
    model = Repeats(shapes)
    evaluate_detector(model, shapes)
    for shown, sample in zip(model.seen, shapes, strict=True):
        np.testing.assert_array_equal(shown, sample.picture)


def test_the_mode_is_restored_and_the_bar_closed_when_something_fails(shapes, capsys):
    model = Repeats(shapes[:2]).train()
    with pytest.raises(IndexError):
        evaluate_detector(model, shapes, progress=True)
    assert model.training
    assert capsys.readouterr().out == ""


def test_a_results_file_scores_as_the_detector_did(shapes, tmp_path):
    direct = evaluate_detector(Repeats(shapes), shapes)
    direct.write_results(tmp_path / "results.json")
    entries = read_results(tmp_path / "results.json")
    assert [entry["image_id"] for entry in entries] == sorted(entry["image_id"] for entry in direct.results())
    again = evaluate_results(entries, shapes)
    assert again.summary() == direct.summary()
    assert again.results() == direct.results() == entries


def test_detections_of_unknown_pictures_are_named(shapes):
    entry = {"image_id": 99, "category_id": 1, "bbox": [0.0, 0.0, 1.0, 1.0], "score": 0.5}
    with pytest.raises(ValueError, match="detections of 1 pictures that the data set does not have: 99"):
        evaluate_results([entry], shapes)
    assert evaluate_results([entry], shapes, others=True).summary()["detections"] == 0


def test_names_of_files_find_pictures_whatever_their_ids(shapes):
    entries = evaluate_detector(Repeats(shapes), shapes).results()
    expected = evaluate_detector(Repeats(shapes), shapes)
    names = {number: f"{sample.name}.png" for number, sample in enumerate(shapes, 1)}
    moved = [{**e, "file_name": names[e["image_id"]], "image_id": 5 - e["image_id"]} for e in entries]
    again = evaluate_results(moved, shapes)
    assert again.summary() == expected.summary() and again.results() == entries
    part = evaluate_results(moved, shapes[2:], others=True)
    assert part.summary()["objects"] == sum(len(sample.classes) for sample in shapes[2:])
    assert part.summary()["box"]["AP50"] == pytest.approx(1, abs=1e-12)


def test_pages_of_one_file_are_told_apart_by_their_ids(shapes):
    entries = [{**entry, "file_name": "stack.tif"} for entry in evaluate_detector(Repeats(shapes), shapes).results()]
    assert evaluate_results(entries, shapes).summary()["mask"]["AP50"] == pytest.approx(1, abs=1e-12)


def test_masks_of_another_size_are_named(shapes):
    entry = {"image_id": 1, "category_id": 1, "bbox": [0.0, 0.0, 1.0, 1.0], "score": 0.5}
    entry["segmentation"] = run_lengths(MASK)
    with pytest.raises(ValueError, match=r"a mask of picture 1 .* is \[2, 3\] pixels"):
        evaluate_results([entry], shapes)


def test_category_ids_of_the_data_set_are_used(shapes):
    class Numbered(list):
        category_ids = (40, 20, 30)
        class_names = ("background", "x", "y", "z")

    scores = evaluate_detector(Repeats(shapes), Numbered(shapes))
    assert {entry["category_id"] for entry in scores.results()} <= {20, 30, 40}
    used = sorted({int(c) for sample in shapes for c in sample.classes})
    assert {entry["category_id"] for entry in scores.results()} == {Numbered.category_ids[c - 1] for c in used}
    assert set(scores.summary()["per_class"]) == {"x", "y", "z"}


def test_image_ids_of_samples_are_used():
    sample = Sample(np.zeros((1, 2, 3), np.float32), classes=np.zeros(0, np.int64), boxes=np.zeros((0, 4)), image_id=12)
    scores = CocoScores()
    scores.update(prediction(), sample)
    assert [entry["image_id"] for entry in scores.results()] == [12]
