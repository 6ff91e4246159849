"""The detector x-ray: what it shows is the model's own run, its counts and recall are right, and nothing changes."""

import json

import numpy as np
import pytest

import tinyseg
from tinyseg import explain, models, ops, random
from tinyseg.explain.detectors.stages import DetectorStage, places, recall_of
from tinyseg.watching import tell, watching

F32 = np.float32
#: Stages with boxes, in order.
FILTERS = [
    ("top", "refined"), ("refined", "clipped"), ("clipped", "large"), ("large", "nms"), ("nms", "proposals"),
    ("class_boxes", "threshold"), ("threshold", "class_large"), ("class_large", "class_nms"),
    ("class_nms", "detections"), ("detections", "found"),
]  # fmt: skip


def tiny(kind="mask", fpn=True, **options):
    random.manual_seed(0)
    sizes = [[8], [16], [32], [64], [128]] if fpn else [[8, 16, 32, 64, 128]]
    small = {"width": 4, "channels": 8, "representation_size": 16, "anchor_sizes": sizes, "fpn": fpn}
    small |= {"rpn_pre_nms_top_n_test": 60, "rpn_post_nms_top_n_test": 20, "box_score_thresh": 0.3}
    small |= {"mask_channels": 8} if kind == "mask" else {}
    make = models.mask_rcnn if kind == "mask" else models.faster_rcnn
    model = make(3, **{**small, **options})
    for layer in (model.rpn.head.cls_logits, model.rpn.head.bbox_pred, model.roi_heads.box_predictor.cls_score):
        layer.weight.array *= 50  # so that scores differ, and boxes move
    return model


def picture(height=48, width=64, seed=0):
    return np.random.default_rng(seed).random((3, height, width), F32)


TARGET = {"boxes": np.array([[4, 6, 30, 28], [33, 10, 60, 44.0]]), "labels": np.array([1, 2])}


def same(found, expected):
    assert list(found) == list(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value.numpy(), strict=True)


def predicted(model, x):
    modes = [module.training for module in model.modules()]
    with tinyseg.no_grad():
        (found,) = model.eval()([x])
    for module, mode in zip(model.modules(), modes, strict=True):
        module.training = mode
    return found


# ---- it is the model's own run ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("roi_op", ["align", "pool"])
@pytest.mark.parametrize("fpn", [True, False])
@pytest.mark.parametrize("kind", ["mask", "faster"])
def test_the_last_stage_is_what_the_model_answers(kind, fpn, roi_op):
    model, x = tiny(kind, fpn, roi_op=roi_op), picture()
    xray = explain.detector(model, x, TARGET)
    expected = predicted(model, x)
    assert len(expected["scores"]) > 0
    last = xray["found"]
    found = {"boxes": last.boxes, "labels": last.labels, "scores": last.scores}
    same({**found, "masks": xray["masks"].arrays["masks"]} if kind == "mask" else found, expected)
    assert ("pyramid" in [stage.name for stage in xray.stages]) == fpn
    assert xray["anchors"].count == sum(len(logits.ravel()) for logits in xray["objectness"].arrays.values())


