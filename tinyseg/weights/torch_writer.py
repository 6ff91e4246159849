"""PyTorch's zip format, written without PyTorch, such that ``torch.load(path, weights_only=True)`` reads it.

The pickle inside is put together from its instructions (see ``pickletools`` for each), since Python's own pickler would
look for PyTorch's functions to write their names.
"""

import io
import struct
import zipfile

import numpy as np

from .descriptions import DTYPE_CODES, STORAGE_DTYPES

_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)
_STORAGE_CLASSES = {dtype: name for name, dtype in STORAGE_DTYPES.items() if name != "UntypedStorage"}
_PROTOCOL_2, _MARK, _BINPERSID, _NEWFALSE, _STOP = b"\x80\x02", b"(", b"Q", b"\x89", b"."
_ORDERED_DICT = b"ccollections\nOrderedDict\n" + b")R"  # called without arguments


def torch_bytes(state, metadata):
    """Return a file with the arrays as a state dict: an OrderedDict of tensors, with the metadata as its attributes."""
    for name, array in state.items():
        if array.dtype.name not in _STORAGE_CLASSES:
            raise ValueError(f"{name} has dtype {array.dtype}, which a .pth file does not hold; save as .npz")
    tensors = (_text(name) + _tensor(array, str(key)) for key, (name, array) in enumerate(state.items()))
    description = _PROTOCOL_2 + _ORDERED_DICT + _set_items(tensors)
    if metadata:
        attributes = (_text(name) + _text(value) for name, value in metadata.items())
        description += b"}" + _set_items(attributes) + b"b"  # EMPTY_DICT ... BUILD
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as zip_file:
        _write_entry(zip_file, "data.pkl", description + _STOP)
        _write_entry(zip_file, "byteorder", b"little")
        for key, array in enumerate(state.values()):
            little = np.asarray(array, "<" + DTYPE_CODES[array.dtype.name] if array.dtype != bool else bool, order="C")
            _write_entry(zip_file, f"data/{key}", little.reshape(-1).view(np.uint8).data)
        _write_entry(zip_file, "version", b"3\n")
    return file.getbuffer()


def _write_entry(zip_file, name, data):
    """Write one entry, with a fixed date: the same arrays give the same file."""
    zip_file.writestr(zipfile.ZipInfo(f"archive/{name}", _ZIP_EPOCH), data)


def _tensor(array, key):
    """Return the instructions that build a tensor over storage ``key``, which holds just this array."""
    storage_class = f"ctorch\n{_STORAGE_CLASSES[array.dtype.name]}\n".encode()
    storage = _tuple(_text("storage"), storage_class, _text(key), _text("cpu"), _integer(array.size)) + _BINPERSID
    strides = [int(np.prod(array.shape[axis + 1 :], dtype=np.int64)) for axis in range(array.ndim)]
    arguments = _tuple(
        storage,
        _integer(0),
        _tuple(*map(_integer, array.shape)),
        _tuple(*map(_integer, strides)),
        _NEWFALSE,  # requires no gradient
        _ORDERED_DICT,  # has no hooks
    )
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"R"


def _set_items(pairs):
    """Return the instructions that set keys and values, each pair already joined, of the dictionary on the stack."""
    return _MARK + b"".join(pairs) + b"u"


def _tuple(*items):
    return _MARK + b"".join(items) + b"t"


def _text(text):
    encoded = text.encode("utf-8")
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def _integer(number):
    if number < 2**31:
        return b"J" + struct.pack("<i", number)
    encoded = number.to_bytes(9, "little")
    return b"\x8a" + bytes([len(encoded)]) + encoded
