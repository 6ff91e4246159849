"""The parts of the benchmarks: statistics, checking before timing, cases, results in files, comparisons, slopes."""

import json
import math
import re
from types import SimpleNamespace

import numpy as np
import pytest

import kernels
from benchmarks import cases, layers, measure, memory, networks, operator_case, peaks, report, results, scaling
from benchmarks.measure import Effort, Entrant, Spread, Timing

QUICK = Effort(turns=1, seconds=0)


# ---- times -----------------------------------------------------------------------------------------------------------


def test_spread_is_the_median_and_the_quartiles():
    assert Spread.of([5, 1, 3, 2, 4]) == (2, 3, 4)
    assert Spread.of([7]) == (7, 7, 7)


def test_ratio_is_taken_turn_by_turn():
    # both were twice as slow in the second turn: the ratio is the same in all
    assert measure.ratio([1, 2, 1], [3, 6, 3]) == (3, 3, 3)


@pytest.mark.parametrize(("other", "overlap"), [((3, 4, 5), True), ((1, 1.5, 2), True), ((3.1, 4, 5), False)])
def test_overlap_of_spreads(other, overlap):
    assert Spread(2, 2.5, 3).overlaps(Spread(*other)) is overlap
    assert Spread(*other).overlaps(Spread(2, 2.5, 3)) is overlap


class Clock:
    """A clock that only moves when a call says so."""

    def __init__(self, monkeypatch):
        self.now, self.log = 0.0, []
        monkeypatch.setattr(measure, "time", SimpleNamespace(perf_counter=lambda: self.now))

    def call(self, name, seconds):
        def run():
            self.log.append(name)
            self.now += seconds
            return np.ones(2)

        return run


def test_everyone_is_timed_in_turns(monkeypatch):
    clock = Clock(monkeypatch)
    calls = {"a": clock.call("a", 1.0), "b": clock.call("b", 2.0)}
    assert measure.in_turns(calls, Effort(3, 100)) == {"a": [1.0] * 3, "b": [2.0] * 3}
    assert "".join(clock.log) == "ab" + "ab" * 3  # once to see how long it takes


def test_short_calls_are_repeated_in_their_turn_after_one_that_is_not_timed(monkeypatch):
    clock = Clock(monkeypatch)
    found = measure.in_turns({"a": clock.call("a", measure.TURN / 4)}, Effort(2, 100))
    assert found["a"] == pytest.approx([measure.TURN / 4] * 2)
    assert len(clock.log) == 1 + 2 * (1 + 4)


def test_time_runs_out_after_three_turns(monkeypatch):
    clock = Clock(monkeypatch)
    assert len(measure.in_turns({"a": clock.call("a", 10.0)}, Effort(15, 5))["a"]) == 3


# ---- checking --------------------------------------------------------------------------------------------------------


def entrant(result, log=None):
    """Return an entrant with that result, which counts its calls."""

    def call():
        if log is not None:
            log.append(1)
        if isinstance(result, Exception):
            raise result
        return result

    return lambda: Entrant(call, lambda found: [found])


def against(wanted):
    return lambda results: {name: [(found[0], wanted)] for name, found in results.items()}


def test_wrong_results_are_seen_before_anything_is_timed():
    right, wrong, log = np.arange(4.0), np.arange(4.0) + [0, 0, 0, 0.01], []
    timings, size = measure.measure(
        {"right": entrant(right), "wrong": entrant(wrong, log)}, against(right), 1e-3, Effort(2, 0)
    )
    assert timings["right"].error is None and len(timings["right"].seconds) == 2
    assert timings["wrong"].error == "wrong result: off by 0.01, allowed 0.003" and not timings["wrong"].seconds
    assert len(log) == 1 and size == 32


def test_who_fails_is_told_and_the_others_are_timed():
    right = np.arange(4.0)
    entrants = {"fails": entrant(RuntimeError("no\nluck")), "right": entrant(right)}
    timings, _ = measure.measure(entrants, against(right), 0, QUICK)
    assert timings["fails"].error == "RuntimeError: no luck" and math.isnan(timings["fails"].first)
    assert timings["right"].seconds


@pytest.mark.parametrize(
    ("found", "wanted", "words"),
    [
        ([1.0, 2.0], [1.0, 2.002], None),
        ([1.0, 2.0], [1.0, 2.2], "off by"),
        ([1.0, np.nan], [1.0, 2.0], "NaN"),
        ([1.0, 2.0], [1.0, np.inf], "NaN or infinite"),
        ([1.0], [1.0, 2.0], r"shape \(1,\), expected \(2,\)"),
        ([], [], None),
    ],
)
def test_difference(found, wanted, words):
    problem = measure.difference([(found, wanted)], 0.01)
    assert problem is None if words is None else re.search(words, problem)


# ---- cases -----------------------------------------------------------------------------------------------------------


