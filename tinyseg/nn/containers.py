"""Modules made of modules."""

from tinyseg.nn import fused
from tinyseg.nn.module import Module


class _Indexed(Module):
    """What the numbered containers share."""

    def __len__(self):
        return len(self._modules)

    def __iter__(self):
        return iter(self._modules.values())

    def _key(self, index):
        if not -len(self) <= index < len(self):
            raise IndexError(f"index is {index}; expected one from {-len(self)} to {len(self) - 1}")
        return list(self._modules)[index]

    def __getitem__(self, index):
        if isinstance(index, slice):
            return self._part(dict(list(self._modules.items())[index]))
        return self._modules[self._key(index)]

    def _part(self, modules):
        """Return a container of some of the modules, given by name."""
        raise NotImplementedError

    def __setitem__(self, index, module):
        self.add_module(self._key(index), module)

    def append(self, module):
        """Add a module at the end; return the container."""
        self.add_module(str(len(self)), module)
        return self


class Sequential(_Indexed):
    """Modules run one after the other.

    Parameters
    ----------
    *modules : Module
        In order; or one dictionary of names and modules.
    """

    def __init__(self, *modules):
        super().__init__()
        named = modules[0].items() if len(modules) == 1 and isinstance(modules[0], dict) else enumerate(modules)
        for name, module in named:
            self.add_module(str(name), module)

    def _part(self, modules):
        return Sequential(modules)

    def forward(self, x):
        """Return what the last module makes of what the one before it made, and so on."""
        return fused.run(list(self), x)


class ModuleList(_Indexed):
    """A list of modules that are found by ``parameters()``.

    Parameters
    ----------
    modules : iterable of Module
        In order.
    """

    def __init__(self, modules=()):
        super().__init__()
        self.extend(modules)

    def _part(self, modules):
        return ModuleList(modules.values())

    def extend(self, modules):
        """Add modules at the end; return the container."""
        for module in modules:
            self.append(module)
        return self


class ModuleDict(Module):
    """A dictionary of modules that are found by ``parameters()``.

    Parameters
    ----------
    modules : dict of str to Module
        By name.
    """

    def __init__(self, modules=None):
        super().__init__()
        self.update({} if modules is None else modules)

    def update(self, modules):
        """Add or replace modules by name."""
        for name, module in modules.items():
            self.add_module(name, module)

    def __getitem__(self, name):
        return self._modules[name]

    def __setitem__(self, name, module):
        self.add_module(name, module)

    def __delitem__(self, name):
        del self._modules[name]

    def __contains__(self, name):
        return name in self._modules

    def __len__(self):
        return len(self._modules)

    def __iter__(self):
        return iter(self._modules)

    def keys(self):
        """Return the names."""
        return self._modules.keys()

    def values(self):
        """Return the modules."""
        return self._modules.values()

    def items(self):
        """Return names and modules."""
        return self._modules.items()
