# %% [markdown]
# # Anchors, region proposals, suppression
# A detector has to answer with boxes, as many as there are objects, of any size, anywhere. A network of convolutions
# gives maps of a fixed size. This notebook shows how the first stage of Faster R-CNN gets from one to the other:
# thousands of boxes at fixed places, two questions to each, and a few rules that leave the best. (A second stage then
# looks into each of these boxes: notebooks 6 and 7.)
#
# **You will be able to**
# - lay out anchors by hand, and count them;
# - turn a box into four offsets and back, and say what they are relative to;
# - say which anchors a network learns from, and what each of its two losses is about;
# - follow a box through all the rules between the network and the proposals, and suppress doubles by hand;
# - measure at which of these steps objects are lost;
# - explain why no gradient flows through a proposal.
#
# It takes about 60 minutes, and one of computing. You should have read [notebook 1](01_segmentation.ipynb), on objects
# and IoU, and [notebook 4](04_unet.ipynb), on training.

# %%
# %matplotlib inline
import math

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

import tinyseg
from tinyseg import boxes as box_tools
from tinyseg import draw, explain, ops
from tinyseg.colours import OKABE_ITO
from tinyseg.data import SyntheticShapes
from tinyseg.data.normalise import normalise

rng = tinyseg.manual_seed(0)

# %% [markdown]
# ## Boxes
# A box is a row of four numbers, `(x1, y1, x2, y2)`, in pixels: first x, then y, although an array of a picture is
# indexed by row first, `picture[:, y, x]`. Pixel 0 reaches from coordinate 0 to 1, pixel 5 from 5 to 6. So a box around
# the columns 2 to 5 has `x1 = 2` and `x2 = 6`, and its width is `x2 - x1`, with nothing added. (Code from 2015 often
# adds 1, as there `x2` was the last pixel itself. Mixing the two shifts everything by up to a pixel.)
#
# How well do two boxes agree? By *intersection over union*, IoU, the measure of notebook 1: the area that they share,
# divided by the area that either covers. 1 is the same box, 0 is no overlap.

# %% [markdown]
# **Predict.** Box a is (10, 10, 30, 30), box b is a, moved by 5 to the right and by 4 down. What is their IoU?

# %%
a = np.array([[10.0, 10, 30, 30]])
b = a + [5, 4, 5, 4]
shared = (30 - 15) * (30 - 14)
either = 20 * 20 + 20 * 20 - shared
print(f"{shared} shared, {either} covered by either: {shared / either:.3f}")

assert (2, 5 + 1, 6 - 2) == (2, 6, 4)  # the box around columns 2 to 5
assert shared == 240 and either == 560
assert abs(ops.box_iou(a, b)[0, 0] - 240 / 560) < 1e-12 and round(240 / 560, 2) == 0.43
assert ops.box_iou(a, a)[0, 0] == 1 and ops.box_iou(a, a + 100)[0, 0] == 0
assert [5 / 20, 4 / 20] == [0.25, 0.2]

# %% [markdown]
# Only 0.43. Moving a box by a quarter of its width and a fifth of its height costs more than half of the IoU, as the
# shared area shrinks while the union grows. When a detector is said to have found an object "at IoU 0.5", its box was a
# better one than this.

# %%
assert 0.43 < 0.5

# %% [markdown]
# ## Anchors
# Here are pictures to work with: discs, rectangles and triangles in front of a textured background, 96 pixels high and
# 128 wide.

# %%
made = SyntheticShapes(232, (96, 128), seed=0, count=(2, 4), radius=(10, 28))
samples = [made[i] for i in range(len(made))]
train, held_out = samples[:200], samples[200:]
sample = held_out[0]
height, width = sample.picture.shape[1:]
assert (height, width) == (96, 128)
print("boxes of the objects:", sample.boxes.tolist(), sep="\n")

# %% [markdown]
# A network turns a picture into feature maps with many channels and with fewer *cells*, as the places of a map are
# called, than the picture has pixels. Their numbers describe what is there. The part that makes them is called the
# *backbone*. The number of pixels from one cell to the next is the map's *stride*.
#
# An *anchor* is a box at a fixed place. Around each cell of a map stand a few of them, of fixed sizes and shapes. The
# network will not have to invent boxes; it will say of each anchor whether an object is there, and how the anchor
# should be moved to fit it.
#
# The shapes are given by two lists. `sizes` are the sides of squares, in pixels; `aspect_ratios` are height divided by
# width. An anchor of another ratio keeps the area of the square: with size $s$ and ratio $r$,
#
# $$h = s \sqrt{r}, \qquad w = s / \sqrt{r}.$$
#
# The box is centred on 0, so its corners are $\pm w / 2$ and $\pm h / 2$, and they are rounded to whole pixels.

