"""How seconds on a GPU are taken: against a GPU made of two numbers, and on the one that is there, or the simulator."""

from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import cases, gpu_clock, measure
from benchmarks.box_operators import roi_align
from benchmarks.operators import relu
from kernels import cuda
from kernels.cuda.device import SIMULATED, Kernel

on_gpu = pytest.mark.cuda


class Gpu:
    """A GPU made of two numbers: when the host is, and when the line of work on the GPU will be done."""

    def __init__(self, monkeypatch):
        self.now = self.done = 0.0
        self.held = []
        monkeypatch.setattr(gpu_clock, "SIMULATED", False)
        monkeypatch.setattr(gpu_clock, "cuda", self)
        monkeypatch.setattr(gpu_clock, "hold", self.hold)
        monkeypatch.setattr(gpu_clock, "synchronize", self.synchronize)
        monkeypatch.setattr(gpu_clock, "time", SimpleNamespace(perf_counter=lambda: self.now))

    def event(self):
        event = SimpleNamespace(synchronize=self.synchronize)
        event.record = lambda: setattr(event, "time", max(self.now, self.done))
        return event

    def event_elapsed_time(self, start, end):
        return 1e3 * (end.time - start.time)

    def hold(self, seconds):
        self.held.append(seconds)
        self.done = max(self.now, self.done) + seconds
        return seconds

    def synchronize(self):
        self.now = max(self.now, self.done)

    def kernel(self, launch, work, waits=False):
        def call():
            self.now += launch
            self.done = max(self.now, self.done) + work
            if waits:
                self.synchronize()

        return call


@pytest.mark.parametrize(("launch", "work"), [(20e-6, 2e-6), (20e-6, 3e-3), (5e-3, 1e-3)])
def test_seconds_are_those_of_the_gpu_however_long_a_launch_takes(monkeypatch, launch, work):
    pretended, watch = Gpu(monkeypatch), gpu_clock.Stopwatch(3)
    call = pretended.kernel(launch, work)
    assert watch.seconds(call, 300) == pytest.approx(work) and not watch.waits
    # a thousand launches at most wait in line
    assert max(pretended.held) < 8 * max(gpu_clock._LINE, launch)
    assert watch.seconds_called(call, 300) == pytest.approx(max(launch, work), rel=0.02)


def test_launches_that_became_slower_are_timed_again(monkeypatch):
    pretended, watch = Gpu(monkeypatch), gpu_clock.Stopwatch()
    assert watch.seconds(pretended.kernel(10e-6, 1e-6), 50) == pytest.approx(1e-6)
    assert watch.seconds(pretended.kernel(40e-6, 1e-6), 50) == pytest.approx(1e-6)


def test_a_call_that_waits_is_found_out_and_its_time_has_the_hosts_part(monkeypatch):
    pretended, watch = Gpu(monkeypatch), gpu_clock.Stopwatch()
    assert watch.seconds(pretended.kernel(20e-6, 5e-6, waits=True), 100) == pytest.approx(25e-6)
    assert watch.waits


def test_kernels_one_by_one_are_those_of_the_gpu_too(monkeypatch):
    from benchmarks import gpu_clock

    pretended, shared = Gpu(monkeypatch), SimpleNamespace(name="a.kernel")
    monkeypatch.setattr(Kernel, "run", lambda self, work: pretended.kernel(20e-6, work)())

    def call():
        Kernel.run(shared, 2e-6)
        pretended.synchronize()
        Kernel.run(shared, 3e-6)
        Kernel.run(SimpleNamespace(name="b.kernel"), 1e-6)

    assert gpu_clock.by_kernel(call) == {"a.kernel": pytest.approx(5e-6), "b.kernel": pytest.approx(1e-6)}


@on_gpu
def test_copies_are_taken_in_turn_and_results_kept():
    alive, made = [], []

    class Result:
        def __init__(self, name):
            self.name = name
            alive.append(name)
            made.append(name)

        def __del__(self):
            alive.remove(self.name)

    call = gpu_clock.taken_in_turn([lambda name=name: Result(name) for name in "abc"])
    for _ in range(5):
        call()
    assert made == ["a", "b", "c", "a", "b"] and sorted(alive) == ["a", "b", "c"]
    assert gpu_clock.copies(1) == (gpu_clock._LEAST if SIMULATED else gpu_clock._MOST)
    assert gpu_clock.copies(10**12) == gpu_clock._LEAST


@on_gpu
def test_kernels_of_a_call_are_told_apart_and_counted_once_compiled():
    case = cases.Case("operators", "S", roi_align((1, 1, 4, 4), 1, 2), "backward")
    entrant, compiled = case.subject.entrant("cuda", case.direction), {}
    with gpu_clock.noting_compilations(compiled):
        entrant.call()
        first = dict(compiled)
        entrant.call()
    assert compiled == first
    seconds = gpu_clock.by_kernel(entrant.call, 1)
    assert {"roi_taps.tabulate_kernel", "roi_align.gather_kernel"} < set(seconds) and min(seconds.values()) > 0


@on_gpu
def test_the_gradients_of_rois_in_both_forms(monkeypatch):
    case = cases.Case("operators", "S", roi_align((1, 1, 4, 4), 1, 2), "backward")
    forms = []
    right = case.subject.calls["backward"]
    monkeypatch.setitem(case.subject.calls, "backward", lambda *a: forms.append(cuda.is_deterministic()) or right(*a))
    for name in ("cuda", "cuda.atomic"):
        case.subject.entrant(name, "backward").call()
    assert forms == [True, False] and cuda.is_deterministic()
    assert "cuda.atomic" not in cases.Case("operators", "S", relu(1, 1, 2, 2), "backward").entrants(["cuda.atomic"])


def test_gpus_have_a_clock_of_their_own():
    class Watch:
        waits = True

        def seconds(self, call, times):
            return 2.0

        def seconds_called(self, call, times):
            return 3.0

    one = np.ones(1)
    entrants = {
        "cpu": lambda: measure.Entrant(lambda: one, lambda found: [found]),
        "cuda": lambda: measure.Entrant(lambda: one, lambda found: [found], Watch()),
    }
    timings, _ = measure.measure(entrants, lambda found: {}, 0, measure.Effort(4, 60))
    assert timings["cuda"].seconds == [2.0] * 4 and timings["cuda"].called == [3.0] * 4 and timings["cuda"].waits
    assert timings["cpu"].called is None and max(timings["cpu"].seconds) < 1
