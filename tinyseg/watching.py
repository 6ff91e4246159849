"""Looking on while a model decides: what its modules' forward hooks cannot see, told to whoever watches.

A hook sees what goes into a module and what comes out. Which boxes a suppression leaves out, or which level of a
pyramid a box is pooled from, is decided in between: that code calls `tell`, which does nothing unless somebody watches.
"""

import threading

_here = threading.local()


class watching:  # a verb, as a context manager
    """Have a function called with all that is told in this thread, for the length of a ``with`` block.

    Within a block in a block, only the inner function is called.

    Parameters
    ----------
    callback : callable
        Takes the subject, a str, and a dict of values, whose arrays it must not change.

    Examples
    --------
    >>> from tinyseg.watching import tell, watching
    >>> with watching(lambda subject, values: print(subject, values)):
    ...     tell("kept", rows=[2, 0])
    kept {'rows': [2, 0]}
    >>> tell("kept", rows=[2, 0])
    """

    def __init__(self, callback):
        self._callback = callback

    def __enter__(self):
        self._previous, _here.callback = getattr(_here, "callback", None), self._callback
        return self

    def __exit__(self, *exc):
        _here.callback = self._previous


def tell(subject, **values):
    """Tell whoever watches, if anybody does.

    Parameters
    ----------
    subject : str
        What the values are about.
    **values
        As they are, not copied.
    """
    callback = getattr(_here, "callback", None)
    if callback is not None:
        callback(subject, values)
