"""Dice, IoU and pixel error, all from one table of counts.

Conventions, the same everywhere in tinyseg:

- Counts are whole numbers of pixels: ``counts[t, p]`` pixels of true class ``t`` were predicted as class ``p``.
- Dice of a class is ``2 TP / (2 TP + FP + FN)``, IoU (Jaccard) is ``TP / (TP + FP + FN)``. Where a class is neither in
  the truth nor in the prediction, both are 1: nothing was there, and nothing was found.
- Pixel error is the share of pixels whose class is wrong.
- A single-class model separates background (0) from foreground (1), and its scores are those of the foreground.
  With two or more classes a score is the mean over all classes, class 0 included (PASCAL VOC's mean IoU).
- ``mean`` averages the pictures' scores, each picture weighing the same; ``pooled`` scores the summed counts of all
  pictures, each pixel weighing the same.
- Over no pixels at all, the error is 0 and the scores are 1; over no pictures, all of them are NaN.
"""

import numpy as np

SCORES = ("dice", "iou", "pixel_error")


def confusion_counts(prediction, truth, classes, ignore_index=None):
    """Count pixels by true and predicted class.

    Parameters
    ----------
    prediction : ndarray of int or bool, any shape
        Class of each pixel, 0 to ``classes - 1``.
    truth : ndarray of int or bool, same shape
        True class of each pixel, 0 to ``classes - 1`` or ``ignore_index``.
    classes : int
        Number of classes, background included: 2 for a mask of one kind of object.
    ignore_index : int, optional
        Pixels of this true class are left out.

    Returns
    -------
    ndarray of int64, shape (classes, classes)
        Row: true class; column: predicted class.

    Raises
    ------
    TypeError
        If an array does not hold whole numbers or bools.
    ValueError
        If the shapes differ, or a class is out of range.
    """
    if isinstance(classes, bool) or not isinstance(classes, (int, np.integer)) or classes < 1:
        raise ValueError(f"classes is {classes!r}; expected a whole number of at least 1")
    prediction, truth = _class_array("prediction", prediction), _class_array("truth", truth)
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction has shape {prediction.shape} and truth {truth.shape}; expected the same")
    if ignore_index is not None:
        kept = truth != ignore_index
        prediction, truth = prediction[kept], truth[kept]
    for name, a in (("prediction", prediction), ("truth", truth)):
        if a.size and (a.min() < 0 or a.max() >= classes):
            wrong = a.min() if a.min() < 0 else a.max()
            raise ValueError(f"{name} holds class {wrong}; expected 0 to {classes - 1}")
    flat = truth.ravel().astype(np.int64) * classes + prediction.ravel().astype(np.int64)
    return np.bincount(flat, minlength=classes * classes).reshape(classes, classes)


def _class_array(name, a):
    """Return ``a`` as an array of whole numbers or bools."""
    a = np.asarray(a)
    if a.dtype.kind not in "iub":
        raise TypeError(f"{name} has dtype {a.dtype}; expected whole numbers or bools, one class per pixel")
    return a


def _checked_counts(counts):
    """Return ``counts`` as a square int64 table."""
    counts = np.asarray(counts)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or counts.dtype.kind not in "iu":
        raise ValueError(f"counts has shape {counts.shape} and dtype {counts.dtype}; expected (K, K) whole numbers")
    return counts


