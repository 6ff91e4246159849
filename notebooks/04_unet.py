# %% [markdown]
# # A U-Net from kernels, trained in front of you
# U-Net is a network that gives each pixel of a picture a probability. In this notebook you put one together from the
# operators that you know, watch it learn to find cells in a minute, take it apart to see what its pieces are for, and
# look at what it sees.
#
# **You will be able to**
# - name the parts of a U-Net and say the shape of every map in it;
# - write its forward pass with plain operators and get the library's numbers;
# - write a training loop, and read a loss curve and a Dice score;
# - say what skip connections carry, and show it by an experiment;
# - say how far a network sees, and what happens to pictures of odd sizes.
#
# It takes about an hour. Read [Convolution by hand](02_convolution.ipynb) and
# [Transposed convolution, pooling, normalisation](03_pooling_upsampling_normalising.ipynb) first.

# %%
# %matplotlib inline
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

import tinyseg
from tinyseg import Tensor, draw, explain, no_grad, ops, optim
from tinyseg.data import Batches, SyntheticCells, normalise
from tinyseg.data.augment import Compose, Crop, Flip, Rotate90
from tinyseg.evaluation import SegmentationScores, predict, to_mask
from tinyseg.models import UNet

tinyseg.manual_seed(0)


def side_by_side(drawings, titles, **options):
    """Show drawings at twice their size."""
    larger = [draw.to_rgb(drawing).repeat(2, 0).repeat(2, 1) for drawing in drawings]
    return Image.fromarray(draw.panels(larger, titles, **options))


# %% [markdown]
# ## The task
# The pictures are made up from a seed: cells with membranes and nuclei, uneven light, noise. The truth is known, as
# whoever painted the picture knew where the cells are. Of 24 pictures the network learns from 18; the other 6 are *held
# out*: it never learns from them, and they show whether it has understood or only remembered.

# %%
pictures = SyntheticCells(24, size=128, seed=0, noise=0.12)
samples = [pictures[i] for i in range(24)]
learn, held_out = samples[:18], samples[18:]
assert (len(samples), len(learn), len(held_out)) == (24, 18, 6)

sample = held_out[0]
print("picture:", sample.picture.shape, sample.picture.dtype, " mask:", sample.mask.shape, sample.mask.dtype)
side_by_side([sample.picture, draw.overlay(sample.picture, sample.mask)], ["picture", "truth: cells in orange"])

# %% [markdown]
# ## The parts
# A U-Net goes down and up again.
#
# - **Down.** On each level there are two blocks of convolution, BatchNorm and ReLU. Then max pooling halves height and
#   width, and the next level has twice the channels: fewer places, more to say about each.
# - **Up.** A transposed convolution, 2x2 with a stride of 2, doubles height and width and halves the channels, and two
#   blocks follow.
# - **Across.** At each level the way down hands a copy of its map to the way up, where it is joined to the enlarged map
#   as further channels. These are the *skip connections*.
# - **Out.** A last convolution makes one number of all channels for each pixel, its *logit*. The *sigmoid* of notebook
#   1 turns it into a probability from 0 to 1.
#
# `widths` says how many channels each level has.

# %%
model = UNet(in_channels=1, out_channels=1, widths=(8, 16, 32, 64))
x = Tensor(sample.picture[None])
with no_grad():
    probability = model(x)

# %% [markdown]
# ### From kernels
# Here is the whole network, written with the operators of the last two notebooks. It takes the weights of `model` by
# their names and prints the shapes.
#
# **Predict.** With widths of 8, 16, 32 and 64, and a picture of 128 by 128 pixels: which shape has the map on the
# lowest level? Which shape has the result?


# %%
def block(x, layer):
    """Twice: convolution, BatchNorm, ReLU."""
    for conv, norm in ((layer.conv1, layer.bn1), (layer.conv2, layer.bn2)):
        x = ops.conv2d(x, conv.weight, conv.bias, padding=1)
        x = ops.relu(ops.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, training=False))
    return x


def enlarge(x, layer):
    """Transposed convolution, BatchNorm, ReLU."""
    conv, norm = layer.conv1, layer.bn1
    x = ops.conv_transpose2d(x, conv.weight, conv.bias, stride=2)
    return ops.relu(ops.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, training=False))


