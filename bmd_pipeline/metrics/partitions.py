"""How well two sortings of the same episodes agree: codes against true modes, one seed's codes against another's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Agreement:
    """Agreement of two sortings, whatever their names for the sorts.

    Attributes:
        nmi: normalised mutual information, 1 if each can be told from the other, 0 if neither tells anything. It rises
            by chance with the number of sorts.
        ari: adjusted Rand index, 1 for the same sorting, 0 in the mean of random ones.
        purity: share of the episodes that belong to the majority of their sort; says nothing where sorts are tiny.
    """

    nmi: float
    ari: float
    purity: float


def measure_agreement(sorts: Labels, classes: Labels) -> Agreement:
    """Compares two sortings of the same episodes, at least one; purity is that of the first in terms of the second.

    Args:
        sorts: (n,).
        classes: (n,).

    Source: Strehl and Ghosh 2002 (NMI, arithmetic mean of the entropies); Hubert and Arabie 1985 (ARI).
    """
    table = count_pairs(sorts, classes)
    return Agreement(
        nmi=float(normalized_mutual_info_score(classes, sorts)),
        ari=float(adjusted_rand_score(classes, sorts)),
        purity=float(table.max(axis=1).sum() / table.sum()),
    )


def count_pairs(sorts: Labels, classes: Labels, num_sorts: int | None = None, num_classes: int | None = None) -> Labels:
    """Episodes by sort and class, (num_sorts, num_classes); as many of each as occur if no number is given."""
    shape = (num_sorts or int(sorts.max()) + 1, num_classes or int(classes.max()) + 1)
    table = np.zeros(shape, np.int64)
    np.add.at(table, (sorts, classes), 1)
    return table


def find_redundant(table: Labels) -> list[list[int]]:
    """Groups of two or more sorts whose majority is in the same class; sorts without episodes belong to none."""
    majority = np.where(table.sum(axis=1) > 0, table.argmax(axis=1), -1)
    groups = [np.flatnonzero(majority == kind).tolist() for kind in range(table.shape[1])]
    return [group for group in groups if len(group) > 1]


def find_missing(table: Labels, wanted: NDArray[np.bool_]) -> list[int]:
    """Wanted classes, (num_classes,) bool, in which no sort has its majority."""
    reached = set(table[table.sum(axis=1) > 0].argmax(axis=1).tolist())
    return [kind for kind in np.flatnonzero(wanted).tolist() if kind not in reached]
