"""Imports go one way, and importing tinyseg brings in neither Numba nor Matplotlib."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

#: Each package may import from its own level and from those above it in this list.
LEVELS = [
    {"compiling"},
    {"backend", "colours", "files", "random", "watching"},
    {"function", "tensor"},
    {"ops"},
    {"nn", "optim"},
    {"boxes"},
    {"weights"},
    {"models"},
    {"data"},
    {"training", "evaluation"},
    {"explain", "draw"},
    {"lessons"},
    {"cli"},
]
LEVEL = {name: number for number, names in enumerate(LEVELS) for name in names}


def imported(path, root=ROOT):
    """Return the modules that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = [node.module] if node.module else []
            if node.level:  # relative: from the package that many folders up
                module = [*path.relative_to(root).parts[: -node.level], *module]
            names |= {".".join([*module, alias.name]) for alias in node.names}
    return names


def files(package):
    return sorted((ROOT / package).rglob("*.py"))


def own_part(path):
    """Return the name directly under tinyseg that a file belongs to."""
    return path.relative_to(ROOT / "tinyseg").parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", files("tinyseg"), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path):
    part = own_part(path)
    if part in ("__init__", "__main__"):
        return
    assert part in LEVEL, f"{part} has no place in LEVELS"
    for name in imported(path):
        if name.startswith("tinyseg."):
            other = name.split(".")[1]
            if other in LEVEL:
                assert LEVEL[other] <= LEVEL[part], f"{path}: imports {name}"
        if name.split(".")[0] == "kernels":
            assert part == "backend", f"{path}: only backend.py imports kernels"


@pytest.mark.parametrize("path", files("kernels"), ids=lambda path: str(path.relative_to(ROOT)))
def test_kernels_do_not_import_tinyseg(path):
    assert not [name for name in imported(path) if name.split(".")[0] == "tinyseg"]


def test_the_check_sees_imports(tmp_path):
    path = tmp_path / "example.py"
    path.write_text(
        "def f():\n    from tinyseg.cli import main\n    import kernels.cpu as k\n    from . import other\n"
    )
    assert imported(path, tmp_path.parent) == {"tinyseg.cli.main", "kernels.cpu", f"{tmp_path.name}.other"}


def run(code):
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(result.stdout)


def test_import_is_light():
    loaded = run("import tinyseg, sys, json; print(json.dumps(sorted(sys.modules)))")
    heavy = {"numba", "llvmlite", "matplotlib", "PIL", "tqdm", "safetensors", "tifffile", "scipy", "torch"}
    assert not heavy & set(loaded)


def test_parts_are_reachable_from_tinyseg():
    names = ["ops", "nn", "optim", "boxes", "models", "weights", "data", "training", "evaluation", "explain", "draw"]
    names.append("lessons")
    assert run(f"import tinyseg, json; print(json.dumps([getattr(tinyseg, n).__name__ for n in {names}]))") == [
        f"tinyseg.{name}" for name in names
    ]


def test_unknown_attribute():
    import tinyseg

    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        tinyseg.nonsense  # noqa: B018


def test_public_names():
    import tinyseg

    for name in tinyseg.__all__:
        assert hasattr(tinyseg, name)
    assert tinyseg.__version__.count(".") == 2
