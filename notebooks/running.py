"""Runs notebooks from top to bottom, as a reader would who answers nothing, and keeps them with their outputs."""

import hashlib
import os
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

from notebooks import FOLDER
from tinyseg.compiling import LINE
from tinyseg.files import write_text

#: The longest that a notebook may take, kernels compiled on the way included.
SECONDS = 120
#: Settings of whoever runs this that a reader does not have.
_SETTINGS = ("MPLBACKEND", "PYTHONWARNINGS", "TINYSEG_BACKEND", "TINYSEG_NUM_THREADS", "TINYSEG_WINOGRAD")
ROOT = FOLDER.parent


class Failed(Exception):
    """What a reader should not see."""


def run(sources, out):
    """Run the notebooks of these sources, print what came of each, and return the exit code.

    A notebook that went well before, and that runs the same code now, is not run again.
    """
    out.mkdir(parents=True, exist_ok=True)
    failed = 0
    for source in sources:
        done = out / f"{source.stem}.ipynb"
        notebook = nbformat.read(source.with_suffix(".ipynb"), 4)
        digest = _digest(notebook)
        if done.exists() and nbformat.read(done, 4).metadata.get("tinyseg") == digest:
            print(f"{source.stem}: ran before")
            continue
        done.unlink(missing_ok=True)
        begun = time.monotonic()
        try:
            execute(notebook)
        except Failed as error:
            print(f"{source.stem}: FAILED after {time.monotonic() - begun:.0f} s: {error}", flush=True)
            failed += 1
            continue
        notebook.metadata["tinyseg"] = digest
        write_text(done, nbformat.writes(notebook))
        print(f"{source.stem}: {time.monotonic() - begun:.0f} s", flush=True)
    return 1 if failed else 0


def execute(notebook, seconds=SECONDS):
    """Run a notebook, in place, in an empty folder; raise `Failed` for all that a reader should not see."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work, "folder")
        folder.mkdir()
        client = NotebookClient(
            notebook,
            timeout_func=lambda cell: max(1, round(begun + seconds - time.monotonic())),  # what is left for this cell
            kernel_name="python3",
            record_timing=False,
            extra_arguments=["--IPKernelApp.log_level=ERROR"],  # or it tells this terminal that it listens on a port
            resources={"metadata": {"path": str(folder)}},
        )
        try:
            client.execute(env=_environment(Path(work)))
        except CellTimeoutError:
            raise Failed(f"it took more than {seconds} s") from None
        except (CellExecutionError, DeadKernelError) as error:
            raise Failed(str(error)) from None
        left = sorted(path.name for path in folder.iterdir())
    for number, cell in enumerate(notebook.cells, 1):
        _check_outputs(number, cell)
    if left:
        raise Failed(f"it left {', '.join(left)} behind")
    if time.monotonic() - begun > seconds:
        raise Failed(f"it took more than {seconds} s")


def _environment(work):
    """Return the environment of the kernel: this checkout, the reader's defaults, and no files in the home folder."""
    kept = {name: value for name, value in os.environ.items() if name not in _SETTINGS}
    path = os.pathsep.join([str(ROOT), *filter(None, [kept.get("PYTHONPATH")])])
    places = {"IPYTHONDIR": str(work / "ipython"), "JUPYTER_RUNTIME_DIR": str(work / "runtime")}
    return {**kept, **places, "PYTHONPATH": path}


def _check_outputs(number, cell):
    """Raise `Failed` if a cell wrote to the error stream, or warned; drop the line that says that kernels compile."""
    for output in cell.get("outputs", ()):
        text = output.get("text", "")
        if LINE in text:
            output["text"] = text = text.replace(LINE, "")
        warned = any("Warning:" in line for line in text.splitlines())
        if text and (output.get("name") == "stderr" or warned):
            raise Failed(f"cell {number} wrote {text.strip()!r}")
    if cell.cell_type == "code":
        cell.outputs = [output for output in cell.outputs if output.get("text") != ""]


def _digest(notebook):
    """Return what tells whether a run would be the same: the notebook and all code that it may call."""
    digest = hashlib.sha256(nbformat.writes(notebook).encode())
    digest.update(f"{sys.version} {sys.executable}".encode())
    for package in ("kernels", "tinyseg"):
        for path in sorted((ROOT / package).rglob("*.py")):
            digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
