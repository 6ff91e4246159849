"""Rows of the table of cases: losses."""

import numpy as np
from case_builders import WIDTHS, case, filled, loss_inputs


def _binary_cross_entropy_rows():
    probability, logits = "binary_cross_entropy", "binary_cross_entropy_with_logits"
    for how in ("none", "mean", "sum"):
        for function, is_p in ((probability, True), (logits, False)):
            row = lambda name, shape, f=function, p=is_p, h=how, **o: case(  # noqa: E731
                f, f"{name}_{h}", loss_inputs(shape, probability=p, **o), reduction=h
            )
            yield row("plain", (3, 5))
            yield row("hard", (2, 1, 4, 5), hard=True)
            yield row("weight", (3, 5), weight=(3, 5))
            yield row("weight_broadcast", (2, 3, 4), weight=(3, 1))
            yield row("empty", (0, 1, 4, 5))
            yield row("no_axes", ())
        yield case(logits, f"pos_weight_{how}", loss_inputs((3, 5), pos_weight=(5,)), reduction=how)
        both = loss_inputs((2, 3, 4), weight=(4,), pos_weight=(3, 1), hard=True)
        yield case(logits, f"both_weights_{how}", both, reduction=how)
    # logs are clamped at -100, the gradient's denominator at 1e-12
    edges = loss_inputs((2, 6), probability=True, hard=True, edges=[0, 0, 0, 0, 1, 1, 1, 1, 1e-7, 1e-30, 1e-60, 1e-13])
    yield case(probability, "edges", edges, reduction="none")
    nan_target = filled(loss_inputs((2, 6), probability=True), p=[((0, 1), np.nan)])
    yield case(probability, "nan", nan_target, reduction="none")
    far = loss_inputs((2, 6), edges=[1000, -1000, 88.8, -88.8, 104, -104, 20, -20, 0])
    yield case(logits, "far", far, reduction="none")
    for width in WIDTHS:
        yield case(logits, f"width{width}", loss_inputs((2, width)), reduction="mean")
        yield case(probability, f"width{width}", loss_inputs((2, width), probability=True), reduction="mean")
    yield case(logits, "larger_than_a_task", loss_inputs((2, 20_001)), reduction="sum")


def _cross_entropy_rows():
    def inputs(n, c, *rest, weight=False, ignored=None, edges=None):
        def make(rng, dtype):
            x = np.asarray(2 * rng.standard_normal((n, c, *rest)), dtype)
            if edges is not None:
                x.reshape(-1)[: len(edges)] = edges
            target = rng.integers(0, c, (n, *rest))
            if ignored == "all":
                target[...] = -100
            elif ignored is not None:
                target[rng.uniform(size=target.shape) < 0.4] = ignored
            values = {"x": x, "target": target}
            if weight:
                values["weight"] = np.asarray(rng.uniform(0.2, 3, c), dtype)
            return values

        return make

    def row(name, make, scale=1.0, **parameters):
        return case("cross_entropy", name, make, scale, **parameters)

    for how in ("none", "mean", "sum"):
        yield row(f"plain_{how}", inputs(7, 4), reduction=how)
        yield row(f"pictures_{how}", inputs(2, 3, 4, 5), reduction=how)
        yield row(f"weight_{how}", inputs(7, 4, weight=True), reduction=how)
        yield row(f"ignore_{how}", inputs(9, 4, ignored=-100), reduction=how)
        yield row(f"ignore255_{how}", inputs(2, 3, 4, 5, ignored=255), ignore_index=255, reduction=how)
        yield row(f"ignore_class1_{how}", inputs(2, 3, 4, 5, ignored=1), ignore_index=1, reduction=how)
        yield row(f"smoothing_{how}", inputs(7, 4), label_smoothing=0.1, reduction=how)
        everything = inputs(2, 3, 4, 5, weight=True, ignored=-100)
        yield row(f"everything_{how}", everything, label_smoothing=0.3, reduction=how)
        yield row(f"all_ignored_{how}", inputs(3, 4, ignored="all"), reduction=how)
        yield row(f"empty_batch_{how}", inputs(0, 4), reduction=how)
        yield row(f"empty_pictures_{how}", inputs(0, 4, 3, 5, weight=True), label_smoothing=0.1, reduction=how)
    yield row("smoothing1", inputs(7, 4), label_smoothing=1.0)
    yield row("one_class", inputs(5, 1))
    yield row("one_axis_of_pixels", inputs(2, 3, 6))
    # a log-probability of -1e4 carries the rounding of 1e4
    yield row("far", inputs(3, 4, edges=[1000, -1000, 0, 5, 1e4, 1e4, 0, 0]), scale=1e4, reduction="none")
    for width in WIDTHS:
        yield row(f"pixels{width}", inputs(2, 3, width))
        yield row(f"classes{width}", inputs(3, width))


def _other_loss_rows():
    for how in ("none", "mean", "sum"):
        for beta in (1.0, 1 / 9, 0.0):
            yield case("smooth_l1", f"beta{beta:.2g}_{how}", loss_inputs((4, 5)), beta=beta, reduction=how)
        for alpha, gamma in ((0.25, 2.0), (0.75, 1.5), (-1.0, 2.0), (0.25, 0.0), (0.5, 1.0)):
            make = loss_inputs((4, 5), hard=True)
            yield case(
                "sigmoid_focal", f"alpha{alpha}_gamma{gamma}_{how}", make, alpha=alpha, gamma=gamma, reduction=how
            )
        yield case("sigmoid_focal", f"soft_{how}", loss_inputs((2, 3, 4)), reduction=how)
        for per_sample in (False, True):
            label = f"{'per_sample' if per_sample else 'whole'}_{how}"
            options = {"per_sample": per_sample, "reduction": how}
            yield case("dice", label, loss_inputs((3, 2, 4, 5), hard=True), **options)
            yield case("dice", f"soft_{label}", loss_inputs((3, 5)), smooth=0.5, **options)
            yield case("dice", f"empty_{label}", loss_inputs((0, 1, 4, 5)), **options)
        yield case("smooth_l1", f"empty_{how}", loss_inputs((0, 4)), reduction=how)
        yield case("sigmoid_focal", f"empty_{how}", loss_inputs((0, 4)), reduction=how)
    far = loss_inputs((2, 6), hard=True, edges=[1000, -1000, 88.8, -88.8, 104, -104, 20, -20, 0])
    yield case("sigmoid_focal", "far", far)
    yield case("dice", "far", far)
    yield case("smooth_l1", "far", far, reduction="none")
    for width in WIDTHS:
        yield case("smooth_l1", f"width{width}", loss_inputs((2, width)))
        yield case("sigmoid_focal", f"width{width}", loss_inputs((2, width)), reduction="mean")
        yield case("dice", f"width{width}", loss_inputs((2, width)), per_sample=True)


def rows():
    """Return the rows of this file."""
    yield from _binary_cross_entropy_rows()
    yield from _cross_entropy_rows()
    yield from _other_loss_rows()
