"""What is measured: the table of all cases.

S: small arrays, which the textbook kernels can bear. M: the U-Net of the article, ten pictures of 224 x 224. L: a U-Net
of widths 64 to 1024, and Mask R-CNN with a ResNet-50 and a feature pyramid on a photo.
"""

from fnmatch import fnmatchcase
from functools import cache, partial
from typing import Any, NamedTuple

import kernels
from benchmarks import SIZES, layers, networks
from benchmarks import operators as op
from benchmarks.box_operators import box_iou, nms, paste_masks, roi_align, roi_pool
from benchmarks.convolutions import conv2d, linear
from benchmarks.models import MaskRCNNRun, UNetRun
from benchmarks.optimisers import OptimiserStep
from tinyseg import models


class Case(NamedTuple):
    """One row of the result: an operator or a model of one size in one direction."""

    kind: str
    size: str
    subject: Any  # an Operator, or what has its methods
    direction: str

    @property
    def name(self):
        """``kind/operator/size/arrays/direction``."""
        return "/".join((self.kind, self.subject.name, self.size, self.subject.arrays, self.direction))

    def entrants(self, names):
        """Return, by name, functions that prepare those of ``names`` who can take part."""
        others = self.subject.libraries(self.direction)
        backends = [name for name in kernels.ALL_BACKENDS if name != "naive" or self.size == "S"]
        if self.direction in getattr(self.subject, "atomic", ()):
            backends.append("cuda.atomic")
        return {
            name: partial(self.subject.entrant, name, self.direction)
            for name in names
            if name in others or name in backends
        }


@cache
def every():
    """Return all cases, in the order in which they are measured."""
    cases = []
    for kind, size, subject in _subjects():
        cases += [Case(kind, size, subject, direction) for direction in subject.directions]
    return cases


def choose(patterns=(), sizes=SIZES):
    """Return the cases of some sizes whose name holds one of the patterns.

    Parameters
    ----------
    patterns : sequence of str
        Parts of names, where ``*`` and ``?`` stand for anything: ``conv2d``, ``models``, ``L*forward``. None means all.
    sizes : sequence of str
        Of ``benchmarks.SIZES``.

    Returns
    -------
    list of Case

    Raises
    ------
    ValueError
        If a pattern chooses nothing.
    """
    chosen = [case for case in every() if case.size in sizes]
    for pattern in patterns:
        if not any(_matches(case, pattern) for case in chosen):
            where = "" if set(sizes) == set(SIZES) else f" of size {', '.join(sizes)}"
            raise ValueError(f"{pattern!r} chooses none of {len(chosen)} cases{where}; --list shows them")
    return [case for case in chosen if not patterns or any(_matches(case, pattern) for pattern in patterns)]


def named(name):
    """Return the case of that name."""
    return next(case for case in every() if case.name == name)


def _matches(case, pattern):
    return fnmatchcase(case.name, f"*{pattern}*")


def _subjects():
    """Yield kind, size and subject of everything."""
    yield from (("operators", "S", subject) for subject in _small())
    yield from (("operators", "M", subject) for subject in _medium())
    yield from (("operators", "L", subject) for subject in _large())
    yield "models", "S", UNetRun("unet_small")
    yield "models", "M", UNetRun("unet")
    yield "models", "L", UNetRun("unet_wide")
    yield "models", "L", MaskRCNNRun()


def _layers_of(*names):
    """Return every distinct layer of the networks of those names."""
    return [layers.operator(layer, f"{name}:") for name in names for layer in layers.stored()[name]]


def _parameters_of(name):
    """Return the step of Adam for a U-Net."""
    shapes = cache(lambda: [parameter.shape for parameter in models.UNet(widths=networks.UNETS[name][0]).parameters()])
    return OptimiserStep("adam", name, shapes)


@cache
def _mask_rcnn_shapes():
    return [parameter.shape for parameter in models.maskrcnn_resnet50_fpn().parameters()]


def _small():
    maps = (2, 8, 32, 32)
    return [
        *_layers_of("unet_small"),
        conv2d(maps, (16, 8, 1, 1)),
        conv2d(maps, (16, 8, 3, 3), (2, 2), (1, 1)),
        conv2d((2, 3, 64, 64), (8, 3, 7, 7), (2, 2), (3, 3)),
        conv2d(maps, (16, 8, 3, 3), padding=(2, 2), dilation=(2, 2)),
        conv2d(maps, (16, 4, 3, 3), padding=(1, 1), groups=2),
        conv2d(maps, (8, 1, 3, 3), padding=(1, 1), groups=8),
        linear((64, 128), (32, 128)),
        *_between(maps),
        op.upsample2d(maps, "bilinear"),
        op.cross_entropy(2, 4, 32, 32),
        op.smooth_l1(512, 4),
        roi_align((1, 16, 25, 34), 32, 7, 32),
        roi_pool((1, 16, 25, 34), 32, 7, 32),
        nms(200),
        box_iou(100, 50),
        paste_masks(4, 120, 160),
        _parameters_of("unet_small"),
    ]


def _medium():
    maps = (10, 8, 224, 224)
    return [
        *_layers_of("unet"),
        *_between(maps),
        op.upsample2d((10, 16, 112, 112), "bilinear"),
        op.softmax(10, 4, 224, 224),
        op.cross_entropy(10, 4, 224, 224),
        _parameters_of("unet"),
    ]


def _between(maps):
    """Return what stands between the convolutions of a U-Net, on its largest maps."""
    picture = (maps[0], 1, *maps[2:])
    return [
        op.batch_norm(*maps),
        op.batch_norm_evaluation(*maps),
        op.relu(*maps),
        op.max_pool2d(maps, 2, 2),
        op.concat(*maps),
        op.sigmoid(*picture),
        op.binary_cross_entropy_with_logits(*picture),
    ]


def _large():
    pyramid = (1, 256, 50, 68)
    return [
        *_layers_of("unet_wide", "maskrcnn"),
        op.batch_norm(1, 64, 400, 608),
        op.batch_norm(1, 256, 200, 304),
        op.batch_norm_evaluation(1, 256, 200, 304),
        op.relu(1, 256, 200, 304),
        op.add(1, 256, 200, 304),
        op.max_pool2d((1, 64, 400, 608), 3, 2, 1),
        op.upsample2d((1, 256, 100, 152), "nearest"),
        roi_align(pyramid, 512, 7),
        roi_align(pyramid, 100, 14),
        roi_pool(pyramid, 512, 7),
        nms(2000),
        nms(12000),
        box_iou(2000, 2000),
        paste_masks(100, *networks.PHOTO),
        op.softmax(1000, 91),
        op.cross_entropy(512, 91),
        op.smooth_l1(512, 4),
        op.binary_cross_entropy_with_logits(100, 28, 28),
        _parameters_of("unet_wide"),
        OptimiserStep("sgd", "maskrcnn", _mask_rcnn_shapes),
    ]
