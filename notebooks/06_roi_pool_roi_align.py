# %% [markdown]
# # RoIPool against RoIAlign
# A detector has a box on a picture and a coarse feature map of that picture. It needs a small grid of numbers for the
# box, always of the same size. RoIPool rounds the box to whole cells; RoIAlign does not. Half of what people ask about
# detectors is about the difference.
#
# **You will be able to**
# - compute by hand what RoIPool and RoIAlign give for a box;
# - say what `spatial_scale`, `output_size`, `sampling_ratio` and `aligned` mean, and what the half is for;
# - explain why RoIPool's bins overlap, and what its rounding costs in pixels;
# - say which cells get gradient, why the box gets none, and why a GPU's result may differ from run to run;
# - recognise which library uses which convention.
#
# It takes about 60 minutes, and half a minute of computing. You should have read [notebook
# 3](03_pooling_upsampling_normalising.ipynb), on pooling and bilinear interpolation, and [notebook
# 5](05_anchors_rpn_nms.ipynb), where the boxes come from.

# %%
# %matplotlib inline
import numpy as np

import tinyseg
from tinyseg import Tensor, explain, ops

rng = tinyseg.manual_seed(0)

# %% [markdown]
# ## The task
# The box on the picture is a *region of interest*, RoI for short: `x1, y1, x2, y2`, in pixels of the picture. The
# feature map is smaller than the picture by its *stride*: with stride 16, one cell for each 16 by 16 pixels. So a box
# coordinate in pixels times `spatial_scale`, here 1/16, is the coordinate in cells. The result has `output_size`
# numbers per side; each of them is a *bin*.
#
# To work by hand we take a small map whose values tell where they stand, a ramp: the cell in row `y` and column `x`
# holds `5 y + x`. And scale 1, so that a pixel is a cell.

# %%
ramp = np.arange(25.0).reshape(5, 5)
assert all(ramp[y, x] == 5 * y + x for y in range(5) for x in range(5))
explain.maps(ramp, titles=["the ramp: 5 y + x"])

# %% [markdown]
# ## RoIPool, by hand
# RoIPool (Girshick, *Fast R-CNN*, 2015) does four things:
#
# 1. multiply the box with `spatial_scale`;
# 2. round each corner to a whole cell, halves away from zero. The box is from the first to the last cell, both
#    included, so it is `end - start + 1` cells wide;
# 3. divide this into bins. Bin `p` of `n` goes from `floor(p * size / n)` to `ceil((p + 1) * size / n)`;
# 4. take the largest value of each bin.

# %% [markdown]
# **Predict.** The box is (0.6, 1, 3.5, 3.4), with 2 by 2 bins. Which cells does it become, which cells has the bin at
# the top left, and what does it give?

# %%
trace = explain.roi(ramp, (0.6, 1, 3.5, 3.4), "roi_pool", output_size=2)
print(trace)

# %%
trace.figure()

# %%
assert trace.scaled == (0.6, 1, 3.5, 3.4) and trace.box == (1, 1, 4, 3)
assert [(cell.row, cell.column) for cell in trace.cells(0, 0)] == [(1, 1), (1, 2), (2, 1), (2, 2)]
assert trace.output[0, 0, 0] == 12
assert trace.output[0].tolist() == [[12, 14], [17, 19]]

# %% [markdown]
# The corner 0.6 became 1, and 3.5 became 4. The box is now 4 cells wide and 3 high. Along y, 3 cells do not divide by 2
# bins: the first bin goes from floor(0) to ceil(1.5), so over rows 1 and 2, the second from floor(1.5) to ceil(3), over
# rows 2 and 3. Row 2 is in both. **Bins overlap** wherever the size is no multiple of the number of bins: each reaches
# out to whole cells at both ends.

# %%
assert trace.box[2] - trace.box[0] + 1 == 4 and trace.box[3] - trace.box[1] + 1 == 3
assert 3 / 2 == 1.5
assert {cell.row for cell in trace.cells(0, 0)} == {1, 2} and {cell.row for cell in trace.cells(1, 0)} == {2, 3}

