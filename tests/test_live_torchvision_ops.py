"""Operators on boxes and regions, anchors and the transform of pictures against torchvision itself."""

import importlib.util

import numpy as np
import pytest

from tinyseg import Tensor, boxes, models, ops

if importlib.util.find_spec("torchvision") is not None:
    import torch
    import torchvision.ops as reference
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.image_list import ImageList
    from torchvision.models.detection.transform import GeneralizedRCNNTransform

pytestmark = pytest.mark.torchvision

SEEDS = range(6)
DTYPES = [np.float32, np.float64]
#: relative to the largest value: means of up to some hundred samples, whose weights round in the array's own type
BOUND = {np.float32: 1e-5, np.float64: 1e-13}
KINDS = ["inside", "outside", "tiny", "huge", "reversed", "no area", "on cells"]


def boxes_of(kind, rng, count, height, width, largest=1e6):
    """Return boxes (x1, y1, x2, y2) of one kind for a picture."""
    size = np.array([width, height] * 2, float)
    start = rng.random((count, 2)) * size[:2]
    if kind == "inside":
        found = np.sort(rng.random((count, 2, 2)) * size[:2], axis=1).reshape(count, 4)
    elif kind == "outside":
        found = np.concatenate([start - 2 * size[:2], start - size[:2]], axis=1)
        found[::2] += 4 * size
    elif kind == "tiny":
        found = np.concatenate([start, start + rng.random((count, 2)) * 0.01], axis=1)
    elif kind == "huge":
        found = np.concatenate([-rng.random((count, 2)), rng.random((count, 2))], axis=1) * largest
    elif kind == "reversed":
        found = rng.permuted(rng.random((count, 2, 2)) * size[:2], axis=1)
        found = -np.sort(-found, axis=1).reshape(count, 4)
        found[::3, 1], found[::3, 3] = found[::3, 3], found[::3, 1].copy()  # some along one axis only
    elif kind == "no area":
        found = np.concatenate([start, start], axis=1)
        found[::2, 2] += rng.random(len(found[::2])) * size[0]
    else:
        found = np.round(np.sort(rng.random((count, 2, 2)) * size[:2], axis=1)).reshape(count, 4)
    return found


def rois_of(kind, rng, dtype, count=9, pictures=2, height=24, width=30, **options):
    corners = boxes_of(kind, rng, count, height, width, **options)
    return np.column_stack([rng.integers(0, pictures, count), corners]).astype(dtype)


def compare(ours, theirs, arrays, dtype):
    """Compare outputs, and the gradients of all arrays, with a random gradient of the output."""
    mine = [Tensor(array.copy(), requires_grad=True) for array in arrays]
    other = [torch.tensor(array, requires_grad=True) for array in arrays]
    y, expected = ours(*mine), theirs(*other)
    close(y.numpy(), expected.detach().numpy(), dtype)
    upstream = np.random.default_rng(5).normal(size=y.shape).astype(dtype)
    y.backward(upstream)
    expected.backward(torch.tensor(upstream))
    for tensor, wanted in zip(mine, other, strict=True):
        close(tensor.grad.numpy(), wanted.grad.numpy(), dtype)


def close(actual, expected, dtype):
    assert actual.dtype == expected.dtype == dtype and actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=BOUND[dtype] * np.abs(expected).max(initial=1))


