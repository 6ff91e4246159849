"""Which pixels a cell of a map sees, and how much each counts: the theoretical and the effective receptive field."""

import numpy as np

from tinyseg.backend import moved
from tinyseg.explain import checks
from tinyseg.explain.networks.layer_outputs import OUTPUT, layer_outputs, network_for_maps
from tinyseg.explain.networks.runs import unchanged
from tinyseg.explain.text import strict_json
from tinyseg.tensor import Tensor, array_of, no_grad

_COUNTS = 1 - 0.9545  # of the largest: what counts as effective, two standard deviations of a Gaussian


def receptive_field(model, shape, layer=None, at=None, *, pictures=8, seed=0):
    """Find the pixels that a cell of a layer's map depends on, and how strongly.

    The theoretical receptive field is found without rules for operators: NaN spreads to all that depends on it. Halves
    of the picture become NaN, and bisection finds the first and last row and column that reach the cell. The effective
    one is the mean size of the gradient of the cell, summed over channels, at each pixel, over pictures of noise (Luo,
    Li, Urtasun and Zemel, arXiv:1701.04128).

    Parameters
    ----------
    model : Module
        The network, which runs in evaluation mode; of a detector (`tinyseg.models.GeneralizedRCNN`) its backbone, on
        pictures as they are, neither scaled nor padded. It is afterwards as it was before.
    shape : sequence of int
        Of the picture, ``(C, H, W)`` or ``(1, C, H, W)``: larger than the field, or the border cuts it off.
    layer : str, optional
        Name of the layer, as ``model.named_modules()`` has it, with the key of a map where it gives several:
        ``"fpn[0]"``, or else its first map is taken. The network's own output if left out.
    at : (int, int), optional
        Row and column of the cell, from 0; the one in the middle if left out.
    pictures : int
        How many pictures of noise, standard normal; 0 leaves the effective field out.
    seed : int
        Of the noise.

    Returns
    -------
    ReceptiveField

    Raises
    ------
    ValueError
        If a shape, cell or layer does not fit; if the cell depends on no pixel.
    TypeError
        If ``model`` is no Module, ``shape`` or ``at`` does not consist of whole numbers, or ``pictures`` or ``seed``
        is none.

    Examples
    --------
    Three convolutions 3x3 see 7 pixels a side, a pixel more to each side for each:

    >>> import tinyseg
    >>> from tinyseg import nn
    >>> model = nn.Sequential(*(nn.Conv2d(1, 1, 3, padding=1) for _ in range(3)))
    >>> field = tinyseg.explain.receptive_field(model, (1, 15, 15))
    >>> field.size, field.box
    ((7, 7), (4, 4, 11, 11))
    """
    shape, network = _checked_shape(shape), network_for_maps(model)
    pictures, seed = checks.whole("pictures", pictures), checks.whole("seed", seed)
    if layer is not None and not isinstance(layer, str):
        raise TypeError(f"layer is {layer!r}; expected the name of one")
    parameter = next(model.parameters(), None)
    dtype, device = (np.float32, "cpu") if parameter is None else (parameter.dtype, parameter.device)
    rng = np.random.default_rng(seed)

    def run(x):
        return next(iter(layer_outputs(network, x, layer or OUTPUT).items()))

    with unchanged(model):
        model.eval()
        start = rng.standard_normal(shape).astype(dtype)
        with no_grad():
            name, whole = run(Tensor(moved(start, device)))
        if whole.ndim != 4:
            raise ValueError(f"layer {name!r} gives an array of shape {whole.shape}; expected maps (1, C, H, W)")
        at = _checked_cell(at, whole.shape[2:])

        def reached(x):
            """Return whether the cell is NaN, for each picture."""
            with no_grad():
                values = moved(run(Tensor(moved(x, device)))[1].array, "cpu")
            return np.isnan(values[:, :, at[0], at[1]]).any(axis=1)

        if not np.isfinite(moved(whole.array, "cpu")[0, :, at[0], at[1]]).all():
            raise ValueError("the network gives NaN or infinity for noise; expected finite numbers, to see NaN spread")
        box = _bisected(reached, start)
        effective = np.zeros(shape[2:])
        for _ in range(pictures):
            x = Tensor(moved(rng.standard_normal(shape).astype(dtype), device), requires_grad=True)
            run(x)[1][:, :, at[0], at[1]].sum().backward()
            gradient = moved(array_of(x.grad), "cpu")[0].astype(np.float64)
            effective += np.abs(gradient).sum(axis=0) / pictures
    return ReceptiveField(name, at, whole.shape[1:], shape[1:], box, effective, pictures)


def _checked_shape(shape):
    shape = checks.wholes("shape", shape, "whole numbers")
    shape = (1, *shape) if len(shape) == 3 else shape
    if len(shape) != 4 or shape[0] != 1 or min(shape) < 1:
        raise ValueError(f"shape is {shape}; expected (C, H, W) or (1, C, H, W), each at least 1")
    return shape


def _checked_cell(at, size):
    if at is None:
        return size[0] // 2, size[1] // 2
    at = checks.wholes("at", at, "two whole numbers, row and column", 2)
    if not all(0 <= place < limit for place, limit in zip(at, size, strict=True)):
        raise ValueError(f"at is {at}; expected row and column of a map of {size[0]} x {size[1]} cells")
    return at


