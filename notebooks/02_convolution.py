# %% [markdown]
# # Convolution by hand
# A convolution lays a small table of weights over a picture, multiplies what lies on top of each other, adds up the
# products, and writes one number. Then it moves on by a pixel. In this notebook you work it out by hand, forward and
# backward, and compare every number with what the library computes.
#
# **You will be able to**
# - compute any output of a convolution with pencil and paper, with stride, padding, dilation, channels and groups;
# - say how large the output is before you run it;
# - read the textbook loop in `kernels/naive` and say what it does at each step;
# - derive the gradients of the picture, the weights and the bias, and check them by nudging numbers;
# - recognise mistakes that pass a careless test.
#
# It takes about three quarters of an hour. Read [Semantic and instance segmentation](01_segmentation.ipynb) first.

# %%
# %matplotlib inline
import inspect
import itertools

import numpy as np

import tinyseg
from kernels import cpu, naive
from kernels.naive.conv2d import _conv2d_kernel
from tinyseg import Tensor, explain, ops
from tinyseg.explain import Mark

tinyseg.manual_seed(0)
rng = np.random.default_rng(0)

# %% [markdown]
# ## One number
# The picture is a *ramp*: its values count up from 0, row by row. With a ramp you can tell from a value where it stood.
#
# All arrays of pictures in this library have four axes, `(N, C, H, W)`: which picture, which channel, which row, which
# column. Here there is one picture with one channel. The weights have four axes as well, `(O, C, kH, kW)`: which output
# channel, which input channel, and the row and column within the table.
#
# The table of weights is also called the *kernel* or the *filter*. Functions that compute on arrays are called kernels
# too, so in this course a kernel is a function, the table is "the weights", and only in *kernel size*, the table's
# height and width, does the older word stay.

# %%
x = np.arange(25.0).reshape(1, 1, 5, 5)
weight = np.array([[1.0, 2.0, 0.0], [0.0, 1.0, -1.0], [0.0, 0.0, 3.0]]).reshape(1, 1, 3, 3)

explain.maps(x, weight, titles=["x: the picture", "weight"], marks=[Mark(0, 0, 0, 3, 3, "the first window")])

# %% [markdown]
# The part of the picture that lies under the weights is called the *window*.
#
# **Predict.** Lay the weights on the first window, in the upper left corner. Multiply each of the pairs and add up.
# Which number comes out? Do it on paper: most of the weights are 0.

# %%
window = x[0, 0, 0:3, 0:3]
products = window * weight[0, 0]
first = products.sum()

assert first == 37
titles = ["window", "weight", f"products, sum {first:.0f}"]
explain.maps(window, weight, products, titles=titles, operators=["times", "="])

# %% [markdown]
# The sum is 37. That is one number of the output, the one in row 0 and column 0.
#
# **Predict.** Now the window moves one pixel to the right. Every value in it grows by 1. By how much does the sum grow?
# And by how much when the window moves one row down instead, where every value is larger by 5?

# %%
right = (x[0, 0, 0:3, 1:4] * weight[0, 0]).sum()
down = (x[0, 0, 1:4, 0:3] * weight[0, 0]).sum()

assert weight.sum() == 6
assert x[0, 0, 0, 1] - x[0, 0, 0, 0] == 1 and x[0, 0, 1, 0] - x[0, 0, 0, 0] == 5
assert right - first == 6 and down - first == 30
print("one to the right:", right, "  one down:", down)

# %% [markdown]
# When each value grows by 1, the sum grows by the sum of the weights, which is 6; when each grows by 5, by 30. A
# convolution is *linear*: twice the picture gives twice the output, and the output of a sum of pictures is the sum of
# their outputs. The gradients below follow from this alone.
#
# ## The whole map
# `ops.conv2d` lets the window visit every place where it fits.

# %%
y = ops.conv2d(Tensor(x), Tensor(weight)).numpy()

assert y[0, 0, 0, 0] == 37 and y[0, 0, 0, 1] == right and y[0, 0, 1, 0] == down
assert y.shape == (1, 1, 3, 3)  # 3x3
marks = [Mark(0, 1, 2, 3, 3, "a window"), Mark(2, 1, 2, label="its output")]
explain.maps(x, weight, y, titles=["x", "weight", "y: the output"], operators=["*", "="], marks=marks)

