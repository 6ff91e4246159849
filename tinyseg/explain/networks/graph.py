"""The tape of one run of a network, as a graph: operators, what flows between them, and what each costs."""

from typing import NamedTuple

import numpy as np

from tinyseg import backend
from tinyseg.explain import checks
from tinyseg.explain.networks.graph_blocks import blocks_of
from tinyseg.explain.networks.graph_recorder import Recorder
from tinyseg.explain.networks.runs import pictures_of, run, unchanged
from tinyseg.explain.text import strict_json
from tinyseg.models import GeneralizedRCNN
from tinyseg.tensor import Tensor
from tinyseg.watching import watching


class GraphNode(NamedTuple):
    """One operator of a run.

    Attributes
    ----------
    operator : str
        Its name with what it does in the same pass, ``"conv2d + norm + relu"``; ``"input"`` for the pictures.
    layer : str
        Name of the layer whose parameters it takes, ``"layer1_conv.conv1"``; empty where it has none.
    inputs : tuple of (int, tuple of int)
        For each input that another operator made the number of that, and the input's shape.
    output_shape : tuple of int
        Of what it puts out.
    output_bytes : int
        The memory of that.
    kept_bytes : int
        Of what it keeps for the backward pass, and no operator before it does; parameters do not count.
    parameters : tuple of str
        Names of the parameters that it takes.
    flops : int
        Multiplications and additions of the textbook; 0 where they are not counted.
    bytes_read, bytes_written : int
        Of all arrays of its kernels, each once.
    backward_flops, backward_bytes_read, backward_bytes_written : int
        The same of its backward pass, with the sums of gradients that follow it. 0 if none ran.
    times : int
        How many calls of a kernel it stands for; always 1 for operators on the tape.
    differentiable : bool
        False for the input, and for kernels that no operator calls: no gradient flows through them.
    """

    operator: str
    layer: str
    inputs: tuple
    output_shape: tuple
    output_bytes: int
    kept_bytes: int
    parameters: tuple
    flops: int
    bytes_read: int
    bytes_written: int
    backward_flops: int
    backward_bytes_read: int
    backward_bytes_written: int
    times: int
    differentiable: bool


_SUMS = (
    "flops", "bytes_read", "bytes_written", "backward_flops", "backward_bytes_read", "backward_bytes_written",
    "output_bytes", "kept_bytes",
)  # fmt: skip


def graph(model, shape, *, backward=False):
    """Run a network once and return the graph of its operators.

    It runs on the ``"cpu"`` kernels, and is afterwards as it was before: see `plan`, whose totals are the same.

    Parameters
    ----------
    model : Module
        The network, or a single layer.
    shape : sequence of int, or ndarray
        Of the pictures, noise from 0 to 1: ``(N, C, H, W)``; for detectors (`tinyseg.models.GeneralizedRCNN`) also
        ``(C, H, W)``; for a layer of another kind what it takes. Or the pictures themselves.
    backward : bool
        False: as in prediction, where normalisation and ReLU are folded into the convolutions. True: a step of
        training; the loss is the sum of the output, for detectors that of the losses with one made-up object in each
        picture. What each operator keeps for its backward pass, and what that costs, is then known.

    Returns
    -------
    Graph
        ``print`` shows it as a table, ``figure()`` and ``svg()`` draw it.

    Raises
    ------
    TypeError
        If ``model`` is no Module, or ``shape`` does not consist of whole numbers.
    ValueError
        If the network does not take such pictures, or with ``backward`` nothing in it requires gradients.

    Examples
    --------
    >>> import tinyseg
    >>> graph = tinyseg.explain.graph(tinyseg.models.UNet(widths=(4, 8)), (1, 1, 32, 32))
    >>> [node.operator for node in graph.nodes][:4]
    ['input', 'conv2d + norm + relu', 'conv2d + norm + relu', 'max_pool2d']
    >>> graph.totals()["parameters"]
    1749
    """
    checks.network(model)
    with backend.use_backend("cpu"), unchanged(model):
        model.train(backward)
        pictures = _given(model, shape)
        recorder = Recorder(model, pictures)
        with watching(recorder.told), backend.record_kernels(recorder.called):
            run(model, pictures, backward)
    nodes = [GraphNode(**{name: _plain(getattr(node, name)) for name in GraphNode._fields}) for node in recorder.nodes]
    sizes = {name: parameter.size for name, parameter in model.named_parameters()}
    return Graph(type(model).__name__, nodes, recorder.root, sizes, backward)


