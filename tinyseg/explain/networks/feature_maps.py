"""What every layer of a network makes of a picture, as maps that can be looked at."""

from typing import NamedTuple

import numpy as np

from tinyseg.backend import moved
from tinyseg.explain import checks
from tinyseg.explain.networks.layer_outputs import OUTPUT, layer_of, layer_outputs, network_for_maps, prepared
from tinyseg.explain.networks.runs import unchanged
from tinyseg.explain.text import ruled, strict_json
from tinyseg.tensor import Tensor, no_grad

_ROWS = 20  # of a sheet, where no layers are named
_CHANNELS = 8


class FeatureMapRow(NamedTuple):
    """One layer's output in numbers.

    Attributes
    ----------
    layer : str
        Its name.
    kind : str
        The layer's class: ``"Conv2d"``.
    shape : tuple of int
        Channels, height and width.
    low, high, mean : float
        Of all values.
    zeros : float
        The share of values that are 0, from 0 to 1.
    """

    layer: str
    kind: str
    shape: tuple
    low: float
    high: float
    mean: float
    zeros: float


def feature_maps(model, picture, layers=None):
    """Run a network on a picture and keep what each of its layers puts out.

    The network runs in evaluation mode, layer after layer: nothing is folded, so a normalisation shows what it gives
    before the ReLU after it, and the block around both what it gives after it. It is afterwards as it was before.

    Parameters
    ----------
    model : Module
        The network; of a detector (`tinyseg.models.GeneralizedRCNN`) its backbone, after its own scaling and padding.
    picture : ndarray or Tensor
        ``(H, W)``, ``(C, H, W)`` or ``(1, C, H, W)``, floats.
    layers : sequence of str, optional
        Names of the layers that are kept, as ``model.named_modules()`` has them, or ``"output"``; all if left out. A
        name stands for all the outputs of that layer: ``"fpn"`` for ``"fpn[0]"``, ``"fpn[1]"`` and so on.

    Returns
    -------
    FeatureMaps
        ``maps["layer1_conv"]`` is an array; ``print`` shows a table; ``figure()`` draws the maps.

    Raises
    ------
    ValueError
        If the picture does not fit, or there is no such layer, or none with maps.
    TypeError
        If the picture has no floats.

    Examples
    --------
    >>> import numpy as np
    >>> import tinyseg
    >>> model = tinyseg.models.UNet(widths=(4, 8))
    >>> maps = tinyseg.explain.feature_maps(model, np.zeros((16, 16), np.float32))
    >>> maps["layer2_conv"].shape
    (8, 8, 8)
    """
    network = network_for_maps(model)
    with unchanged(model), no_grad():
        model.eval()
        x = prepared(model, picture)
        parameter = next(model.parameters(), None)
        found = layer_outputs(network, Tensor(moved(x, "cpu" if parameter is None else parameter.device)))
    kinds = {name: type(module).__name__ for name, module in network.named_modules() if name}
    kinds[OUTPUT] = type(network).__name__
    whole = {name: layer_of(name) for name in found}
    before = {id(tensor) for name, tensor in found.items() if whole[name] != OUTPUT}
    found = {name: t for name, t in found.items() if whole[name] != OUTPUT or id(t) not in before}  # shown already
    arrays = {name: np.array(moved(t.array, "cpu")[0]) for name, t in found.items() if t.ndim == 4 and len(t) == 1}
    if layers is not None:
        layers = [layers] if isinstance(layers, str) else checks.several("layers", layers, "names of layers")
        for layer in layers:
            if layer not in arrays and layer not in {whole[name] for name in arrays}:
                raise ValueError(f"layers has {layer!r}; expected names of layers with maps: {', '.join(arrays)}")
        arrays = {name: array for name, array in arrays.items() if name in layers or whole[name] in layers}
    if not arrays:
        raise ValueError(f"model is a {type(model).__name__} without maps; expected layers that give (1, C, H, W)")
    return FeatureMaps(x[0], arrays, {name: kinds[whole[name]] for name in arrays})


