"""A pickle reader that can only build tensors, and the plain containers, numbers and strings around them.

A pickle is a program for a small stack machine, and Python's own machine can call any function that the program names.
This one knows only the harmless instructions, and stands in for the few functions that a tensor's description calls;
all else is refused by its name. Nothing is imported, no function of the file's choice is ever called, and the work and
the memory are bounded by the length of the file.
"""

import io
import pickletools

from .descriptions import DTYPE_CODES, STORAGE_DTYPES, Dictionary, Global, Tensor, kind, shown, storage, tensor

#: No honest description is longer: a network of 5,000 tensors with its optimiser takes 700,000 instructions.
MOST_BYTES = 64 * 2**20
MOST_STEPS = 2_000_000

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # the first number of PyTorch's older files
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_NUMBERS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"}
_TEXTS = {"BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
_BYTE_TEXTS = {"BINSTRING", "SHORT_BINSTRING"}  # text as Python 2 wrote it
_EMPTY = {"EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": Dictionary}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MEMO = {"BINPUT", "LONG_BINPUT", "MEMOIZE", "BINGET", "LONG_BINGET"}
_REST = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "BUILD", "GLOBAL", "STACK_GLOBAL", "BINPERSID", "REDUCE"}
_REST |= {"MARK", "TUPLE", "PROTO", "FRAME", "STOP"}
_ALLOWED = {*_CONSTANTS, *_NUMBERS, *_TEXTS, *_BYTE_TEXTS, *_EMPTY, *_TUPLES, *_MEMO, *_REST}
_INSTRUCTIONS = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}

_GLOBALS = {
    "collections.OrderedDict",
    "torch.Size",
    "torch.device",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_tensor_v3",
    "torch.storage.UntypedStorage",
    *(f"torch.{dtype}" for dtype in DTYPE_CODES),
    *(f"torch.{name}" for name in STORAGE_DTYPES),
    *(f"torch.cuda.{name}" for name in STORAGE_DTYPES),  # tensors saved from a GPU by older versions
}


def read_pickles(data, count):
    """Build what ``count`` pickles, one after the other in ``data``, describe.

    Parameters
    ----------
    data : bytes
        The pickles, and perhaps something else after them.
    count : int
        How many there are.

    Returns
    -------
    objects : list
        One per pickle, made of None, bool, int, float, str, tuple, list, ``Dictionary``, ``Global`` and ``Tensor``.
    end : int
        Where the last pickle ends.

    Raises
    ------
    ValueError
        If a pickle is damaged, or does anything but build tensors.
    """
    stream = io.BytesIO(data)
    return [_Machine().run(stream) for _ in range(count)], stream.tell()


def _instructions(stream):
    """Yield name and argument of each instruction of one pickle; an unknown one is refused before its argument."""
    name = None
    while name != "STOP":
        code = stream.read(1)
        if not code:
            raise ValueError("the file is cut short: its description of the tensors has no end")
        opcode = _INSTRUCTIONS.get(code)
        if opcode is None:
            raise ValueError(f"the file is damaged: byte {code.hex()} is no instruction of a pickle")
        name = opcode.name
        if name not in _ALLOWED:
            raise ValueError(f"it holds the pickle instruction {name}, which no tensor needs: refused")
        try:
            argument = _argument(opcode, stream)
        except ValueError:
            raise ValueError(f"the file is cut short or damaged, at the pickle instruction {name}") from None
        yield name, argument


def _argument(opcode, stream):
    """Read what follows the code of an instruction."""
    if opcode.name == "GLOBAL":  # two lines; pickletools' own reader warns of stray backslashes
        return tuple(stream.readline().decode("utf-8").removesuffix("\n") for _ in range(2))
    return None if opcode.arg is None else opcode.arg.reader(stream)