def test_names_of_cases_are_unique_and_chosen_by_their_parts():
    names = [case.name for case in cases.every()]
    assert len(names) == len(set(names)) > 300
    chosen = cases.choose(["conv2d*maskrcnn*input", "nms"], ("L",))
    assert {case.subject.name for case in chosen} == {"conv2d", "nms"}
    assert all(case.size == "L" for case in chosen)
    assert all(case.kind == "models" for case in cases.choose(["models"]))
    with pytest.raises(ValueError, match="'nothing' chooses none of"):
        cases.choose(["relu", "nothing"])


def test_every_operator_with_a_backward_has_a_row():
    measured = {case.subject.name for case in cases.every()}
    loss = {"binary_cross_entropy": "binary_cross_entropy_with_logits", "suppression": "nms", "pasting": "paste_masks"}
    left_out = {"sigmoid_focal", "dice"}  # neither PyTorch nor any network here has them as one operator
    for file in kernels.CONTRACT:
        name = {"iou": "box_iou", **loss}.get(file, file)
        assert name in measured or file in left_out or "_".join(file.split("_")[1:]) in measured, file


def test_naive_takes_part_where_it_is_bearable():
    for case in cases.every():
        assert ("naive" in case.entrants(["cpu", "naive"])) == (case.size == "S")
        assert "cpu" in case.entrants(["cpu", "naive"])


def in_any_order(found):
    """Return layers sorted: which one runs first may change when they are fused."""
    return sorted(json.dumps(layer) for layer in found)


def test_layers_are_those_of_the_networks():
    assert in_any_order(layers.stored()["unet_small"]) == in_any_order(layers.of_unet("unet_small"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["unet", "unet_wide", "maskrcnn"])
def test_layers_of_the_large_networks(name):
    found = layers.of_mask_rcnn() if name == "maskrcnn" else layers.of_unet(name)
    assert in_any_order(layers.stored()[name]) == in_any_order(found)


def test_layers_count_every_operation():
    # 10 pictures of 224 x 224, one channel to eight, 3 x 3
    layer = layers.stored()["unet"][0]
    assert layers.flops(layer) == 2 * 10 * 224 * 224 * 8 * 9
    assert sum(layer["count"] for layer in layers.stored()["unet"]) == 19 + 4


SMALL = [case for case in cases.every() if case.size == "S"]
FEW = [c for c in SMALL if c.subject.arrays in ("2x8x32x32-16x3x3s2", "64x128-32", "200", "1x16x25x34-32x7x7")]


def errors(case, names):
    """Return the errors of those who take part in a case; there must be some."""
    entrants = case.entrants(names)
    reference = case.subject.reference(case.direction)
    timings, _ = measure.measure(entrants, reference, case.subject.allowed(case.direction), QUICK)
    assert timings and all(timing.seconds or timing.error for timing in timings.values())
    return {name: timing.error for name, timing in timings.items() if timing.error}


@pytest.mark.parametrize("case", FEW, ids=lambda case: case.name)
def test_small_cases_are_right(case):
    assert not errors(case, ["cpu", "naive"])


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in SMALL if case not in FEW], ids=lambda case: case.name)
def test_every_small_case_is_right(case):
    assert not errors(case, ["cpu", "naive"])


@pytest.mark.torch
@pytest.mark.parametrize("case", [c for c in SMALL if "torch" in c.subject.libraries("")], ids=lambda c: c.name)
def test_pytorch_computes_the_same(case):
    assert not errors(case, ["torch"])


@pytest.mark.torchvision
@pytest.mark.parametrize("case", [c for c in SMALL if "torchvision" in c.subject.libraries("")], ids=lambda c: c.name)
def test_torchvision_computes_the_same(case):
    assert not errors(case, ["torchvision"])


@pytest.mark.parametrize("name", ["conv2d", "conv_transpose2d", "linear"])
def test_a_part_of_a_large_result_is_checked(name, monkeypatch):
    monkeypatch.setattr(operator_case, "PROBED", 0)
    chosen = [case for case in SMALL if case.subject.name == name and case.subject.probe][:6]
    for case in chosen:
        assert not errors(case, ["cpu"]), case.name
        reference = case.subject.reference(case.direction)
        result = case.subject.entrant("cpu", case.direction)
        arrays = result.collect(result.call())
        for array in arrays:
            array[(-1,) * array.ndim] += 1  # the last of everything is among what is checked
        assert measure.difference(reference({"cpu": arrays})["cpu"], 1e-3)


def test_samples_are_as_many_as_a_random_choice_has():
    labels = np.array([0, 1, -1, 2, 0, 0, 1, 0])
    positives, negatives = networks.first_ones(labels, 4, 0.5)
    assert positives.tolist() == [1, 3] and negatives.tolist() == [0, 4]


def test_bound_is_the_larger_of_two_times():
    limits = {"flops": 100.0, "bytes": 10.0}
    assert peaks.bound(200, 10, limits) == (2.0, "arithmetic")
    assert peaks.bound(None, 30, limits) == (3.0, "memory")


