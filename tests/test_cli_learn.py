"""``tinyseg learn``: the reader's files are never touched, and JupyterLab is started on the copies."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tinyseg import cli
from tinyseg.cli import learn

ROOT = Path(__file__).parents[1]
NAMES = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A tinyseg of its own, with two notebooks; gives a function that writes one of them anew."""
    import tinyseg

    def write(name, text):
        cells = [{"cell_type": "markdown", "metadata": {}, "id": "a", "source": [f"# Title {name}\n", text]}]
        notebook = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
        (tmp_path / "site" / "notebooks" / f"{name}.ipynb").write_text(json.dumps(notebook), encoding="utf-8")

    (tmp_path / "site" / "notebooks").mkdir(parents=True)
    monkeypatch.setattr(tinyseg, "__file__", str(tmp_path / "site" / "tinyseg" / "__init__.py"))
    write("01_a", "first form")
    write("02_b", "first form")
    return write


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def copy(folder, capsys):
    assert cli.main(["learn", str(folder), "--copy-only"]) == 0
    out = capsys.readouterr()
    assert out.err == ""
    return out.out


def test_copies_once(course, tmp_path, capsys):
    folder = tmp_path / "new" / "mine"
    assert copy(folder, capsys) == f"2 notebooks, 2 of them copied now, in {folder}\n"
    before = contents(folder)
    assert sorted(before) == ["01_a.ipynb", "02_b.ipynb"]
    assert copy(folder, capsys) == f"2 notebooks, 0 of them copied now, in {folder}\n"
    assert contents(folder) == before


def test_a_copy_says_what_it_is_a_copy_of_and_is_the_same_otherwise(course, tmp_path, capsys):
    copy(tmp_path / "mine", capsys)
    made = json.loads((tmp_path / "mine" / "01_a.ipynb").read_text("utf-8"))
    assert set(made["metadata"].pop("tinyseg")) == {"copy_of"}
    assert made == json.loads((tmp_path / "site" / "notebooks" / "01_a.ipynb").read_text("utf-8"))


def test_work_stays_and_a_newer_notebook_goes_beside_it_once(course, tmp_path, capsys):
    folder = tmp_path / "mine"
    copy(folder, capsys)
    work = json.loads((folder / "01_a.ipynb").read_text("utf-8"))
    work["cells"][0]["source"] = ["my answers"]
    (folder / "01_a.ipynb").write_text(json.dumps(work), encoding="utf-8")
    before = contents(folder)
    copy(folder, capsys)
    assert contents(folder) == before  # answers alone are no reason for another copy

    course("01_a", "second form")
    assert "01_a.ipynb: yours stays as it is; the newer one is 01_a-new.ipynb\n" in copy(folder, capsys)
    after = contents(folder)
    assert before.items() <= after.items() and b"second form" in after["01_a-new.ipynb"]
    copy(folder, capsys)
    assert contents(folder) == after

    course("01_a", "third form")
    assert "01_a-new2.ipynb" in copy(folder, capsys)
    last = contents(folder)
    assert after.items() <= last.items() and b"third form" in last["01_a-new2.ipynb"]


@pytest.mark.parametrize("text", ["", "no JSON", "[]", '{"metadata": {}}', '{"metadata": {"tinyseg": 3}}'])
def test_another_file_of_that_name_stays(course, tmp_path, capsys, text):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "01_a.ipynb").write_text(text, encoding="utf-8")
    assert "yours stays" in copy(folder, capsys)
    assert (folder / "01_a.ipynb").read_text("utf-8") == text
    assert sorted(contents(folder)) == ["01_a-new.ipynb", "01_a.ipynb", "02_b.ipynb"]


def test_list(course, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["learn", "--list"]) == 0
    assert capsys.readouterr().out == "01_a: Title 01_a\n02_b: Title 02_b\n"
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


def test_without_jupyterlab_a_line_says_what_to_install(course, tmp_path, fails, monkeypatch):
    monkeypatch.setattr(learn.util, "find_spec", lambda name: None)
    line = fails("learn", tmp_path / "mine")
    assert line == "JupyterLab is not installed: pip install 'tinyseg[notebooks]', then 'tinyseg learn' again"
    assert len(contents(tmp_path / "mine")) == 2


def test_without_notebooks_a_line_says_so(tmp_path, fails, monkeypatch):
    import tinyseg

    monkeypatch.setattr(tinyseg, "__file__", str(tmp_path / "tinyseg" / "__init__.py"))
    assert "reinstall tinyseg" in fails("learn", "--list")


def test_a_file_in_place_of_the_folder(course, tmp_path, fails):
    (tmp_path / "mine").write_text("")
    assert "file exists" in fails("learn", tmp_path / "mine", "--copy-only")
    assert (tmp_path / "mine").read_text() == ""


@pytest.mark.parametrize("options", [[], ["--no-browser"]])
def test_starts_jupyterlab_in_the_folder(course, tmp_path, monkeypatch, options):
    started = []

    class Process:
        def __init__(self, command, cwd, env):
            started.append((command, cwd, env))
            self.interrupted = False

        def wait(self):
            if not self.interrupted:  # Ctrl-C is for JupyterLab to answer
                self.interrupted = True
                raise KeyboardInterrupt
            return 3

    monkeypatch.setattr(learn.util, "find_spec", lambda name: name)
    monkeypatch.setattr(subprocess, "Popen", Process)
    assert cli.main(["learn", str(tmp_path / "mine"), "--backend", "cpu", "--threads", "1", *options]) == 3
    ((command, cwd, environment),) = started
    assert command == [sys.executable, "-m", "jupyterlab", "01_a.ipynb", *options]
    assert cwd == tmp_path / "mine" and (cwd / "01_a.ipynb").exists()
    assert (environment["TINYSEG_BACKEND"], environment["TINYSEG_NUM_THREADS"]) == ("cpu", "1")


def test_a_checkout_that_is_not_installed_is_on_the_path_of_the_notebooks(tmp_path, monkeypatch):
    args = cli.build_parser().parse_args(["learn"])
    monkeypatch.setenv("PYTHONPATH", "other")

    def missing(name):
        raise learn.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(learn.metadata, "distribution", missing)
    assert learn._environment(args)["PYTHONPATH"] == os.pathsep.join([str(ROOT), "other"])
    monkeypatch.setattr(learn.metadata, "distribution", lambda name: name)
    assert learn._environment(args)["PYTHONPATH"] == "other"


def test_the_real_course(tmp_path, capsys):
    assert cli.main(["learn", str(tmp_path / "mine"), "--copy-only"]) == 0
    assert sorted(contents(tmp_path / "mine")) == NAMES
    assert cli.main(["learn", "--list"]) == 0
    assert [line.split(":")[0] + ".ipynb" for line in capsys.readouterr().out.splitlines()[1:]] == NAMES