# %% [markdown]
# Move the box by a little, to (0.4, 1, 3.4, 3.4), and every corner along x rounds to another cell.

# %% [markdown]
# **Predict.** What is the output now? How far did it move, and how far did the box?

# %%
moved = explain.roi(ramp, (0.4, 1, 3.4, 3.4), "roi_pool", output_size=2)
explain.maps(trace.output[0], moved.output[0], titles=["box from 0.6 to 3.5", "box from 0.4 to 3.4"])

# %%
assert moved.scaled == (0.4, 1, 3.4, 3.4) and moved.box == (0, 1, 3, 3)
assert round(0.6 - 0.4, 6) == 0.2 and round(3.5 - 3.4, 6) == 0.1
assert (trace.output - moved.output == 1).all()

# %% [markdown]
# On the ramp, a step of one column is a step of 1. The box moved by 0.2 and 0.1 of a cell; the output moved by a whole
# cell. At stride 16 that is a jump of 16 pixels.
#
# ## RoIAlign, by hand
# RoIAlign (He et al., *Mask R-CNN*, 2017) rounds nothing. It divides the box, as it is, into bins of equal size, takes
# a few *samples* in each, and averages them. A sample at a place between cells is interpolated: a mean of the four
# cells around it, the nearer the heavier (*bilinear* interpolation).
#
# `sampling_ratio` is the number of samples per bin along each axis: 2 means 2 by 2. Take the box (0, 0, 2, 2), 2 by 2
# bins, ratio 2 and, for now, `aligned=True`. A bin is one cell wide; its samples lie at 1/4 and 3/4.

# %% [markdown]
# **Predict.** Where are the samples of the bin at the top right? `aligned=True` takes half a cell off each coordinate
# first; we come to that.

# %%
trace = explain.roi(ramp, (0, 0, 2, 2), output_size=2, sampling_ratio=2, aligned=True)
print(trace.table(bins=[(0, 1)]))

# %%
trace.figure(bin=(0, 1))

# %%
samples = trace.samples(0, 1)
assert [(sample.y, sample.x) for sample in samples] == [(-0.25, 0.75), (-0.25, 1.25), (0.25, 0.75), (0.25, 1.25)]
assert [sample.value for sample in samples] == [0.75, 1.25, 2.0, 2.5]
assert trace.output[0, 0, 1] == 1.625
assert trace.output[0].tolist() == [[0.75, 1.625], [5.125, 6.0]]

# %% [markdown]
# Take the sample at row 0.25, column 0.75. Around it are the cells 0, 1, 5 and 6, with weights 0.75 * 0.25, 0.75 *
# 0.75, 0.25 * 0.25 and 0.25 * 0.75. That gives 2.0, as the ramp says: 5 * 0.25 + 0.75.
#
# The samples in row -0.25 lie above the centres of the first cells. There is no cell above, so they are moved to row 0
# (*clamped*): the first of them gives 0.75 and not -0.5. That is why the bin's mean is 1.625, although the ramp has 1
# in its middle. A sample more than one cell off the map counts as 0.

# %%
weights = {cell.row * 5 + cell.column: cell.weight for cell in samples[2].cells}
assert weights == {0: 0.75 * 0.25, 1: 0.75 * 0.75, 5: 0.25 * 0.25, 6: 0.25 * 0.75}
assert sum(cell * weight for cell, weight in weights.items()) == 2.0 == 5 * 0.25 + 0.75
assert (samples[0].y, samples[0].value, 5 * samples[0].y + samples[0].x) == (-0.25, 0.75, -0.5)
assert 5 * 0 + 1 == 1  # row 0, column 1 of cells: the middle of the bin, seen from the first cell's centre

