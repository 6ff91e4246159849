"""COCO's run-lengths: masks of many objects in little memory, and proof that run-lengths are what they say.

A mask is read column by column, and its runs of background and object counted in turn, background first. COCO's
compressed form writes these numbers as text (``maskApi.c`` of pycocotools). pycocotools is imported when it is used.
"""

import numpy as np


def mask_tools():
    """Return ``pycocotools.mask``.

    Returns
    -------
    module
        It encodes and decodes run-lengths.

    Raises
    ------
    ImportError
        If pycocotools is not installed; says how to install it.
    """
    try:
        from pycocotools import mask
    except ImportError as error:
        raise ImportError("COCO's masks need pycocotools: pip install 'tinyseg[coco]'") from error
    return mask


class RunLengthMasks:
    """Masks of the objects of a picture, kept as run-lengths; NumPy makes an array of them when one is needed.

    Parameters
    ----------
    runs : sequence of dict
        Compressed run-lengths, ``{"size": [H, W], "counts": bytes}``, one an object, known to be right.
    size : (int, int)
        Height and width of the picture.

    Attributes
    ----------
    runs : tuple of dict
        As given.
    shape : tuple of int
        (K, H, W).
    nbytes : int
        About how much memory they take.
    """

    dtype = np.dtype(bool)

    def __init__(self, runs, size):
        self.runs, self.shape = tuple(runs), (len(runs), *size)
        self.nbytes = sum(400 + len(run["counts"]) for run in self.runs)

    def __len__(self):
        return len(self.runs)

    def __getitem__(self, index):
        """Return one mask, (H, W) bool, or for an array of indices or bool some of the objects."""
        if np.ndim(index) == 0:
            return self._decode(np.empty(self.shape[1:], bool), index)
        chosen = np.arange(len(self))[np.asarray(index)]
        return RunLengthMasks([self.runs[k] for k in chosen], self.shape[1:])

    def __array__(self, dtype=None, copy=None):
        """Return the masks as a new (K, H, W) array."""
        if copy is False:
            raise ValueError("run-lengths cannot become an array without a copy")
        masks = np.empty(self.shape, dtype or bool)
        for k, mask in enumerate(masks):
            self._decode(mask, k)
        return masks

    def _decode(self, mask, k):
        """Write mask ``k`` into an (H, W) array."""
        numbers = uncompress(self.runs[k]["counts"].decode("ascii"))
        columns = np.repeat(np.arange(len(numbers)) % 2 == 1, numbers)
        mask[:] = columns.reshape(self.shape[:0:-1]).T
        return mask

    def areas(self):
        """Return the number of pixels of each, (K,) int64, without decoding them."""
        return np.asarray(mask_tools().area(list(self.runs)), np.int64).reshape(len(self))


def uncompress(text):
    """Return the numbers that COCO's compressed run-lengths stand for.

    Each character has five bits, lowest first, and a sixth that says that more follow; the last character's fifth bit
    is the sign. From the fourth number on, it is the difference from the number two before.

    Parameters
    ----------
    text : str
        The compressed form.

    Returns
    -------
    ndarray
        (runs,) int64.

    Raises
    ------
    ValueError
        If the text is none of COCO's; the message goes on from what it is.
    """
    codes = np.frombuffer(text.encode("utf-8", "replace"), np.uint8).astype(np.int64) - 48
    last = codes & 32 == 0
    if codes.min(initial=0) < 0 or codes.max(initial=0) > 63 or (len(codes) and not last[-1]):
        raise ValueError("are no text of run-lengths")
    ends = np.flatnonzero(last)
    starts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
    place = np.arange(len(codes)) - np.repeat(starts, ends - starts + 1)
    if place.max(initial=0) > 7:
        raise ValueError("hold a number that is too long")
    numbers = np.add.reduceat((codes & 31) << (5 * place), starts) if len(ends) else codes
    numbers = numbers - np.where(codes[ends] & 16, 1 << (5 * (place[ends] + 1)), 0)
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers


def check_runs(numbers, height, width):
    """Check that run-lengths count the pixels of a picture: else decoding them would write beyond it.

    Parameters
    ----------
    numbers : array_like
        The runs, uncompressed.
    height, width : int
        Of the picture.

    Raises
    ------
    ValueError
        If one is negative or no whole number, or their sum is another; the message goes on from what they are.
    """
    numbers = np.asarray(numbers)
    if numbers.size and (numbers.ndim != 1 or numbers.dtype.kind not in "iu"):
        raise ValueError("hold something other than whole numbers")
    if numbers.min(initial=0) < 0 or numbers.max(initial=0) > height * width:
        raise ValueError(f"hold {numbers[(numbers < 0) | (numbers > height * width)][0]}")
    if numbers.sum() != height * width:
        raise ValueError(f"count {numbers.sum()} pixels, not the {height} x {width} of its picture")
