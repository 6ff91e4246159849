"""Residual networks and detectors against torchvision itself: names, outputs, losses, gradients, published files."""

import importlib.util
from types import SimpleNamespace

import numpy as np
import pytest
from maskrcnn_reference import nearest
from test_weights_detectors import old_name

from tinyseg import Tensor, boxes, models, nn, no_grad, weights

if importlib.util.find_spec("torchvision") is not None:
    import torch
    import torchvision
    from torchvision.models import detection
    from torchvision.models._utils import IntermediateLayerGetter
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor, resnet_fpn_backbone
    from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign, roi_pool

pytestmark = pytest.mark.torchvision

RESNETS = ["resnet18", "resnet34", "resnet50", "resnet101"]


def shapes(state):
    """Return names and shapes, in order."""
    return [(name, tuple(tensor.shape)) for name, tensor in state.items()]


def fill(model, seed, scores=0.1):
    """Give a torchvision model random weights that keep the size of its maps, and return them as arrays."""
    rng = np.random.default_rng(seed)
    state = {}
    for name, tensor in model.state_dict().items():
        shape, part = tuple(tensor.shape), name.rpartition(".")[2]
        if part == "num_batches_tracked":
            value = np.array(3, np.int64)
        elif part == "running_var" or (part == "weight" and len(shape) == 1):
            value = rng.uniform(0.5, 1.5, shape)
            if name.endswith("bn3.weight"):  # the last of a block: or else each block would double its input
                value *= 0.2
        elif part in ("bias", "running_mean"):
            value = rng.normal(0, 0.1, shape)
        else:
            gain = 2 if name.startswith("backbone.body") or "layer" in name else 1
            value = rng.normal(size=shape) * np.sqrt(gain / np.prod(shape[1:]))
            # boxes that stay near where they were, and scores that are not all 0 or 1
            value *= {"bbox_pred": 0.05, "cls_score": scores}.get(name.split(".")[-2], 1)
        state[name] = np.asarray(value, np.int64 if part == "num_batches_tracked" else np.float32)
    model.load_state_dict({name: torch.tensor(value) for name, value in state.items()})
    return state


def relative(found, wanted):
    return np.linalg.norm(found - wanted) / max(np.linalg.norm(wanted), 1e-12)


# ---- residual networks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "norm"), [*((name, "batch") for name in RESNETS), ("resnet18", "frozen"), ("resnet50", "frozen")]
)
def test_resnet(name, norm):
    other = getattr(torchvision.models, name)(num_classes=7, norm_layer=FrozenBatchNorm2d if norm == "frozen" else None)
    mine = getattr(models, name)(7, norm_layer=nn.FrozenBatchNorm2d if norm == "frozen" else None)
    assert shapes(mine.state_dict()) == shapes(other.state_dict())
    mine.load_state_dict(fill(other, 0))
    x = np.random.default_rng(1).normal(size=(2, 3, 65, 48)).astype(np.float32)
    for training in (False, True):
        with torch.no_grad(), no_grad():
            wanted, found = other.train(training)(torch.tensor(x)).numpy(), mine.train(training)(Tensor(x)).array
        # of 101 layers, torchvision's own float32 and float64 differ by 1e-6, and by 2e-4 where every layer divides
        # by the deviation of a few values
        assert relative(found, wanted) < (1e-3 if training and norm == "batch" else 1e-5)
    for (key, found), wanted in zip(mine.state_dict().items(), other.state_dict().values(), strict=True):
        assert relative(found.array, wanted.numpy()) < 5e-4, key  # running statistics


@pytest.mark.parametrize("trainable", range(6))
def test_which_layers_are_trained(trainable):
    other = _resnet_fpn_extractor(torchvision.models.resnet18(), trainable)
    mine = models.resnet_backbone("resnet18", trainable_layers=trainable)
    wanted = {name for name, parameter in other.named_parameters() if parameter.requires_grad}
    assert {name for name, parameter in mine.named_parameters() if parameter.requires_grad} == wanted


# ---- detectors of full size ------------------------------------------------------------------------------------------


def published(kind, norm, **options):
    """Return torchvision's detector with a ResNet-50; with frozen normalisation as if it had loaded weights."""
    if norm == "batch":
        return getattr(detection, f"{kind}_resnet50_fpn")(weights=None, weights_backbone=None, **options)
    body = torchvision.models.resnet50(norm_layer=lambda channels: FrozenBatchNorm2d(channels, eps=0.0))
    make = {"maskrcnn": detection.MaskRCNN, "fasterrcnn": detection.FasterRCNN}[kind]
    return make(_resnet_fpn_extractor(body, 3), num_classes=91, **options)


