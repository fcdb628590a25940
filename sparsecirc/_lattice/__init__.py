"""Order theory for lattice pruning: relations, orders, irreducible elements; numpy only.

What the paper says (Sengupta 2025, arXiv:2502.16525): an RNN is modelled as a partially ordered set, a dependency
lattice is built on it, and meet-irreducible neurons, with centrality, decide which connections are critical; the
adjacency is binary or continuous. How cycles are treated, which lattice is meant and how thresholds are set is not in
what could be read: these are our definitions, and each docstring says so.
"""

from sparsecirc._lattice._acyclic import acyclic_order, forward
from sparsecirc._lattice._bits import cut, full, members, pack, transpose, unpack
from sparsecirc._lattice._centrality import Centrality, betweenness, closeness, degree, katz
from sparsecirc._lattice._concepts import ConceptLattice, concept_lattice
from sparsecirc._lattice._irreducible import (
    attribute_irreducible,
    join_irreducible,
    meet_irreducible,
    object_irreducible,
)
from sparsecirc._lattice._order import Preorder, components, preorder, refuse_one_component
from sparsecirc._lattice._persistence import Persistence, context_persistence, persistence
from sparsecirc._lattice._widest import Strengths, widest_paths

__all__ = [
    "Centrality",
    "ConceptLattice",
    "Persistence",
    "Preorder",
    "Strengths",
    "acyclic_order",
    "attribute_irreducible",
    "betweenness",
    "closeness",
    "components",
    "concept_lattice",
    "context_persistence",
    "cut",
    "degree",
    "forward",
    "full",
    "join_irreducible",
    "katz",
    "meet_irreducible",
    "members",
    "object_irreducible",
    "pack",
    "persistence",
    "preorder",
    "refuse_one_component",
    "transpose",
    "unpack",
    "widest_paths",
]
