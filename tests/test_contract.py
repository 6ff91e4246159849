"""What every backend keeps, whatever it computes."""

import importlib
import inspect
import pkgutil

import pytest

import kernels

FUNCTIONS = [(file, name) for file, names in (kernels.CONTRACT | kernels.IN_PLACE).items() for name in names]


@pytest.mark.parametrize("backend", kernels.BACKENDS)
@pytest.mark.parametrize(("file", "name"), FUNCTIONS, ids=[name for _, name in FUNCTIONS])
def test_exports_the_function_from_its_file(backend, file, name):
    function = getattr(kernels.get(backend), name)
    assert function is getattr(importlib.import_module(f"kernels.{backend}.{file}"), name)
    assert function.__module__ == f"kernels.{backend}.{file}"


@pytest.mark.parametrize("name", [name for _, name in FUNCTIONS])
def test_signatures_are_the_same(name):
    signatures = {backend: str(inspect.signature(getattr(kernels.get(backend), name))) for backend in kernels.BACKENDS}
    assert len(set(signatures.values())) == 1, signatures


@pytest.mark.parametrize("backend", kernels.BACKENDS)
@pytest.mark.parametrize("name", [name for _, name in FUNCTIONS])
def test_every_parameter_is_documented(backend, name):
    function = getattr(kernels.get(backend), name)
    documented = inspect.getdoc(function)
    for part in ("Parameters\n---", "Returns\n---", "Raises\n---"):
        assert part in documented, f"{backend}.{name}: no section {part.splitlines()[0]}"
    section = documented.split("Parameters\n")[1].split("Returns\n")[0]
    # lines without indentation name parameters: "x, weight : ndarray", or "x, stride"
    named = {
        word.strip(" *")
        for line in section.splitlines()
        if line and not line.startswith((" ", "-"))
        for word in line.split(" : ")[0].split(",")
    }
    assert named == set(inspect.signature(function).parameters)


@pytest.mark.parametrize("backend", kernels.BACKENDS)
def test_backend_lists_its_functions(backend):
    module = kernels.get(backend)
    extra = {name for names in kernels.EXTRA.get(backend, {}).values() for name in names}
    assert set(dir(module)) == {name for _, name in FUNCTIONS} | extra
    with pytest.raises(AttributeError, match="no_such_function"):
        module.no_such_function  # noqa: B018 (the access is what is tested)


def test_naive_has_the_contract_and_no_more():
    assert "naive" not in kernels.EXTRA
    assert not set(kernels.CONTRACT) & {file for files in kernels.EXTRA.values() for file in files}


EXTRA = [
    (backend, file, name) for backend, files in kernels.EXTRA.items() for file, names in files.items() for name in names
]


@pytest.mark.parametrize(("backend", "file", "name"), EXTRA, ids=[name for _, _, name in EXTRA])
def test_extra_functions_are_where_the_table_says(backend, file, name):
    function = getattr(kernels.get(backend), name)
    assert function.__module__ == f"kernels.{backend}.{file}" and "Parameters\n---" in inspect.getdoc(function)
    assert kernels.has(backend, name) and not kernels.has("naive", name)


def test_unknown_backend_is_named():
    with pytest.raises(ValueError, match=r"backend is 'gpu'; expected one of 'naive', 'cpu'"):
        kernels.get("gpu")


def test_naive_imports_nothing_of_the_other_backends():
    package = importlib.import_module("kernels.naive")
    for file in pkgutil.iter_modules(package.__path__):
        source = inspect.getsource(importlib.import_module(f"kernels.naive.{file.name}"))
        imported = {line.split()[1] for line in source.splitlines() if line.startswith(("import ", "from "))}
        allowed = {"math", "numpy", "kernels", "kernels.jit", "kernels.naive.iou", "kernels.naive.reduction"}
        assert imported <= allowed, f"{file.name} imports {imported - allowed}"
