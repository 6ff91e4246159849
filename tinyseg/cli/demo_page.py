"""The page of ``tinyseg demo``: one HTML file with everything in it."""

import base64
from html import escape

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #55606e; --paper: #fbfaf7; --card: #ffffff; --line: #dfe3e8;
  --accent: #00688b; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --soft: #a7b0bb; --paper: #14181d; --card: #1d232a;
  --line: #333c46; --accent: #6cc3e0; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 17px/1.6 system-ui, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 2rem 1.2rem 4rem; }
p, ul { max-width: 46rem; }
h1 { font-size: 2rem; line-height: 1.2; margin: 0 0 .6rem; }
h2 { font-size: 1.3rem; margin: 2.8rem 0 .6rem; }
code, pre { font: .9em/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .8rem 1rem;
  overflow-x: auto; }
.soft { color: var(--soft); }
.numbers { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .8rem; padding: 0;
  margin: 1.4rem 0; list-style: none; max-width: none; }
.numbers li { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: .8rem 1rem; }
.numbers b { display: block; font-size: 1.7rem; line-height: 1.2; color: var(--accent);
  font-variant-numeric: tabular-nums; }
.row { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 1rem; margin: 1rem 0; }
.row h3 { margin: 0 0 .7rem; font-size: 1rem; font-weight: 600; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: .8rem; }
figure { margin: 0; }
figure img, .curve img { display: block; width: 100%; height: auto; border-radius: 6px; }
figcaption { font-size: .85rem; color: var(--soft); margin-top: .3rem; }
.curve { background: #fff; border: 1px solid var(--line); border-radius: 12px; padding: .5rem; }
.legend { display: flex; flex-wrap: wrap; gap: .3rem 1.4rem; padding: 0; margin: .6rem 0; list-style: none; }
.legend i { display: inline-block; width: .9em; height: .9em; border-radius: 3px; margin-right: .45em;
  vertical-align: -.08em; }
dt { font-weight: 600; margin-top: .5rem; } dd { margin: 0; max-width: 46rem; }
"""

#: Kinds of drawings in the order shown, with the words below them and for those who cannot see them.
_KINDS = {
    "picture": ("picture", "the picture: what the network is given"),
    "truth": ("truth", "the cells as they were drawn, in colour over the picture"),
    "probability": ("probability", "the probability of a cell at each pixel: dark blue is none, yellow is certain"),
    "mask": ("mask", "the cells that the network found, in colour over the picture"),
    "errors": ("errors", "where the network was right and wrong, in three colours over the picture"),
}


def page(shown, summary, history, settings):
    """Return the page.

    Parameters
    ----------
    shown : list of dict
        One per picture: ``scores`` as in `tinyseg.evaluation.SegmentationScores.pictures`, and ``drawings``: PNG files
        as bytes, under ``picture``, ``truth``, ``probability``, ``mask`` and ``errors``.
    summary : dict
        The scores of all pictures.
    history : tinyseg.training.History
        Of the training.
    settings : dict
        ``parameters``, ``pictures``, ``picture_size``, ``batch_size``, ``crop`` and ``learning_rate``.

    Returns
    -------
    str
        HTML that needs no other file.
    """
    from tinyseg.training.curve import draw_curve

    rows = "\n".join(_row(number, item) for number, item in enumerate(shown, 1))
    curve = _image(
        draw_curve(history.losses, history.rows), "loss and scores during training; the numbers are in the text"
    )
    last = history.rows[-1]
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>tinyseg demo: a U-Net finds cells</title>
<style>{_STYLE}</style>
</head>
<body><main>
<h1>A small network has learned to find cells</h1>
<p>A minute ago this U-Net knew nothing: its {settings["parameters"]:,} numbers were random. It was then shown crops of
{settings["pictures"]} made-up microscope pictures together with the right answer, {history.step} times
{settings["batch_size"]} of them, and after each time every number was moved a little in the direction that makes the
answer better. Below are {len(shown)} pictures that it has <em>never seen</em>.</p>
{_numbers(summary, history)}
<h2>What it sees, and what it says</h2>
<p>Each row is one picture, the best result first. The network gives every pixel a <b>probability</b> of belonging to a
cell; where that is at least one half, the pixel goes into the <b>mask</b>. <b>Errors</b> compares the mask with the
truth:</p>
{_legend()}
{rows}
<h2>What to look at</h2>
<ul>
<li>Look for errors along the cells' edges, where blur and noise leave it open to which side a pixel belongs, and at
pale cells. The probability there is often neither near 0 nor near 1: the network knows that it does not know.</li>
<li>Noise and uneven light, which would trouble a fixed threshold on brightness, matter little: the network looks at a
pixel's surroundings, not at the pixel alone.</li>
<li>Cells that touch become one region. This network says <em>cell or not</em> for each pixel, not which cell.</li>
</ul>
<h2>How it learned</h2>
<div class="curve">{curve}</div>
<p>Left: the loss (cross entropy), step by step and smoothed: how surprised the network was by the right answer. Right:
its scores on other pictures, after every {last["step"] // len(history.rows)} steps or so. The learning rate rises to
{settings["learning_rate"]:g} and falls to almost nothing, which is why the curves settle at the end.</p>
<h2>The scores</h2>
<dl>
<dt>Dice</dt><dd>Twice the area that mask and truth share, divided by the sum of their areas. 1 is perfect.</dd>
<dt>IoU, intersection over union</dt><dd>The area that they share, divided by the area that either covers. Always below
Dice, but the order is the same.</dd>
<dt>Pixel error</dt><dd>The share of all pixels that are on the wrong side. 0 is perfect; kind to small objects that are
missed altogether.</dd>
</dl>
<h2>Go on</h2>
<p>The folder of this page holds these pictures as files, and what was learned in <code>weights.safetensors</code>. Run
it on a picture again, or train on pictures of your own:</p>
<pre>tinyseg predict --weights weights.safetensors pictures/1_picture.png
tinyseg train unet --data FOLDER --out runs/first</pre>
<p class="soft">Computed by tinyseg: a U-Net of four resolutions, hand-written convolutions in Numba, no other
deep-learning library. Crops of {settings["crop"]} x {settings["crop"]} pixels from pictures of
{settings["picture_size"]} x {settings["picture_size"]}; Adam, one-cycle learning rate.</p>
</main></body>
</html>
"""


def _numbers(summary, history):
    """Return the scores and the time as large numbers."""
    mean = summary["mean"]
    cards = [
        (f"{mean['dice']:.3f}", f"mean Dice on {len(summary['pictures'])} new pictures"),
        (f"{mean['iou']:.3f}", "mean IoU"),
        (f"{mean['pixel_error']:.1%}", "of the pixels wrong"),
        (f"{history.seconds:.0f} s", f"for {history.step} training steps, on this computer's processor"),
    ]
    return "<ul class='numbers'>" + "".join(f"<li><b>{n}</b>{escape(text)}</li>" for n, text in cards) + "</ul>"


def _legend():
    """Return the colours of the errors with the words for them."""
    from tinyseg.draw import ERROR_COLOURS

    items = "".join(
        f"<li><i style='background:rgb({r},{g},{b})'></i>{escape(name)}</li>"
        for name, (r, g, b) in ERROR_COLOURS.items()
    )
    return f"<ul class='legend'>{items}</ul>"


def _row(number, item):
    """Return one picture's drawings."""
    figures = "".join(
        f"<figure>{_image(item['drawings'][kind], f'Picture {number}: {words}')}"
        f"<figcaption>{title}</figcaption></figure>"
        for kind, (title, words) in _KINDS.items()
    )
    scores = item["scores"]
    head = f"Picture {number}: Dice {scores['dice']:.3f}, IoU {scores['iou']:.3f}, {scores['pixel_error']:.1%} wrong"
    return f"<section class='row'><h3>{head}</h3><div class='grid'>{figures}</div></section>"


def _image(png, alt):
    """Return an image element that holds the file itself."""
    return f'<img src="data:image/png;base64,{base64.b64encode(png).decode()}" alt="{escape(alt)}">'
