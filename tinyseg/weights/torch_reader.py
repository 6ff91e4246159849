"""PyTorch's own files, read without PyTorch: the zip format of today and the stream format of before 2020.

Both hold one pickle that describes tensors as views of storages, and the storages' bytes: as entries of the archive, or
one after the other behind the pickle. See ``torch.serialization`` in PyTorch's documentation for their layout.
"""

import io

import numpy as np

from . import archive
from .descriptions import DTYPE_CODES, Dictionary, Storage, Tensor, item_size, kind, shown
from .unpickling import MOST_BYTES, read_pickles

#: Under which of these names a training checkpoint keeps the weights.
NESTED_UNDER = ("state_dict", "model_state_dict", "model")
#: Tensors may share a storage and the arrays do not, so they may take this many times the size of the file.
MOST_SHARING = 8

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001


def read_zip(zip_file, size):
    """Return ``state, metadata`` of a file in the zip format, which lies open as a ``ZipFile``."""
    entries = {entry.filename: entry for entry in zip_file.infolist()}
    packed = next((name for name, entry in entries.items() if entry.compress_type), None)
    if packed is not None:
        raise ValueError(f"entry {shown(packed)} is compressed, as no file that PyTorch writes is: refused")
    prefix = next(name for name in entries if is_description(name)).rpartition("/")[0]
    if f"{prefix}/constants.pkl" in entries:
        raise ValueError("it is a TorchScript program, not weights (save the model's state_dict() instead)")
    description = entries[f"{prefix}/data.pkl"]
    if description.file_size > MOST_BYTES:
        raise ValueError(f"its description of the tensors takes {description.file_size} bytes: refused")
    order = entries.get(f"{prefix}/byteorder")
    byte_order = {b"little": "<", b"big": ">"}.get(archive.read(zip_file, order) if order else b"little")
    if byte_order is None:
        raise ValueError("the file is damaged: its byte order is neither little nor big")

    (tree,), _ = read_pickles(archive.read(zip_file, description), 1)
    tensors, metadata = _find_state(tree)
    _bound_memory(tensors, size)

    arrays: dict[str, np.ndarray] = {}
    for key, group in _by_storage(tensors).items():
        entry = entries.get(f"{prefix}/data/{key}")
        total = group[0][1].storage.total
        if entry is None or entry.file_size != total:
            there = "is missing" if entry is None else f"has {entry.file_size} bytes"
            raise ValueError(f"the file is damaged: storage {shown(key)} {there}; expected {total} bytes")
        raw = archive.read(zip_file, entry)
        arrays.update((name, _array(tensor, raw, byte_order)) for name, tensor in group)
    return {name: arrays[name] for name in tensors}, metadata


def is_description(name):
    """Whether a zip entry of that name is the pickle of a PyTorch file: ``data.pkl`` in the only folder."""
    return name.endswith("/data.pkl") and name.count("/") == 1


def read_stream(file, size):
    """Return ``state, metadata`` of a file in the stream format; its bytes are little-endian on every machine."""
    head = file.read(min(size, MOST_BYTES))
    (magic,), _ = read_pickles(head, 1)
    if magic != _MAGIC:
        raise ValueError("it is a pickle, but not one of PyTorch's weights: refused, and nothing of it was run")
    (_, protocol, _, tree, keys), end = read_pickles(head, 5)
    if protocol != _PROTOCOL:
        raise ValueError("it is of an unknown version of PyTorch's stream format")
    tensors, metadata = _find_state(tree)
    _bound_memory(tensors, size)

    arrays: dict[str, np.ndarray] = {}
    groups = _by_storage(tensors)
    lengths = _stream_lengths(tree)
    file.seek(end)
    for key in keys if isinstance(keys, list) else []:
        if not isinstance(key, str) or key not in lengths:
            raise ValueError(f"the file is damaged: storage {kind(key)} belongs to no tensor")
        count = int.from_bytes(file.read(8), "little")
        element, total = lengths.pop(key)
        if count * element != total or total > size - file.tell():
            raise ValueError(f"the file is cut short or damaged: storage {shown(key)} should have {total} bytes")
        if key not in groups:
            file.seek(total, io.SEEK_CUR)
            continue
        raw = file.read(total)
        arrays.update((name, _array(tensor, raw, "<")) for name, tensor in groups.pop(key))
    if groups:
        raise ValueError(f"the file is damaged: storage {shown(next(iter(groups)))} is missing")
    return {name: arrays[name] for name in tensors}, metadata