@pytest.mark.parametrize("fpn", [True, False])
def test_stages_fit_together(fpn):
    model = tiny(fpn=fpn, min_size=80)
    limit = float(np.median(explain.detector(model, picture())["large"].scores))
    model.rpn.score_thresh = limit
    xray = explain.detector(model, picture(), TARGET)
    heads = model.roi_heads
    with_boxes = [stage for stage in xray.stages if stage.boxes is not None]
    for before, after in zip(with_boxes, with_boxes[1:], strict=False):
        assert after.source.shape == (after.count,) and before.count > 0
        if after.name not in ("top", "refined", "clipped", "class_boxes", "found"):  # a choice of the boxes before
            np.testing.assert_array_equal(after.boxes, before.boxes[after.source])
            np.testing.assert_array_equal(after.scores, before.scores[after.source])
            assert after.count <= before.count
    anchors, top, refined = xray["anchors"], xray["top"], xray["refined"]
    np.testing.assert_array_equal(top.boxes, anchors.boxes[top.source])
    np.testing.assert_array_equal(top.levels, anchors.levels[top.source])
    decoded = tinyseg.boxes.decode(refined.arrays["codes"], top.boxes)[:, 0]
    np.testing.assert_array_equal(refined.boxes, decoded)
    proposals, levels = xray["proposals"], xray["levels"].arrays
    with tinyseg.no_grad():
        maps = xray["pyramid" if fpn else "backbone"].arrays
        maps = [tinyseg.Tensor(maps[name][None]) for name in levels["names"]]
        again = ops.multi_scale_roi(maps, [proposals.boxes], 7, list(levels["scales"]), levels["levels"],
                                    roi_op="align", sampling_ratio=2)  # fmt: skip
    np.testing.assert_array_equal(xray["pooled"].arrays["pooled"], again.numpy())
    classes = xray["classes"].arrays
    np.testing.assert_array_equal(ops.softmax(classes["logits"], dim=1).array, classes["probabilities"])
    np.testing.assert_array_equal(xray["class_boxes"].scores, classes["probabilities"][:, 1:].ravel())
    boxes = tinyseg.boxes.decode(classes["codes"], proposals.boxes, heads.bbox_reg_weights)
    np.testing.assert_array_equal(xray["class_boxes"].arrays["decoded"], boxes)
    assert "likely" in [stage.name for stage in with_boxes]
    assert (xray["likely"].scores >= limit).all() and xray["likely"].count < xray["large"].count
    assert (xray["threshold"].scores > heads.score_thresh).all()
    assert xray["mask_logits"].arrays["mask_logits"].shape == (xray["found"].count, 3, 28, 28)


def test_nothing_is_changed():
    model, x = tiny().train(), picture()
    model.backbone.eval()
    model.generator = np.random.default_rng(5)
    gradient = tinyseg.Tensor(np.ones_like(next(model.parameters()).numpy()))
    next(model.parameters()).grad = gradient
    modes = [module.training for module in model.modules()]
    values = {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}
    chance, own = random.get_state(), model.generator.bit_generator.state
    explain.detector(model, x, TARGET)
    assert [module.training for module in model.modules()] == modes
    assert next(model.parameters()).grad is gradient
    assert random.get_state() == chance and model.generator.bit_generator.state == own
    for name, tensor in model.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), values[name])
    assert not any(module._hooks for module in model.modules())
    assert not TARGET["boxes"].flags.writeable or TARGET["boxes"][0, 0] == 4


def test_a_hook_that_was_there_is_kept_and_its_change_is_seen():
    model, x = tiny("faster"), picture()
    model.rpn.head.register_forward_hook(lambda module, args, output: ([-y for y in output[0]], output[1]))
    xray = explain.detector(model, x)
    np.testing.assert_array_equal(xray["found"].boxes, predicted(model, x)["boxes"].numpy())
    assert len(model.rpn.head._hooks) == 1


def test_float64_and_tensors():
    model = tiny().to(dtype=np.float64)
    x = tinyseg.Tensor(picture().astype(np.float64))
    xray = explain.detector(model, x, TARGET)
    assert xray["anchors"].boxes.dtype == xray["found"].scores.dtype == np.float64
    np.testing.assert_array_equal(xray["found"].boxes, predicted(model, x)["boxes"].numpy())


def test_torchvisions_detector():
    random.manual_seed(0)
    model = models.maskrcnn_resnet50_fpn(5, min_size=64, max_size=96, box_score_thresh=0.0, box_detections_per_img=3)
    xray = explain.detector(model, picture(40, 50), {"boxes": TARGET["boxes"], "labels": [1, 4]})
    same(
        {"boxes": xray["found"].boxes, "labels": xray["found"].labels, "scores": xray["found"].scores,
         "masks": xray["masks"].arrays["masks"]},
        predicted(model, picture(40, 50)),
    )  # fmt: skip
    assert xray["picture"].arrays["picture"].shape == (3, 64, 96)
    assert "from 40x50 resized to 64x80" in xray["picture"].text
    assert xray["found"].count == 3
    # the truth is compared in the pixels of the resized picture
    np.testing.assert_allclose(xray.truth["resized"], TARGET["boxes"] * 1.6, rtol=1e-6)


# ---- nothing there ---------------------------------------------------------------------------------------------------


