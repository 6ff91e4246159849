"""The region proposal network: where in the picture there might be an object (Ren et al., arXiv:1506.01497)."""

from functools import partial

import numpy as np

from tinyseg import boxes as box_tools
from tinyseg import nn, ops, random
from tinyseg.backend import host_work, moved
from tinyseg.models import old_names
from tinyseg.tensor import tensor_beside
from tinyseg.watching import tell


class RPNHead(nn.Module):
    """For every anchor of every cell: how likely it holds an object, and how to move it there.

    Parameters
    ----------
    in_channels : int
        Channels of each map.
    num_anchors : int
        Anchors of a cell.

    Attributes
    ----------
    conv : Sequential
        A convolution 3x3 with ReLU.
    cls_logits, bbox_pred : Conv2d
        1x1: one logit, and dx, dy, dw, dh, for each anchor.
    """

    old_keys = old_names.rpn_head()

    def __init__(self, in_channels, num_anchors):
        super().__init__()
        self.conv = nn.Sequential(nn.Sequential(nn.Conv2d(in_channels, in_channels, 3, padding=1), nn.ReLU()))
        self.cls_logits = nn.Conv2d(in_channels, num_anchors, 1)
        self.bbox_pred = nn.Conv2d(in_channels, 4 * num_anchors, 1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)

    def forward(self, features):
        """Return logits ``(N, A, h, w)`` and codes ``(N, 4 * A, h, w)`` of each map ``(N, C, h, w)``, two lists."""
        shared = [self.conv(x) for x in features]
        return [self.cls_logits(x) for x in shared], [self.bbox_pred(x) for x in shared]


