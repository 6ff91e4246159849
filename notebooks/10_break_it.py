# %% [markdown]
# # Break it
# Everything so far went well. Here it does not: boxes that are no boxes, pictures without objects, a batch of one,
# sizes that do not fit. Each of these turns up sooner or later in real training runs, usually at night.
#
# **You will be able to**
# - say beforehand which of these ends in an error, which in an odd number, and which is fine;
# - tell an error that protects you from one that is your own;
# - find the usual reasons why a loss becomes NaN, a learning rate seems to grow, or a score is too good.
#
# It takes about 30 minutes, and half a minute of computing. You should have read notebooks 1 to 7.

# %%
# %matplotlib inline
import numpy as np

import tinyseg
from tinyseg import Tensor, explain, models, nn, ops

rng = tinyseg.manual_seed(0)


def attempt(what, call):
    """Print what a call returns, or the error that it ends with."""
    try:
        result = call()
        result = result.numpy() if isinstance(result, Tensor) else result
        shown = str(result.tolist() if isinstance(result, np.ndarray) and result.size < 9 else result)
    except Exception as error:
        result, shown = error, f"{type(error).__name__}: {error}"
    print(f"{what}\n    {shown}")
    return result


# %% [markdown]
# ## Boxes that are no boxes
# The ramp of notebook 6 again, and RoI operators with 2 by 2 bins.

# %% [markdown]
# **Predict.** What do RoIPool and RoIAlign (aligned, 2 by 2 samples) make of a box that is reversed, (3, 3, 1, 1)? Of a
# box without area, (2, 2, 2, 2)?

# %%
ramp = Tensor(np.arange(25.0).reshape(1, 1, 5, 5))


def pool(*box):
    return ops.roi_pool(ramp, np.array([[0.0, *box]]), 2).numpy()[0, 0]


def align(*box, sampling_ratio=2, aligned=True):
    rois = np.array([[0.0, *box]])
    return ops.roi_align(ramp, rois, 2, sampling_ratio=sampling_ratio, aligned=aligned).numpy()[0, 0]


reversed_pool = attempt("reversed, RoIPool", lambda: pool(3, 3, 1, 1))
reversed_align = attempt("reversed, RoIAlign", lambda: align(3, 3, 1, 1))
empty_pool = attempt("no area, RoIPool", lambda: pool(2, 2, 2, 2))
empty_align = attempt("no area, RoIAlign", lambda: align(2, 2, 2, 2))

assert (reversed_pool == 18).all() and reversed_align.tolist() == [[12, 11], [7, 6]]
assert (empty_pool == 12).all() and (empty_align == 9).all()

# %% [markdown]
# None of them is an error. RoIPool makes any box at least one cell large: of the reversed one it takes the cell at its
# start, 18 in row 3 and column 3; of the empty one the cell 12. RoIAlign takes the reversed box as it comes and walks
# it backwards, so the result is mirrored. The empty one has all samples in one place, and its value there is 9, between
# the cells 6, 7, 11 and 12.

# %%
trace = explain.roi(np.arange(25.0).reshape(5, 5), (3, 3, 1, 1), output_size=2, sampling_ratio=2, aligned=True)
trace.figure()

# %% [markdown]
# The samples of the reversed box are those of the box (1, 1, 3, 3), but bin (0, 0) has those at the lower right.
#
# With `sampling_ratio=-1`, as many samples as the bin has cells, these boxes have no samples, or less than none.

# %% [markdown]
# **Predict.** Which of these are errors now: the box without area, the reversed one, a box with NaN, one off the map,
# one that is a thousand million pixels wide?

# %%
assert (6 + 7 + 11 + 12) / 4 == 9
adaptive_empty = attempt("no area, adaptive", lambda: align(2, 2, 2, 2, sampling_ratio=-1))
adaptive_reversed = attempt("reversed, adaptive", lambda: align(3, 3, 1, 1, sampling_ratio=-1))
nan = attempt("NaN", lambda: align(np.nan, 0, 1, 1))
far = attempt("off the map", lambda: align(-30, -30, -20, -20))
huge = attempt("huge", lambda: align(0, 0, 1e9, 1e9, sampling_ratio=-1))

