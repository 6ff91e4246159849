"""Files of weights: safetensors, npz, and PyTorch's ``.pth``, all read and written without PyTorch.

Loading a file never runs code from it, whatever it holds: a file that is damaged, or is anything but arrays by name,
ends in a ValueError that says so in one sentence.
"""

import os
import pathlib

import numpy as np

from ..files import write_bytes
from . import archive
from .descriptions import DTYPE_CODES
from .plain_files import METADATA, npz_bytes, read_npz, read_safetensors, safetensors_bytes
from .torch_reader import is_description, read_stream, read_zip
from .torch_writer import torch_bytes

__all__ = ["load", "save"]

_WRITERS = {".safetensors": safetensors_bytes, ".npz": npz_bytes, ".pth": torch_bytes, ".pt": torch_bytes}
_SAVED_DTYPES = set(DTYPE_CODES) - {"bfloat16", "complex64", "complex128"}

#: How other files begin that are easily taken for weights: offset, bytes, what to say.
_FOREIGN = (
    (257, b"ustar", "is in the tar format that PyTorch wrote before 2017 (save it anew with a later version)"),
    (0, b"version https://git-lfs", "is a Git LFS pointer, not the weights themselves (run 'git lfs pull')"),
    (0, b"\x89HDF", "is an HDF5 file, as Keras writes them"),
    (0, b"\x93NUMPY", "is a single array without a name; expected an .npz archive"),
    (0, b"\x1f\x8b", "is packed with gzip (unpack it first)"),
    (0, b"<", "is a web page or XML, perhaps the error page of a failed download"),
)


def load(path, metadata=False):
    """Read arrays by name from a file of weights.

    The format is told from the content, not from the name: safetensors, npz, or PyTorch's ``.pth`` in its zip format
    and in the stream format of before 2020. PyTorch itself is not needed. bfloat16, which NumPy does not have, becomes
    float32, which holds it exactly.

    In a PyTorch file, the weights are the tensors of a dictionary at the top, or of one at the top under
    ``"state_dict"``, ``"model_state_dict"`` or ``"model"``, the first of them that is there; what lies beside those is
    not read. Tensors that share memory become arrays that do not.

    Parameters
    ----------
    path : str or path-like
        The file.
    metadata : bool
        Whether to return the metadata too.

    Returns
    -------
    state : dict of str to ndarray
        New C-contiguous arrays of the machine's byte order, in the file's order.
    metadata : dict
        Only if asked for. What ``save`` was given; in a PyTorch file, also the numbers and strings beside the weights,
        and under ``"_metadata"`` the versions of the modules, by module and then by ``"version"``.

    Raises
    ------
    ValueError
        If the file is cut short, damaged, of another format, or would have anything built from it but arrays; in one
        sentence that names the file and what was refused. Nothing of the file is ever executed.
    OSError
        If the file cannot be read.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        try:
            state, found = _read(file, size)
        except ValueError as error:
            raise ValueError(f"weights file {os.fspath(path)!r}: {error}") from None
    return (state, found) if metadata else state


def _read(file, size):
    """Return ``state, metadata`` by the format that the first bytes tell."""
    head = file.read(512)
    file.seek(0)
    if head[8:9] == b"{":  # first: what comes before it is a length, which may look like the start of any other file
        return read_safetensors(file.read(size))
    for offset, start, what in _FOREIGN:
        if head[offset:].startswith(start):
            raise ValueError(f"it {what}")
    if head.startswith(b"PK"):
        with archive.opened(file, size) as zip_file:
            if any(is_description(name) for name in zip_file.namelist()):
                return read_zip(zip_file, size)
            return read_npz(zip_file)
    if head.startswith(b"\x80"):
        return read_stream(file, size)
    what = "is empty" if not size else "is neither safetensors, nor npz, nor a file of PyTorch's"
    raise ValueError(f"it {what}")


def save(path, state, metadata=None):
    """Write arrays by name to a file of weights, in the format that the name's end tells.

    A file of that name is replaced only once the new one is complete, so an interrupted save leaves the old one whole.
    The same arrays and metadata give the same bytes. ``.pth`` and ``.pt`` give PyTorch's zip format, for
    ``torch.load(path, weights_only=True)``.

    Parameters
    ----------
    path : str or path-like
        Ends in ``.safetensors``, ``.npz``, ``.pth`` or ``.pt``.
    state : dict of str to array_like
        NumPy arrays, or tensors with a method ``numpy()``, of floating numbers, whole numbers or bools.
    metadata : dict of str to str, optional
        What else to keep. In a PyTorch file it becomes attributes of the state dict.

    Raises
    ------
    ValueError
        If the name's end, a name in ``state`` or a dtype is none that can be saved.
    TypeError
        If ``state`` or ``metadata`` is not a dictionary of the above.
    OSError
        If the file cannot be written.
    """
    path = pathlib.Path(path)
    to_bytes = _WRITERS.get(path.suffix.lower())
    if to_bytes is None:
        raise ValueError(f"path is {str(path)!r}; expected a name that ends in one of {', '.join(_WRITERS)}")
    metadata = {} if metadata is None else metadata
    if not isinstance(metadata, dict) or not all(isinstance(item, str) for pair in metadata.items() for item in pair):
        raise TypeError("metadata is not a dictionary of strings by strings")
    if not isinstance(state, dict):
        raise TypeError(f"state is a {type(state).__name__}; expected a dictionary of arrays by name")
    arrays = {_savable_name(name): _savable(name, value) for name, value in state.items()}
    write_bytes(path, to_bytes(arrays, metadata))  # at once: a zip file does not close well on a full disk


def _savable_name(name):
    """Check that every format keeps a name as it is."""
    if not isinstance(name, str):
        raise TypeError(f"state has the name {name!r}; expected strings")
    if name == METADATA or "\0" in name or "\\" in name or len(name.encode("utf-8", "replace")) > 10_000:
        raise ValueError(f"state has the name {name[:100]!r}, which a file of weights cannot keep")
    return name


def _savable(name, value):
    """Return a C-contiguous array of the machine's byte order and a dtype that every reader knows."""
    array = value.numpy() if hasattr(value, "numpy") else value
    if not isinstance(array, np.ndarray):
        raise TypeError(f"state[{name!r}] is a {type(value).__name__}; expected an array or a tensor")
    if array.dtype.name not in _SAVED_DTYPES:
        raise ValueError(f"state[{name!r}] has dtype {array.dtype}; expected floating numbers, whole numbers or bools")
    return np.asarray(array, array.dtype.newbyteorder("="), order="C")
