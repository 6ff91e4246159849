"""Sampling: a few candidates to train on, objects and background in balance."""

import numpy as np


def balanced_sample(labels, size, positive_fraction, generator):
    """Draw positive and negative candidates at random.

    Parameters
    ----------
    labels : ndarray of int, shape (N,)
        Class of each candidate: 0 is background, 1 and above are objects, below 0 takes no part.
    size : int
        Candidates to draw, at most.
    positive_fraction : float
        From 0 to 1: share of the size that positives may take. Where there are fewer, negatives fill up; where there
        are fewer negatives, the sample is smaller.
    generator : numpy.random.Generator
        Source of chance: the same state gives the same sample.

    Returns
    -------
    positives, negatives : ndarray of int64
        Indices of the candidates drawn, in rising order.

    Raises
    ------
    ValueError
        If size is negative or the fraction not from 0 to 1.

    Notes
    -----
    As torchvision's ``BalancedPositiveNegativeSampler``.
    """
    if size < 0 or not 0 <= positive_fraction <= 1:
        raise ValueError(
            f"size is {size} and positive_fraction {positive_fraction}; expected at least 0, and a share from 0 to 1"
        )
    positives, negatives = np.flatnonzero(labels >= 1), np.flatnonzero(labels == 0)
    positives = _draw(positives, int(size * positive_fraction), generator)
    return positives, _draw(negatives, size - len(positives), generator)


def _draw(indices, count, generator):
    """Return ``count`` of the indices, or all there are, in rising order."""
    if len(indices) > count:
        indices = np.sort(generator.permutation(indices)[:count])
    return indices.astype(np.int64)
