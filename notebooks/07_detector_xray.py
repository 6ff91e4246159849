# %% [markdown]
# # From Faster R-CNN to Mask R-CNN, by x-ray
# A detector is a chain of some fifteen steps, each of which can lose an object. In this notebook you train a small Mask
# R-CNN and then look at every step of its run on a picture: what went in, what came out, and where each lost object
# went.
#
# **You will be able to**
# - say in a few sentences what Fast, Faster and Mask R-CNN have in common, and what each of them added;
# - read an x-ray of a detector, and say where an object was lost, and why;
# - follow one proposal from its box to its features, class, box and mask;
# - compute where a mask of 28 by 28 numbers is laid into the picture;
# - say what each of the five losses teaches, and which parts of the network it reaches;
# - explain why masks need RoIAlign.
#
# It takes about 60 minutes, and one or two of computing. You should have read [notebook 5](05_anchors_rpn_nms.ipynb),
# on proposals, and [notebook 6](06_roi_pool_roi_align.ipynb), on RoIPool and RoIAlign.

# %%
# %matplotlib inline
from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure

import tinyseg
from tinyseg import Tensor, explain, ops
from tinyseg.boxes import level_of
from tinyseg.colours import OKABE_ITO
from tinyseg.data import SyntheticShapes
from tinyseg.data.normalise import normalise
from tinyseg.models.roi_heads import mask_targets

rng = tinyseg.manual_seed(0)

# %% [markdown]
# ## Three networks
# R-CNN stands for regions with features of a CNN, and a *CNN* is a network of convolutions.
#
# **Fast R-CNN** (Girshick, 2015) gets its boxes from outside, some two thousand for each picture, from a method that
# knows nothing of networks. The backbone computes the feature map of the whole picture once, RoIPool cuts a small grid
# out of it for each box, and *linear* layers, each of whose outputs is a weighted sum of all that goes in, make of the
# grid a class and, for each class, four offsets that improve the box. Class and box are learnt together, from two
# losses.
#
# **Faster R-CNN** (Ren et al., 2015) makes the boxes itself: the region proposal network of notebook 5 looks at the
# same feature map, so proposals cost next to nothing. Everything behind them is Fast R-CNN, unchanged. With the two
# losses of the proposals there are four, and one training for all of it.
#
# **Mask R-CNN** (He et al., 2017) adds a third answer beside class and box: a small network of convolutions, the *mask
# head*, gives each object a mask, one for each class, and that of the object's class counts. RoIPool is replaced by
# RoIAlign, as a mask shows every shift. The fifth loss compares the masks, pixel by pixel.
#
# ## A network of our own
# The pictures show discs, rectangles and triangles, some partly hidden by others. To let a network learn within a
# minute, the classes have colours here: discs are orange, rectangles blue, triangles green, in front of grey. (In
# `tinyseg demo` colours are random, only the outline tells a class, and it takes some minutes.) The network is Mask
# R-CNN as in the paper, with everything made smaller: a *ResNet-18*, a common backbone whose blocks add something to
# what comes in, with a quarter of its channels, and a feature pyramid of four levels, the coarsest of them for
# proposals only.

# %%
made = SyntheticShapes(232, (96, 128), seed=0, count=(2, 4), radius=(14, 30))


def coloured(sample):
    """Return a picture in grey whose objects have the colour of their class."""
    picture = np.repeat(sample.picture.mean(axis=0, keepdims=True), 3, axis=0)
    for label, name in enumerate(("orange", "blue", "bluish green"), 1):
        of_class = sample.mask == label
        picture[:, of_class] = 0.4 * picture[:, of_class] + 0.6 * np.array(OKABE_ITO[name])[:, None] / 255
    return replace(sample, picture=picture)


samples = [coloured(made[i]) for i in range(len(made))]
train, held_out = samples[:200], samples[200:]
settings = {
    "width": 16,
    "channels": 24,
    "returned_layers": (1, 2, 3),
    "anchor_sizes": ((12,), (24,), (48,), (96,)),
    "representation_size": 128,
    "mask_channels": 16,
    "aligned": True,
    "rpn_pre_nms_top_n_train": 300,
    "rpn_post_nms_top_n_train": 100,
    "rpn_pre_nms_top_n_test": 100,
    "rpn_post_nms_top_n_test": 50,
    "rpn_batch_size_per_image": 64,
    "box_batch_size_per_image": 32,
}
model = tinyseg.models.mask_rcnn(made.num_classes, "resnet18", **settings)
history = tinyseg.training.fit(
    model, train, steps=160, batch_size=4, learning_rate=2e-3, augment="none", progress=False
)

