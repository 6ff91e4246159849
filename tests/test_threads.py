"""The number of threads: set, read, and given back."""

import numba
import pytest

from tinyseg import backend


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    before = numba.get_num_threads()
    monkeypatch.delenv("TINYSEG_NUM_THREADS", raising=False)
    monkeypatch.setitem(backend._state, "threads", None)
    yield
    numba.set_num_threads(before)


def test_set_and_given_back():
    limit = numba.config.NUMBA_NUM_THREADS
    backend.set_num_threads(1)
    assert backend.get_num_threads() == numba.get_num_threads() == 1
    backend.set_num_threads()
    assert backend.get_num_threads() == numba.get_num_threads() == limit


def test_what_was_set_through_numba_holds_at_first():
    numba.set_num_threads(1)
    assert backend.get_num_threads() == 1


def test_environment(monkeypatch):
    monkeypatch.setenv("TINYSEG_NUM_THREADS", "1")
    assert backend.get_num_threads() == numba.get_num_threads() == 1
    monkeypatch.setenv("TINYSEG_NUM_THREADS", "many")
    with pytest.raises(ValueError, match="environment variable TINYSEG_NUM_THREADS is 'many'"):
        backend.set_num_threads()


@pytest.mark.parametrize("threads", [0, -1, 10_000, 1.5])
def test_refused(threads):
    with pytest.raises(ValueError, match=f"threads is {threads}; expected a whole number from 1 to"):
        backend.set_num_threads(threads)