def unet(x, model, say=print):
    across = []
    for level in (1, 2, 3):
        x = block(x, getattr(model, f"layer{level}_conv"))
        say(f"level {level}, down  ", x.shape)
        across.append(x)
        x = ops.max_pool2d(x, 2)
    x = block(x, model.layer4_conv)
    say("level 4        ", x.shape)
    for level, step in ((3, 1), (2, 2), (1, 3)):
        x = ops.cat([enlarge(x, getattr(model, f"deconv{step}")), across.pop()], 1)
        say(f"level {level}, joined", x.shape)
        x = block(x, getattr(model, f"layer{4 + step}_conv"))
        say(f"level {level}, up    ", x.shape)
    return ops.conv2d(x, model.layer8_conv.weight, model.layer8_conv.bias, padding=1)


model.eval()
with no_grad():
    logits = unet(x, model)
    np.testing.assert_allclose(logits.numpy(), model.logits(x).numpy(), rtol=1e-3, atol=1e-4)
assert logits.shape == probability.shape == (1, 1, 128, 128)
print("result         ", logits.shape)

# %% [markdown]
# The lowest map has 64 channels of 16 by 16 pixels, the result one channel of the picture's own size. The order in
# which the joined channels stand is a convention (here: what comes from below first). The library's own code does the
# same and gives the same numbers; it only saves work, such as joining without a copy.
#
# **Predict.** Which level holds most of the weights: the first, where the maps are largest, or the lowest?

# %%
assert model.layer4_conv.conv2.weight.shape[:2] == (64, 64) and 128 // 2**3 == 16
counts = {}
for name, parameter in model.named_parameters():
    layer = name.split(".")[0]
    counts[layer] = counts.get(layer, 0) + parameter.size
total = sum(counts.values())
for layer, count in counts.items():
    print(f"{layer:12} {count:6}   {count / total:4.0%}")
assert total == 121561 and max(counts, key=counts.get) == "layer4_conv"
assert 0.45 < counts["layer4_conv"] / total < 0.47

# %% [markdown]
# The lowest: nearly half of all 121561 numbers. A convolution has channels in times channels out times nine weights,
# and the size of the maps does not count. The work is another matter: each level down has four times the weights, but a
# quarter of the pixels at which they are used, so it costs about as much as the one above. `explain.graph` draws what
# one run does, with both.

# %%
graph = explain.graph(model, (1, 1, 128, 128))
blocks = {block.name: block for block in graph.blocks(depth=1)}
assert blocks["layer2_conv"].flops == blocks["layer4_conv"].flops
graph.figure(depth=1)

# %% [markdown]
# Each arrow carries a map, with its shape; MFLOP are millions of multiplications and additions. The three long arrows
# on the right are the skip connections, and the blocks at their ends join two maps. (`+ norm + relu`: outside of
# training, BatchNorm and ReLU are computed in the same pass as the convolution.)
#
# ## The loss
# What should training make small? For each pixel the network gives the probability $p$ that it is a cell. If it is one,
# the loss of the pixel is $-\ln p$; if it is not, $-\ln (1 - p)$. In both cases that is 0 when the network is right and
# sure, and grows without limit when it is sure and wrong. The mean over all pixels is called *binary cross entropy*.
#
# **Predict.** A network that has learned nothing says a half for each pixel. What is its loss?

# %%
half = ops.binary_cross_entropy_with_logits(Tensor(np.zeros((1, 1, 2, 2))), Tensor(np.array([[[[0.0, 1], [1, 1]]]])))
print(half.item(), -np.log(0.5))
assert abs(half.item() - 0.693) < 0.001

# %% [markdown]
# It is $\ln 2$, about 0.693, whatever the truth. That is the number to start from: a first loss far from it means that
# something is wrong before training has begun.
#
# ## Training
# The loop is short. A *batch* holds eight random crops of 64 by 64 pixels, randomly mirrored and turned by quarter
# turns, so that no two batches are alike. Each *step* computes the loss of a batch, walks the tape back for the
# gradients, and has the optimiser change each weight a little against its gradient. *Adam* is an optimiser that scales
# the change of each weight by how large its gradients have been so far. The *learning rate* says how large a step is;
# here it rises at first and then falls to nearly zero.


# %%
def train(model, steps, seed, crop=64, watch=None):
    """Train a network; return the loss of each step."""
    augment = Compose([Crop(crop), Flip(), Rotate90()])
    batches = Batches(learn, 8, seed=seed, augment=augment, normalisation="standardise", num_classes=1)
    optimiser = optim.Adam(model.parameters(), lr=5e-3)
    schedule = optim.OneCycleLR(optimiser, max_lr=5e-3, total_steps=steps + 1)
    losses = []
    for step in range(steps):
        if watch is not None:
            watch(model, step)
        model.train()
        x, truth = batches[step]
        loss = ops.binary_cross_entropy_with_logits(model.logits(Tensor(x)), Tensor(truth))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
    if watch is not None:
        watch(model, steps)
    return losses