# %% [markdown]
# In figures, ∗ stands for "convolved with". A window of three rows fits into five rows at three heights, so the output
# is 3x3. It is a picture again, as a rule with values that no camera takes; such an array of one number for each place
# is called a *feature map*, or *map* for short. The output in row 1 and column 2 is about the window whose corner is in
# row 1 and column 2.

# %% [markdown]
# ## Stride, padding, dilation
# Three numbers change which windows there are.
#
# *Stride* is how far the window moves from one output to the next.
#
# **Predict.** With a stride of 2, how large is the output? Which numbers of the map above does it hold?

# %%
strided = ops.conv2d(Tensor(x), Tensor(weight), stride=2).numpy()

np.testing.assert_array_equal(strided, y[:, :, ::2, ::2])
assert strided.shape == (1, 1, 2, 2)  # 2x2
marks = []
for i, (row, column) in enumerate(np.ndindex(2, 2)):
    marks += [Mark(0, 2 * row, 2 * column, 3, 3, f"window {i}"), Mark(2, row, column, label=f"window {i}")]
explain.maps(x, weight, strided, titles=["x", "weight", "y, stride 2"], operators=["*", "="], marks=marks)

# %% [markdown]
# It is 2x2: every other row and every other column of the map with a stride of 1. The windows still overlap, because
# they are three pixels wide and two apart.
#
# *Padding* puts rows and columns of zeros around the picture, so that windows may reach beyond its border. With a
# padding of 1 and a 3x3 table the output has the picture's own size; networks for segmentation do this in most of their
# *layers*, the steps of which they are made.
#
# **Predict.** What is the output in the upper left corner? Only four of the weights lie on the picture there.

# %%
padded = ops.conv2d(Tensor(x), Tensor(weight), padding=1).numpy()

corner = x[0, 0, 0, 0] * 1 + x[0, 0, 0, 1] * -1 + x[0, 0, 1, 0] * 0 + x[0, 0, 1, 1] * 3
assert padded[0, 0, 0, 0] == corner == 17
assert padded.shape == x.shape
np.testing.assert_array_equal(padded[:, :, 1:4, 1:4], y)
marks = [Mark(0, 0, 0, 5, 5, "the picture"), Mark(0, -1, -1, 3, 3, "first window")]
marks += [Mark(2, 0, 0, label="first window"), Mark(2, 1, 1, 3, 3, "as without padding")]
bordered, origins = np.pad(x[0, 0], 1), [(-1, -1), (0, 0), (0, 0)]
titles = ["x with its padding", "weight", "y, padding 1"]
explain.maps(bordered, weight, padded, titles=titles, operators=["*", "="], origins=origins, marks=marks)

# %% [markdown]
# The corner is 17. The rows and columns of the padding count from -1 in the figure, so that the picture's own pixels
# keep their numbers. The middle of the output is the map from before; the border is new, and mixed with zeros that no
# camera saw.
#
# *Dilation* pulls the weights apart: neighbouring weights lie on pixels that are that many steps from each other.
# Nothing fills the gaps; those pixels are not read.
#
# **Predict.** With a dilation of 2, how many windows fit into the picture?

# %%
dilated = ops.conv2d(Tensor(x), Tensor(weight), dilation=2).numpy()

assert dilated.size == 1
assert dilated[0, 0, 0, 0] == 0 * 1 + 2 * 2 + 12 * 1 - 14 * 1 + 24 * 3 == 74
marks = [Mark(0, row, column, label="pixels that are read") for row in (0, 2, 4) for column in (0, 2, 4)]
explain.maps(x, weight, dilated, titles=["x", "weight", "y, dilation 2"], operators=["*", "="], marks=marks)

# %% [markdown]
# Only one: the nine weights now span all five rows and columns. Its value is 74.
#
# ## How large is the output?
# Along one axis, let the picture have $H$ pixels, and the weights $k$. With dilation $d$ they span $d (k - 1) + 1$
# pixels. With padding $p$ there are $H + 2p$ pixels to stand on, and a window of that span fits at $H + 2p - d(k - 1)$
# places. With stride $s$ you take the first of them and then every $s$-th:
#
# $$ H_{out} = \left\lfloor \frac{H + 2p - d\,(k - 1) - 1}{s} \right\rfloor + 1 $$
#
# The brackets round down: a last step that would lead out of the picture is not taken.


