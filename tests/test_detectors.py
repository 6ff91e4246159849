"""Faster and Mask R-CNN: shapes, edge cases and errors. Their numbers are in test_maskrcnn_reference*.py."""

import numpy as np
import pytest

import tinyseg
from tinyseg import models, nn, ops
from tinyseg.models.fpn import FeaturePyramidNetwork
from tinyseg.models.roi_heads import box_losses, mask_loss, mask_targets

F32 = np.float32
TINY = {
    "width": 4,
    "channels": 8,
    "representation_size": 16,
    "anchor_sizes": [[8], [16], [32], [64], [128]],
    "rpn_pre_nms_top_n_train": 50,
    "rpn_post_nms_top_n_train": 20,
    "rpn_pre_nms_top_n_test": 30,
    "rpn_post_nms_top_n_test": 10,
    "box_batch_size_per_image": 8,
    "rpn_batch_size_per_image": 16,
}
LOSSES = ["loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg"]


def tiny(kind="mask", **options):
    tinyseg.manual_seed(0)
    make = models.mask_rcnn if kind == "mask" else models.faster_rcnn
    extra = {"mask_channels": 8} if kind == "mask" else {}
    model = make(3, **{**TINY, **extra, **options})
    model.generator = np.random.default_rng(0)
    return model


def picture(height=48, width=64, seed=0):
    return np.random.default_rng(seed).random((3, height, width), F32)


def truth(count, height=48, width=64):
    """Return ``count`` objects, one right of the other."""
    boxes, masks = np.zeros((count, 4), F32), np.zeros((count, height, width), np.uint8)
    for k in range(count):
        left = 1 + k * (width - 14) // max(count, 1)
        boxes[k] = (left, 4, left + 12, 20)
        masks[k, 4:20, left : left + 12] = 1
    return {"boxes": boxes, "labels": 1 + np.arange(count) % 2, "masks": masks}


def total(losses):
    values = list(losses.values())
    return sum(values[1:], values[0])


def test_maps_of_a_pyramid_can_be_watched_and_stay_the_same():
    fpn = FeaturePyramidNetwork([3, 5], 4)
    maps = {"0": tinyseg.Tensor(np.ones((1, 3, 6, 9), F32)), "1": tinyseg.Tensor(np.ones((1, 5, 3, 5), F32))}
    with tinyseg.no_grad():
        expected = fpn(maps)
        seen = []
        fpn.inner_blocks[0].register_forward_hook(lambda *call: seen.append(call[-1].shape))
        watched = fpn(maps)
    assert seen == [(1, 4, 6, 9)]
    for name, value in expected.items():
        np.testing.assert_allclose(watched[name].numpy(), value.numpy(), rtol=1e-5)


@pytest.mark.parametrize("roi_op", ["align", "pool"])
@pytest.mark.parametrize("fpn", [True, False])
def test_every_parameter_gets_a_gradient(fpn, roi_op):
    single = {} if fpn else {"anchor_sizes": [[8, 16, 32, 64, 128]], "returned_layers": [2]}
    model = tiny(fpn=fpn, roi_op=roi_op, **single)
    losses = model([picture(), picture(40, 40, 1)], [truth(2), truth(3, 40, 40)])
    assert list(losses) == LOSSES
    total(losses).backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None or not np.isfinite(p.grad.array).all()]
    assert missing == []
    kinds = {model.roi_heads.box_roi_pool.roi_op, model.roi_heads.mask_roi_pool.roi_op}
    assert kinds == {roi_op}


def test_a_single_map_has_fifteen_anchors_a_cell():
    backbone = models.resnet_backbone("resnet18", fpn=False, width=4)
    model = models.FasterRCNN(backbone, 2)
    assert model.rpn.anchor_generator.num_anchors_per_location() == [15]
    assert model.rpn.head.cls_logits.weight.shape == (15, 16, 1, 1)


