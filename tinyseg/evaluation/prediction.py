"""A trained U-Net on pictures of any size: normalised, cut into tiles where need be, and joined without a seam."""

from contextlib import contextmanager
from itertools import product

import numpy as np

from tinyseg.backend import moved, moving
from tinyseg.data.normalise import normalise
from tinyseg.evaluation.segmentation import SegmentationScores
from tinyseg.evaluation.tiling import automatic_tile, smallest_tile, tiles_along
from tinyseg.models.unet import pad_to_multiple
from tinyseg.tensor import no_grad, tensor_over


def predict(model, picture, *, tile="auto", normalisation="standardise", before_tile=None):
    """Return the class probabilities of every pixel.

    Whole pictures and tiles give the same numbers up to the rounding of floats: the parts of a tile that its own edge
    could influence are not used (see `tinyseg.evaluation.tiling`), and the picture is normalised before it is cut.
    The memory needed follows from the tile, but for the picture and the result themselves.

    Parameters
    ----------
    model : tinyseg.models.UNet
        It is used in evaluation mode, and left in the mode it was in.
    picture : ndarray of float, shape (C, H, W)
        As it was read; any height and width.
    tile : int, "auto" or "none"
        Side of a tile in pixels, rounded up to whole strides of the network and to the smallest size that works.
        ``"auto"``: `automatic_tile`, which stays near half a gigabyte. ``"none"``: the whole picture in one pass.
    normalisation : dict or str
        What the model was trained with; see `tinyseg.data.normalise`.
    before_tile : callable, optional
        Called before each tile with the number of tiles done and of all tiles; may raise an exception to give up.

    Returns
    -------
    ndarray of float32, shape (classes, H, W)
        From 0 to 1; one class: the probability of foreground.

    Raises
    ------
    ValueError
        If the picture's axes or channels are wrong, or an option is none of the above.
    """
    if not isinstance(picture, np.ndarray) or picture.ndim != 3:
        raise ValueError(f"picture has shape {np.shape(picture)}; expected (C, H, W)")
    if picture.shape[0] != model.in_channels:
        raise ValueError(f"picture has {picture.shape[0]} channels; the model expects {model.in_channels}")
    height, width = picture.shape[1:]
    if height == 0 or width == 0:
        return np.zeros((model.out_channels, height, width), np.float32)
    x = normalise(picture, normalisation)
    side = _side(tile, model.widths)
    with evaluating(model), no_grad():
        if side is None or (height <= side and width <= side):
            if before_tile is not None:
                before_tile(0, 1)
            there = moved(np.ascontiguousarray(x[None]), next(model.parameters()).device)
            return model(tensor_over(there)).to("cpu").numpy()[0]
        return _tiled(model, x, side, before_tile)


