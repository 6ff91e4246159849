"""What a PyTorch file says of its tensors, checked before any memory is set aside for them."""

import math
from dataclasses import dataclass

MOST_AXES = 32

#: dtype of an array -> its code in NumPy; bfloat16 is read as its 16 bits, a bool as a byte.
DTYPE_CODES = {
    "float64": "f8",
    "float32": "f4",
    "float16": "f2",
    "bfloat16": "u2",
    "int64": "i8",
    "int32": "i4",
    "int16": "i2",
    "int8": "i1",
    "uint64": "u8",
    "uint32": "u4",
    "uint16": "u2",
    "uint8": "u1",
    "bool": "u1",
    "complex64": "c8",
    "complex128": "c16",
}

#: PyTorch's storage classes -> dtype of their elements.
STORAGE_DTYPES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "UntypedStorage": "uint8",
}


@dataclass(frozen=True)
class Storage:
    """A run of bytes elsewhere in the file; ``start`` and ``size`` in bytes choose a part of its ``total`` bytes."""

    key: str
    dtype: str
    total: int
    start: int
    size: int


@dataclass(frozen=True)
class Tensor:
    """A checked view of a storage: ``offset`` and ``strides`` count elements, and no element lies outside."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple
    strides: tuple

    @property
    def count(self):
        """Number of elements."""
        return math.prod(self.shape)


class Dictionary(dict):
    """A dict, or an OrderedDict with the attributes that the pickle gives it."""

    def __init__(self):
        super().__init__()
        self.attributes = {}


@dataclass(frozen=True)
class Global:
    """Stands for a function or class that a tensor's description names."""

    name: str

    @property
    def last(self):
        """The name without its module."""
        return self.name.rpartition(".")[2]


def item_size(dtype):
    """Return the bytes of one element."""
    return int(DTYPE_CODES[dtype][1:])


def shown(text):
    """Return a string for a message: quoted, and cut where it is long."""
    return repr(text if len(text) <= 100 else text[:97] + "...")


def kind(item):
    """Return what to call an item in a message. Never its contents: a list may hold itself, or a million others."""
    if isinstance(item, Global):
        return item.name
    return shown(item) if isinstance(item, str) else type(item).__name__.lower()


def _whole(*values):
    """Whether all values are ints of at least 0."""
    return all(type(value) is int and value >= 0 for value in values)


def storage(reference):
    """Return the storage that a persistent id refers to: ("storage", class, key, device, length[, view])."""
    if not isinstance(reference, tuple) or not reference:
        raise ValueError(f"it refers to an outside object by a {kind(reference)}; expected a storage of tensors")
    if reference[0] != "storage" or not 5 <= len(reference) <= 6:
        raise ValueError(f"it refers to the outside object {kind(reference[0])}; expected a storage of tensors")
    _, storage_class, key, _, length, *view = reference
    dtype = STORAGE_DTYPES.get(storage_class.last) if isinstance(storage_class, Global) else None
    if dtype is None or not isinstance(key, str) or not _whole(length):
        raise ValueError("the file is damaged: it describes a storage without a type, name or length")
    start, count = 0, length
    if view and view[0] is not None:  # until 2017: a storage may be a part of another
        part = view[0]
        if not isinstance(part, tuple) or len(part) != 3 or not _whole(*part[1:]) or part[1] + part[2] > length:
            raise ValueError(f"the file is damaged: storage {shown(key)} is used by a part that lies outside it")
        _, start, count = part
    size = item_size(dtype)
    return Storage(key, dtype, length * size, start * size, count * size)


def tensor(of, dtype, offset, shape, strides):
    """Return a tensor all of whose elements are known to lie within the storage ``of``."""
    if not isinstance(of, Storage) or not isinstance(shape, tuple) or not isinstance(strides, tuple):
        raise ValueError("the file is damaged: a tensor lacks a storage, a shape or strides")
    if not len(shape) == len(strides) <= MOST_AXES or not _whole(offset, *shape, *strides):
        raise ValueError(f"a tensor's shape, strides and offset are not whole numbers for up to {MOST_AXES} axes")
    if dtype is None:
        dtype = of.dtype
    elif isinstance(dtype, Global) and dtype.last in DTYPE_CODES:
        dtype = dtype.last
    else:
        raise ValueError(f"a tensor has {kind(dtype)} as its dtype; expected one such as torch.float32")
    size = item_size(dtype)
    if math.prod(max(n, 1) for n in shape) * size >= 2**62:
        raise ValueError(f"a tensor has shape {shape}, which no memory holds")
    if 0 not in shape:
        reach = offset + 1 + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
        if reach * size > of.size:
            raise ValueError(
                f"a tensor of shape {shape}, strides {strides} and offset {offset} reaches beyond its storage "
                f"{shown(of.key)} of {of.size} bytes"
            )
    return Tensor(of, dtype, offset, shape, strides)
