"""How good a segmentation is, and the prediction of pictures of any size."""
