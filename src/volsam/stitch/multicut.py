"""Adapter to the multicut solvers of bioimage-cpp: greedy contraction, then Kernighan–Lin.

A multicut splits a weighted graph into any number of clusters so that the sum of the costs of the
cut edges is least; positive costs attract, negative ones repel. Solvers: greedy additive edge
contraction and Kernighan–Lin with joins (Keuper et al. 2015, https://arxiv.org/abs/1505.06973).

Invariants
----------
- The result depends on the set of weighted edges only, not on their order or direction: edges are
  brought into one canonical order and parallel ones are summed in it.
- Clusters are numbered by their first node.
"""

from __future__ import annotations

import numpy as np
from bioimage_cpp.graph import UndirectedGraph
from bioimage_cpp.graph.multicut import (
    GreedyAdditiveMulticut,
    KernighanLinMulticut,
    MulticutObjective,
)
from numpy.typing import NDArray

Nodes = NDArray[np.integer]


def solve_multicut(
    n_nodes: int, u: Nodes, v: Nodes, cost: NDArray[np.floating], *, refine: bool = True
) -> NDArray[np.int64]:
    """Partition a graph.

    Parameters
    ----------
    n_nodes : int
    u, v : int (m,)
        End points of the edges, ``0 <= u, v < n_nodes``; parallel edges are summed, loops ignored.
    cost : float (m,)
        Cost of cutting each edge.
    refine : bool
        Improve the greedy solution by Kernighan–Lin moves, at a multiple of the time.

    Returns
    -------
    int64 (n_nodes,)
        Cluster of each node, numbered from 0 by first node.
    """
    u, v, cost = merge_parallel(n_nodes, u, v, cost)
    if u.size == 0:
        return np.arange(n_nodes)
    edges = np.stack([u, v], axis=1).astype(np.uint64)
    objective = MulticutObjective(UndirectedGraph.from_unique_edges(n_nodes, edges), cost)
    labels = GreedyAdditiveMulticut().optimize(objective)
    if refine:
        labels = KernighanLinMulticut().optimize(objective)
    return number_by_first(labels)


def merge_parallel(
    n_nodes: int, u: Nodes, v: Nodes, cost: NDArray[np.floating]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Direct every edge upwards, sort, drop loops and sum parallel edges."""
    low, high = np.minimum(u, v).astype(np.int64), np.maximum(u, v).astype(np.int64)
    key = low * n_nodes + high
    # Ties are ordered by cost so that a float sum does not depend on the order of the table.
    order = np.lexsort((cost, key))
    order = order[low[order] != high[order]]
    key, sorted_cost = key[order], cost[order].astype(np.float64)
    if key.size == 0:
        return key, key.copy(), sorted_cost
    first = np.flatnonzero(np.r_[True, key[1:] != key[:-1]])
    key = key[first]
    return key // n_nodes, key % n_nodes, np.add.reduceat(sorted_cost, first)


def number_by_first(labels: NDArray[np.integer]) -> NDArray[np.int64]:
    """Renumber labels 0, 1, … in the order of their first occurrence."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(first.size, np.int64)
    rank[np.argsort(first)] = np.arange(first.size)
    return rank[inverse]


def energy(u: Nodes, v: Nodes, cost: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """Sum of the costs of the cut edges, which the multicut minimises."""
    return float(cost[labels[u] != labels[v]].sum(dtype=np.float64))