# %% [markdown]
# ## Five losses
# They are added up, each with a weight of one, and the sum is made small.
#
# - `loss_objectness`: is there an object at this anchor? Binary cross entropy, over a sample of the anchors.
# - `loss_rpn_box_reg`: how must this anchor be moved? Smooth L1, over the positive anchors of the sample.
# - `loss_classifier`: what is in this proposal? *Cross entropy*: the softmax of notebook 1 turns the logits of all
#   classes and the background into probabilities that add up to 1, and the loss is $-\ln p$, where $p$ is that of the
#   right one.
# - `loss_box_reg`: how must this proposal be moved, if it is what it is? Smooth L1, over the positive proposals, on the
#   four offsets of their own class.
# - `loss_mask`: which pixels are the object's? Binary cross entropy on the mask of the object's own class, over the
#   positive proposals.
#
# A step does not learn from all proposals, but again from a sample: 32 for each picture, at most a quarter of them
# positive (an IoU of 0.5 or more with an object, which is less than anchors need), the rest background. The true boxes
# are added to the proposals first, so that there is something to learn from even while the proposals are bad.

# %% [markdown]
# **Predict.** What should the first values be, of a network that knows nothing: of the classifier, with three classes
# and the background, and of the mask?

# %% tags=["hide-input"]
looks = dict(zip(history.parts, ("blue", "sky blue", "vermilion", "bluish green", "orange"), strict=True))
colour = {name: tuple(part / 255 for part in OKABE_ITO[look]) for name, look in looks.items()}
figure = Figure(figsize=(8.4, 3.6), layout="constrained")
axes = figure.subplots()
for (name, values), marker in zip(history.parts.items(), "os^Dv", strict=True):
    means = [np.mean(values[start : start + 10]) for start in range(0, len(values), 10)]
    axes.plot(np.arange(len(means)) * 10 + 5, means, color=colour[name], marker=marker, markersize=4, label=name)
axes.set(xlabel="step", ylabel="loss, mean of 10 steps", yscale="log")
axes.set_title("The five losses in training")
figure.legend(loc="outside right center", frameon=False)
axes.spines[["top", "right"]].set_visible(False)
figure

# %%
first = {name: values[0] for name, values in history.parts.items()}
last = {name: float(np.mean(values[-20:])) for name, values in history.parts.items()}
print({name: f"{first[name]:.2f} to {last[name]:.2f}" for name in first})
assert abs(np.log(4) - 1.386) < 1e-3 and abs(np.log(2) - 0.693) < 1e-3
assert abs(first["loss_classifier"] - 1.386) < 0.4 and first["loss_mask"] > 2
assert last["loss_mask"] < 0.4 and last["loss_classifier"] < 0.5
assert settings["box_batch_size_per_image"] == 32 and model.roi_heads.fg_iou_thresh == 0.5

# %% [markdown]
# The classifier should begin near $\ln 4$, 1.386, and it does. The mask should begin near $\ln 2$, 0.693, but it begins
# above 2. Its last layer starts with random weights whose standard deviation is $\sqrt{2 / K}$ for $K$ classes, as
# torchvision has it. For the 91 classes that this was made for that is 0.15; for our four it is 0.71, so the first
# masks are sure, and wrong. It takes a few steps to unlearn.
#
# `loss_box_reg` *rises* at first. In the beginning no proposal is good enough to be positive, other than the true boxes
# that were added, whose offsets are all 0. Once the proposals get better they take part, and have to be moved.

# %%
assert round((2 / 91) ** 0.5, 2) == 0.15 and round((2 / 4) ** 0.5, 2) == 0.71
box_loss = history.parts["loss_box_reg"]
assert np.mean(box_loss[40:60]) > 2 * np.mean(box_loss[:5])

