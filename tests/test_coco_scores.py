"""Average precision: answers by hand, and the same numbers as plain pycocotools gives on random cases."""

import builtins
import contextlib
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from pycocotools import mask as mask_tools
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tinyseg import Tensor
from tinyseg.data import Sample
from tinyseg.data.run_lengths import RunLengthMasks
from tinyseg.evaluation import CocoScores

NONE = dict.fromkeys(("AP", "AP50", "AP75", "APs", "APm", "APl", "AR"))


def rectangles(boxes, height=60, width=80):
    """Return (K, H, W) bool: the pixels of whole-numbered boxes."""
    masks = np.zeros((len(boxes), height, width), bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[y1:y2, x1:x2] = True
    return masks


def truth(boxes, classes=None, height=60, width=80, **more):
    """Return a sample whose objects are rectangles that do not overlap."""
    boxes = np.array(boxes, int).reshape(-1, 4)
    instances = np.zeros((height, width), np.int32)
    for number, mask in enumerate(rectangles(boxes, height, width), 1):
        instances[mask] = number
    return Sample(
        np.zeros((1, height, width), np.float32),
        instances=instances,
        classes=np.ones(len(boxes), np.int64) if classes is None else np.array(classes, np.int64),
        boxes=boxes.astype(np.float32),
        **more,
    )


def found(boxes, scores, labels=None, height=60, width=80):
    """Return the detections of rectangles."""
    boxes = np.array(boxes, int).reshape(-1, 4)
    return {
        "boxes": boxes.astype(np.float32),
        "labels": np.ones(len(boxes), np.int64) if labels is None else np.array(labels, np.int64),
        "scores": np.array(scores, np.float32),
        "masks": rectangles(boxes, height, width),
    }


def summary(prediction, sample, **options):
    scores = CocoScores(**options)
    scores.update(prediction, sample)
    return scores.summary()


# ---- by hand -------------------------------------------------------------------------------------------------------


def test_one_hit_at_an_overlap_of_41_in_50_passes_seven_of_ten_thresholds():
    result = summary(found([[0, 0, 41, 10]], [0.3]), truth([[0, 0, 50, 10]]))
    for kind in ("box", "mask"):
        assert result[kind] == {
            "AP": pytest.approx(0.7, abs=1e-12),
            "AP50": pytest.approx(1, abs=1e-12),
            "AP75": pytest.approx(1, abs=1e-12),
            "APs": pytest.approx(0.7, abs=1e-12),  # 500 pixels are fewer than 32 x 32
            "APm": None,
            "APl": None,
            "AR": pytest.approx(0.7, abs=1e-12),
        }
    assert (result["pictures"], result["objects"], result["detections"]) == (1, 1, 1)


def test_a_false_alarm_halves_the_precision_only_where_it_scores_higher():
    sample = truth([[0, 0, 20, 20]])
    boxes = [[40, 40, 60, 60], [0, 0, 20, 20]]
    assert summary(found(boxes, [0.9, 0.8]), sample)["box"]["AP"] == pytest.approx(0.5, abs=1e-12)
    assert summary(found(boxes, [0.7, 0.8]), sample)["box"]["AP"] == pytest.approx(1, abs=1e-12)


def test_the_second_detection_of_an_object_is_a_false_alarm():
    sample = truth([[0, 0, 20, 20], [40, 40, 60, 60]])
    prediction = found([[0, 0, 20, 20], [0, 0, 20, 20], [40, 40, 60, 60]], [0.9, 0.8, 0.7])
    # precision 1 at the 51 recalls up to a half, 2/3 at the other 50
    assert summary(prediction, sample)["mask"]["AP50"] == pytest.approx((51 + 50 * 2 / 3) / 101, abs=1e-12)


def test_boxes_and_masks_are_scored_apart():
    prediction = found([[0, 0, 20, 20]], [0.9])
    prediction["masks"][:] = rectangles([[0, 0, 12, 20]])
    result = summary(prediction, truth([[0, 0, 20, 20]]))
    assert result["box"]["AP"] == pytest.approx(1, abs=1e-12)
    assert result["mask"]["AP"] == pytest.approx(0.3, abs=1e-12)  # overlap 0.6: thresholds 0.5, 0.55, 0.6


def test_detections_beyond_the_hundredth_count_up_to_the_number_asked_for():
    boxes = [[x, y, x + 4, y + 4] for y in range(0, 60, 6) for x in range(0, 90, 6)]
    sample, prediction = truth(boxes, width=90), found(boxes, np.linspace(0.9, 0.1, 150), width=90)
    assert summary(prediction, sample)["box"]["AP"] == pytest.approx(1, abs=1e-12)
    # 100 of 150: the recalls 0, 0.01, ..., 0.66
    limited = summary(prediction, sample, max_detections=100)
    assert limited["box"]["AP"] == limited["mask"]["AP"] == pytest.approx(67 / 101, abs=1e-12)
    assert limited["box"]["AR"] == pytest.approx(2 / 3, abs=1e-12)
    assert summary(prediction, sample, max_detections=1)["box"]["AR"] == pytest.approx(1 / 150, abs=1e-12)


def test_the_number_of_detections_counts_for_each_picture():
    scores = CocoScores(max_detections=1)
    for _ in range(3):
        scores.update(found([[0, 0, 20, 20]], [0.5]), truth([[0, 0, 20, 20]]))
    assert scores.summary()["box"]["AP"] == pytest.approx(1, abs=1e-12)


def test_sizes_are_of_the_true_mask_and_not_of_its_box():
    sample = truth([[0, 0, 40, 40]])
    sample.instances[20:] = 0  # 40 x 20 pixels are small; the box of 40 x 40 is not
    prediction = found([[0, 0, 40, 40]], [0.9])
    prediction["masks"][:] = sample.instance_masks
    result = summary(prediction, sample)
    for kind in ("box", "mask"):
        assert result[kind]["APs"] == pytest.approx(1, abs=1e-12) and result[kind]["APm"] is None
    without = Sample(sample.picture, classes=sample.classes, boxes=sample.boxes)
    result = summary(prediction, without)
    assert result["box"]["APm"] == pytest.approx(1, abs=1e-12) and result["box"]["APs"] is None
    assert "mask" not in result


def test_nothing_to_find_has_no_score():
    for prediction in (found([[0, 0, 9, 9]], [0.5]), found([], [])):
        result = summary(prediction, truth([]))
        assert result["box"] == result["mask"] == NONE
        assert result["objects"] == 0 and result["per_class"] == {}
    assert CocoScores().summary()["box"] == NONE


def test_nothing_found_is_zero_for_masks_too():
    result = summary(found([], []), truth([[0, 0, 9, 9]]))
    assert result["box"] == result["mask"] == {**NONE, "AP": 0, "AP50": 0, "AP75": 0, "APs": 0, "AR": 0}


def test_a_picture_without_objects_adds_its_false_alarms():
    scores = CocoScores()
    scores.update(found([[0, 0, 9, 9]], [0.9]), truth([]))
    scores.update(found([[0, 0, 9, 9]], [0.8]), truth([[0, 0, 9, 9]]))
    scores.update(found([], []), truth([]))
    assert scores.summary()["box"]["AP"] == pytest.approx(0.5, abs=1e-12)


def test_classes_are_averaged_and_told_apart():
    sample = truth([[0, 0, 20, 20], [40, 40, 60, 60]], [1, 3])
    prediction = found([[0, 0, 20, 20], [40, 40, 60, 60]], [0.9, 0.8], [1, 2])
    result = summary(prediction, sample, class_names=("background", "cell", "dust", "fibre"))
    assert result["box"]["AP"] == pytest.approx(0.5, abs=1e-12)  # dust is nowhere: it does not count
    per_class = {name: (entry["objects"], entry["box"]["AP"]) for name, entry in result["per_class"].items()}
    assert per_class == {"cell": (1, pytest.approx(1, abs=1e-12)), "dust": (0, None), "fibre": (1, 0)}
    assert list(summary(prediction, sample)["per_class"]) == ["class 1", "class 3"]


def test_names_come_from_the_samples_and_equal_ones_are_told_apart():
    sample = truth([[0, 0, 20, 20], [40, 40, 60, 60]], [1, 2], class_names=("background", "cell", "cell"))
    assert list(summary(found([], []), sample, category_ids=(7, 5))["per_class"]) == ["cell (5)", "cell (7)"]


def test_probabilities_count_from_the_threshold_on():
    sample = truth([[0, 0, 20, 20]])
    prediction = found([[0, 0, 20, 20]], [0.9])
    masks = prediction["masks"]
    for dtype in (np.float32, np.float64):
        prediction["masks"] = np.where(masks, 0.3, 0.2999).astype(dtype)[:, None]
        assert summary(prediction, sample, threshold=0.3)["mask"]["AP"] == pytest.approx(1, abs=1e-12)
        assert summary(prediction, sample, threshold=0.2)["mask"]["AP"] == 0
        assert summary(prediction, sample)["mask"]["AP"] == 0
    prediction["masks"] = masks.astype(np.uint8)
    assert summary(prediction, sample)["mask"]["AP"] == pytest.approx(1, abs=1e-12)


def test_tensors_are_as_good_as_arrays():
    sample, prediction = truth([[0, 0, 50, 10]]), found([[0, 0, 41, 10]], [0.3])
    prediction["masks"] = prediction["masks"].astype(np.float32)[:, None]
    tensors = {name: Tensor(array) for name, array in prediction.items()}
    assert summary(tensors, sample) == summary(prediction, sample)


# ---- against pycocotools -------------------------------------------------------------------------------------------

CATEGORIES = (4, 9, 17)


def random_case(rng, pictures=6, objects=(0, 8), extras=(0, 25)):
    """Return samples and predictions: overlapping masks, crowds, equal scores, pictures without one or the other."""
    samples, predictions = [], []
    for number in rng.permutation(1000)[:pictures]:
        height, width = rng.integers(40, 150, 2)

        def some_boxes(count, height=height, width=width):
            corners = rng.random((count, 2)) * (width - 4, height - 4)
            sizes = rng.uniform(3, 120, (count, 2))
            return np.concatenate([corners, np.minimum(corners + sizes, (width, height))], 1).astype(np.float32)

        count, extra = rng.integers(*objects), rng.integers(*extras)
        boxes = some_boxes(count)
        near = boxes[rng.random(count) < 0.8]
        near = near + rng.normal(0, 2, near.shape).astype(np.float32)
        near = np.concatenate([np.minimum(near[:, :2], near[:, 2:]), np.maximum(near[:, :2], near[:, 2:])], 1)
        all_found = np.concatenate([near, some_boxes(extra)])
        total = len(all_found)
        sample = Sample(
            np.zeros((3, height, width), np.float32),
            classes=rng.integers(1, 4, count),
            boxes=boxes,
            masks=ellipses(boxes, height, width),
            crowd=rng.random(count) < 0.2,
            image_id=int(number),
        )
        samples.append(sample)
        strength = rng.uniform(0.4, 1, (total, 1, 1)).astype(np.float32)
        predictions.append(
            {
                "boxes": all_found,
                "labels": rng.integers(1, 4, total),
                "scores": (rng.integers(0, 20, total) / 20).astype(np.float32),
                "masks": (ellipses(all_found, height, width) * strength)[:, None],
            }
        )
    return samples, predictions


def ellipses(boxes, height, width):
    """Return (K, H, W) bool: the ellipses in boxes."""
    y, x = np.mgrid[:height, :width] + 0.5
    x1, y1, x2, y2 = boxes.T[:, :, None, None]
    return ((x - (x1 + x2) / 2) / (x2 - x1)) ** 2 + ((y - (y1 + y2) / 2) / (y2 - y1)) ** 2 <= 0.25


def json_of(samples, predictions):
    """Return COCO's truth, and the results for boxes and for masks, written down without tinyseg."""
    images, annotations, boxes, masks = [], [], [], []

    def encode(mask):
        encoded = mask_tools.encode(np.array(mask, np.uint8, order="F"))
        return {"size": encoded["size"], "counts": encoded["counts"].decode()}

    for sample, prediction in zip(samples, predictions, strict=True):
        images.append({"id": sample.image_id, "height": sample.picture.shape[1], "width": sample.picture.shape[2]})
        for box, label, mask, crowd in zip(sample.boxes, sample.classes, sample.masks, sample.crowd, strict=True):
            x1, y1, x2, y2 = box.tolist()
            entry = {"id": len(annotations) + 1, "image_id": sample.image_id, "category_id": CATEGORIES[label - 1]}
            entry |= {"bbox": [x1, y1, x2 - x1, y2 - y1], "segmentation": encode(mask), "area": float(mask.sum())}
            annotations.append({**entry, "iscrowd": int(crowd)})
        for box, label, score, mask in zip(
            *(prediction[key] for key in ("boxes", "labels", "scores", "masks")), strict=True
        ):
            x1, y1, x2, y2 = box.tolist()
            entry = {"image_id": sample.image_id, "category_id": CATEGORIES[label - 1], "score": float(score)}
            boxes.append({**entry, "bbox": [x1, y1, x2 - x1, y2 - y1]})
            masks.append({**entry, "segmentation": encode(mask[0] >= np.float32(0.5))})
    truth = {"info": {}, "images": images, "annotations": annotations, "categories": [{"id": i} for i in CATEGORIES]}
    return json.dumps(truth), json.dumps(boxes), json.dumps(masks)


def plain(truth, results, kind, most=None):
    """Return an evaluated COCOeval, run as its own demonstration runs it."""
    with contextlib.redirect_stdout(io.StringIO()):
        table = COCO()
        table.dataset = json.loads(truth)
        table.createIndex()
        evaluation = COCOeval(table, table.loadRes(json.loads(results)), kind)
        if most is not None:
            evaluation.params.maxDets = [1, 100, most]
        evaluation.evaluate()
        evaluation.accumulate()
        if most is None:
            evaluation.summarize()
    return evaluation


def filled(samples, predictions, **options):
    scores = CocoScores(category_ids=CATEGORIES, **options)
    for sample, prediction in zip(samples, predictions, strict=True):
        scores.update(prediction, sample)
    return scores


@pytest.mark.parametrize("seed", range(8))
def test_the_numbers_are_those_of_pycocotools(seed):
    case = random_case(np.random.default_rng(seed))
    texts = json_of(*case)
    result = filled(*case, max_detections=100).summary()
    for kind, results, form in (("box", texts[1], "bbox"), ("mask", texts[2], "segm")):
        stats = plain(texts[0], results, form).stats
        expected = dict(zip(NONE, [*stats[:6], stats[8]], strict=True))
        assert result[kind] == {name: None if value == -1 else value for name, value in expected.items()}
        assert 0 < result[kind]["AP"] < 1


def test_with_many_detections_and_for_each_class_too():
    case = random_case(np.random.default_rng(9), 2, (60, 90), (400, 500))
    texts = json_of(*case)
    result = filled(*case, class_names=("background", "a", "b", "c")).summary()
    fewer = filled(*case, max_detections=100).summary()
    for kind, results, form in (("box", texts[1], "bbox"), ("mask", texts[2], "segm")):
        table = plain(texts[0], results, form, most=300).eval
        for k, name in enumerate("abc"):
            for score, values in (
                ("AP", table["precision"][:, :, k, 0, 2]),
                ("AP50", table["precision"][0, :, k, 0, 2]),
                ("AP75", table["precision"][5, :, k, 0, 2]),
                ("APs", table["precision"][:, :, k, 1, 2]),
                ("APm", table["precision"][:, :, k, 2, 2]),
                ("APl", table["precision"][:, :, k, 3, 2]),
                ("AR", table["recall"][:, k, 0, 2]),
            ):
                assert result["per_class"][name][kind][score] == (None if (values == -1).any() else values.mean())
        values = table["precision"][..., 0, 2]
        assert result[kind]["AP"] == values[values > -1].mean()
        assert result[kind] != fewer[kind]


def test_an_area_that_is_given_counts_instead_of_the_mask_s():
    sample = truth([[0, 0, 50, 10]])
    given = Sample(
        sample.picture, instances=sample.instances, classes=sample.classes, boxes=sample.boxes, areas=np.array([2000.0])
    )
    result = summary(found([[0, 0, 50, 10]], [0.9]), given)
    assert result["mask"]["APm"] == pytest.approx(1, abs=1e-12) and result["mask"]["APs"] is None


def test_masks_kept_as_run_lengths_are_as_good():
    samples, predictions = random_case(np.random.default_rng(7))
    kept = []
    for sample in samples:
        runs = [mask_tools.encode(np.asfortranarray(mask, np.uint8)) for mask in sample.masks]
        masks = RunLengthMasks(runs, sample.picture.shape[1:])
        kept.append(replace(sample, masks=masks, areas=np.asarray(sample.masks).sum((1, 2)).astype(float)))
    assert filled(kept, predictions).summary() == filled(samples, predictions).summary()


def test_what_lies_in_a_crowd_is_no_false_alarm():
    case = truth([[0, 0, 20, 20], [30, 0, 80, 60]])
    crowd = Sample(
        case.picture, instances=case.instances, classes=case.classes, boxes=case.boxes, crowd=np.array([False, True])
    )
    prediction = found([[0, 0, 20, 20], [40, 10, 50, 20], [60, 30, 70, 40]], [0.7, 0.9, 0.8])
    result = summary(prediction, crowd)
    assert result["box"]["AP"] == result["mask"]["AP"] == pytest.approx(1, abs=1e-12)
    assert result["objects"] == 1
    assert summary(prediction, case)["box"]["AP"] < 0.5


def test_a_picture_with_crowds_only_has_nothing_to_find():
    case = truth([[0, 0, 20, 20]])
    crowd = Sample(
        case.picture, instances=case.instances, classes=case.classes, boxes=case.boxes, crowd=np.array([True])
    )
    result = summary(found([[0, 0, 9, 9]], [0.5]), crowd)
    assert result["box"] == result["mask"] == NONE and result["objects"] == 0


def test_twice_the_same_and_silent(capsys):
    case = random_case(np.random.default_rng(5))
    scores = filled(*case)
    assert scores.summary() == scores.summary() == filled(*case).summary()
    assert json.loads(json.dumps(scores.summary())) == scores.summary()
    assert capsys.readouterr() == ("", "")


def test_the_order_of_pictures_does_not_matter():
    samples, predictions = random_case(np.random.default_rng(6))
    assert filled(samples, predictions).summary() == filled(samples[::-1], predictions[::-1]).summary()


# ---- mistakes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [0, 1.5, True])
def test_the_number_of_detections_is_checked(most):
    with pytest.raises(ValueError, match="max_detections is"):
        CocoScores(max_detections=most)


def test_a_picture_counts_once():
    sample = truth([[0, 0, 9, 9]], image_id=7)
    scores = CocoScores()
    scores.update(found([], []), sample)
    with pytest.raises(ValueError, match="picture 7 .* was added before"):
        scores.update(found([], []), sample)


def test_a_picture_without_truth_is_named_and_not_added():
    sample = truth([[0, 0, 9, 9]])
    scores = CocoScores()
    with pytest.raises(ValueError, match="picture 1 \\(07\\) has no true objects"):
        scores.update(found([[0, 0, 9, 9]], [0.5]), Sample(sample.picture, name="07"))
    scores.update(found([], []), sample)
    assert (scores.summary()["pictures"], scores.summary()["detections"]) == (1, 0)


def test_masks_are_in_all_predictions_or_in_none():
    scores, bare = CocoScores(), found([[0, 0, 9, 9]], [0.5])
    del bare["masks"]
    scores.update(bare, truth([[0, 0, 9, 9]]))
    assert "mask" not in scores.summary()
    with pytest.raises(ValueError, match="predictions before 'b' came without masks"):
        scores.update(found([[0, 0, 9, 9]], [0.5]), truth([], name="b"))


def test_masks_have_the_size_of_the_picture():
    with pytest.raises(ValueError, match=r"a mask of picture 1 \(\) is \[60, 80\] pixels .* expected \[60, 81\]"):
        summary(found([[0, 0, 9, 9]], [0.5]), truth([], width=81))


def test_a_class_beyond_the_data_set_s_is_an_error():
    with pytest.raises(ValueError, match="an object has class 4; expected 1 to 3"):
        summary(found([[0, 0, 9, 9]], [0.5], [4]), truth([]), category_ids=CATEGORIES)


def test_without_pycocotools_it_says_what_to_install(monkeypatch):
    true_import = builtins.__import__

    def fails(name, *arguments, **options):
        if name.startswith("pycocotools"):
            raise ImportError(name)
        return true_import(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", fails)
    with pytest.raises(ImportError, match=r"pip install 'tinyseg\[coco\]'"):
        CocoScores()