# %% [markdown]
# **Predict.** Sizes 16 and 32, ratios 0.5, 1 and 2. How many anchors does a cell have, and in which order do they come?
# What is the box of size 32 and ratio 0.5?

# %%
cell = box_tools.cell_anchors(sizes=(16, 32), aspect_ratios=(0.5, 1, 2))
for box in cell:
    print(f"{box}  {box[2] - box[0]:.0f} wide, {box[3] - box[1]:.0f} high")

assert len(cell) == 6
assert cell[1].tolist() == [-23, -11, 23, 11]
assert abs(32 / math.sqrt(0.5) / 2 - 22.63) < 0.01 and abs(32 * math.sqrt(0.5) / 2 - 11.31) < 0.01
assert cell[0, 2] - cell[0, 0] < cell[1, 2] - cell[1, 0]  # sizes 16 and 32 of the first ratio
assert 46 * 22 == 1012 and 32 * 32 == 1024

# %% [markdown]
# All sizes of the first ratio come first, then all sizes of the next. The order matters: the network's channels are
# counted in the same one, and weights trained with another order give nonsense without any error. Size 32 with ratio
# 0.5 has half sides of 22.63 and 11.31, rounded 23 and 11: an area of 1012 instead of 1024. (A half is rounded to the
# even neighbour, so a square of size 5, with half sides of 2.5, becomes 4 wide.)

# %%
assert box_tools.cell_anchors((5,), (1,)).tolist() == [[-2, -2, 2, 2]]
assert 5 / 2 == 2.5 and 2 + 2 == 4

# %% [markdown]
# These boxes are then laid around every cell. Cell (row, column) gets them at `(column * stride, row * stride)`, and
# the stride is the picture's size divided by the map's, *rounded down*, for each axis by itself.

# %% [markdown]
# **Predict.** A picture of 90 by 128 pixels has a map of 12 by 16 cells. What are the two strides, and how far from the
# lower border is the last row of anchor centres?

# %%
grid = box_tools.grid_anchors(cell, (12, 16), (90, 128))
centres = (grid[:, :2] + grid[:, 2:]) / 2
assert (128 // 16, 90 // 12) == (8, 7) and 90 / 12 == 7.5
assert centres[:, 1].max() == 77 == 7 * 11 and 90 - 77 == 13
assert (centres[0] == 0).all()  # the first cell's anchors lie around the corner of the picture
assert grid[6, 0] - grid[0, 0] == 8 and grid[6, 1] == grid[0, 1]  # row by row, cell by cell, 6 anchors each

# %% [markdown]
# 8 along x, but 7 along y instead of 7.5: the last row of centres lies 13 pixels above the border, where half a cell
# would be about 4. Our detectors avoid it: they add zeros at the right and below until height and width are multiples
# of 32, so that every division leaves nothing over. Note the other convention in here: the first anchor is centred on
# (0, 0), the corner of the first cell and not its middle. The network learns to make up for it, since the shift is the
# same everywhere.

# %%
assert round(7.5 / 2) == 4 and 96 % 32 == 0 and 128 % 32 == 0

# %% tags=["hide-input"]
COLOUR = {name: tuple(part / 255 for part in rgb) for name, rgb in OKABE_ITO.items()}


def outline(axes, boxes, **look):
    """Draw boxes."""
    for x1, y1, x2, y2 in boxes:
        axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, **{"fill": False, "linewidth": 1.6, **look}))


def canvas(sample, title, margin):
    """Return a figure whose axes show the picture, pale."""
    figure = Figure(figsize=(6.4, 4.9), layout="constrained")
    figure.suptitle(title, fontsize=11)
    rgb = draw.to_rgb(sample.picture).astype(float)
    h, w = rgb.shape[:2]
    axes = figure.subplots()
    axes.imshow((0.45 * rgb + 0.55 * 255).astype(np.uint8), extent=(0, w, h, 0))
    axes.set(xlim=(-margin, w + margin), ylim=(h + margin, -margin), xlabel="x in pixels", ylabel="y in pixels")
    return figure


grid = box_tools.grid_anchors(cell, (6, 8), (height, width))  # a map of stride 16
middle = 6 * (3 * 8 + 4)  # row 3, column 4
figure = canvas(sample, "A map of 6 x 8 cells, stride 16: six anchors stand around each dot", margin=4)
axes = figure.axes[0]
points = (grid[::6, :2] + grid[::6, 2:]) / 2
axes.plot(*points.T, ".", color="black", markersize=5)
for place, (ratio, name) in enumerate(((0.5, "blue"), (1, "orange"), (2, "bluish green"))):
    outline(axes, grid[middle + 2 * place : middle + 2 * place + 2], color=COLOUR[name])
    axes.plot([], [], color=COLOUR[name], label=f"ratio {ratio}, sizes 16 and 32")
