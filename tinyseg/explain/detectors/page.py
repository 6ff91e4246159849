"""A detector's run as one page of HTML with everything in it."""

import base64
from html import escape

from tinyseg.explain.detectors.figures import sentences
from tinyseg.explain.detectors.stages import RECALL_AT

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #55606e; --paper: #fbfaf7; --card: #fff; --line: #d9dee4;
  --accent: #00688b; --light: #e6f1f5; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --soft: #a7b0bb; --paper: #14181d; --card: #1d232a;
  --line: #333c46; --accent: #6cc3e0; --light: #1d3440; } }
* { box-sizing: border-box; }
html { scroll-padding-top: 4rem; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 17px/1.55 system-ui, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 1.5rem 1rem 5rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: .3rem 0 .5rem; }
h2 { font-size: 1.25rem; margin: 0 0 .3rem; }
p, li { max-width: 46rem; }
a { color: var(--accent); }
.soft { color: var(--soft); }
nav { position: sticky; top: 0; z-index: 1; display: flex; gap: .5rem; align-items: center; padding: .5rem 1rem;
  background: var(--card); border-bottom: 1px solid var(--line); }
nav button, nav select { font: inherit; color: inherit; background: var(--paper); border: 1px solid var(--line);
  border-radius: 7px; padding: .25rem .7rem; min-height: 2.4rem; }
nav select { flex: 0 1 22rem; min-width: 0; }
nav kbd { font: .85em ui-monospace, monospace; border: 1px solid var(--line); border-radius: 4px; padding: 0 .35em; }
nav .keys { margin-left: auto; white-space: nowrap; font-size: .85rem; color: var(--soft); }
@media (max-width: 760px) { nav .keys { display: none; } nav select { flex: 1; } body { font-size: 16px; }
  th, td { padding: .2rem .35rem; }
  th:last-child, td:last-child { display: none; } }  /* these sentences stand with the stages */
section { margin: 2.4rem 0; padding-top: .4rem; border-top: 1px solid var(--line); }
section:first-child { margin-top: 0; border: 0; padding: 0; }
section:first-child h2 { margin-top: 1.6rem; }
section p { margin: .2rem 0 .6rem; }
section:focus { outline: none; }
section:focus h2 { text-decoration: underline .12em var(--accent); text-underline-offset: .25em; }
figure { margin: .6rem 0 0; background: #fff; border: 1px solid var(--line); border-radius: 10px; padding: .4rem;
  overflow-x: auto; }
figure img { display: block; width: 100%; min-width: 34rem; height: auto; }
section:first-child img { min-width: 62rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .22rem .7rem; border-bottom: 1px solid var(--line); vertical-align: top; }
.n { text-align: right; } thead th { border-bottom: 2px solid var(--line); font-weight: 600; white-space: nowrap; }
tbody tr:hover { background: var(--light); }
"""

_SCRIPT = """
const parts = [...document.querySelectorAll("section")], menu = document.querySelector("select");
const here = () => Math.max(0, parts.findLastIndex(part => part.getBoundingClientRect().top < 90));
const go = n => { const part = parts[Math.min(Math.max(n, 0), parts.length - 1)];
  part.scrollIntoView(); part.focus({preventScroll: true}); menu.value = part.id; };
