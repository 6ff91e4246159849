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

#: Kernels of tinyseg. ``cuda.atomic``: `kernels.cuda` with gradients of RoIs added up in any order.
OURS = (*kernels.ALL_BACKENDS, "cuda.atomic")
#: Other libraries; two of them on the GPU too.
OTHERS = ("torch", "torchvision", "torch.compile", "onnxruntime", "torch.cuda", "torchvision.cuda")

_PACKAGES = {
    "torch": ("torch",),
    "torchvision": ("torch", "torchvision"),
    "torch.compile": ("torch",),
    "onnxruntime": ("torch", "onnxruntime", "onnx"),
    "torch.cuda": ("torch",),
    "torchvision.cuda": ("torch", "torchvision"),
}


def chosen(backends, against):
    """Return who takes part, and who does not and why.

    Parameters
    ----------
    backends, against : sequence of str
        Of `OURS`, and of `OTHERS`.

    Returns
    -------
    list of str
        Names of those who can take part; the first is the one that the others are compared with.
    dict of str to str
        Why the others cannot.

    Raises
    ------
    ValueError
        If there is no such backend or library, or no GPU for a backend that needs one.
    """
    for name in backends:
        if name not in OURS:
            raise ValueError(f"--backends has {name!r}; expected some of {', '.join(OURS)}")
        module = kernels.get(library_of(name))
        if on_gpu(name):
            try:
                module.require()
            except RuntimeError as error:
                raise ValueError(str(error)) from None
    for name in against:
        if name not in OTHERS:
            raise ValueError(f"--against has {name!r}; expected some of {', '.join(OTHERS)}")
    absent = {name: why for name in against if (why := why_absent(name))}
    present = [name for name in (*backends, *against) if name not in absent]
    return list(dict.fromkeys(present)), absent


def library_of(name):
    """Return the library or backend of an entrant: ``"torch"`` of ``"torch.cuda"``."""
    return name.partition(".")[0]


def on_gpu(name):
    """Return whether an entrant computes on the GPU."""
    return "cuda" in name.split(".")


def why_absent(name):
    """Return why a library cannot take part, or None if it can."""
    for package in _PACKAGES[name]:
        if importlib.util.find_spec(package) is None:
            return f"{package} is not installed"
    if name == "torch.compile" and not (os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")):
        return "it needs a C++ compiler, and there is none"
    if name in ("torchvision", "torch.cuda", "torchvision.cuda"):
        return _why_not_working(name)
    return None


def _why_not_working(name):
    """Return why PyTorch does not work on the GPU, or torchvision's operators do not, or None if they do."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import torch

            if on_gpu(name) and not torch.cuda.is_available():
                return "the installed PyTorch finds no GPU, or is not built for one"
            device = "cuda" if on_gpu(name) else "cpu"
            boxes, scores = torch.zeros(1, 4, device=device), torch.zeros(1, device=device)
            if library_of(name) == "torchvision":
                import torchvision

                torchvision.ops.nms(boxes, scores, 0.5)
        except Exception as error:  # whatever its library says when it does not load
            return f"its operators do not work: {' '.join(str(error).split())[:100]}"
    return None


def share_threads(names):
    """Give the other libraries as many threads as our kernels use, and float32 with all its digits on the GPU."""
    if any(name in OTHERS for name in names):
        import torch

        torch.set_num_threads(backend.get_num_threads())
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = True  # the fastest of its algorithms


def machine(names):
    """Return what the figures hold for: the processor, threads, and versions."""
    from kernels.cpu.tiling import VECTOR_BYTES

    ours = ["numpy", "numba", *(["numba-cuda"] if any(name in OURS and on_gpu(name) for name in names) else [])]
    packages = [*ours, *dict.fromkeys(p for name in names for p in _PACKAGES.get(name, ()))]
    return {
        **(_gpu(names) if any(map(on_gpu, names)) else {}),
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


def _gpu(names):
    """Return what the GPU is, and how PyTorch uses it."""
    from kernels.cuda.device import SIMULATED, cuda, properties

    about: dict = {"gpu": properties().name, "multiprocessors": properties().processors}
    if not SIMULATED:
        about["capability"] = ".".join(map(str, properties().capability))
        about["L2"] = f"{cuda.get_current_device().L2_CACHE_SIZE / 2**20:.0f} MiB"
        about["CUDA of the driver"] = _driver()
    if "torch.cuda" in names or "torchvision.cuda" in names:
        import torch

        about |= {"PyTorch on the GPU": "TF32 off, cudnn.benchmark on", "CUDA of PyTorch": str(torch.version.cuda)}
        about["cuDNN"] = str(torch.backends.cudnn.version())
    return about


def _driver():
    """Return the newest CUDA that the driver knows."""
    try:
        from cuda.bindings import driver

        error, number = driver.cuDriverGetVersion()
        return f"{number // 1000}.{number % 1000 // 10}" if int(error) == 0 else "unknown"
    except ImportError:
        return "unknown"


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