class _Machine:
    """The stack machine. ``marks`` holds the heights of the stack at which a group of items begins."""

    def __init__(self):
        self.stack = []
        self.marks = []
        self.memo = {}

    def run(self, stream):
        """Execute one pickle of ``stream`` and return what it builds."""
        for steps, (name, argument) in enumerate(_instructions(stream)):
            if steps >= MOST_STEPS:
                raise ValueError(f"its description of the tensors takes more than {MOST_STEPS} steps")
            if name in _MEMO:
                self.remember_or_recall(name, argument)
            elif name in _NUMBERS or name in _TEXTS or name in _BYTE_TEXTS:
                self.stack.append(_literal(name, argument))
            elif name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name])
            elif name in _EMPTY:
                self.stack.append(_EMPTY[name]())
            elif name in _TUPLES:
                self.stack.append(tuple(self.pop(_TUPLES[name])))
            else:
                self.step(name, argument)
        return self.pop(1)[0]

    def step(self, name, argument):
        """Execute an instruction that works on what lies on the stack."""
        match name:
            case "MARK":
                self.marks.append(len(self.stack))
            case "TUPLE":
                self.stack.append(tuple(self.pop_group()))
            case "APPEND":
                self.append(self.pop(1))
            case "APPENDS":
                self.append(self.pop_group())
            case "SETITEM":
                self.set_items(self.pop(2))
            case "SETITEMS":
                self.set_items(self.pop_group())
            case "BUILD":
                self.set_attributes(*self.pop(1))
            case "GLOBAL":
                self.stack.append(_find(*argument))
            case "STACK_GLOBAL":
                self.stack.append(_find(*self.pop(2)))
            case "BINPERSID":
                self.stack.append(storage(*self.pop(1)))
            case "REDUCE":
                self.stack.append(_call(*self.pop(2)))

    def remember_or_recall(self, name, index):
        """Store the top of the stack under an index, or push what was stored there."""
        if name == "MEMOIZE":
            self.memo[len(self.memo)] = self.top()
        elif name.endswith("PUT"):
            self.memo[index] = self.top()
        elif index in self.memo:
            self.stack.append(self.memo[index])
        else:
            raise ValueError("the file is damaged: its description recalls an item that was never stored")

    def top(self):
        """Return the item on top, and leave it there."""
        if not self.stack:
            raise ValueError("the file is damaged: its description uses an item that is not there")
        return self.stack[-1]

    def pop(self, count):
        """Take the last ``count`` items off the stack."""
        if len(self.stack) < count:
            raise ValueError("the file is damaged: its description uses an item that is not there")
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def pop_group(self):
        """Take the items since the last mark off the stack."""
        if not self.marks:
            raise ValueError("the file is damaged: its description ends a group that never began")
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def append(self, items):
        """Append to the list on top."""
        target = self.top()
        if not isinstance(target, list):
            raise ValueError(f"it appends to a {kind(target)}: refused")
        target.extend(items)

    def set_items(self, items):
        """Set keys and values of the dictionary on top."""
        target = self.top()
        if not isinstance(target, Dictionary) or len(items) % 2:
            raise ValueError(f"it sets items of a {kind(target)}: refused")
        for key, value in zip(items[::2], items[1::2], strict=True):
            _set(target, key, value)

    def set_attributes(self, state):
        """Set attributes of the dictionary on top."""
        target = self.top()
        if not isinstance(target, Dictionary) or not isinstance(state, Dictionary):
            raise ValueError(f"it sets attributes of a {kind(target)}: refused")
        target.attributes.update(state)


def _literal(name, value):
    """Return a number or a string."""
    if isinstance(value, int) and value.bit_length() > 64 and value != _LEGACY_MAGIC:
        raise ValueError(f"it holds a whole number of {value.bit_length()} bits; expected at most 64")
    if name in _BYTE_TEXTS:
        try:
            return value.encode("latin-1").decode("utf-8")
        except UnicodeDecodeError:
            raise ValueError("the file is damaged: it holds a string that is not text") from None
    return value


def _set(target, key, value):
    """Set an item. Only keys that hash at once and of which no file can choose many with one hash."""
    if not (isinstance(key, str) or (isinstance(key, int) and abs(key) < 2**60)):
        raise ValueError(f"a dictionary has a {kind(key)} as a key; expected strings or whole numbers")
    target[key] = value


def _find(module, name):
    """Return the stand-in for a function or class."""
    if not isinstance(module, str) or not isinstance(name, str):
        raise ValueError(f"it refers to something by a {kind(module)} and a {kind(name)}: refused")
    full = f"{module}.{name}"
    if full not in _GLOBALS:
        raise ValueError(
            f"it refers to {shown(full)}, which is not part of a tensor: refused, and nothing of it was run "
            "(saved anew as the model's state_dict() alone, it can be read)"
        )
    return Global(full)


def _call(function, arguments):
    """Return what an allowed function would return."""
    name = function.name if isinstance(function, Global) else None
    if not isinstance(arguments, tuple):
        raise ValueError(f"it calls {kind(function)} without arguments: refused")
    match name, arguments:
        case "torch._utils._rebuild_tensor", (of, offset, shape, strides):
            return tensor(of, None, offset, shape, strides)
        case "torch._utils._rebuild_tensor_v2", (of, offset, shape, strides, _, _, *more):
            return tensor(_plain(of, more), None, offset, shape, strides)
        case "torch._utils._rebuild_tensor_v3", (of, offset, shape, strides, _, _, dtype, *more):
            return tensor(_plain(of, more), dtype, offset, shape, strides)
        case "torch._utils._rebuild_parameter", (Tensor() as parameter, _, _):
            return parameter
        case "torch.Size", (tuple() | list() as shape,):
            return tuple(shape)
        case "torch.device", (str() as device, *_):
            return device
        case "collections.OrderedDict", ():
            return Dictionary()
        case "collections.OrderedDict", (list() as pairs,):  # as Python 2 wrote it
            return _ordered_dict(pairs)
        case _:
            raise ValueError(f"it calls {kind(function)} in a way that describes no tensor: refused")


def _plain(of, more):
    """Return the storage of a tensor whose trailing metadata is empty."""
    if more and more[0]:
        raise ValueError("a tensor is marked as conjugated or negated, or has other marks: refused")
    return of


def _ordered_dict(pairs):
    """Return a dictionary of [key, value] pairs."""
    result = Dictionary()
    for pair in pairs:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise ValueError("the file is damaged: an OrderedDict is not made of pairs")
        _set(result, *pair)
    return result