def _plain(value):
    return tuple(value) if isinstance(value, list) else value


def _given(model, shape):
    """Return what a network is run on."""
    given = isinstance(shape, np.ndarray) and shape.ndim > 1
    sizes = checks.wholes("shape", shape.shape if given else shape, "whole numbers")
    if isinstance(model, GeneralizedRCNN) or len(sizes) == 4 or not sizes or min(sizes) < 1:
        return pictures_of(model, shape)
    parameter = next(model.parameters(), None)
    values = shape if given else np.random.default_rng(0).random(sizes)
    if values.dtype.kind not in "fiub":
        raise TypeError(f"shape is an array of dtype {values.dtype}; expected numbers")
    return Tensor(values.astype(np.float32 if parameter is None else parameter.dtype))


class Graph:
    """The operators of one run. ``print`` shows them as a table, ``figure()`` and ``svg()`` draw them.

    Parameters
    ----------
    name : str
        Of the network.
    nodes : list of GraphNode
        All operators, in the order in which they ran; the first is the input.
    calls : Frame
        Which modules called which, and which operators.
    sizes : dict of str to int
        How many numbers each parameter of the network has.
    backward : bool
        Whether the backward pass ran.
    """

    def __init__(self, name, nodes, calls, sizes, backward):
        self.name, self.nodes, self._calls, self._sizes, self.backward = name, nodes, calls, sizes, backward

    def totals(self):
        """Return sums over all operators.

        Returns
        -------
        dict
            The sums of what a `GraphNode` counts, as `tinyseg.explain.Plan` has them; ``parameters``: numbers in all
            parameters that an operator took, each once; ``unused``: names of those that none took.
        """
        sums = {name: sum(getattr(node, name) for node in self.nodes) for name in _SUMS}
        used = {name for node in self.nodes for name in node.parameters}
        sums["parameters"] = sum(self._sizes[name] for name in used)
        sums["unused"] = [name for name in self._sizes if name not in used]
        return sums

    def blocks(self, depth=None):
        """Return the graph with the operators of each module taken together.

        Parameters
        ----------
        depth : int, optional
            How many levels of modules to open: 0 takes all as one block, 1 shows the modules that the network calls.
            If left out, the largest modules are opened, as long as there are no more than 40 blocks. Equal blocks in a
            row are one.

        Returns
        -------
        list of GraphBlock
            Each comes after all that it needs.

        Raises
        ------
        ValueError
            If ``depth`` is below 0.
        """
        return blocks_of(self.nodes, self._calls, self._sizes, depth)

    def to_json(self):
        """Return all operators, and the totals, as the text of a JSON object.

        Returns
        -------
        str
        """
        whole = {"name": self.name, "backward": self.backward, "totals": self.totals()}
        return strict_json({**whole, "nodes": [node._asdict() for node in self.nodes]})

    def __str__(self):
        from tinyseg.explain.networks.graph_table import table

        return table(self)

    __repr__ = __str__

    def figure(self, depth=None, width=None):
        """Draw the graph.

        Parameters
        ----------
        depth : int, optional
            How many levels of modules to open: see `blocks`.
        width : float, optional
            Of the figure in inches; if left out, as wide as the graph at its natural size.

        Returns
        -------
        matplotlib.figure.Figure
        """
        from tinyseg.explain.networks.graph_drawing import draw_figure

        return draw_figure(self, depth, width)

    def svg(self, depth=None):
        """Draw the graph as SVG, whose text can be selected and searched; what a block holds shows under the pointer.

        Parameters
        ----------
        depth : int, optional
            How many levels of modules to open: see `blocks`.

        Returns
        -------
        str
            The text of an SVG file.
        """
        from tinyseg.explain.networks.graph_drawing import draw_svg

        return draw_svg(self, depth)

    def _repr_svg_(self):
        return self.svg()
