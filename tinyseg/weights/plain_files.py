"""The two formats that hold arrays and nothing else: NumPy's npz and Hugging Face's safetensors."""

import io
import json
import math
import re
import struct
import zipfile

import numpy as np

from . import archive
from .descriptions import shown
from .torch_reader import bfloat16_to_float32

#: Reserved name: it holds the metadata in both formats.
METADATA = "__metadata__"

_NPY_HEADER = re.compile(
    r"\s*\{\s*'descr': (?P<descr>'[^']*'|\[.*\]), 'fortran_order': (?P<fortran>True|False), "
    r"'shape': \((?P<shape>[0-9L, ]*)\),?\s*\}\s*"
)
_NPY_DTYPE = re.compile(r"'([<>|=]?)([biufc])([0-9]{1,8})'")
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)

_SAFETENSORS_DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "u1",
    "BOOL": "u1",
    "C64": "<c8",
}


def read_npz(zip_file):
    """Return ``state, metadata`` of an npz archive that lies open as a ``ZipFile``."""
    state, metadata = {}, {}
    for entry in zip_file.infolist():
        name = entry.filename
        if not name.endswith(".npy"):
            raise ValueError(f"entry {shown(name)} is not an array of an npz archive")
        name = name[: -len(".npy")]
        array = _read_npy(shown(name), archive.read(zip_file, entry))
        if name == METADATA:
            metadata = _json_strings(array.tobytes())
        else:
            state[name] = array
    return state, metadata


def _read_npy(name, data):
    """Return the array of a .npy file; only the headers that NumPy writes are understood, and never a Python object."""
    if data[:6] != b"\x93NUMPY" or len(data) < 12 or data[6] not in (1, 2, 3):
        raise ValueError(f"entry {name} is not a NumPy array")
    start, layout = (10, "<H") if data[6] == 1 else (12, "<I")
    (length,) = struct.unpack_from(layout, data, 8)
    header = data[start : min(start + length, start + 10_000)].decode("latin-1")
    found = _NPY_HEADER.fullmatch(header)
    if found is None:
        raise ValueError(f"entry {name} has a header that describes no array of numbers")
    if "O" in found["descr"]:
        raise ValueError(f"entry {name} holds Python objects: refused, since reading them could run anything")
    dtype = _NPY_DTYPE.fullmatch(found["descr"])
    if dtype is None:
        raise ValueError(f"entry {name} has a header that describes no array of numbers")
    shape = tuple(int(size) for size in re.findall("[0-9]{1,19}", found["shape"]))
    try:
        code = np.dtype("".join(dtype.groups()))
    except TypeError:
        raise ValueError(f"entry {name} has dtype {found['descr']}, which NumPy does not know") from None
    if len(shape) > 32 or not code.itemsize or math.prod(shape) * code.itemsize != len(data) - start - length:
        raise ValueError(f"entry {name} has shape {shown(found['shape'])}, which does not fit its {len(data)} bytes")
    if math.prod(max(size, 1) for size in shape) * code.itemsize >= 2**62:
        raise ValueError(f"entry {name} has shape {shown(found['shape'])}, which no memory holds")
    array = np.ndarray(shape, code, data, start + length, order="F" if found["fortran"] == "True" else "C")
    return np.array(array != 0 if code.kind == "b" else array, code.newbyteorder("="), order="C")


def npz_bytes(state, metadata):
    """Return a file as ``np.savez`` writes it, but the same for the same arrays and with names such as ``file`` too."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as zip_file:
        arrays = dict(state)
        if metadata:
            arrays[METADATA] = np.frombuffer(json.dumps(metadata).encode("utf-8"), np.uint8)
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy", _ZIP_EPOCH)
            with zip_file.open(entry, "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, array, allow_pickle=False)
    return file.getbuffer()


def read_safetensors(data):
    """Return ``state, metadata`` of the bytes of a safetensors file."""
    import safetensors

    try:
        tensors = dict(safetensors.deserialize(data))
    except safetensors.SafetensorError as error:
        raise ValueError(f"the file is cut short or damaged ({error})") from None
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    metadata = header.pop(METADATA, None) or {}
    if header.keys() != tensors.keys():
        raise ValueError("the file is damaged: it lists a name twice")
    # in the order of the header: the library's is not the same twice
    return {name: _safetensor(name, **tensors[name]) for name in header}, metadata


def _safetensor(name, dtype, shape, data):
    """Return one array of a safetensors file, bfloat16 as float32."""
    if dtype not in _SAFETENSORS_DTYPES:
        raise ValueError(f"tensor {shown(name)} has dtype {dtype}, which NumPy does not have")
    stored = np.frombuffer(data, _SAFETENSORS_DTYPES[dtype]).reshape(shape)
    if dtype == "BF16":
        return bfloat16_to_float32(stored)
    return np.asarray(stored != 0) if dtype == "BOOL" else np.array(stored, stored.dtype.newbyteorder("="))


def safetensors_bytes(state, metadata):
    """Return a file as the safetensors library writes it."""
    from safetensors.numpy import save

    return save(state, metadata=metadata or None)


def _json_strings(data):
    """Return a dictionary of strings from its JSON text in UTF-8."""
    try:
        found = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise ValueError(f"entry {METADATA} does not hold strings by name")
    return found
