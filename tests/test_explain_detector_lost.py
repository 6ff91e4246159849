"""Why an object was lost, on planted cases: what the heads say is written down, the choices are the detector's own."""

import numpy as np
import pytest

from tinyseg import Tensor, boxes, explain, models, nn
from tinyseg.models.heads import FastRCNNPredictor

F32 = np.float32
STRIDE, CELLS = 8, 8


class Nothing(nn.Module):
    """A backbone that sees nothing: one map of 8x8 cells for a picture of 64x64."""

    out_channels, pooled_names = 2, ("0",)

    def forward(self, x):
        return {"0": Tensor(np.zeros((len(x.array), 2, CELLS, CELLS), F32))}


class Said(nn.Module):
    """A head that says of each cell what it was told to say; one anchor of 16x16 pixels stands on each cell."""

    def __init__(self, logits, codes):
        super().__init__()
        self.logits, self.codes = np.full((1, 1, CELLS, CELLS), -10, F32), np.zeros((1, 4, CELLS, CELLS), F32)
        for (row, column), value in logits.items():
            self.logits[0, 0, row, column] = value
        for (row, column), value in codes.items():
            self.codes[0, :, row, column] = value

    def forward(self, maps):
        return [Tensor(self.logits)], [Tensor(self.codes)]


class SaidOfProposals(FastRCNNPredictor):
    """A predictor that says of proposal 0, 1, ... what it was told to say: probabilities, and codes of all classes."""

    def __init__(self, probabilities, codes):
        super().__init__(4, 3)
        self.probabilities, self.codes = probabilities, codes

    def forward(self, x):
        count = x.shape[0]
        logits, codes = np.zeros((count, 3), F32), np.zeros((count, 12), F32)
        logits[:] = np.log([0.98, 0.01, 0.01])
        for row, values in enumerate(self.probabilities[:count]):
            logits[row] = np.log(np.array(values, F32))
        for row, values in self.codes.items():
            codes[row] = np.tile(values, 3)
        return Tensor(logits), Tensor(codes)


def anchor(row, column):
    """Return the anchor of a cell."""
    x, y = STRIDE * column, STRIDE * row
    return [x - 8, y - 8, x + 8, y + 8]


def look(truth, logits, *, codes=(), classes=((0.1, 0.8, 0.1),), class_codes=(), label=1, **options):
    """Return the x-ray of a detector whose heads say so; the best proposal is number 0."""
    detector = models.FasterRCNN(
        Nothing(), 3, min_size=None, max_size=None, image_mean=(0, 0, 0), image_std=(1, 1, 1), representation_size=4,
        size_divisible=1, rpn_anchor_generator=boxes.AnchorGenerator(((16,),), ((1.0,),)),
        **{"rpn_score_thresh": 0.01, **options},
    )  # fmt: skip
    detector.rpn.head = Said(logits, dict(codes))
    detector.roi_heads.box_predictor = SaidOfProposals(classes, dict(class_codes))
    target = {"boxes": np.array([truth], F32), "labels": np.array([label])}
    return explain.detector(detector, np.zeros((3, 64, 64), F32), target, class_names=("background", "disc", "star"))


def check(xray, stage, reason, *words):
    lost = xray.lost(0)
    assert (lost.number, lost.stage, lost.reason) == (0, stage, reason)
    assert all(word in lost.text for word in words), lost.text
    assert str(lost) == f"object 0: {lost.text}" and str(lost) in str(xray)
    assert xray[stage].recall[0.5] == (1.0 if reason == "found" else 0.0)
    return lost


def test_found():
    lost = check(look(anchor(3, 4), {(3, 4): 2}), "found", "found", "score of 0.80", "overlap of 1.00")
    assert lost.row == 0 and lost.iou == 1 and lost.by is None


def test_no_anchor():
    lost = check(look([30, 30, 38, 38], {(4, 4): 2}), "anchors", "no anchor", "the best by 0.25", "size and shape")
    assert lost.iou == 0.25  # 8x8 pixels inside 16x16
    assert look([30, 30, 38, 38], {(4, 4): 2}).lost(0, iou=0.25).reason == "found"


def test_scored_too_low():
    xray = look(anchor(3, 4), {(3, 4): 0, (1, 1): 3, (6, 6): 2, (1, 6): 1}, rpn_pre_nms_top_n_test=2)
    lost = check(xray, "top", "scored too low", "rank 4 of the 64 on map 0, and 2 go on", "score is 0.500")
    assert lost.row == 3 * CELLS + 4


def test_moved_away_by_the_first_stage():
    xray = look(anchor(3, 4), {(3, 4): 2}, codes={(3, 4): (1, 0, 0, 0)})  # by its own width
    check(xray, "refined", "moved away", "covered it with 1.00", "the best by 0.33")  # its neighbours, half of it