def test_nothing_found():
    model = tiny(box_score_thresh=1.0)
    xray = explain.detector(model, picture(), TARGET)
    assert [xray[name].count for name in ("threshold", "class_nms", "detections", "masks", "found")] == [0] * 5
    assert xray["found"].recall == {0.5: 0.0, 0.75: 0.0}
    assert xray["masks"].arrays["masks"].shape == (0, 1, 48, 64)
    assert "found" in str(xray)


@pytest.mark.parametrize("kind", ["mask", "faster"])
def test_no_proposals(kind):
    xray = explain.detector(tiny(kind, rpn_score_thresh=1.5), picture(), TARGET)
    assert [xray[name].count for name in ("likely", "nms", "proposals", "pooled", "class_boxes", "found")] == [0] * 6
    assert xray["large"].count > 0
    json.loads(xray.to_json())


def test_a_picture_without_objects():
    nothing = {"boxes": np.zeros((0, 4), F32), "labels": np.zeros(0, int)}
    xray = explain.detector(tiny(), picture(), nothing)
    assert xray.recall() == {} and xray.objects() == [] and not xray["anchors"].recall
    with pytest.raises(ValueError, match="number is 0; expected"):
        xray.lost(0)


# ---- recall ----------------------------------------------------------------------------------------------------------


def test_recall_by_hand():
    truth = {
        "boxes": np.array([[0, 0, 10, 10], [20, 0, 30, 10.0], [0, 20, 10, 30]]), "labels": np.array([1, 1, 2]),
    }  # fmt: skip
    truth["resized"] = truth["boxes"]
    boxes = np.array([
        [0, 0, 10, 5.0],  # half of the first: exactly 0.5
        [20, 0, 30, 8],  # 0.8 of the second
        [0, 20, 10, 24],  # 0.4 of the third
        [40, 40, 50, 50],  # nothing
    ])  # fmt: skip
    of_no_class = DetectorStage("nms", "", "", 4, boxes=boxes)
    assert recall_of(of_no_class, truth, (0.4, 0.5, 0.51, 0.8, 0.81)) == {
        0.4: 1.0, 0.5: 2 / 3, 0.51: 1 / 3, 0.8: 1 / 3, 0.81: 0.0,
    }  # fmt: skip
    of_classes = DetectorStage("nms", "", "", 4, boxes=boxes, labels=np.array([1, 2, 2, 1]))
    assert recall_of(of_classes, truth, (0.4, 0.5)) == {0.4: 2 / 3, 0.5: 1 / 3}
    # the last stage is in the picture's own pixels
    truth["resized"] = 2 * truth["boxes"]
    assert recall_of(DetectorStage("found", "", "", 4, boxes=boxes), truth, (0.5,)) == {0.5: 2 / 3}
    assert recall_of(DetectorStage("nms", "", "", 4, boxes=2 * boxes), truth, (0.5,)) == {0.5: 2 / 3}


def test_recall_of_stages():
    xray = explain.detector(tiny(), picture(), TARGET)
    assert xray.recall(0.5) == {stage.name: stage.recall[0.5] for stage in xray.stages if stage.boxes is not None}
    strict, lax = xray.recall(0.95), xray.recall(0.05)
    assert all(strict[name] <= lax[name] for name in lax)
    assert lax["anchors"] == 1
    for before, after in FILTERS[2:]:  # a choice of boxes covers no more than all of them
        assert lax[after] <= lax[before]
    without = explain.detector(tiny(), picture())
    with pytest.raises(ValueError, match="target was left out; expected the truth"):
        without.recall()
    with pytest.raises(ValueError, match="iou is 0; expected above 0 and at most 1"):
        xray.recall(0)


def test_places():
    np.testing.assert_array_equal(places(np.array([7, 2, 9, 4]), np.array([9, 7, 4])), [2, 0, 3])


# ---- text and errors -------------------------------------------------------------------------------------------------


