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
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(300px, 1fr)); gap: 1rem; max-width: 940px; }
.paper { background: #fff; border: 1px solid var(--line); border-radius: 12px; padding: .5rem; }
.paper figcaption { color: #55606e; padding: 0 .4rem .3rem; }
.slide { max-width: 760px; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: .8rem; }
.wide { grid-template-columns: repeat(auto-fit, minmax(230px, 1fr)); }
figure { margin: 0; }
figure img, .curve img, .slide img { display: block; width: 100%; height: auto; border-radius: 6px; }
figcaption { font-size: .85rem; color: var(--soft); margin-top: .3rem; }
.curve { background: #fff; border: 1px solid var(--line); border-radius: 12px; padding: .5rem; }
.legend { display: flex; flex-wrap: wrap; gap: .3rem 1.4rem; padding: 0; margin: .6rem 0; list-style: none; }
.legend i { display: inline-block; width: .9em; height: .9em; border-radius: 3px; margin-right: .45em;
  vertical-align: -.08em; }
dt { font-weight: 600; margin-top: .5rem; } dd { margin: 0; max-width: 46rem; }
"""

#: Kinds of drawings of cells in the order shown, with the words below them and for those who cannot see them.
_CELLS = {
    "picture": ("picture", "the picture: what the network is given"),
    "truth": ("truth", "the cells as they were drawn, in colour over the picture"),
    "probability": ("probability", "the probability of a cell at each pixel: dark blue is none, yellow is certain"),
    "mask": ("mask", "the cells that the network found, in colour over the picture"),
    "errors": ("errors", "where the network was right and wrong, in three colours over the picture"),
}
#: The same of shapes.
_SHAPES = {
    "picture": ("picture", "the picture: what the network is given"),
    "truth": ("truth", "the objects as they were drawn, each in its colour, with box and class"),
    "objects": ("what the network found", "the objects that the network found, with box, class, score and mask"),
}


def page(cells, shapes, rois):
    """Return the page.

    Parameters
    ----------
    cells : dict
        Of the U-Net: ``shown``, a list of dicts with ``scores`` as in
        `tinyseg.evaluation.SegmentationScores.pictures` and ``drawings``, PNG files as bytes; ``summary``, the scores
        of all pictures; ``history`` of the training; and ``settings``, as `tinyseg.cli.demo_cells` describes them.
    shapes : dict
        Of the Mask R-CNN: the same as `tinyseg.cli.demo_shapes` describes it; ``summary`` may be None.
    rois : dict of bytes
        PNG files ``pool``, ``align`` and ``slide``.

    Returns
    -------
    str
        HTML that needs no other file.
    """
    seconds = cells["history"].seconds + shapes["history"].seconds
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>tinyseg demo: two small networks learn to see</title>
<style>{_STYLE}</style>
</head>
<body><main>
<h1>Two small networks have learned to see</h1>
<p>{_minutes(seconds)} ago both networks knew nothing: their numbers were random. They were shown made-up pictures
together with the right answer, and after each few pictures every number was moved a little in the direction that makes
the answer better. Here is what they say of pictures that they have <em>never seen</em>.</p>
<ul>
<li>A <b>U-Net</b> says for every pixel whether it belongs to a cell.</li>
<li>A <b>Mask R-CNN</b> finds objects: what each one is, its box, and its mask, the pixels that belong to it.</li>
<li><b>RoIPool</b> and <b>RoIAlign</b> are two ways for such a network to look into a box. The last part shows, with
numbers, how they differ.</li>
</ul>
{_cells_part(**cells)}
{_shapes_part(**shapes)}
{_rois_part(rois)}
<h2>Go on</h2>
<p>The folder of this page holds these pictures as files, and what was learned. Run it on a picture again, or train on
pictures of your own:</p>
<pre>tinyseg predict --weights unet.safetensors pictures/cells_1_picture.png
tinyseg predict --weights maskrcnn.safetensors pictures/shapes_1_picture.png
tinyseg train unet --data FOLDER --out runs/first
tinyseg train maskrcnn --data FOLDER --out runs/second</pre>
<p class="soft">Computed by tinyseg: hand-written kernels in Numba, no other deep-learning library. U-Net: four
resolutions, {cells["settings"]["parameters"]:,} numbers, {cells["history"].step} steps of
{cells["settings"]["batch_size"]} crops of {cells["settings"]["crop"]} x {cells["settings"]["crop"]} pixels. Mask R-CNN:
a narrow ResNet-18 with a feature pyramid, {shapes["settings"]["parameters"]:,} numbers, {shapes["history"].step} steps
of {shapes["settings"]["batch_size"]} pictures of {shapes["settings"]["picture_size"]} x
{shapes["settings"]["picture_size"]} pixels.</p>
</main></body>
</html>
"""


def _minutes(seconds):
    """Return a time in words, to begin a sentence with."""
    if seconds < 90:
        return "A minute"
    words = ("Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten")
    minutes = round(seconds / 60)
    return f"{words[minutes - 2] if minutes <= 10 else minutes} minutes"


# ---- the U-Net -----------------------------------------------------------------------------------------------------


def _cells_part(shown, summary, history, settings):
    """Return the part on the U-Net."""
    mean, last = summary["mean"], history.rows[-1]
    numbers = _numbers(
        (f"{mean['dice']:.3f}", f"mean Dice on {len(shown)} new pictures"),
        (f"{mean['iou']:.3f}", "mean IoU"),
        (f"{mean['pixel_error']:.1%}", "of the pixels wrong"),
        (f"{history.seconds:.0f} s", f"for {history.step} training steps, on this computer's processor"),
    )
    rows = "\n".join(
        _row(
            f"Picture {number}: Dice {item['scores']['dice']:.3f}, IoU {item['scores']['iou']:.3f}, "
            f"{item['scores']['pixel_error']:.1%} wrong",
            number,
            item["drawings"],
            _CELLS,
        )
        for number, item in enumerate(shown, 1)
    )
    return f"""<h2>U-Net: which pixels are cell?</h2>
<p>Each row is one picture, the best result first. The network gives every pixel a <b>probability</b> of belonging to a
cell; where that is at least one half, the pixel goes into the <b>mask</b>. <b>Errors</b> compares the mask with the
truth:</p>
{_legend()}
{numbers}
{rows}
<ul>
<li>Look for errors along the cells' edges, where blur and noise leave it open to which side a pixel belongs, and at
pale cells. The probability there is often neither near 0 nor near 1: the network knows that it does not know.</li>
<li>Cells that touch become one region. This network says <em>cell or not</em> for each pixel, not which cell. The next
one does.</li>
</ul>
<div class="curve">{_curve(history, "loss and scores of the U-Net during training")}</div>
<p>Left: the loss (cross entropy), step by step and smoothed: how surprised the network was by the right answer. Right:
its scores on other pictures, after every {last["step"] // len(history.rows)} steps or so.</p>
<dl>
<dt>Dice</dt><dd>Twice the area that mask and truth share, divided by the sum of their areas. 1 is perfect.</dd>
<dt>IoU, intersection over union</dt><dd>The area that they share, divided by the area that either covers. Never above
Dice, but the order is the same.</dd>
<dt>Pixel error</dt><dd>The share of all pixels that are on the wrong side. 0 is perfect; kind to small objects that are
missed altogether.</dd>
</dl>"""


def _legend():
    """Return the colours of the errors with the words for them."""
    from tinyseg.draw import ERROR_COLOURS

    items = "".join(
        f"<li><i style='background:rgb({r},{g},{b})'></i>{escape(name)}</li>"
        for name, (r, g, b) in ERROR_COLOURS.items()
    )
    return f"<ul class='legend'>{items}</ul>"


# ---- the Mask R-CNN ------------------------------------------------------------------------------------------------


def _shapes_part(shown, summary, history, settings):
    """Return the part on the Mask R-CNN."""
    if summary is None:
        scores = "<p>Average precision, the usual score, is computed by pycocotools: <code>pip install "
        scores += "'tinyseg[coco]'</code>, and run the demo again.</p>"
        numbers = [(str(sum(item["found"] for item in shown)), f"of {sum(item['objects'] for item in shown)} found")]
    else:
        scores = f"""<dl><dt>AP50, average precision at an IoU of one half</dt><dd>Go through the detections of all
{summary["pictures"]} pictures from the surest to the least sure. Each is right if it overlaps an object of its class,
not found before, with an IoU of at least one half. <em>Precision</em> is the share that is right so far,
<em>recall</em> the share of all objects found so far; AP50 is the precision, averaged over recall from 0 to 1, then
over the classes. 1 is perfect. Boxes and masks are judged separately.</dd></dl>"""
        numbers = [
            (_score(summary["mask"]["AP50"]), f"AP50 of masks on {summary['pictures']} new pictures"),
            (_score(summary["box"]["AP50"]), "AP50 of boxes"),
        ]
    numbers.append((f"{history.seconds:.0f} s", f"for {history.step} training steps"))
    rows = "\n".join(
        _row(f"Picture {number}: {_found(item)}", number, item["drawings"], _SHAPES, "wide")
        for number, item in enumerate(shown, 1)
    )
    return f"""<h2>Mask R-CNN: which objects are there?</h2>
<p>The pictures hold discs, rectangles and triangles of random colours and textures; some hide parts of others. The
network works in two stages. First it proposes <b>boxes</b> that may hold an object. Then it looks into each box, and
says which class is in it, how sure it is (the <b>score</b>, from 0 to 1), where exactly the box should end, and which
pixels are the object's (its <b>mask</b>). Below are all objects with a score of one half or more, each in the
colour of the true one in its place. An object counts as found if the class is right and the masks overlap with an IoU
(see above) of at least one half. It may be seen twice, as two classes: then one of them is wrong.</p>
{_numbers(*numbers)}
{rows}
<div class="curve">{_curve(history, "loss of the Mask R-CNN during training, and its parts")}</div>
<p>The loss is a sum. Two parts belong to the first stage: is there an <em>object</em>, and where exactly is the
<em>proposal</em>. Three belong to the second: <em>class</em>, <em>box</em> and <em>mask</em>.</p>
{scores}"""


def _found(item):
    """Return in words what was found in a picture."""
    wrong = "nothing else" if item["extra"] == 0 else f"{item['extra']} wrong"
    return f"{item['found']} of {item['objects']} objects found, {wrong}"


def _score(value):
    """Return a score as text; one that there is not as a dash."""
    return "-" if value is None else f"{value:.3f}"


# ---- RoIPool and RoIAlign ------------------------------------------------------------------------------------------


def _rois_part(rois):
    """Return the part on the two operators."""
    from tinyseg.cli import demo_rois

    x1, y1, x2, y2 = demo_rois.BOX
    by_pool, by_align = map(demo_rois.trace, ("roi_pool", "roi_align"))
    first, last = int(by_pool.box[0]), int(by_pool.box[2]) + 1
    of_pool, of_align = (f"{made.output[0, 0, 0]:.4g}" for made in (by_pool, by_align))
    pool = _image(rois["pool"], "RoIPool: the box is rounded to whole cells, and each bin gives its largest number")
    align = _image(rois["align"], "RoIAlign: the box stays as it is, and each bin gives the mean of four points")
    slide = _image(rois["slide"], "RoIPool's number stays, then jumps by one, where RoIAlign's rises evenly")
    return f"""<h2>RoIPool and RoIAlign: how a network looks into a box</h2>
<p>Between its two stages a Mask R-CNN has a <b>feature map</b>: a grid of numbers, computed from the picture, in which
one <b>cell</b> stands for a square of 4, 8, 16 or more pixels. Every box, of whatever size, must become a small table
of the same size, here 2 x 2 <b>bins</b>, for the second stage to work on. A box is called a <b>region of interest</b>,
<b>RoI</b>. Its corners hardly ever lie on the borders of cells: this one, dashed, reaches from {x1} to {x2} across and
from {y1} to {y2} down, where the cell in the corner reaches from 0 to 1. The map holds 0, 1, 2, ... in reading order,
so that you can check the numbers by eye.</p>
<div class="two">
<figure class="paper">{pool}<figcaption><b>RoIPool</b> (2015) rounds the box to whole cells, here from {first} to {last}
in both directions, and takes the largest number of each bin, circled. The first is {of_pool}.</figcaption></figure>
<figure class="paper">{align}<figcaption><b>RoIAlign</b> (2017) leaves the box where it is, reads the map at regular
points, each by interpolating between the four nearest centres of cells, and takes the mean of each bin's points. The
first is {of_align}.</figcaption></figure>
</div>
<p>What the rounding costs shows when the box slides to the right, a little at a time:</p>
<figure class="paper slide">{slide}<figcaption>On this map, one cell to the right is 1 more. RoIAlign's number follows
the box exactly. RoIPool's does not move for a whole cell, then jumps: on a map whose cells are 16 pixels wide, it
cannot tell boxes apart that differ by several pixels.</figcaption></figure>
<p>For the class of an object that hardly matters. For a mask, whose edge shall be right to the pixel, it does: that is
why Mask R-CNN came with RoIAlign. The network above used it. All numbers here are what its kernels give.</p>"""


# ---- pieces --------------------------------------------------------------------------------------------------------


def _numbers(*cards):
    """Return (number, words) as large numbers."""
    return "<ul class='numbers'>" + "".join(f"<li><b>{n}</b>{escape(text)}</li>" for n, text in cards) + "</ul>"


def _row(head, number, drawings, kinds, grid=""):
    """Return one picture's drawings."""
    figures = "".join(
        f"<figure>{_image(drawings[kind], f'Picture {number}: {words}')}<figcaption>{title}</figcaption></figure>"
        for kind, (title, words) in kinds.items()
    )
    return f"<section class='row'><h3>{escape(head)}</h3><div class='grid {grid}'>{figures}</div></section>"


def _curve(history, alt):
    """Return the curves of a training."""
    from tinyseg.training.curve import draw_curve
    from tinyseg.training.detection import PARTS

    parts = {PARTS.get(name, name): values for name, values in history.parts.items()}
    return _image(draw_curve(history.losses, history.rows, parts=parts or None), f"{alt}; the numbers are in the text")


def _image(png, alt):
    """Return an image element that holds the file itself."""
    return f'<img src="data:image/png;base64,{base64.b64encode(png).decode()}" alt="{escape(alt)}">'
