"""Batches for training detectors: lists of pictures of any size, with the boxes, classes and masks of their objects."""

import numpy as np

from tinyseg.data.batches import EndlessBatches, normalised
from tinyseg.data.sample import boxes_of_masks


class DetectionBatches(EndlessBatches):
    """Endless batches for a detector: batch ``t`` is the same whenever it is asked for, as with `Batches`.

    Parameters
    ----------
    dataset : data set
        Has a length, and gives a `Sample` with objects for each index.
    batch_size : int
        Pictures in a batch.
    seed : int
        At least 0.
    augment : callable, optional
        ``augment(sample, rng)`` gives a `Sample`, as `tinyseg.data.augment_objects` does.
    normalisation : dict, str or None
        As `check_normalisation` takes it; by the statistics of the whole picture.
    masks : bool
        False leaves out the masks, for a network that does not learn them.

    Attributes
    ----------
    steps_per_epoch : int
        How many batches it takes until each item has come at least once, rounded up.
    """

    def __init__(self, dataset, batch_size, seed=0, augment=None, normalisation=None, *, masks=True):
        super().__init__(dataset, batch_size, seed, augment, normalisation)
        self.masks = masks

    def __getitem__(self, step):
        """Return batch ``step``.

        Parameters
        ----------
        step : int
            From 0.

        Returns
        -------
        pictures : list of ndarray
            (C, H, W) float32 each; sizes may differ.
        targets : list of dict
            One a picture, as `detection_target` makes them.

        Raises
        ------
        ValueError
            If a picture does not say which objects it has (none is an answer), or its truth does not fit together.
        IndexError
            If ``step`` is negative.
        """
        pairs = [self._make(k) for k in self._numbers(step)]
        return [picture for picture, _ in pairs], [target for _, target in pairs]

    def _make(self, k):
        """Return picture and target of item ``k`` of the endless sequence, changed and normalised."""
        sample, statistics = self._whole(k)
        if self.augment is not None:
            _check(sample)
            if sample.crowd is not None:  # before the work of changing their masks
                sample = sample.with_objects(~sample.crowd)
            sample = self.augment(sample, self._chance(k))
        return normalised(sample.picture, statistics), detection_target(sample, masks=self.masks)


def detection_target(sample, *, masks=True):
    """Return what a detector learns from a picture.

    Left out are crowds, objects whose box has no width or height inside the picture, and, where there are masks,
    those whose mask has no pixel. Boxes are cut at the picture's border.

    Parameters
    ----------
    sample : Sample
        With classes, and boxes or masks.
    masks : bool
        False leaves out the masks.

    Returns
    -------
    dict
        ``boxes`` (K, 4) float32, ``labels`` (K,) int64 from 1 and, where the truth has masks, ``masks`` (K, H, W)
        uint8 of 0 and 1. K may be 0.

    Raises
    ------
    ValueError
        If the sample has no classes, or neither boxes nor masks, if their numbers differ, if a class is below 1, or
        if a box is reversed or not finite; the error names the picture.
    """
    _check(sample)
    labels = np.asarray(sample.classes, np.int64)
    stacked = sample.instance_masks if masks or sample.boxes is None else None
    boxes = boxes_of_masks(stacked) if sample.boxes is None else np.asarray(sample.boxes, np.float32)
    height, width = sample.picture.shape[1:]
    boxes = np.clip(boxes, 0, np.array([width, height, width, height], np.float32))
    keep = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    if sample.crowd is not None:
        keep &= ~np.asarray(sample.crowd, bool)
    if stacked is not None:
        keep &= stacked.any(axis=(1, 2))
    target = {"boxes": boxes[keep], "labels": labels[keep]}
    if masks and stacked is not None:
        target["masks"] = (stacked if keep.all() else stacked[keep]).view(np.uint8)
    return target


def _check(sample):
    """Check that the truth of a picture is there and fits together, and that its boxes are boxes."""
    name = f"picture {sample.name}"
    if sample.classes is None:
        raise ValueError(f"{name} has no classes of objects; expected numbered objects, masks or boxes to train on")
    if sample.boxes is None and sample.masks is None and sample.instances is None:
        raise ValueError(f"{name} has neither boxes nor masks; expected numbered objects, masks or boxes to train on")
    count, (height, width) = len(sample.classes), sample.picture.shape[1:]
    expected = {"boxes": (count, 4), "masks": (count, height, width), "crowd": (count,), "instances": (height, width)}
    for what, shape in expected.items():
        value = getattr(sample, what)
        if value is not None and value.shape != shape:
            raise ValueError(f"{name} has {what} of shape {value.shape}; expected {shape}, as it has {count} classes")
    if count and np.min(sample.classes) < 1:
        raise ValueError(f"{name} has an object of class {np.min(sample.classes)}; expected 1 or more")
    if count and sample.boxes is not None:
        _check_boxes(name, sample.boxes)


def _check_boxes(name, boxes):
    """Refuse boxes that are reversed or not finite."""
    finite = np.isfinite(boxes).all(axis=1)
    right = finite & (boxes[:, 2] >= boxes[:, 0]) & (boxes[:, 3] >= boxes[:, 1])
    if not right.all():
        k = int(np.argmin(right))
        problem = "is reversed" if finite[k] else "is not finite"
        raise ValueError(f"{name}: box {k} {problem}: {boxes[k].tolist()}; expected (x1, y1, x2, y2)")
