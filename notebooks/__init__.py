"""The course: ``NN_name.py`` are the sources, ``NN_name.ipynb`` the notebooks made from them, without outputs.

``tinyseg learn`` copies the notebooks to a folder of the reader's and opens them; ``make book`` runs them and makes
pages of them. For whoever writes them there is ``python -m notebooks``:

- ``sync`` makes the notebooks anew from their sources (``make notebooks``);
- ``run --out FOLDER`` runs them from top to bottom, and fails where a reader would see an error or a warning.

How a notebook is written is in CONTRIBUTING.md.
"""

from pathlib import Path

#: Tells this package from another of the same name.
PROJECT = "tinyseg"
FOLDER = Path(__file__).parent


def sources():
    """Return the paths of the sources, in the order of the course."""
    return sorted(FOLDER.glob("[0-9][0-9]_*.py"))
