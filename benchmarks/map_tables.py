"""The map of benchmarks/study_map.py as Markdown tables."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tabulate import tabulate

from benchmarks.map_record import Cell, against_joint, compare
from merit_jax.advice.observations import DECIDING

CORE = ":partition.core=0.25"
"""What makes a split one with a common core."""

COMPARISONS = (
    *((method, "joint") for method in ("examples4", f"merit2d{CORE}", f"random4{CORE}", "merit2d", "random4")),
    *((f"merit2d{CORE}", f"{method}{CORE}") for method in ("random4", "alike4")),
    *(("merit2d", method) for method in ("random4", "alike4")),
    (f"merit2d{CORE}", "examples4"),
    (f"merit2d{CORE}", "merit2d"),
    (f"random4{CORE}", "random4"),
)
"""Methods that are tested against each other: training apart against joint training, by conflict against at random and
against it, with a core against slices and against none."""


def tables(cells: Sequence[Mapping[str, Any]]) -> str:
    """Returns all tables of a record, each with its title."""
    found = [
        ("Skill at 95 % retention, less joint training's", gains(cells, DECIDING)),
        ("Mean of the suites, less joint training's", gains(cells, "mean")),
        *(
            (f"Methods against each other where theta0 knows the forms {forms}", tests(some))
            for forms in ("well", "little")
            if (some := [cell for cell in cells if cell["forms"] == forms])
        ),
        ("Cosines of gradients and of task vectors", cosines(cells)),
    ]
    return "\n\n".join(f"**{title}**\n\n{table}" for title, table in found)


def gains(cells: Sequence[Mapping[str, Any]], measured: str) -> str:
    """Returns a row per cell and a column per method: its gain over joint training in points."""
    rows = against_joint(cells, measured)
    methods = list(dict.fromkeys(row["method"] for row in rows))
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        name = Cell(*(row[field] for field in Cell._fields)).name
        found.setdefault(name, {"joint": f"{row['joint']:.1f}", "seeds": row["seeds"]})
        found[name][row["method"]] = _with_error(row["gain"], row["error"])
    body = [[name, one["seeds"], one["joint"], *(one.get(m, "") for m in methods)] for name, one in found.items()]
    return _table(body, ["cell", "seeds", "joint", *map(_code, methods)])


def tests(cells: Sequence[Mapping[str, Any]]) -> str:
    """Returns a row per comparison: the difference over all cells and seeds, and its p."""
    body = [
        [
            _code(one.ours),
            _code(one.theirs),
            one.cells,
            one.result.n,
            _with_error(one.result.difference, one.error),
            f"{one.result.p:.2g}",
            f"{one.result.holm:.2g}",
        ]
        for one in compare(cells, COMPARISONS)
    ]
    return _table(body, ["method", "against", "cells", "pairs", "difference", "p, two-sided", "Holm"])


def cosines(cells: Sequence[Mapping[str, Any]]) -> str:
    """Returns a row per cell: mean cosine of the datasets' gradients at theta0, and of the branches' task vectors by method."""
    methods = list(dict.fromkeys(method for cell in cells for method in cell["branch_cosine"]))
    body = [
        [
            cell["cell"],
            f"{np.mean(list(cell['gradient_cosine'].values())):.2f}",
            *(
                f"{np.mean(list(cell['branch_cosine'][method].values())):.2f}"
                if method in cell["branch_cosine"]
                else ""
                for method in methods
            ),
        ]
        for cell in cells
    ]
    return _table(body, ["cell", "gradients", *map(_code, methods)])


def _with_error(value: float, error: float | None) -> str:
    return f"{value:+.1f}" if error is None else f"{value:+.1f} ± {error:.1f}"


def _code(method: str) -> str:
    return f"`{method}`" if method != "joint" else method


def _table(body: list[list[Any]], headers: list[str]) -> str:
    return tabulate(body, headers, tablefmt="github", disable_numparse=True)
