"""The networks that are measured, with random weights that another library can be given too, and their pictures."""

import numpy as np

from tinyseg import models

#: Names of U-Nets: widths, and the shape of the pictures.
UNETS = {
    "unet_tiny": ((1, 2), (1, 1, 4, 4)),
    "unet_small": ((4, 8, 16), (1, 1, 64, 64)),
    "unet": ((8, 16, 32, 64, 128), (10, 1, 224, 224)),
    "unet_wide": ((64, 128, 256, 512, 1024), (1, 1, 256, 256)),
}
#: Height and width of the photo: the network itself resizes it to 800 x 1199, and pads it to 800 x 1216.
PHOTO = (600, 899)
#: Of Adam for U-Nets; and of SGD for the Mask R-CNN, whose random weights a larger one would blow up.
LEARNING_RATE, SMALL_RATE = 1e-3, 1e-6


def unet(name):
    """Return our U-Net of that name, with random weights."""
    return with_random_weights(models.UNet(widths=UNETS[name][0]))


def mask_rcnn():
    """Return our maskrcnn_resnet50_fpn with random weights, which finds the most objects it may: 100."""
    return with_random_weights(models.maskrcnn_resnet50_fpn(box_score_thresh=0.0))


def with_random_weights(model):
    """Give a model weights that keep the size of its maps, the same at every call; return it.

    The first values of a new network would make all scores alike, and which boxes are kept a matter of rounding.
    """
    rng = np.random.default_rng(0)
    model.load_state_dict({name: _random(rng, name, tensor.shape) for name, tensor in model.state_dict().items()})
    return model


def _random(rng, name, shape):
    """Return values for a parameter or a running statistic."""
    part = name.rpartition(".")[2]
    if part == "num_batches_tracked":
        return np.array(3, np.int64)
    if part == "running_var" or (part == "weight" and len(shape) == 1):
        value = rng.uniform(0.5, 1.5, shape)
        # the last of a residual block: or else each block would double its input
        return np.asarray(value * (0.2 if name.endswith("bn3.weight") else 1), np.float32)
    if part in ("bias", "running_mean"):
        return np.asarray(rng.normal(0, 0.1, shape), np.float32)
    activated = not name.startswith(("backbone.fpn", "rpn", "roi_heads"))  # ReLU halves what it lets through
    value = rng.standard_normal(shape) * np.sqrt((2 if activated else 1) / np.prod(shape[1:]))
    # boxes that stay near where they were, and scores that are not all 0 or 1
    return np.asarray(value * {"bbox_pred": 0.05}.get(name.split(".")[-2], 1), np.float32)


def pictures(shape):
    """Return pictures in [0, 1] for a U-Net, and the truth: bright discs on noise."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[: shape[2], : shape[3]]
    truth = np.zeros((shape[0], 1, *shape[2:]), np.float32)
    for n in range(shape[0]):
        for _ in range(5):
            middle, radius = rng.random(2) * shape[2:], (0.05 + 0.1 * rng.random()) * shape[2]
            truth[n, 0][(y - middle[0]) ** 2 + (x - middle[1]) ** 2 < radius**2] = 1
    return np.clip(0.3 + 0.4 * truth + rng.normal(0, 0.1, shape), 0, 1).astype(np.float32), truth


def photo(size=PHOTO, objects=6):
    """Return a picture (3, H, W) with bright rectangles on noise, and the truth about them."""
    rng = np.random.default_rng(2)
    height, width = size
    picture = rng.random((3, height, width), np.float32) * np.float32(0.3)
    masks, boxes = np.zeros((objects, height, width), np.uint8), []
    for mask in masks:
        side = (0.1 + 0.3 * rng.random(2)) * size
        y1, x1 = (rng.random(2) * (size - side)).astype(int)
        y2, x2 = (int(y1 + side[0]), int(x1 + side[1]))
        mask[y1:y2, x1:x2] = 1
        picture[:, y1:y2, x1:x2] += rng.random((3, 1, 1), np.float32) * np.float32(0.7)
        boxes.append((x1, y1, x2, y2))
    truth = {"boxes": np.array(boxes, np.float32), "labels": rng.integers(1, 91, objects), "masks": masks}
    return np.minimum(picture, 1), truth


def first_ones(labels, count, fraction):
    """Return which objects and which background to learn from: the first, as many as a random choice would have.

    Every library then learns from the same ones, and the losses can be compared.
    """
    positives = np.flatnonzero(labels >= 1)[: int(count * fraction)]
    return positives, np.flatnonzero(labels == 0)[: count - len(positives)]