def test_detections_have_the_form_of_torchvision():
    model = tiny(box_score_thresh=0.0).eval()
    with tinyseg.no_grad():
        found = model([picture(), picture(40, 52, 1)])
    for one, (height, width) in zip(found, [(48, 64), (40, 52)], strict=True):
        assert list(one) == ["boxes", "labels", "scores", "masks"]
        count = len(one["scores"])
        assert 0 < count <= 100
        assert one["boxes"].shape == (count, 4) and one["labels"].dtype == np.int64
        assert one["masks"].shape == (count, 1, height, width)
        scores, boxes = one["scores"].array, one["boxes"].array
        assert (np.diff(scores) <= 0).all() and set(one["labels"].array) <= {1, 2}
        assert (boxes >= 0).all() and (boxes[:, 2] <= width).all() and (boxes[:, 3] <= height).all()


def test_detect_leaves_masks_over_their_boxes():
    model, x = tiny(box_score_thresh=0.0).eval(), [picture()]
    with tinyseg.no_grad():
        whole, over = model(x)[0], model.detect(x)[0]
    assert over["masks"].shape[1:] == (1, 28, 28)
    pasted = ops.paste_masks(over["masks"], over["boxes"], (48, 64))
    np.testing.assert_array_equal(pasted.array, whole["masks"].array)


def test_nothing_found_gives_empty_results():
    model = tiny(box_score_thresh=1.0).eval()
    with tinyseg.no_grad():
        (one,) = model([picture()])
    assert [one[key].shape for key in one] == [(0, 4), (0,), (0,), (0, 1, 48, 64)]


def test_no_proposals_at_all():
    model = tiny(rpn_score_thresh=1.5)
    losses = model([picture()], [truth(0)])
    assert losses["loss_classifier"].item() == losses["loss_box_reg"].item() == losses["loss_mask"].item() == 0
    total(losses).backward()
    model.eval()
    with tinyseg.no_grad():
        (one,) = model([picture()])
    assert one["masks"].shape == (0, 1, 48, 64)


def test_a_picture_without_objects_has_no_loss_of_boxes_and_masks():
    losses = tiny()([picture()], [truth(0)])
    assert losses["loss_box_reg"].item() == losses["loss_mask"].item() == losses["loss_rpn_box_reg"].item() == 0
    assert losses["loss_classifier"].item() > 0 and losses["loss_objectness"].item() > 0
    total(losses).backward()


def test_one_of_two_pictures_without_objects():
    losses = tiny()([picture(), picture(seed=1)], [truth(0), truth(2)])
    assert all(np.isfinite(loss.item()) for loss in losses.values())
    total(losses).backward()


def test_more_objects_than_samples():
    model = tiny(box_batch_size_per_image=4, box_positive_fraction=0.5, rpn_batch_size_per_image=4)
    total(model([picture()], [truth(12)])).backward()


def test_a_picture_smaller_than_any_anchor():
    model = tiny(anchor_sizes=[[64], [128], [256], [512], [1024]])
    target = {"boxes": [[1, 1, 6, 8]], "labels": [1], "masks": np.ones((1, 9, 7))}
    total(model([picture(9, 7), picture(7, 9)], [target, truth(0, 7, 9)])).backward()
    model.eval()
    with tinyseg.no_grad():
        assert model([picture(9, 7)])[0]["masks"].shape[2:] == (9, 7)


def test_the_same_generator_gives_the_same_losses():
    model = tiny(box_batch_size_per_image=4, rpn_batch_size_per_image=4)
    values = []
    for seed in (5, 5, 6):
        model.generator = np.random.default_rng(seed)
        values.append([loss.item() for loss in model([picture()], [truth(3)]).values()])
    assert values[0] == values[1] != values[2]


def test_proposals_carry_no_gradient():
    model = tiny()
    losses = model([picture()], [truth(2)])
    losses["loss_classifier"].backward()
    assert all(p.grad is None for p in model.rpn.parameters())


def test_resizing_in_training_and_back_in_evaluation():
    model = tiny(min_size=32, max_size=40)
    batch, targets = model.transform([picture(48, 96)], [truth(2, 48, 96)])
    assert batch.image_sizes == [(20, 40)] and batch.tensors.shape == (1, 3, 32, 64)
    assert targets[0]["masks"].shape == (2, 20, 40)
    np.testing.assert_allclose(targets[0]["boxes"], truth(2, 48, 96)["boxes"] * np.array([40 / 96, 20 / 48] * 2), 1e-6)
    model.eval()
    with tinyseg.no_grad():
        (one,) = model([picture(48, 96)])
    assert one["masks"].shape[2:] == (48, 96)


