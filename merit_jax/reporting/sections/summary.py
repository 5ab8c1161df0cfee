"""The first screen: what was run, and what came out."""

from collections.abc import Iterator

from merit_jax.reporting.blocks import Missing, Part, Section, Text, Tile, Tiles
from merit_jax.reporting.figures import Number
from merit_jax.reporting.labels import called, means
from merit_jax.reporting.labels import text as written
from merit_jax.reporting.run_data import Artifacts
from merit_jax.workdir.paths import MERGED, THETA0


def summary(artifacts: Artifacts) -> Section:
    """What was run, the numbers that matter, and one sentence on each comparison."""
    tiles = tuple(_tiles(artifacts))
    parts: list[Part] = [Text(about(artifacts)), *([Tiles(tiles)] if tiles else [])]
    if artifacts.models:
        parts += [Text("\n".join(verdicts(artifacts)))]
    else:
        parts.append(Missing("Scores of the models", artifacts.run_command()))
    return Section("summary", artifacts.title, tuple(parts))


def about(artifacts: Artifacts) -> str:
    """The run in a sentence or two."""
    found = artifacts.datasets
    samples, tokens = (sum(entry[key] for entry in found.values()) for key in ("samples", "tokens"))
    text = f"{len(found)} datasets with {samples:,} examples and {tokens:,} supervised tokens" if found else "A run"
    if count := len(artifacts.branches):
        text += f", divided over {count} branch{'es' * (count > 1)} by {artifacts.split}"
        done = sum(branch.done is not None for branch in artifacts.branches)
        text += "" if done == count else f"; {done} of {count} branches are trained"
    text += f", merged by {artifacts.merge['method']}." if artifacts.merge else "."
    if artifacts.config:
        text += f" Seed {artifacts.config['seed']}, learning rate {artifacts.config['train']['learning_rate']:g}."
    return text


def _tiles(artifacts: Artifacts) -> Iterator[Tile]:
    for title, scores in means(artifacts).items() if artifacts.models else ():
        name = MERGED if MERGED in scores else THETA0
        others = [other for other in scores if other not in (THETA0, MERGED)]
        rival = max(others, key=lambda other: scores[other].value) if others else None
        note = f"theta0 {scores[THETA0].value:.1f}" if name == MERGED and THETA0 in scores else ""
        note += f"{', ' * bool(note)}{called(artifacts, rival)} {scores[rival].value:.1f}" if rival else ""
        yield Tile(f"{scores[name].value:.1f} %", f"{called(artifacts, name)}, {title.partition(':')[0]}", note)
    if (kept := kept_skill(artifacts)).get(MERGED) is not None:
        share = artifacts.frontier["inputs"]["frontier"]["retention"]
        others = {name: value for name, value in kept.items() if name not in (THETA0, MERGED) and value is not None}
        rival = max(others, key=others.get, default=None)
        yield Tile(
            f"{kept[MERGED]:.1f} %",
            f"skill at {100 * share:g} % retention",
            f"{called(artifacts, rival)} {others[rival]:.1f}" if rival else "",
        )
    if artifacts.merge:
        distance = artifacts.merge["displacement"]["merged"]
        joint = artifacts.models.get("joint", {}).get("displacement")
        note = f"joint {joint:.2f}, {joint / distance:.2f} times as far" if joint and distance else ""
        yield Tile(f"{distance:.2f}", "distance of merged from theta0", note)
    if barriers := artifacts.diagnostics.get("connectivity"):
        yield Tile(written(barriers["barrier"]), "highest loss barrier, nats/token", f"{len(barriers['paths'])} paths")
    if artifacts.times:
        yield Tile(duration(sum(artifacts.times.values())), "in all stages", "baselines and evaluation included")


def kept_skill(artifacts: Artifacts) -> dict[str, Number | None]:
    """Model -> skill at retention in per cent; None where no scale retains enough."""
    found = artifacts.frontier["models"] if artifacts.frontier else {}
    return {name: None if entry["skill"] is None else 100 * entry["skill"] for name, entry in found.items()}


def duration(seconds: Number) -> str:
    """Seconds as a person says them."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def verdicts(artifacts: Artifacts) -> Iterator[str]:
    """Where the merged model stands, each mean by itself, with what chance alone would do."""
    for title, scores in means(artifacts).items():
        if MERGED not in scores or len(scores) < 2:
            continue
        mine = scores[MERGED]
        best = max(scores, key=lambda name: scores[name].value)
        head = title.partition(":")[0]
        rest = f"{called(artifacts, best)} is highest with {scores[best].value:.1f} %"
        if best == MERGED:
            second = max((name for name in scores if name != MERGED), key=lambda name: scores[name].value)
            rest = f"it is highest; next is {called(artifacts, second)} with {scores[second].value:.1f} %"
        yield f"{head[:1].upper()}{head[1:]}: the merged model gets {mine.value:.1f} % (± {mine.error:.1f}); {rest}."
    kept = {name: value for name, value in kept_skill(artifacts).items() if value is not None}
    if MERGED in kept and len(kept) > 1:
        share = artifacts.frontier["inputs"]["frontier"]["retention"]
        order = sorted(kept, key=lambda name: kept[name], reverse=True)
        listed = ", ".join(f"{called(artifacts, name)} {kept[name]:.1f} %" for name in order)
        yield f"Skill at {100 * share:g} % retention, the number to compare methods by: {listed}."
