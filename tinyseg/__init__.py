"""Image segmentation from scratch in NumPy and Numba, for people who want to see inside."""
