"""Running notebooks: what a reader should not see is a failure."""

import nbformat
import pytest

pytestmark = pytest.mark.notebooks


@pytest.fixture
def execute():
    """Return a function that runs cells and gives the notebook."""
    from notebooks.running import execute

    def call(*sources, **options):
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
        execute(notebook, **options)
        return notebook

    return call


FIGURE = """
%matplotlib inline
import tinyseg
from matplotlib.figure import Figure

figure = Figure(figsize=(2, 2))
figure.subplots().plot([0, 1], [0, 1])
figure"""


def test_outputs_are_kept_and_a_figure_is_a_picture(execute):
    cells = execute("1 + 1", FIGURE).cells
    assert cells[0].outputs[0].data["text/plain"] == "2"
    assert "image/png" in cells[1].outputs[0].data


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("import warnings; warnings.warn('beware')", "cell 2 wrote .*beware"),
        ("import sys; print('oops', file=sys.stderr)", "cell 2 wrote 'oops'"),
        ("print('x.py:1: UserWarning: beware')", "cell 2 wrote .*beware"),
        ("open('left.txt', 'w').close()", "it left left.txt behind"),
        ("import os; os._exit(1)", "Kernel died"),
        ("assert 1 == 2", "AssertionError"),
    ],
)  # fmt: skip
def test_what_a_reader_should_not_see(execute, source, said):
    from notebooks.running import Failed

    with pytest.raises(Failed, match=f"(?s){said}"):
        execute("1 + 1", source)


def test_time_limit(execute):
    from notebooks.running import Failed

    with pytest.raises(Failed, match="it took more than 3 s"):
        execute("import time; time.sleep(1)", "time.sleep(60)", seconds=3)


def test_the_line_about_compiling_is_dropped(execute):
    from tinyseg.compiling import LINE

    (cell,) = execute(f"print({LINE!r}, end=''); print(3)").cells
    assert cell.outputs[0]["text"] == "3\n"
    (cell,) = execute(f"print({LINE!r}, end='')").cells
    assert cell.outputs == []


def test_command(tmp_path, capsys):
    from notebooks.__main__ import main

    assert main(["run", "--out", str(tmp_path), "99"]) == 2
    assert "there is no notebook 99" in capsys.readouterr().err


def test_the_same_notebook_runs_once(tmp_path, capsys, monkeypatch):
    from notebooks import running

    source, ran = tmp_path / "01_x.py", []
    monkeypatch.setattr(running, "execute", lambda notebook: ran.append(1))

    def run(code):
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code, id="a")])
        source.with_suffix(".ipynb").write_text(nbformat.writes(notebook), encoding="utf-8")
        assert running.run([source], tmp_path / "out") == 0
        return len(ran)

    assert [run("1"), run("1"), run("2"), run("2")] == [1, 1, 2, 2]
    assert "01_x: ran before" in capsys.readouterr().out

    def fail(notebook):
        raise running.Failed("no good")

    monkeypatch.setattr(running, "execute", fail)
    source.with_suffix(".ipynb").write_text(nbformat.writes(nbformat.v4.new_notebook()), encoding="utf-8")
    assert running.run([source], tmp_path / "out") == 1
    assert "01_x: FAILED" in capsys.readouterr().out and not (tmp_path / "out" / "01_x.ipynb").exists()
