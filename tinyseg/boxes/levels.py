"""Which level of a feature pyramid a box is pooled from: small boxes from fine maps, large ones from coarse ones."""

import numpy as np


def level_of(boxes, lowest=2, highest=5, canonical_size=224, canonical_level=4):
    """Return the pyramid level of each box.

    Parameters
    ----------
    boxes : ndarray, shape (N, 4)
        Boxes (x1, y1, x2, y2) in picture coordinates.
    lowest, highest : int
        First and last level there is. Level k has a stride of 2**k pixels.
    canonical_size : float
        Root of the area, in pixels, from which on a box belongs to the canonical level.
    canonical_level : int
        That level.

    Returns
    -------
    ndarray of int64, shape (N,)
        Levels from ``lowest`` to ``highest``. Boxes without area, or reversed along one axis, go to the lowest.

    Notes
    -----
    ``floor(canonical_level + log2(sqrt(area) / canonical_size) + 1e-6)``, clamped: equation 1 of Feature Pyramid
    Networks (Lin et al., arXiv:1612.03144), in float32 and with the 1e-6 of torchvision's ``LevelMapper``.
    """
    boxes = np.asarray(boxes, np.float32)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    # the smallest float instead of nothing: its level lies far below the lowest, and there is no log of 0
    side = np.sqrt(np.maximum(area, np.finfo(np.float32).tiny))
    place = np.float32(canonical_level) + np.log2(side / np.float32(canonical_size)) + np.float32(1e-6)
    return np.clip(np.floor(place), lowest, highest).astype(np.int64)
