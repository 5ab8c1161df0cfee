"""Writes advice as a page of Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate

from merit_jax.advice.features import MIXTURE
from merit_jax.advice.observations import DECIDING, JOINT, MEASURES
from merit_jax.advice.recommendation import CERTAIN, REASONS
from merit_jax.launch.console.plan_tables import gb, time

MOST = 12
"""Datasets in the table; the least reliable are shown."""


def page(advice: Mapping[str, Any]) -> str:
    """Returns the page of the content of `advice.json`."""
    parts = [
        "# Advice before training",
        _recommendation(advice),
        "## Methods",
        _methods(advice),
        *_notes(advice),
        "## What the gradients say",
        _mixture(advice["measurements"], advice["features"]),
        _reliability(advice["measurements"], advice["reliability_wanted"]),
        _datasets(advice["measurements"]),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _recommendation(advice: Mapping[str, Any]) -> str:
    """The first paragraph: what to do, or why nothing can be said."""
    if advice["outside"]:
        reasons = "\n".join(f"* {reason}" for reason in advice["outside"])
        return f"**No forecast: the mixture is unlike those of the map**, so a number would be a guess.\n\n{reasons}"
    found = advice["recommendation"]
    if found is None:
        return (
            "**No forecast:** this version comes with no fitted map. Measurements, sizes and costs are below; `--map=FILE` gives "
            "a map of benchmarks.study_map, from which the differences are forecast."
        )
    best, lines = found["best"], [f"**Train with `{found['method']}`**: {REASONS[found['reason']]}."]
    for measure, forecasts in advice["forecasts"].items():
        row = forecasts[best]
        lines.append(
            f"`{best}`, the best way apart, against joint training in {MEASURES[measure]}: "
            f"{row['mean']:+.1f} ± {CERTAIN * row['std']:.1f} points (95 % interval of the expected difference)."
        )
    return "\n".join([lines[0], *(f"{line}" for line in lines[1:])])


def _methods(advice: Mapping[str, Any]) -> str:
    """A row for each method: size, agreement, pilot, forecasts, cost."""
    rows = []
    for name, found in advice["candidates"].items():
        row: dict[str, Any] = {"method": f"`{name}`", "branches": found["branches"]}
        row["steps a branch"] = _span(found["steps"])
        row["tokens a branch"] = _span(found["tokens"])
        row["cosine of the branches' gradients"] = "" if found["branches"] == 1 else _number(found["agreement"])
        if pilot := advice["pilot"].get(name):
            row["pilot: cosine of the task vectors"] = _number(pilot["cosine"]) if pilot["cosine"] is not None else ""
            row["pilot: merged loss"] = f"{pilot['loss']:.4f}"
        for measure, label in MEASURES.items():
            if forecasts := advice["forecasts"].get(measure):
                row[f"{label}, against joint"] = _difference(name, forecasts.get(name))
        if cost := advice["costs"].get(name):
            row |= {"time": time(cost["seconds"]), "chip-hours": _hours(cost["chip_hours"])}
            row |= {"$": f"{cost['dollars']:,.2f}"} if cost["dollars"] is not None else {}
            row |= {"GB between slices": gb(cost["traffic"])}
        rows.append(row)
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)


def _notes(advice: Mapping[str, Any]) -> list[str]:
    """Notes under the table: methods left out, and the record of the forecast on worlds that it had not seen."""
    found = [f"`{name}` is left out: {reason}." for name, reason in advice["impossible"].items()]
    if missing := [name for name, row in next(iter(advice["forecasts"].values()), {}).items() if row is None]:
        names = ", ".join(f"`{name}`" for name in missing)
        found.append(f"The map has no methods like {names}, so they have no forecast.")
    if advice["pilot"]:
        how = (
            "The forecasts use the pilot." if advice["pilot_used"] else "The map has no pilots, so no forecast uses it."
        )
        found.append(f"The pilot trained every method on {advice['pilot_share']:.0%} of the tokens. {how}")
    if advice["costs"]:
        found.append(
            f"Times and costs are for {advice['topology']}: joint training on one such slice, other methods on one for each "
            "branch, without the wait for traffic and the merge. `merit plan` has the memory."
        )
    if advice["forecasts"] and not advice["held_out"]:
        found.append("The map has fewer than three worlds, so how well it forecasts a new one is not known.")
    if record := advice["held_out"]:
        regret = ", ".join(f"{name} {value:.1f}" for name, value in record["regret"].items())
        found.append(
            f"On worlds left out of the map ({record['worlds']} worlds, {record['cells']} cells), in {MEASURES[DECIDING]}: "
            f"rank correlation of forecast and measured order {record['rank_correlation']:.2f}; points below the best method: "
            f"{regret}; error {record['error']:.1f} points, {record['error_of_zero']:.1f} if no method differed from joint "
            f"training; {record['covered']:.0%} of the gains in the 95 % interval."
        )
    return found


def _mixture(measured: Mapping[str, Any], features: Mapping[str, Any]) -> str:
    error = f" ± {measured['error']:.3f}" if measured["error"] is not None else ""
    lines = [
        f"* Mean cosine of two datasets' gradients: {_number(measured['shared'], 3)}{error} without noise "
        f"({measured['estimated']:.3f} as estimated).",
        f"* Share of the conflict on the first axes: {', '.join(f'{share:.0%}' for share in measured['axes'])}.",
        *(
            f"* {_capital(MIXTURE[name].label)}: {_shown(name, features[name])}."
            for name in ("loss", "steps", "passes")
        ),
    ]
    return "\n".join(lines)


def _reliability(measured: Mapping[str, Any], wanted: float) -> str:
    """Says whether the gradients are signal, and how many examples would do."""
    rows = measured["datasets"]
    weak = {name: row for name, row in rows.items() if row["reliability"] < wanted}
    mean = sum(row["reliability"] for row in rows.values()) / len(rows)
    first = f"Reliability of a dataset's gradient (cosine to expect with another sample of its size): {mean:.2f} in the mean."
    if not weak:
        return f"{first} All reach {wanted:g}."
    enough = {name: row["needed"] for name, row in weak.items() if row["needed"] and row["needed"] <= row["examples"]}
    lines = [
        f"{first} **{len(weak)} of {len(rows)} datasets are below {wanted:g}**: their directions are partly noise."
    ]
    if enough:
        lines.append(
            f"`--config.gradients.examples={int(max(enough.values())) + 1}` would do for {len(enough)} of them."
        )
    if len(enough) < len(weak):
        lines.append(f"{len(weak) - len(enough)} have fewer examples than they would take.")
    return " ".join(lines)


def _datasets(measured: Mapping[str, Any]) -> str:
    rows = sorted(measured["datasets"].items(), key=lambda item: item[1]["reliability"])
    shown = [
        {
            "dataset": name.replace("|", "\\|"),
            "examples": f"{row['examples']:,}",
            "tokens": f"{row['tokens']:,}",
            "reliability": f"{row['reliability']:.2f} ({row['calibration']})",
            "examples needed": "no number" if row["needed"] is None else f"{row['needed']:,.0f}",
            "cosine with the others": _number(row["with_others"]),
            "cosine with the mixture": _number(row["with_mixture"]),
            "share along it": "" if row["with_mixture"] is None else f"{max(row['with_mixture'], 0) ** 2:.0%}",
        }
        for name, row in rows[:MOST]
    ]
    rest = (
        f"\n\n{len(rows) - MOST} further datasets, all more reliable, are in advice.json." if len(rows) > MOST else ""
    )
    return tabulate(shown, headers="keys", tablefmt="github", disable_numparse=True) + rest


def _difference(name: str, row: Mapping[str, float] | None) -> str:
    if name == JOINT:
        return "0"
    return "" if row is None else f"{row['mean']:+.1f} ± {CERTAIN * row['std']:.1f}"


def _number(value: float | None, digits: int = 2) -> str:
    return "noise" if value is None else f"{value:.{digits}f}"


def _shown(name: str, value: float | None) -> str:
    return "noise" if value is None else MIXTURE[name].show(value)


def _hours(hours: float | None) -> str:
    return "unknown" if hours is None else f"{hours:,.1f}"


def _span(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