def test_table():
    text = str(explain.detector(tiny(), picture(), TARGET, class_names=("background", "disc")))
    lines = text.splitlines()
    assert lines[0].split() == ["stage", "count", "IoU", "0.5", "IoU", "0.75", "what", "it", "does"]
    (row,) = [line.split() for line in lines if line.startswith("anchors")]
    assert row[1:3] == ["1023", "boxes"]  # three for each cell of maps of 16x16, 8x8, ..., 1x1
    assert len([line for line in lines if line.startswith("object ")]) == 2
    assert max(map(len, lines)) <= 125
    plain = str(explain.detector(tiny(), picture()))
    assert "IoU" not in plain.splitlines()[0] and "object 0" not in plain


def test_json():
    xray = explain.detector(tiny(), picture(), TARGET)
    whole = json.loads(xray.to_json())
    assert whole["model"] == "MaskRCNN" and whole["picture"] == [3, 48, 64]
    assert [stage["name"] for stage in whole["stages"]] == [stage.name for stage in xray.stages]
    (nms,) = [stage for stage in whole["stages"] if stage["name"] == "nms"]
    np.testing.assert_array_equal(np.array(nms["boxes"], F32), xray["nms"].boxes)
    assert [lost["number"] for lost in whole["objects"]] == [0, 1]


def test_many_boxes_are_not_written_as_json(monkeypatch):
    monkeypatch.setattr("tinyseg.explain.detectors.xray._MOST_BOXES", 100)
    stages = {stage["name"]: stage for stage in json.loads(explain.detector(tiny(), picture()).to_json())["stages"]}
    assert "boxes" not in stages["anchors"] and stages["anchors"]["shapes"]["boxes"] == [1023, 4]
    assert len(stages["proposals"]["boxes"]) == stages["proposals"]["count"]


@pytest.mark.parametrize(
    ("fpn", "roi_op", "aligned"), [(True, "align", True), (False, "align", False), (True, "pool", False)]
)
def test_how_a_proposal_was_pooled(fpn, roi_op, aligned):
    model = tiny("faster", fpn, roi_op=roi_op, aligned=aligned)
    model.roi_heads.box_roi_pool.canonical_scale = 16  # so that small boxes too come from several maps
    xray = explain.detector(model, picture())
    from_maps = xray.pooled_from()
    assert (len(set(from_maps.tolist())) > 1) == fpn
    for number in range(0, xray["proposals"].count, 3):
        trace = xray.roi(number)
        np.testing.assert_allclose(trace.output, xray["pooled"].arrays["pooled"][number], rtol=1e-5, atol=1e-6)
    for number in (-1, xray["proposals"].count, 1.5):
        with pytest.raises(ValueError, match="number is .*; expected a whole number from 0 to"):
            xray.roi(number)


def test_mistakes():
    model = tiny()
    with pytest.raises(TypeError, match="model is a UNet; expected a FasterRCNN or MaskRCNN"):
        explain.detector(models.UNet(widths=(4, 8)), picture())
    with pytest.raises(ValueError, match=r"picture has shape \(1, 3, 48, 64\); expected \(C, H, W\)"):
        explain.detector(model, picture()[None])
    with pytest.raises(TypeError, match="picture 0 has dtype uint8; expected floats"):
        explain.detector(model, np.zeros((3, 48, 64), np.uint8))
    with pytest.raises(ValueError, match="label 0 of .* is 3; expected a class from 1 to 2"):
        explain.detector(model, picture(), {"boxes": TARGET["boxes"][:1], "labels": [3]})
    with pytest.raises(KeyError, match="'soup' is no stage of this detector; expected one of picture, backbone"):
        explain.detector(model, picture())["soup"]
    model.rpn.filter_proposals = lambda boxes, logits, sizes, levels: ([boxes[0, :5].clip(0, 48)], [logits[0, :5]])
    with pytest.raises(ValueError, match="the model does not tell of its proposals; expected a detector made of"):
        explain.detector(model, picture())
    assert not any(module._hooks for module in model.modules())


def test_watching_is_of_one_block():
    told = []
    tell("before", value=1)
    with watching(lambda *what: told.append(("outer", *what))):
        tell("first", value=1)
        with watching(lambda *what: told.append(("inner", *what))):
            tell("second", value=2)
        tell("third")
    tell("after", value=1)
    assert told == [("outer", "first", {"value": 1}), ("inner", "second", {"value": 2}), ("outer", "third", {})]