class FeatureMaps:
    """The outputs of a network's layers, arrays by name. ``print`` shows them as a table.

    Parameters
    ----------
    picture : ndarray, shape (C, H, W)
        What the network was given.
    arrays : dict of str to ndarray
        ``(C, h, w)`` of each layer, in the order in which they were done.
    kinds : dict of str to str
        Each layer's class.
    """

    def __init__(self, picture, arrays, kinds):
        self.picture, self._arrays, self._kinds = picture, arrays, kinds

    @property
    def names(self):
        """The names of all layers, in order, a list."""
        return list(self._arrays)

    def __getitem__(self, name):
        if name not in self._arrays:
            raise KeyError(f"no layer {name!r}; there are {', '.join(self._arrays)}")
        return self._arrays[name]

    def __iter__(self):
        return iter(self._arrays)

    def __len__(self):
        return len(self._arrays)

    @property
    def rows(self):
        """Every layer in numbers, a list of `FeatureMapRow`."""
        return [
            FeatureMapRow(name, self._kinds[name], array.shape, float(array.min()), float(array.max()),
                          float(array.mean(dtype=np.float64)), float((array == 0).mean()))
            for name, array in self._arrays.items()
        ]  # fmt: skip

    def channels(self, name, count=_CHANNELS):
        """Return which channels of a layer tell most: those whose values vary most over the picture.

        Parameters
        ----------
        name : str
            Of the layer.
        count : int
            How many, at most.

        Returns
        -------
        ndarray of int
            By falling variance; the first of equal ones first.
        """
        return np.argsort(-self[name].var(axis=(1, 2), dtype=np.float64), kind="stable")[:count]

    def to_json(self):
        """Return the table as the text of a JSON object, without the maps themselves; NaN is null.

        Returns
        -------
        str
        """
        rows = [row._asdict() for row in self.rows]
        return strict_json({"picture": self.picture.shape, "rows": rows})

    def __str__(self):
        header = ("layer", "kind", "channels x height x width", "least", "largest", "mean", "zeros")
        lines = [header] + [
            (row.layer, row.kind, " x ".join(map(str, row.shape)), *(f"{n:.4g}" for n in (row.low, row.high, row.mean)),
             f"{row.zeros:.0%}")
            for row in self.rows
        ]  # fmt: skip
        picture = " x ".join(map(str, self.picture.shape))
        return "\n".join([f"Picture: {picture}", "", *ruled(lines, range(3))])

    __repr__ = __str__

    def figure(self, layers=None, channels=_CHANNELS, width=9.6):
        """Draw a sheet: the picture, then a row of maps for every layer.

        Parameters
        ----------
        layers : sequence of str, optional
            Which layers; if left out, all where there are up to 20, otherwise those of the outermost blocks.
        channels : int
            Maps of a layer, at most: the ones that vary most over the picture, see `channels`. The number above a map
            is its channel's.
        width : float
            In inches.

        Returns
        -------
        matplotlib.figure.Figure
            Each row has colours of its own, from its least to its largest value, which stand beside it.

        Raises
        ------
        ValueError
            If there is no such layer.
        """
        from tinyseg.explain.networks.feature_maps_figure import draw_sheet

        names = self._outermost() if layers is None else [layers] if isinstance(layers, str) else list(layers)
        for name in names:
            if name not in self._arrays:
                raise ValueError(f"layers has {name!r}; expected some of {', '.join(self._arrays)}")
        chosen = {name: self.channels(name, channels) for name in names}
        return draw_sheet(self.picture, {name: self[name] for name in names}, chosen, len(self), width)

    def _outermost(self):
        """Return the names of as many levels of blocks as fit onto a sheet."""
        shown: list[str] = []
        for depth in range(max(name.count(".") for name in self) + 1):
            names = [name for name in self if name.count(".") <= depth]
            if shown and len(names) > _ROWS:
                break
            shown = names
        return shown
