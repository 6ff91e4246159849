"""Names that the weights of torchvision's detectors had in its files of 2019.

In 2022 each convolution of their heads moved into a block of its own, which put numbers into its name. Modules list
what this gives as their ``old_keys``, and so load the published files as they are.
"""


def pyramid(levels):
    """Return the old names in a feature pyramid of that many levels, to those of today."""
    blocks = [f"{kind}.{level}" for kind in ("inner_blocks", "layer_blocks") for level in range(levels)]
    return _convolutions((name, f"{name}.0") for name in blocks)


def rpn_head():
    """Return the old names in the head of a region proposal network, to those of today."""
    return _convolutions([("conv", "conv.0.0")])


def mask_head(layers):
    """Return the old names in a mask head of that many convolutions, to those of today."""
    return _convolutions((f"mask_fcn{layer + 1}", f"{layer}.0") for layer in range(layers))


def _convolutions(pairs):
    """Return the names of weights and biases for pairs of names of convolutions."""
    return {f"{old}.{kind}": f"{new}.{kind}" for old, new in pairs for kind in ("weight", "bias")}
