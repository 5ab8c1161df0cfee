"""Trust in the gradients: their norms, their noise, and the loss of precision by the stride or the sketch."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from merit_jax.reporting.blocks import Missing, Part, Section, Table
from merit_jax.reporting.figures import Axis, Figure
from merit_jax.reporting.run_data import Artifacts
from merit_jax.reporting.series import Series, plot


def gradients(artifacts: Artifacts) -> Section:
    """Returns the section on the diagnostics of the datasets' gradients."""
    return Section("gradients", "Can the gradients be trusted", tuple(_parts(artifacts)))


def _parts(artifacts: Artifacts) -> Iterator[Part]:
    found = artifacts.diagnostics
    if "calibration" in found:
        yield calibration_figure(found["calibration"])
        yield reliability_table(found["calibration"])
    if "sketch" in found:
        yield fidelity_table(found["sketch"])
    if "gradient_norms" in found:
        yield norm_table(found["gradient_norms"])
    words = {
        "calibration": "How many examples a dataset's gradient needs",
        "sketch": "What the stride or the sketch changes in the similarities",
        "gradient_norms": "How much the norms of the gradients differ",
    }
    yield from (Missing(words[name], artifacts.diagnose_command(name)) for name in words if name not in found)


def calibration_figure(result: Mapping[str, Any]) -> Figure:
    """Returns the cosine to the reference gradient over n, with the bootstrap's interval."""
    rows = zip(*(result[key] for key in ("sizes", "cosine", "low", "high")), strict=True)
    sizes, cosine, low, high = zip(*(row for row in rows if None not in row), strict=True)
    tips = [f"n = {n}: {c:.3f} ({a:.3f} to {b:.3f})" for n, c, a, b in zip(sizes, cosine, low, high, strict=True)]
    line = Series("mean over datasets", sizes, cosine, tips, size=3, line=True, band=(low, high), listed=False)
    axes = Axis("calibration examples, n"), Axis("mean cosine over datasets", high=1)
    return Figure(
        "calibration",
        "Cosine with the reference gradient",
        partial(plot, [line], *axes),
        "Band: 95 % of the bootstrap draws. The reference is the gradient of a dataset's whole pool, so small pools look too "
        "good: read the reliability.",
    )


def reliability_table(result: Mapping[str, Any]) -> Table:
    """Returns the datasets, the least reliable gradients first."""
    rows = []
    for entry in sorted(result["datasets"], key=lambda entry: entry["reliability"]):
        needed = f"{entry['needed']:,.0f}" if entry["needed"] is not None else "no number of them"
        rows.append([entry["name"], str(entry["examples"]), f"{entry['reliability']:.2f}", needed])
    caption = "Split-half reliability of every dataset's gradient, least reliable first"
    header = ["dataset", "examples", "cosine of two halves", f"examples for {result['target']:g}"]
    return Table(caption, header, rows, folded=len(rows) > 12)


def fidelity_table(result: Mapping[str, Any]) -> Table:
    """Returns similarities of compressed gradients next to those of whole ones."""
    rows = [
        [
            f"{row['reduction']} {row['size']}",
            f"{row['entries']:,}",
            *(f"{row[key]:.4f}" for key in ("pearson", "spearman", "mae", "rmse")),
        ]
        for row in result["rows"]
    ]
    whole = f"{result['entries']:,} entries"
    caption = f"Entries of C against those of whole gradients ({whole}); the paper's stride of 5: Pearson 0.9884"
    return Table(caption, ["reduction", "entries kept", "Pearson", "Spearman", "MAE", "RMSE"], rows)


def norm_table(result: Mapping[str, Any]) -> Table:
    """Returns the concentration of the norms: where they are alike, cosines and inner products give the same axes (Lemma 1)."""
    rows = [
        [
            f"{100 * row['trimmed']:.0f} % trimmed" if row["trimmed"] else "all",
            str(row["datasets"]),
            *(f"{row[key]:.3g}" for key in ("mean", "std", "cv", "ratio")),
        ]
        for row in result["rows"]
    ]
    caption = "Norms of the datasets' gradients; where they are alike, cosines and inner products have the same axes (Lemma 1)"
    return Table(caption, ["", "datasets", "mean", "std", "CV", "max / min"], rows)
