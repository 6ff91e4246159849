"""Module: a layer or a model, which knows its parameters, its buffers and the modules inside it."""

import difflib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from tinyseg.backend import is_on_device, moved
from tinyseg.tensor import Tensor, device_and_dtype
from tinyseg.watching import tell


class Parameter(Tensor):
    """A tensor that is trained: assigned to an attribute of a module, it is one of the module's parameters.

    Parameters
    ----------
    data : array_like or Tensor
        First values, float32 or float64.
    requires_grad : bool
        False freezes it.
    """

    def __init__(self, data, requires_grad=True):
        super().__init__(data, requires_grad)


class LoadedKeys(NamedTuple):
    """What ``load_state_dict`` found no use for, or nothing for, with ``strict=False``."""

    missing_keys: list
    unexpected_keys: list


class HookHandle:
    """Takes a hook away again: ``handle.remove()``."""

    def __init__(self, hooks, hook):
        self._hooks, self._hook = hooks, hook

    def remove(self):
        """Remove the hook; a second time does nothing."""
        if self._hook in self._hooks:
            self._hooks.remove(self._hook)


class Module:
    """A layer or a model. Subclasses make their parts in ``__init__`` and compute in ``forward``.

    Attributes that are parameters or modules are registered under their names, and found again in ``parameters()``,
    ``state_dict()`` and so on, with PyTorch's names: ``layer1.conv.weight``.

    Attributes
    ----------
    training : bool
        True in training, False in evaluation. Set it with ``train()`` and ``eval()``.

    Examples
    --------
    >>> from tinyseg import nn
    >>> class Block(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.conv = nn.Conv2d(1, 4, 3, padding=1)
    ...         self.relu = nn.ReLU()
    ...
    ...     def forward(self, x):
    ...         return self.relu(self.conv(x))
    >>> [name for name, _ in Block().named_parameters()]
    ['conv.weight', 'conv.bias']
    """

    #: Keys of this module's own state that a state dict may lack: files of old PyTorch versions do.
    optional_keys: tuple = ()

    #: Keys that a state dict may hold for this module although it has no use for them.
    ignored_keys: tuple = ()

    #: Old names of keys of this module and those inside it, by which earlier files call them, to the names of today.
    old_keys: Mapping = MappingProxyType({})

    training: bool

    def __init__(self):
        for name in ("_parameters", "_buffers", "_modules"):
            object.__setattr__(self, name, {})
        object.__setattr__(self, "_hooks", [])
        object.__setattr__(self, "training", True)

    # ---- attributes ------------------------------------------------------------------------------------------------

    def __setattr__(self, name, value):
        if "_parameters" not in self.__dict__:
            raise AttributeError(f"attribute {name!r} was set before super().__init__() of {type(self).__name__}")
        tables = {"_parameters": Parameter, "_modules": Module}
        table = next((t for t, kind in tables.items() if isinstance(value, kind)), None)
        if table is None:
            table = next((t for t in ("_parameters", "_buffers", "_modules") if name in self.__dict__[t]), None)
            if table is not None and value is not None and (table != "_buffers" or not isinstance(value, Tensor)):
                expected = {"_parameters": "Parameter", "_buffers": "Tensor", "_modules": "Module"}[table]
                raise TypeError(f"attribute {name!r} is a {type(value).__name__}; expected a {expected} or None")
        for other in ("_parameters", "_buffers", "_modules"):
            if other != table:
                self.__dict__[other].pop(name, None)
        if table is None:
            object.__setattr__(self, name, value)
        else:
            self.__dict__.pop(name, None)
            self.__dict__[table][name] = value

    def __getattr__(self, name) -> Any:
        for table in ("_parameters", "_buffers", "_modules"):
            if name in self.__dict__.get(table, ()):
                return self.__dict__[table][name]
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __delattr__(self, name):
        for table in ("_parameters", "_buffers", "_modules"):
            if name in self.__dict__[table]:
                del self.__dict__[table][name]
                return
        object.__delattr__(self, name)

    def __dir__(self):
        return sorted({*super().__dir__(), *self._parameters, *self._buffers, *self._modules})

    def register_parameter(self, name, parameter):
        """Make ``parameter``, a Parameter or None, an attribute that counts as parameter."""
        if parameter is None:
            self._parameters[name] = None
        else:
            setattr(self, name, parameter)

    def register_buffer(self, name, tensor):
        """Make ``tensor``, a Tensor or None, part of the state without being trained: running statistics, say."""
        self._buffers[name] = tensor

    def add_module(self, name, module):
        """Make ``module`` an attribute, also where the name is no Python name, such as ``"0"``."""
        if not isinstance(module, Module):
            raise TypeError(f"module {name!r} is a {type(module).__name__}; expected a Module")
        if not name or "." in name:
            raise ValueError(f"the name of a module is {name!r}; expected one without dots that is not empty")
        setattr(self, name, module)

    # ---- walking ---------------------------------------------------------------------------------------------------

    def children(self):
        """Yield the modules directly inside this one."""
        yield from (module for module in self._modules.values() if module is not None)

    def named_children(self):
        """Yield name and module of those directly inside this one."""
        yield from ((name, module) for name, module in self._modules.items() if module is not None)

    def named_modules(self, prefix="", _seen=None):
        """Yield the full name and each module once: this one (under ``prefix``), and all inside it, outermost first."""
        seen = set() if _seen is None else _seen
        if id(self) in seen:
            return
        seen.add(id(self))
        yield prefix, self
        for name, module in self.named_children():
            yield from module.named_modules(f"{prefix}.{name}" if prefix else name, seen)

    def modules(self):
        """Yield this module and all inside it, each once."""
        yield from (module for _, module in self.named_modules())

    def _named(self, table, prefix=""):
        seen = set()
        for path, module in self.named_modules(prefix):
            for name, tensor in getattr(module, table).items():
                if tensor is not None and id(tensor) not in seen:
                    seen.add(id(tensor))
                    yield (f"{path}.{name}" if path else name), tensor

    def named_parameters(self, prefix=""):
        """Yield the full name and each parameter once."""
        yield from self._named("_parameters", prefix)

    def parameters(self):
        """Yield each parameter once."""
        yield from (parameter for _, parameter in self.named_parameters())

    def named_buffers(self, prefix=""):
        """Yield the full name and each buffer once."""
        yield from self._named("_buffers", prefix)

    def buffers(self):
        """Yield each buffer once."""
        yield from (buffer for _, buffer in self.named_buffers())

    # ---- state -----------------------------------------------------------------------------------------------------

    def _state(self, prefix=""):
        """Yield key and tensor in PyTorch's order: own parameters, own buffers, then the modules inside."""
        for name, tensor in (*self._parameters.items(), *self._buffers.items()):
            if tensor is not None:
                yield prefix + name, tensor
        for name, module in self.named_children():
            yield from module._state(f"{prefix}{name}.")

    def state_dict(self):
        """Return all parameters and buffers by name.

        Returns
        -------
        dict of str to Tensor
            The keys are PyTorch's. The tensors lie on the host and do not require gradients. They share memory with
            the module's; those of a module on the device are copies.
        """
        return {key: tensor.detach().to("cpu") for key, tensor in self._state()}

    def _full_keys(self, attribute):
        """Return the full keys that the modules list under ``optional_keys`` or ``ignored_keys``."""
        return {
            f"{path}.{key}" if path else key
            for path, module in self.named_modules()
            for key in getattr(module, attribute)
        }

    def _renamed(self, state_dict):
        """Return the values by the keys of today."""
        today: dict[str, str] = {}
        for path, module in self.named_modules():
            prefix = f"{path}." if path else ""
            today |= {prefix + old: prefix + new for old, new in module.old_keys.items()}
        for old, new in today.items():
            if old in state_dict and new in state_dict:
                raise KeyMismatch(f"the state dict has both {new!r} and {old!r}, which is its old name")
        return {today.get(key, key): value for key, value in state_dict.items()}

    def load_state_dict(self, state_dict, strict=True):
        """Copy values into the parameters and buffers. Nothing is copied if anything is wrong.

        Keys under which earlier files, such as torchvision's of 2019, keep a module's values count as its own.

        Parameters
        ----------
        state_dict : dict of str to array_like
            NumPy arrays or tensors by name, as ``state_dict()`` gives them. Floating-point values take the type of
            the parameter they go to.
        strict : bool
            Whether missing and unexpected keys are errors. Wrong shapes always are.

        Returns
        -------
        LoadedKeys
            Lists ``missing_keys`` and ``unexpected_keys``.

        Raises
        ------
        KeyError
            If keys are missing or unexpected; the nearest key is suggested. If a value is there twice, under an old
            name and the one of today.
        ValueError
            If shapes differ.
        TypeError
            If ``state_dict`` is no dictionary, a value holds no numbers, or floats where integers are kept.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"state_dict is a {type(state_dict).__name__}; expected a dictionary of arrays by name")
        own = dict(self._state())
        state_dict = self._renamed(state_dict)
        optional, ignored = self._full_keys("optional_keys"), self._full_keys("ignored_keys")
        missing = [key for key in own if key not in state_dict and key not in optional]
        unexpected = [key for key in state_dict if key not in own and key not in ignored]
        if strict and (missing or unexpected):
            raise KeyMismatch(_describe_keys(missing, unexpected, own))
        arrays = {key: _numbers(key, value, own[key]) for key, value in state_dict.items() if key in own}
        if any(array.shape != own[key].shape for key, array in arrays.items()):
            raise ValueError(_describe_shapes(arrays, own))
        for key, array in arrays.items():
            own[key].array[...] = moved(array, own[key].device)
            own[key].mark_changed()
        return LoadedKeys(missing, unexpected)

    # ---- modes and places ------------------------------------------------------------------------------------------

    def train(self, mode=True):
        """Switch this module and all inside it to training (``mode=True``) or evaluation; return the module."""
        for module in self.modules():
            object.__setattr__(module, "training", bool(mode))
        return self

    def eval(self):
        """Switch to evaluation: ``train(False)``."""
        return self.train(False)

    def requires_grad_(self, requires_grad=True):
        """Thaw or freeze all parameters; return the module."""
        for parameter in self.parameters():
            parameter.requires_grad = requires_grad
        return self

    def zero_grad(self):
        """Set the gradient of all parameters to None."""
        for parameter in self.parameters():
            parameter.grad = None

    def apply(self, function):
        """Call ``function`` with each module, innermost first; return the module."""
        for child in self.children():
            child.apply(function)
        function(self)
        return self

    def to(self, device=None, dtype=None):
        """Move all values, and gradients, to a device, or change the type of floating-point ones; return the module.

        An optimiser's state stays where it is: make the optimiser afterwards.

        Parameters
        ----------
        device : {"cpu", "cuda"}, optional
            Where to. A NumPy type is taken as ``dtype``.
        dtype : numpy.dtype, optional
            float32 or float64.

        Raises
        ------
        ValueError
            If there is no such device.
        TypeError
            If the type is another.
        RuntimeError
            If there is no GPU, nor the simulator.
        MemoryError
            If the GPU's memory is full; some values have moved, and others not.
        """
        device, dtype = device_and_dtype(device, dtype)
        if dtype is not None and dtype not in (np.float32, np.float64):
            raise TypeError(f"dtype is {dtype}; expected float32 or float64")
        for tensor in (*self.parameters(), *self.buffers()):
            if dtype is not None and tensor.dtype.kind == "f" and tensor.dtype != dtype:
                tensor.array = tensor.array.astype(dtype)
                tensor.grad = None if tensor.grad is None else tensor.grad.to(dtype=dtype)
                tensor.mark_changed()
            if device is not None and tensor.device != device:
                tensor.array = moved(tensor.array, device)
                tensor.grad = None if tensor.grad is None else tensor.grad.to(device)
                tensor.mark_changed()
        return self

    # ---- computing -------------------------------------------------------------------------------------------------

    def forward(self, *args, **kwargs):
        """Return the output; every subclass has its own."""
        raise NotImplementedError(f"{type(self).__name__} has no forward()")

    def __call__(self, *args, **kwargs):
        tell("module begins", module=self)
        output = self.forward(*args, **kwargs)
        tell("module", module=self)
        for hook in list(self._hooks):
            changed = hook(self, args, output)
            output = output if changed is None else changed
        return output

    def register_forward_hook(self, hook):
        """Call ``hook(module, args, output)`` after each forward pass; what it returns, unless None, is the output.

        Parameters
        ----------
        hook : callable
            Sees the arguments and the output, to record or check them.

        Returns
        -------
        HookHandle
            ``remove()`` takes the hook away.
        """
        self._hooks.append(hook)
        return HookHandle(self._hooks, hook)

    # ---- description -----------------------------------------------------------------------------------------------

    def extra_repr(self):
        """Return what stands between the parentheses of the module's description."""
        return ""

    def __repr__(self):
        name, extra = type(self).__name__, self.extra_repr()
        lines = [f"({key}): {module!r}".replace("\n", "\n  ") for key, module in self._modules.items()]
        if not lines:
            return f"{name}({extra})"
        body = "".join(f"\n  {line}" for line in ([extra] if extra else []) + lines)
        return f"{name}({body}\n)"


