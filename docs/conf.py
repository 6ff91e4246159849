"""How Sphinx builds the API reference from the docstrings: ``make docs``. Needs no network."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import tinyseg

project = "tinyseg"
author = "the tinyseg authors"
project_copyright = author
version = release = tinyseg.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.viewcode", "numpydoc"]
templates_path = ["_templates"]
exclude_patterns = ["_build"]
default_role = "py:obj"
add_module_names = False

autosummary_generate = True
autosummary_ignore_module_all = False
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints = "none"
numpydoc_show_class_members = False

html_theme = "furo"
html_title = f"tinyseg {version}"


def formulas_as_written(app, what, name, obj, options, lines):
    """Show the indented formulas of a module's docstring line by line, as they stand in its file."""
    if what == "module":
        for i in range(len(lines) - 2):
            if lines[i].endswith(":") and not lines[i + 1].strip() and lines[i + 2].startswith("    "):
                lines[i] += ":"


def setup(app):
    """Register the hook with Sphinx."""
    app.connect("autodoc-process-docstring", formulas_as_written)