# %% [markdown]
# `standardise` brings each picture to mean 0 and standard deviation 1, so that it does not matter how bright it is.
# `model.train()` has BatchNorm use the batch's own statistics; looking at a picture is done in evaluation mode, by
# `predict`.
#
# *Dice* is twice the number of pixels in both masks, divided by the sum of their areas: 1 if they are the same, 0 if
# they share nothing. To make a mask, every pixel with a probability of at least a half counts as cell.
#
# **Predict.** Each step sees eight small crops. After how many steps will the network find most of the cells in a
# picture that it has never seen: 10, 40, 100, 200?

# %%
seen = {}


def watch(model, step):
    if step in (0, 10, 20, 40, 100, 200):
        probability = predict(model, sample.picture)
        scores = SegmentationScores()
        for other in held_out:
            scores.update(to_mask(predict(model, other.picture)), other.mask)
        seen[step] = draw.probability_map(probability), scores.mean()["dice"]
        print(f"after {step:3} steps: Dice on the held-out pictures {seen[step][1]:.2f}")


tinyseg.manual_seed(0)
model = UNet(widths=(8, 16, 32, 64))
losses = train(model, steps=200, seed=0, watch=watch)
assert {8, 64} <= {*model.widths} and sorted(seen) == [0, 10, 20, 40, 100, 200]

# %%
side_by_side([image for image, _ in seen.values()], [f"after {step} steps" for step in seen], columns=3)

# %% [markdown]
# Yellow is a probability of 1, dark blue of 0, grey a half. At first the network says a half everywhere. After 10 steps
# it seems to have learned nothing, although the loss below has begun to fall: in evaluation BatchNorm uses the running
# statistics, and these are still near their start. Then the dark outlines of the cells appear, then the cells are
# filled, and it takes many more steps until the edges are sharp and the insides clean.

# %%
assert max(seen[0][1], seen[10][1]) < 0.6 < 0.9 < seen[100][1] < seen[200][1]
assert abs(losses[0] - 0.693) < 0.1 and np.mean(losses[5:10]) < losses[0]
# %% tags=["hide-input"]


def draw_losses():
    figure = Figure(figsize=(8, 3.4), dpi=100, layout="constrained")
    axes = figure.subplots()
    axes.plot(range(1, 201), losses, color="#56b4e9", linewidth=0.8, label="loss of each batch")
    smooth = np.convolve(losses, np.ones(10) / 10, "valid")
    axes.plot(range(10, 201), smooth, color="#0072b2", linewidth=2, label="mean of ten")
    axes.axhline(np.log(2), color="#d55e00", linestyle="--", linewidth=1, label="a half everywhere: ln 2")
    axes.set(title="Training", xlabel="step", ylabel="binary cross entropy", ylim=(0, 0.8))
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


draw_losses()

# %% [markdown]
# The curve starts near $\ln 2$ and jumps up and down, since each batch holds other crops: some are harder. Judge a
# curve by its mean, and a network by pictures that it has not learned from.
#
# **Predict.** On the six held-out pictures: will the Dice be above 0.95? Which part of the wrong pixels will lie within
# two pixels of an outline: a tenth, half, nearly all?


# %%
def beside_outlines(mask):
    """Return which pixels have both kinds of pixels in the 5x5 window around them."""
    inside, outside = (
        ops.max_pool2d(Tensor(kind[None, None].astype(np.float32)), 5, stride=1, padding=2).numpy()[0, 0]
        for kind in (mask, 1 - mask)
    )
    return (inside == 1) & (outside == 1)


scores, masks = SegmentationScores(), []
for other in held_out:
    masks.append(to_mask(predict(model, other.picture)))
    row = scores.update(masks[-1], other.mask, other.name)
    print(f"picture {row['name']}: Dice {row['dice']:.3f}, pixels wrong {row['pixel_error']:.1%}")
print(f"mean: Dice {scores.mean()['dice']:.3f}")
assert scores.mean()["dice"] > 0.95

wrong = np.stack([mask != other.mask for mask, other in zip(masks, held_out, strict=True)])
near = np.stack([beside_outlines(other.mask) for other in held_out])
print(f"beside outlines: {near.mean():.0%} of all pixels, {(wrong & near).sum() / wrong.sum():.0%} of the wrong ones")
assert near.mean() < 1 / 3 and (wrong & near).sum() > 0.5 * wrong.sum()

