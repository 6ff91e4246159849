"""The notebooks follow the rules of CONTRIBUTING.md; that they run is for ``make book`` to say."""

import ast
import json
import re

import nbformat
import pytest

import notebooks
from notebooks.sync import METADATA, notebook_text

SOURCES = notebooks.sources()

#: Words that promise too much or say nothing.
BANNED = r"simply|just|let's|let us|dive|easy|easily|obvious|obviously|trivial|trivially|of course|basically"


def cells(path):
    """Return the cells of a source's notebook."""
    return nbformat.reads(notebook_text(path.read_text("utf-8")), 4).cells


def each_notebook(test):
    return pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)(test)


def problems(cells):
    """Return what is wrong with a notebook, as sentences."""
    return [*_form(cells), *_style(cells), *_numbers(cells)]


def _form(cells):
    """Return what is wrong with the first and the last cells, and with the predictions."""
    first, begin, texts = cells[0], cells[1], [cell for cell in cells if cell.cell_type == "markdown"]
    if first.cell_type != "markdown" or not re.match(r"# \S.*\n(?!#)\S", first.source):
        yield "the first cell is a title (# ...) and, below it, what the notebook is about"
    if not re.search(r"^\*\*You will be able to\*\*\n\n?(- .+(\n  .+)*\n?){2,}", first.source, re.MULTILINE):
        yield "the first cell lists, as '- ...', what one will be able to do, below **You will be able to**"
    if not re.search(r"minutes|hour", first.source):
        yield "the first cell says how long it takes, in minutes or hours"
    if not re.search(r"\(\d\d_\w+\.ipynb\)|[Nn]otebooks? \d|[Nn]othing", first.source):
        yield "the first cell says what to have read: another notebook, or nothing"
    if not (begin.cell_type == "code" and begin.source.startswith("%matplotlib inline\n")):
        yield "the second cell is code and begins with %matplotlib inline"
    if "tinyseg.manual_seed(0)" not in begin.source:
        yield "the second cell has tinyseg.manual_seed(0)"
    for cell, following in zip(cells, [*cells[1:], None], strict=True):
        if cell.cell_type == "markdown" and "**Predict" in cell.source:
            if not re.search(r"\*\*Predict\.\*\* [^?]*\?", cell.source.split("\n\n")[-1]):
                yield f"a prediction is asked for as '**Predict.** ...?', at a cell's end: {cell.source[:60]!r}"
            if following is None or following.cell_type != "code":
                yield f"behind {cell.source[:60]!r} comes the code that shows it"
    if not any("**Predict.**" in cell.source for cell in texts):
        yield "the reader is asked to predict"
    last = [i for i, cell in enumerate(cells) if cell.source.startswith("## Questions")]
    if len(last) != 1:
        yield "it ends with one part '## Questions'"
        return
    asked = [cell.source for cell in cells[last[0] :] if cell.cell_type == "code"]
    if not 3 <= len(asked) <= 6 or cells[-1].cell_type != "code":
        yield f"it ends with three to six questions, not {len(asked)}"
    for source in asked:
        if not re.search(
            r'(^|\n)answer = (\.\.\.|\(\.\.\.(, \.\.\.)*\))\ntinyseg\.lessons\.check\("[a-z]+\.\d", answer\)$', source
        ):
            yield f"a question's cell ends with 'answer = ...' and the check: {source!r}"


def _style(cells):
    """Return which texts break the rules of style."""
    for cell in cells:
        if cell.cell_type == "markdown":
            prose = _prose(cell.source)
            for word in re.findall(rf"\b(?:{BANNED})\b", prose, re.IGNORECASE):
                yield f"the text says {word!r}: {cell.source[:60]!r}"
            if "!" in prose:
                yield f"the text exclaims: {cell.source[:60]!r}"
        elif re.search(r"\bjit\b|@cuda", cell.source):
            yield f"kernels are not defined in cells: {cell.source[:60]!r}"


def _numbers(cells):
    """Return which numbers the text states that no assertion holds."""
    asserted = {value for cell in cells if cell.cell_type == "code" for value in _asserted(cell.source)}
    for cell in cells[1:]:
        if cell.source.startswith("## Questions"):
            return  # what follows is given, not stated
        if cell.cell_type == "markdown":
            for text, values in _stated(cell.source):
                if not any(abs(value - known) < 1e-12 for value in values for known in asserted):
                    yield f"the text states {text}, which no assert holds: {cell.source[:60]!r}"


def _asserted(source):
    """Return the sizes of all numbers in the assertions of a code cell."""
    code = re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.MULTILINE)
    for node in ast.walk(ast.parse(code)):
        name = getattr(node.func, "attr", getattr(node.func, "id", "")) if isinstance(node, ast.Call) else ""
        if isinstance(node, ast.Assert) or name.startswith("assert_"):
            for part in ast.walk(node):
                if isinstance(part, ast.Constant) and type(part.value) in (int, float):
                    yield abs(part.value)


def _prose(text):
    """Return the text without code, formulas, targets of links, tables' rules and headings' marks."""
    text = re.sub(r"```.*?```|~~~.*?~~~", " ", text, flags=re.DOTALL)
    text = re.sub(r"`[^`]*`", " code ", text)
    text = re.sub(r"\$\$.*?\$\$|\$[^$]*\$", " formula ", text, flags=re.DOTALL)
    text = re.sub(r"!?\[[^\]]*\]\([^)]*\)", " link ", text)
    return re.sub(r"https?://\S+|arXiv:\S+|<[^>]*>", " link ", text)


