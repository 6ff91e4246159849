"""What tests of training share: the state of a model, and the table that a run leaves."""

import csv

import numpy as np


def state_of(model):
    """Return the state dict as arrays of its own."""
    return {key: value.numpy().copy() for key, value in model.state_dict().items()}


def assert_same_state(a, b):
    """Check that two states are equal, bit for bit."""
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key], err_msg=key)


def rows_of(folder):
    """Return the rows of a run's metrics.csv."""
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))
