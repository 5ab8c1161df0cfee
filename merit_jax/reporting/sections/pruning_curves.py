"""Quality against the share of heads that is removed, for every criterion, before and after recovery."""

from collections.abc import Iterator, Sequence
from functools import partial

from merit_jax.pruning import CRITERIA
from merit_jax.reporting.blocks import Cell, Missing, Part, Section, Table
from merit_jax.reporting.figures import Axis, Figure, Number
from merit_jax.reporting.labels import called
from merit_jax.reporting.pruning_curve import LABELS, CurvePoint, Curves, Quality, curves, qualities, ratios, removed_at
from merit_jax.reporting.run_data import Artifacts
from merit_jax.reporting.series import Series, plot
from merit_jax.reporting.theme import Colour, look
from merit_jax.workdir.paths import MERGED
from merit_jax.workdir.pruning_files import WHOLE
from merit_jax.workdir.pruning_results import Scored

RANDOM = "random"


def pruning_curves(artifacts: Artifacts) -> Section:
    """Returns the section on `curve.json`."""
    return Section("pruning_curves", "Quality against heads removed", tuple(_parts(artifacts)))


def _parts(artifacts: Artifacts) -> Iterator[Part]:
    scored = artifacts.pruning.curve if artifacts.pruning else Scored({})
    if not scored.models:
        words = (
            "Quality against the share of heads, for every criterion (it needs held-out records, or evaluate.suites)"
        )
        yield Missing(words, artifacts.prune_command("curve='(0.1,0.3,0.5)'"))
        return
    whole = WHOLE if artifacts.only_pruned else called(artifacts, MERGED)
    found = [(quality, curves(scored, quality)) for quality in qualities(scored)]
    for quality, lines in found:
        yield from _figures(quality, lines, whole, quality.of(scored.models[WHOLE]))
    for quality, lines in found:
        table = curve_table(quality, lines, quality.of(scored.models[WHOLE]))
        yield table._replace(folded=quality is not found[0][0])


def _figures(quality: Quality, lines: Curves, whole: str, start: Number) -> Iterator[Figure]:
    """Yields a figure of the pruned models, and one of those trained again, of the same range."""
    every = [start, *(value for points in lines.values() for point in points for value in point.values)]
    room = 0.06 * (max(every) - min(every)) or 1.0
    y = Axis(quality.label, low=min(every) - room, high=max(every) + room)
    words = {False: "pruned", True: "after recovery"}
    for recovered, title in words.items():
        chosen = {criterion: points for (criterion, again), points in lines.items() if again == recovered}
        if not chosen:
            continue
        series = [_line(criterion, points, start, quality) for criterion, points in chosen.items()]
        star = Series(whole, [0], [start], [f"{whole}\n{quality.written(start)}"], "ink", "star", 6.0)
        name = f"pruning_{quality.name}{'_recovered' * recovered}"
        subject = "Accuracy" if quality.high else "Loss"
        chart = partial(plot, [*series, star], Axis("heads removed (%)", low=0), y)
        note = f"Mean over {quality.records}. {_note(chosen)}".strip()
        yield Figure(name, f"{subject} against heads removed: {title}", chart, note)


def _line(criterion: str, points: Sequence[CurvePoint], start: Number, quality: Quality) -> Series:
    """Returns the line of a criterion, from the whole model on; the band is that of the draws."""
    x = [0.0, *(100 * point.removed for point in points)]
    y = [start, *(point.mean for point in points)]
    tips = [
        "",
        *(f"{LABELS[criterion]}, {a:.1f} % removed\n{p.written(quality)}" for a, p in zip(x[1:], points, strict=True)),
    ]
    colour: Colour
    colour, shape = ("muted", "circle") if criterion == RANDOM else look(list(CRITERIA).index(criterion))
    lows, highs = ([start, *(end(point.values) for point in points)] for end in (min, max))
    band = (lows, highs) if lows != highs else ()
    return Series(LABELS[criterion], x, y, tips, colour, shape, [0.0, *[4.5] * len(points)], line=True, band=band)


def _note(chosen: dict[str, Sequence[CurvePoint]]) -> str:
    draws = max((len(point.values) for point in chosen.get(RANDOM, ())), default=0)
    return f"The grey band is that of {draws} random orders; its line is their mean." if draws > 1 else ""


def curve_table(quality: Quality, lines: Curves, start: Number) -> Table:
    """Returns every ratio, before and after recovery, with every criterion; the best of each line is marked.

    Args:
        quality: The number to compare by.
        lines: The points of every criterion.
        start: Quality of the model with all heads.
    """
    criteria = list(dict.fromkeys(criterion for criterion, _ in lines))
    rows: list[list[str | Cell]] = []
    for ratio in ratios(lines):
        for recovered in sorted({again for _, again in lines}):
            at = {c: p for c in criteria for p in lines.get((c, recovered), ()) if p.ratio == ratio}
            if at:
                best = (max if quality.high else min)((quality.written(point.mean) for point in at.values()), key=float)
                cells = [_cell(quality, at.get(criterion), best) for criterion in criteria]
                rows.append([removed_at(lines, ratio) + ", after recovery" * recovered, *cells])
    caption = (
        f"{quality.label[:1].upper()}{quality.label[1:]}, mean over {quality.records}; best of each line bold. "
        f"The whole model: {quality.written(start)}."
    )
    draws = {len(point.values) for (criterion, _), points in lines.items() if criterion == RANDOM for point in points}
    if draws and max(draws) > 1:
        caption += f" Random: mean ± standard deviation over {max(draws)} orders."
    return Table(caption, ["heads removed", *(LABELS[criterion] for criterion in criteria)], rows)


def _cell(quality: Quality, point: CurvePoint | None, best: str) -> str | Cell:
    if point is None:
        return ""
    return Cell(point.written(quality), best=quality.written(point.mean) == best)