class RegionProposalNetwork(nn.Module):
    """Proposes boxes that might hold an object, of whatever class.

    Parameters
    ----------
    anchor_generator : tinyseg.boxes.AnchorGenerator
        The boxes to start from.
    head : Module
        As `RPNHead`.
    fg_iou_thresh, bg_iou_thresh : float
        In training, an anchor that overlaps a true box by the first or more is an example of an object, one that
        overlaps none by the second one of background; those in between do not count.
    batch_size_per_image : int
        Anchors of each picture that the loss is computed on.
    positive_fraction : float
        Share of objects among these, at most.
    pre_nms_top_n, post_nms_top_n : dict of int
        For ``"training"`` and ``"testing"``: boxes, of each level before and of all levels after the suppression.
    nms_thresh : float
        Boxes that overlap more than this with a better one of their level are left out.
    score_thresh : float
        Boxes with a lower probability are left out.

    Attributes
    ----------
    sampler : callable
        ``sampler(labels, generator=...)`` chooses the anchors of one picture to train on: see
        `tinyseg.boxes.balanced_sample`.
    min_size : float
        Narrower or lower proposals, in pixels, are left out.

    Notes
    -----
    As torchvision's class of this name.
    """

    def __init__(
        self,
        anchor_generator,
        head,
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=256,
        positive_fraction=0.5,
        pre_nms_top_n=None,
        post_nms_top_n=None,
        nms_thresh=0.7,
        score_thresh=0.0,
    ):
        super().__init__()
        self.anchor_generator, self.head = anchor_generator, head
        self.fg_iou_thresh, self.bg_iou_thresh = fg_iou_thresh, bg_iou_thresh
        self.sampler = partial(
            box_tools.balanced_sample, size=batch_size_per_image, positive_fraction=positive_fraction
        )
        self.pre_nms_top_n = {"training": 2000, "testing": 1000} if pre_nms_top_n is None else pre_nms_top_n
        self.post_nms_top_n = {"training": 2000, "testing": 1000} if post_nms_top_n is None else post_nms_top_n
        self.nms_thresh, self.score_thresh, self.min_size = nms_thresh, score_thresh, 1e-3

    def forward(self, images, features, targets=None, generator=None):
        """Return proposals, and in training the losses.

        Parameters
        ----------
        images : ImageList
            The batch.
        features : dict of Tensor
            Maps ``(N, C, h, w)``, the finest first.
        targets : list of dict of ndarray, optional
            In training: the true ``boxes`` of each picture.
        generator : numpy.random.Generator, optional
            Draws the anchors to train on; tinyseg's own if left out.

        Returns
        -------
        proposals : list of ndarray
            For each picture ``(K, 4)``, by falling score. No gradient flows into them.
        losses : dict of Tensor
            In training ``loss_objectness`` and ``loss_rpn_box_reg``, otherwise nothing.
        """
        maps = list(features.values())
        logits, codes = self.head(maps)
        level_sizes = [x.size // len(x) for x in logits]
        logits, codes = _by_anchor(logits, 1), _by_anchor(codes, 4)
        anchors = self.anchors(images, maps)
        scores, found = moved(logits.array, "cpu")[:, :, 0], moved(codes.array, "cpu")
        decoded = np.stack([box_tools.decode(picture, anchors)[:, 0] for picture in found])
        if not (np.isfinite(decoded).all() and np.isfinite(scores).all()):
            raise FloatingPointError("the region proposal network gives NaN or infinity")
        tell("anchors", boxes=anchors, level_sizes=level_sizes, logits=scores, codes=found, decoded=decoded)
        proposals, _ = self.filter_proposals(decoded, scores, images.image_sizes, level_sizes)
        if not self.training:
            return proposals, {}
        labels, matched = self.assign_targets_to_anchors(anchors, targets)
        return proposals, self.losses(logits, codes, anchors, labels, matched, generator)

    def anchors(self, images, maps):
        """Return the anchors ``(A, 4)`` of every picture of the batch: all levels, in the type of the maps."""
        made = self.anchor_generator(images.tensors.shape[2:], [x.shape[2:] for x in maps])
        return np.concatenate(made).astype(maps[0].dtype)

    def filter_proposals(self, boxes, logits, image_sizes, level_sizes):
        """Return the best boxes of each picture.

        Parameters
        ----------
        boxes : ndarray, shape (N, A, 4)
            The anchors, moved.
        logits : ndarray, shape (N, A)
            How likely each holds an object.
        image_sizes : list of (int, int)
            Height and width of each picture.
        level_sizes : list of int
            Boxes of each level.

        Returns
        -------
        boxes : list of ndarray
            For each picture ``(K, 4)``, by falling score.
        scores : list of ndarray
            Their probabilities, ``(K,)``.
        """
        mode = "training" if self.training else "testing"
        kept = [
            box_tools.filter_proposals(
                picture_boxes,
                picture_logits,
                level_sizes,
                size,
                self.pre_nms_top_n[mode],
                self.post_nms_top_n[mode],
                self.nms_thresh,
                self.min_size,
                score_threshold=self.score_thresh,
                logits=True,
            )
            for picture_boxes, picture_logits, size in zip(boxes, logits, image_sizes, strict=True)
        ]
        return [pair[0] for pair in kept], [pair[1] for pair in kept]

    @host_work()
    def assign_targets_to_anchors(self, anchors, targets):
        """Return which anchors show an object, and which.

        Parameters
        ----------
        anchors : ndarray, shape (A, 4)
            The same for every picture.
        targets : list of dict of ndarray
            The true ``boxes`` ``(K, 4)`` of each picture.

        Returns
        -------
        labels : list of ndarray
            For each picture ``(A,)``: 1 object, 0 background, -1 neither.
        matched : list of ndarray
            ``(A, 4)``: the true box of each anchor with label 1; elsewhere the anchor itself.
        """
        labels, matched = [], []
        for target in targets:
            truth = target["boxes"].astype(anchors.dtype)
            matches = box_tools.match(
                ops.box_iou(truth, anchors), self.fg_iou_thresh, self.bg_iou_thresh, allow_low_quality=True
            )
            positive = matches >= 0
            labels.append(np.where(matches == box_tools.IGNORED, -1, positive).astype(np.int64))
            matched.append(anchors.copy())
            matched[-1][positive] = truth[matches[positive]]
        return labels, matched

    def losses(self, logits, codes, anchors, labels, matched, generator=None):
        """Return the losses over a sample of the anchors.

        Parameters
        ----------
        logits, codes : Tensor
            ``(N, A, 1)`` and ``(N, A, 4)``: what the head says.
        anchors : ndarray, shape (A, 4)
            The same for every picture.
        labels, matched : list of ndarray
            From `assign_targets_to_anchors`.
        generator : numpy.random.Generator, optional
            Draws the sample.

        Returns
        -------
        dict of Tensor
            ``loss_objectness``, binary cross entropy; ``loss_rpn_box_reg``, smooth L1 over the objects, summed and
            divided by the size of the sample. Both 0 where there is no sample.
        """
        generator = random.generator() if generator is None else generator
        count = len(anchors)
        positives, negatives = [], []
        for n, picture in enumerate(labels):
            chosen = self.sampler(picture, generator=generator)
            positives.append(chosen[0] + n * count)
            negatives.append(chosen[1] + n * count)
        positive = np.concatenate(positives)
        sample = np.concatenate([positive, *negatives])
        wanted = box_tools.encode(np.concatenate(matched)[positive], anchors[positive % count])
        regression = ops.smooth_l1_loss(
            codes.reshape(-1, 4)[positive], tensor_beside(codes, wanted), reduction="sum", beta=1 / 9
        )
        objectness = ops.binary_cross_entropy_with_logits(
            logits.reshape(-1)[sample], tensor_beside(logits, np.concatenate(labels)[sample], logits.dtype)
        )
        return {"loss_objectness": objectness, "loss_rpn_box_reg": regression / max(len(sample), 1)}


def _by_anchor(maps, values):
    """Return maps ``(N, A * values, h, w)`` of all levels as ``(N, anchors, values)``, in the anchors' order."""
    rows = []
    for x in maps:
        pictures, channels, height, width = x.shape
        x = x.reshape(pictures, channels // values, values, height, width)
        rows.append(x.permute(0, 3, 4, 1, 2).reshape(pictures, -1, values))
    return rows[0] if len(rows) == 1 else ops.cat(rows, dim=1)