const step = by => go(here() + by);
document.querySelector("#back").onclick = () => step(-1);
document.querySelector("#on").onclick = () => step(1);
menu.onchange = () => go(parts.findIndex(part => part.id === menu.value));
addEventListener("scroll", () => { menu.value = parts[here()].id; }, {passive: true});
addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target === menu) return;
  const by = {ArrowRight: 1, j: 1, ArrowLeft: -1, k: -1}[event.key];
  if (by) { event.preventDefault(); step(by); }
  if (event.key === "Home") { event.preventDefault(); go(0); }
  if (event.key === "End") { event.preventDefault(); go(parts.length - 1); }
});
"""


def make_page(xray, sheet, drawings):
    """Return a page with all stages of a run, in order.

    Parameters
    ----------
    xray : DetectorXRay
        The run.
    sheet : bytes
        A PNG file of all stages, small.
    drawings : list of bytes
        A PNG file of each stage.

    Returns
    -------
    str
        HTML that needs no other file.
    """
    kind, channels = type(xray.model).__name__, len(xray.picture)
    height, width = xray.picture.shape[1:]
    pairs = zip(xray.stages, drawings, strict=True)
    sections = "\n".join(_section(number, stage, drawing) for number, (stage, drawing) in enumerate(pairs, 1))
    options = "".join(
        f'<option value="{stage.name}">{number}. {stage.name}</option>' for number, stage in enumerate(xray.stages, 1)
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{kind}: one picture, stage by stage</title>
<style>{_STYLE}</style>
</head>
<body>
<nav aria-label="stages"><button id="back" aria-label="stage before">&larr;</button>
<select aria-label="stage"><option value="overview">overview</option>{options}</select>
<button id="on" aria-label="next stage">&rarr;</button>
<span class="keys"><kbd>&larr;</kbd> <kbd>&rarr;</kbd> or <kbd>k</kbd> <kbd>j</kbd> go from stage to stage</span></nav>
<main>
<section id="overview" tabindex="-1"><h1>{kind}: one picture, stage by stage</h1>
<p>All that the network made of a picture of {height}x{width} pixels with {channels} channels, in the order in which it
happened. The numbers are those of this one run, none computed again.</p>
{_figure(sheet, "all stages, small, and how many boxes and objects are left after each")}
{_objects(xray)}
{_table(xray)}
</section>
{sections}
</main>
<script>{_SCRIPT}</script>
</body>
</html>
"""


def _section(number, stage, drawing):
    """Return one stage."""
    figure = _figure(drawing, f"{stage.title}: {stage}")
    return f"""<section id="{stage.name}" tabindex="-1"><h2>{number}. {escape(stage.title)} · {stage.count} {stage.unit}
<span class="soft">({stage.name})</span></h2><p>{escape(sentences(stage))}</p>{figure}</section>"""


def _figure(drawing, alt):
    """Return an image element that holds the picture itself."""
    data = base64.b64encode(drawing).decode()
    return f'<figure><img alt="{escape(alt)}" src="data:image/png;base64,{data}"></figure>'


def _objects(xray):
    """Return what became of every true object."""
    if xray.truth is None:
        return ""
    lines = [
        f'<li><a href="#{lost.stage}">{escape(xray.class_name(int(label)))} {lost.number}</a>: '
        f"{escape(lost.text)}.</li>"
        for lost, label in zip(xray.objects(), xray.truth["labels"], strict=True)
    ]
    return f"<h2>What became of the true objects</h2><ul>{''.join(lines) or '<li>There are none.</li>'}</ul>"


def _table(xray):
    """Return the stages as a table."""
    heads = "".join(f'<th class="n" scope="col">IoU {at:g}</th>' for at in RECALL_AT if _has_recall(xray))
    rows = []
    for stage in xray.stages:
        recall = "".join(f'<td class="n">{_percent(stage, at)}</td>' for at in RECALL_AT if _has_recall(xray))
        rows.append(f'<tr><th scope="row"><a href="#{stage.name}">{stage.name}</a></th><td class="n">{stage.count}</td>'
                    f"<td>{stage.unit}</td>{recall}<td>{escape(stage.text)}</td></tr>")  # fmt: skip
    note = (
        "<p class='soft'>IoU 0.5, 0.75: the share of true objects that some box overlaps by so much or more "
        "(intersection over union); from class_boxes on, a box of the object's class.</p>"
    )
    return f"""<h2>Stages</h2>{note if _has_recall(xray) else ""}<div class="scroll"><table><thead><tr>
<th scope="col">stage</th><th class="n" scope="col">count</th><th></th>{heads}<th scope="col">what it does</th>
</tr></thead>
<tbody>{"".join(rows)}</tbody></table></div>"""


def _has_recall(xray):
    return any(stage.recall for stage in xray.stages)


def _percent(stage, at):
    return f"{stage.recall[at]:.0%}" if stage.recall else ""
