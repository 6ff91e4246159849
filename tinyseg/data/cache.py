"""Samples kept in memory, up to a limit."""

import threading


class SampleCache:
    """Keeps samples, those put in first, as long as there is room. What it keeps becomes read-only.

    Parameters
    ----------
    room : int
        Bytes that the arrays of the samples may take together.
    """

    def __init__(self, room):
        self._room, self._samples, self._lock = room, {}, threading.Lock()

    def get(self, key, make):
        """Return the sample of that key, or make it.

        Parameters
        ----------
        key : int
            Which.
        make : callable
            From the key to the `Sample`.

        Returns
        -------
        Sample
            The one that was kept, or a new one.
        """
        if key in self._samples:
            return self._samples[key]
        sample = make(key)
        arrays = [value for value in vars(sample).values() if hasattr(value, "nbytes")]
        size = sum(array.nbytes for array in arrays)
        with self._lock:  # a prefetching thread may be reading too
            if size <= self._room and key not in self._samples:
                for array in arrays:
                    if hasattr(array, "flags"):
                        array.flags.writeable = False
                self._samples[key] = sample
                self._room -= size
        return sample