def _side(tile, widths):
    """Return the side of a tile in whole strides, or None for a single pass."""
    if tile == "none":
        return None
    if tile == "auto":
        return automatic_tile(widths)
    if isinstance(tile, bool) or not isinstance(tile, (int, np.integer)) or tile < 1:
        raise ValueError(f"tile is {tile!r}; expected a number of pixels, 'auto' or 'none'")
    stride = 2 ** (len(widths) - 1)
    return max(-(-int(tile) // stride) * stride, smallest_tile(len(widths)))


def _tiled(model, x, side, before):
    """Run the model tile by tile and keep the inner parts.

    On a GPU the next tile goes there, and the last result comes back, while a tile is computed.
    """
    _, height, width = x.shape
    depth = len(model.widths)
    stride = 2 ** (depth - 1)
    device = next(model.parameters()).device
    # Padded as the model pads a whole picture: the outer tiles then end where the padded picture does.
    x = pad_to_multiple(tensor_over(x[None]), stride).numpy()
    result = np.empty((model.out_channels, *x.shape[2:]), np.float32)
    tiles = list(product(tiles_along(x.shape[2], side, depth), tiles_along(x.shape[3], side, depth)))

    def begun(number):
        (y0, y1, *_), (x0, x1, *_) = tiles[number]
        return moving(np.ascontiguousarray(x[:, :, y0:y1, x0:x1]), device)

    def keep(number, arrives):
        (y0, _, keep_y0, keep_y1), (x0, _, keep_x0, keep_x1) = tiles[number]
        inner = arrives()[0, :, keep_y0 - y0 : keep_y1 - y0, keep_x0 - x0 : keep_x1 - x0]
        result[:, keep_y0:keep_y1, keep_x0:keep_x1] = inner

    there, back = begun(0), []
    for number in range(len(tiles)):
        if before is not None:
            before(number, len(tiles))
        tile = there()
        if number + 1 < len(tiles):
            there = begun(number + 1)  # before the model starts, whose work it need not wait for then
        back.append(moving(model(tensor_over(tile)).array, "cpu"))
        if number:
            keep(number - 1, back.pop(0))
    keep(len(tiles) - 1, back.pop())
    return np.ascontiguousarray(result[:, :height, :width])


@contextmanager
def evaluating(model):
    """Put a model into evaluation mode for a ``with`` block, and each of its layers back into its own mode after it.

    Parameters
    ----------
    model : tinyseg.nn.Module
        The model.

    Yields
    ------
    tinyseg.nn.Module
        The same model.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield model
    finally:
        for module, training in modes:
            module.training = training


def to_mask(probabilities, threshold=0.5):
    """Turn probabilities into classes.

    Parameters
    ----------
    probabilities : ndarray of float, shape (classes, H, W)
        From `predict`.
    threshold : float
        For one class: foreground where the probability is at least this. Otherwise the likeliest class wins, the
        first of equals.

    Returns
    -------
    ndarray of uint8 (int32 for more than 256 classes), shape (H, W)

    Raises
    ------
    ValueError
        If the shape is another, or the threshold is not from 0 to 1.
    """
    if probabilities.ndim != 3 or probabilities.shape[0] < 1:
        raise ValueError(f"probabilities has shape {probabilities.shape}; expected (classes, H, W)")
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold is {threshold}; expected a number from 0 to 1")
    if probabilities.shape[0] == 1:
        # in the probabilities' own type: float32(0.3) is not below 0.3
        return (probabilities[0] >= probabilities.dtype.type(threshold)).astype(np.uint8)
    return probabilities.argmax(0).astype(np.uint8 if probabilities.shape[0] <= 256 else np.int32)


def predict_mask(model, picture, *, threshold=0.5, tile="auto", normalisation="standardise"):
    """Return the mask of a picture: `predict`, then `to_mask`.

    Parameters
    ----------
    model : tinyseg.models.UNet
        As for `predict`.
    picture : ndarray of float, shape (C, H, W)
        As for `predict`.
    threshold : float
        As for `to_mask`.
    tile : int, "auto" or "none"
        As for `predict`.
    normalisation : dict or str
        As for `predict`.

    Returns
    -------
    ndarray of whole numbers, shape (H, W)
        0 or 1, or with several classes the number of the class.
    """
    return to_mask(predict(model, picture, tile=tile, normalisation=normalisation), threshold)


def evaluate(
    model, samples, *, threshold=0.5, tile="auto", normalisation="standardise", ignore_index=None, before_tile=None
):
    """Score a model on pictures with truth, each at its full size.

    Parameters
    ----------
    model : tinyseg.models.UNet
        The model.
    samples : iterable of tinyseg.data.Sample
        Pictures (C, H, W) with masks (H, W) and names; read one at a time.
    threshold, tile, normalisation, before_tile
        As in `predict` and `to_mask`.
    ignore_index : int, optional
        Class of the pixels that do not count.

    Returns
    -------
    SegmentationScores
    """
    scores = SegmentationScores(model.out_channels, ignore_index)
    for sample in samples:
        found = predict(model, sample.picture, tile=tile, normalisation=normalisation, before_tile=before_tile)
        scores.update(to_mask(found, threshold), sample.mask, sample.name)
    return scores
