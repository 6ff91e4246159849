"""Where training takes its batches from, and how it knows a data set again."""

import hashlib
from functools import partial

import numpy as np

from tinyseg.backend import moving
from tinyseg.data import Prefetch


class Source:
    """The batches of a run, the next ones made in the background, and sent to the device while a step computes.

    Parameters
    ----------
    batches : tinyseg.data.Batches or tinyseg.data.DetectionBatches
        ``batches[step]`` depends on the number of the step only.
    device : {"cpu", "cuda"}
        Where the network lies.
    sent : int
        How many of a batch's parts, the first ones, go to the device: arrays or lists of arrays. The others stay.
    """

    def __init__(self, batches, device="cpu", sent=1):
        self.batches, self._make = batches, partial(_begun, batches, device, sent)
        self._iterator, self._step = None, None

    def batch(self, step):
        """Return batch ``step``; quickest one after another."""
        if self._iterator is None or step != self._step:
            self.close()
            self._iterator = Prefetch(self._make, start=step)
        self._step = step + 1
        sent, others = next(self._iterator)
        return (*(_each(part, lambda arrives: arrives()) for part in sent), *others)

    def close(self):
        """Stop making batches."""
        if self._iterator is not None:
            self._iterator.close()
            self._iterator = None


def _begun(batches, device, sent, step):
    """Return the parts of batch ``step`` that are on their way to a device, and the others."""
    batch = batches[step]
    return [_each(part, partial(moving, device=device)) for part in batch[:sent]], batch[sent:]


def _each(part, function):
    """Return what a function makes of one object, or of each in a list."""
    return list(map(function, part)) if isinstance(part, list) else function(part)


def names(dataset):
    """Return the names of a data set's pictures, or their numbers: a list of str."""
    return [str(name) for name in getattr(dataset, "names", None) or range(len(dataset))]


def _picture_and_mask(sample):
    """Return the arrays of a sample that count for segmentation."""
    return sample.picture, sample.mask


def fingerprint(dataset, most=32, arrays=_picture_and_mask):
    """Return a line of text by which to know a data set again.

    Parameters
    ----------
    dataset : data set or None
        Pictures with their truth.
    most : int
        Up to this many pictures, evenly spread, are read for the checksum; of the others only the names count.
    arrays : callable
        From a sample to the arrays that count; some may be None.

    Returns
    -------
    str
        Such as ``"16 pictures (checksum 3fa2c19b)"``.
    """
    if dataset is None or len(dataset) == 0:
        return "none"
    digest = hashlib.sha256("\n".join(names(dataset)).encode())
    for i in np.unique(np.linspace(0, len(dataset) - 1, min(most, len(dataset))).astype(int)):
        for array in arrays(dataset[int(i)]):
            if array is not None:
                digest.update(f"{array.shape}{array.dtype.str}".encode())
                digest.update(np.ascontiguousarray(array).tobytes())
    return f"{len(dataset)} pictures (checksum {digest.hexdigest()[:8]})"
