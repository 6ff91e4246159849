# %% [markdown]
# # Semantic and instance segmentation
# To segment a picture is to say, for every pixel, what it shows. This notebook looks at what goes into a network that
# does so and at what comes out of it, as arrays of numbers, and at how two answers are compared. How such a network
# works inside is for the notebooks after it; at the end there is a map of them.
#
# **You will be able to**
# - say which shape and which range of values a picture, a mask, a box and a probability map have;
# - tell semantic from instance segmentation, and name a question that only one of them answers;
# - turn probabilities into a mask, and say what the threshold does;
# - work out Dice and IoU, the two usual measures of overlap, by hand;
# - read what a detector returns.
#
# It takes about half an hour. You need nothing but some Python and a little NumPy; no other notebook comes before.

# %%
# %matplotlib inline
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

import tinyseg
from tinyseg import Tensor, draw, ops
from tinyseg.colours import CLASS_COLOURS
from tinyseg.evaluation import confusion_counts, dice, iou, to_mask

tinyseg.manual_seed(0)

# %% [markdown]
# The next cell is only for drawing. A pixel of column $x$ is drawn from $x$ to $x + 1$, and rows are counted downwards,
# as everywhere in this course.


# %% tags=["hide-input"]
def show(pictures, titles, *, boxes=(), objects=None, legend=None, size=3.2, scale=1, **options):
    """Return a figure of pictures side by side, with axes in pixels; boxes and numbers of objects over the last one."""
    figure = Figure(figsize=(size * len(pictures), 1.05 * size), layout="constrained")
    for axes, picture, title in zip(figure.subplots(1, len(pictures), squeeze=False)[0], pictures, titles, strict=True):
        height, width = picture.shape[0] / scale, picture.shape[1] / scale  # a drawing may be larger than the picture
        drawn = axes.imshow(picture, extent=(0, width, height, 0), **{"cmap": "gray", "vmin": 0, "vmax": 1, **options})
        axes.set(title=title, xlabel="x (pixels)", ylabel="y (pixels)")
    for x1, y1, x2, y2 in boxes:
        for colour, line in (("black", 2.5), ("white", 1)):
            axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=colour, linewidth=line))
    for number in range(1, 1 + (0 if objects is None else objects.max())):
        y, x = np.argwhere(objects == number).mean(0) + 0.5
        axes.text(x, y, number, ha="center", va="center", weight="bold", bbox={"facecolor": "white", "pad": 1.5})
    if options.get("cmap") == "cividis":
        figure.colorbar(drawn, ax=axes, label="probability of cell", shrink=0.75)
    if legend:
        patches = [Patch(facecolor=np.array(colour) / 255, label=name) for name, colour in legend.items()]
        figure.legend(handles=patches, loc="outside lower center", ncols=len(patches))
    return figure


# %% [markdown]
# ## A picture is an array
# The pictures of this course are made up from a seed, so that you need no data, and so that the truth about each is
# known. This one looks like cells under a microscope. It has 96 rows and 96 columns, and is grey.
#
# **Predict.** How many axes has its array, and what is the shape?

# %%
sample = tinyseg.data.cells(96, seed=6, radius=(9, 16))
picture = sample.picture
assert picture.shape == (1, 96, 96)
picture.shape

# %% [markdown]
# There are 3 axes: *channels*, rows, columns, in this order, written (C, H, W). A channel is one number per pixel. A
# grey picture has 1 channel, its brightness; a coloured one has 3, for red, green and blue. Files keep the channels of
# a pixel together, behind rows and columns; networks keep each channel as a map of its own, in front.

# %%
assert picture.ndim == 3
coloured = tinyseg.data.shapes((64, 96), seed=1, radius=(12, 20), count=(4, 6))
assert coloured.picture.shape == (3, 64, 96)
show([draw.to_rgb(picture), draw.to_rgb(coloured.picture)], ["cells: 1 channel", "shapes: 3 channels"])

# %% [markdown]
# The values are numbers with a fraction (of type `float32`), where 0 is black and 1 is white. Files hold whole numbers,
# mostly from 0 to 255, and are divided by 255 when they are read.
#
# **Predict.** Is the darkest pixel of the cells exactly 0, and the brightest exactly 1?

# %%
assert picture.dtype == np.float32 and picture.min() >= 0 and picture.max() <= 1
assert np.iinfo(np.uint8).max == 255
picture.min().item(), picture.max().item()