# %%
def output_size(size, kernel, stride=1, padding=0, dilation=1):
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


settings = list(itertools.product((6, 7, 10), (1, 2, 3), (1, 2, 3), (0, 1, 2), (1, 2)))
for size, kernel, stride, padding, dilation in settings:
    picture, table = np.zeros((1, 1, size, size)), np.zeros((1, 1, kernel, kernel))
    shape = naive.conv2d_forward(picture, table, stride=stride, padding=padding, dilation=dilation).shape
    assert shape[2] == shape[3] == output_size(size, kernel, stride, padding, dilation)
print(f"the formula holds for all {len(settings)} settings")

# %% [markdown]
# **Predict.** A picture has six rows, the weights three, the stride is 2 and there is no padding. How large is the
# output? Which row of the picture does no window read?

# %%
assert output_size(6, 3, stride=2) == 2
read = {2 * oy + ky for oy in range(2) for ky in range(3)}
print("rows that are read:", sorted(read))
assert set(range(6)) - read == {5}

# %% [markdown]
# Two windows fit, and the last row, row 5, is never read: rounding down dropped it. Whatever is in it cannot change the
# output. Remember it for the gradients: that row's gradient must be zero.
#
# ## Channels and groups
# A picture in colour has three channels, and deep inside a network there are hundreds. Each output channel has one
# table of weights *for each input channel*; the products of all of them are added into one number.

# %%
two = np.stack([x[0, 0], x[0, 0].T])[None]  # two channels: the ramp, and the ramp on its side
tables = np.stack([weight[0, 0], np.full((3, 3), -1.0)])[None]  # (O, C, kH, kW) = (1, 2, 3, 3)
both = ops.conv2d(Tensor(two), Tensor(tables)).numpy()

parts = [naive.conv2d_forward(two[:, c : c + 1], tables[:, c : c + 1]) for c in range(2)]
np.testing.assert_array_equal(both, parts[0] + parts[1])
titles = ["x, channel 0", "weight[0, 0]", "x, channel 1", "weight[0, 1]", "y, channel 0"]
explain.maps(two[:, :1], tables[:, :1], two[:, 1:], tables[:, 1:], both, titles=titles, operators=list("*+*="))

# %% [markdown]
# A *bias*, one number for each output channel, is added at the end.
#
# **Predict.** A layer takes 8 channels to 16 with 3x3 tables and a bias. How many numbers does it learn?

# %%
layer = tinyseg.nn.Conv2d(8, 16, 3)
print("weight", layer.weight.shape, " bias", layer.bias.shape)
assert layer.weight.size == 16 * 8 * 3 * 3 == 1152
assert layer.weight.size + layer.bias.size == 1168

# %% [markdown]
# There are 16 times 8 tables of 3x3, which makes 1152 weights, and 1168 numbers with the bias. The size of the picture
# does not matter: the same weights are used everywhere. That is what makes a convolution small, and what lets a network
# take pictures of any size.
#
# With *groups* the channels fall into separate parts which do not see each other. In a layer with two groups, the first
# half of the output channels reads the first half of the input channels, and the second half the second.
#
# **Predict.** How many weights has the same layer with `groups=4`?

# %%
grouped = tinyseg.nn.Conv2d(8, 16, 3, groups=4)
print("weight", grouped.weight.shape)
assert grouped.weight.size == 288 and layer.weight.size / grouped.weight.size == 4
assert grouped.weight.shape[1] == 2  # of 8 input channels

eight = rng.normal(size=(1, 8, 6, 6))
tables = rng.normal(size=(16, 2, 3, 3))
whole = naive.conv2d_forward(eight, tables, groups=4)
parts = [naive.conv2d_forward(eight[:, 2 * g : 2 * g + 2], tables[4 * g : 4 * g + 4]) for g in range(4)]
np.testing.assert_array_equal(whole, np.concatenate(parts, axis=1))