outline(axes, sample.boxes, color="black", linestyle=(0, (3, 2)))
axes.plot([], [], "--", color="black", label="object")
figure.legend(loc="outside lower center", ncols=2, frameon=False)
assert points[3 * 8 + 4].tolist() == [64, 48] and len(grid) == 6 * 8 * 6
figure

# %% [markdown]
# One map has to serve small and large objects. Newer detectors have several maps instead, each half as fine as the one
# before, with anchors of one size each: a *feature pyramid* (Lin et al., 2017). Its maps are called *levels*. Ours has
# four, with strides of 4, 8, 16 and 32 pixels and anchors of 12, 24, 48 and 96.

# %% [markdown]
# **Predict.** Three ratios on each of the four levels, a picture of 96 by 128: how many anchors are there in all? Which
# level has most of them?

# %%
levels = ((24, 32), (12, 16), (6, 8), (3, 4))
anchor_generator = box_tools.AnchorGenerator(sizes=((12,), (24,), (48,), (96,)), aspect_ratios=(0.5, 1, 2))
by_level = anchor_generator((96, 128), levels)
anchors = np.concatenate(by_level)
print([len(level) for level in by_level], len(anchors))

assert [96 // rows for rows, _ in levels] == [4, 8, 16, 32]
assert [len(level) for level in by_level] == [2304, 576, 144, 36] and len(anchors) == 3060
assert round(2304 / 3060, 2) == 0.75
of_photograph = [3 * math.ceil(800 / stride) * math.ceil(1333 / stride) for stride in (4, 8, 16, 32, 64)]
assert 1e6 / 4 < sum(of_photograph) < 270e3 and (800 / 4, 1333 // 4) == (200, 333)
best = ops.box_iou(sample.boxes, anchors).max(axis=1)
print("IoU of each object with its nearest anchor:", best.round(2))

# %% [markdown]
# 3060 anchors, 75 % of them on the finest level. In the paper of the feature pyramid, with five levels and a photograph
# of 800 by 1333 pixels, they are more than a quarter of a million.
#
# ## Offsets
# An anchor is never quite right, so the network also gives four numbers that say how to change it. They are relative to
# the anchor: with its centre $(x_a, y_a)$, its width $w_a$ and its height $h_a$, and those of the box sought,
#
# $$dx = \frac{x - x_a}{w_a}, \quad dy = \frac{y - y_a}{h_a}, \quad dw = \ln \frac{w}{w_a}, \quad
# dh = \ln \frac{h}{h_a}.$$
#
# Going from box to offsets is *encoding*, going back is *decoding*. (The papers' names are kept: `dx` and `dy` are no
# gradients here, as they are in notebook 2.)

# %% [markdown]
# **Predict.** The anchor is (10, 20, 50, 40), the object's box (22, 22, 62, 62). What are the four offsets? You need
# $\ln 2$, which is 0.693.

# %%
anchor, wanted = np.array([[10.0, 20, 50, 40]]), np.array([[22.0, 22, 62, 62]])
codes = box_tools.encode(wanted, anchor)
print(codes.round(3))

assert ((10 + 50) / 2, (20 + 40) / 2, 50 - 10, 40 - 20) == (30, 30, 40, 20)
assert ((22 + 62) / 2, (22 + 62) / 2, 62 - 22, 62 - 22) == (42, 42, 40, 40)
np.testing.assert_allclose(codes, [[12 / 40, 12 / 20, 0, math.log(40 / 20)]], rtol=1e-12, atol=1e-12)
np.testing.assert_allclose(codes, [[0.3, 0.6, 0, 0.693]], atol=2e-4)
np.testing.assert_allclose(box_tools.decode(codes, anchor)[:, 0], wanted)

# %% [markdown]
# The anchor's centre is (30, 30) and it is 40 wide and 20 high; the box's centre is (42, 42), and it is 40 by 40. Both
# axes move by 12 pixels, but `dx` is 0.3 and `dy` is 0.6, since they are measured in widths and heights of the anchor.
# The width stays, so `dw` is 0; the height doubles, so `dh` is 0.693.
#
# Why relative, and why a logarithm? So that the same four numbers mean the same for a small and for a large object, and
# the network, which looks at a window of features, need not know which it has. And a width times $e^{dw}$ is positive
# whatever the network says.

# %% [markdown]
# **Predict.** An untrained or diverging network may well say `dw = 100`. What is $e^{100}$ in float32, and what would
# become of the box?

# %%
with np.errstate(over="ignore"):
    assert np.isinf(np.exp(np.float32(100)))
grown = box_tools.decode(np.array([[0, 0, 100, -100]], np.float32), anchor.astype(np.float32))[0, 0]
print(grown)

assert abs(math.log(1000 / 16) - 4.135) < 1e-3 and 1000 / 16 == 62.5 == 1000 / 16
assert abs(grown[2] - grown[0] - 62.5 * 40) < 0.01
assert abs(grown[3] - grown[1]) < 1e-6

# %% [markdown]
# Infinity, and after the next subtraction NaN. So `decode` cuts `dw` and `dh` off at $\ln(1000 / 16)$, which is 4.135:
# a box may become 62.5 times as wide as its anchor, enough to turn one of 16 pixels into one of 1000, and no more.
# Nothing is cut at the lower end, since $e^{-100}$ overflows nowhere: that box has become a line, and a later rule
# removes it.

# %%
assert math.log(1000 / 16) == box_tools.coding.LARGEST_STEP

# %% [markdown]
# ## Who learns what: matching
# In training the true boxes are known. Which anchors should say "object"? The rule goes by IoU, with two thresholds:
#
# - at least 0.7 with some object: *positive*. The anchor should say "object", and its offsets should lead to that one;
# - below 0.3 with every object: *negative*, it should say "background";
# - in between: *ignored*. Neither answer would be right, so the anchor does not count;
# - and, whatever its IoU: for each object the anchor that overlaps it most is positive too. Without this rule an object
#   that no anchor fits well would never be learnt.
#
# Here is a table of IoUs, with a row for each of two objects and a column for each of six anchors.

# %% [markdown]
# **Predict.** What becomes of each anchor?

# %%
iou = np.array([[0.80, 0.72, 0.50, 0.10, 0.00, 0.29], [0.05, 0.10, 0.20, 0.45, 0.45, 0.00]])
matches = box_tools.match(iou, 0.7, 0.3, allow_low_quality=True)
print("match:", matches, " (-1 is background, -2 is ignored)")

assert (box_tools.BACKGROUND, box_tools.IGNORED) == (-1, -2)
assert matches.tolist() == [0, 0, -2, 1, 1, -1]
assert iou[1].max() == 0.45 and iou[0, 2] == 0.50 and iou[0, 5] == 0.29
explain.maps(
    iou,
    matches[None],
    titles=["IoU: objects (rows), anchors (columns)", "match"],
    marks=[explain.Mark(0, 1, 3, 1, 2, "best anchors of object 1, both")],
)

# %% [markdown]
# The first two anchors are above 0.7 for object 0. The third, with 0.50, is ignored. Object 1 has no anchor above 0.45,
# so its best becomes positive, and as two are equally good, both do. The last one, at 0.29, is background.
#
# The rule has a corner that surprises. It only says *that* an anchor becomes positive. Which object it learns is
# decided by its own largest IoU.

# %% [markdown]
# **Predict.** Anchor 3 overlaps object 0 a little more now, by 0.50, and anchor 4 is gone. Which object does anchor 3
# learn? Which anchor learns object 1?

# %%
iou = np.array([[0.80, 0.72, 0.50, 0.50, 0.29], [0.05, 0.10, 0.20, 0.45, 0.00]])
matches = box_tools.match(iou, 0.7, 0.3, allow_low_quality=True)
print("match:", matches)
assert matches.tolist() == [0, 0, -2, 0, -1]
assert iou[0, 3] == 0.50 and 1 not in matches

# %% [markdown]
# Anchor 3 was promoted by object 1 and learns object 0. No anchor learns object 1. torchvision, PyTorch's collection of
# models, does the same, and so must whoever wants to load its weights. It can happen where a small object stands before
# a large one.
#
# Now for real: the anchors of the picture above.

# %% tags=["hide-input"]
iou = ops.box_iou(sample.boxes, anchors)
matches = box_tools.match(iou, 0.7, 0.3, allow_low_quality=True)
counts = {"positive": (matches >= 0).sum(), "background": (matches == -1).sum(), "ignored": (matches == -2).sum()}
names = ("blue", "vermilion", "bluish green", "reddish purple")
figure = canvas(sample, f"{counts['positive']} positive anchors of {len(anchors)}", margin=4)
axes = figure.axes[0]
for number, box in enumerate(sample.boxes):
    own = np.flatnonzero(matches == number)
    outline(axes, anchors[own], color=COLOUR[names[number]])
    outline(axes, [box], color="black", linestyle=(0, (3, 2)))
    text = f"{len(own)} learn{'s' if len(own) == 1 else ''} object {number}, IoU {iou[number, own].max():.2f} at best"
    axes.plot([], [], color=COLOUR[names[number]], label=text)
axes.plot([], [], "--", color="black", label="object")
figure.legend(loc="outside lower center", ncols=2, frameon=False)
print(counts)
figure

# %%
assert counts["positive"] + counts["background"] + counts["ignored"] == 3060
assert counts["positive"] < 0.01 * 3060

# %% [markdown]
# Fewer than 1 % of the anchors are positive. If all of them counted the same, a network that says "background"
# everywhere would have next to no loss, and nothing to learn from. So a training step draws a *sample*: a fixed number
# of anchors at random (256 in the paper, 64 here), at most half of them positive. Where there are fewer positive ones,
# as here, negative ones fill up.

# %%
labels = np.where(matches == box_tools.IGNORED, -1, matches >= 0).astype(np.int64)
positive, negative = box_tools.balanced_sample(labels, 64, 0.5, rng)
print(f"{len(positive)} positive, {len(negative)} negative")
assert tinyseg.models.RegionProposalNetwork(anchor_generator, None).sampler.keywords["size"] == 256
assert len(positive) + len(negative) == 64 and len(positive) == counts["positive"]
assert (labels[negative] == 0).all()

# %% [markdown]
# ## The network
# The *region proposal network*, RPN (Ren et al., 2015), is small: on each level a 3x3 convolution with ReLU, then two
# 1x1 convolutions side by side, the same weights on all levels. Together they are its *head*. One of the two gives for
# each anchor of each cell a logit, *objectness*: its sigmoid is the probability that the anchor holds an object, of
# whatever class. The other gives the four offsets.

# %%
settings = {
    "width": 16,
    "channels": 16,
    "returned_layers": (1, 2, 3),
    "anchor_sizes": ((12,), (24,), (48,), (96,)),
    "representation_size": 64,
    "rpn_pre_nms_top_n_train": 300,
    "rpn_post_nms_top_n_train": 100,
    "rpn_pre_nms_top_n_test": 100,
    "rpn_post_nms_top_n_test": 50,
    "rpn_batch_size_per_image": 64,
    "box_batch_size_per_image": 32,
}
model = tinyseg.models.faster_rcnn(made.num_classes, "resnet18", **settings)
print(model.rpn.head)

# %% [markdown]
# **Predict.** Which shapes do the two outputs have on the finest level, where the map has 24 by 32 cells, for one
# picture?

# %%
truth = {"boxes": sample.boxes, "labels": sample.classes}
xray = explain.detector(model, normalise(sample.picture, "standardise"), truth, class_names=made.class_names)
maps = [tinyseg.Tensor(array[None]) for array in xray["pyramid"].arrays.values()]
with tinyseg.no_grad():
    logits, codes = model.rpn.head(maps)
for level, (one, four) in enumerate(zip(logits, codes, strict=True)):
    print(f"level {level}: objectness {one.shape}, offsets {four.shape}")

assert logits[0].shape == (1, 3, 24, 32) and codes[0].shape == (1, 12, 24, 32)
assert xray["anchors"].count == 3060 and np.array_equal(xray["anchors"].boxes, anchors)

# %% [markdown]
# 3 channels of objectness and 12 of offsets, one and four for each of the three anchors of a cell. `explain.detector`
# looks on while a detector runs and keeps what each part gives the next; notebook 7 walks through all of it. Here is
# the objectness of this network, which has learnt nothing yet. (The coarsest map is called `pool`, as it is made of the
# one before by pooling.)

# %%
xray.figure("objectness")

# %% [markdown]
# ### What it should say
# Objectness has the binary cross entropy of notebook 4 as its loss, the mean over the sample. The offsets have *smooth
# L1*, over the positive anchors of the sample only: what should a background anchor's box fit? For the difference $d$
# of an offset from what it should be,
#
# $$\text{smooth L1}(d) = \begin{cases} d^2 / (2 \beta) & \text{if } |d| < \beta \\ |d| - \beta / 2 & \text{otherwise,}
# \end{cases} \qquad \beta = 1/9.$$
#
# A parabola near 0, so that the gradient fades as the box gets better, and straight lines farther out, so that a single
# wild anchor cannot drown all others: beyond $\beta$ the gradient is 1, however wrong it is. The sum over the positive
# anchors is divided by the size of the whole sample.

# %% [markdown]
# **Predict.** A network that knows nothing says logit 0 everywhere. What is the loss of objectness then? And what is
# smooth L1 of a difference of 0.3?

# %%
said, wanted = np.zeros(64), labels[np.r_[positive, negative]].astype(float)
nothing = ops.binary_cross_entropy_with_logits(tinyseg.Tensor(said), wanted)
off = ops.smooth_l1_loss(tinyseg.Tensor(np.array([0.3])), np.array([0.0]), beta=1 / 9)
print(f"objectness {nothing.item():.3f}, smooth L1 {off.item():.4f}")

assert round(nothing.item(), 3) == 0.693 == round(math.log(2), 3)
assert abs(off.item() - (0.3 - 1 / 18)) < 1e-12 and round(off.item(), 3) == 0.244
assert 0.3 > 1 / 9 and 1 / 9 / 2 == 1 / 18

# %% [markdown]
# 0.693 again, whatever the truth is; and 0.3 less half of a ninth, 0.244.
#
# ## From anchors to proposals
# Now the rules. For each picture, in this order:
#
# 1. every anchor is moved by its offsets (decoded);
# 2. on each level the boxes with the highest objectness are kept, `rpn_pre_nms_top_n` of them. For each level by
#   itself, so that the finest, with most of the anchors, does not fill all places;
# 3. boxes are cut off at the border of the picture (*clipped*);
# 4. boxes narrower or lower than a thousandth of a pixel are left out, such as those that lay outside and have no area
#   left. (Those with a low objectness could go as well; by default the limit is 0 and none do.)
# 5. *non-maximum suppression*, NMS, leaves out doubles, on each level by itself;
# 6. the `rpn_post_nms_top_n` best of all levels are the *proposals*.

# %%
box = np.array([[-5.0, 40, 30, 120], [130, 10, 150, 40]])
cut = box_tools.clip_to_picture(box, (96, 128))
print(cut)
assert cut.tolist() == [[0, 40, 30, 96], [128, 10, 128, 40]]  # the second has no width left
assert box_tools.remove_small_boxes(cut, 1e-3).tolist() == [0]
assert model.rpn.min_size == 1e-3 and model.rpn.score_thresh == 0 and model.rpn.nms_thresh == 0.7

# %% [markdown]
# ### Suppression, by hand
# Around an object many anchors say "object", and after decoding their boxes are nearly the same. One of them is enough.
# NMS takes the box with the highest score, removes all that overlap it by more than a threshold, takes the best of
# those that are left, and so on. Here are five boxes; the threshold is 0.5.

# %%
names = "ABCDE"
five = np.array([[10, 10, 30, 30], [12, 12, 32, 32], [17, 14, 37, 34], [11, 16, 27, 28.5], [19, 11, 39, 31]], float)
scores = np.array([0.9, 0.8, 0.7, 0.6, 0.7])
overlap = ops.box_iou(five, five)
explain.maps(overlap, title="IoU of the boxes A to E, in this order, with each other", digits=2)

# %% [markdown]
# **Predict.** Which boxes are left? Look closely at three places: B overlaps C, but A removes B first; D overlaps A by
# exactly the threshold; C and E have the same score.


# %%
def suppress(overlap, scores, threshold):
    """NMS in plain Python: return what is kept, and for each step who removes whom."""
    waiting = sorted(range(len(scores)), key=lambda i: -scores[i])  # equal scores stay in their order
    kept, steps = [], []
    while waiting:
        best, *others = waiting
        kept.append(best)
        removed = [i for i in others if overlap[best, i] > threshold]
        waiting = [i for i in others if i not in removed]
        steps.append((best, removed))
    return kept, steps


kept, steps = suppress(overlap, scores, 0.5)
for best, removed in steps:
    print(names[best], "stays and removes", " and ".join(names[i] for i in removed) or "none")

assert kept == ops.nms(five, scores, 0.5).tolist() == [0, 2, 3]
assert overlap[0, 3] == 0.5 and overlap[1, 2] > 0.5 and scores[2] == scores[4] == 0.7
assert steps == [(0, [1]), (2, [4]), (3, [])]

# %% tags=["hide-input"]
figure = Figure(figsize=(9.2, 3.9), layout="constrained")
figure.suptitle("Non-maximum suppression at 0.5, step by step", fontsize=11)
gone = []
for number, (axes, (best, removed)) in enumerate(zip(figure.subplots(1, 3, sharey=True), steps, strict=True), 1):
    for i, box in enumerate(five):
        if i == best:
            look, state = {"color": COLOUR["blue"], "linewidth": 3}, "taken now"
        elif i in removed:
            look, state = {"color": COLOUR["vermilion"], "linestyle": (0, (4, 2)), "linewidth": 2}, "removed now"
        elif i in gone:
            look, state = {"color": "0.8", "linestyle": (0, (1, 2))}, "removed before"
        elif i in kept[: number - 1]:
            look, state = {"color": COLOUR["sky blue"], "linewidth": 1.6}, "kept before"
        else:
            look, state = {"color": "0.45", "linewidth": 1}, "waiting"
        outline(axes, [box], **look)
        corner = {"A": (0, 0), "B": (0, 1), "C": (1, 1), "D": (0, 1), "E": (1, 0)}[names[i]]
        x, y = box[2 * corner[0]], box[2 * corner[1] + 1]
        shift = (0.5 if corner[0] == 0 else -0.5), (1.6 if corner[1] == 0 else -0.5)
        axes.text(x + shift[0], y + shift[1], f"{names[i]} {scores[i]:g}", color="0.6" if i in gone else "black",
                  ha="left" if corner[0] == 0 else "right", fontsize=9,
                  bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.3, "alpha": 0.85})  # fmt: skip
    gone += removed
    out = " and ".join(names[i] for i in removed) or "none"
    axes.set(xlim=(8, 41), ylim=(36, 8), aspect="equal", xlabel="x in pixels")
    axes.set_title(f"step {number}: {names[best]} removes {out}", fontsize=10)
figure.axes[0].set_ylabel("y in pixels")
for state, look in {
    "taken now": {"color": COLOUR["blue"], "linewidth": 3},
    "removed now": {"color": COLOUR["vermilion"], "linestyle": (0, (4, 2)), "linewidth": 2},
    "kept before": {"color": COLOUR["sky blue"]},
    "removed before": {"color": "0.8", "linestyle": (0, (1, 2))},
    "waiting": {"color": "0.45", "linewidth": 1},
}.items():
    figure.axes[0].plot([], [], label=state, **look)
figure.legend(loc="outside lower center", ncols=5, frameon=False)
figure

# %% [markdown]
# A, C and D are left.
# - B is removed by A. It would have removed C, but a box that is gone removes nothing.
# - D overlaps A by 0.5 and stays: only *more* than the threshold is too much.
# - C and E have the same score. The one that comes first in the list is taken first, so C removes E. A sort that does
#   not keep the order of equals could as well have kept E.
#
# In the RPN the threshold is 0.7, and each level is suppressed by itself. In the second stage of the detector it is
# 0.5, and each *class* by itself: a disc should not remove a triangle in front of it.

# %% [markdown]
# **Predict.** B is a triangle now, the others are discs. Which boxes are left?

# %%
classes = np.array([1, 2, 1, 1, 1])
apart = ops.batched_nms(five, scores, classes, 0.5)
print([names[i] for i in apart])
assert apart.tolist() == [0, 1, 2, 3]

far = five + 1000 * classes[:, None]
assert ops.nms(far, scores, 0.5).tolist() == apart.tolist()

# %% [markdown]
# B too: it has no rival in its class. The last lines show a well-known trick. Add a large offset to the boxes, another
# one for each class, so that classes lie far apart, and a single run does it for all of them. torchvision does so where
# there are few boxes. Adding large numbers costs digits, and now and then another box is kept; tinyseg runs each class
# on its own.
#
# ## Why proposals are detached
# The proposals go on to the second stage, which pools features inside them, and has losses of its own. Backward, does
# the error of the second stage reach the offsets that made the box? It does not. The proposals are plain arrays, cut
# loose from the tape: *detached*.

# %% [markdown]
# **Predict.** Take only the losses of the second stage and go backward. Which of these get a gradient: the backbone,
# the 3x3 convolution of the RPN, the layer that gives the offsets?

# %%
model.train()
target = {"boxes": sample.boxes, "labels": sample.classes}
losses = model([normalise(sample.picture, "standardise")], [target])
print({name: round(value.item(), 3) for name, value in losses.items()})
(losses["loss_classifier"] + losses["loss_box_reg"]).backward()
for name in ("backbone.body.conv1.weight", "rpn.head.conv.0.0.weight", "rpn.head.bbox_pred.weight"):
    gradient = dict(model.named_parameters())[name].grad
    print(f"{name:<28}", "no gradient" if gradient is None else f"gradient up to {np.abs(gradient.numpy()).max():.1e}")

parameters = dict(model.named_parameters())
assert parameters["backbone.body.conv1.weight"].grad is not None
assert all(parameters[name].grad is None for name in parameters if name.startswith("rpn."))
model.zero_grad()

# %% [markdown]
# The backbone does, by way of the pooled features. The RPN gets nothing; it learns from its own two losses only. Three
# reasons:
# - RoIPool rounds boxes to whole cells, so its output does not change when a box moves a little: the gradient would be
#   0 almost everywhere. RoIAlign could give one, but the operator is defined without
#   ([notebook 6](06_roi_pool_roi_align.ipynb)).
# - Which boxes survive is a matter of sorting and thresholds. Choices have no gradient.
# - It is not needed. The paper of Faster R-CNN calls this *approximate joint training*, and its results are close to
#   those of training the stages in turns.
#
# ## What each step loses
# An object that no proposal covers cannot be found any more, whatever the second stage does. So the number to watch is
# *recall*: the share of objects that some box covers, say by an IoU of at least 0.5. `explain.detector` measures it
# after each step. To have something to measure, we train this small Faster R-CNN for a while, on 200 pictures, and look
# at 32 that took no part.


# %%
def recall_by_stage(model):
    """Return, for each stage, the share of all held-out objects that some box covers by an IoU of 0.5."""
    covered, objects = {}, 0
    for sample in held_out:
        truth = {"boxes": sample.boxes, "labels": sample.classes}
        seen = explain.detector(model, normalise(sample.picture, "standardise"), truth)
        objects += len(sample.boxes)
        for name, share in seen.recall(0.5).items():
            covered[name] = covered.get(name, 0) + share * len(sample.boxes)
    return {name: value / objects for name, value in covered.items()}


assert (len(train), len(held_out)) == (200, 32)
before = recall_by_stage(model)
history = tinyseg.training.fit(model, train, steps=150, batch_size=4, learning_rate=3e-3, progress=False)
after = recall_by_stage(model)

# %% [markdown]
# **Predict.** Recall of the anchors themselves is the same before and after training. Is it 1? After which step did the
# untrained network lose most, and where does the trained one?

# %% tags=["hide-input"]
stages = ["anchors", "top", "refined", "clipped", "large", "nms", "proposals"]
figure = Figure(figsize=(7.6, 3.6), layout="constrained")
axes = figure.subplots()
for values, name, marker, label, above in (
    (before, "orange", "s", "before training", -15),
    (after, "blue", "o", f"after {len(history.losses)} steps", 7),
):
    recall = [values[stage] for stage in stages]
    axes.plot(stages, recall, color=COLOUR[name], marker=marker, label=label)
    for place, value in enumerate(recall):
        axes.annotate(f"{value:.2f}", (place, value), (0, above), textcoords="offset points", ha="center", fontsize=9)
axes.set(
    ylim=(-0.08, 1.12),
    xlabel="boxes after this step",
    ylabel="recall at IoU 0.5",
    title="32 pictures: which share of the objects some box still covers",
)
axes.legend(frameon=False, loc="lower left")
axes.spines[["top", "right"]].set_visible(False)
figure

# %%
assert round(before["anchors"], 2) == round(after["anchors"], 2) == 0.99
assert before["top"] < 0.75 and before["proposals"] < 0.3
assert after["nms"] > 0.9 and after["proposals"] > 0.7
assert after["nms"] - after["proposals"] > after["anchors"] - after["nms"]
assert model.rpn.post_nms_top_n["testing"] == 50

# %% [markdown]
# It is 0.99: nearly every object has an anchor that covers it, and all that is left is to choose well. The untrained
# network chooses at random, so it loses objects at the two rules that go by its scores, the best of each level and the
# best of all levels. After training the right anchors are among the best of their level, and moving them brings back
# objects that the chosen anchors did not cover as they stood. What is lost now is lost at the last rule: 50 proposals
# are few for a network that has learnt for so short a time, and some of the boxes that cover an object rank lower.
#
# Which objects are lost in the whole detector, and why? For each true object `explain.detector` says at which stage its
# last box went.

# %%
reasons = {}
for sample in held_out:
    truth = {"boxes": sample.boxes, "labels": sample.classes}
    for lost in explain.detector(model, normalise(sample.picture, "standardise"), truth).objects():
        reasons[lost.reason] = reasons.get(lost.reason, 0) + 1
print(reasons)

# %% [markdown]
# Some of these reasons belong to the second half of the detector; [notebook 7](07_detector_xray.ipynb) goes through
# them. Here is the first held-out picture again: where the network moved the anchors that it is surest of, and, below,
# the objectness that you saw before, now that it has learnt. Each level has learnt to look for objects of its own size.

# %%
sample = held_out[0]
truth = {"boxes": sample.boxes, "labels": sample.classes}
xray = explain.detector(model, normalise(sample.picture, "standardise"), truth, class_names=made.class_names)
xray.figure("refined")

# %%
xray.figure("objectness")

# %% [markdown]
# ## Questions
# Replace the `...` and run the cell; it says whether you are right.
#
# **1.** What is the IoU of the boxes (0, 0, 4, 4) and (2, 2, 6, 6)?

# %%
answer = ...
tinyseg.lessons.check("proposals.1", answer)

# %% [markdown]
# **2.** A picture of 64 by 96 pixels, levels with strides of 4, 8 and 16, one size and three ratios on each. How many
# anchors?

# %%
answer = ...
tinyseg.lessons.check("proposals.2", answer)

# %% [markdown]
# **3.** The anchor is (0, 0, 20, 10), the offsets are $(0.5, 0, 0, \ln 2)$. Which box do they decode to?

# %%
answer = (..., ..., ..., ...)
tinyseg.lessons.check("proposals.3", answer)

# %% [markdown]
# **4.** There is one object, and three anchors overlap it by 0.65, 0.45 and 0.2. The thresholds are 0.7 and 0.3, and
# the best anchor of each object is claimed. What is each of them matched with: 0 (the object), -1 (background) or -2
# (ignored)?

# %%
answer = (..., ..., ...)
tinyseg.lessons.check("proposals.4", answer)

# %% [markdown]
# **5.** Three boxes, 0, 1 and 2, by falling score. Boxes 0 and 1 overlap by 0.6, boxes 1 and 2 by 0.6, boxes 0 and 2 by
# 0.2. Which are left by NMS at 0.5? Answer with a tuple of their numbers.

# %%
answer = ...
tinyseg.lessons.check("proposals.5", answer)

# %% [markdown]
# **6.** Where does the gradient of `loss_box_reg`, a loss of the second stage, go: to the `"backbone"`, to the `"head"`
# of the region proposal network, to `"both"` or to `"neither"`?

# %%
answer = ...
tinyseg.lessons.check("proposals.6", answer)