def _share(part, whole, empty):
    """Return ``part / whole``, or ``empty`` where the whole is 0."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1.0), empty)


def dice(counts):
    """Return the Dice coefficient of each class.

    Parameters
    ----------
    counts : ndarray of int, shape (K, K)
        From `confusion_counts`; counts of several pictures may be added up.

    Returns
    -------
    ndarray of float64, shape (K,)
        ``2 TP / (2 TP + FP + FN)`` (Dice 1945), from 0 to 1; 1 for a class in neither truth nor prediction.

    Raises
    ------
    ValueError
        If ``counts`` is not a square table of whole numbers.

    Examples
    --------
    >>> counts = confusion_counts([[0, 1], [1, 1]], [[0, 0], [1, 1]], classes=2)
    >>> dice(counts).round(3).tolist()
    [0.667, 0.8]
    """
    counts = _checked_counts(counts)
    hits = np.diagonal(counts)
    return _share(2 * hits, counts.sum(0) + counts.sum(1), 1.0)


def iou(counts):
    """Return the intersection over union (Jaccard index) of each class.

    Parameters
    ----------
    counts : ndarray of int, shape (K, K)
        From `confusion_counts`.

    Returns
    -------
    ndarray of float64, shape (K,)
        ``TP / (TP + FP + FN)``, from 0 to 1; 1 for a class in neither truth nor prediction.

    Raises
    ------
    ValueError
        If ``counts`` is not a square table of whole numbers.
    """
    counts = _checked_counts(counts)
    hits = np.diagonal(counts)
    return _share(hits, counts.sum(0) + counts.sum(1) - hits, 1.0)


def pixel_error(counts):
    """Return the share of pixels whose class is wrong.

    Parameters
    ----------
    counts : ndarray of int, shape (K, K)
        From `confusion_counts`.

    Returns
    -------
    float
        From 0 (all right) to 1; 0 over no pixels.

    Raises
    ------
    ValueError
        If ``counts`` is not a square table of whole numbers.
    """
    counts = _checked_counts(counts)
    total = counts.sum()
    return float(_share(total - np.trace(counts), total, 0.0))


class SegmentationScores:
    """Collects the scores of one picture after another; keeps counts only, never pictures.

    Parameters
    ----------
    classes : int
        What the model has: 1 for foreground against background, or the number of classes, background included.
    ignore_index : int, optional
        Pixels of this true class are left out.

    Attributes
    ----------
    counts : ndarray of int64
        Summed counts of all pictures.
    pictures : list of dict
        One per picture: ``name``, ``dice``, ``iou``, ``pixel_error``, and for two or more classes ``dice_per_class``
        and ``iou_per_class``.

    Examples
    --------
    >>> scores = SegmentationScores()
    >>> scores.update([[0, 1], [1, 1]], [[0, 0], [1, 1]], name="a")["dice"]
    0.8
    >>> scores.update([[0, 0]], [[0, 0]], name="b")["dice"]
    1.0
    >>> scores.mean()["dice"], scores.pooled()["dice"]
    (0.9, 0.8)
    """

    def __init__(self, classes=1, ignore_index=None):
        if isinstance(classes, bool) or not isinstance(classes, (int, np.integer)) or classes < 1:
            raise ValueError(f"classes is {classes!r}; expected a whole number of at least 1")
        self.classes = int(classes)
        self.ignore_index = ignore_index
        size = max(2, self.classes)
        self.counts = np.zeros((size, size), np.int64)
        self.pictures = []

    def update(self, prediction, truth, name=None):
        """Add a picture, or several of one shape counted as one.

        Parameters
        ----------
        prediction, truth : ndarray of int or bool, same shape
            Class of each pixel, as for `confusion_counts`.
        name : str, optional
            Name of the picture in `pictures`; its number by default.

        Returns
        -------
        dict
            The picture's scores, as kept in `pictures`.

        Raises
        ------
        TypeError, ValueError
            As `confusion_counts`.
        """
        counts = confusion_counts(prediction, truth, len(self.counts), self.ignore_index)
        self.counts += counts
        entry = {"name": str(len(self.pictures)) if name is None else str(name), **self._scores(counts)}
        self.pictures.append(entry)
        return entry

    def mean(self):
        """Return each score averaged over the pictures, every picture weighing the same: a dict of float."""
        if not self.pictures:
            return dict.fromkeys(SCORES, float("nan"))
        return {score: float(np.mean([entry[score] for entry in self.pictures])) for score in SCORES}

    def pooled(self):
        """Return the scores of all pictures' pixels taken together: a dict of float, and lists per class."""
        if not self.pictures:
            return dict.fromkeys(SCORES, float("nan"))
        return self._scores(self.counts)

    def summary(self):
        """Return everything as plain numbers, lists and dicts, ready for JSON."""
        return {
            "classes": self.classes,
            "pictures": [dict(entry) for entry in self.pictures],
            "mean": self.mean(),
            "pooled": self.pooled(),
            "counts": self.counts.tolist(),
        }

    def _scores(self, counts):
        """Return the scores of one table of counts."""
        per_class = {"dice": dice(counts), "iou": iou(counts)}
        if self.classes == 1:
            scores = {name: float(values[1]) for name, values in per_class.items()}
            return {**scores, "pixel_error": pixel_error(counts)}
        scores = {name: float(values.mean()) for name, values in per_class.items()}
        lists = {f"{name}_per_class": values.tolist() for name, values in per_class.items()}
        return {**scores, "pixel_error": pixel_error(counts), **lists}
