"""The RoI lab's widget: what its front end (lab_map.js, lab.js) draws, made of a `RoILab`."""

import math
from pathlib import Path

import anywidget
import numpy as np
import traitlets

from tinyseg.explain.rois.as_json import plain

_HERE = Path(__file__).parent
_MOST_LISTED = 16  # samples in the table
_MOST_DRAWN = 6000  # samples on the map
_FAR = 1e5  # cells: nothing is drawn farther out


class RoILabWidget(anywidget.AnyWidget):
    """The front end of a `RoILab`, which computes everything. Its traits are the lab's state, as JSON."""

    _esm = "\n".join((_HERE / name).read_text("utf-8") for name in ("lab_map.js", "lab.js"))
    _css = (_HERE / "lab.css").read_text("utf-8")
    picture = traitlets.Dict().tag(sync=True)
    box = traitlets.List(traitlets.Float()).tag(sync=True)
    settings = traitlets.Dict().tag(sync=True)
    result = traitlets.Dict().tag(sync=True)

    def __init__(self, lab):
        super().__init__(picture=_picture(lab), **_state(lab))
        self._lab = lab
        self.observe(self._asked, ["box", "settings"])

    def show(self, lab):
        """Show what the lab has now, in one message."""
        with self.hold_sync(), self.hold_trait_notifications():
            for name, value in _state(lab).items():
                setattr(self, name, value)

    def _asked(self, change):
        """Let the lab compute what the front end asks for."""
        if {name: getattr(self, name) for name in ("box", "settings")} == _asked_for(self._lab):
            return
        try:
            self._lab._set(box=self.box, **self.settings)
        except (TypeError, ValueError):
            self.show(self._lab)  # what cannot be computed goes back to what was


# ---- the lab as JSON -------------------------------------------------------------------------------------------------


def _picture(lab):
    """Return the map: its values and their colours."""
    from matplotlib.colors import to_hex

    from tinyseg.explain.rois.figure import colour_range

    colours, low, high = colour_range(lab.result.roi_pool.trace, 0)
    shown = colours((np.ma.masked_invalid(lab.features.astype(np.float64)) - low) / (high - low))
    return {
        "values": plain(lab.features),
        "colours": [[to_hex(colour) for colour in row] for row in shown],
        "spatial_scale": float(lab.spatial_scale),
        "dtype": str(lab.features.dtype),
    }


def _asked_for(lab):
    """Return what the numbers of a result belong to."""
    return {
        "box": list(lab.box),
        "settings": {
            "output_size": list(lab.output_size),
            "sampling_ratio": int(lab.sampling_ratio),
            "aligned": bool(lab.aligned),
            "cell": list(lab.cell),
            "gradient_of": lab.gradient_of,
        },
    }


def _state(lab):
    """Return box, settings and result."""
    asked = _asked_for(lab)
    pool, align = (_found(part, lab.cell) for part in lab.result)
    return {**asked, "result": {**asked, "roi_pool": pool, "roi_align": align}}


def _found(part, cell):
    """Return what one operator makes of the box, as it is drawn: lengths in cells, 0 the outer edge of the first."""
    if part.error:
        return {"error": part.error}
    trace = part.trace
    rows, columns = np.nonzero(part.gradient)
    flow = part.gradient[rows, columns]
    found = {
        "error": None,
        "output": plain(part.output),
        "gradient": {
            "cells": [list(cell) for cell in zip(rows.tolist(), columns.tolist(), plain(flow), strict=True)],
            "sum": plain(flow.sum(dtype=np.float64)),
            "largest": plain(flow.max(initial=0)),
        },
    }
    return {**found, **(_pooled if trace.op == "roi_pool" else _aligned)(trace, *cell)}


def _pooled(trace, py, px):
    """Return bins and maxima of RoIPool, and the bin of the chosen output."""
    x1, y1, x2, y2 = trace.box
    bins = {
        name: [_near(edges) for edges in zip(axis.first, axis.stop, strict=True)]
        for name, axis in (("y", trace.rows), ("x", trace.columns))
    }
    cells = trace.cells(py, px)
    return {
        "box": _near((x1, y1, x2 + 1, y2 + 1)),
        "bins": bins,
        "maxima": [[*divmod(int(index), trace.features.shape[2])] for index in trace.argmax.ravel() if index >= 0],
        "detail": {
            "text": _about_maximum(py, px, cells),
            "cells": [[cell.row, cell.column] for cell in cells],
            "samples": [],
            "left_out": 0,
        },
    }