def test_several_sizes_are_drawn_in_training_and_the_last_is_used_in_evaluation():
    model = tiny(min_size=[32, 48, 64])
    rng = np.random.default_rng(0)
    drawn = {model.transform([picture(32, 32)], None, rng)[0].image_sizes[0] for _ in range(40)}
    assert drawn == {(32, 32), (48, 48), (64, 64)}
    assert model.eval().transform([picture(32, 32)])[0].image_sizes == [(64, 64)]


@pytest.mark.parametrize("kind", ["mask", "faster"])
def test_a_detector_is_built_again_from_its_config(kind):
    model = tiny(kind, roi_op="pool", norm="frozen", trainable_layers=2)
    again = models.from_config(model.config)
    again.load_state_dict(model.state_dict())
    assert again.config == model.config and type(again) is type(model)
    x = [picture()]
    with tinyseg.no_grad():
        a, b = model.eval()(x)[0], again.eval()(x)[0]
    for key in a:
        np.testing.assert_array_equal(a[key].array, b[key].array)


def test_frozen_normalisation_and_frozen_layers():
    model = tiny(norm="frozen", frozen_bn_eps=0.0)
    layers = [module for module in model.modules() if isinstance(module, nn.FrozenBatchNorm2d)]
    assert layers and {layer.eps for layer in layers} == {0.0}
    assert not any("num_batches_tracked" in key for key in model.state_dict())
    total(model([picture()], [truth(2)])).backward()
    body = model.backbone.body
    trained = {name.split(".")[0] for name, p in body.named_parameters() if p.grad is not None}
    assert trained == {"layer2", "layer3", "layer4"}


def test_frozen_normalisation_takes_the_state_of_a_batch_normalisation():
    batch, frozen = nn.BatchNorm2d(3), nn.FrozenBatchNorm2d(3)
    batch(tinyseg.Tensor(np.random.default_rng(0).standard_normal((2, 3, 4, 4)).astype(F32)))
    frozen.load_state_dict(batch.state_dict())
    x = tinyseg.Tensor(picture()[None])
    np.testing.assert_array_equal(frozen(x).array, batch.eval()(x).array)
    assert list(frozen.parameters()) == []


def test_frozen_normalisation_by_hand():
    layer = nn.FrozenBatchNorm2d(1, eps=0.0)
    layer.load_state_dict({"weight": [2.0], "bias": [1.0], "running_mean": [3.0], "running_var": [4.0]})
    x = tinyseg.Tensor([[[[3.0, 5.0]]]], requires_grad=True)
    y = layer(x)
    np.testing.assert_array_equal(y.array, [[[[1, 3]]]])
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.array, [[[[1, 1]]]])


def test_mask_targets_by_hand():
    masks = np.zeros((2, 4, 4), np.uint8)
    masks[1, :, 2:] = 1
    boxes = np.array([[0, 0, 4, 4], [1, 0, 3, 2]], F32)
    seen = mask_targets(boxes, np.array([1, 1]), masks, 2)
    # each bin averages samples at cells' corners; RoIAlign without alignment lies half a pixel to the right
    np.testing.assert_array_equal(seen[0], [[0.25, 1], [0.25, 1]])
    assert seen.shape == (2, 2, 2) and seen[1, 0, 1] == 1


def test_losses_of_boxes_by_hand():
    logits = tinyseg.Tensor(np.zeros((2, 2), F32))
    codes = tinyseg.Tensor(np.zeros((2, 8), F32), requires_grad=True)
    boxes = [np.array([[0, 0, 10, 10], [20, 20, 30, 30]], F32)]
    losses = box_losses(
        logits, codes, boxes, [np.array([0, 0])], [np.array([1, 0])], [np.array([[1, 0, 11, 10]], F32)], (10, 10, 5, 5)
    )
    np.testing.assert_allclose(losses["loss_classifier"].item(), np.log(2), rtol=1e-6)
    # dx = 10 * 1 / 10 = 1, which smooth L1 with beta 1/9 makes 1 - 1/18; over two proposals
    np.testing.assert_allclose(losses["loss_box_reg"].item(), (1 - 1 / 18) / 2, rtol=1e-6)
    losses["loss_box_reg"].backward()
    assert np.flatnonzero(codes.grad.array).tolist() == [4]  # proposal 0, class 1, dx


