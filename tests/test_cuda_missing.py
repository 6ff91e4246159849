"""Without a GPU: one clear message, wherever the device is asked for; and the backend is complete."""

import pytest

import kernels
import tinyseg
from kernels.cuda import device
from tinyseg import Tensor, nn

MESSAGE = r"^the cuda backend cannot run: no GPU today; install the driver and .*NUMBA_ENABLE_CUDASIM=1"


@pytest.fixture
def without_gpu(monkeypatch):
    monkeypatch.setattr(device, "why_not", lambda: "no GPU today")


@pytest.mark.parametrize(
    "ask",
    [
        lambda: tinyseg.use_backend("cuda"),
        lambda: Tensor([1.0]).to("cuda"),
        lambda: nn.Linear(2, 1).to("cuda"),
    ],
)
def test_one_clear_message(ask, without_gpu):
    with pytest.raises(RuntimeError, match=MESSAGE):
        ask()
    assert tinyseg.current_backend() == "cpu" and Tensor([1.0]).device == "cpu"


def test_the_command_ends_in_one_line(fails, without_gpu):
    line = fails("predict", "--weights", "none.npz", "--backend", "cuda", "picture.png")
    assert line.startswith("the cuda backend cannot run: no GPU today")


def test_every_function_of_the_contract_is_there():
    backend = kernels.get("cuda")
    names = [name for table in (kernels.CONTRACT, kernels.IN_PLACE) for file in table.values() for name in file]
    assert all(callable(getattr(backend, name)) for name in names)