def test_memory_is_that_of_a_fresh_process():
    case = cases.named("models/unet_small/S/1x1x64x64/inference")
    own = np.ones(2**25)  # 256 MB that the other process must not be blamed for
    found = memory.peak_of(case, "cpu", 1)
    assert found is None or 50e6 < found < memory.peak()
    assert own[0] == 1


# ---- results ---------------------------------------------------------------------------------------------------------


def run_of(*seconds, name="operators/relu/S/2/forward", **rest):
    """Return a run with one row per list of seconds of the CPU backend; PyTorch takes twice as long."""
    rows = [
        results.Row(f"{name}{i}", 100, 80, "textbook kernels", {
            "cpu": Timing(0.5, list(times)),
            "torch": Timing(0.1, [2 * time for time in times]),
        })
        for i, times in enumerate(seconds)
    ]  # fmt: skip
    machine = {"processor": "some", "threads": 2}
    return results.Run("tinyseg bench", machine, {"flops": 1e9, "bytes": 1e9}, rows, **rest)


def test_results_survive_the_file(tmp_path):
    run = run_of([1.0, 2.0], [3.0], absent={"onnxruntime": "not installed"}, complete=False)
    run.rows[0].timings["naive"] = Timing(math.nan, [], "wrong result: off by 1, allowed 0")
    run.rows[0].memory = {"cpu": 123}
    results.write(tmp_path / "a.json", run)
    back = results.read(tmp_path / "a.json")
    assert math.isnan(back.rows[0].timings["naive"].first)
    results.write(tmp_path / "b.json", back)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert back.rows[1] == run.rows[1] and back.errors()[0][1:] == ("naive", "wrong result: off by 1, allowed 0")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is no JSON file"),
        ("\xff", "is no JSON file"),
        ("[]", "holds no results"),
        ("{}", "holds no results"),
        ('{"format": 99, "rows": []}', "another version"),
        ('{"format": 1, "rows": [{}]}', "is damaged"),
        ('{"format": 1, "rows": []}', "is damaged"),
    ],
)
def test_other_files_are_refused(tmp_path, text, words):
    (tmp_path / "a.json").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=words):
        results.read(tmp_path / "a.json")


def test_changes_outside_the_spread_are_marked():
    old = run_of([1.0, 1.1, 1.2], [1.0, 1.1, 1.2], [1.0, 1.1, 1.2], [1.0])
    new = run_of([1.1, 1.2, 1.3], [2.0, 2.2, 2.4], [0.5, 0.55, 0.6])
    new.rows[2].timings["torch"] = Timing(0.1, [], "RuntimeError: gone")
    found = results.compare(old, new)
    assert [change.mark for change in found if change.entrant == "cpu"] == ["", "slower", "faster"]
    assert [change.entrant for change in found] == ["cpu", "torch", "cpu", "torch", "cpu"]
    assert found[2].ratio == pytest.approx(2)
    lines = report.changes(found, old, new)
    assert "2.00 times the old time  slower" in lines[2] and "1 faster and 2 slower" in lines[-1]
    new.machine["threads"] = 4
    assert "not with as many threads" in report.changes(found, old, new)[0]


def test_the_page_tells_times_rates_and_errors():
    run = run_of([1e-7, 1e-7, 1e-7], absent={"onnxruntime": "not installed"})
    run.rows[0].timings["naive"] = Timing(0.1, [], "wrong result: off by 1, allowed 0")
    page = report.markdown(run)
    # 100 operations in 0.1 microseconds; at best 1e9 per second
    assert "| 0.000100 [0.000100, 0.000100] | 1 | 0.8 | 100% | 0.50 |" in page
    assert "| 2.00 [2.00, 2.00] |" in page and "ERROR operators/relu/S/2/forward0, naive: wrong" in page
    assert "NOT MEASURED onnxruntime: not installed" in page
    assert "torch: 2.00 times the time of cpu, geometric mean of 1 rows" in page


def test_who_is_slower_is_named():
    run = run_of([1.0, 1.0, 1.0])
    run.rows[0].timings["torch"] = Timing(0.1, [0.5, 0.5, 0.5])
    assert "cpu is slower than torch in 1: operators/relu/S/2/forward0 0.50" in report.summary(run)


# ---- growth of cost --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("power", [1, 2])
def test_slope_is_the_power_of_the_largest_sizes(power):
    sizes = np.array([10, 100, 1000, 2000, 4000, 8000])
    seconds = 3.0 * sizes.astype(float) ** power
    seconds[:2] += 1e4  # what a call costs by itself
    assert scaling.slope(sizes, seconds) == pytest.approx(power)


def test_too_steep_is_said():
    curves = [scaling.Curve("boxes", name, power, [1, 2], [1.0, 2.0], slope)
              for name, power, slope in (("a", 1, 1.2), ("b", 1, 1.9), ("nms", 2, 2.1))]  # fmt: skip
    assert [curve.too_steep for curve in curves] == [False, True, False]
    assert "1.90 TOO STEEP" in scaling.table(curves) and scaling.table(curves).count("TOO STEEP") == 1