# %% [markdown]
# Which part of the network does each loss reach? One forward pass gives all five; from each of them we go backward
# alone.

# %% [markdown]
# **Predict.** Which of the five reach the backbone? Does `loss_mask` reach the layers for class and box? Does
# `loss_classifier` reach the region proposal network?

# %%
parts = {"backbone": "backbone.", "RPN": "rpn.", "class and box": "roi_heads.box_", "mask": "roi_heads.mask_"}
fresh = tinyseg.models.mask_rcnn(made.num_classes, "resnet18", **settings)  # not trained, so that nothing here changes
sample = train[0]
truth = {"boxes": sample.boxes, "labels": sample.classes, "masks": sample.instance_masks}
reaches = {}
print(f"{'':18}" + "".join(f"{part:>15}" for part in parts))
for name in history.parts:
    fresh.zero_grad()
    fresh.generator = np.random.default_rng(0)  # the same sample each time
    fresh([normalise(sample.picture, "standardise")], [truth])[name].backward()
    reaches[name] = {
        part: any(p.grad is not None for key, p in fresh.named_parameters() if key.startswith(start))
        for part, start in parts.items()
    }
    print(f"{name:18}" + "".join(f"{'yes' if reached else '-':>15}" for reached in reaches[name].values()))

assert all(row["backbone"] for row in reaches.values())
assert [row["RPN"] for row in reaches.values()].count(True) == 2
assert reaches["loss_mask"] == {"backbone": True, "RPN": False, "class and box": False, "mask": True}

# %% [markdown]
# Each loss reaches its own branch and the backbone, and nothing else. The branches meet only in the backbone's
# features, which have to serve all of them. That the second stage does not reach the RPN is what *detached* proposals
# mean (notebook 5).
#
# ## The x-ray
# Now a picture that the network has never seen. With the truth given as well, each stage says how many of the true
# objects some box still covers.

# %%
sample = held_out[0]
truth = {"boxes": sample.boxes, "labels": sample.classes}
picture = normalise(sample.picture, "standardise")
xray = explain.detector(model, picture, truth, class_names=made.class_names)
print(xray)
assert xray["anchors"].recall == {0.5: 1, 0.75: 0}
assert xray["anchors"].recall[0.75] < xray["refined"].recall[0.75] < xray["class_boxes"].recall[0.75]

# %% [markdown]
# Read the table from top to bottom: thousands of anchors, a hundred for each level at most, then fewer and fewer boxes.
# Recall at an IoU of 0.5 should stay at 1 as long as possible. At 0.75 it begins at 0 here, since no anchor fits so
# well, and rises with every stage that moves boxes. From `class_boxes` on a box covers an object only if it has its
# class as well.

# %%
xray.figure()

# %% [markdown]
# By an IoU of 0.5 next to nothing is lost in pictures as plain as these. So ask for more: 0.75. `xray.lost(i, iou)`
# says at which stage the last box that covers object `i` went, and why.

# %% [markdown]
# **Predict.** Over all held-out pictures, at which stage are most objects lost, if a box has to overlap them by 0.75?

# %%
fates = {}
for each in held_out:
    known = {"boxes": each.boxes, "labels": each.classes}
    seen = explain.detector(model, normalise(each.picture, "standardise"), known, class_names=made.class_names)
    for i in range(len(each.boxes)):
        lost = seen.lost(i, 0.75)
        fates.setdefault((lost.stage, lost.reason), []).append(lost)
for (stage, reason), lost in sorted(fates.items(), key=lambda pair: -len(pair[1])):
    print(f"{len(lost)} {stage}: {reason}, for example\n   {lost[0].text}")
total = sum(map(len, fates.values()))
worst = max((key for key in fates if key != ("found", "found")), key=lambda key: len(fates[key]))
assert len(fates["found", "found"]) > 0.5 * total and worst == ("class_nms", "suppressed")

# %% [markdown]
# Most are lost to the suppression of doubles, class by class. Each of several boxes around an object has a score for
# its class, and the surest one wins; but the score says what is in the box, not how well the box fits. The better box,
# a little less sure, is removed as its double.
#
# Each reason asks for another remedy. *No anchor*: anchors of other sizes. *Scored too low* or *beyond the limit*: more
# proposals, or longer training of the RPN. *Moved away*: the offsets are not learnt well yet. *Suppressed*: a box with
# a better score and a worse place won; a higher threshold of NMS would keep both. *Below the threshold* or *wrong
# class*: the second stage needs more training, or the object cannot be told from its neighbours. Without this list one
# would train longer in all cases.
#
# ## One proposal, all the way
# Take the proposal that covers object 0 best.