# %% [markdown]
# ## What the half is for
# A cell is not a point. At stride 16 the first cell of the map covers the first 16 pixels, from coordinate 0 to 1 in
# cells; its value belongs to its middle, 0.5. So the place `c` in cells lies at index `c - 0.5` between the values of
# the array. `aligned=True` subtracts this 0.5. `aligned=False`, as in the first implementations, takes `c` itself as
# the index, and so looks half a cell too far to the right and down.

# %% [markdown]
# **Predict.** The box (0, 0, 2, 2) with 2 by 2 bins covers exactly four cells: 0, 1, 5 and 6. With one sample per bin,
# which of the two forms returns these very cells? What does the other return?

# %%
results = {
    aligned: ops.roi_align(
        Tensor(ramp[None, None]), np.array([[0, 0, 0, 2, 2.0]]), 2, sampling_ratio=1, aligned=aligned
    ).numpy()[0, 0]
    for aligned in (True, False)
}
explain.maps(ramp[:2, :2], results[True], results[False], titles=["the cells", "aligned=True", "aligned=False"])

# %%
assert results[True].tolist() == [[0, 1], [5, 6]]
assert results[False].tolist() == [[3, 4], [8, 9]]

# %% [markdown]
# `aligned=False` gives 3 where the cell is 0: the mean of the cells 0, 1, 5 and 6, half a cell away in both directions.
# Networks that were trained with it have learnt to live with the shift, which is why the old form must stay available,
# and why `tinyseg.ops.roi_align` makes you say which one you want.
#
# The old form differs in one more thing: it makes every box at least one cell wide and high. The aligned form leaves
# small boxes small.

# %%
assert (0 + 1 + 5 + 6) / 4 == 3

# %% [markdown]
# ## All of them side by side
# `crop_and_resize` is TensorFlow's operator for the same task: one sample per bin, the first and last of them on the
# edges of the box.

# %% [markdown]
# **Predict.** One box, four operators. On the ramp a larger number was read farther to the right or farther down. Which
# operator gives the largest numbers, and which the smallest at the top left?

# %%
compared = explain.roi_compare(ramp, (0.6, 1, 3.5, 3.4), output_size=2, sampling_ratio=2)
compared.figure()

# %%
pooled, cropped, shifted, aligned = (trace.output[0] for trace in compared.traces)
assert pooled.max() == 19 and all(pooled.max() > other.max() for other in (cropped, shifted, aligned))
assert (
    cropped[0, 0] == min(each[0, 0] for each in (pooled, cropped, shifted, aligned)) and round(cropped[0, 0], 2) == 4.48
)
assert np.allclose(shifted - aligned, 3) and 5 / 2 == 2.5 == 3 - 1 / 2

# %% [markdown]
# RoIPool: it rounds to whole cells and takes the largest value of a bin, not the middle one, up to 19.
# `crop_and_resize` reads only 4.48 at the top left, since its first sample lies on the corner of the box and not in the
# middle of a bin. The two forms of RoIAlign differ by 3 everywhere: half a row, which is 2.5 here, and half a column.

# %% [markdown]
# ## Where does each operator look?
# Here is an experiment that needs no eyes. Take a map of stride 16 on which each cell holds its own place: the x
# coordinate of its middle, in pixels. Pool a thousand random boxes. Each bin now answers with the place that it has
# looked at, and we know the place where its middle is. (RoIPool returns the largest place that it has seen; with the
# map negated it returns the smallest; we take the middle between the two.)

# %% [markdown]
# **Predict.** By how many pixels is each operator off on average? And in the worst case?

# %%
stride, bins = 16, 7
places = np.tile((np.arange(25) + 0.5) * stride, (20, 1))[None, None]
left, top, width, height = rng.uniform([20, 20, 30, 30], [200, 120, 150, 150], (1000, 4)).T
boxes = np.stack([0 * left, left, top, left + width, top + height], axis=1)
wanted = left[:, None] + width[:, None] * (np.arange(bins) + 0.5) / bins