@pytest.mark.parametrize("kind", ["maskrcnn", "fasterrcnn"])
@pytest.mark.parametrize("norm", ["batch", "frozen"])
def test_names_and_shapes_of_the_published_detectors(kind, norm):
    mine, other = getattr(models, f"{kind}_resnet50_fpn")(norm=norm), published(kind, norm)
    assert shapes(mine.state_dict()) == shapes(other.state_dict())
    wanted = {name for name, parameter in other.named_parameters() if parameter.requires_grad}
    assert {name for name, parameter in mine.named_parameters() if parameter.requires_grad} == wanted


@pytest.mark.parametrize("kind", ["maskrcnn", "fasterrcnn"])
def test_a_file_as_published_in_2019_gives_the_same_detections(tmp_path, kind):
    settings = {"min_size": 64, "max_size": 96, "rpn_pre_nms_top_n_test": 40}
    other = published(kind, "frozen", **settings).eval()
    state = fill(other, 3, scores=1)
    old = {old_name(name): torch.tensor(value) for name, value in state.items()}
    assert old.keys() != state.keys() and not any(name.endswith("num_batches_tracked") for name in old)
    torch.save(old, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    # torchvision takes it for one of its own
    other.load_state_dict(torch.load(tmp_path / "old.pth", weights_only=True))
    mine = getattr(models, f"{kind}_resnet50_fpn")(norm="frozen", frozen_bn_eps=0.0, **settings).eval()
    mine.load_state_dict(weights.load(tmp_path / "old.pth"))
    images = [np.random.default_rng(n).random((3, 60 + 9 * n, 80), np.float32) for n in range(2)]
    compare_detections(mine, other, images)


def test_a_published_classifier_becomes_the_backbone(tmp_path):
    other = torchvision.models.resnet50()
    fill(other, 5)
    # as of 2017, when PyTorch did not count batches yet
    old = {name: tensor for name, tensor in other.state_dict().items() if not name.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "resnet50.pth", _use_new_zipfile_serialization=False)
    mine = models.fasterrcnn_resnet50_fpn(3, weights_backbone=tmp_path / "resnet50.pth", norm="frozen")
    found = mine.backbone.body.state_dict()
    assert list(found) == [name for name in old if not name.startswith("fc.")]
    for name, tensor in found.items():
        np.testing.assert_array_equal(tensor.array, old[name].numpy(), name)


# ---- small detectors end to end --------------------------------------------------------------------------------------


def smooth_pictures(seed):
    """Return two pictures of different sizes: flat rectangles on noise."""
    rng = np.random.default_rng(seed)
    images, targets = [], []
    for height, width in ((96, 120), (110, 90)):
        image = rng.random((3, height, width)) * 0.2
        corners = []
        for _ in range(4):
            (x1, x2), (y1, y2) = (np.sort(rng.choice(np.arange(2, side), 2, replace=False)) for side in (width, height))
            x2, y2 = min(x2 + 6, width), min(y2 + 6, height)
            image[:, y1:y2, x1:x2] += rng.random((3, 1, 1)) * 0.8
            corners.append((x1, y1, x2, y2))
        masks = np.zeros((4, height, width), np.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, corners, strict=True):
            mask[y1:y2, x1:x2] = 1
        images.append(image.clip(0, 1).astype(np.float32))
        targets.append({"boxes": np.array(corners, np.float32), "labels": rng.integers(1, 4, 4), "masks": masks})
    return images, targets


def mask_rcnn_on_a_pyramid(**settings):
    """Return ours and torchvision's Mask R-CNN with a ResNet-18 and a feature pyramid."""
    settings = {"num_classes": 4, "min_size": 96, "max_size": 140, **settings}
    sizes, ratios = ((8,), (16,), (32,), (64,), (96,)), ((0.5, 1.0, 2.0),) * 5
    norm = torch.nn.BatchNorm2d
    body = resnet_fpn_backbone(backbone_name="resnet18", weights=None, norm_layer=norm, trainable_layers=5)
    other = detection.MaskRCNN(body, rpn_anchor_generator=AnchorGenerator(sizes, ratios), **settings)
    anchors = boxes.AnchorGenerator(sizes, ratios)
    return models.MaskRCNN(models.resnet_backbone("resnet18"), rpn_anchor_generator=anchors, **settings), other


def faster_rcnn_on_one_map(**settings):
    """Return ours and torchvision's Faster R-CNN with RoIPool on one map of a ResNet-18, 15 anchors a cell."""

    class Backbone(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.body = IntermediateLayerGetter(torchvision.models.resnet18(), {"layer3": "0"})
            self.out_channels = 256

        def forward(self, x):
            return self.body(x)

    class Pooling(MultiScaleRoIAlign):
        def forward(self, x, boxes, image_shapes):
            return roi_pool(x["0"], boxes, self.output_size, 1 / 16)

    settings = {"num_classes": 4, "min_size": 96, "max_size": 140, **settings}
    sizes, ratios = ((8, 16, 32, 64, 96),), ((0.5, 1.0, 2.0),)
    mine = models.FasterRCNN(
        models.resnet_backbone("resnet18", fpn=False),
        rpn_anchor_generator=boxes.AnchorGenerator(sizes, ratios),
        roi_op="pool",
        **settings,
    )
    other = detection.FasterRCNN(
        Backbone(),
        rpn_anchor_generator=AnchorGenerator(sizes, ratios),
        box_roi_pool=Pooling(["0"], 7, 2),
        **settings,
    )
    return mine, other


def compare_detections(mine, other, images):
    """Match detections by box: all found, 0.05 pixels, 1e-3 of the score, 99.9% of each mask."""
    with torch.no_grad():
        expected = other([torch.tensor(image) for image in images])
    for found, wanted in zip(mine(images), expected, strict=True):
        found = {key: value.array for key, value in found.items()}
        wanted = {key: value.numpy() for key, value in wanted.items()}
        assert list(found) == list(wanted)
        assert len(found["boxes"]) == len(wanted["boxes"]) > 3
        match, distance = nearest(found["boxes"], wanted["boxes"])
        assert distance.max() < 0.05 and len(set(match)) == len(match)
        np.testing.assert_array_equal(found["labels"][match], wanted["labels"], strict=True)
        np.testing.assert_allclose(found["scores"][match], wanted["scores"], rtol=0, atol=1e-3)
        if "masks" in wanted:
            assert found["masks"].shape == wanted["masks"].shape
            same = ((found["masks"][match] > 0.5) == (wanted["masks"] > 0.5)).mean(axis=(1, 2, 3))
            assert same.min() > 0.999


@pytest.mark.parametrize("make", [mask_rcnn_on_a_pyramid, faster_rcnn_on_one_map])
@pytest.mark.parametrize("seed", range(3))
def test_detections(make, seed):
    mine, other = make(rpn_pre_nms_top_n_test=40, box_score_thresh=0.3)
    assert shapes(mine.state_dict()) == shapes(other.state_dict())
    mine.load_state_dict(fill(other, seed))
    compare_detections(mine.eval(), other.eval(), smooth_pictures(seed)[0])


def first(labels, positives, negatives):
    """Return the first few objects and background of each kind: a sample that does not depend on chance."""
    labels = np.asarray(labels)
    return np.flatnonzero(labels >= 1)[:positives], np.flatnonzero(labels == 0)[:negatives]


def force_samples(mine, other, losses_of):
    """Make both train on the same anchors and proposals, those of torchvision; return torchvision's losses and ours."""
    recorded = SimpleNamespace()

    def masks(counts):
        def sampler(labels):
            chosen = []
            for picture in labels:
                indices = first(picture.numpy(), *counts)
                chosen.append([torch.zeros(len(picture), dtype=torch.uint8).index_fill(0, torch.tensor(i), 1)
                               for i in indices])  # fmt: skip
            return tuple(map(list, zip(*chosen, strict=True)))

        return sampler

    filter_proposals = other.rpn.filter_proposals

    def record(*args):
        recorded.proposals = filter_proposals(*args)
        return recorded.proposals

    other.rpn.filter_proposals = record
    for theirs, ours, counts in ((other.rpn, mine.rpn, (20, 60)), (other.roi_heads, mine.roi_heads, (16, 48))):
        theirs.fg_bg_sampler = masks(counts)
        ours.sampler = lambda labels, generator=None, counts=counts: first(labels, *counts)
    expected = losses_of(other)
    mine.rpn.filter_proposals = lambda *args: tuple([one.numpy() for one in part] for part in recorded.proposals)
    return expected


@pytest.mark.parametrize("make", [mask_rcnn_on_a_pyramid, faster_rcnn_on_one_map])
@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize("seed", range(2))
def test_losses_and_gradients(make, seed, empty):
    mine, other = make(rpn_pre_nms_top_n_train=200, rpn_post_nms_top_n_train=100)
    mine.load_state_dict(fill(other, seed))
    images, targets = smooth_pictures(seed)
    if empty:  # a picture without objects beside one with some
        targets[1] = {key: value[:0] for key, value in targets[1].items()}
    mine.train(), other.train()

    def losses_of(model):
        theirs = [{key: torch.tensor(value) for key, value in target.items()} for target in targets]
        return model([torch.tensor(image) for image in images], theirs)

    expected = force_samples(mine, other, losses_of)
    losses = mine(images, targets)
    assert losses.keys() == expected.keys()
    for name, loss in losses.items():
        assert abs(loss.item() - expected[name].item()) < 1e-4 * max(1, expected[name].item()), name
    sum(losses.values()).backward()
    sum(expected.values()).backward()
    gradients = {name: parameter.grad for name, parameter in mine.named_parameters()}
    for name, parameter in other.named_parameters():
        # the largest difference of float32 and float64 at torchvision's is 1.4e-2 (reference/maskrcnn_resnet50_fpn)
        assert relative(gradients[name].numpy(), parameter.grad.numpy()) < 3e-2, name