def _about_maximum(py, px, cells):
    """Return how an output of RoIPool came about."""
    output = f"Output ({py}, {px})"
    if not cells:
        return f"{output} is 0: its bin has no cell on the map. It passes no gradient on."
    rows, columns = ([cell[axis] for cell in cells] for axis in (0, 1))
    among = f"{len(cells)} cell{'s' if len(cells) > 1 else ''} ({_span('row', rows)}, {_span('column', columns)})"
    best = [cell for cell in cells if cell.weight]
    if not best:
        return f"{output}: none of its {among} holds a number to compare. It passes no gradient on."
    place = f"row {best[0].row}, column {best[0].column}"
    return f"{output} is {best[0].value:.6g}: the largest of {among}, at {place}. Its gradient goes to that cell alone."


def _span(noun, numbers):
    low, high = min(numbers), max(numbers)
    return f"{noun} {low}" if low == high else f"{noun}s {low} to {high}"


def _aligned(trace, py, px):
    """Return bins and samples of RoIAlign, and those of the chosen output."""
    bins = {
        name: [_near(pair + 0.5) for pair in np.stack([axis.edges[:-1], axis.edges[1:]], axis=1)]
        for name, axis in (("y", trace.rows), ("x", trace.columns))
    }
    down, across = (np.count_nonzero(axis.times, axis=1) for axis in (trace.rows, trace.columns))
    mine = int(down[py] * across[px])
    drawn = "all" if down.sum() * across.sum() <= _MOST_DRAWN else "one" if mine <= _MOST_DRAWN else "none"

    def places(axis, chosen):
        """Return the samples of each bin along an axis, as far as they are drawn."""
        bins = range(len(axis.times))
        return [_places(axis, p) if drawn == "all" or (drawn == "one" and p == chosen) else [] for p in bins]

    listed = trace.samples(py, px) if mine <= _MOST_DRAWN else []
    cells = np.argwhere(trace.weights(py, px)).tolist()
    return {
        "box": _near(np.array(trace.box) + 0.5),
        "bins": bins,
        "samples": {"y": places(trace.rows, py), "x": places(trace.columns, px)},
        "detail": {
            "text": _about_mean(trace, py, px, cells, drawn),
            "cells": cells,
            "samples": [
                plain([sample.y, sample.x, sample.value]) + [[plain(cell[2:]) for cell in sample.cells]]
                for sample in listed[:_MOST_LISTED]
            ],
            "left_out": max(mine - _MOST_LISTED, 0),
        },
    }


def _about_mean(trace, py, px, cells, drawn):
    """Return how an output of RoIAlign came about."""
    down, across = trace.samples_per_bin()
    rows, columns = (int(axis.times[p, axis.on_map[p]].sum()) for axis, p in ((trace.rows, py), (trace.columns, px)))
    off = down * across - rows * columns
    text = f"Output ({py}, {px}) is {trace.output[0, py, px]:.6g}: the mean of {down} x {across} samples"
    if off:
        text += f", of which {off} off the map count as 0"
    also = {"all": "", "one": " Too many samples to draw: those of this output alone.", "none": " Too many to draw."}
    return (
        f"{text}. Its gradient goes to {len(cells)} cell{'' if len(cells) == 1 else 's'}, by their weights."
        f"{also[drawn]}"
    )


def _places(axis, p):
    """Return where an axis's samples of a bin lie, and whether they count."""
    listed = axis.listed(p)
    places = np.clip(axis.place[p, listed].astype(np.float64) + 0.5, -_FAR, _FAR)
    return [[place, counts] for place, counts in zip(places.tolist(), axis.on_map[p, listed].tolist(), strict=True)]


def _near(lengths):
    """Return lengths as numbers that a drawing can hold."""
    return [min(max(float(length), -_FAR), _FAR) for length in lengths if not math.isnan(length)]