# %%
overlaps = ops.box_iou(sample.boxes, xray["proposals"].boxes)
number = int(overlaps[0].argmax())
box = xray["proposals"].boxes[number]
score = xray["proposals"].scores[number]
print(f"proposal {number}: {box.round(1)}, IoU {overlaps[0, number]:.2f} with object 0, score {score:.2f}")

# %% [markdown]
# ### Which map?
# A large object should be pooled from a coarse map, a small one from a fine one, so that it fills a similar number of
# cells either way. The rule of the feature pyramid for a box of width $w$ and height $h$ is
#
# $$k = \lfloor 4 + \log_2(\sqrt{w h} / 224) \rfloor,$$
#
# where level $k$ has a stride of $2^k$ pixels, and what is beyond the finest or coarsest level goes to that one.

# %% [markdown]
# **Predict.** Which level does a box of 224 by 224 get, which one of 112 by 112, and which do the boxes in our picture
# of 96 by 128 pixels get?

# %%
squares = np.array([[0, 0, side, side] for side in (112, 224, 448)], np.float32)
print("levels:", level_of(squares, 2, 5))
print("maps of our proposals:", set(xray.pooled_from().tolist()))

assert level_of(squares, 2, 5).tolist() == [3, 4, 5] and squares[1, 2] == 224
assert set(xray.pooled_from().tolist()) == {"0"}
assert sample.picture.shape[1:] == (96, 128)
assert level_of(np.array([[0, 0, 96, 96]], np.float32), 2, 4).tolist() == [2]

# %% [markdown]
# Level 4 and level 3; all of ours go to level 2, the finest map, with a stride of 4. The 224 comes from the pictures
# that backbones were first trained on. For small pictures one would choose another number; our small network does well
# without.
#
# ### Pooled
# RoIAlign, aligned, makes of the box 7 by 7 bins, each the mean of 2 by 2 samples, for every channel of the map.
# `xray.roi` gives the trace of notebook 6 for this proposal.

# %%
trace = xray.roi(number)
pooled = xray["pooled"].arrays["pooled"]
assert pooled.shape[1:] == (24, 7, 7) and trace.sampling_ratio == 2
np.testing.assert_allclose(trace.output, pooled[number], atol=1e-5)
print(f"in pixels {box.round(1)}; in cells {np.round(trace.scaled, 2)}; less a half {np.round(trace.box, 2)}")
trace.figure(channel=int(np.abs(pooled[number]).mean(axis=(1, 2)).argmax()))

# %%
xray.figure("pooled")

# %% [markdown]
# ### Class and offsets
# The 24 channels of 7 by 7 bins become one vector of 1176 numbers, two linear layers with ReLU make 128 of it, and two
# more layers read those: one gives a score for each class and the background, the other four offsets *for each class*.
# A disc and a triangle may need different corrections.

# %% [markdown]
# **Predict.** With three classes and the background, how many numbers do the two layers give for each proposal?

# %%
scores, codes = xray["classes"].arrays["logits"], xray["classes"].arrays["codes"]
probabilities = xray["classes"].arrays["probabilities"]
head = model.roi_heads.box_head
assert 24 * 7 * 7 == 1176 == head.fc6.in_features and head.fc7.out_features == 128
assert scores.shape[1] == 4 and codes.shape[1] == 16
label = int(sample.classes[0])
for each, name in enumerate(made.class_names):
    offsets = codes[number, 4 * each : 4 * each + 4].round(2)
    print(f"{name:<11} probability {probabilities[number, each]:.3f}  offsets {offsets}")
np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)

# %% [markdown]
# 4 scores and 16 offsets. Those of the background are never used. The offsets are not those of notebook 5 but ten times
# `dx` and `dy` and five times `dw` and `dh`: the network learns numbers near 1 more readily than numbers near 0.1, and
# proposals are nearly right already. Decoding divides again.