# %% [markdown]
# Neither: 0 and 1 are the limits of the range, and no picture has to use all of it.
#
# Networks take several pictures at a time, a *batch*, stacked along one more axis in front: (N, C, H, W). All pictures
# of a batch have the same size. A `Tensor` is an array that also remembers how it was computed; training needs that,
# and the next notebook shows why.

# %%
batch = Tensor(np.stack([picture, picture[:, :, ::-1]]))  # the second one is mirrored
assert batch.shape == (2, 1, 96, 96)
batch.shape

# %% [markdown]
# ## Semantic segmentation: the class of each pixel
# A *class* is a kind of thing: cell, disc, background. *Semantic segmentation* gives each pixel its class. The answer,
# the *mask*, has the rows and columns of the picture and holds class numbers. Class 0 is the background.

# %%
mask = coloured.mask
names = dict(enumerate(coloured.class_names))
assert mask.shape == (64, 96) and mask.dtype == np.uint8
assert names == {0: "background", 1: "disc", 2: "rectangle", 3: "triangle"}
colours = dict(zip(coloured.class_names[1:], CLASS_COLOURS, strict=False))
overlay = draw.overlay(coloured.picture, mask, opacity=0.6)
show([draw.to_rgb(coloured.picture), overlay], ["picture", "mask, laid over it"], legend=colours)

# %% [markdown]
# Two of the objects are rectangles.
#
# **Predict.** Does the mask hold a number on one rectangle that it does not hold on the other?

# %%
one, other = (np.unique(mask[coloured.instances == number]) for number in (1, 3))
assert one.tolist() == other.tolist() == [2]
one, other

# %% [markdown]
# No: it holds 2 on both, and nothing else. A mask says *what* is at a pixel, not *which one*.
#
# ## Instance segmentation: the object of each pixel
# *Instance segmentation* tells one object from the next. An *instance* is one object of a class. Here is why that is
# more than a mask. The cells of our first picture have one class, so their mask holds 0 and 1. You could try to count
# them as the patches of the mask: pixels of class 1 that hang together, up, down, left or right.