class KeyMismatch(KeyError):
    """Missing or unexpected keys of a state dict, described in plain words."""

    def __str__(self):
        return self.args[0]


def _describe_keys(missing, unexpected, own):
    """Return one sentence that names what is missing and unexpected, with the nearest name that would fit."""

    def listed(kind, keys, among, text):
        named = []
        for key in keys[:5]:
            # bounded, since names from a file may be of any length and number
            short = {str(name)[:200]: name for name in among[:5000]}
            near = difflib.get_close_matches(str(key)[:200], short, 1)
            named.append(f"{key!r} ({text} {short[near[0]]!r})" if near else repr(key))
        rest = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
        return f"{kind} {', '.join(named)}{rest}"

    parts = []
    if missing:
        parts.append(listed("missing", missing, unexpected, "the nearest given is"))
    if unexpected:
        parts.append(listed("unexpected", unexpected, missing or list(own), "the nearest expected is"))
    return f"the state dict does not fit: {'; '.join(parts)}"


def _describe_shapes(arrays, own):
    """Return one sentence that names the first few arrays whose shapes differ from the module's."""
    wrong = [
        f"{key!r} has shape {array.shape}; expected {own[key].shape}"
        for key, array in arrays.items()
        if array.shape != own[key].shape
    ]
    rest = f"; and {len(wrong) - 5} more of other shapes" if len(wrong) > 5 else ""
    return f"the state dict does not fit: {'; '.join(wrong[:5])}{rest}"


def _numbers(key, value, tensor):
    """Return the value for ``tensor`` as an array of its kind, or say what is wrong with it."""
    array = value.array if isinstance(value, Tensor) else value if is_on_device(value) else np.asarray(value)
    if array.dtype.kind not in "fiub" or (array.dtype.kind == "f" and tensor.dtype.kind != "f"):
        raise TypeError(f"{key!r} has dtype {array.dtype}; expected {tensor.dtype}")
    return array