# %%
own = codes[number, 4 * label : 4 * label + 4] / [10, 10, 5, 5]
after = xray["class_boxes"].arrays["decoded"][number, label]
print(f"from {box.round(1)} to {after.round(1)}; the object's box is {sample.boxes[0]}")
centre, size = (box[:2] + box[2:]) / 2 + own[:2] * (box[2:] - box[:2]), (box[2:] - box[:2]) * np.exp(own[2:])
np.testing.assert_allclose(after, np.concatenate([centre - size / 2, centre + size / 2]), atol=1e-3)
assert model.roi_heads.bbox_reg_weights == (10, 10, 5, 5) and (0.1 * 10, scores.shape[1], codes.shape[1]) == (1, 4, 16)

# %%
xray.figure("class_boxes")

# %% [markdown]
# Then come rules that you know: boxes are cut off at the border, those whose class has a probability of 0.05 or less
# are left out, NMS at 0.5 removes doubles, class by class, and at most 100 are kept. 0.05 is low: a detector lists what
# it is not sure of, too, and leaves it to you where to draw the line.

# %%
heads = model.roi_heads
assert (heads.score_thresh, heads.nms_thresh, heads.detections_per_img) == (0.05, 0.5, 100)
xray.figure("class_nms")

# %% [markdown]
# ### Which pixels?
# Masks are made last, and only for the boxes that were found. Each box is pooled again, from the same map, now as 14 by
# 14 bins, since a mask needs more detail than a class. Four convolutions follow, a transposed one doubles the size to
# 28 by 28, and a 1x1 convolution makes one logit for each class.

# %%
logits = xray["mask_logits"].arrays["mask_logits"]
assert xray["mask_logits"].arrays["mask_pooled"].shape[2:] == (14, 14) and logits.shape[1:] == (4, 28, 28)
xray.figure("mask_logits")

# %% [markdown]
# Only the mask of the box's own class is used, and in training only that of the true class gets a gradient. The network
# need not decide in each pixel *what* is there; class and shape are asked separately. The paper calls this the key to
# its masks: with a softmax over classes in each pixel they compete, and average precision falls by five and a half
# hundredths.

# %% [markdown]
# **Predict.** In training, what does the mask head learn from: a true mask of the size of the picture, or one of 28 by
# 28?

# %%
number = int(xray["found"].scores.argmax())
found = xray["found"].boxes[number]
nearest = int(ops.box_iou(sample.boxes, found[None]).argmax())
said = 1 / (1 + np.exp(-logits[number, xray["found"].labels[number]]))
wanted = mask_targets(found[None], np.array([nearest]), sample.instance_masks, 28)[0]
assert wanted.shape == (28, 28) and wanted.min() >= 0 and wanted.max() <= 1
explain.maps(said, wanted, titles=["what it says: probability", "what it should say"], scale=(0, 1), values=False)

# %% [markdown]
# 28 by 28: the truth is brought to the box and not the box to the picture, by RoIAlign on the true mask. At the outline
# its values lie between 0 and 1, as the pixels there are partly inside.
#
# ### Into the picture
# At the end each mask is laid into the picture (*pasted*), over its box, stretched bilinearly. One detail needs care.
# Bilinear stretching repeats the outermost values beyond their centres, so a mask would end abruptly at its box. So it
# first gets a border of zeros one number wide, $M$ becomes $M + 2$, and the box grows about its centre by the same
# factor, $(M + 2) / M$. Then the corners are truncated to whole pixels, and both ends belong to the box.

# %% [markdown]
# **Predict.** A mask of 4 by 4 ones, over the box (4, 4, 8, 8), that is over the columns 4 to 7. Which columns are
# painted, and in which is the value at least 0.5?

# %%
ones = np.ones((1, 1, 4, 4))
pasted = ops.paste_masks(ones, np.array([[4.0, 4, 8, 8]]), (12, 12))[0, 0]
explain.maps(
    np.pad(ones[0, 0], 1), pasted, titles=["with its border", "in the picture"], operators=["becomes"], digits=2
)