operators = {
    "RoIPool": lambda x: ops.roi_pool(x, boxes, bins, 1 / stride),
    "RoIAlign, not aligned": lambda x: ops.roi_align(x, boxes, bins, 1 / stride, 2, aligned=False),
    "RoIAlign, aligned": lambda x: ops.roi_align(x, boxes, bins, 1 / stride, 2, aligned=True),
}
error = {}
for name, operator in operators.items():
    looked = (operator(Tensor(places)).numpy() - operator(Tensor(-places)).numpy()) / 2
    error[name] = looked[:, 0, 3] - wanted
    print(f"{name:<22} off by {error[name].mean():5.1f} pixels on average, {np.abs(error[name]).max():5.1f} at most")

assert abs(error["RoIPool"].mean() - 8.0) < 0.1 and abs(np.abs(error["RoIPool"]).max() - 25) < 0.5
assert np.allclose(error["RoIAlign, not aligned"], 8) and 16 / 2 == 8
assert np.allclose(error["RoIAlign, aligned"], 0)

# %% tags=["hide-input"]
from matplotlib.figure import Figure

from tinyseg.colours import OKABE_ITO

figure = Figure(figsize=(8, 3.2), layout="constrained")
axes = figure.subplots()
for (name, values), colour, hatch in zip(
    error.items(), ("sky blue", "vermilion", "bluish green"), ("", "//", ".."), strict=True
):
    colour = np.array(OKABE_ITO[colour]) / 255
    axes.hist(values.ravel(), bins=np.arange(-16.5, 27.5), label=name, facecolor=colour, edgecolor="white", hatch=hatch)
axes.set(
    xlabel="pixels between where a bin looked and where it should (right: too far right)",
    ylabel="bins",
    yscale="log",
    title="1000 boxes, 7 bins each, on a map of stride 16",
)
axes.legend(frameon=False)
figure

# %% [markdown]
# Not aligned, RoIAlign is off by 8 pixels, half a cell of 16, for every bin of every box. Aligned, it is exact. RoIPool
# has the same 8 pixels on average, since it too takes an index for a place; but from box to box it is off by anything
# up to 25 pixels. A constant shift can be learnt by the layers that follow; a random one cannot. For the class of an
# object it matters little. For its mask, pixel by pixel, it matters a great deal: in the table of tinyseg's README, not
# rounding adds about a tenth to the average precision of the masks, which is at most 1 (notebook 1).
#
# ## Dragging a box
# Slide a box by sixteenths of a pixel, on a map with stride 1 this time, and watch one bin.

# %% [markdown]
# **Predict.** How does RoIPool's output look as a function of the place of the box? And RoIAlign's? What is the
# derivative?

# %%
bumps = rng.normal(size=(12, 12))
drag = explain.roi_drag(bumps, (2, 3, 7, 8), output_size=2, sampling_ratio=2)
print(drag)

# %%
drag.figure()

# %% [markdown]
# RoIPool steps: nothing for most of the way, then a jump. RoIAlign glides. Its slope is finite everywhere, so one could
# even compute a gradient for the box. Neither operator does: in both, boxes are constants. Faster R-CNN *detaches* its
# proposals: the box that the region proposal network predicts is used as a place to look at, and it learns from its own
# loss instead. (Precise RoI Pooling, Jiang et al., 2018, does pass gradient to boxes.)
#
# ## How many samples?
# `sampling_ratio=2` takes 2 by 2 samples per bin. With 0 or less, as many as the bin has cells, rounded up: a bin of
# 2.5 cells gets 3 samples per axis. This *adaptive* number differs from box to box, which is why an implementation may
# agree with torchvision at ratio 1 and not at -1.

# %% [markdown]
# **Predict.** On the ramp, inside the map, the number of samples makes no difference at all. Why? And on a map that is
# no ramp?

