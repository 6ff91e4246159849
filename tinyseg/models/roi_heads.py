"""What a detector does with each proposal: its class, its box, and in Mask R-CNN its mask."""

from functools import partial

import numpy as np

from tinyseg import boxes as box_tools
from tinyseg import nn, ops, random
from tinyseg.backend import host_work, kernel, moved
from tinyseg.tensor import tensor_beside
from tinyseg.watching import tell


class RoIHeads(nn.Module):
    """The second stage of a detector.

    Parameters
    ----------
    box_roi_pool, box_head, box_predictor : Module
        Pool proposals from the maps (`tinyseg.models.MultiScaleRoIPooling`); describe each by a vector; make class
        scores and box codes of it.
    fg_iou_thresh, bg_iou_thresh : float
        In training, a proposal that overlaps a true box by the first or more is an example of its class, one that
        overlaps none by the second one of background.
    batch_size_per_image : int
        Proposals of each picture to train on.
    positive_fraction : float
        Share of objects among these, at most.
    bbox_reg_weights : (float, float, float, float), optional
        Factors of dx, dy, dw, dh; (10, 10, 5, 5) if left out.
    score_thresh : float
        In evaluation, boxes with a lower probability are left out, or an equal one.
    nms_thresh : float
        Boxes that overlap more than this with a better one of their class are left out.
    detections_per_img : int
        Boxes of a picture, at most.
    mask_roi_pool, mask_head, mask_predictor : Module, optional
        The same for masks.

    Attributes
    ----------
    sampler : callable
        ``sampler(labels, generator=...)`` chooses the proposals of one picture to train on: see
        `tinyseg.boxes.balanced_sample`.

    Notes
    -----
    As torchvision's class of this name. Girshick, arXiv:1504.08083; He et al., arXiv:1703.06870.
    """

    def __init__(
        self,
        box_roi_pool,
        box_head,
        box_predictor,
        fg_iou_thresh=0.5,
        bg_iou_thresh=0.5,
        batch_size_per_image=512,
        positive_fraction=0.25,
        bbox_reg_weights=None,
        score_thresh=0.05,
        nms_thresh=0.5,
        detections_per_img=100,
        mask_roi_pool=None,
        mask_head=None,
        mask_predictor=None,
    ):
        super().__init__()
        self.box_roi_pool, self.box_head, self.box_predictor = box_roi_pool, box_head, box_predictor
        self.fg_iou_thresh, self.bg_iou_thresh = fg_iou_thresh, bg_iou_thresh
        self.sampler = partial(
            box_tools.balanced_sample, size=batch_size_per_image, positive_fraction=positive_fraction
        )
        self.bbox_reg_weights = (10.0, 10.0, 5.0, 5.0) if bbox_reg_weights is None else tuple(bbox_reg_weights)
        self.score_thresh, self.nms_thresh = score_thresh, nms_thresh
        self.detections_per_img = detections_per_img
        self.mask_roi_pool, self.mask_head, self.mask_predictor = mask_roi_pool, mask_head, mask_predictor

    def has_mask(self):
        """Return whether masks are predicted."""
        return None not in (self.mask_roi_pool, self.mask_head, self.mask_predictor)

    def forward(self, features, proposals, image_sizes, targets=None, generator=None):
        """Return what is found, or in training the losses.

        Parameters
        ----------
        features : dict of Tensor
            Maps ``(N, C, h, w)``.
        proposals : list of ndarray
            Boxes ``(K, 4)`` of each picture.
        image_sizes : list of (int, int)
            Height and width of each picture.
        targets : list of dict of ndarray, optional
            In training: ``boxes`` ``(K, 4)``, ``labels`` ``(K,)`` and for masks ``masks`` ``(K, H, W)``.
        generator : numpy.random.Generator, optional
            Draws the proposals to train on; tinyseg's own if left out.

        Returns
        -------
        detections : list of dict
            In evaluation for each picture ``boxes`` ``(D, 4)``, ``labels`` ``(D,)``, ``scores`` ``(D,)`` as arrays,
            by falling score, and ``masks`` ``(D, 1, M, M)``: a Tensor of probabilities over each box.
        losses : dict of Tensor
            In training ``loss_classifier``, ``loss_box_reg`` and ``loss_mask``.
        """
        if self.training:
            return [], self._losses(features, proposals, image_sizes, targets, generator)
        logits, codes = self._describe(features, proposals, image_sizes)
        logits, codes = moved(logits.array, "cpu"), moved(codes.array, "cpu")
        found = self.postprocess_detections(logits, codes, proposals, image_sizes)
        detections = [dict(zip(("boxes", "scores", "labels"), one, strict=True)) for one in found]
        if self.has_mask():
            masks = self._mask_logits(features, [one["boxes"] for one in detections], image_sizes)
            labels = np.concatenate([one["labels"] for one in detections])
            probabilities = ops.sigmoid(masks[np.arange(len(labels)), labels])
            start = 0
            for one in detections:
                end = start + len(one["labels"])
                one["masks"] = probabilities[start:end].reshape(end - start, 1, *masks.shape[2:])
                start = end
        return detections, {}

    def _describe(self, features, proposals, image_sizes):
        """Return class scores and box codes of proposals."""
        return self.box_predictor(self.box_head(self.box_roi_pool(features, proposals, image_sizes)))

    def _mask_logits(self, features, boxes, image_sizes):
        """Return ``(R, classes, M, M)`` for boxes."""
        return self.mask_predictor(self.mask_head(self.mask_roi_pool(features, boxes, image_sizes)))

    # ---- training --------------------------------------------------------------------------------------------------

    def _losses(self, features, proposals, image_sizes, targets, generator):
        """Return the losses over a sample of the proposals."""
        boxes, matches, labels = self.select_training_samples(proposals, targets, generator)
        logits, codes = self._describe(features, boxes, image_sizes)
        truths = [target["boxes"] for target in targets]
        losses = box_losses(logits, codes, boxes, matches, labels, truths, self.bbox_reg_weights)
        if self.has_mask():
            positives = [picture > 0 for picture in labels]
            boxes = [box[p] for box, p in zip(boxes, positives, strict=True)]
            matches = [match[p] for match, p in zip(matches, positives, strict=True)]
            masks = self._mask_logits(features, boxes, image_sizes)
            losses["loss_mask"] = mask_loss(
                masks, boxes, matches, [t["masks"] for t in targets], [t["labels"] for t in targets]
            )
        return losses

    def select_training_samples(self, proposals, targets, generator=None):
        """Choose proposals to train on, the true boxes among them.

        Parameters
        ----------
        proposals : list of ndarray
            Boxes ``(K, 4)`` of each picture.
        targets : list of dict of ndarray
            ``boxes`` and ``labels`` of each picture.
        generator : numpy.random.Generator, optional
            Draws the sample; tinyseg's own if left out.

        Returns
        -------
        boxes, matches, labels : list of ndarray
            For each picture the boxes chosen ``(S, 4)``, the true box that each overlaps most, by number (0 for
            background) and its class (0 for background).
        """
        generator = random.generator() if generator is None else generator
        chosen = []
        for boxes, target in zip(proposals, targets, strict=True):
            truth = target["boxes"].astype(boxes.dtype)
            boxes = np.concatenate([boxes, truth])
            matches, labels = self.assign_targets_to_proposals(boxes, truth, target["labels"])
            sample = np.sort(np.concatenate(self.sampler(labels, generator=generator)))
            chosen.append((boxes[sample], matches[sample], labels[sample]))
        boxes, matches, labels = (list(part) for part in zip(*chosen, strict=True))
        return boxes, matches, labels

    @host_work()
    def assign_targets_to_proposals(self, boxes, truth, classes):
        """Return the true box of each proposal, and its class.

        Parameters
        ----------
        boxes : ndarray, shape (R, 4)
            Proposals of one picture.
        truth : ndarray, shape (K, 4)
            Its true boxes.
        classes : ndarray, shape (K,)
            Their classes.

        Returns
        -------
        matches : ndarray, shape (R,)
            Number of the true box; 0 where there is none.
        labels : ndarray, shape (R,)
            Its class, 0 for background, -1 for what lies between the thresholds.
        """
        if not len(truth):
            return np.zeros(len(boxes), np.int64), np.zeros(len(boxes), np.int64)
        matches = box_tools.match(ops.box_iou(truth, boxes), self.fg_iou_thresh, self.bg_iou_thresh)
        labels = classes[matches.clip(0)]
        labels[matches == box_tools.BACKGROUND] = 0
        labels[matches == box_tools.IGNORED] = -1
        return matches.clip(0), labels

    # ---- evaluation ------------------------------------------------------------------------------------------------

    @host_work()
    def postprocess_detections(self, logits, codes, proposals, image_sizes):
        """Turn scores and codes into detections.

        Parameters
        ----------
        logits : ndarray, shape (R, C)
            Class scores of all proposals, one picture after the other.
        codes : ndarray, shape (R, 4 * C)
            Box codes.
        proposals : list of ndarray
            Boxes ``(K, 4)`` of each picture.
        image_sizes : list of (int, int)
            Height and width of each picture.

        Returns
        -------
        list of (ndarray, ndarray, ndarray)
            For each picture boxes ``(D, 4)``, scores ``(D,)`` and classes ``(D,)``, by falling score. A proposal may
            give a box for each of several classes.
        """
        probabilities = ops.softmax(logits, dim=1).array
        results, start = [], 0
        for boxes, size in zip(proposals, image_sizes, strict=True):
            rows = slice(start, start + len(boxes))
            start += len(boxes)
            decoded = box_tools.decode(codes[rows], boxes, self.bbox_reg_weights)
            moved = box_tools.clip_to_picture(decoded, size)[:, 1:].reshape(-1, 4)
            scores = probabilities[rows, 1:].ravel()
            classes = np.tile(np.arange(1, logits.shape[1]), len(boxes))
            sure = np.flatnonzero(scores > self.score_thresh)
            large = sure[box_tools.remove_small_boxes(moved[sure], 1e-2)]
            apart = large[ops.batched_nms(moved[large], scores[large], classes[large], self.nms_thresh)]
            kept = apart[: self.detections_per_img]
            steps = {"sure": sure, "large": large, "apart": apart, "kept": kept}
            before = {"probabilities": probabilities[rows], "decoded": decoded}
            tell("detections", boxes=moved, scores=scores, classes=classes, **before, **steps)
            results.append((moved[kept], scores[kept], classes[kept].astype(np.int64)))
        return results