# %% [markdown]
# It has 288, a quarter: each output channel reads only 2 of the 8 input channels. A layer with groups does the same as
# separate layers side by side, as the last line checks. With as many groups as channels, each channel is convolved on
# its own; such layers are called *depthwise*.

# %% [markdown]
# ## The textbook kernel
# The definition of every operator of this library is a plain loop in `kernels/naive`. This one is what
# `naive.conv2d_forward` runs after it has checked its arguments. `N`, `C`, `H`, `W` are the sizes of the picture, `O`,
# `oH`, `oW` those of the output, `kH`, `kW` the kernel size, and `s`, `p`, `d` before `H` and `W` mean stride, padding
# and dilation. In the line of description, "kernel" is the table, and "patch" the window. `@jit` has Numba compile the
# loop to machine code; it runs as plain Python too.

# %%
print(inspect.getsource(_conv2d_kernel.py_func))

# %% [markdown]
# Seven loops: one for each axis of the output, and one for each axis of the weights but the first. The two lines with
# `iy` and `ix` find the input pixel from the output pixel and the place in the table; the line after them leaves out
# the padding.
#
# **Predict.** With a padding of 1 and a stride of 2, which rows and columns does the output in row 0 and column 2 read?
# How many of its nine weights lie outside?

# %%
oy, ox, stride, padding = 0, 2, 2, 1
total, outside = 0.0, 0
print("ky kx   iy ix   weight    x   product   total")
for ky, kx in np.ndindex(3, 3):
    iy, ix = oy * stride - padding + ky, ox * stride - padding + kx
    if 0 <= iy < 5 and 0 <= ix < 5:
        w, pixel = weight[0, 0, ky, kx], x[0, 0, iy, ix]
        total += w * pixel
        print(f"{ky:2} {kx:2}   {iy:2} {ix:2}   {w:6.0f}   {pixel:2.0f}   {w * pixel:7.0f}   {total:5.0f}")
    else:
        outside += 1
        print(f"{ky:2} {kx:2}   {iy:2} {ix:2}   padding")

assert total == naive.conv2d_forward(x, weight, stride=2, padding=1)[0, 0, 0, 2]
assert outside == 5 and total == 4
assert [oy * stride - padding + ky for ky in (0, 2)] == [-1, 1]  # rows
assert [ox * stride - padding + kx for kx in (0, 2)] == [3, 5]  # columns

# %% [markdown]
# It reads rows -1 to 1 and columns 3 to 5. Five of these places are outside; what is left gives 4.
#
# The fast kernels in `kernels/cpu` compute the same numbers in another order, many at a time. How they do it is the
# subject of [a later notebook](08_loop_to_kernel.ipynb), and kernels for a GPU of [the one after](09_gpu.ipynb); here
# you only check that loop and fast kernel agree.

# %%
picture, tables, bias = rng.normal(size=(2, 6, 9, 7)), rng.normal(size=(4, 3, 3, 2)), rng.normal(size=4)
options = {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), "groups": 2}
slow = naive.conv2d_forward(picture, tables, bias, **options)
fast = cpu.conv2d_forward(picture, tables, bias, **options)
np.testing.assert_allclose(fast, slow, rtol=1e-12, atol=1e-12)
print(slow.shape, "largest difference:", np.abs(fast - slow).max())

# %% [markdown]
# ## Backward
# Training asks how a small change of each weight changes the *loss*, the one number that says how wrong the network is.
# That answer is called the *gradient* of the loss with respect to the weight: if the gradient is 3, a weight that is
# larger by a tiny $\varepsilon$ makes the loss larger by $3\varepsilon$.
#
# The gradients come back through the network layer by layer, from the loss to the picture. A layer is given the
# gradient of its output, `dy`, one number for each number of `y`. It has to answer with the gradients of everything
# that went into `y`: of its input, `dx`, of its weights, `dweight`, and of its bias, `dbias`.
#
# Each output is a sum of products, so this is all the calculus that it takes:
#
# - $y = w \cdot x + \dots$ grows by $w\,\varepsilon$ when $x$ grows by $\varepsilon$, so $x$ receives $w \cdot dy$;
# - it grows by $x\,\varepsilon$ when $w$ grows by $\varepsilon$, so $w$ receives $x \cdot dy$;
# - where a number was used several times, what it receives adds up.
#
# The smallest case that shows everything is a 3x3 picture with a 2x2 table. For `dy` take 1, 10, 100 and 1000: then the
# digits of each result say which output sent how much.

