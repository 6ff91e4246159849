"""A graph of operators taken together by module, so that hundreds of them can be read."""

from typing import NamedTuple

from tinyseg.explain.networks.graph_recorder import Frame

#: What of a GraphNode is bytes that cross between memory and processor.
BYTES_MOVED = ("bytes_read", "bytes_written", "backward_bytes_read", "backward_bytes_written")

_MOST = 40  # blocks, where no depth is asked for


class GraphBlock(NamedTuple):
    """One operator, or all the operators of a call of a module.

    Attributes
    ----------
    name : str
        The module's or layer's name, ``"layer1_conv"``; of equal blocks in a row the first and the last,
        ``"layer3.1 to layer3.5"``. Empty where there is none.
    kind : str
        The module's class, or the operator.
    nodes : tuple of int
        Numbers of its operators.
    repeats : int
        How many equal blocks it stands for.
    inputs : tuple of (int, tuple of int)
        For each that flows into it the number of the block that made it, and its shape.
    output_shape : tuple of int
        Of the last operator's output.
    parameters, flops, bytes_moved, kept_bytes : int
        Sums over its operators, of all repeats, forward and backward; a parameter that a block before it takes as well
        counts there.
    differentiable : bool
        Whether a gradient can flow through it.
    """

    name: str
    kind: str
    nodes: tuple
    repeats: int
    inputs: tuple
    output_shape: tuple
    parameters: int
    flops: int
    bytes_moved: int
    kept_bytes: int
    differentiable: bool


def blocks_of(nodes, calls, sizes, depth):
    """Return the blocks of a graph.

    Parameters
    ----------
    nodes : list of GraphNode
        All operators.
    calls : Frame
        Which modules called which.
    sizes : dict of str to int
        How many numbers each parameter has.
    depth : int or None
        How many levels to open.

    Returns
    -------
    list of GraphBlock
    """
    if depth is not None:
        if isinstance(depth, bool) or not isinstance(depth, int) or depth < 0:
            raise ValueError(f"depth is {depth!r}; expected a whole number of at least 0")
        return _joined(nodes, _units(calls, _to_depth(calls, depth)), sizes)
    return _joined(nodes, _units(calls, _opened(nodes, calls, sizes)), sizes)


def _opened(nodes, calls, sizes):
    """Return which calls of modules to open: the costliest first, all of a kind together, while the blocks are few.

    ``calls`` is the recorder's own frame, around the call of the network.
    """
    opened = {id(frame) for frame in calls.parts if isinstance(frame, Frame)}
    refused: set = set()

    def cost(frame):
        numbers = _numbers(frame)
        return sum(nodes[number].flops + nodes[number].backward_flops for number in numbers), len(numbers)

    while True:
        shut: dict = {}
        for frame in _shut(calls, opened):
            shut.setdefault((frame.path.count("."), frame.kind), []).append(frame)
        kinds = sorted((kind for kind in shut if kind not in refused), key=lambda k: max(map(cost, shut[k])))[::-1]
        if not kinds:
            return opened
        more = opened | {id(frame) for frame in shut[kinds[0]]}
        if len(_joined(nodes, _units(calls, more), sizes)) <= _MOST:
            opened = more
        else:
            refused.add(kinds[0])


def _shut(frame, opened):
    """Return the calls that are shown as one block, though they hold several operators."""
    found: list = []
    for part in frame.parts:
        if isinstance(part, Frame) and len(_numbers(part)) > 1:
            found += _shut(part, opened) if id(part) in opened else [part]
    return found


def _to_depth(frame, depth):
    """Return the calls that are fewer than so many levels inside."""
    inside = [part for part in frame.parts if isinstance(part, Frame)]
    return set() if depth <= 0 else {id(p) for p in inside}.union(*(_to_depth(part, depth - 1) for part in inside))


def _numbers(frame):
    """Return the operators of a call, in order."""
    found: list = []
    for part in frame.parts:
        found += _numbers(part) if isinstance(part, Frame) else [part]
    return found


def _units(frame, opened):
    """Return name, class and operators of what is shown: operators of calls that are open, other calls as a whole."""
    units = []
    for part in frame.parts:
        if not isinstance(part, Frame):
            units.append(("", "", [part]))
        elif id(part) in opened:
            units += _units(part, opened)
        elif numbers := _numbers(part):
            units.append((part.path, part.kind, numbers))
    return units


def _joined(nodes, units, sizes):
    """Return blocks, equal ones in a row as one."""
    unit_of = {number: i for i, (_, _, numbers) in enumerate(units) for number in numbers}
    flows = []
    for i, (_, _, numbers) in enumerate(units):
        found: dict = {}
        for number in numbers:
            for source, shape in nodes[number].inputs:
                if unit_of[source] != i:
                    found[unit_of[source], tuple(shape)] = None
        flows.append(list(found))
    readers = [
        {j for j, sources in enumerate(flows) for source, _ in sources if source == i} for i in range(len(units))
    ]
    rows: list = []  # units of each block
    for i in range(len(units)):
        same = rows and _alike(nodes, units, flows, rows[-1][-1], i) and readers[rows[-1][-1]] == {i}
        if same and len(units[i][2]) > 1:
            rows[-1].append(i)
        else:
            rows.append([i])
    block_of = {i: number for number, row in enumerate(rows) for i in row}
    counted: set = set()
    return [_block(nodes, units, flows, row, block_of, sizes, counted) for row in rows]


def _alike(nodes, units, flows, a, b):
    """Return whether a unit does what the one before it does, to what that gave."""
    if {source for source, _ in flows[b]} != {a} or units[a][1] != units[b][1] or len(flows[a]) != len(flows[b]):
        return False
    pairs = [[(nodes[n].operator, nodes[n].output_shape) for n in units[i][2]] for i in (a, b)]
    return pairs[0] == pairs[1] and {shape for _, shape in flows[a]} == {shape for _, shape in flows[b]}


def _block(nodes, units, flows, row, block_of, sizes, counted):
    """Return the block of some equal units."""
    numbers = tuple(number for i in row for number in units[i][2])
    first, last = units[row[0]], units[row[-1]]
    own = [nodes[number] for number in numbers]
    new = {name for node in own for name in node.parameters} - counted
    counted |= new
    name = first[0] or (own[0].layer if len(own) == 1 else "")
    kind = own[0].operator if len(own) == 1 else first[1]
    return GraphBlock(
        name=name if len(row) == 1 else f"{name} to {last[0]}",
        kind=kind,
        nodes=numbers,
        repeats=len(row),
        inputs=tuple((block_of[source], shape) for source, shape in flows[row[0]]),
        output_shape=own[-1].output_shape,
        parameters=sum(sizes[name] for name in new),
        flops=sum(node.flops + node.backward_flops for node in own),
        bytes_moved=sum(
            node.bytes_read + node.bytes_written + node.backward_bytes_read + node.backward_bytes_written
            for node in own
        ),
        kept_bytes=sum(node.kept_bytes for node in own),
        differentiable=any(node.differentiable for node in own),
    )