def _stated(text):
    """Yield each number that a text states, as it is written, and what an assertion may say for it."""
    prose = _prose(text)
    prose = re.sub(r"^(#+ )\d+\.? ", r"\1", prose, flags=re.MULTILINE)  # numbers of headings
    prose = re.sub(r"^(\s*)(\*\*)?\d+\.(\*\*)? ", r"\1", prose, flags=re.MULTILINE)  # and of lists
    sentences = re.split(r"(?<=[.?])\**\s+|\n\n|\|", prose)
    prose = "  ".join(sentence for sentence in sentences if not sentence.endswith("?"))  # what is asked is not stated
    prose = re.sub(r"\b[Nn]otebooks? \d+(( to |, | and )\d+)*", " ", prose)
    prose = re.sub(r"\b(Python|PyTorch|torchvision|NumPy|Numba|CUDA) \d+(\.\d+)*", " ", prose)
    prose = re.sub(r"\b(1[89]|20)\d\d\b", " ", prose)  # years
    prose = re.sub(r"(\d) ?[x×] ?(?=\d)", r"\1 by ", prose)
    for match in re.finditer(r"(?<![\w.])(?<![A-Za-z]-)\d+(?:,\d{3})*(?:\.\d+)?(?: ?%)?", prose):
        value = float(match[0].rstrip("% ").replace(",", ""))
        yield match[0], (value, value / 100) if match[0].endswith("%") else (value,)


@each_notebook
def test_notebook_is_in_step_with_its_source(path):
    made = path.with_suffix(".ipynb")
    assert made.exists() and made.read_text("utf-8") == notebook_text(path.read_text("utf-8")), "run 'make notebooks'"


def test_each_notebook_has_a_source():
    assert SOURCES and {path.stem for path in notebooks.FOLDER.glob("*.ipynb")} == {path.stem for path in SOURCES}
    numbers = [path.stem[:2] for path in SOURCES]
    assert len(set(numbers)) == len(numbers)


@each_notebook
def test_rules(path):
    assert list(problems(cells(path))) == []


@each_notebook
def test_nothing_but_cells(path):
    assert path.read_text("utf-8").startswith("# %% [markdown]\n# # ")
    stored = json.loads(path.with_suffix(".ipynb").read_text("utf-8"))
    assert stored["metadata"] == METADATA
    for cell in stored["cells"]:
        assert not cell.get("outputs") and cell.get("execution_count") is None
        assert set(cell["metadata"]) <= {"tags"} and set(cell["metadata"].get("tags", ())) <= {"hide-input"}


GOOD = """\
# %% [markdown]
# # A title
# What it is about.
#
# **You will be able to**
# - add;
# - take away
#   something.
#
# It takes about 5 minutes; read notebook 1 before.

# %%
# %matplotlib inline
import tinyseg

tinyseg.manual_seed(0)

# %% [markdown]
# **Predict.** What is 7 times 6?

# %%
assert 7 * 6 == 42
assert 1 - 0.95 < 0.1

# %% [markdown]
# It is 42, as `f(99)` says in conv2d, and $x_{77}$; ResNet-18 of 2016 has nothing to say about 95 %.

# %% [markdown]
# ## Questions
# **1.** What is 1234 less 1233?

# %%
answer = ...
tinyseg.lessons.check("sums.1", answer)

# %%
answer = ...
tinyseg.lessons.check("sums.2", answer)

# %%
answer = ...
tinyseg.lessons.check("sums.3", answer)
"""


def of(source):
    return list(problems(nbformat.reads(notebook_text(source), 4).cells))


def test_a_good_notebook_passes():
    assert of(GOOD) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("# # A title", "# ## A title", "title"),
        ("**You will be able to**", "Aims:", "able to"),
        ("times 6?\n", "times 6?\n#\n# It is the answer to everything.\n", "asked for as"),
        ("5 minutes", "a while", "minutes"),
        ("notebook 1", "it all", "what to have read"),
        ("# %matplotlib inline\n", "", "%matplotlib inline"),
        ("tinyseg.manual_seed(0)", "tinyseg.manual_seed(1)", "manual_seed"),
        ("**Predict.** What", "**Predict:** what", "asked for as"),
        ("**Predict.** What", "What", "asked to predict"),
        ("times 6?\n\n# %%\n", "times 6?\n\n# %% [markdown]\n# ", "comes the code"),
        ("42,", "43,", "states 43"),
        ("95 %", "94 %", "states 94 %"),
        ("It is 42", "A 3x42 map", "states 3"),
        ("It is 42", "It is 4,242", "states 4,242"),
        ("It is 42", "It is not 42? It is 43", "states 43"),
        ("## Questions", "## Exercises", "Questions"),
        ("answer = ...\ntinyseg.lessons.check(\"sums.2", "answer = 1\ntinyseg.lessons.check(\"sums.2", "answer = ..."),
        ("# It is 42", "# It is simply 42", "simply"),
        ("# It is 42", "# It is 42! Or", "exclaims"),
        ("assert 1 - 0.95", "@numba.jit\ndef f(): pass\nassert 1 - 0.95", "kernels"),
    ],
)  # fmt: skip
def test_each_rule_is_noticed(old, new, said):
    assert old in GOOD
    found = of(GOOD.replace(old, new, 1))
    assert found and any(said in problem for problem in found), found


def test_made_again_it_is_the_same():
    first, second = notebook_text(GOOD), notebook_text(GOOD)
    assert first == second and first.endswith("}\n")
    ids = [cell["id"] for cell in json.loads(first)["cells"]]
    with_one_more = notebook_text(
        GOOD.replace("# %% [markdown]\n# **Predict", "# %%\n1 + 1\n\n# %% [markdown]\n# **Predict")
    )
    assert len(set(ids)) == len(ids) and set(ids) < {cell["id"] for cell in json.loads(with_one_more)["cells"]}