# %%
x = np.arange(1.0, 10.0).reshape(1, 1, 3, 3)
weight = np.array([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 1, 2, 2)
dy = np.array([[1.0, 10.0], [100.0, 1000.0]]).reshape(1, 1, 2, 2)

assert x.shape[2:] == (3, 3) and weight.shape[2:] == (2, 2)  # a 3x3 picture, a 2x2 table
explain.maps(x, weight, dy, titles=["x", "weight", "dy: gradient of y"])

# %% [markdown]
# ### The picture's gradient
# **Predict.** Which outputs read the pixel in the middle? With which weight did each of them read it? So what is its
# gradient?

# %%
dx, dweight, dbias = naive.conv2d_backward(dy, x, weight)

assert dx[0, 0, 1, 1] == 4 * 1 + 3 * 10 + 2 * 100 + 1 * 1000 == 1234
explain.maps(dy, weight, dx, titles=["dy", "weight", "dx: gradient of x"], operators=["and", "give"])

# %% [markdown]
# All four outputs read the middle, each with another weight. The first, at the upper left, had its last weight on it,
# 4, and sends 4 times 1. The second sends 3 times 10, the third 2 times 100, the last 1 times 1000: together 1234. Read
# the digits of the other pixels in the same way. The corners hold one digit each, as only one window reaches a corner.
#
# There are two ways to see the whole of `dx`. The first is how the naive kernel does it: it **scatters**. Each output
# stamps the weights, times its own gradient, onto the window that it had read, and where stamps overlap they add up.

# %%
stamps = []
for oy, ox in np.ndindex(2, 2):
    stamp = np.zeros((3, 3))
    stamp[oy : oy + 2, ox : ox + 2] += dy[0, 0, oy, ox] * weight[0, 0]
    stamps.append(stamp)

np.testing.assert_array_equal(sum(stamps), dx[0, 0])
titles = ["stamp of dy[0, 0]", "of dy[0, 1]", "of dy[1, 0]", "of dy[1, 1]", "dx"]
marks = [Mark(i, oy, ox, 2, 2, "the window that it read") for i, (oy, ox) in enumerate(np.ndindex(2, 2))]
explain.maps(*stamps, dx, titles=titles, operators=list("+++="), marks=marks)

# %% [markdown]
# The second way **gathers**: stay at one pixel and collect what comes to it. The output $o_y$ read the pixel $i_y$ with
# the weight $k_y = i_y - o_y$ (with a stride of 1, and no padding). A window that starts one row *later* reads the
# pixel with a weight one row *earlier*. Walking over `dy` forwards is walking over the weights backwards, along both
# axes:
#
# $$ dx[i_y, i_x] = \sum_{o_y, o_x} w[i_y - o_y,\; i_x - o_x] \cdot dy[o_y, o_x] $$
#
# That is a convolution again: of `dy`, with zeros around it, so that windows may hang over its border, and with the
# weights turned by half a turn. One that starts as soon as a single cell overlaps is called a *full* convolution.

# %%
flipped = weight[:, :, ::-1, ::-1].copy()
gathered = naive.conv2d_forward(dy, flipped, padding=1)

np.testing.assert_array_equal(gathered, dx)
titles = ["dy, with a border of zeros", "weight, turned\nby half a turn", "dx"]
marks = [Mark(0, 0, 0, 2, 2, "window of dx[1, 1]"), Mark(2, 1, 1, label="window of dx[1, 1]")]
bordered, origins = np.pad(dy[0, 0], 1), [(-1, -1), (0, 0), (0, 0)]
explain.maps(bordered, flipped, gathered, titles=titles, operators=["*", "="], origins=origins, marks=marks)

# %% [markdown]
# The gradient of the picture is a full convolution with the flipped weights. With a stride above 1, the rows of `dy`
# stand for windows that lie further apart, so first put rows and columns of zeros between them:

# %%
x5 = np.arange(25.0).reshape(1, 1, 5, 5)
dy_strided = np.array([[1.0, 10.0], [100.0, 1000.0]]).reshape(1, 1, 2, 2)
weight3 = np.arange(1.0, 10.0).reshape(1, 1, 3, 3)
dx_strided, _, _ = naive.conv2d_backward(dy_strided, x5, weight3, stride=2)

spread, turned = np.zeros((1, 1, 3, 3)), weight3[:, :, ::-1, ::-1].copy()
spread[:, :, ::2, ::2] = dy_strided
np.testing.assert_array_equal(naive.conv2d_forward(spread, turned, padding=2), dx_strided)
titles = ["dy, stride 2", "dy, spread", "weight, turned", "dx"]
explain.maps(dy_strided, spread, turned, dx_strided, titles=titles, operators=["→", "*", "="])

# %% [markdown]
# A network can use this enlarging operation as a layer of its own. It is called transposed convolution, and it opens
# the [next notebook](03_pooling_upsampling_normalising.ipynb).
#
# ### The weights' gradient
# A weight was used at every place of the window. The first weight met the pixels in rows 0 to 1 and columns 0 to 1, one
# for each output.
#
# **Predict.** Which four pixels did the weight in the lower left corner meet? So what is its gradient, with `dy` of 1,
# 10, 100 and 1000?

# %%
assert dweight[0, 0, 1, 0] == 4 * 1 + 5 * 10 + 7 * 100 + 8 * 1000 == 8754
assert dweight[0, 0, 0, 0] == (x[0, 0, 0:2, 0:2] * dy[0, 0]).sum() and x[0, 0, 1, 1] == 5
np.testing.assert_array_equal(naive.conv2d_forward(x, dy), dweight)
assert list(x[0, 0, 1:3, 0:2].ravel()) == [4, 5, 7, 8]
marks = [Mark(0, 1, 0, 2, 2, "what weight[1, 0] met"), Mark(2, 1, 0, label="what weight[1, 0] met")]
explain.maps(x, dy, dweight, titles=["x", "dy", "dweight: gradient of the weights"], operators=["*", "="], marks=marks)

# %% [markdown]
# It met 4, 5, 7 and 8, and its gradient is 8754: read its digits backwards. The gradient of the weights is a
# convolution too, of the picture with `dy` in the place of the weights, this time without a flip. One number for each
# place in the table, however large the picture.
#
# ### The bias's gradient
# The bias is added to every output, so it collects the whole of `dy`: 1111.

# %%
assert dbias == dy.sum() == 1111
print("dbias:", dbias)

# %% [markdown]
# ### Checking by nudging
# You need not believe a derivation. Nudge one number, compute the loss again, and see by how much it changed. The loss
# that has `dy` as its gradient is the sum of `dy` times `y`.
#
# **Predict.** The middle of the picture has the gradient 1234. By how much does the loss grow if you add 0.5 to that
# pixel? Is that exact, or only nearly right?


# %%
def loss(picture, table):
    return (naive.conv2d_forward(picture, table) * dy).sum()


nudged = x.copy()
nudged[0, 0, 1, 1] += 0.5
change = loss(nudged, weight) - loss(x, weight)
assert change == 0.5 * 1234 == 617
print("the loss grew by", change)

# %% [markdown]
# By 617, exactly: the loss is linear in each single number, so a straight line is no approximation. For other operators
# one nudges by very little, in both directions, and divides the difference by the way between; this is called *finite
# differences*. `explain.check_gradients` does it for every number that goes in. The column `tape` is what the backward
# pass says, `difference` what nudging says.

# %%
report = explain.check_gradients(
    lambda x, weight, bias: ops.conv2d(x, weight, bias, stride=2, padding=1),
    {"x": rng.normal(size=(1, 1, 4, 3)), "weight": rng.normal(size=(1, 1, 3, 2)), "bias": rng.normal(size=1)},
)
print(report)
assert report.ok and report.counts["right"] == 19 == 12 + 6 + 1

# %% [markdown]
# All 19 gradients are right: of 12 pixels, 6 weights and a bias.
#
# ### What is never read has no gradient
# **Predict.** Six rows, three rows of weights, stride 2: what is the gradient of the last row?

# %%
six = rng.normal(size=(1, 1, 6, 6))
dx_six, _, _ = naive.conv2d_backward(np.ones((1, 1, 2, 2)), six, np.ones((1, 1, 3, 3)), stride=2)

assert not dx_six[0, 0, 5].any() and not dx_six[0, 0, :, 5].any()
marks = [Mark(0, 5, 0, 1, 6, "never read"), Mark(0, 0, 5, 6, 1, "never read")]
explain.maps(dx_six, title="dx, where dy and the weights are all 1: how many windows read each pixel", marks=marks)

# %% [markdown]
# Zero, as predicted from the formula of the output's size. If a loss ignores part of your pictures, look at this first.
#
# ### All of it by the tape
# You will seldom call a backward kernel yourself. A `Tensor` that requires gradients remembers what was computed from
# it; `backward` walks that record, the *tape*, from the end to the beginning and leaves each gradient in `.grad`.

# %%
tx, tw, tb = Tensor(x, requires_grad=True), Tensor(weight, requires_grad=True), Tensor(np.zeros(1), requires_grad=True)
ops.conv2d(tx, tw, tb).backward(dy)

for tensor, expected in ((tx, dx), (tw, dweight), (tb, dbias)):
    np.testing.assert_array_equal(tensor.grad.numpy(), expected)

dy_large = rng.normal(size=slow.shape)
for ours, textbook in zip(
    cpu.conv2d_backward(dy_large, picture, tables, **options),
    naive.conv2d_backward(dy_large, picture, tables, **options),
    strict=True,
):
    np.testing.assert_allclose(ours, textbook, rtol=1e-11, atol=1e-11)
print("tape, fast kernels and textbook loops agree")

# %% [markdown]
# ## Mistakes that look right
# ### The flip that is not there
# In mathematics and signal processing, a *convolution* turns the weights by half a turn before it lays them down. What
# deep learning calls convolution does not; its exact name is *cross-correlation*. NumPy has both, in one dimension.
#
# **Predict.** The row is 0, 1, 2, 3, 4 and the weights 1, 2, 0. What do `np.correlate` and `np.convolve` give in the
# first place? Which of them is `conv2d`?

# %%
row, table = np.array([0.0, 1.0, 2.0, 3.0, 4.0]), np.array([1.0, 2.0, 0.0])
correlated, convolved = np.correlate(row, table, "valid"), np.convolve(row, table, "valid")
ours = naive.conv2d_forward(row.reshape(1, 1, 1, 5), table.reshape(1, 1, 1, 3)).ravel()

print("correlate:", correlated, " convolve:", convolved, " conv2d:", ours)
np.testing.assert_array_equal(ours, correlated)
assert correlated[0] == 0 * 1 + 1 * 2 + 2 * 0 == 2 and convolved[0] == 0 * 0 + 1 * 2 + 2 * 1 == 4

# %% [markdown]
# `conv2d` is the correlation, which gives 2; the flipped one gives 4. For a network that learns its weights it makes no
# difference: it learns them flipped. It does where weights come from elsewhere, from a formula or another program. And
# it does in the gradient, where the flip is real.
#
# **Predict.** Somebody forgets to flip the weights in `dx`, and tests the code with the weights 1, 2, 2, 1 in a 2x2
# table. Does the test notice?

# %%
for name, values in (("weights 1 2 2 1", [[1.0, 2.0], [2.0, 1.0]]), ("weights 1 2 3 4", [[1.0, 2.0], [3.0, 4.0]])):
    candidate = np.array(values).reshape(1, 1, 2, 2)
    right_dx, _, _ = naive.conv2d_backward(dy, x, candidate)
    no_flip = naive.conv2d_forward(dy, candidate, padding=1)
    print(name, "- forgotten flip gives the right dx:", np.array_equal(no_flip, right_dx))

assert (np.array([[1, 2], [2, 1]])[::-1, ::-1] == np.array([[1, 2], [2, 1]])).all()
assert not (np.array([[1, 2], [3, 4]])[::-1, ::-1] == np.array([[1, 2], [3, 4]])).all()

# %% [markdown]
# It does not: that table is the same after half a turn. A test needs weights without symmetry, such as 1, 2, 3, 4.
#
# ### Counting windows wrongly
# **Predict.** A pixel that lies in four windows: should its gradient be divided by four, as it was "counted four
# times"?

# %%
counted, _, _ = naive.conv2d_backward(np.ones_like(dy), x, np.ones_like(weight))
last_only = np.zeros((3, 3))
for oy, ox in np.ndindex(2, 2):
    last_only[oy : oy + 2, ox : ox + 2] = dy[0, 0, oy, ox] * weight[0, 0]  # = where += belongs

titles = ["windows that\nread each pixel", "dx: right", "wrong: divided by\nthat number", "wrong: = instead\nof +="]
explain.maps(counted, dx, dx[0, 0] / counted[0, 0], last_only, titles=titles)

# %% [markdown]
# No. The pixel acts on the loss through each of the windows, and nudging it moves all of their outputs at once; the
# nudge above showed the full sum. Dividing is wrong, and so is `=` in the place of `+=`, where each stamp wipes out the
# ones before. Look at the corners: there both mistakes are right, as one window reads them. With a stride as large as
# the table, where windows do not overlap at all, a test would not notice either mistake anywhere.


# %%
def divided(dy, result, x):
    return naive.conv2d_backward(dy, x, weight)[0] / counted


wrong = explain.check_gradients(lambda x: naive.conv2d_forward(x, weight), x, backward=divided)
print(wrong)
assert wrong.counts["wrong"] == 5 and wrong.counts["right"] == 4

# %% [markdown]
# `check_gradients` takes a pair of kernels as well (here `tape` is what the kernel claims), and finds five of the nine
# gradients wrong: all but those of the four corners. And the stride that would have hidden it:

# %%
assert counted[0, 0, 1, 1] == 4
apart = np.arange(1.0, 17.0).reshape(1, 1, 4, 4)
separate, _, _ = naive.conv2d_backward(dy, apart, weight, stride=2)
wiped = np.zeros((4, 4))
for oy, ox in np.ndindex(2, 2):
    wiped[2 * oy : 2 * oy + 2, 2 * ox : 2 * ox + 2] = dy[0, 0, oy, ox] * weight[0, 0]
np.testing.assert_array_equal(wiped, separate[0, 0])

# %% [markdown]
# ## Questions
# Write the answer in place of the three dots and run the cell. Pencil and paper are enough, and so is a cell of your
# own.
#
# **1.** A picture has 32 rows. The weights are 5x5, the stride is 2, the padding 2, and there is no dilation. How many
# rows has the output?

# %%
answer = ...
tinyseg.lessons.check("convolution.1", answer)

# %% [markdown]
# **2.** The picture is a ramp from 0 to 15 in four rows. With the weights below and a padding of 1, what is the output
# in row 1 and column 0?

# %%
ramp = np.arange(16.0).reshape(4, 4)
table = [[1, 0, 2], [0, -1, 0], [0, 3, 1]]

answer = ...
tinyseg.lessons.check("convolution.2", answer)

# %% [markdown]
# **3.** How many numbers does `nn.Conv2d(12, 24, 3, groups=3)` learn, bias included?

# %%
answer = ...
tinyseg.lessons.check("convolution.3", answer)

# %% [markdown]
# **4.** A 3x3 picture, the weights `[[1, 2], [3, 4]]`, and `dy` is `[[1, 0], [0, 2]]`. What is the gradient of the
# pixel in the middle?

# %%
answer = ...
tinyseg.lessons.check("convolution.4", answer)

# %% [markdown]
# **5.** The picture is the 5x5 ramp from 0 to 24, the weights are 2x2, the stride is 2, and `dy` is
# `[[1, 10], [100, 1000]]`. What is the gradient of `weight[0, 1]`, in row 0 and column 1 of the table?

# %%
answer = ...
tinyseg.lessons.check("convolution.5", answer)

# %% [markdown]
# **6.** Somebody tests `dx` with a 3x3 table of ones and windows that overlap. Which mistake passes:
# `"a missing flip"`, `"= in place of +="`, or `"a mean over windows"`?

# %%
answer = ...
tinyseg.lessons.check("convolution.6", answer)
