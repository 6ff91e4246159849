"""A page that shows `RoITrace` objects: the map, the output as buttons, and for each bin its samples and sums.

It stands alone, without network or other files. What a bin reads is written into it as numbers and text, so that the
script in it only shows and hides.
"""

import html
import json
import re

import numpy as np

from tinyseg.explain.rois.figure import CHOSEN, FILL, READ, bin_bounds, colour_range, draw, svg
from tinyseg.explain.rois.table import bin_lines, box_lines, number

_STYLE = f"""
:root {{ color-scheme: light; --chosen: {CHOSEN}; --fill: {FILL}; --read: {READ}; }}
* {{ box-sizing: border-box; }}
body {{ margin: 0 auto; padding: 1rem; max-width: 78rem; font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a;
  background: #fff; }}
h1 {{ font-size: 1.4rem; margin: 0 0 .3rem; }}
h2 {{ font-size: 1.15rem; margin: 0 0 .5rem; }}
main {{ display: grid; gap: 1.2rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); }}
section {{ border: 1px solid #ccc; border-radius: 6px; padding: .8rem; min-width: 0; }}
.parts {{ display: flex; flex-wrap: wrap; gap: 1rem; align-items: center; }}
.map {{ flex: 3 1 20rem; min-width: 0; margin: 0; max-width: 40rem; }}
.map svg {{ display: block; width: 100%; height: auto; }}
.output {{ flex: 1 1 10rem; min-width: 0; overflow-x: auto; }}
table {{ border-collapse: collapse; margin: 0 auto; }}
caption {{ font-size: .9rem; padding-bottom: .3rem; }}
td {{ padding: 2px; }}
td button {{ font: .85rem/1.2 ui-monospace, monospace; min-width: 2.8rem; min-height: 2.6rem; padding: .2rem .3rem;
  width: 100%; color: #000; border: 2px solid #fff; border-radius: 3px; cursor: pointer; }}
td button[aria-pressed="true"] {{ border-color: var(--chosen); box-shadow: 0 0 0 2px #000; }}
td button:focus-visible {{ outline: 3px solid #0072b2; outline-offset: 2px; }}
@media (max-width: 600px) {{ body {{ padding: .6rem; }} td {{ padding: 1px; }}
  td button {{ font-size: .68rem; min-width: 2.2rem; padding: .1rem; }} }}
pre {{ overflow-x: auto; background: #f5f5f5; padding: .6rem; margin: .6rem 0 0; font-size: .8rem; line-height: 1.4;
  border-radius: 4px; }}
.bin {{ border-left: 4px solid var(--chosen); min-height: 5rem; }}
.fill {{ fill: var(--fill); stroke: var(--chosen); stroke-width: 1.6; }}
.read {{ fill: none; stroke: var(--read); stroke-width: 1.8; }}
.weight {{ font: bold 7px sans-serif; text-anchor: end; paint-order: stroke; stroke: #fffc; stroke-width: 2px; }}
.point {{ fill: #000; stroke: var(--chosen); stroke-width: 1.6; }}
.off {{ fill: #fff; stroke: #555; stroke-width: 1.2; }}
"""

_SCRIPT = """
for (const section of document.querySelectorAll("section")) {
  const data = JSON.parse(section.querySelector("script").textContent);
  const picture = section.querySelector(".map svg"), text = section.querySelector(".bin");
  const buttons = [...section.querySelectorAll("td button")];
  const layer = document.createElementNS(picture.namespaceURI, "g");
  layer.setAttribute("pointer-events", "none");
  picture.append(layer);
  const [x0, y0, step] = data.place;
  const px = x => x0 + step * x, py = y => y0 + step * y;
  let kept = 0;
  function add(kind, type, attributes, content) {
    const element = document.createElementNS(picture.namespaceURI, type);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.setAttribute("class", kind);
    if (content) element.textContent = content;
    layer.append(element);
  }
  function rectangle(kind, [left, top, right, bottom]) {
    add(kind, "rect", {x: px(left), y: py(top), width: step * (right - left), height: step * (bottom - top)});
  }
  function show(n) {
    const bin = data.bins[n];
    layer.replaceChildren();
    if (bin.area) rectangle("fill", bin.area);
    for (const [row, column] of bin.cells) rectangle("read", [column, row, column + 1, row + 1]);
    for (const [x, y, on] of bin.points)
      add(on ? "point" : "off", "circle", {cx: px(x), cy: py(y), r: Math.max(2, Math.min(4, step / 9))});
    if (step >= 26)
      for (const [row, column, weight] of bin.cells)
        if (weight) add("weight", "text", {x: px(column + 0.94), y: py(row + 0.92)}, "\\u00d7" + weight);
    text.textContent = bin.text;
    buttons.forEach((button, i) => button.setAttribute("aria-pressed", i === n));
  }
  function keep(n) {
    kept = n;
    buttons.forEach((button, i) => { button.tabIndex = i === n ? 0 : -1; });
    show(n);
  }
  buttons.forEach((button, n) => {
    button.addEventListener("focus", () => keep(n));
    button.addEventListener("click", () => keep(n));
    button.addEventListener("mouseenter", () => show(n));
    button.addEventListener("mouseleave", () => show(kept));
    button.addEventListener("keydown", event => {
      const across = data.across, column = n % across;
      const to = {ArrowRight: column + 1 < across ? n + 1 : n, ArrowLeft: column ? n - 1 : n,
                  ArrowDown: n + across, ArrowUp: n - across, Home: 0, End: buttons.length - 1}[event.key];
      if (to === undefined) return;
      event.preventDefault();
      if (buttons[to]) buttons[to].focus();
    });
  });
  function under(event) {
    const box = picture.getBoundingClientRect(), scale = picture.viewBox.baseVal.width / box.width;
    const x = ((event.clientX - box.left) * scale - x0) / step, y = ((event.clientY - box.top) * scale - y0) / step;
    const near = bin => Math.min(...bin.points.map(p => Math.hypot(p[0] - x, p[1] - y)));
    if (data.bins.some(bin => bin.area))
      return data.bins.findIndex(({area: [left, top, right, bottom]}) =>
        x >= left && x <= right && y >= top && y <= bottom);
    return data.bins.findIndex(bin => near(bin) < 0.3);
  }
  picture.addEventListener("pointermove", event => { const n = under(event); show(n < 0 ? kept : n); });
  picture.addEventListener("pointerleave", () => show(kept));
  picture.addEventListener("click", event => { const n = under(event); if (n >= 0) keep(n); });
  keep(0);
}
"""

