"""Operators on boxes and regions: RoIAlign, RoIPool, suppression, overlaps, masks laid into pictures."""

import numpy as np

from benchmarks.operator_case import Operator, normal, text


def random_boxes(rng, count, height, width, largest=0.5):
    """Return boxes (x1, y1, x2, y2) inside a picture, at least 16 pixels wide and high where it has room."""
    size = 16 + rng.random((count, 2)) * np.array([width, height]) * largest
    start = rng.random((count, 2)) * np.maximum(np.array([width, height]) - size, 0)
    return np.concatenate([start, start + size], axis=1).astype(np.float32)


def random_rois(rng, count, height, width, pictures=1):
    """Return regions (picture, x1, y1, x2, y2)."""
    numbers = rng.integers(0, pictures, (count, 1)).astype(np.float32)
    return np.concatenate([numbers, random_boxes(rng, count, height, width)], axis=1)


def crowded_boxes(rng, count, height=800, width=1088):
    """Return boxes as a detector proposes them: some around each object, of all sizes, and scores without ties."""
    centres = rng.random((max(1, count // 3), 2)) * np.array([width, height])
    size = np.exp(rng.uniform(np.log(16), np.log(256), (len(centres), 2)))
    which = rng.integers(0, len(centres), count)
    middle = centres[which] + rng.normal(0, 0.15, (count, 2)) * size[which]
    half = size[which] * np.exp(rng.normal(0, 0.15, (count, 2))) / 2
    scores = rng.permutation(count).astype(np.float32) / count
    return np.concatenate([middle - half, middle + half], axis=1).astype(np.float32), scores


def roi_align(shape, rois, bins, stride=16, sampling=2):
    """Return RoIAlign, aligned: ``rois`` regions of maps of some ``shape``, ``bins`` x ``bins`` each."""

    def make(rng):
        return {
            "x": normal(rng, *shape),
            "rois": random_rois(rng, rois, shape[2] * stride, shape[3] * stride, shape[0]),
            "dy": normal(rng, rois, shape[1], bins, bins),
        }

    scale = 1 / stride
    taps = rois * shape[1] * bins * bins * sampling * sampling * 4  # of the textbook: four pixels per sample
    return Operator(
        "roi_align",
        f"{text(*shape)}-{rois}x{bins}x{bins}",
        make,
        {
            "forward": lambda k, a, saved: k.roi_align_forward(a.x, a.rois, bins, scale, sampling, aligned=True),
            "backward": lambda k, a, saved: k.roi_align_backward(
                a.dy, a.rois, a.x.shape, scale, sampling, aligned=True
            ),
        },
        theirs=lambda torchvision, t: torchvision.ops.roi_align(t.x, t.rois, bins, scale, sampling, aligned=True),
        library="torchvision",
        reads={"backward": ("dy", "rois")},
        flops={"forward": 2 * taps, "backward": 2 * taps},
        tolerance=1e-4,  # gradients of hundreds of regions add up on one pixel
        exact=True,
        atomic=("backward",),
    )


def roi_pool(shape, rois, bins, stride=16):
    """Return RoIPool: ``rois`` regions of maps of some ``shape``, ``bins`` x ``bins`` each."""
    inputs = roi_align(shape, rois, bins, stride).make

    def forward(k, a, saved):
        return k.roi_pool_forward(a.x, a.rois, bins, 1 / stride)

    return Operator(
        "roi_pool",
        f"{text(*shape)}-{rois}x{bins}x{bins}",
        inputs,
        {"forward": forward, "backward": lambda k, a, saved: k.roi_pool_backward(a.dy, a.rois, saved[1], a.x.shape)},
        save=lambda k, a: forward(k, a, None),
        theirs=lambda torchvision, t: torchvision.ops.roi_pool(t.x, t.rois, bins, 1 / stride),
        library="torchvision",
        reads={"backward": ("dy", "rois")},
        exact=True,
        atomic=("backward",),
    )


def nms(boxes, threshold=0.5):
    """Return non-maximum suppression."""
    return Operator(
        "nms",
        str(boxes),
        lambda rng: dict(zip(("boxes", "scores"), crowded_boxes(rng, boxes), strict=True)),
        {"forward": lambda k, a, saved: k.nms(a.boxes, a.scores, threshold)},
        theirs=lambda torchvision, t: torchvision.ops.nms(t.boxes, t.scores, threshold),
        gradients={},
        library="torchvision",
        tolerance=0.0,
        exact=True,
    )


def box_iou(first, second):
    """Return the overlaps of every box of one set with every box of another."""
    return Operator(
        "box_iou",
        text(first, second),
        lambda rng: {"a": random_boxes(rng, first, 800, 1088), "b": random_boxes(rng, second, 800, 1088)},
        {"forward": lambda k, a, saved: k.box_iou(a.a, a.b)},
        theirs=lambda torchvision, t: torchvision.ops.box_iou(t.a, t.b),
        gradients={},
        library="torchvision",
        exact=True,
    )


def paste_masks(masks, height, width):
    """Return masks of 28 x 28 laid into pictures."""

    def theirs(torchvision, t):
        paste = torchvision.models.detection.roi_heads.paste_masks_in_image
        return paste(t.masks, t.boxes, (height, width), padding=1)

    def make(rng):
        return {
            "masks": rng.random((masks, 1, 28, 28), np.float32),
            "boxes": random_boxes(rng, masks, height, width),
        }

    return Operator(
        "paste_masks",
        f"{masks}-{height}x{width}",
        make,
        {"forward": lambda k, a, saved: k.paste_masks(a.masks, a.boxes, (height, width))},
        theirs=theirs,
        gradients={},
        library="torchvision",
        exact=True,
    )