# %%
centre, half = (4 + 8) / 2, (8 - 4) / 2 * (4 + 2) / 4
assert (centre - half, centre + half) == (3, 9) and 9 - 3 + 1 == 7
place = (np.arange(7) + 0.5) * 6 / 7 - 0.5  # of the columns 3 to 9, in the mask with its border
expected = np.interp(np.maximum(place, 0), np.arange(6), [0, 1, 1, 1, 1, 0])
np.testing.assert_allclose(pasted[6, 3:10], expected, atol=1e-12)
assert round(expected[1], 2) == 0.79
assert np.flatnonzero(pasted[6] >= 0.5).tolist() == [4, 5, 6, 7, 8]

# %% [markdown]
# The grown box reaches from 3 to 9, both included: 7 columns for 6 numbers. The outermost are 0, the next 0.79, the
# inner ones 1. At the threshold of 0.5 the mask covers the columns 4 to 8, five of them, though the box is four wide.
# It is an old convention, in which the last pixel belongs to the box, left over in one corner of the code; weights that
# were trained elsewhere expect it, and for boxes of 100 pixels it is 1 %.

# %%
assert 1 / 100 == 0.01
xray.figure("masks")

# %% [markdown]
# ## Why masks need RoIAlign
# How much does the operator matter? Put a perfect network in front of it and behind it. In front: a feature map that
# holds the truth, for each cell the part of it that the object covers. Behind: a mask head that answers with exactly
# what it was given. What is lost then was lost by pooling and pasting alone.

# %% [markdown]
# **Predict.** For strides of 4, 8 and 16 pixels: how large is the IoU of the masks that come out with the true ones, by
# RoIPool, by RoIAlign not aligned, and aligned?