# ---- regions of interest ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_roi_pool(seed, kind, dtype):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2, 3, 12, 15)).astype(dtype)
    rois, size = rois_of(kind, rng, dtype), (int(rng.integers(1, 8)), int(rng.integers(1, 8)))
    compare(
        lambda t: ops.roi_pool(t, rois, size, 0.5),
        lambda t: reference.roi_pool(t, torch.tensor(rois), size, 0.5),
        [x],
        dtype,
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ratio", [-1, 0, 1, 2, 3])
@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_roi_align(seed, aligned, ratio, kind, dtype):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2, 3, 12, 15)).astype(dtype)
    # torchvision visits every sample of a huge box
    rois = rois_of(kind, rng, dtype, largest=1e6 if ratio > 0 else 500)
    size = (int(rng.integers(1, 8)), int(rng.integers(1, 8)))
    if kind == "reversed" and aligned and ratio <= 0:  # an error in both
        with pytest.raises(ValueError, match="rois"):
            ops.roi_align(Tensor(x), rois, size, 0.5, ratio, aligned=True)
        return
    compare(
        lambda t: ops.roi_align(t, rois, size, 0.5, ratio, aligned=aligned),
        lambda t: reference.roi_align(t, torch.tensor(rois), size, 0.5, ratio, aligned),
        [x],
        dtype,
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", SEEDS)
def test_multi_scale_roi_align(seed, dtype):
    rng = np.random.default_rng(seed)
    sizes = [(int(rng.integers(200, 260)), int(rng.integers(200, 260))) for _ in range(2)]
    padded = [-(-max(side) // 32) * 32 for side in zip(*sizes, strict=True)]
    names = ["0", "1", "2", "3"]
    maps = [rng.normal(size=(2, 3, *(side >> 2 + n for side in padded))).astype(dtype) for n in range(4)]
    found = [
        np.concatenate([boxes_of(kind, rng, 8, *size) for kind in ("inside", "tiny", "no area", "on cells")])
        for size in sizes
    ]
    found = [np.concatenate([corners, corners * 4]).astype(dtype) for corners in found]
    mine = models.MultiScaleRoIPooling(names, 3, 2)
    other = reference.MultiScaleRoIAlign(names, 3, 2)
    compare(
        lambda *t: mine(dict(zip(names, t, strict=True)), found, sizes),
        lambda *t: other(dict(zip(names, t, strict=True)), [torch.tensor(one) for one in found], sizes),
        maps,
        dtype,
    )


# ---- boxes -----------------------------------------------------------------------------------------------------------


def crowd(rng, dtype, count=300):
    """Return boxes of all kinds, many of which overlap, some twice, with scores some of which are equal."""
    kinds = [boxes_of(kind, rng, count // 6, 100, 120, 300) for kind in KINDS]
    found = np.concatenate([*kinds, boxes_of("inside", rng, count, 60, 60)])
    found = np.concatenate([found, found[::5]]).astype(dtype)
    return found, np.round(rng.random(len(found)), 2).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("seed", SEEDS)
def test_nms(seed, threshold, dtype):
    found, scores = crowd(np.random.default_rng(seed), dtype)
    wanted = reference.nms(torch.tensor(found), torch.tensor(scores), threshold).numpy()
    assert len(wanted) > 1 and (threshold == 1 or len(wanted) < len(found))
    np.testing.assert_array_equal(ops.nms(found, scores, threshold), wanted, strict=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", SEEDS)
def test_batched_nms(seed, dtype):
    rng = np.random.default_rng(seed)
    found, _ = crowd(rng, dtype)
    scores = rng.permutation(len(found)).astype(dtype)  # torchvision does not keep the order of equal ones here
    classes = rng.integers(0, 5, len(found))
    args = torch.tensor(found), torch.tensor(scores), torch.tensor(classes)
    # its other way shifts the boxes of each class by an offset, which rounds them and lets negative ones meet others
    wanted = reference.boxes._batched_nms_vanilla(*args, 0.5).numpy()
    np.testing.assert_array_equal(ops.batched_nms(found, scores, classes, 0.5), wanted, strict=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", SEEDS)
def test_box_iou(seed, dtype):
    found, _ = crowd(np.random.default_rng(seed), dtype)
    wanted = reference.box_iou(torch.tensor(found), torch.tensor(found[::7])).numpy()
    np.testing.assert_array_equal(ops.box_iou(found, found[::7]), wanted, strict=True)


@pytest.mark.parametrize("seed", SEEDS)
def test_anchors(seed):
    rng = np.random.default_rng(seed)
    levels = int(rng.integers(1, 5))
    sizes = tuple(tuple(int(n) for n in rng.integers(4, 300, 3)) for _ in range(levels))
    ratios = tuple(tuple(float(n) for n in rng.uniform(0.3, 3, 2)) for _ in range(levels))
    picture = tuple(int(n) for n in rng.integers(100, 300, 2))
    shapes = [tuple(side // 2 ** (2 + level) for side in picture) for level in range(levels)]
    mine = boxes.AnchorGenerator(sizes, ratios)
    other = AnchorGenerator(sizes, ratios)
    wanted = other(ImageList(torch.zeros(1, 3, *picture), [picture]), [torch.zeros(1, 1, *shape) for shape in shapes])
    found = np.concatenate(mine(picture, shapes))
    np.testing.assert_array_equal(found.astype(np.float32), wanted[0].numpy())
    assert mine.num_anchors_per_location() == other.num_anchors_per_location()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("seed", range(12))
def test_transform(seed, training):
    rng = np.random.default_rng(seed)
    least = int(rng.integers(20, 120))
    settings = least, int(least * rng.uniform(1, 2)), (0.4, 0.5, 0.6), (0.2, 0.3, 0.1)
    images, targets = [], []
    for _ in range(3):
        height, width = (int(n) for n in rng.integers(15, 200, 2))
        images.append(rng.random((3, height, width), np.float32))
        corners = boxes_of("inside", rng, 4, height, width).astype(np.float32)
        masks = rng.integers(0, 2, (4, height, width)).astype(np.uint8)
        targets.append({"boxes": corners, "masks": masks, "labels": np.arange(4)})
    mine, other = models.GeneralizedRCNNTransform(*settings), GeneralizedRCNNTransform(*settings)
    found, truths = mine.train(training)(images, targets)
    wanted, expected = other.train(training)(
        [torch.tensor(image) for image in images],
        [{key: torch.tensor(value) for key, value in target.items()} for target in targets],
    )
    assert [tuple(size) for size in found.image_sizes] == wanted.image_sizes
    # in float32 a place between pixels is known to 1e-5 pixels, and neighbours of these pictures differ by up to 10
    np.testing.assert_allclose(found.tensors.numpy(), wanted.tensors.numpy(), rtol=0, atol=3e-4)
    for truth, target in zip(truths, expected, strict=True):
        np.testing.assert_allclose(truth["boxes"], target["boxes"].numpy(), rtol=1e-6)
        np.testing.assert_array_equal(truth["masks"], target["masks"].numpy())