# %%
box = (1, 1, 3, 3)
on_ramp = [explain.roi(ramp, box, output_size=2, sampling_ratio=r, aligned=True).output[0] for r in (1, 2, 8)]
curved = (np.arange(5.0) ** 2)[None] * np.ones((5, 1))
on_curve = [explain.roi(curved, box, output_size=1, sampling_ratio=r, aligned=True).output[0, 0, 0] for r in (1, 2, 8)]
print("on the ramp:", *on_ramp, sep="\n")
print("on a curve, x squared:", *on_curve)

assert np.allclose(on_ramp[0], on_ramp[1]) and np.allclose(on_ramp[0], on_ramp[2])
assert on_curve == [2.5, 2.5, 2.75]
assert explain.roi(curved, (0, 0, 2.5, 2.5), output_size=1, aligned=True).samples_per_bin() == (3, 3)

# %% [markdown]
# Along a straight line, the mean of any symmetric set of samples is the value in the middle. A curved map is seen
# differently: 2.5 with one sample, 2.5 with two, 2.75 with eight. Too few samples miss cells altogether: a bin 8 cells
# wide with 2 samples reads 4 columns of cells and never looks at the other 4.

# %%
wide = explain.roi(rng.normal(size=(10, 10)), (1, 1, 9, 9), output_size=1, sampling_ratio=2, aligned=True)
assert len({cell.column for sample in wide.samples(0, 0) for cell in sample.cells}) == 4
assert 8 - 4 == 4  # columns of the bin that no sample is near

# %% [markdown]
# ## Where the gradient goes
# RoIPool's output is one cell of each bin, the largest. In backward, all of the bin's gradient goes to that cell: the
# kernel remembers which, `argmax`. RoIAlign's output is a weighted mean, so the gradient is spread over the cells with
# the same weights.

# %% [markdown]
# **Predict.** For a gradient of 1 from each of the 2 by 2 bins: how many cells get something from RoIPool, how many
# from RoIAlign, and what is the sum over the map?

# %%
flow = explain.roi_gradients(bumps, [(2.3, 3.4, 7.1, 8.2)], output_size=2, sampling_ratio=2, orders=0)
print(flow)

# %%
flow.figure()

# %%
numbers = {op: flow.numbers(op) for op in flow.ops}
assert numbers["roi_pool"]["cells_reached"] == 4
assert numbers["roi_align_aligned"]["cells_reached"] == 30
assert all(abs(found["total"] - 4) < 1e-9 for found in numbers.values())

# %% [markdown]
# RoIPool reaches 4 cells, one for each bin, and a tiny move of the box may choose others. RoIAlign reaches 30. Both
# hand on all they get: the sum over the map is 4, the sum of what came in, as long as nothing lies off the map.
#
# With many boxes, the gradients of all of them add up on one map. Here are 200 boxes on one map, as in a training step.

# %% [markdown]
# **Predict.** Where on the map do most additions meet?

# %%
corners = rng.uniform(0, 24, (200, 2))
crowd = np.concatenate([corners, corners + rng.uniform(4, 14, (200, 2))], axis=1)
busy = explain.roi_gradients(
    rng.normal(size=(32, 32)).astype(np.float32), np.minimum(crowd, 32), output_size=7, sampling_ratio=2
)
busy.figure()

# %%
print(busy)
assert len(crowd) == 200
assert busy.numbers("roi_align_aligned")["most"] > 300

# %% [markdown]
# Away from the border, where most boxes overlap, more than 300 additions meet in a cell. On a GPU, thousands of
# *threads* run the same code at the same time, each for other numbers. Two of them may not write to the same place at
# once, so they use *atomic* additions, which queue. The queue's order is a matter of chance, floating-point sums depend
# on the order, and so **the gradient differs in its last digits from run to run**. That is not a mistake of yours.
# tinyseg's GPU kernels therefore give each cell to one thread, which adds in a fixed order;
# `kernels.cuda.use_deterministic(False)` chooses the atomic form. The bottom row of the figure shows which cells change
# when the order does, and by how much, in *ulp*: units in the last place, the step from one float to the next. (Where
# many large terms cancel, the sum is small and its steps are tiny, so many of them say little.)
#
# ## Why a gradient check of RoIPool fails now and then
# A gradient check moves one input a little and compares the change of the output with the gradient. If the little step
# makes another cell of the bin the largest, the output has a corner there (a *kink*), and the two numbers disagree,
# although the kernel is right.

