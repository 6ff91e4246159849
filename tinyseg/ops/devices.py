"""Moving between the host and the device: the one operator that copies from one to the other."""

from tinyseg.backend import device_of, moved
from tinyseg.function import Function
from tinyseg.tensor import Tensor


class To(Function):
    def forward(self, x, *, device):
        self.device = device_of(x)
        return moved(x, device)

    def backward(self, dy):
        return moved(dy, self.device)


def _move(self, device):
    """Return a copy on a device, on the tape."""
    return To.apply(self, device=device)


Tensor._move = _move
