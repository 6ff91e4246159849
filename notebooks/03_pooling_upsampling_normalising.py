# %% [markdown]
# # Transposed convolution, pooling, normalisation
# A network for segmentation shrinks its pictures, so that one number can say something about a large part of them, and
# enlarges them again, so that each pixel gets its answer. This notebook takes apart the layers that do it: transposed
# convolution, max pooling, upsampling, and batch normalisation, which keeps the numbers in a range where training
# works.
#
# **You will be able to**
# - write a convolution as a matrix, and say what its transpose does;
# - say how large a transposed convolution makes its output, what `output_padding` is for, and where checkerboards come
#   from;
# - follow a gradient through max pooling, with ties and overlapping windows;
# - tell the two conventions of bilinear upsampling apart;
# - compute a batch normalisation by hand, in training and in evaluation, and say what each of the three terms of its
#   gradient does.
#
# It takes about an hour. Read [Convolution by hand](02_convolution.ipynb) first.

# %%
# %matplotlib inline
import numpy as np
from matplotlib.figure import Figure

import tinyseg
from kernels import cpu, naive
from tinyseg import Tensor, explain, ops
from tinyseg.explain import Mark

tinyseg.manual_seed(0)
rng = np.random.default_rng(0)

# %% [markdown]
# ## Transposed convolution
# ### A convolution is a matrix
# A convolution is linear, and every linear map is a matrix, if you write the picture as one long column of numbers.
# Each row of the matrix makes one output, each column belongs to one pixel.
#
# **Predict.** A 3x3 picture is convolved with a 2x2 table. How many rows and columns has its matrix? How many of its
# numbers are not zero?