_HOW = (
    "Point at a bin, or move among the numbers with Tab and the arrow keys, to see what it is made of. "
    "Orange: the bin and its samples; purple: the cells that it reads, with their weights."
)


def page(traces, channel):
    """Return a page for traces of one box.

    Parameters
    ----------
    traces : list of RoITrace
        The traces.
    channel : int
        Whose values.

    Returns
    -------
    str
        HTML.
    """
    corners = ", ".join(number(corner, 4) for corner in traces[0].roi)
    title = f"Box ({corners}) in picture pixels" if len(traces) > 1 else f"{traces[0].title}: box ({corners})"
    parts = "\n".join(_section(trace, channel, f"r{n}-") for n, trace in enumerate(traces))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{html.escape(title)}</h1>
<p>{_HOW}</p>
<main>
{parts}
</main>
<script>{_SCRIPT}</script>
</body>
</html>
"""


def _section(trace, channel, prefix):
    """Return the part of the page on one trace; the ids in it begin with ``prefix``."""
    figure = draw([trace], channel, beside=True, output=False)
    picture = svg(figure, f"{trace.title}: the map, the box and its bins")
    picture = re.sub(r"""( id="|url\(#|href="#)""", rf"\1{prefix}", picture[picture.index("<svg") :])
    (down, across), table = trace.output_size, trace.table(channel)
    rows = "\n".join(
        f"<tr>{''.join(_button(trace, channel, py, px) for px in range(across))}</tr>" for py in range(down)
    )
    data = {
        "place": _place(figure),
        "across": across,
        "bins": [_bin(trace, channel, py, px) for py in range(down) for px in range(across)],
    }
    first = html.escape(data["bins"][0]["text"])
    which = f", channel {channel}" if len(trace.features) > 1 else ""
    return f"""<section aria-label="{html.escape(trace.title)}">
<h2>{html.escape(trace.title)}</h2>
<div class="parts">
<figure class="map">{picture}</figure>
<div class="output"><table><caption>output: a number a bin{which}</caption>
{rows}
</table></div>
</div>
<pre class="bin" tabindex="0" aria-live="polite">{first}</pre>
<pre tabindex="0">{html.escape(chr(10).join(box_lines(trace)))}</pre>
<details><summary>All of it as a table</summary><pre tabindex="0">{html.escape(table)}</pre></details>
<script type="application/json">{json.dumps(data, allow_nan=False).replace("<", chr(92) + "u003c")}</script>
</section>"""


def _button(trace, channel, py, px):
    """Return a cell of the output's table."""
    value = trace.output[channel, py, px]
    colours, low, high = colour_range(trace, channel)
    part = float(value - low) / (high - low) if np.isfinite(value) else np.nan
    red, green, blue = (round(255 * c) for c in colours(np.ma.masked_invalid(part))[:3])
    return (
        f'<td><button type="button" aria-pressed="false" style="background: rgb({red} {green} {blue})" '
        f'aria-label="bin row {py}, column {px}: {number(value)}">{number(value, 4)}</button></td>'
    )


def _place(figure):
    """Return where the first cell of the map begins in the SVG, left and top, and the side of a cell."""
    axes, scale = figure.axes[0], 72 / figure.dpi
    (left, top), (right, _) = axes.transData.transform([(0, 0), (1, 1)]) * scale
    return [round(number, 3) for number in (left, figure.get_size_inches()[1] * 72 - top, right - left)]


def _bin(trace, channel, py, px):
    """Return what the page shows of a bin."""
    bounds, weights = bin_bounds(trace, py, px), trace.weights(py, px, channel)
    area = None if bounds is None else [float(np.clip(bound, -1e4, 1e4)) for bound in bounds]
    pooled = trace.op == "roi_pool"
    cells = [[int(y), int(x), "" if pooled else number(weights[y, x], 2)] for y, x in np.argwhere(weights)]
    points = [] if pooled else [[s.x + 0.5, s.y + 0.5, s.on_map] for s in trace.samples(py, px, channel)]
    points = [point for point in points if max(map(abs, point[:2])) < 1e4]
    return {"area": area, "cells": cells, "points": points, "text": "\n".join(bin_lines(trace, py, px, channel))}