# %% tags=["hide-input"]
def count_patches(mask):
    """Return how many patches of pixels that hang together a mask has: fill one after the other with 0."""
    left, count = mask > 0, 0
    while left.any():
        count += 1
        todo = [tuple(np.argwhere(left)[0])]
        while todo:
            y, x = todo.pop()
            if 0 <= y < mask.shape[0] and 0 <= x < mask.shape[1] and left[y, x]:
                left[y, x] = False
                todo += [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
    return count


# %% [markdown]
# **Predict.** Count the cells in the picture above, those at the border too. Will there be as many patches?

# %%
patches, cells = count_patches(sample.mask), sample.instances.max().item()
assert (patches, cells) == (8, 10)
patches, cells

# %%
numbers = draw.overlay(picture, sample.instances, opacity=0.7)
one = draw.overlay(picture, sample.mask, opacity=0.7)
show([one, numbers], ["mask: one class, 8 patches", "instances: 10 numbers"], objects=sample.instances)

# %% [markdown]
# There are 10 cells and 8 patches: one cell touches two others, and the three make one patch. On the right each cell
# has a number of its own (there are fewer colours than cells, so they repeat). Counting, measuring single cells,
# following them through a film: for all of these you need instances.
#
# The truth about instances comes in four arrays, with one row for each of the K objects:
#
# | array | shape | what it holds |
# | --- | --- | --- |
# | `instances` | (H, W) | the number of the object at each pixel, from 1 to K; 0 where there is none |
# | `classes` | (K,) | the class of each object |
# | `boxes` | (K, 4) | the *box* around each object: `x1, y1, x2, y2` |
# | `instance_masks` | (K, H, W) | true where an object is; here objects may overlap |

# %%
K = len(coloured.classes)
assert K == 4 and coloured.instances.min() == 0 and coloured.instances.max() == K
assert coloured.boxes.shape == (K, 4) and coloured.instance_masks.shape == (K, 64, 96)
assert set(range(1, K + 1)) == set(np.unique(coloured.instances)) - {0}
for name, box in zip(coloured.classes, coloured.boxes, strict=True):
    print(names[name], box)

# %%
labelled = draw.overlay(coloured.picture, coloured.instances, opacity=0.6)
show([labelled], ["objects and their boxes"], boxes=coloured.boxes, objects=coloured.instances, size=5)

# %% [markdown]
# The box of an object is the smallest upright rectangle around it, in pixels. `x` counts columns and comes first, while
# in arrays the row comes first. The triangle is object 4.
#
# **Predict.** Its box is `[0, 14, 23, 35]`. What is the last column that has a pixel of it?

# %%
rows, columns = np.nonzero(coloured.instances == 4)
assert coloured.boxes[3].tolist() == [0, 14, 23, 35]
assert columns.max() == 22 and columns.min() == 0
columns.min().item(), columns.max().item()

# %% [markdown]
# It is 22, not 23. A pixel is not a point but a small square: the last column begins at 22 and ends at 23, and the box
# ends where the pixel ends. So the width of a box is $x_2 - x_1$, with nothing to add. Old code adds 1 here; how much
# trouble half a pixel makes is the subject of notebook 6.
#
# ## What comes out: probabilities
# A network does not say "cell". It gives each pixel a number between 0 and 1, how sure it is: a *probability map*. The
# simplest model that can do so needs no network at all. In the picture, the cells are darker than what is around them;
# so let the probability fall with the brightness $b$:
#
# $$ p = \sigma(20\,(0.5 - b)), \qquad \sigma(s) = \frac{1}{1 + e^{-s}} $$
#
# The number inside, $20\,(0.5 - b)$, is called a *logit* or raw score, and may be any number. The *sigmoid* $\sigma$
# squeezes it into the range from 0 to 1.
#
# **Predict.** What probability does a pixel get whose brightness is exactly the middle, $b = 0.5$?


# %%
def model(picture):
    return ops.sigmoid(Tensor(20 * (0.5 - picture))).numpy()


assert model(np.array([[[0.5]]])).item() == 0.5
assert model(picture).min() >= 0 and model(picture).max() <= 1
model(np.array([[[0.5]]])).item()

# %% [markdown]
# 0.5: the logit is 0, which favours neither side. Larger logits give more than 0.5, smaller ones less.

# %%
probability = model(picture)
assert probability.shape == (1, 96, 96)
show([probability[0]], ["how sure the model is, pixel by pixel"], cmap="cividis", size=4.5)

# %% [markdown]
# The mask is what reaches a *threshold*: class 1 where the probability is at least as large. 0.5 is usual, and nothing
# says that it is best.
#
# **Predict.** With a threshold of 0.9, does the mask grow or shrink?

# %%
masks = {threshold: to_mask(probability, threshold) for threshold in (0.1, 0.5, 0.9)}
assert masks[0.1].sum() > masks[0.5].sum() > masks[0.9].sum()
overlays = [draw.overlay(picture, mask, opacity=0.6) for mask in masks.values()]
show(overlays, [f"threshold {threshold}: {mask.sum()} pixels" for threshold, mask in masks.items()])

# %% [markdown]
# It shrinks: fewer pixels reach 0.9. At 0.1 the speckles of the background pass, at 0.9 little more than the cells'
# dark rims is left. This model looks at one pixel at a time, and cannot know that the light middle of a cell belongs to
# it. A network looks at the surroundings; that is what convolutions are for.
#
# Where there are more classes than one, a network gives a channel of logits for each, the background included. Over the
# channels of a pixel, the *softmax* turns them into probabilities that add up to 1, and the class with the largest
# wins. With the logit $s_c$ of class $c$, its probability is $e^{s_c}$ divided by the sum of $e^{s_k}$ over all classes
# $k$.
#
# Here is U-Net, the network of notebook 4. A network computes its answer from the picture and from many numbers of its
# own, its *weights*; *training* changes these, little by little, until the answers fit. Here the weights are drawn by
# chance. The network has learnt nothing yet, but the shapes are those of a trained one.
#
# **Predict.** One coloured picture of 64 rows and 96 columns goes in, and there are four classes. What shape comes out?

# %%
unet = tinyseg.models.UNet(in_channels=3, out_channels=4, widths=(4, 8))
unet.eval()
with tinyseg.no_grad():
    out = unet(Tensor(coloured.picture[None])).numpy()
assert out.shape == (1, 4, 64, 96)
np.testing.assert_allclose(out.sum(axis=1), 1, rtol=1e-5)
assert to_mask(out[0]).shape == (64, 96)
out.shape, to_mask(out[0]).shape

# %% [markdown]
# A channel for each class, of the size of the picture. Taking the largest at each pixel leaves a mask of class numbers.
# (`eval` tells the network that it is not being trained, `no_grad` that no gradients are wanted: later.)
#
# ## How good is a mask?
# Counting the wrong pixels is not enough: where objects are small, a mask that finds nothing has few wrong pixels.
# Measures of overlap leave out the background that both agree on. Take a truth $T$ and a prediction $P$ on a grid of 5
# by 5 pixels:

# %%
truth = np.array([[0, 0, 0, 0, 0], [0, 1, 1, 1, 0], [0, 1, 1, 1, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
prediction = np.array([[0, 0, 0, 0, 0], [0, 0, 1, 1, 1], [0, 0, 1, 1, 1], [0, 0, 1, 1, 0], [0, 0, 0, 0, 0]])
assert truth.shape == (5, 5)
tinyseg.explain.maps(
    truth, prediction, truth + 2 * prediction, titles=["truth", "prediction", "truth + 2 * prediction"]
)

# %% [markdown]
# In the sum, 3 marks the pixels in both (*true positives*, TP), 2 what was found where nothing is (*false positives*,
# FP), and 1 what was missed (*false negatives*, FN). The *intersection* of the masks is TP, their *union* all three:
#
# $$ \mathrm{IoU} = \frac{|T \cap P|}{|T \cup P|} = \frac{TP}{TP + FP + FN}, \qquad
# \mathrm{Dice} = \frac{2\,|T \cap P|}{|T| + |P|} = \frac{2\,TP}{2\,TP + FP + FN} $$
#
# *IoU* is short for intersection over union, and is also called the Jaccard index.
#
# **Predict.** Count on the grid. What are IoU and Dice?

# %%
TP, FP, FN = (int((truth + 2 * prediction == number).sum()) for number in (3, 2, 1))
assert (TP, FP, FN) == (4, 4, 2)
assert TP / (TP + FP + FN) == 4 / 10 == 0.4
assert 2 * TP / (2 * TP + FP + FN) == 8 / 14 and round(8 / 14, 3) == 0.571
TP / (TP + FP + FN), 2 * TP / (2 * TP + FP + FN)

# %% [markdown]
# 4 pixels are in both, 4 were found beside the truth, and 2 were missed. IoU is 4 of 10, which is 0.4; Dice is 8 of 14,
# about 0.571. The library counts pixels by true and predicted class, rows for the truth, and takes both measures from
# that table; the last number of each is that of class 1.

# %%
counts = confusion_counts(prediction, truth, classes=2)
assert counts.tolist() == [[15, 4], [2, 4]]
np.testing.assert_allclose([iou(counts)[1], dice(counts)[1]], [4 / 10, 8 / 14])
print(counts)
print("IoU ", iou(counts))
print("Dice", dice(counts))

# %% [markdown]
# Both are 1 where the masks are equal and 0 where they have no pixel in common. In between Dice is the larger, but they
# never disagree on which of two masks is better: $\mathrm{Dice} = 2\,\mathrm{IoU} / (1 + \mathrm{IoU})$ rises with
# IoU.
#
# **Predict.** Back to the dark pixels: what threshold gives the best Dice for cells, 0.1, 0.3 or 0.9? And is it the one
# with the fewest wrong pixels?

# %%
thresholds = np.arange(1, 20) / 20
tables = [confusion_counts(to_mask(probability, t), sample.mask, classes=2) for t in thresholds]
scores = {"Dice": [dice(t)[1] for t in tables], "IoU": [iou(t)[1] for t in tables]}
scores["share of right pixels"] = [np.trace(t) / t.sum() for t in tables]
best = {name: float(thresholds[np.argmax(values)]) for name, values in scores.items()}
figure = Figure(figsize=(6.4, 3.6), layout="constrained")
axes = figure.subplots()
for (name, values), style in zip(scores.items(), ("-", "--", ":"), strict=True):
    axes.plot(thresholds, values, style, label=name)
axes.set(title="cells by their darkness", xlabel="threshold", ylabel="score", ylim=(0, 1))
axes.legend()
figure

# %%
assert best == {"Dice": 0.3, "IoU": 0.3, "share of right pixels": 0.35}
assert 0.45 < sample.mask.mean() < 0.5
best

# %% [markdown]
# 0.3 is the best for Dice, and so for IoU: the middle of a cell is lighter than its rim, and a threshold below 0.5
# keeps more of it. The fewest pixels are wrong at 0.35. The two are close here, since cells cover nearly half of the
# picture; where objects are rare, a high share of right pixels says little.
#
# ## What a detector returns
# Networks that find objects one by one are called *detectors*. They do not number pixels. They return a list of
# *detections*, each a box, a class, a *score* (how sure it is, from 0 to 1) and, if it is a Mask R-CNN (notebook 7), a
# mask, as arrays in a dictionary: `boxes` (K, 4), `labels` (K,), `scores` (K,), `masks` (K, 1, H, W). Detections may
# overlap, and there are usually more of them than objects. Here are three as a detector might give them for the shapes:

# %%
found = {
    "boxes": np.array([[30, 17, 66, 51], [0, 14, 22, 36], [40, 2, 60, 20]], np.float32),
    "labels": np.array([1, 3, 2]),
    "scores": np.array([0.97, 0.81, 0.12], np.float32),
}
drawn = draw.detections(
    coloured.picture, **found, class_names=coloured.class_names, scale=8, line_width=6, font_size=24
)
show([drawn], ["three detections"], size=6.4, scale=8)

# %% [markdown]
# Whether a detection is right is again a matter of overlap, now of boxes: the IoU of two boxes is the area of their
# intersection by that of their union. A usual rule: it is right if its class is right and its IoU with an object that
# has no detection yet is at least 0.5.
#
# **Predict.** Which of the three are right?

# %%
overlaps = ops.box_iou(found["boxes"], coloured.boxes)
right = [
    bool(coloured.classes[row.argmax()] == label and row.max() >= 0.5)
    for row, label in zip(overlaps, found["labels"], strict=True)
]
assert right == [True, True, False]
assert sum(right) / len(right) == 2 / 3 and sum(right) / K == 2 / 4  # precision, recall
print(overlaps.round(2))

# %% [markdown]
# The disc and the triangle are right. The third lies where nothing is; its low score says that the detector was not
# sure, and a threshold on the scores would drop it. The two rectangles were missed.
#
# *Precision* is the share of the detections that are right, here 2 of 3, and *recall* the share of the objects that are
# found, here 2 of 4. With a lower threshold on the scores recall rises and precision usually falls. The precision,
# averaged over all recalls from 0 to 1, is the *average precision* (AP) that papers report; the average over classes
# and over several limits for the IoU in the place of 0.5 is the measure of COCO, the best-known collection of pictures
# with objects.
#
# ## A map of the course
# | notebook | what it is about |
# | --- | --- |
# | 1 | what goes in and what comes out: this one |
# | [2](02_convolution.ipynb) | convolution, forward and backward, by hand |
# | [3](03_pooling_upsampling_normalising.ipynb) | how networks shrink, enlarge and normalise |
# | [4](04_unet.ipynb) | U-Net, for semantic segmentation, trained in front of you |
# | [5](05_anchors_rpn_nms.ipynb) | how a detector proposes boxes |
# | [6](06_roi_pool_roi_align.ipynb) | RoIPool and RoIAlign: from a box to a small map, and what rounding costs |
# | [7](07_detector_xray.ipynb) | Faster R-CNN and Mask R-CNN, seen from inside, stage by stage |
# | [8](08_loop_to_kernel.ipynb) | how a textbook loop becomes a fast kernel |
# | [9](09_gpu.ipynb) | the same kernel on a GPU |
# | [10](10_break_it.ipynb) | what goes wrong, and how to notice |
#
# For masks of classes, notebooks 2 to 4 are enough; for objects, go on to notebook 7. Notebooks 8 and 9 are for those
# who want to know why it is fast.

# %% [markdown]
# ## Questions
# Write the answer in place of the three dots and run the cell.
#
# **1.** What is the IoU of these two masks?

# %%
truth = [[0, 1, 1, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
prediction = [[0, 0, 0, 0], [0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0]]

answer = ...
tinyseg.lessons.check("segmentation.1", answer)

# %% [markdown]
# **2.** The IoU of two masks is a half. What is their Dice?

# %%
answer = ...
tinyseg.lessons.check("segmentation.2", answer)

# %% [markdown]
# **3.** A U-Net for three classes is given two grey pictures at a time, each 48 pixels high and 64 wide. Which shape
# has the array of probabilities that it returns?

# %%
answer = ...
tinyseg.lessons.check("segmentation.3", answer)

# %% [markdown]
# **4.** An object fills rows 2 to 4 and columns 1 to 5 of a picture, the last ones included. What is its box?

# %%
answer = ...
tinyseg.lessons.check("segmentation.4", answer)

# %% [markdown]
# **5.** How many cells are there, when some of them touch? Which of these arrays tells: `"mask"`, `"probability"` or
# `"instances"`?

# %%
answer = ...
tinyseg.lessons.check("segmentation.5", answer)

# %% [markdown]
# **6.** You raise the threshold from 0.5 to 0.8. The area of the mask `"never grows"`, `"never shrinks"` or
# `"may do either"`?

# %%
answer = ...
tinyseg.lessons.check("segmentation.6", answer)