# %% [markdown]
# **Predict.** On a map with two equal largest cells in one bin, what will a check say about them?

# %%
tied = np.arange(16.0).reshape(4, 4) / 8
tied[1, 0] = tied[1, 1]
report = explain.check_gradients(lambda x: ops.roi_pool(x, np.array([[0, 0, 0, 3, 3.0]]), 2), tied[None, None])
print(report)

# %%
assert report.ok
assert report.counts == {"right": 14, "kink": 2, "wrong": 0, "undecided": 0}

# %% [markdown]
# The check of this library notices that the slopes on both sides differ and says so for 2 cells; the other 14 are
# right. RoIAlign has no such corners in the features at all: it is linear in them.
#
# ## Who uses what
# The same box, the same map, and what various libraries make of them. Every line is computed by one of our two kernels,
# called with a box and arguments that make it do what the other library does.

# %%
table = explain.conventions(ramp, (0.6, 1, 3.5, 3.4), output_size=2)
print(table)

# %% [markdown]
# When weights come from elsewhere, look here first. The defaults disagree: torchvision's `roi_align` is not aligned
# unless you say so, that of detectron2, another collection of detectors, is, and ONNX, a file format for networks,
# calls the two `output_half_pixel` and `half_pixel`.
#
# ## The lab
# Drag the box, or its corners, with the mouse, a finger or the arrow keys. Every number is computed by the kernels
# while you drag. Without Jupyter, or in the book, you see a picture in its place.
#
# Try these:
# 1. Move the box right by sixteenths until RoIPool's box jumps. At which fraction does it?
# 2. Make the box smaller than a cell. What does each of them do? Switch `aligned` off and look again.
# 3. Move it over the border of the map. From where on do samples count as 0?

# %%
lab = explain.roi_lab(ramp, (0.6, 1, 3.5, 3.4), output_size=2, sampling_ratio=2)
lab

# %% [markdown]
# `lab.box = (0, 0, 2, 2)` moves it from Python; `lab.result` holds what is shown.

# %%
result = lab.result
assert result.roi_pool.output.tolist() == [[12, 14], [17, 19]]

# %% [markdown]
# ## Questions
# Replace the `...` and run the cell; it says whether you are right.
#
# **1.** A box is 10.5 pixels from the left edge of the picture; the stride is 16, so `spatial_scale` is 1/16. Which
# column of cells does RoIPool take as the box's first?

# %%
answer = ...
tinyseg.lessons.check("rois.1", answer)

# %% [markdown]
# **2.** On the ramp of this notebook, box (1, 1, 3, 3), output 4 by 4: what is the number at the top left of RoIAlign's
# output, aligned?

# %%
answer = ...
tinyseg.lessons.check("rois.2", answer)

# %% [markdown]
# **3.** RoIPool divides a box of 5 cells into 2 bins. Which cell (0 to 4) is in both?

# %%
answer = ...
tinyseg.lessons.check("rois.3", answer)

# %% [markdown]
# **4.** A network was trained with `aligned=False` on a map of stride 32, and you run it with `aligned=True`. By how
# many pixels are all pooled features off, along x?

# %%
answer = ...
tinyseg.lessons.check("rois.4", answer)

# %% [markdown]
# **5.** `sampling_ratio=-1`, a box 20.5 cells wide, 7 bins: how many samples does a bin take along x?

# %%
answer = ...
tinyseg.lessons.check("rois.5", answer)

# %% [markdown]
# **6.** Which statement about the gradient with respect to the box is true? `"RoIPool"`, if only RoIPool gives one;
# `"RoIAlign"`, if only RoIAlign does; `"both"`; `"neither"`.

# %%
answer = ...
tinyseg.lessons.check("rois.6", answer)