# %%
weight = np.array([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 1, 2, 2)


def matrix_of(function, shape):
    """Apply a linear function to pictures with a single 1: each result is a column of its matrix."""
    columns = []
    for pixel in range(np.prod(shape)):
        unit = np.zeros(shape)
        unit.flat[pixel] = 1
        columns.append(function(unit).ravel())
    return np.stack(columns, axis=1)


A = matrix_of(lambda picture: naive.conv2d_forward(picture, weight), (1, 1, 3, 3))
assert weight.shape == (1, 1, 2, 2)  # a 2x2 table, a 3x3 picture
assert A.shape == (4, 9) and np.count_nonzero(A) == 16
explain.maps(A, title="A: one row for each output, one column for each pixel")

# %% [markdown]
# It has 4 rows and 9 columns. Each row holds the four weights, so 16 of its numbers are not zero, and each row is the
# one above it, shifted along: by a pixel, and by one more where the window begins a new row of the picture. That is all
# that makes a convolution special among matrices: the same few weights over and over.

# %%
x = np.arange(1.0, 10.0).reshape(1, 1, 3, 3)
np.testing.assert_array_equal(A @ x.ravel(), naive.conv2d_forward(x, weight).ravel())

# %% [markdown]
# In the last notebook, the gradient of the picture was a scatter: each output stamped the weights onto its window. In
# the language of matrices it is one word. If $y = A x$, then $dx = A^T dy$, where $A^T$, the *transpose*, has the rows
# of $A$ as its columns.

# %%
dy = np.array([[1.0, 10.0], [100.0, 1000.0]]).reshape(1, 1, 2, 2)
dx, _, _ = naive.conv2d_backward(dy, x, weight)
np.testing.assert_array_equal(A.T @ dy.ravel(), dx.ravel())
explain.maps(A.T, dy.reshape(4, 1), dx.reshape(9, 1), titles=["A transposed", "dy", "dx"], operators=["times", "="])

# %% [markdown]
# A convolution makes a picture smaller or leaves it at its size; its transpose goes the other way. A **transposed
# convolution** is a layer that computes $A^T x$: what the backward pass of a convolution does, used forward to enlarge
# a picture, with weights of its own that it learns. It is not the inverse: it undoes the change of size, not of values.

# %%
np.testing.assert_array_equal(naive.conv_transpose2d_forward(dy, weight), dx)

# %% [markdown]
# ### The identity that every pair keeps
# The *dot product* of two arrays, $\langle a, b \rangle$, multiplies number by number and adds up. For every matrix,
# $\langle A x, y \rangle = \langle x, A^T y \rangle$: both are the sum of $y_i A_{ij} x_j$ over all $i$ and $j$. Two
# operations that keep this for all $x$ and $y$ are called *adjoint*.
#
# **Predict.** Does it hold with a stride, padding, dilation and groups as well? What could break it?

# %%
print("settings                                          <Ax, y>       <x, A'y>")
for options in ({}, {"stride": 2, "padding": 1}, {"dilation": 2, "padding": 2}, {"stride": (1, 2), "groups": 2}):
    picture = rng.normal(size=(2, 4, 7, 9))
    table = rng.normal(size=(6, 4 // options.get("groups", 1), 3, 3))
    forward = cpu.conv2d_forward(picture, table, **options)
    other = rng.normal(size=forward.shape)
    back = cpu.conv_transpose2d_forward(other, table, **options)
    left, right = (forward * other).sum(), (picture * back).sum()
    print(f"{options!s:44} {left:14.10f} {right:14.10f}")
    assert back.shape == picture.shape and abs(left - right) < 1e-10

# %% [markdown]
# It holds to the last digits, as all of these are still sums of products with fixed weights. Only what is not linear
# would break it. This makes a test of a backward kernel that needs no derivatives: random arrays, two dot products.
# Note the weights' shape: a convolution has `(O, C / groups, kH, kW)`; its transpose takes the same array, and reads
# its first axis as *its* input channels.
#
# ### Stamping with a stride
# As a layer it is read as stamping: each input pixel stamps the weights, times its value, onto the output; `stride` is
# how far the stamps are apart, and where they overlap they add up.
#
# **Predict.** Four pixels of value 1 stamp a 3x3 table of ones with a stride of 2. How large is the output? Which
# values occur in it?

# %%
ones = np.ones((1, 1, 2, 2))
stamped = naive.conv_transpose2d_forward(ones, np.ones((1, 1, 3, 3)), stride=2)
assert stamped.shape == (1, 1, 5, 5)  # 5x5, of 3x3 stamps
assert sorted(set(stamped.ravel())) == [1, 2, 4]
marks = [Mark(0, 0, 0, label="a pixel and its stamp"), Mark(2, 0, 0, 3, 3, "a pixel and its stamp")]
marks += [Mark(0, 1, 1, label="another"), Mark(2, 2, 2, 3, 3, "another")]
titles = ["x", "weight", "y, stride 2"]
explain.maps(ones, np.ones((3, 3)), stamped, titles=titles, operators=["stamps", "="], marks=marks)

# %% [markdown]
# The output is 5x5. Two stamps overlap in its middle row and column, and all four in the centre, so the values are 1, 2
# and 4.
#
# The first stamp starts at row 0 and the last at row $(H - 1) s$; each spans $d (k - 1) + 1$ rows; padding $p$ *crops*
# that many rows from each side, since it was padding of the convolution that is turned round:
#
# $$ H_{out} = (H - 1)\,s + d\,(k - 1) + 1 - 2p + \text{output padding} $$


# %%
def transposed_size(size, kernel, stride=1, padding=0, dilation=1, output_padding=0):
    return (size - 1) * stride + dilation * (kernel - 1) + 1 - 2 * padding + output_padding


for kernel, stride, padding, dilation in ((2, 2, 0, 1), (3, 2, 1, 1), (4, 2, 1, 1), (3, 1, 0, 2)):
    y = naive.conv_transpose2d_forward(
        np.ones((1, 1, 7, 7)), np.ones((1, 1, kernel, kernel)), None, stride, padding, 0, dilation
    )
    assert y.shape[2] == transposed_size(7, kernel, stride, padding, dilation)
assert transposed_size(16, 2, stride=2) == 32

# %% [markdown]
# U-Net enlarges with 2x2 tables and a stride of 2, which doubles exactly: 16 rows become 32.
#
# ### What output padding is for
# A convolution with a stride rounds down, so pictures of different sizes give outputs of the same size. Which of them
# should the transpose give back?
#
# **Predict.** A convolution has a 3x3 table, stride 2 and padding 1. To which sizes does it take pictures of five and
# of six rows? Its transpose is given three rows: how many does it make?


# %%
def convolved_size(size):
    return naive.conv2d_forward(np.ones((1, 1, size, size)), np.ones((1, 1, 3, 3)), stride=2, padding=1).shape[2]


assert convolved_size(5) == convolved_size(6) == 3
assert transposed_size(3, 3, stride=2, padding=1) == 5
assert transposed_size(3, 3, stride=2, padding=1, output_padding=1) == 6

three = np.ones((1, 1, 3, 3))
smaller = naive.conv_transpose2d_forward(three, three, stride=2, padding=1)
larger = naive.conv_transpose2d_forward(three, three, stride=2, padding=1, output_padding=1)
assert (larger[0, 0, 5] > 0).all()
np.testing.assert_array_equal(larger[:, :, :5, :5], smaller)
marks = [Mark(1, 0, 0, 5, 5, "as on the left"), Mark(1, 5, 0, 1, 6, "added"), Mark(1, 0, 5, 6, 1, "added")]
title = "Three rows of ones, 3x3 table of ones, stride 2, padding 1"
explain.maps(smaller, larger, titles=["output_padding 0", "output_padding 1"], title=title, marks=marks)

# %% [markdown]
# Both give 3 rows, so the transpose must choose: it makes 5 rows, and 6 with an `output_padding` of 1. In spite of its
# name it puts no zeros there: the stamps reach beyond row 4, and the added row is what the crop would have cut away.
# (Without padding nothing is cut away; then the added row lies beyond all stamps and holds the bias alone, here zeros.)

# %%
assert smaller.shape[2] - 1 == 4  # the last row without output padding
uncropped = naive.conv_transpose2d_forward(three, three, stride=2, output_padding=1)
assert not uncropped[0, 0, -1].any()

# %% [markdown]
# ### Checkerboards
# **Predict.** A picture of ones is enlarged to about twice its size, with a table of ones: once 3x3, once 2x2, once
# 4x4. Which of the outputs are even, that is, the same everywhere, apart from the border?

# %%
flat = np.ones((1, 1, 5, 5))
boards = {
    "3x3, stride 2: uneven": naive.conv_transpose2d_forward(flat, np.ones((1, 1, 3, 3)), stride=2, padding=1),
    "2x2, stride 2: even": naive.conv_transpose2d_forward(flat, np.ones((1, 1, 2, 2)), stride=2),
    "4x4, stride 2: even inside": naive.conv_transpose2d_forward(flat, np.ones((1, 1, 4, 4)), stride=2, padding=1),
}
inside = [len(np.unique(board[0, 0, 1:-1, 1:-1])) for board in boards.values()]
assert inside == [3, 1, 1]
explain.maps(*boards.values(), titles=list(boards), scale="shared")

# %% [markdown]
# Where the stride does not divide the kernel size, some outputs get more stamps than others, in a pattern like a
# checkerboard. A network can learn weights that even it out, but it starts with the pattern, and often keeps traces of
# it.
#
# A kernel size that is a multiple of the stride has even counts. That does not forbid a pattern either: with 2x2 and
# stride 2, each of the four places of a stamp has a weight of its own. Look at a layer that has learned nothing yet:

# %%
fresh = tinyseg.nn.ConvTranspose2d(1, 1, 2, stride=2, bias=False)
with tinyseg.no_grad():
    pattern = fresh(Tensor(np.ones((1, 1, 3, 3), np.float32)))
assert len(np.unique(pattern.numpy())) == 4
titles = ["weight", "y of a picture of ones"]
explain.maps(fresh.weight, pattern, titles=titles, operators=["→"], marks=[Mark(1, 0, 0, 2, 2, "a stamp")])

# %% [markdown]
# ## Max pooling
# Max pooling takes the largest value of each window. The usual window is 2x2 with a stride of 2: it halves height and
# width, and three of four numbers are gone. It has no weights.
#
# **Predict.** Which four numbers come out here? In one window the largest value occurs three times: which of them is
# taken?

# %%
x = np.array([[1, 5, 2, 0], [3, 4, 2, 6], [7, 0, 8, 8], [1, 2, 8, 3]], float).reshape(1, 1, 4, 4)
y, indices = naive.max_pool2d_forward(x, 2)
winners = [divmod(int(index), 4) for index in indices.ravel()]

assert y.ravel().tolist() == [5, 6, 7, 8] and indices.ravel().tolist() == [1, 7, 8, 10]
assert winners[3] == (2, 2)
windows = [Mark(0, row, column, 2, 2, "windows", "sky blue") for row in (0, 2) for column in (0, 2)]
taken = [Mark(0, row, column, label="taken", colour="vermilion") for row, column in winners]
titles = ["x", "y", "indices: row * 4 + column"]
explain.maps(x, y, indices, titles=titles, operators=["→", "from"], marks=windows + taken)

# %% [markdown]
# 5, 6, 7 and 8. The kernel also returns where it found each of them, as the number of the pixel, counted row by row. Of
# the three values of 8 it takes the first, in row 2 and column 2, whose number is 10.
#
# ### Backward: only the winner
# The output *is* one of the inputs, so its gradient goes to that pixel, whole. The others could change a little without
# any effect: their gradient is zero.
#
# **Predict.** With `dy` of 1, 10, 100 and 1000, what does the second 8, in row 2 and column 3, receive?

# %%
dx = naive.max_pool2d_backward(dy, indices, x.shape)
assert dx[0, 0, 2, 2] == 1000 and dx[0, 0, 2, 3] == 0
assert list(dy.ravel()) == [1, 10, 100, 1000]
taken += [mark._replace(map=2) for mark in taken]
explain.maps(x, dy, dx, titles=["x", "dy", "dx"], operators=["and", "→"], marks=windows + taken)

# %% [markdown]
# Nothing: it lost the tie. In fact the maximum has no derivative there. Raise one of the tied values, and the output
# rises with it; lower it, and another one takes its place and nothing happens. Such a place is called a *kink*, and the
# kernel gives one of the answers that are defensible.

# %%
higher, lower = x.copy(), x.copy()
higher[0, 0, 2, 3] += 0.5
lower[0, 0, 2, 3] -= 0.5
print("raised by 0.5:", naive.max_pool2d_forward(higher, 2)[0][0, 0, 1, 1])
print("lowered by 0.5:", naive.max_pool2d_forward(lower, 2)[0][0, 0, 1, 1])
assert naive.max_pool2d_forward(higher, 2)[0][0, 0, 1, 1] == 8.5
assert naive.max_pool2d_forward(lower, 2)[0][0, 0, 1, 1] == 8

# %% [markdown]
# `explain.check_gradients` knows kinks. **Predict.** In how many places of this picture will it say that there is no
# derivative?

# %%
report = explain.check_gradients(lambda x: ops.max_pool2d(x, 2), x)
print(report)
assert report.ok and report.counts["kink"] == 3 and report.counts["right"] == 13

# %% [markdown]
# In 3, one for each of the tied values: there the slope to one side is 0 and to the other 1, shown in brackets. A
# gradient that lies between the two is not wrong; a check that does not know kinks would have called it so. The other
# 13 are right.
#
# ### Overlapping windows add up
# With a 3x3 window and a stride of 1, windows overlap, and one pixel may win several.
#
# **Predict.** There are four windows, and the largest values below are a 9 and a 10. How many windows does the 9 win?
# So what is its gradient, with the same `dy`?

# %%
peak = np.array([[1, 2, 3, 4], [2, 9, 4, 5], [3, 4, 5, 6], [4, 5, 6, 10]], float).reshape(1, 1, 4, 4)
y, indices = naive.max_pool2d_forward(peak, 3, stride=1)
dx = naive.max_pool2d_backward(dy, indices, peak.shape)
assert sorted(peak.ravel())[-2:] == [9, 10]
assert (indices == 5).sum() == 3 and dx[0, 0, 1, 1] == 111 and dx[0, 0, 3, 3] == 1000
marks = [Mark(i, 1, 1, label="the 9") for i in (0, 3)] + [Mark(i, 3, 3, label="the 10") for i in (0, 3)]
explain.maps(peak, y, dy, dx, titles=["x", "y", "dy", "dx"], operators=["→", "and", "→"], marks=marks)

# %% [markdown]
# It wins three, all but the window that holds the 10, and receives 111; the 10 receives 1000. A backward kernel that
# writes `=` where `+=` belongs would leave only the last of the three. With windows that do not overlap it would pass
# every test.
#
# ### Values that are no numbers
# **Predict.** NaN, "not a number", is what 0 / 0 gives, and every comparison with it is false. A picture has one NaN.
# After max pooling with 3x3 windows and a stride of 1, how many outputs are NaN?

# %%
broken = peak.copy()
broken[0, 0, 0, 0] = np.nan
y, indices = naive.max_pool2d_forward(broken, 3, stride=1)
assert np.isnan(y).sum() == 1 and indices[0, 0, 0, 0] == 0
explain.maps(broken, y, titles=["x, 3x3 windows, stride 1", "y"], operators=["→"])

# %% [markdown]
# One: the only window that reads it. A loop that keeps a value only if it is larger would have skipped the NaN and
# hidden the fault; this kernel, like that of PyTorch, the library in which most networks are written, lets it through
# on purpose, so that you notice. (RoIPool, which pools inside a box,
# [later in this course](06_roi_pool_roi_align.ipynb), does it the other way.)
#
# ## Upsampling
# Max pooling has no inverse, but a map can be enlarged without any weights: by repeating pixels, *nearest*, or by
# mixing neighbours, *bilinear*.
#
# **Predict.** The row 0, 12 is enlarged to four pixels by bilinear interpolation. Which numbers come out?

# %%
row = np.array([0.0, 12.0]).reshape(1, 1, 1, 2)
rows = {
    "nearest": naive.upsample2d_forward(row, size=(1, 4)),
    "bilinear": naive.upsample2d_forward(row, size=(1, 4), mode="bilinear"),
    "bilinear, align_corners=True": naive.upsample2d_forward(row, size=(1, 4), mode="bilinear", align_corners=True),
}
for name, values in rows.items():
    print(f"{name:30}", values.ravel())
assert rows["bilinear"].ravel().tolist() == [0, 3, 9, 12]
np.testing.assert_allclose(rows["bilinear, align_corners=True"].ravel(), [0, 4, 8, 12])

# %% [markdown]
# Two answers, 0, 3, 9, 12 and 0, 4, 8, 12, and both are right: they are two conventions of where pixels lie. In one, a
# pixel is a little square and its value belongs to the middle of it; enlarging keeps the *edges* of the picture in
# place. In the other, `align_corners=True`, the *centres* of the corner pixels stay in place, so the steps become
# wider.


# %% tags=["hide-input"]
def draw_positions():
    figure = Figure(figsize=(8, 4), dpi=100, layout="constrained")
    for axes, aligned in zip(figure.subplots(1, 2), (False, True), strict=True):
        step = 1 / 3 if aligned else 1 / 2
        places = np.arange(4) * step if aligned else (np.arange(4) + 0.5) * step - 0.5
        values = naive.upsample2d_forward(row, size=(1, 4), mode="bilinear", align_corners=aligned).ravel()
        axes.plot(
            [-0.5, 0, 1, 1.5], [0, 0, 12, 12], color="#999999", zorder=0, label="between two pixels: a straight line"
        )
        axes.plot([0, 1], [0, 12], "s", color="#0072b2", markersize=11, label="input pixels")
        axes.plot(places, values, "o", color="#d55e00", markersize=7, label="output pixels")
        for place, value in zip(places, values, strict=True):
            axes.annotate(
                f"{value:.0f}", (place, value), (0, 9), textcoords="offset points", ha="center", color="#d55e00"
            )
        for edge in (-0.5, 0.5, 1.5):
            axes.axvline(edge, color="#cccccc", linewidth=0.8, zorder=-1)
        axes.set(
            title=f"align_corners={aligned}", xlabel="position, in input pixels (lines: their edges)", ylabel="value",
            xlim=(-0.7, 1.7), ylim=(-1.5, 15.5),
        )  # fmt: skip
        axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper left", fontsize=8)
    return figure


draw_positions()

# %% [markdown]
# On the left, the outermost output pixels lie beyond the last centres, where there is nothing to mix with, and take the
# border's value. On the right all output pixels lie between the centres. A network trained with one convention and run
# with the other sees everything shifted by parts of a pixel; the same half pixel returns in RoIAlign.
#
# **Predict.** What do the three ways make of a 2x2 picture, enlarged to 4x4? Where do they agree?

# %%
small = np.array([[0.0, 12.0], [24.0, 36.0]]).reshape(1, 1, 2, 2)
enlarged = [
    naive.upsample2d_forward(small, size=4),
    naive.upsample2d_forward(small, size=4, mode="bilinear"),
    naive.upsample2d_forward(small, size=4, mode="bilinear", align_corners=True),
]
assert enlarged[0].shape[2:] == (4, 4) and small.shape[2:] == (2, 2)  # 4x4 of 2x2
for corner in ((0, 0), (0, 3), (3, 0), (3, 3)):
    assert len({float(picture[0, 0][corner]) for picture in enlarged}) == 1
explain.maps(small, *enlarged, titles=["x", "nearest", "bilinear", "bilinear,\nalign_corners=True"], scale="shared")

# %% [markdown]
# They agree in the corners. Backward, each pixel collects the gradients of all outputs that were mixed from it, each
# times its share. The shares of one output add up to 1, so no gradient is lost and none is made:

# %%
gradient = rng.normal(size=(1, 1, 4, 4))
for options in ({}, {"mode": "bilinear"}, {"mode": "bilinear", "align_corners": True}):
    back = naive.upsample2d_backward(gradient, small.shape, size=4, **options)
    up = naive.upsample2d_forward(small, size=4, **options)
    assert abs(back.sum() - gradient.sum()) < 1e-12  # shares that add up to 1
    assert abs((up * gradient).sum() - (small * back).sum()) < 1e-10  # adjoint, as any linear map and its backward
print("gradient in:", gradient.sum(), " gradient out:", back.sum())

# %% [markdown]
# Upsampling followed by an ordinary convolution is the other way to enlarge with learned weights. It makes no
# checkerboards, and costs more, as the convolution runs over the large map.
#
# ## Batch normalisation
# The outputs of a layer can drift to any size while the weights before it learn. *Batch normalisation* (BatchNorm)
# brings each channel to mean 0 and variance 1, and then lets the network choose a scale $\gamma$ and a shift $\beta$
# for each channel. The mean is taken over everything else: over the pictures of the batch and over all of their pixels.
# Here $M$ is how many numbers that makes for one channel.
#
# $$ \hat{x} = \frac{x - \text{mean}}{\sqrt{\text{variance} + \epsilon}}, \qquad y = \gamma\,\hat{x} + \beta $$
#
# The *variance* is the mean of the squared distances from the mean; $\epsilon$, usually $10^{-5}$, guards against
# dividing by zero.
#
# **Predict.** A channel holds 1 and 3 in the first picture of a batch and 5 and 7 in the second. What are its mean and
# its variance? What does 1 become?

# %%
batch = np.array([1.0, 3.0, 5.0, 7.0]).reshape(2, 1, 1, 2)
running_mean, running_var = np.zeros(1), np.ones(1)
y, mean, inv_std = naive.batch_norm_forward(batch, np.ones(1), np.zeros(1), running_mean, running_var, training=True)

variance = ((batch - batch.mean()) ** 2).mean()
assert mean[0] == 4 and variance == 5
assert abs(y[0, 0, 0, 0] - -1.342) < 0.001
print("y:", y.ravel().round(3), " mean:", y.mean(), " variance:", y.var())

# %% [markdown]
# The mean is 4; the squared distances 9, 1, 1, 9 have the mean 5. So 1 becomes $-3 / \sqrt{5}$, about -1.342. Each
# channel is treated on its own:

# %%
assert ((batch - 4) ** 2).ravel().tolist() == [9, 1, 1, 9]
three = rng.normal([[[[5.0]], [[-2.0]], [[0.5]]]], [[[[4.0]], [[1.0]], [[0.1]]]], size=(8, 3, 16, 16))
normal, _, _ = naive.batch_norm_forward(three, None, None, None, None, training=True)


# %% tags=["hide-input"]
def draw_channels():
    figure = Figure(figsize=(8, 3.2), dpi=100, layout="constrained")
    looks = (("#0072b2", "-"), ("#d55e00", "--"), ("#009e73", ":"))
    for axes, data, title in zip(figure.subplots(1, 2), (three, normal), ("before", "after BatchNorm"), strict=True):
        bins = np.linspace(-8, 18, 131) if data is three else np.linspace(-4, 4, 41)
        for channel, (colour, style) in enumerate(looks):
            density, _ = np.histogram(data[:, channel], bins, density=True)
            axes.plot((bins[1:] + bins[:-1]) / 2, density, color=colour, linestyle=style, label=f"channel {channel}")
        axes.set(title=title, xlabel="value", ylabel="share of the pixels, per unit")
        axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    return figure


draw_channels()

# %% [markdown]
# ### Training and evaluation are two different functions
# When you use a network on one picture there is no batch to take statistics of, and the answer should not depend on
# which other pictures happen to be beside it. So during training the layer keeps *running* averages of mean and
# variance, and in evaluation it uses these. With each batch they move a tenth of the way to the batch's own
# (`momentum=0.1`).
#
# **Predict.** They start at mean 0 and variance 1. What is the running mean after the batch above, whose mean is 4?

# %%
print("running mean:", running_mean, " running variance:", running_var)
assert running_mean[0] == 0.4
unbiased = ((batch - 4) ** 2).sum() / 3
assert abs(unbiased - 6.667) < 0.001 and abs(running_var[0] - 1.567) < 0.001

# %% [markdown]
# The running mean is 0.4. The running variance is a surprise: nine tenths of 1 and a tenth of 5 would be 1.4, but it is
# 1.567. It moves towards 6.667, the sum of the squares divided by 3 and not by 4. The mean was computed from the same
# four numbers and lies closer to them than the true one, so their squared distances come out a little small; dividing
# by $M - 1$ corrects that on average. This is the *unbiased* variance. To normalise the batch itself, the biased one is
# used, which makes its variance 1 (but for $\epsilon$). The convention is PyTorch's; with large batches you would not
# notice the difference.

# %%
assert abs(0.9 * 1 + 0.1 * 5 - 1.4) < 1e-12


# %% tags=["hide-input"]
def draw_running_statistics():
    layer = tinyseg.nn.BatchNorm2d(1)
    means, variances = [0.0], [1.0]
    source = np.random.default_rng(1)
    for _ in range(80):
        layer(Tensor(source.normal(3, 2, (4, 1, 2, 2)).astype(np.float32)))
        means.append(float(layer.running_mean.numpy()[0]))
        variances.append(float(layer.running_var.numpy()[0]))
    figure = Figure(figsize=(8, 3.2), dpi=100, layout="constrained")
    axes = figure.subplots()
    for values, truth, name, colour, style in (
        (means, 3, "mean", "#0072b2", "-"),
        (variances, 4, "variance", "#d55e00", "--"),
    ):
        axes.plot(values, color=colour, linestyle=style, label=f"running {name}")
        axes.axhline(truth, color=colour, linewidth=0.8, alpha=0.6, label=f"true {name}")
    axes.set(title="Running statistics of batches of 16 numbers", xlabel="batches seen", ylabel="value", ylim=(0, 5.5))
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


draw_running_statistics()

# %% [markdown]
# The running values come close within a few dozen batches, and then keep wavering, as each small batch pulls them. A
# network that has seen few batches evaluates badly for this reason alone: what the start values still weigh after $n$
# batches is $0.9^n$, less than one hundredth only from batch 44 on.
#
# **Predict.** A layer in training mode gets one picture twice: once beside a dark picture, once beside a bright one. Is
# its output for that picture the same? And in evaluation mode?

# %%
assert 0.9**44 < 0.01 < 0.9**43
assert 4 * 2 * 2 == 16  # numbers in each of these batches

mine = np.array([1.0, 3.0]).reshape(1, 1, 1, 2)
for training in (True, False):
    beside = []
    for other in (0.0, 9.0):
        pair = np.concatenate([mine, np.full_like(mine, other)])
        out, _, _ = naive.batch_norm_forward(pair, None, None, np.array([2.0]), np.array([4.0]), training=training)
        beside.append(out[0].ravel().round(3))
    print("training  " if training else "evaluation", *beside)
    assert np.array_equal(*beside) == (not training)

# %% [markdown]
# In training it depends on the company; in evaluation it does not. Forgetting `model.eval()` before using a network is
# among the most common mistakes: it runs, and gives slightly wrong answers.
#
# ### One value per channel
# **Predict.** A batch of one picture of one pixel in training: what are its mean, its variance and its output?

# %%
try:
    naive.batch_norm_forward(np.array([7.0]).reshape(1, 1, 1, 1), None, None, None, None, training=True)
except ValueError as error:
    print("ValueError:", error)
    refused = True
assert refused

# %% [markdown]
# The mean would be the value itself and the variance zero: whatever the picture, the output would be $\beta$. The
# kernel refuses, as PyTorch does. A batch of *one picture* is no error if it has several pixels: the statistics are
# then that picture's own. With few numbers they are noisy; where batches are of one or two large pictures, and the
# network begins with weights that were trained elsewhere, it is common to keep the running statistics as they came,
# *frozen*.
#
# ### The three terms of the gradient
# In evaluation, mean and variance are constants, and the gradient is $\gamma / \sqrt{\text{variance} + \epsilon}$ times
# `dy`. In training, a pixel acts on the loss in three ways: directly; through the mean, which moves all the other
# outputs; and through the variance, which scales them. Carried out, with averages over the $M$ numbers of a channel:
#
# $$ dx = \frac{\gamma}{\sqrt{\text{variance} + \epsilon}}
# \left( dy \;-\; \text{average}(dy) \;-\; \hat{x} \cdot \text{average}(dy \cdot \hat{x}) \right) $$
#
# The second and the third term take something away from `dy`. What they take is what cannot have any effect.
#
# **Predict.** Let `dy` be 1 everywhere: the loss would fall if all outputs became smaller by the same amount. Can any
# change of the input do that? So what is `dx`?

# %%
x = rng.normal(size=(1, 1, 2, 4)).round(1)
_, mean, inv_std = naive.batch_norm_forward(x, None, None, None, None, training=True, eps=1e-5)
normal = (x - mean) * inv_std

even, _, _ = naive.batch_norm_backward(np.ones_like(x), x, None, mean, inv_std, training=True)
stretched, _, _ = naive.batch_norm_backward(normal, x, None, mean, inv_std, training=True)
assert np.abs(even).max() < 1e-10
assert np.abs(stretched).max() < 1e-4
print("dy all ones:      largest |dx| =", np.abs(even).max())
print("dy = normalised x: largest |dx| =", np.abs(stretched).max())

# %% [markdown]
# It is zero, but for rounding. The outputs have mean 0 whatever goes in, so no input can lower them all: the second
# term takes away the average of `dy`. In the same way their variance is 1 whatever goes in, so no input can stretch
# them: the third term takes away the part of `dy` that points along $\hat{x}$ itself. (What is left of it is due to
# $\epsilon$.) Here are the three for a `dy` without special meaning:

# %%
dy = rng.normal(size=x.shape).round(1)
dx, dgamma, dbeta = naive.batch_norm_backward(dy, x, None, mean, inv_std, training=True)
direct = inv_std * dy
by_mean = -inv_std * dy.mean() * np.ones_like(dy)
by_variance = -inv_std * normal * (dy * normal).mean()

np.testing.assert_allclose(direct + by_mean + by_variance, dx, atol=1e-12)
titles = ["direct", "through the mean", "through the variance", "dx"]
explain.maps(direct, by_mean, by_variance, dx, titles=titles, operators=list("++="), scale="shared", digits=2)

# %% [markdown]
# **Predict.** Somebody stops after the first term, or after the second. How far is the gradient from the truth, as
# found by nudging?


# %%
def loss(picture):
    return (naive.batch_norm_forward(picture, None, None, None, None, training=True)[0] * dy).sum()


truth = np.zeros_like(x)
for place in np.ndindex(x.shape):
    up, down = x.copy(), x.copy()
    up[place] += 1e-5
    down[place] -= 1e-5
    truth[place] = (loss(up) - loss(down)) / 2e-5

attempts = {"direct": direct, "direct + mean": direct + by_mean, "all three": direct + by_mean + by_variance}
errors = {name: np.abs(attempt - truth).max() for name, attempt in attempts.items()}
for name, error in errors.items():
    print(f"{name:14} largest error {error:.1e}")
assert errors["all three"] < 1e-8 < 0.01 < min(errors["direct"], errors["direct + mean"])

# %% [markdown]
# All three are needed. Two sums are all that has to be known about a channel, the sum of `dy`, which is the gradient of
# $\beta$, and the sum of $dy \cdot \hat{x}$, which is the gradient of $\gamma$. The kernel computes them first and then
# every pixel by the formula:

# %%
np.testing.assert_allclose([dbeta[0], dgamma[0]], [dy.sum(), (dy * normal).sum()])

# %% [markdown]
# **Predict.** A convolution with a bias stands before a BatchNorm in training. What is the gradient of that bias?

# %%
conv = tinyseg.nn.Conv2d(2, 3, 3, padding=1)
norm = tinyseg.nn.BatchNorm2d(3)
pictures = Tensor(rng.normal(size=(4, 2, 8, 8)).astype(np.float32))
(norm(conv(pictures)) * rng.normal(size=(4, 3, 8, 8)).astype(np.float32)).sum().backward()
print("gradient of the bias:   ", conv.bias.grad.numpy())
print("gradient of the weights:", conv.weight.grad.numpy().ravel()[:3], "...")
assert np.abs(conv.bias.grad.numpy()).max() < 1e-3 * np.abs(conv.weight.grad.numpy()).max()

# %% [markdown]
# Zero, but for rounding: BatchNorm subtracts the mean, and with it any bias. That is why many networks leave out the
# bias there.
#
# ## In which order
# U-Net's basic block is: convolution, BatchNorm, ReLU, where ReLU replaces negative numbers by 0. You have now seen all
# of its layers, forward and backward. The [next notebook](04_unet.ipynb) puts them together.

# %% [markdown]
# ## Questions
# Write the answer in place of the three dots and run the cell.
#
# **1.** A transposed convolution has a 3x3 table, stride 2 and padding 1, and no output padding. How many rows does it
# make of 10?

# %%
answer = ...
tinyseg.lessons.check("pooling.1", answer)

# %% [markdown]
# **2.** The picture `[[1, 2], [3, 4]]` stamps a 3x3 table of ones with a stride of 2. What is the output in row 1 and
# column 2?

# %%
answer = ...
tinyseg.lessons.check("pooling.2", answer)

# %% [markdown]
# **3.** A row of five pixels, 2, 5, 5, 1, 7, is max-pooled with windows of three and a stride of 1. `dy` is 1, 10, 100.
# What is `dx`? Answer with five numbers.

# %%
answer = (..., ..., ..., ..., ...)
tinyseg.lessons.check("pooling.3", answer)

# %% [markdown]
# **4.** The row 0, 8 is enlarged to four pixels, bilinear, with `align_corners=False`. What is the third of them?

# %%
answer = ...
tinyseg.lessons.check("pooling.4", answer)

# %% [markdown]
# **5.** A channel of a batch holds 2, 4 and 6. The running variance was 1, the momentum is 0.1. What is it after this
# batch, in training?

# %%
answer = ...
tinyseg.lessons.check("pooling.5", answer)

# %% [markdown]
# **6.** True or false: in *evaluation* too, the bias of a convolution before a BatchNorm has a gradient of zero.

# %%
answer = ...
tinyseg.lessons.check("pooling.6", answer)