def _stream_lengths(tree):
    """Return name -> (bytes of an element, bytes) of every storage that the tree mentions, in or outside the state."""
    lengths: dict[str, tuple[int, int]] = {}
    todo, seen = [tree], set()
    while todo:
        item = todo.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, Tensor):
            item = item.storage
        if isinstance(item, Storage):
            lengths.setdefault(item.key, (item_size(item.dtype), item.total))
        elif isinstance(item, Dictionary):
            todo.extend(item.values())
        elif isinstance(item, (list, tuple)):
            todo.extend(item)
    return lengths


def _find_state(tree):
    """Return the tensors by name, and the plain values beside them."""
    if not isinstance(tree, Dictionary):
        raise ValueError(f"it holds a {kind(tree)}; expected a dictionary of tensors by name")
    beside = {}
    for key in NESTED_UNDER:
        if isinstance(tree.get(key), Dictionary):
            beside = {name: value for name, value in tree.items() if _is_plain(value)}
            tree = tree[key]
            break
    tensors = {}
    for name, value in tree.items():
        if not isinstance(name, str):
            raise ValueError(f"a tensor has the number {name} as its name; expected a string")
        if isinstance(value, Tensor):
            tensors[name] = value
        elif _is_plain(value):
            beside[name] = value
        else:
            places = ", ".join(map(repr, NESTED_UNDER))
            raise ValueError(
                f"entry {shown(name)} is a {kind(value)}; expected tensors by name, at the top or under one of {places}"
            )
    return tensors, {**beside, **_attributes(tree)}


def _is_plain(value):
    """Whether a value is a number, a string or None."""
    return value is None or isinstance(value, (bool, int, float, str))


def _attributes(state):
    """Return the plain attributes of a state dict, and the versions of its modules if PyTorch wrote them."""
    attributes = {name: value for name, value in state.attributes.items() if _is_plain(value)}
    versions = state.attributes.get("_metadata")
    if isinstance(versions, Dictionary):
        attributes["_metadata"] = {
            name: {key: item for key, item in value.items() if _is_plain(item)}
            for name, value in versions.items()
            if isinstance(value, Dictionary)
        }
    return attributes


def _bound_memory(tensors, size):
    """Check that the arrays together are of a size that fits the file."""
    total = sum(tensor.count * max(4, item_size(tensor.dtype)) for tensor in tensors.values())
    if total > MOST_SHARING * size + archive.SPARE_BYTES:
        raise ValueError(f"its tensors would take {total} bytes, far more than the {size} bytes of the file: refused")


def _by_storage(tensors):
    """Return storage key -> list of (name, tensor)."""
    groups: dict[str, list] = {}
    for name, tensor in tensors.items():
        groups.setdefault(tensor.storage.key, []).append((name, tensor))
    for key, group in groups.items():
        if any(tensor.storage.total != group[0][1].storage.total for _, tensor in group):
            raise ValueError(f"the file is damaged: it gives two lengths for storage {shown(key)}")
    return groups


def _array(tensor, raw, byte_order):
    """Return a tensor as a new C-contiguous array in native byte order, bfloat16 as float32."""
    code = np.dtype(byte_order + DTYPE_CODES[tensor.dtype])
    if tensor.count == 0:
        array = np.empty(tensor.shape, code.newbyteorder("="))
    else:
        storage = tensor.storage
        start = storage.start + tensor.offset * code.itemsize
        flat = np.frombuffer(raw, code, (storage.start + storage.size - start) // code.itemsize, start)
        steps = [stride * code.itemsize if n > 1 else 0 for n, stride in zip(tensor.shape, tensor.strides, strict=True)]
        # within bounds: ``descriptions.tensor`` checked the farthest element against the storage
        view = np.lib.stride_tricks.as_strided(flat, tensor.shape, steps)
        array = np.array(view, code.newbyteorder("="), order="C")
    if tensor.dtype == "bfloat16":
        return bfloat16_to_float32(array)
    return np.asarray(array != 0) if tensor.dtype == "bool" else array


def bfloat16_to_float32(bits):
    """Return the float32 numbers of bfloat16 bit patterns, which are their upper halves; exact."""
    return np.asarray(np.left_shift(bits, 16, dtype=np.uint32)).view(np.float32)