def box_losses(logits, codes, boxes, matches, labels, truths, weights):
    """Return the losses of classes and boxes.

    Parameters
    ----------
    logits, codes : Tensor
        ``(R, C)`` and ``(R, 4 * C)``: class scores and box codes of all proposals, one picture after the other.
    boxes, matches, labels : list of ndarray
        For each picture the proposals ``(S, 4)``, the number of their true box and its class, 0 for background.
    truths : list of ndarray
        The true boxes ``(K, 4)``.
    weights : sequence of float
        Factors of dx, dy, dw, dh.

    Returns
    -------
    dict of Tensor
        ``loss_classifier``, cross entropy; ``loss_box_reg``, smooth L1 over the objects, summed and divided by the
        number of proposals. Both 0 where there are none.
    """
    classes = np.concatenate(labels)
    positive = np.flatnonzero(classes > 0)
    proposals = np.concatenate(boxes)[positive]
    wanted = [truth[match[label > 0]] for truth, match, label in zip(truths, matches, labels, strict=True)]
    targets = box_tools.encode(np.concatenate(wanted).astype(proposals.dtype), proposals, weights)
    of_class = codes.reshape(len(classes), codes.shape[1] // 4, 4)[positive, classes[positive]]
    regression = ops.smooth_l1_loss(of_class, tensor_beside(codes, targets), reduction="sum", beta=1 / 9)
    return {
        "loss_classifier": ops.cross_entropy(logits, tensor_beside(logits, classes)),
        "loss_box_reg": regression / max(len(classes), 1),
    }


@host_work()
def mask_targets(boxes, matches, masks, size):
    """Return what the mask head should say: each true mask, seen through its proposal.

    Parameters
    ----------
    boxes : ndarray, shape (R, 4)
        Proposals of one picture.
    matches : ndarray of int, shape (R,)
        Number of the true mask of each.
    masks : ndarray, shape (K, H, W)
        True masks, 0 and 1.
    size : int
        Height and width of the result.

    Returns
    -------
    ndarray, shape (R, size, size)
        From 0 to 1: RoIAlign of the masks, not aligned, with adaptive sampling, as torchvision does it.
    """
    rois = np.concatenate([matches[:, None].astype(boxes.dtype), boxes], axis=1)
    return kernel("roi_align_forward")(masks[:, None].astype(boxes.dtype), rois, size, aligned=False)[:, 0]


def mask_loss(logits, boxes, matches, masks, labels):
    """Return the binary cross entropy of the masks of the true classes; 0 where there are none.

    Parameters
    ----------
    logits : Tensor
        ``(R, C, M, M)`` for all proposals that show an object, one picture after the other.
    boxes, matches : list of ndarray
        For each picture these proposals ``(S, 4)``, and the number of their object.
    masks, labels : list of ndarray
        For each picture the true masks ``(K, H, W)`` and classes ``(K,)``.

    Returns
    -------
    Tensor
        The loss, a single value.
    """
    size = logits.shape[-1]
    targets = [mask_targets(*one, size) for one in zip(boxes, matches, masks, strict=True)]
    classes = np.concatenate([label[match] for label, match in zip(labels, matches, strict=True)])
    own = logits[np.arange(len(classes)), classes]
    return ops.binary_cross_entropy_with_logits(own, tensor_beside(logits, np.concatenate(targets)))
