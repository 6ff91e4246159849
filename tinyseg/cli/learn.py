"""``tinyseg learn``: copies the course's notebooks to a folder of the reader's, and opens them in JupyterLab."""

import hashlib
import json
import os
import subprocess
import sys
from importlib import metadata, util
from pathlib import Path

import tinyseg
from tinyseg.cli.common import add_command, add_common

_DESCRIPTION = """\
Copy the notebooks of the course to a folder of yours, and open the first one in JupyterLab.

What is in the folder already is never touched. Where a newer form of a notebook has come with
tinyseg, it goes beside yours, as NAME-new.ipynb. So the command can be given again at any time,
to go on where you stopped."""

_EXAMPLE = """\
  tinyseg learn
  tinyseg learn lessons/tinyseg --no-browser
  tinyseg learn --list"""

_INSTALL = "pip install 'tinyseg[notebooks]'"


def add_parser(commands):
    """Add ``learn`` to the commands."""
    parser = add_command(commands, "learn", run, "open the course: notebooks to step through", _DESCRIPTION, _EXAMPLE)
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=Path("tinyseg-notebooks"),
        metavar="FOLDER",
        help="where your copies are, or go; it is made where it is missing (default: tinyseg-notebooks)",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--list", action="store_true", help="say which notebooks there are, and do nothing else")
    what.add_argument("--copy-only", action="store_true", help="copy the notebooks, and open nothing")
    what.add_argument("--no-browser", action="store_true", help="start JupyterLab, which prints its address")
    add_common(parser)


def run(args):
    """List or copy the notebooks, and open them; return the exit code."""
    notebooks = _notebooks()
    if args.list:
        for path in notebooks:
            print(f"{path.stem}: {_title(path)}")
        return 0
    folder = args.folder.absolute()
    _copy_all(notebooks, folder)
    if args.copy_only:
        return 0
    if util.find_spec("jupyterlab") is None:
        raise ImportError(f"JupyterLab is not installed: {_INSTALL}, then 'tinyseg learn' again")
    return _open(folder, notebooks[0].name, args)


def _notebooks():
    """Return the paths of the notebooks that came with tinyseg, in order.

    They lie beside the package, in a checkout and where it is installed: nothing is imported, so that no other folder
    of the name ``notebooks`` comes in between.
    """
    folder = Path(tinyseg.__file__).parents[1] / "notebooks"
    found = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not found:
        raise ImportError(f"the notebooks, which come with tinyseg, are not in {folder}: reinstall tinyseg")
    return found


def _title(path):
    """Return the title of a notebook: its first line, without the mark."""
    first = json.loads(path.read_text("utf-8"))["cells"][0]["source"]
    return "".join(first).splitlines()[0].lstrip("# ")


def _copy_all(notebooks, folder):
    """Copy the notebooks and say what was done."""
    folder.mkdir(parents=True, exist_ok=True)
    copied = 0
    for path in notebooks:
        written = _copy(path, folder)
        if written is not None and written.name != path.name:
            print(f"{path.name}: yours stays as it is; the newer one is {written.name}")
        copied += written is not None
    print(f"{len(notebooks)} notebooks, {copied} of them copied now, in {folder}")


def _copy(path, folder):
    """Copy a notebook beside what is there; return the path of the copy, or None if it was there already.

    A copy says in its metadata which form of the notebook it is a copy of, and JupyterLab keeps that when the reader
    saves answers and outputs.
    """
    from tinyseg.files import write_text

    notebook = json.loads(path.read_text("utf-8"))
    form = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    notebook["metadata"]["tinyseg"] = {"copy_of": form}
    number, place = 1, folder / path.name
    while place.exists():
        if _form(place) == form:
            return None
        place = folder / f"{path.stem}-new{number if number > 1 else ''}.ipynb"
        number += 1
    write_text(place, json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")
    return place


def _form(path):
    """Return which form of a notebook a file is a copy of; None where it does not say."""
    try:
        return json.loads(path.read_text("utf-8"))["metadata"]["tinyseg"]["copy_of"]
    except (ValueError, KeyError, TypeError, OSError):
        return None


def _open(folder, name, args):
    """Run JupyterLab on a notebook until it ends; return its exit code."""
    command = [sys.executable, "-m", "jupyterlab", name, *(["--no-browser"] if args.no_browser else [])]
    process = subprocess.Popen(command, cwd=folder, env=_environment(args))
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:  # JupyterLab got it too, and asks whether to end
            continue


def _environment(args):
    """Return the environment in which notebooks find this tinyseg, with the options of the command line."""
    environment = dict(os.environ)
    try:
        metadata.distribution("tinyseg")
    except metadata.PackageNotFoundError:  # a checkout that is not installed
        paths = [str(Path(tinyseg.__file__).parents[1]), environment.get("PYTHONPATH")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    if args.backend is not None:
        environment["TINYSEG_BACKEND"] = args.backend
    if args.threads is not None:
        environment["TINYSEG_NUM_THREADS"] = str(args.threads)
    return environment