# %%
def perfect(stride, operator, bins=14):
    """Return the mean IoU with the truth of masks that were only pooled and pasted."""
    iou = []
    for sample in held_out:
        masks, (height, width) = sample.instance_masks, sample.picture.shape[1:]
        cells = masks.reshape(-1, 1, height // stride, stride, width // stride, stride).mean(axis=(3, 5))
        rois = np.insert(sample.boxes.astype(np.float64), 0, np.arange(len(masks)), axis=1)
        pooled = operator(Tensor(cells), rois, bins, 1 / stride).numpy()
        out = ops.paste_masks(pooled, rois[:, 1:].copy(), (height, width))[:, 0] >= 0.5
        iou += ((out & masks).sum(axis=(1, 2)) / (out | masks).sum(axis=(1, 2))).tolist()
    return np.mean(iou)


operators = {
    "RoIPool": ops.roi_pool,
    "RoIAlign, not aligned": lambda *args: ops.roi_align(*args, 2, aligned=False),
    "RoIAlign, aligned": lambda *args: ops.roi_align(*args, 2, aligned=True),
}
limits = {name: [perfect(stride, operator) for stride in (4, 8, 16)] for name, operator in operators.items()}
for name, values in limits.items():
    print(f"{name:<22} IoU at stride 4: {values[0]:.2f}, at 8: {values[1]:.2f}, at 16: {values[2]:.2f}")

assert abs(limits["RoIPool"][0] - 0.76) < 0.01 and abs(limits["RoIPool"][2] - 0.35) < 0.01
assert abs(limits["RoIAlign, not aligned"][0] - 0.79) < 0.01
assert abs(limits["RoIAlign, aligned"][0] - 0.95) < 0.01 and abs(limits["RoIAlign, aligned"][2] - 0.62) < 0.01

# %% tags=["hide-input"]
figure = Figure(figsize=(7.6, 3.2), layout="constrained")
axes = figure.subplots()
for place, ((name, values), look) in enumerate(zip(limits.items(), ("vermilion", "orange", "blue"), strict=True)):
    bars = axes.bar(
        np.arange(3) + 0.27 * (place - 1), values, 0.25,
        color=tuple(part / 255 for part in OKABE_ITO[look]), label=name, hatch=("//", "..", "")[place],
        edgecolor="white",
    )  # fmt: skip
    axes.bar_label(bars, fmt="%.2f", fontsize=9)
axes.set(ylim=(0, 1.1), xticks=range(3), xlabel="stride of the map, in pixels", ylabel="mean IoU with the truth")
axes.set_xticklabels(["4", "8", "16"])
axes.set_title("Masks that were only pooled and pasted: the best that a perfect mask head can do")
axes.spines[["top", "right"]].set_visible(False)
figure.legend(loc="outside lower center", ncols=3, frameon=False)
figure

# %% [markdown]
# At stride 4 aligned RoIAlign keeps 0.95 of the truth, RoIPool 0.76, and the unaligned form 0.79. At stride 16, with
# objects of a few cells, they keep 0.62 and 0.35. The unaligned form's shift is the same for every box, half a cell,
# and a mask head that is trained can make up for much of it. For RoIPool's it cannot: that differs from box to box, and
# nothing in the pooled numbers tells how large it was (notebook 6).
#
# Now the network that we have. It was trained with RoIAlign; what if RoIPool takes its place in the mask branch, and
# nowhere else?

# %% [markdown]
# **Predict.** Will the boxes change? Will the masks?


# %%
def mask_iou(model):
    """Return the boxes found, and the mean IoU of masks with those of the objects that their boxes cover."""
    boxes, iou = [], []
    for sample in held_out:
        with tinyseg.no_grad():
            (found,) = model([normalise(sample.picture, "standardise")])
        boxes.append(found["boxes"].numpy())
        sure = found["scores"].numpy() >= 0.5
        out, overlap = found["masks"].numpy()[sure, 0] >= 0.5, ops.box_iou(boxes[-1][sure], sample.boxes)
        for mask, row in zip(out, overlap, strict=True):
            if row.max() >= 0.5:
                true = sample.instance_masks[row.argmax()]
                iou.append((mask & true).sum() / (mask | true).sum())
    return np.concatenate(boxes), np.mean(iou)


model.eval()
boxes, by_align = mask_iou(model)
model.roi_heads.mask_roi_pool.roi_op = "pool"
same_boxes, by_pool = mask_iou(model)
model.roi_heads.mask_roi_pool.roi_op = "align"
print(f"mean IoU of masks: {by_align:.3f} by RoIAlign, {by_pool:.3f} by RoIPool")
assert np.array_equal(boxes, same_boxes)
assert by_align > 0.7 and by_align - by_pool > 0.08

# %% [markdown]
# The boxes are the same to the last bit: masks come after everything is decided. The masks are worse. It is not a fair
# match, as this mask head learnt from RoIAlign's numbers; `tinyseg.models.mask_rcnn(..., roi_op="pool")` builds the
# network that learns from RoIPool's, and the table in tinyseg's README compares the two, each trained in its own way.
#
# Without its mask branch, then, this network *is* a Faster R-CNN; and if the boxes came from outside, it would be Fast
# R-CNN, but for RoIAlign and the pyramid.

# %% [markdown]
# ## Questions
# Replace the `...` and run the cell; it says whether you are right.
#
# **1.** A detector for 20 classes: how many numbers does the layer for offsets give for each proposal?

# %%
answer = ...
tinyseg.lessons.check("detectors.1", answer)

# %% [markdown]
# **2.** The pyramid has levels 2 to 5. From the map of which stride, in pixels, is a box of 150 by 60 pooled?

# %%
answer = ...
tinyseg.lessons.check("detectors.2", answer)

# %% [markdown]
# **3.** A mask of 28 by 28 lies over the box (10, 20, 38, 48). Which are the first and the last column of pixels of the
# grown box?

# %%
answer = (..., ...)
tinyseg.lessons.check("detectors.3", answer)

# %% [markdown]
# **4.** A proposal shows a disc, but the network takes it for a triangle. Which of its masks gets a gradient from
# `loss_mask`: that of the `"disc"`, that of the `"triangle"`, or `"both"`?

# %%
answer = ...
tinyseg.lessons.check("detectors.4", answer)

# %% [markdown]
# **5.** An object is covered after `nms`, and by none of the `proposals`. What was the reason: `"suppressed"`,
# `"beyond the limit"`, `"wrong class"` or `"no anchor"`?

# %%
answer = ...
tinyseg.lessons.check("detectors.5", answer)

# %% [markdown]
# **6.** You replace RoIAlign by RoIPool in the mask branch of a trained network. Its boxes stay as they were: `True` or
# `False`?

# %%
answer = ...
tinyseg.lessons.check("detectors.6", answer)
