"""One run of a network written down: which operator took what from which, in which module, and at what cost."""

import weakref
from dataclasses import dataclass, field

from tinyseg.backend import is_on_device
from tinyseg.explain.networks.costs import arrays_in, cost
from tinyseg.explain.networks.plan import operator_words
from tinyseg.tensor import array_of


@dataclass
class Frame:
    """One call of a module, with the calls and operators within, in order."""

    path: str
    kind: str
    parts: list = field(default_factory=list)


@dataclass
class Recorded:
    """One operator of the run; see `tinyseg.explain.GraphNode`, which it becomes."""

    operator: str = ""
    layer: str = ""
    inputs: list = field(default_factory=list)
    output_shape: tuple = ()
    output_bytes: int = 0
    kept_bytes: int = 0
    parameters: list = field(default_factory=list)
    flops: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    backward_flops: int = 0
    backward_bytes_read: int = 0
    backward_bytes_written: int = 0
    times: int = 1
    differentiable: bool = True
    repeats: bool = False  # whether another call of the same kernel right after it is part of it


class Recorder:
    """Takes what modules, operators and kernels tell during a run.

    Parameters
    ----------
    model : Module
        The network.
    pictures : Tensor or list
        What it is given: the first node.
    """

    def __init__(self, model, pictures):
        self._paths = {id(module): (path, type(module).__name__) for path, module in model.named_modules()}
        self._of_array = {id(tensor.array): name for name, tensor in model.named_parameters()}
        buffers = {id(tensor.array): name for name, tensor in model.named_buffers()}
        self._layers = {key: name.rpartition(".")[0] for key, name in (buffers | self._of_array).items()}
        self._held = [tensor.array for tensor in (*model.parameters(), *model.buffers())]
        self._arrays: dict = {}
        self._kept: dict = {}
        self._nodes_of: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
        self._inside, self._calls, self._last = 0, [], None
        self._folded: list = []  # parameters that the next kernel has taken over
        self._operators = 0
        self.nodes: list = []
        self.root = Frame("", type(model).__name__)
        self._frames = [self.root]
        given = [array_of(one) for one in (pictures if isinstance(pictures, list) else [pictures])]
        shape = given[0].shape if len(given) == 1 else (len(given), *given[0].shape)
        self._add(Recorded("input", "", [], tuple(shape), sum(one.nbytes for one in given), differentiable=False))
        for one in given:
            self._remember(one, 0)

    # ---- what is told ----------------------------------------------------------------------------------------------

    def told(self, subject, values):
        """Take what `tinyseg.watching.tell` says."""
        if subject == "module begins":
            path, kind = self._paths.get(id(values["module"]), ("", type(values["module"]).__name__))
            frame = Frame(path, kind)
            self._frames[-1].parts.append(frame)
            self._frames.append(frame)
        elif subject == "module":
            self._frames.pop()
        elif subject == "folded":
            modules = [module for module in (values["conv"], values["norm"]) if module is not None]
            self._folded = [self._of_array[id(p.array)] for module in modules for p in module.parameters()]
        elif subject in ("operator begins", "backward begins"):
            self._inside += 1
            if self._inside == 1:
                self._calls = []
        elif subject == "operator":
            self._inside -= 1
            if not self._inside:
                self._operator(**values)
        elif subject == "backward":
            self._inside -= 1
            node = self._nodes_of.get(values["node"])
            if not self._inside and node is not None:
                self._last = node
                for call in self._calls:
                    self._count_backward(node, call)

    def called(self, call):
        """Take a call of a kernel."""
        costs, words = cost(call), operator_words(call)
        known = [self._of_array[id(a)] for a in arrays_in(call.arguments) if id(a) in self._of_array]
        layer = next((self._layers[id(a)] for a in arrays_in(call.arguments) if id(a) in self._layers), "")
        one = (words, costs, known, layer)
        if self._inside:
            self._calls.append(one)
        elif self._last is not None:  # gradients of one tensor, added up
            self._count_backward(self._last, one)
        else:
            self._outside(call, one)

    # ---- nodes -----------------------------------------------------------------------------------------------------

    def _add(self, node):
        self.nodes.append(node)
        self._frames[-1].parts.append(len(self.nodes) - 1)
        return len(self.nodes) - 1

    def _operator(self, node, inputs, output):
        """Write down an operator that has run."""
        calls = self._calls
        words = calls[0][0] if len(calls) == 1 else node.operator_name()
        made = Recorded(words, output_shape=output.shape, output_bytes=output.array.nbytes)
        made.layer = next((layer for *_, layer in calls if layer), "")
        for tensor in inputs:
            if tensor is None:
                continue
            if id(tensor.array) in self._of_array:
                made.parameters.append(self._of_array[id(tensor.array)])
                made.layer = made.layer or self._layers[id(tensor.array)]
            elif (source := self._source(tensor.array)) is not None:
                made.inputs.append((source, tensor.shape))
            elif not self._operators:  # a detector scales and pads its pictures without operators
                made.inputs.append((len(self.nodes) - 1, tensor.shape))
        self._count(made, calls)
        if not (made.inputs or calls or made.parameters or any(node.needs)):
            return  # bookkeeping, such as counting the batches seen
        made.kept_bytes = self._newly_kept(node) if any(node.needs) else 0
        number = self._add(made)
        self._operators += 1
        self._nodes_of[node] = made
        self._remember(output.array, number)

    def _outside(self, call, one):
        """Write down a kernel that was called by no operator on the tape.

        Layers that run as one, in a prediction, call theirs so. Other such kernels work on what no gradient flows to.
        """
        words, _, _, layer = one
        sources = [(source, array.shape) for array in arrays_in(call.arguments)
                   if (source := self._source(array)) is not None]  # fmt: skip
        if not sources and not self._operators:
            sources = [(len(self.nodes) - 1, self.nodes[-1].output_shape)]
        last = self._frames[-1].parts[-1] if self._frames[-1].parts else None
        made = arrays_in(call.result)
        if not layer and isinstance(last, int) and self.nodes[last].operator == words and self.nodes[last].repeats:
            node, number = self.nodes[last], last
            node.times += 1
            node.inputs += [source for source in sources if source[0] != last]
        else:
            node = Recorded(words, layer, sources, made[0].shape if made else ())
            node.differentiable, node.repeats = bool(layer), not layer
            number = self._add(node)
            self._operators += bool(layer)
        node.output_bytes += made[0].nbytes if made else 0
        self._count(node, [one])
        node.parameters += [name for name in self._folded if name not in node.parameters]
        self._folded = []
        for array in made:
            self._remember(array, number)

    @staticmethod
    def _count(node, calls):
        """Add what calls of kernels cost to an operator."""
        for _, costs, known, _ in calls:
            node.flops += costs.flops or 0
            node.bytes_read += costs.bytes_read
            node.bytes_written += costs.bytes_written
            node.parameters += known
        node.parameters = list(dict.fromkeys(node.parameters))

    @staticmethod
    def _count_backward(node, call):
        costs = call[1]
        node.backward_flops += costs.flops or 0
        node.backward_bytes_read += costs.bytes_read
        node.backward_bytes_written += costs.bytes_written

    def _newly_kept(self, node):
        """Return the bytes of what an operator saves for backward, without parameters and what others saved before."""
        total = 0
        for array in arrays_in(node.saved) if isinstance(node.saved, tuple | list) else []:
            before = self._kept.get(id(array))
            if id(array) in self._layers or (before is not None and before() is array):
                continue
            self._kept[id(array)] = weakref.ref(array)
            total += array.nbytes
        return total

    # ---- which node made an array ----------------------------------------------------------------------------------

    def _remember(self, array, number):
        self._arrays[id(array)] = weakref.ref(array), number

    def _source(self, array):
        """Return the number of the node that made an array, or what it is a view of; None where none did."""
        while array is not None and not is_on_device(array):
            found = self._arrays.get(id(array))
            if found is not None and found[0]() is array:
                return found[1]
            array = getattr(array, "base", None)
        return None
