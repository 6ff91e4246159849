"""Where the boxes of a drawn graph stand: in layers, each below all that it needs, so that edges go downwards.

After Sugiyama, Tagawa and Toda, "Methods for visual understanding of hierarchical system structures" (1981). Written
here because graphviz is no Python package, and what there is of layered layouts in pure Python, grandalf, is under the
GPL or EPL, and has not been worked on for years.
"""

from typing import NamedTuple

import numpy as np

_SWEEPS = 12  # down and up, to bring boxes below what they are linked to


class Layout(NamedTuple):
    """Where things stand, in the unit of the widths that were given.

    Attributes
    ----------
    centres : list of (float, float)
        Of each box.
    routes : list of list of (float, float)
        For each edge the points that it goes through, from the lower end of a box to the upper end of another.
    size : (float, float)
        Width and height of all.
    """

    centres: list
    routes: list
    size: tuple


def layered(widths, heights, edges, gap=(0.3, 0.45), lane=0.2):
    """Place boxes in layers, and lead edges past the boxes between their ends.

    Parameters
    ----------
    widths, heights : sequence of float
        Of each box.
    edges : sequence of (int, int)
        From a box to a later one.
    gap : (float, float)
        Least distance of boxes, across and down.
    lane : float
        Width of an edge that passes a layer.

    Returns
    -------
    Layout

    Raises
    ------
    ValueError
        If an edge does not lead to a later box.
    """
    count = len(widths)
    if any(not 0 <= a < b < count for a, b in edges):
        raise ValueError("edges lead backwards; expected each to lead from a box to a later one")
    ranks = _ranks(count, edges)
    rank, width = list(ranks), list(widths)
    links: list = []
    chains: list = []
    for a, b in edges:  # an edge over several layers takes a place in each
        chain = [a]
        for level in range(ranks[a] + 1, ranks[b]):
            rank.append(level)
            width.append(lane)
            chain.append(len(rank) - 1)
        chain.append(b)
        chains.append(chain)
        links += zip(chain, chain[1:], strict=False)
    layers = _ordered(rank, links)
    x = _across(layers, links, np.array(width, float), gap[0])
    tallest = [max([heights[i] for i in layer if i < count], default=0) for layer in layers]
    tops = np.concatenate([[0], np.cumsum([height + gap[1] for height in tallest])])
    middle = [tops[level] + tallest[level] / 2 for level in rank]
    routes = []
    for chain in chains:
        route = [(x[chain[0]], middle[chain[0]] + heights[chain[0]] / 2)]
        for dummy in chain[1:-1]:
            top = tops[rank[dummy]]
            route += [(x[dummy], top), (x[dummy], top + tallest[rank[dummy]])]
        routes.append([*route, (x[chain[-1]], middle[chain[-1]] - heights[chain[-1]] / 2)])
    size = max((x[i] + width[i] / 2 for i in range(len(x))), default=0), max(tops[-1] - gap[1], 0)
    return Layout([(x[i], middle[i]) for i in range(count)], routes, size)


def _ranks(count, edges):
    """Return the layer of each box: one below the lowest that it needs; what needs nothing, above what needs it."""
    ranks, needed = [0] * count, [False] * count
    for a, b in sorted(edges, key=lambda edge: edge[1]):
        ranks[b] = max(ranks[b], ranks[a] + 1)
        needed[b] = True
    for box in range(count):
        below = [ranks[b] for a, b in edges if a == box]
        if not needed[box] and below:
            ranks[box] = min(below) - 1
    return ranks


def _ordered(rank, links):
    """Return the boxes of each layer from left to right, with few crossings: by the means of their neighbours."""
    above: list = [[] for _ in rank]
    below: list = [[] for _ in rank]
    for a, b in links:
        above[b].append(a)
        below[a].append(b)
    layers: list = [[] for _ in range(max(rank, default=-1) + 1)]
    for box, level in enumerate(rank):
        layers[level].append(box)
    place = {box: float(i) for layer in layers for i, box in enumerate(layer)}
    best, fewest = [list(layer) for layer in layers], _crossings(place, links, rank)
    for sweep in range(_SWEEPS):
        neighbours = above if sweep % 2 == 0 else below
        for layer in layers if sweep % 2 == 0 else layers[::-1]:
            means = {i: np.mean([place[n] for n in neighbours[i]]) if neighbours[i] else place[i] for i in layer}
            layer.sort(key=lambda i: means[i])
            place.update({box: float(i) for i, box in enumerate(layer)})
        crossings = _crossings(place, links, rank)
        if crossings < fewest:
            best, fewest = [list(layer) for layer in layers], crossings
    return best


def _crossings(place, links, rank):
    """Return how many pairs of edges cross."""
    total = 0
    for level in set(rank):
        ends = np.array(sorted((place[a], place[b]) for a, b in links if rank[a] == level)).reshape(-1, 2)
        total += int(np.sum(np.triu(ends[:, None, 1] > ends[None, :, 1], 1) & (ends[:, None, 0] < ends[None, :, 0])))
    return total


def _across(layers, links, width, gap):
    """Return the middle of each box: near the mean of its neighbours, without overlaps."""
    x = np.zeros(len(width))
    for layer in layers:
        x[layer] = np.cumsum(width[layer] + gap) - width[layer] / 2 - gap
        x[layer] -= (x[layer[0]] + x[layer[-1]]) / 2
    neighbours: list = [[] for _ in width]
    for a, b in links:
        neighbours[a].append(b)
        neighbours[b].append(a)
    for sweep in range(2 * _SWEEPS):
        for layer in layers if sweep % 2 == 0 else layers[::-1]:
            wanted = np.array([np.mean(x[neighbours[i]]) if neighbours[i] else x[i] for i in layer])
            spans = (width[layer][1:] + width[layer][:-1]) / 2 + gap
            x[layer] = _apart(wanted, spans)
    return (x - np.min(x - width / 2, initial=0)).tolist() if len(x) else []


def _apart(wanted, spans):
    """Return the places nearest to those wanted, by least squares, that keep the distances: pooled neighbours."""
    offset = np.concatenate([[0], np.cumsum(spans)])
    pools: list = []  # mean and number, rising
    for value in wanted - offset:
        mean, number = float(value), 1
        while pools and pools[-1][0] > mean:
            other, many = pools.pop()
            mean, number = (mean * number + other * many) / (number + many), number + many
        pools.append((mean, number))
    return offset + np.concatenate([np.full(number, mean) for mean, number in pools])
