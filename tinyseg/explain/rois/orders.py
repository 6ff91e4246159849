"""What the order of additions does to gradients of RoI operators: sums in a fixed order against sums in any order."""

from typing import NamedTuple

import numpy as np

from tinyseg import backend

#: Additions that are replayed at most, in one order: of so many channels as that is.
_MOST_ADDITIONS = 4_000_000


class RoIOrders(NamedTuple):
    """Gradients whose additions were done in several orders, compared bit for bit with those in a fixed order.

    Attributes
    ----------
    how : str
        ``"GPU"``: by atomic operations there, against the kernel that adds in a fixed order. ``"simulator"``: the same
        kernels in Numba's simulator, whose threads take turns in an order of their own. ``"replay"``: no kernel ran
        for it; the numbers that are added up were added again one by one on the processor, in random orders, in the
        type of the maps, against the order of the textbook's loops.
    orders : int
        How many.
    channels : int
        How many channels were looked at, from the first on.
    cells : int
        Cells to which anything is added, in these.
    differing : int
        Cells of which at least one sum was another.
    most : int
        The largest difference, in units in the last place: 1 is the next number that the type has. Large where a sum
        nearly cancels.
    largest : float
        The largest difference itself.
    off_by : ndarray of int, shape (N, channels, H, W)
        The largest difference of each cell, in these units.
    """

    how: str
    orders: int
    channels: int
    cells: int
    differing: int
    most: int
    largest: float
    off_by: np.ndarray

    def words(self):
        """Return a sentence on what was compared.

        Returns
        -------
        str
        """
        runs = {
            "GPU": f"{self.orders} runs with atomic operations on the GPU, against its kernel with a fixed order",
            "simulator": f"{self.orders} runs with atomic operations in the simulator, which takes threads one after "
            "another, against its kernel with a fixed order",
            "replay": f"a replay on the processor: the same numbers added in {self.orders} random orders, against the "
            f"order of the loops; channels: {self.channels}",
        }
        return runs[self.how] + "."


def atomic_orders(step, dy, orders):
    """Compare both forms of the gradient on the GPU, or in the simulator."""
    with backend.use_backend("cuda"):
        fixed = step.backward(dy)
        with backend.atomic_gradients():
            worst = _worst(fixed, (step.backward(dy) for _ in range(orders)))
    additions, _ = step.counts()
    return _summed(backend.cuda_runs_on(), orders, np.count_nonzero(additions), *worst)


def replayed_orders(step, dy, orders, generator):
    """Add up the same numbers in random orders, channel by channel, as long as they are not too many."""
    pictures, channels, height, width = step.shape
    found, cells, done = [], 0, 0
    for channel in range(channels):
        place, value = step.parts(dy, channel)
        done += len(place)
        if channel and done > _MOST_ADDITIONS:
            break
        fixed = _sums(place, value, pictures * height * width)
        shuffled = (generator.permutation(len(place)) for _ in range(orders))
        found.append(_worst(fixed, (_sums(place[order], value[order], len(fixed)) for order in shuffled)))
        cells += len(np.unique(place))
    off_by, largest = zip(*found, strict=True)
    maps = np.stack([part.reshape(pictures, height, width) for part in off_by], axis=1)
    return _summed("replay", orders, cells, maps, max(largest))


def _worst(fixed, others):
    """Return the largest differences: of each sum in units in the last place, and of all as a number."""
    off_by, largest = np.zeros(fixed.shape, np.int64), 0.0
    for other in others:
        off_by = np.maximum(off_by, last_places(fixed, other))
        largest = max(largest, float(np.abs(fixed - other).max(initial=0)))
    return off_by, largest


def _sums(place, value, cells):
    """Return the sums of all cells, added one after another in the type of the values."""
    sums = np.zeros(cells, value.dtype)
    np.add.at(sums, place, value)
    return sums


def _summed(how, orders, cells, off_by, largest):
    """Return a `RoIOrders`."""
    differing, most = int(np.count_nonzero(off_by)), int(off_by.max(initial=0))
    return RoIOrders(how, int(orders), off_by.shape[1], int(cells), differing, most, largest, off_by)


def last_places(a, b):
    """Return how many numbers of their type lie between those of two arrays, plus one; 0 where they are equal."""
    first, second = (_ordered(array) for array in (a, b))
    return np.abs(first - second)


def _ordered(array):
    """Return whole numbers that are in the order of the floating ones, one apart for neighbours."""
    bits = np.ascontiguousarray(array).view(np.int32 if array.dtype == np.float32 else np.int64).astype(np.int64)
    least = -(2**31) if array.dtype == np.float32 else -(2**63)
    return np.where(bits < 0, least - bits, bits)
