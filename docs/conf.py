"""How Sphinx builds the course and the API reference as one site: ``make book``. Needs no network.

The course's pages are made of the notebooks in the folder that ``-D notebooks=FOLDER`` names, as they are, with what
outputs they have: nothing is run here. ``make book`` names a folder of notebooks that were run; ``make docs`` names
none, gets those without outputs, and so takes little time.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import tinyseg

project = "tinyseg"
author = "the tinyseg authors"
project_copyright = author
version = release = tinyseg.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "numpydoc",
    "myst_nb",
    "sphinx-mathjax-offline",
]
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

nb_execution_mode = "off"
nb_ipywidgets_js = {}  # would come from the network; without it a widget's picture is shown
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", None)]
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"tinyseg {version}"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_copy_source = html_show_sourcelink = False


def course(app, config):
    """Put the notebooks of the course where Sphinx finds them, and remove those that are there no more."""
    folder = Path(__file__).parent / "course"
    folder.mkdir(exist_ok=True)
    notebooks = {path.name: path.read_bytes() for path in sorted((folder.parent / config.notebooks).glob("*.ipynb"))}
    for path in folder.glob("*.ipynb"):
        if path.name not in notebooks:
            path.unlink()
    for name, content in notebooks.items():
        path = folder / name
        if not path.exists() or path.read_bytes() != content:  # a page is built anew where its file is newer
            path.write_bytes(content)


def formulas_as_written(app, what, name, obj, options, lines):
    """Show the indented formulas of a module's docstring line by line, as they stand in its file."""
    if what == "module":
        for i in range(len(lines) - 2):
            if lines[i].endswith(":") and not lines[i + 1].strip() and lines[i + 2].startswith("    "):
                lines[i] += ":"


def setup(app):
    """Register the hooks with Sphinx."""
    app.add_config_value("notebooks", "../notebooks", "env", [str])
    app.connect("config-inited", course)
    app.connect("autodoc-process-docstring", formulas_as_written)
