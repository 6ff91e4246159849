"""The stored numbers of the operators on boxes, as plain arrays by their keys."""

from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / "reference"


def stored(file):
    """Return the arrays of a file of the folder ``reference``."""
    with np.load(FOLDER / f"{file}.npz", allow_pickle=False) as data:
        return {key: data[key] for key in data.files}