def _bisected(reached, picture):
    """Return x1, y1, x2, y2 of the pixels that reach the cell, x2 and y2 beyond the last, by four bisections at once.

    Along each axis, for both ends, an invariant: with NaN in the first ``few`` rows the cell is not reached, with NaN
    in the first ``many`` it is.
    """
    sizes = picture.shape[2:]
    whole = np.full_like(picture, np.nan)
    if not reached(whole)[0]:
        raise ValueError("the cell depends on no pixel; expected a layer that sees the picture, and passes NaN on")
    sides = [(axis, backwards) for axis in (0, 1) for backwards in (False, True)]
    few, many = [0] * 4, [sizes[axis] for axis, _ in sides]
    while any(b - a > 1 for a, b in zip(few, many, strict=True)):
        middle = [(a + b) // 2 for a, b in zip(few, many, strict=True)]
        x = np.repeat(picture, 4, axis=0)
        for one, count, (axis, backwards) in zip(x, middle, sides, strict=True):
            rows = slice(sizes[axis] - count, None) if backwards else slice(0, count)
            one[(slice(None), rows) if axis == 0 else (slice(None), slice(None), rows)] = np.nan
        for side, hit in enumerate(reached(x)):
            if middle[side] > few[side]:
                few[side], many[side] = (few[side], middle[side]) if hit else (middle[side], many[side])
    top, bottom, left, right = many
    return left - 1, top - 1, sizes[1] - right + 1, sizes[0] - bottom + 1


class ReceptiveField:
    """What a cell sees. ``print`` shows it in words; ``figure()`` draws it over the picture.

    Parameters
    ----------
    layer : str
        Name of the layer.
    at : (int, int)
        Row and column of the cell.
    map_shape : tuple of int
        Channels, height and width of the layer's output.
    picture_shape : tuple of int
        Channels, height and width of the picture.
    box : (int, int, int, int)
        The theoretical field: x1, y1, x2, y2 in pixels; x2 and y2 are the first column and row beyond.
    effective : ndarray, shape (H, W)
        The mean size of the gradient at each pixel, summed over the picture's channels.
    pictures : int
        How many pictures of noise it is the mean of.
    """

    def __init__(self, layer, at, map_shape, picture_shape, box, effective, pictures):
        self.layer, self.at, self.map_shape, self.picture_shape = layer, at, map_shape, picture_shape
        self.box, self.effective, self.pictures = tuple(map(int, box)), effective, pictures

    @property
    def size(self):
        """Height and width of the theoretical field in pixels, as far as it lies on the picture."""
        x1, y1, x2, y2 = self.box
        return y2 - y1, x2 - x1

    @property
    def stride(self):
        """Pixels from a cell to the next, down and across: the picture's size over the map's."""
        return tuple(a / b for a, b in zip(self.picture_shape[1:], self.map_shape[1:], strict=True))

    @property
    def cut_off(self):
        """The sides of the picture that the theoretical field reaches, where it may be cut off: a tuple of names."""
        (x1, y1, x2, y2), (_, height, width) = self.box, self.picture_shape
        sides = {"left": x1 == 0, "top": y1 == 0, "right": x2 == width, "bottom": y2 == height}
        return tuple(name for name, reached in sides.items() if reached)

    @property
    def effective_size(self):
        """The side in pixels of a square of as many pixels as count.

        A pixel counts if its gradient is at least 4.55% of the largest, which a Gaussian reaches within two standard
        deviations: Luo et al. 0 if no pictures of noise were asked for.
        """
        largest = self.effective.max(initial=0)
        return float(np.sqrt(np.count_nonzero(self.effective >= _COUNTS * largest))) if largest > 0 else 0.0

    @property
    def effective_share(self):
        """Which share of the theoretical field's area counts, from 0 to 1."""
        return self.effective_size**2 / (self.size[0] * self.size[1])

    def to_json(self):
        """Return everything but the map as the text of a JSON object.

        Returns
        -------
        str
        """
        names = ("layer", "at", "map_shape", "picture_shape", "box", "size", "stride", "cut_off", "pictures")
        whole = {name: getattr(self, name) for name in names}
        whole |= {"effective_size": self.effective_size, "effective_share": self.effective_share}
        return strict_json(whole)

    def __str__(self):
        (height, width), (down, across), (x1, y1, x2, y2) = self.size, self.stride, self.box
        cells, pixels = (" x ".join(map(str, shape)) for shape in (self.map_shape, self.picture_shape))
        at = f"row {self.at[0]}, column {self.at[1]}"
        lines = [
            f"{self.layer}: {cells} cells for a picture of {pixels}; a cell is {down:g} x {across:g} pixels.",
            f"The cell in {at} sees {height} x {width} pixels: rows {y1} to {y2 - 1}, columns {x1} to {x2 - 1}.",
        ]
        if self.cut_off:
            lines.append(
                f"It reaches the picture's border ({', '.join(self.cut_off)}): on a larger one it may see more."
            )
        if self.pictures:
            lines.append(
                f"Of these, as many count as a square of {self.effective_size:.1f} pixels has, "
                f"{self.effective_share:.1%}: their gradient is at least 4.55% of the largest."
            )
        return "\n".join(lines)

    __repr__ = __str__

    def figure(self, picture=None, width=9.6):
        """Draw the field over a picture: the theoretical one as a frame, the effective one in colours.

        Parameters
        ----------
        picture : ndarray or Tensor, optional
            ``(H, W)`` or ``(C, H, W)``, shown in grey below; none if left out.
        width : float
            In inches.

        Returns
        -------
        matplotlib.figure.Figure
            On the left on the whole picture, on the right the field alone.

        Raises
        ------
        ValueError
            If the picture has another height or width.
        """
        from tinyseg.explain.networks.receptive_field_figure import draw_field

        return draw_field(self, picture, _COUNTS, width)