assert (adaptive_empty == 0).all() and (far == 0).all()
assert isinstance(adaptive_reversed, ValueError) and isinstance(nan, ValueError)
assert 0 < huge.max() < 1e-12

# %% [markdown]
# - Without area and with an adaptive number of samples the mean of nothing is taken to be 0. So the same box gives 9 or
#   0, by a parameter that seems to be about precision.
# - A reversed box is an error in this mode: torchvision's own code throws for some of them and gives 0 for others, so
#   nothing can be relied on.
# - NaN and infinite coordinates are errors, always. In compiled code, a NaN that becomes an index reads memory that is
#   not yours; the check runs before any kernel does. Where do NaN boxes come from? From `exp(dh)` of an untrained
#   network, which is why detectors clamp `dh` at log(1000 / 16), which is 4.14.
# - A box off the map gives 0.
# - A huge box has 10 to the 18 samples, nearly all of them off the map. The kernel visits those on the map and divides
#   by the full count. Nothing hangs, and the answer is next to 0, as it should be.

# %%
assert round(np.log(1000 / 16), 2) == 4.14
assert (1e9) ** 2 == 10.0**18

# %% [markdown]
# ## Nothing at all

# %% [markdown]
# **Predict.** No boxes: what is the shape of the output? A picture without objects in training: which of the losses of
# a Mask R-CNN are NaN?

# %%
nothing = attempt("no boxes", lambda: ops.roi_align(ramp, np.zeros((0, 5)), 2, aligned=True).shape)
detector = models.mask_rcnn(num_classes=3, width=8, channels=8, representation_size=16)
picture = rng.random((3, 64, 64), dtype=np.float32)
no_objects = {
    "boxes": np.zeros((0, 4), np.float32),
    "labels": np.zeros(0, np.int64),
    "masks": np.zeros((0, 64, 64), np.uint8),
}
losses = detector([picture], [no_objects])
for name, loss in losses.items():
    print(f"{name:<18} {loss.item():.3f}")

assert nothing == (0, 1, 2, 2)
assert losses["loss_mask"].item() == losses["loss_box_reg"].item() == losses["loss_rpn_box_reg"].item() == 0
assert losses["loss_objectness"].item() > 0

# %% [markdown]
# None is NaN. An empty array has a shape, (0, 1, 2, 2), and kernels over it do nothing. Losses over no objects are 0,
# not 0 / 0. The other two losses are not 0: the picture teaches what background looks like. Data sets do contain such
# pictures; a loader that leaves them out throws good examples away.
#
# ## Objects that are wrong

# %% [markdown]
# **Predict.** Which of these targets does the detector refuse? A box without width; a label 7 where there are 3
# classes; a label 0; a picture in whole numbers from 0 to 255.


# %%
def with_object(box, label):
    target = {
        "boxes": np.array([box], np.float32),
        "labels": np.array([label]),
        "masks": np.ones((1, 64, 64), np.uint8),
    }
    return detector([picture], [target])["loss_mask"].item()


refused = [
    attempt("no width", lambda: with_object([5, 5, 5, 9], 1)),
    attempt("label 7", lambda: with_object([5, 5, 9, 9], 7)),
    attempt("label 0", lambda: with_object([5, 5, 9, 9], 0)),
    attempt("whole numbers", lambda: detector([rng.integers(0, 256, (3, 64, 64))], [no_objects])),
]
attempt("all well", lambda: with_object([5, 5, 30, 30], 1))
assert all(isinstance(error, ValueError | TypeError) for error in refused)
assert np.iinfo(np.uint8).max == 255  # of a picture in whole numbers of 8 bits

# %% [markdown]
# All four. Class 0 is the background, so objects count from 1, and with 3 classes the last is 2. Pictures are floats
# from 0 to 1: a detector fed with 0 to 255 would run, and learn little, because the numbers behind its first layers
# would be hundreds of times too large. An error at the start is cheaper than a wasted night.
#
# ## A batch of one
# Batch normalisation (notebook 3) subtracts the mean of a channel over the batch and divides by its standard deviation.

# %% [markdown]
# **Predict.** What happens in training with a single picture, when the map is 1 by 1? When it is 2 by 2, with all
# values equal?

