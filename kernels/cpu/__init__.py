"""The fast kernels: compiled, parallel, vectorised. Each is checked against ``kernels.naive``."""

from kernels import lazy_exports

__getattr__, __dir__ = lazy_exports(__name__)
