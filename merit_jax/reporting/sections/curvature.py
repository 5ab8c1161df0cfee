"""Alignment of the conflict directions with the sharp directions of the loss (MERIT App. F.3)."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from merit_jax.reporting.bars import Entry, bars
from merit_jax.reporting.blocks import Missing, Part, Section, Table
from merit_jax.reporting.figures import Figure
from merit_jax.reporting.labels import text
from merit_jax.reporting.run_data import Artifacts


def curvature(artifacts: Artifacts) -> Section:
    """Returns the section on Hessian-PCA alignment."""
    return Section("curvature", "Do conflicts lie along sharp directions", tuple(_parts(artifacts)))


def _parts(artifacts: Artifacts) -> Iterator[Part]:
    result = artifacts.diagnostics.get("curvature")
    if result is None or "span" not in result["raw"]:
        yield Missing("Alignment of conflict directions with the Hessian", artifacts.diagnose_command("curvature"))
        return
    entries = [Entry(str(place), value, f"{value:.3g}") for place, value in enumerate(result["eigenvalues"], 1)]
    yield Figure(
        "hessian",
        "Largest eigenvalues of the Hessian at theta0",
        partial(bars, entries, "eigenvalue", height=90 + 20 * len(entries)),
        f"By Lanczos on exact Hessian-vector products; {result['dimension']:,} parameters.",
    )
    yield alignment_table(result)


def alignment_table(result: Mapping[str, Any]) -> Table:
    """Returns |cos| with the eigenvectors, against random directions: Gaussian ones, and ones in the gradients' span."""
    rows = []
    for name, key in (("as they are", "raw"), ("centred", "centred")):
        found = result[key]
        row = [name, f"{found['largest']:.3f}", f"{found['mean_top']:.3f}", f"{found['angles'][0]:.1f}°"]
        for chance in (found["gaussian"], found["span"]):
            row += [
                f"{chance['mean']:.2g} ± {chance['std']:.1g}",
                text(chance["z_score"], 1),
                f"{chance['p_value']:.2g}",
            ]
        rows.append(row)
    columns = ["gradients", "largest |cos|", "mean of the best", "smallest angle"]
    columns += ["Gaussian directions", "z", "p", "in the gradients' span", "z", "p"]
    caption = (
        "Conflict directions against the leading eigenvectors. Nearly any direction in the span of gradients is sharper than a "
        "Gaussian one; the last three columns test whether those of conflict are sharper than random ones in that span. "
        "The paper at 3B, against Gaussian directions: largest 0.30, mean 0.136, 69.5°, z 15386"
    )
    return Table(caption, columns, rows)