# %%
norm = nn.BatchNorm2d(3)
single = attempt("1 x 1", lambda: norm(Tensor(np.ones((1, 3, 1, 1), np.float32))))
equal = attempt("2 x 2, all equal", lambda: np.unique(norm(Tensor(np.full((1, 3, 2, 2), 5, np.float32))).numpy()))
assert isinstance(single, ValueError) and equal.tolist() == [0]

# %% [markdown]
# One value has no variance: an error, as in PyTorch. Equal values have variance 0; the small `eps` in the square root
# keeps the division finite, and the result is 0. With very small batches the statistics are noise even where nothing
# fails; detectors, which train on one or two large pictures at a time, therefore *freeze* them.
#
# ## Sizes that do not fit
# A U-Net with two poolings halves the picture twice and doubles it twice. 37 is odd.

# %% [markdown]
# **Predict.** What comes out for a picture of 37 by 50? Where would the trouble be?

# %%
unet = models.UNet(widths=(4, 8, 16)).eval()
with tinyseg.no_grad():
    odd = attempt("37 x 50", lambda: unet(Tensor(rng.random((1, 1, 37, 50), dtype=np.float32))).shape)
    halved = ops.max_pool2d(Tensor(np.zeros((1, 1, 37, 50))), 2)
    doubled = ops.interpolate(halved, scale_factor=2)
    skip = attempt("37, halved and doubled", lambda: doubled.shape)
    joined = attempt("joined", lambda: ops.cat([doubled, Tensor(np.zeros((1, 1, 37, 50)))], 1))

assert odd == (1, 1, 37, 50)
assert skip == (1, 1, 36, 50) and isinstance(joined, Exception)

# %% [markdown]
# 37 halved is 18, and doubled 36: what comes up does not fit beside what was kept on the way down. tinyseg's U-Net pads
# the picture to a multiple of 4 by reflection, and cuts the result back to 37 by 50. The original U-Net cut the other
# side instead, and lost a border.
#
# ## Loss and NaN
# With several classes, the loss of a pixel or a box is the *cross entropy*: -log of the probability that the softmax
# (notebook 1) gives to the true class. Written as the formula says, it takes exp of the raw scores, the logits.

# %% [markdown]
# **Predict.** What is the loss for scores (1000, 0) and true class 0? For true class 1? And with the formula, in
# float32?


# %%
def by_formula(scores, label):
    with np.errstate(all="ignore"):
        e = np.exp(np.asarray(scores, np.float32))
        return float(-np.log(e[label] / e.sum()))


scores = Tensor(np.array([[1000.0, 0.0]], np.float32))
for label in (0, 1):
    print(f"class {label}: library {ops.cross_entropy(scores, np.array([label])).item()}", end="")
    print(f", formula {by_formula([1000, 0], label)}")

assert ops.cross_entropy(scores, np.array([0])).item() == 0 and ops.cross_entropy(scores, np.array([1])).item() == 1000
assert np.isnan(by_formula([1000, 0], 0))

# %% [markdown]
# exp(1000) is infinite in every float. Infinity by infinity is NaN, for class 0; for class 1 it is 1 by infinity, and
# the logarithm of 0. The library subtracts the largest score first, which changes nothing in exact arithmetic; so the
# losses are 0 and 1000. `binary_cross_entropy_with_logits` does the same for one score. If your loss is NaN, look first
# for an `exp`, a `log`, a division or a square root that you wrote yourself.
#
# ## Gradients that add up

# %% [markdown]
# **Predict.** The derivative of x squared at 3 is 6. You call `backward()` three times. What is the gradient?

# %%
x = Tensor(np.array([3.0]), requires_grad=True)
for _ in range(3):
    (x * x).sum().backward()
print(x.grad.numpy())
assert x.grad.numpy().tolist() == [18] == [3 * 6]

# %% [markdown]
# 18, since gradients add up until somebody clears them: `optimiser.zero_grad()` before each step. Adding up is on
# purpose. It lets two losses share a network, or a large batch be worked through in pieces; forgotten, it looks like a
# learning rate that grows.
#
# ## Small numbers beside large ones

