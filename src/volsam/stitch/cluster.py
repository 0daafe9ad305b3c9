"""Multicut of a graph of any size: decomposed into components, hierarchical in large ones.

Algorithm
---------
1. Connected components over attractive edges. Clusters of an optimal multicut are connected by
   attractive edges, so edges between components are cut and components are independent (Alush and
   Goldberger 2013, https://doi.org/10.1007/978-3-642-39140-8_9). A component without a repulsive
   edge inside is one cluster and needs no solver.
2. The other components are solved by greedy contraction and Kernighan–Lin, many small ones at once.
3. A component of more than `direct_nodes` nodes is first shrunk: nodes are grouped into cells of
   fixed size in space, each cell's inner graph is solved by 1 and 2, clusters become nodes and
   parallel edges are summed. Cells double in size until the component is small enough or one cell
   holds it (after Pape et al. 2017, https://doi.org/10.1109/ICCVW.2017.7).

Invariants
----------
- The result is a function of the nodes' positions and the set of edges; not of the order of edges,
  nor of blocks, workers or threads.
- Memory is a fixed number of bytes for each node and edge; no Python object per node.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from volsam.stitch.multicut import merge_parallel, number_by_first, solve_multicut

Index = NDArray[np.integer]
Cost = NDArray[np.floating]

DIRECT_NODES = 200_000
"""Components up to this size are solved whole, and small components are solved in lots of it."""

CELL = (16, 4, 4)
"""Slices, tile rows and tile columns of the smallest cell."""


@dataclass(frozen=True)
class Cells:
    """Nested cells in space, which group the nodes of large components.

    Attributes
    ----------
    position : int32 (3, n)
        Slice, tile row and tile column of each node.
    edge : (int, int, int)
        Size of the smallest cells in these units.
    """

    position: NDArray[np.int32]
    edge: tuple[int, int, int] = CELL

    def number(self) -> NDArray[np.int64]:
        """Row-major number of each node's cell."""
        corner = self.position // np.array(self.edge, np.int32)[:, None]
        return np.ravel_multi_index(tuple(corner), tuple(corner.max(axis=1, initial=0) + 1))

    def take(self, nodes: Index) -> Cells:
        """The cells of some nodes."""
        return Cells(self.position[:, nodes], self.edge)

    def doubled(self) -> Cells:
        """Cells of twice the size on every axis."""
        z, y, x = self.edge
        return Cells(self.position, (2 * z, 2 * y, 2 * x))


def cluster(
    n_nodes: int,
    u: Index,
    v: Index,
    cost: Cost,
    cells: Cells | None = None,
    *,
    direct_nodes: int = DIRECT_NODES,
) -> NDArray[np.int64]:
    """Partition a graph by multicut.

    Parameters
    ----------
    n_nodes : int
        Below 2**31.
    u, v : int (m,)
        End points; parallel edges are summed.
    cost : float (m,)
        Cost of cutting each edge, positive attracts.
    cells : Cells, optional
        Used to shrink large components; without it they are solved whole, greedily.
    direct_nodes : int
        Largest component solved whole.

    Returns
    -------
    int64 (n_nodes,)
        Cluster of each node, numbered from 0 by first node.
    """
    component, tense = _components(n_nodes, u, v, cost)
    inside = (component[u] == component[v]) & tense[component[u]]
    u, v, cost = u[inside], v[inside], cost[inside]
    size = np.bincount(component, minlength=tense.size)
    large = tense & (size > direct_nodes)

    # Lots of whole components; lot 0 needs no solver and each large component is a lot of its own.
    small = tense & ~large
    lot_of_component = np.where(small, np.cumsum(np.where(small, size, 0)) // direct_nodes + 1, 0)
    n_small = int(lot_of_component.max(initial=0))
    lot_of_component[large] = n_small + 1 + np.arange(np.count_nonzero(large))

    labels = component.astype(np.int64)
    next_label = tense.size
    for lot, nodes, lu, lv, lcost in _lots(lot_of_component[component], u, v, cost):
        if lot <= n_small:
            part = solve_multicut(nodes.size, lu, lv, lcost)
        elif cells is None:
            part = solve_multicut(nodes.size, lu, lv, lcost, refine=False)
        else:
            part = _shrink(nodes.size, lu, lv, lcost, cells.take(nodes), direct_nodes)
        labels[nodes] = part + next_label
        next_label += nodes.size
    return number_by_first(labels)


def _shrink(
    n_nodes: int, u: Index, v: Index, cost: Cost, cells: Cells, direct_nodes: int
) -> NDArray[np.int64]:
    """Solve within cells, contract, and go on with cells of twice the size."""
    cell = cells.number()
    within = cell[u] == cell[v]
    part = cluster(n_nodes, u[within], v[within], cost[within], direct_nodes=direct_nodes)
    if within.all():
        return part
    _, first = np.unique(part, return_index=True)
    u, v, cost = merge_parallel(first.size, part[u], part[v], cost)
    coarser = cells.take(first).doubled()
    return cluster(first.size, u, v, cost, coarser, direct_nodes=direct_nodes)[part]


def _components(
    n_nodes: int, u: Index, v: Index, cost: Cost
) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Components over attractive edges, and which of them hold a repulsive edge."""
    attractive = cost > 0
    ends = u[attractive].astype(np.int32), v[attractive].astype(np.int32)
    graph = coo_array((np.ones(ends[0].size, np.bool_), ends), shape=(n_nodes, n_nodes))
    count, component = connected_components(graph, directed=False)
    repelled = component[u[~attractive]]
    tense = np.zeros(count, np.bool_)
    tense[repelled[repelled == component[v[~attractive]]]] = True
    return component, tense


def _lots(
    lot: Index, u: Index, v: Index, cost: Cost
) -> Iterator[tuple[int, NDArray[np.int64], Index, Index, Cost]]:
    """Cut a graph into its lots: (lot, nodes, u, v, cost) with end points local to the lot.

    `lot` numbers each node's lot; lot 0 is left out, and no edge may join two lots.
    """
    nodes_in_order = np.argsort(lot, kind="stable")
    edges_in_order = np.argsort(lot[u], kind="stable")
    numbers, node_count = np.unique(lot, return_counts=True)
    node_stop = np.cumsum(node_count)
    edge_stop = np.searchsorted(lot[u[edges_in_order]], numbers, side="right")
    local = np.empty(lot.size, np.int32)
    for i, number in enumerate(numbers):
        if number == 0:
            continue
        nodes = nodes_in_order[node_stop[i] - node_count[i] : node_stop[i]]
        edges = edges_in_order[edge_stop[i - 1] if i else 0 : edge_stop[i]]
        local[nodes] = np.arange(nodes.size, dtype=np.int32)
        yield int(number), nodes, local[u[edges]], local[v[edges]], cost[edges]