# %%
worst = int(np.argmin([row["dice"] for row in scores.pictures]))
case = held_out[worst]
side_by_side(
    [case.picture, draw.overlay(case.picture, case.mask), draw.errors(case.picture, case.mask, masks[worst])],
    ["the worst of them", "truth", "errors"],
    legend=draw.ERROR_COLOURS,
)

# %% [markdown]
# It is, and well over half of the wrong pixels lie beside outlines, where less than a third of all pixels are. There
# the truth itself is uncertain: the picture was blurred and made noisy after the outline was known. The others come in
# patches, where noise or uneven light misled the network.
#
# ## What are the skip connections for?
# The map on the lowest level has one place for every 8 by 8 pixels. It knows *what* is there, and roughly where. The
# skip connections bring the fine detail of the upper levels past it.
#
# The experiment: the same network with zeros in the place of what is handed across. It has as many weights, and is
# trained in the same way. One run of each would prove little, as chance plays a part in the first weights and in the
# batches; so each is trained three times, from three seeds. To save time, these runs have 100 steps and smaller crops.
#
# **Predict.** How much Dice is lost without the skip connections: nearly all, a few hundredths, nothing? Where will the
# errors be?


# %%
class WithoutSkips(UNet):
    """A U-Net to which nothing is handed across."""

    def logits(self, x):
        for level in (1, 2, 3):
            x = ops.max_pool2d(self._layer(level)(x), 2)
        x = self._layer(4)(x)
        for step in (1, 2, 3):
            x = getattr(self, f"deconv{step}")(x)
            x = self._layer(4 + step)(x, x * 0)  # zeros instead of the copy
        return self._layer(8)(x)


dice, errors = {"with": [], "without": []}, {"with": [], "without": []}
drawn = {}
for seed in (0, 1, 2):
    for name, kind in (("with", UNet), ("without", WithoutSkips)):
        tinyseg.manual_seed(seed)
        other = kind(widths=(8, 16, 32, 64))
        train(other, steps=100, seed=seed, crop=48)
        found = [to_mask(predict(other, one.picture)) for one in held_out]
        scores = SegmentationScores()
        for mask, one in zip(found, held_out, strict=True):
            scores.update(mask, one.mask)
        dice[name].append(scores.mean()["dice"])
        wrong = np.stack([mask != one.mask for mask, one in zip(found, held_out, strict=True)])
        errors[name].append([wrong[near].mean(), wrong[~near].mean()])
        drawn[name] = draw.errors(case.picture, case.mask, found[worst])
        print(f"seed {seed}, {name:7} skip connections: Dice {dice[name][-1]:.3f}")

beside, elsewhere = {}, {}
for name in errors:
    beside[name], elsewhere[name] = np.mean(errors[name], axis=0)
    print(f"{name:7} skip connections: wrong beside outlines {beside[name]:.1%}, elsewhere {elsewhere[name]:.1%}")
assert len(dice["with"]) == 3 and 2**3 == 8  # pixels to a place of the lowest level
assert min(dice["with"]) > max(dice["without"]) > 0.9
assert beside["without"] > 1.5 * beside["with"] and elsewhere["without"] < 1.5 * elsewhere["with"]

# %%
side_by_side(
    [case.picture, drawn["with"], drawn["without"]],
    ["picture", "with skip connections", "without"],
    legend=draw.ERROR_COLOURS,
)

# %% [markdown]
# Every network with skip connections is better than every one without, by about two hundredths of Dice. That is not
# much, and the table says where it comes from: beside outlines far more pixels are wrong without them; elsewhere they
# bring nothing. The lowest level knows where the cells are; what it has lost is exactly where they end. Cells are
# large, and most of their pixels are far from an outline; in thin structures nearly every pixel is near one. And three
# seeds on one kind of picture are evidence for these pictures, not a law.
#
# ## How far does it see?
# The *receptive field* of an output pixel is the part of the picture that can influence it. Each 3x3 convolution adds a
# pixel on each side, and below a pooling each of these counts twice, four times, eight times as much.
#
# **Predict.** Two 3x3 convolutions, a 2x2 pooling, two more 3x3 convolutions: how many pixels wide is the receptive
# field after the last? Count backwards from one pixel.

# %%
width = 1
for what, grow in (
    ("two convolutions below", lambda w: w + 4),
    ("pooling", lambda w: 2 * w),
    ("two above", lambda w: w + 4),
):
    width = grow(width)
    print(f"{what:24}{width:3}")
assert width == 14

# %% [markdown]
# 14: five places below the pooling, ten pixels above it, and four more. `explain.receptive_field` finds the whole
# network's by feeding it NaN and seeing where it arrives, and shows how strongly each pixel counts. (It calls a place
# of a map a *cell*, as the notebooks on detectors do; nothing to do with the cells in these pictures.)

