"""Six wirings of about the same density, with what they measure.

``python tests/connectivity_picture.py`` draws them for docs/rewiring.md; a test says whether the drawing is still true.

A dot is a connection of a recurrent weight of 96 units, rows are targets and columns are sources; seen from group to
group the three groupings of G2GNet differ in who meets whom, not in how many.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sparsecirc import Pattern, patterns, structures

UNITS, GROUPS, DENSITY = 96, 8, 0.2
WIDE, HIGH = 432, 480
PICTURE = Path(__file__).parent.parent / "docs" / "connectivity.svg"


def wirings() -> dict[str, Pattern]:
    """Six patterns by name."""
    scores = np.random.default_rng(0).random((UNITS, UNITS)).astype(np.float32)
    groupings = {"index": patterns.by_index, "random": patterns.at_random(1), "mixer": patterns.mixer}
    made = {
        f"G2G, {name} groups": patterns.g2g(2, GROUPS, 0.9, 0.1, grouping=how)[1].draw(UNITS, UNITS, 0)
        for name, how in groupings.items()
    }
    made["groups of groups"] = patterns.hierarchical((4, 2), (1.0, 0.3, 0.05)).draw(UNITS, UNITS, 0)
    made["distance-dependent"] = patterns.distance_dependent(1.2)(scores, 1 - DENSITY)
    made["small world"] = patterns.small_world(0.1)(scores, 1 - DENSITY)
    return made


def sheet(found: dict[str, Pattern]) -> str:
    """One drawing, three wirings a row."""
    cells = []
    for k, (name, pattern) in enumerate(found.items()):
        seen = structures.measure(pattern)
        x, y = k % 3 * WIDE, k // 3 * HIGH
        words = (
            f"modularity {seen.modularity:.2f}, clustering {seen.clustering:.2f}, path length {seen.path_length:.2f}"
        )
        cells.append(
            f'<g transform="translate({x} {y})"><text x="12" y="24" font-weight="600">{name}</text>'
            f'<text x="12" y="44">{words}</text><g transform="translate(0 52)">{seen.svg()}</g></g>'
        )
    wide, high = 3 * WIDE, -(-len(found) // 3) * HIGH + 20
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" width="{wide}" height="{high}" '
        'role="img" aria-label="six connectivity matrices">'
        "<style>text{font:15px system-ui,sans-serif;fill:#1c2430}</style>"
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(cells)}</svg>\n'
    )


if __name__ == "__main__":
    PICTURE.write_text(sheet(wirings()), encoding="utf-8")