def test_masks_are_judged_on_their_own_class_only():
    logits = tinyseg.Tensor(np.zeros((1, 3, 2, 2), F32), requires_grad=True)
    loss = mask_loss(logits, [np.array([[0, 0, 2, 2]], F32)], [np.array([0])], [np.ones((1, 4, 4))], [np.array([2])])
    np.testing.assert_allclose(loss.item(), np.log(2), rtol=1e-6)
    loss.backward()
    assert np.flatnonzero(logits.grad.array.any(axis=(0, 2, 3))).tolist() == [2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boxes": np.zeros((2, 5))}, r"boxes of targets\[0\] has shape \(2, 5\); expected \(K, 4\)"),
        ({"boxes": np.array([[0, 0, 5, 5], [7, 1, 7, 4]])}, r"box 1 of targets\[0\] is \[7.0, 1.0, 7.0, 4.0\]"),
        ({"boxes": np.array([[0, 0, 5, np.nan], [7, 1, 9, 4]])}, r"box 0 of targets\[0\]"),
        ({"labels": np.array([1, 3])}, r"label 1 of targets\[0\] is 3; expected a class from 1 to 2"),
        ({"labels": np.array([0, 1])}, r"label 0 of targets\[0\] is 0"),
        ({"labels": np.array([1])}, r"labels of targets\[0\] has shape \(1,\)"),
        ({"masks": np.zeros((2, 4, 4))}, r"masks of targets\[0\] has shape \(2, 4, 4\); expected \(2, 48, 64\)"),
    ],
)
def test_truth_that_does_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        tiny()([picture()], [{**truth(2), **change}])


def test_truth_that_is_missing():
    with pytest.raises(ValueError, match="targets is None"):
        tiny()([picture()])
    with pytest.raises(ValueError, match="targets has 1 entries; expected one for each of 2 pictures"):
        tiny()([picture(), picture()], [truth(1)])
    with pytest.raises(ValueError, match=r"targets\[0\] has no 'masks'"):
        tiny()([picture()], [{"boxes": np.zeros((0, 4)), "labels": np.zeros(0, int)}])


def test_pictures_that_do_not_fit():
    model = tiny().eval()
    with pytest.raises(ValueError, match="images is empty"):
        model([])
    with pytest.raises(ValueError, match=r"picture 1 has shape \(48, 64\)"):
        model([picture(), picture()[0]])
    with pytest.raises(TypeError, match="picture 0 has dtype uint8"):
        model([np.zeros((3, 8, 8), np.uint8)])
    with pytest.raises(ValueError, match=r"a picture has shape \(1, 8, 8\); expected \(3, H, W\)"):
        model([np.zeros((1, 8, 8), F32)])
    with pytest.raises(FloatingPointError, match="NaN or infinity"):
        model([np.full((3, 32, 32), np.nan, F32)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "resnet19"}, "backbone is 'resnet19'"),
        ({"norm": "group"}, "norm is 'group'"),
        ({"roi_op": "warp"}, "roi_op is 'warp'"),
        ({"trainable_layers": 6}, "trainable_layers is 6"),
        ({"anchor_sizes": [[8]]}, "anchor_sizes is"),
        ({"fpn": False, "returned_layers": [2, 3]}, "returned_layers is"),
        ({"min_size": 0}, "min_size is"),
        ({"image_std": (1, 1)}, "image_mean is"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        tiny(**options)


def test_nothing_is_downloaded():
    with pytest.raises(ValueError, match="weights is DEFAULT; expected the path of a file"):
        models.fasterrcnn_resnet50_fpn(weights="DEFAULT")


def test_a_description_of_something_else():
    with pytest.raises(ValueError, match="config has kind 'unet'"):
        models.from_config({"kind": "unet"})


def test_the_eps_of_frozen_weights_has_to_be_said():
    with pytest.raises(ValueError, match="frozen_bn_eps is missing"):
        models.maskrcnn_resnet50_fpn(weights="any.pth", norm="frozen")