# %%
field = explain.receptive_field(model, (1, 160, 160))
print(field)
assert field.size == (92, 92)
assert field.effective_size < 46
field.figure()

# %% [markdown]
# An output pixel of this network sees 92 by 92 pixels, which is more than any of these cells. But what lies far away
# hardly counts: the pixels with a noticeable influence would fill a square of less than half that width. If objects are
# larger than what a network sees, no training will help it; give it more levels.
#
# ## What is inside
# `explain.feature_maps` runs the network on a picture and keeps what each layer puts out.
#
# **Predict.** On which levels will you still recognise the picture?

# %%
maps = explain.feature_maps(model, normalise(sample.picture, "standardise"))
maps.figure(layers=[f"layer{number}_conv" for number in range(1, 8)], channels=6)

# %% [markdown]
# On the way down the picture fades into fewer and coarser places: outlines on the first level, on the lowest blobs that
# say little to the eye. On the way up outlines come back, and on the last level some maps are already masks, of the
# cells or of what lies between them. The fine grid on the way up is an old acquaintance: the stamps of the transposed
# convolutions, each of whose four places has a weight of its own.
#
# ## Pictures of odd sizes
# **Predict.** A picture has 101 rows and 75 columns. Pooling halves and rounds down, three times. What happens when the
# maps are joined on the way up?

# %%
odd = Tensor(np.random.default_rng(0).random((1, 1, 101, 75), np.float32))
try:
    with no_grad():
        unet(odd, model)
except ValueError as error:
    print("ValueError:", error)
    failed = True
assert failed and odd.shape[2:] == (101, 75) and [101 // 2**k for k in range(4)] == [101, 50, 25, 12]

# %% [markdown]
# Going down there are 101, 50, 25 and 12 rows; going up, 12 become 24, and 24 rows cannot be joined to 25. The
# library's network pads the picture first, at the bottom and on the right, to a multiple of 8, by mirroring its border,
# and crops the result. Mirroring is kinder than zeros: the border goes on looking like picture.

# %%
padded = [-(-size // 8) * 8 for size in odd.shape[2:]]
print("padded to", padded)
assert padded == [104, 80] and 2 * 12 == 24 and 24 != 25
with no_grad():
    result = model(odd)
assert result.shape == odd.shape

# %% [markdown]
# ## The short way
# You wrote the loop by hand once. `tinyseg.training.fit(model, train, val, steps=...)` does the same, saves the weights
# on the way (*checkpoints*), measures on held-out pictures (*validation*), draws the curve, and `tinyseg train unet`
# does it from the command line, with your own pictures.
#
# U-Net says of each pixel whether it belongs to a cell, but not to *which*: two cells that touch become one patch. The
# rest of the course is about networks that tell them apart. It begins with
# [how boxes are proposed](05_anchors_rpn_nms.ipynb).

# %% [markdown]
# ## Questions
# Write the answer in place of the three dots and run the cell.
#
# **1.** A U-Net with widths of 16, 32, 64, 128 and 256 is given two colour pictures of 96 rows and 160 columns. Which
# shape has the map on its lowest level?

# %%
answer = (..., ..., ..., ...)
tinyseg.lessons.check("unet.1", answer)

# %% [markdown]
# **2.** In this notebook's network, how many channels go into `layer5_conv`, the first block on the way up?

# %%
answer = ...
tinyseg.lessons.check("unet.2", answer)

# %% [markdown]
# **3.** Two pixels, one of a cell and one not. The network gives both of them a probability of 0.8. What is the loss,
# to three decimals?

# %%
answer = ...
tinyseg.lessons.check("unet.3", answer)

# %% [markdown]
# **4.** A U-Net of five levels is given a picture of 100 rows. To how many rows does it pad?

# %%
answer = ...
tinyseg.lessons.check("unet.4", answer)

# %% [markdown]
# **5.** A 3x3 convolution, a 2x2 pooling, a 3x3 convolution, another 2x2 pooling, and a last 3x3 convolution: how many
# pixels wide is the receptive field?

# %%
answer = ...
tinyseg.lessons.check("unet.5", answer)

# %% [markdown]
# **6.** The loss of the batches keeps falling, and the Dice on the held-out pictures begins to fall too. What is going
# on: `"it remembers instead of understanding"`, `"it needs more steps"`, or `"the learning rate is too high"`?

# %%
answer = ...
tinyseg.lessons.check("unet.6", answer)
