"""Sets that share members, grouped: what has to stay together."""

from __future__ import annotations

from collections.abc import Iterable, Set


def connected(sets: Iterable[Set[str]]) -> list[frozenset[str]]:
    """Group names: those of one set are of one group, and so are those of sets that share one.

    Returns
    -------
    list of frozenset
        Each name is in one of them.
    """
    groups: list[frozenset[str]] = []
    for names in sets:
        joined = [group for group in groups if group & names]
        groups = [group for group in groups if not group & names]
        groups.append(frozenset(names).union(*joined))
    return [group for group in groups if group]
