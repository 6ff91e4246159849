"""Makes the notebooks from their sources: ``# %%`` begins a cell of code, ``# %% [markdown]`` one of text."""

import hashlib

import jupytext
import nbformat

from notebooks import FOLDER, sources
from tinyseg.files import write_text

#: Nothing of the machine or the versions that made them: what is made again is the same, byte for byte.
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {
        "codemirror_mode": {"name": "ipython", "version": 3},
        "file_extension": ".py",
        "mimetype": "text/x-python",
        "name": "python",
        "nbconvert_exporter": "python",
        "pygments_lexer": "ipython3",
    },
}


def notebook_text(source):
    """Return the text of the notebook (ipynb, JSON) of a source (py:percent).

    A cell's id depends on what is in it, so that a cell which is put in front of it does not change it.
    """
    notebook = jupytext.reads(source, fmt="py:percent")
    notebook.metadata = nbformat.from_dict(METADATA)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    seen = {}
    for cell in notebook.cells:
        digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:12]
        if cell.cell_type == "code" and cell.source.endswith("\ntinyseg.manual_seed(0)"):
            cell.source += ";"  # its result is not shown: a generator and an address, another one each time
        cell.metadata = {name: value for name, value in cell.metadata.items() if name == "tags"}
        seen[digest] = seen.get(digest, 0) + 1
        cell.metadata = nbformat.from_dict({k: v for k, v in cell.metadata.items() if k == "tags"})
        cell["id"] = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"
    nbformat.validate(notebook)
    return nbformat.writes(notebook).rstrip("\n") + "\n"


def sync():
    """Make the notebooks anew, remove those without a source, and return the paths of those that changed."""
    changed = []
    for source in sources():
        path, text = source.with_suffix(".ipynb"), notebook_text(source.read_text("utf-8"))
        if not path.exists() or path.read_text("utf-8") != text:
            write_text(path, text)
            changed.append(path)
    for path in set(FOLDER.glob("*.ipynb")) - {source.with_suffix(".ipynb") for source in sources()}:
        path.unlink()
        changed.append(path)
    return changed
