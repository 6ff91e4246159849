"""What is particular to one kind of network in training; all else is `tinyseg.training.loop`'s.

A task knows the batches, the losses of a step, the scores of a validation and which of them is best, and what a file of
the trained network says. `tinyseg.training.segmentation` and `tinyseg.training.detection` are the two that there are.
"""

from dataclasses import dataclass
from typing import Any

from tinyseg.training import data_source


@dataclass(frozen=True)
class Score:
    """A score of the validation pictures.

    Parameters
    ----------
    name : str
        Key in the rows of a run and column of its table.
    label : str
        How it is called on the screen and beside its curve.
    colour : str
        Of its curve.
    style : str
        Of its curve: Matplotlib's ``"-"``, ``"--"`` or ``":"``.
    """

    name: str
    label: str
    colour: str
    style: str = "-"


class Task:
    """What `tinyseg.training.fit` asks of a kind of network. Subclasses set the attributes and write the methods.

    Parameters
    ----------
    model : tinyseg.nn.Module
        The network.
    train : data set
        To train on.
    val : data set or None
        To score the network on; an empty one counts as None.
    options : tinyseg.training.options.CommonOptions
        An instance of the task's ``options_class``.

    Attributes
    ----------
    options_class : type
        Options that such a network takes.
    scores : tuple of Score
        What `validate` returns, in the order of the table.
    best : str
        Name of the score of which more is better.
    parts : dict of str
        Names of the losses that are added up, and what they are called on the screen; empty where there is one loss.
    source : tinyseg.training.data_source.Source
        The batches.
    """

    options_class: Any
    scores: tuple = ()
    best = ""
    parts: dict = {}
    source: Any

    def __init__(self, model, train, val, options):
        self.model, self.options = model, options
        self.train, self.val = train, None if val is None or len(val) == 0 else val

    def losses(self, batch, step):
        """Return the losses of a batch at step number ``step``, which are added up: a dict of Tensors of one value."""
        raise NotImplementedError

    def pictures(self, batch):
        """Return a batch's pictures, as an array or a list of arrays."""
        return batch[0]

    def validate(self, before):
        """Return the scores over the validation pictures: a dict of float or None.

        ``before(done, total)`` is called again and again, and may raise an exception to give up.
        """
        raise NotImplementedError

    def settings(self):
        """Return what a resumed run must have again besides the options: a dict of plain values."""
        return {
            **self.model_settings(),
            "training pictures": data_source.fingerprint(self.train, arrays=self.arrays),
            "validation pictures": data_source.fingerprint(self.val, arrays=self.arrays),
        }

    def model_settings(self):
        """Return what tells the network from others of its kind: a dict of plain values."""
        raise NotImplementedError

    def arrays(self, sample):
        """Return the arrays of a sample that count, some of them None."""
        raise NotImplementedError

    def about(self):
        """Return what the file of the trained network says of its training: a dict of plain values."""
        return {"normalisation": self.options.normalisation, "trained_on": data_source.names(self.train)}

    def close(self):
        """Stop making batches."""
        self.source.close()


def total(losses):
    """Return the sum of a dict of losses."""
    first, *others = losses.values()
    for loss in others:
        first = first + loss
    return first
