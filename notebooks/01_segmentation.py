# %% [markdown]
# # What goes in and what comes out
# Segmentation says for every pixel of a picture what it shows.
#
# **You will be able to**
# - say what goes into a network for segmentation and what comes out, as arrays;
# - tell classes from objects;
# - work out Dice and IoU, the measures of overlap, by hand.
#
# It takes about 20 minutes. You need to have read nothing before.

# %%
# %matplotlib inline
import tinyseg

tinyseg.manual_seed(0)

# %% [markdown]
# **Predict.** A made-up picture of cells is 64 pixels high and wide, and grey. What is the shape of its array?

# %%
sample = tinyseg.data.cells(64, seed=1)
assert sample.picture.shape == (1, 64, 64)
sample.picture.shape

# %% [markdown]
# There is one channel, and channels come first.

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