def test_moved_onto_the_object_counts():
    shifted = np.array(anchor(3, 4)) + [16, 0, 16, 0]
    xray = look(shifted, {(3, 4): 2}, codes={(3, 4): (1, 0, 0, 0)})
    assert xray["proposals"].recall[0.5] == 1 and xray.lost(0).reason == "found"


def test_cut_off():
    check(look(anchor(0, 0), {(0, 0): 2}), "clipped", "cut off", "reaches beyond the picture")


def test_too_small():
    xray = look(anchor(3, 4), {(3, 4): 2})
    xray.model.rpn.min_size = 20.0
    again = explain.detector(xray.model, xray.picture, {name: xray.truth[name] for name in ("boxes", "labels")})
    check(again, "large", "too small", "has only 16x16 pixels")


def test_below_the_first_threshold():
    check(look(anchor(3, 4), {(3, 4): -1}, rpn_score_thresh=0.5), "likely", "below the threshold",
          "score of 0.269; 0.5 is the least")  # fmt: skip


def test_suppressed_by_a_proposal():
    xray = look(anchor(3, 4), {(3, 4): 2, (3, 5): 3, (6, 1): 4}, rpn_nms_thresh=0.3)
    lost = check(xray, "nms", "suppressed", "score 0.88", "by box 1 (score 0.95)", "by 0.33, more than 0.3")
    assert lost.by == 1  # half of each: a third of both; box 0 is elsewhere
    np.testing.assert_array_equal(xray["nms"].boxes[lost.by], anchor(3, 5))
    np.testing.assert_array_equal(xray["likely"].boxes[lost.row], anchor(3, 4))


def test_beyond_the_limit_of_proposals():
    xray = look(anchor(3, 4), {(3, 4): 1, (1, 1): 3, (6, 6): 2}, rpn_post_nms_top_n_test=2)
    check(xray, "proposals", "beyond the limit", "is number 3 of 3, and 2 go on")


def test_moved_away_by_the_second_stage():
    xray = look(anchor(3, 4), {(3, 4): 2}, class_codes={0: (10, 0, 0, 0)})  # divided by 10: by its own width
    check(xray, "class_boxes", "moved away", "as disc", "covered it with 1.00", "the best by 0.00")


def test_wrong_class():
    xray = look(anchor(3, 4), {(3, 4): 2}, classes=[(0.08, 0.02, 0.9)])
    check(xray, "threshold", "wrong class", "0.020 as disc, not above 0.05", "taken for star (0.90)")
    assert look(anchor(3, 4), {(3, 4): 2}, classes=[(0.08, 0.02, 0.9)], label=2).lost(0).reason == "found"


def test_taken_for_background():
    check(look(anchor(3, 4), {(3, 4): 2}, classes=[(0.95, 0.03, 0.02)]), "threshold", "below the threshold",
          "0.030 as disc, not above 0.05; for the background it is 0.95")  # fmt: skip


def test_suppressed_by_a_detection():
    two = [(0.05, 0.9, 0.05), (0.3, 0.6, 0.1)]
    xray = look(anchor(3, 4), {(3, 4): 2, (3, 5): 3}, classes=two, box_nms_thresh=0.3)
    lost = check(xray, "class_nms", "suppressed", "score 0.60", "by box 0 (score 0.90)", "but the object by 0.33")
    assert lost.by == 0
    others = [(0.05, 0.05, 0.9), (0.3, 0.6, 0.1)]  # a neighbour of another class suppresses nothing
    assert look(anchor(3, 4), {(3, 4): 2, (3, 5): 3}, classes=others, box_nms_thresh=0.3).lost(0).reason == "found"


def test_beyond_the_limit_of_detections():
    two = [(0.05, 0.9, 0.05), (0.3, 0.6, 0.1)]
    xray = look(anchor(3, 4), {(3, 4): 2, (6, 6): 3}, classes=two, box_detections_per_img=1)
    check(xray, "detections", "beyond the limit", "is number 2 of", "and 1 go on")


def test_mistakes():
    xray = look(anchor(3, 4), {(3, 4): 2})
    for number in (1, -1, 0.5, "0"):
        with pytest.raises(ValueError, match=r"number is .*; expected a whole number from 0 to 0"):
            xray.lost(number)
    with pytest.raises(ValueError, match="iou is 2; expected above 0 and at most 1"):
        xray.lost(0, iou=2)
    without = explain.detector(xray.model, xray.picture)
    with pytest.raises(ValueError, match="target was left out"):
        without.lost(0)
