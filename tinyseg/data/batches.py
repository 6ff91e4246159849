"""Batches for training, each of which depends on the seed and its number only."""

import operator
import queue
import threading
import weakref

import numpy as np

from tinyseg.data.normalise import check_normalisation, statistics

# Streams of random numbers that start from one seed and must not be the same.
_ORDER, _CHANGE = 0, 1


class EndlessBatches:
    """What batches of all kinds share: which items each batch holds, their statistics, and iterating ahead.

    Parameters
    ----------
    dataset, batch_size, seed, augment, normalisation
        As `Batches` describes them.

    Attributes
    ----------
    steps_per_epoch : int
        How many batches it takes until each item has come at least once, rounded up.
    """

    def __init__(self, dataset, batch_size, seed=0, augment=None, normalisation=None):
        self.dataset, self.augment = dataset, augment
        self.batch_size, self.seed = operator.index(batch_size), operator.index(seed)
        self.normalisation = check_normalisation(normalisation)
        if self.batch_size < 1 or self.seed < 0:
            raise ValueError(f"batch_size is {batch_size} and seed is {seed}; expected at least 1, and at least 0")
        if len(dataset) == 0:
            raise ValueError("the data set is empty; expected at least one picture")
        self.steps_per_epoch = -(-len(dataset) // self.batch_size)
        self._statistics = {}
        self._order = (-1, np.empty(0, np.int64))

    def indices(self, step):
        """Return which items batch ``step`` holds, as a list of int."""
        first = operator.index(step) * self.batch_size
        return [self._item(k) for k in range(first, first + self.batch_size)]

    def _item(self, k):
        """Return the index of item ``k`` of the endless sequence."""
        epoch, place = divmod(k, len(self.dataset))
        order = self._order
        if order[0] != epoch:
            order = epoch, np.random.default_rng([self.seed, _ORDER, epoch]).permutation(len(self.dataset))
            self._order = order
        return int(order[1][place])

    def _numbers(self, step):
        """Return the numbers in the endless sequence of the items of batch ``step``."""
        step = operator.index(step)
        if step < 0:
            raise IndexError(f"step is {step}; expected 0 or more")
        return range(step * self.batch_size, (step + 1) * self.batch_size)

    def _chance(self, k):
        """Return the generator of the changes of item ``k`` of the endless sequence."""
        return np.random.default_rng([self.seed, _CHANGE, k])

    def _whole(self, k):
        """Return item ``k`` of the endless sequence, and the mean and deviation of its whole picture."""
        index = self._item(k)
        sample = self.dataset[index]
        if index not in self._statistics:
            self._statistics[index] = statistics(sample.picture, self.normalisation)
        return sample, self._statistics[index]

    def __getitem__(self, step):
        """Return batch ``step``."""
        raise NotImplementedError

    def iterate(self, start=0, stop=None, prefetch=2):
        """Iterate over batches ``start`` to ``stop - 1``, the next ones being made in the background.

        Parameters
        ----------
        start, stop : int
            Numbers of batches; without ``stop`` it never ends.
        prefetch : int
            How many batches are made ahead, by one thread. 0 makes each when it is asked for.

        Returns
        -------
        Prefetch
            An iterator of batches; close it, or use it in a ``with`` block, to stop the thread early.
        """
        return Prefetch(self.__getitem__, start, stop, prefetch)


def normalised(picture, statistics):
    """Return a picture less its mean and over its deviation, as float32."""
    mean, std = statistics
    return ((picture - mean) / std).astype(np.float32, copy=False)


class Batches(EndlessBatches):
    """Endless batches of a data set: batch ``t`` is the same whenever it is asked for.

    The items come in one permutation after another, a batch taking up where the one before ended; so every item
    comes as often as any other, also where the batch does not divide their number or is larger than it. Item ``k``
    of this sequence is augmented by a generator seeded with ``seed`` and ``k``. There is no state: a training that
    is resumed at step ``t`` asks for batch ``t``.

    Each picture is normalised by the statistics of the whole picture, and cropped and changed by ``augment``.

    Parameters
    ----------
    dataset : data set
        Has a length, and gives a `Sample` with a mask for each index.
    batch_size : int
        Pictures in a batch.
    seed : int
        At least 0.
    augment : callable, optional
        ``augment(picture, mask, rng)`` gives a picture and a mask, as in `tinyseg.data.augment`.
    normalisation : dict, str or None
        As `check_normalisation` takes it.
    num_classes : int, optional
        1: masks are (N, 1, H, W) float32, for a network with one output. More: (N, H, W) int64. Without it,
        as the data set says.

    Attributes
    ----------
    steps_per_epoch : int
        How many batches it takes until each item has come at least once, rounded up.
    """

    def __init__(self, dataset, batch_size, seed=0, augment=None, normalisation=None, num_classes=None):
        super().__init__(dataset, batch_size, seed, augment, normalisation)
        self.num_classes = getattr(dataset, "num_classes", 1) if num_classes is None else num_classes

    def __getitem__(self, step):
        """Return batch ``step``.

        Parameters
        ----------
        step : int
            From 0.

        Returns
        -------
        pictures : ndarray
            (N, C, H, W) float32.
        masks : ndarray
            (N, 1, H, W) float32 or (N, H, W) int64, by ``num_classes``.

        Raises
        ------
        ValueError
            If pictures of a batch differ in size or channels, or one has no mask.
        IndexError
            If ``step`` is negative.
        """
        pairs = [self._make(k) for k in self._numbers(step)]
        for picture, _, name in pairs:
            if picture.shape != pairs[0][0].shape:
                raise ValueError(
                    f"{pairs[0][2]} and {name} give pictures of shapes {pairs[0][0].shape} and {picture.shape}; "
                    "expected one shape in a batch (crop them alike, and give channels)"
                )
        masks = np.stack([mask for _, mask, _ in pairs])
        masks = masks[:, None].astype(np.float32) if self.num_classes == 1 else masks.astype(np.int64)
        return np.stack([picture for picture, _, _ in pairs]), masks

    def _make(self, k):
        """Return picture, mask and name of item ``k`` of the endless sequence, normalised and changed."""
        sample, statistics = self._whole(k)
        if sample.mask is None:
            raise ValueError(f"{sample.name} has no mask; expected pictures with masks to train on")
        picture, mask = sample.picture, sample.mask
        if self.augment is not None:
            picture, mask = self.augment(picture, mask, self._chance(k))
        return normalised(picture, statistics), mask, sample.name


class Prefetch:
    """An iterator over ``make(start)``, ``make(start + 1)``, ... whose next results are made in the background.

    An exception of ``make`` is raised where its result would have come, and ends the iteration. The thread ends with
    the iteration, with `close`, with the ``with`` block, or when the iterator is forgotten.

    Parameters
    ----------
    make : callable
        From a number to a result.
    start, stop : int
        Numbers; without ``stop`` it never ends.
    prefetch : int
        How many results are made ahead; 0 makes each when it is asked for, without a thread.
    """

    def __init__(self, make, start=0, stop=None, prefetch=2):
        self._make, self._next, self._stop = make, start, stop
        self._closed = False
        self._thread = None
        if prefetch > 0:
            self._results: queue.Queue = queue.Queue(prefetch)
            self._ended = threading.Event()
            # the thread must not hold on to this object, or it would never be forgotten
            work = (make, start, stop, self._results, self._ended)
            self._thread = threading.Thread(target=_make_ahead, args=work, name="tinyseg-prefetch", daemon=True)
            self._finalizer = weakref.finalize(self, self._ended.set)
            self._thread.start()

    def __iter__(self):
        return self

    def __next__(self):
        if self._closed or (self._stop is not None and self._next >= self._stop):
            self.close()
            raise StopIteration
        if self._thread is None:
            try:
                result = self._make(self._next)
            except BaseException:
                self.close()
                raise
        else:
            result, error = self._results.get()
            if error is not None:
                self.close()
                raise error
        self._next += 1
        return result

    def close(self):
        """Stop the thread, and wait until it has; further results are dropped."""
        self._closed = True
        if self._thread is not None:
            self._ended.set()
            self._thread.join()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


def _make_ahead(make, number, stop, results, ended):
    """Fill the queue with (result, None), or with (None, exception) at the end, until told to end."""
    while not ended.is_set() and (stop is None or number < stop):
        result, failure = None, None
        try:
            result = make(number)
        except BaseException as error:  # handed over: raised again where the result is asked for
            failure = error
        while not ended.is_set():
            try:
                results.put((result, failure), timeout=0.1)
                break
            except queue.Full:
                continue
        if failure is not None:
            return
        number += 1
