"""Who can take part: our backends, and other libraries where they are installed."""

import importlib.util
import os
import platform
import shutil
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version

import kernels
import tinyseg
from tinyseg import backend

OTHERS = ("torch", "torchvision", "torch.compile", "onnxruntime")

_PACKAGES = {
    "torch": ("torch",),
    "torchvision": ("torch", "torchvision"),
    "torch.compile": ("torch",),
    "onnxruntime": ("torch", "onnxruntime", "onnx"),
}


def chosen(backends, against):
    """Return who takes part, and who does not and why.

    Parameters
    ----------
    backends, against : sequence of str
        Names of backends, and of `OTHERS`.

    Returns
    -------
    list of str
        Names of those who can take part; the first is the one that the others are compared with.
    dict of str to str
        Why the others cannot.

    Raises
    ------
    ValueError
        If there is no such backend or library.
    """
    for name in backends:
        if name not in kernels.BACKENDS:
            raise ValueError(f"--backends has {name!r}; expected some of {', '.join(kernels.BACKENDS)}")
        kernels.get(name)
    for name in against:
        if name not in OTHERS:
            raise ValueError(f"--against has {name!r}; expected some of {', '.join(OTHERS)}")
    absent = {name: why for name in against if (why := why_absent(name))}
    present = [name for name in (*backends, *against) if name not in absent]
    return list(dict.fromkeys(present)), absent


def why_absent(name):
    """Return why a library cannot take part, or None if it can."""
    for package in _PACKAGES[name]:
        if importlib.util.find_spec(package) is None:
            return f"{package} is not installed"
    if name == "torch.compile" and not (os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")):
        return "it needs a C++ compiler, and there is none"
    if name == "torchvision":
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                import torch
                import torchvision

                torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
            except Exception as error:  # whatever its library says when it does not load
                return f"its operators do not work: {' '.join(str(error).split())[:100]}"
    return None


def share_threads(names):
    """Give the other libraries as many threads as our kernels use."""
    if any(name in OTHERS for name in names):
        import torch

        torch.set_num_threads(backend.get_num_threads())


def machine(names):
    """Return what the figures hold for: the processor, threads, and versions."""
    from kernels.cpu.tiling import VECTOR_BYTES

    packages = ["numpy", "numba", *dict.fromkeys(p for name in names for p in _PACKAGES.get(name, ()))]
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": backend.get_num_threads(),
        "vector": f"{8 * VECTOR_BYTES} bit",
        "system": f"{platform.system()} {platform.machine()}",
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "python": platform.python_version(),
        "tinyseg": tinyseg.__version__,
        **{package: _version(package) for package in packages},
    }


def _processor():
    """Return the processor's name."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _version(package):
    """Return the version of an installed package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