# %% [markdown]
# **Predict.** In float32, how much is 100,000,000 + 1? And how large is a float32 sum of twenty million ones, added one
# by one?

# %%
print(np.float32(1e8) + np.float32(1))
one_by_one = np.cumsum(np.ones(20_000_000, np.float32))[-1]
print(one_by_one)
assert np.float32(1e8) + np.float32(1) == 100_000_000
assert one_by_one == 2**24 == 16_777_216

# %% [markdown]
# A float32 has 24 bits for its digits. At 16,777,216 the next number is 2 further on, so adding 1 changes nothing, and
# the sum of twenty million ones stays there. Sums over a large map are added in parts for this reason, and counts are
# kept in whole numbers. It is also why two kernels that add in different orders differ in the last digits.

# %%
assert np.spacing(np.float32(2**24)) == 2 and np.finfo(np.float32).nmant + 1 == 24

# %% [markdown]
# ## Equal scores

# %% [markdown]
# **Predict.** Which one of three boxes, one on top of the other and all with score 0.5, survives non-maximum
# suppression? And two boxes without area in the same place?

# %%
stack = np.array([[0, 0, 4, 4], [0, 0, 4, 4], [0, 0, 4, 4.0]])
kept = attempt("equal boxes and scores", lambda: ops.nms(stack, np.full(3, 0.5), 0.5))
flat = attempt("no area", lambda: ops.nms(np.array([[1, 1, 1, 1], [1, 1, 1, 1.0]]), np.array([0.9, 0.8]), 0.5))
assert kept.tolist() == [0] and flat.tolist() == [0, 1]

# %% [markdown]
# The first of the equal ones stays, in every backend: a result that depended on chance could not be tested. The two
# boxes without area both stay: their overlap is 0 / 0, and a comparison with NaN is never true.
#
# ## Too good to be true
# Somebody's network segments pictures of noise, in which there are no objects, with a Dice of 1. It says "background"
# everywhere.

# %% [markdown]
# **Predict.** Whose Dice is 1, and what is the Dice of the foreground?

# %%
from tinyseg.evaluation import confusion_counts, dice

noise = [rng.random((16, 16)) for _ in range(4)]
truth = [np.zeros((16, 16), int) for _ in noise]
predicted = [np.zeros((16, 16), int) for _ in noise]
counts = sum(confusion_counts(p, t, classes=2) for p, t in zip(predicted, truth, strict=True))
print("Dice of background and foreground:", dice(counts))
assert dice(counts).tolist() == [1, 1]

# %% [markdown]
# Both are 1. The background is everywhere, and found everywhere. Of the foreground nothing is there and nothing is
# found: 0 / 0, which counts as full agreement. A network that does nothing is perfect on pictures without objects. Look
# at the class that you care about, on pictures that have it; and look at the pictures, always. The second classic is
# that the same picture lies in the training set and in the held-out set under two names.

# %% [markdown]
# ## Questions
# Replace the `...` and run the cell; it says whether you are right.
#
# **1.** RoIAlign, aligned, box without area, `sampling_ratio=0`: what is every output?

# %%
answer = ...
tinyseg.lessons.check("mistakes.1", answer)

# %% [markdown]
# **2.** A U-Net with four poolings gets a picture of 100 by 100. To which height does it have to be padded?

# %%
answer = ...
tinyseg.lessons.check("mistakes.2", answer)

# %% [markdown]
# **3.** You call `backward()` on the same loss twice without `zero_grad()`, then take a step with learning rate 0.1.
# Which learning rate, with a single `backward()`, would have moved the weights as far, if a step subtracts the learning
# rate times the gradient?

# %%
answer = ...
tinyseg.lessons.check("mistakes.3", answer)

# %% [markdown]
# **4.** A detector has `num_classes=5`. What is the largest label that an object may have?

# %%
answer = ...
tinyseg.lessons.check("mistakes.4", answer)

# %% [markdown]
# **5.** Your loss becomes NaN at step 300, in `-log(p)` of your own. Which change mends it? `"logits"`, to compute the
# loss from the raw scores; `"clip"`, to clip the gradient; `"float64"`, to compute in float64.

# %%
answer = ...
tinyseg.lessons.check("mistakes.5", answer)
