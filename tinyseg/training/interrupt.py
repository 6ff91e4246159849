"""Ctrl-C during training: the first asks it to stop after the step, the second stops it at once."""

import contextlib
import os
import signal
import threading

_MESSAGE = b"\ntinyseg: stopping after this step, to save; press Ctrl-C again to stop at once\n"


class Interruptible:
    """Turns SIGINT and SIGTERM into a flag for the length of a ``with`` block.

    The second signal raises KeyboardInterrupt wherever the program is. Files stay whole, as they are written under
    another name first. Outside the main thread, where Python gives no signals, nothing is changed.

    Attributes
    ----------
    requested : bool
        Whether a signal came.

    Examples
    --------
    >>> with Interruptible() as stop:
    ...     stop.requested
    False
    """

    def __init__(self):
        self.requested = False
        self._before = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._signalled)
        return self

    def __exit__(self, *exc):
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _signalled(self, number, frame):
        """Note the first signal; leave at the second."""
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        with contextlib.suppress(OSError):
            os.write(2, _MESSAGE)  # print() is not safe here: it may have been interrupted itself
