"""Memory that results give back: who may have it again, and when."""

import gc
import os
import sys
import threading

import numpy as np
import pytest

import tinyseg
from kernels.cpu import memory

MIB = 1 << 20


def address(a):
    return a.__array_interface__["data"][0]


@pytest.fixture
def pool():
    return memory.Pool(64 * MIB)


def reserved(pool):
    """Return whether this system lets the pool reserve address space."""
    pool.empty((MIB,), np.uint8)
    return pool.touched > 0


def test_arrays_are_like_any_other(pool):
    for dtype in (np.float32, np.float64, np.int64, np.uint8, bool):
        a = pool.empty([3, 0x10000, 5], dtype)
        assert (a.shape, a.dtype, type(a)) == ((3, 0x10000, 5), np.dtype(dtype), np.ndarray)
        assert a.flags.c_contiguous
        assert a.flags.writeable
        assert address(a) % memory.ALIGNMENT == 0 or not reserved(pool)
        a[...] = 1
        assert a.all()


def test_small_and_empty_arrays_are_numpys_own(pool):
    for shape in ((), (0,), (0, MIB), (memory.SMALL // 4 - 1,)):
        assert pool.empty(shape, np.float32).flags.owndata
    with pytest.raises(ValueError, match="negative"):
        pool.empty((-1, MIB), np.float32)


def test_memory_is_used_again_after_the_last_view_only(pool):
    if not reserved(pool):
        pytest.skip("this system reserves no address space")
    a = pool.empty((MIB,), np.float32)
    view, first = a.reshape(1024, 1024)[3:][:, ::2].T, address(a)
    view[...] = 7
    del a
    assert pool.lent == 4 * MIB
    b = pool.empty((MIB,), np.float32)
    assert not np.may_share_memory(view, b)
    b[...] = 1
    assert (view == 7).all()
    del view
    assert pool.lent == 4 * MIB
    assert address(pool.empty((MIB // 2,), np.float32)) == first


def test_gaps_join_and_nothing_overlaps(pool, rng):
    arrays = {}
    for step in range(2000):
        if arrays and rng.random() < 0.5:
            key = rng.choice(list(arrays))
            assert (arrays.pop(key) == key % 251).all()
        else:
            arrays[step] = pool.empty((int(rng.integers(memory.SMALL, 4 * MIB)),), np.uint8)
            arrays[step][...] = step % 251
    arrays.clear()
    assert pool.lent == 0
    if reserved(pool):
        whole = pool.empty((64 * MIB,), np.uint8)  # only fits if all gaps have become one
        assert not whole.flags.owndata


def test_where_no_gap_is_large_enough_numpy_steps_in(pool):
    a, b = pool.empty((40 * MIB,), np.uint8), pool.empty((40 * MIB,), np.uint8)
    assert b.flags.owndata
    assert not np.may_share_memory(a, b)
    assert memory.Pool(0).empty((MIB,), np.uint8).flags.owndata


def test_a_system_that_reserves_nothing(monkeypatch):
    def refuse(*_):
        raise OSError("no")

    monkeypatch.setattr(memory.mmap, "mmap", refuse)
    pool = memory.Pool(64 * MIB)
    assert pool.empty((MIB,), np.uint8).flags.owndata
    pool.release()


def test_zeros_are_zeros_wherever_they_lie(pool, rng):
    keep = [pool.empty((int(rng.integers(memory.SMALL, MIB)),), np.uint8) for _ in range(40)]
    for a in keep:
        a[...] = 1
    for _ in range(60):  # pieces that begin and end within pages
        keep.pop(rng.integers(len(keep)))
        zeros = pool.empty((int(rng.integers(memory.SMALL, MIB)),), np.uint8, cleared=True)
        assert not zeros.any()
        zeros[...] = 1
        assert all(a.all() for a in keep)
        keep.append(zeros)
    assert not pool.empty((64 * MIB,), np.uint8, cleared=True).any()  # NumPy's own
    assert memory.zeros((3, MIB), np.float32).shape == (3, MIB)


@pytest.mark.parametrize("give_back", ["release", "patience"])
def test_idle_memory_goes_back_to_the_system(pool, monkeypatch, give_back):
    if not reserved(pool) or sys.platform != "linux":
        pytest.skip("only Linux clears the pages at once")
    kept, idle = (pool.empty((2 * MIB,), np.uint8) for _ in range(2))
    kept[...] = idle[...] = 1
    del idle
    if give_back == "release":
        pool.release()
    else:
        monkeypatch.setattr(memory, "PATIENCE", -1.0)
        for _ in range(3):  # what was used since the last look stays
            pool.empty((MIB // 2,), np.uint8)
    assert pool.touched < 4 * MIB
    again = pool.empty((2 * MIB,), np.uint8)
    assert kept.all()
    assert not again.any()  # the system hands out pages of zeros


def test_arrays_that_die_in_a_garbage_collection_or_another_thread(pool):
    if not reserved(pool):
        pytest.skip("this system reserves no address space")

    class Ring:
        pass

    ring = Ring()
    ring.self, ring.array = ring, pool.empty((MIB,), np.uint8)
    del ring
    with pool.lock:  # as if the collection happened amid the pool's own work
        gc.collect()
        assert pool.lent == MIB
    pool.empty((MIB,), np.uint8)
    assert pool.lent == 0

    def work(value):
        for _ in range(200):
            a = pool.empty((MIB,), np.uint8)
            a[...] = value
            wrong.extend(a[a != value])

    wrong = []
    threads = [threading.Thread(target=work, args=(value,)) for value in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pool.release()
    assert (pool.lent, wrong) == (0, [])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_goes_on_with_its_own_copy():
    a = memory.empty((MIB,), np.float32)
    a[...] = 1
    with memory._pool.lock:  # held by the parent at the moment of the fork
        child = os.fork()
        if child == 0:
            code = 1
            try:
                a[...] = 2
                code = int(np.may_share_memory(a, memory.empty((MIB,), np.float32)))
            finally:
                os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (a == 1).all()


def test_release_memory_is_within_reach_of_a_user(monkeypatch):
    pool = memory.Pool(64 * MIB)
    monkeypatch.setattr(memory, "_pool", pool)
    memory.empty((MIB,), np.float32)[...] = 1
    before = pool.touched
    tinyseg.release_memory()
    assert before in (0, 4 * MIB)
    assert pool.touched == 0
    monkeypatch.delitem(sys.modules, "kernels.cpu.memory")
    tinyseg.release_memory()  # nothing to do before the first kernel


@pytest.mark.parametrize(("platform", "unit"), [("linux", 1 << 10), ("darwin", 1 << 20)])
def test_peak_memory_is_in_mib(monkeypatch, platform, unit):
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrusage", lambda who: type("usage", (), {"ru_maxrss": 300 * unit}))
    monkeypatch.setattr(sys, "platform", platform)
    assert tinyseg.peak_memory() == 300
    monkeypatch.setitem(sys.modules, "resource", None)
    assert tinyseg.peak_memory() is None
