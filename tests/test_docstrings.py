"""Every public name says what it takes and gives, in numpydoc's form, and agrees with its signature."""

import importlib
import inspect
import pathlib
import re

import pytest
from numpydoc.docscrape import NumpyDocString
from numpydoc.validate import validate

import kernels

ROOT = pathlib.Path(__file__).parent.parent

#: The modules that a user imports from. A module's public names are those of ``__all__``, or else what it defines.
MODULES = (
    "tinyseg",
    "tinyseg.backend",
    "tinyseg.boxes",
    "tinyseg.data",
    "tinyseg.data.augment",
    "tinyseg.data.augment_objects",
    "tinyseg.draw",
    "tinyseg.evaluation",
    "tinyseg.explain",
    "tinyseg.files",
    "tinyseg.function",
    "tinyseg.lessons",
    "tinyseg.models",
    "tinyseg.nn",
    "tinyseg.nn.init",
    "tinyseg.ops",
    "tinyseg.optim",
    "tinyseg.random",
    "tinyseg.training",
    "tinyseg.weights",
)

#: numpydoc's codes for what a reader would stumble over; its other ones are matters of taste.
WRONG = {
    "GL06": "an unknown section",
    "GL08": "no docstring",
    "PR01": "a parameter is not documented",
    "PR02": "an unknown parameter is documented",
    "RT01": "no Returns section",
    "SS01": "no summary",
    "SS02": "the summary begins with a small letter",
    "SS03": "the summary does not end with a full stop",
    "SS04": "the summary begins with a space",
    "YD01": "no Yields section",
}


def public_names(module_name):
    """Return the full names of what a module offers: its classes and functions."""
    module = importlib.import_module(module_name)
    names = getattr(module, "__all__", None) or [
        name
        for name, item in vars(module).items()
        if not name.startswith("_") and getattr(item, "__module__", None) == module_name
    ]
    return [f"{module_name}.{name}" for name in names if callable(getattr(module, name))]


def find(full_name):
    """Return the object of that name."""
    module_name, _, name = full_name.rpartition(".")
    return getattr(importlib.import_module(module_name), name)


TINYSEG = sorted(name for module in MODULES for name in public_names(module))
KERNELS = sorted(
    f"kernels.{backend}.{file}.{name}"
    for backend in kernels.BACKENDS
    for file, names in (kernels.CONTRACT | kernels.IN_PLACE).items()
    for name in names
)


def documented_elsewhere(item):
    """Return the parameters that a class documents as attributes, or by the operator whose arguments it takes."""
    if not inspect.isclass(item):
        return set()
    doc = inspect.getdoc(item) or ""
    names = {name for entry in NumpyDocString(doc)["Attributes"] for name in re.split(r",\s*", entry.name)}
    for operator in re.findall(r"``(?:tinyseg\.)?(ops\.\w+)``", doc):
        names |= set(inspect.signature(find(f"tinyseg.{operator}")).parameters)
    return names


@pytest.mark.parametrize("name", [*TINYSEG, *KERNELS, "kernels.get", "kernels.jit.jit"])
def test_docstring_agrees_with_the_signature(name):
    found = {code: message for code, message in validate(name)["errors"] if code in WRONG}
    item = find(name)
    if inspect.isfunction(item) and not inspect.signature(item).parameters:
        found.pop("RT01", None)  # a summary that begins with "Return" says it all
    if "PR01" in found and documented_elsewhere(item) >= set(inspect.signature(item).parameters):
        del found["PR01"]
    assert not found, f"{name}: {found}"


def test_the_check_notices_a_wrong_docstring(monkeypatch):
    monkeypatch.setattr(kernels.get, "__doc__", "Return the backend of that name.\n\nParameters\n----------\nx : str\n")
    with pytest.raises(AssertionError, match="PR01.*backend.*PR02.*'x'.*RT01"):
        test_docstring_agrees_with_the_signature("kernels.get")


def test_a_layer_may_refer_to_its_operator_only_for_the_operator_s_arguments():
    class Wrong:
        """Like ``ops.relu``."""

    assert documented_elsewhere(Wrong) == set(inspect.signature(find("tinyseg.ops.relu")).parameters)
    Wrong.__doc__ = "Like nothing."
    assert documented_elsewhere(Wrong) == set()


def test_the_reference_lists_every_public_module():
    listed = set(re.findall(r"^   ([a-z0-9_.]+)$", (ROOT / "docs" / "reference.rst").read_text("utf-8"), re.MULTILINE))
    assert listed == set(MODULES)
    listed = set(re.findall(r"^   ([a-z0-9_.]+)$", (ROOT / "docs" / "kernels.rst").read_text("utf-8"), re.MULTILINE))
    files = kernels.CONTRACT | kernels.IN_PLACE
    operators = {f"kernels.{backend}.{file}" for backend in kernels.BACKENDS for file in files}
    assert listed == operators | {"kernels", "kernels.jit"}
