"""The first screen: the run and its results in a few numbers."""

from collections.abc import Iterator

from merit_jax.reporting.blocks import Missing, Part, Section, Text, Tile, Tiles
from merit_jax.reporting.figures import Number
from merit_jax.reporting.frontier import Kept, kept_scores
from merit_jax.reporting.labels import called, means
from merit_jax.reporting.labels import text as written
from merit_jax.reporting.run_data import Artifacts
from merit_jax.workdir.paths import MERGED, THETA0


def summary(artifacts: Artifacts) -> Section:
    """Returns the section with the run in words, the numbers that matter, and one sentence on each comparison."""
    tiles = tuple(_tiles(artifacts))
    parts: list[Part] = [Text(about(artifacts)), *([Tiles(tiles)] if tiles else [])]
    if artifacts.models:
        parts += [Text("\n".join(verdicts(artifacts)))]
    else:
        parts.append(Missing("Scores of the models", artifacts.run_command()))
    return Section("summary", artifacts.title, tuple(parts))


def about(artifacts: Artifacts) -> str:
    """Returns the run in a sentence or two."""
    found = artifacts.datasets
    samples, tokens = (sum(entry[key] for entry in found.values()) for key in ("samples", "tokens"))
    text = f"{len(found)} datasets with {samples:,} examples and {tokens:,} supervised tokens" if found else "A run"
    if count := len(artifacts.branches):
        text += f", divided over {count} branch{'es' * (count > 1)} by {artifacts.split}{_divided(artifacts)}"
        done = sum(branch.done is not None for branch in artifacts.branches)
        text += "" if done == count else f"; {done} of {count} branches are trained"
    if artifacts.rounds:
        warm = artifacts.config["rounds"]["warm"] if artifacts.config else 0
        text += f", trained in {artifacts.rounds} round{'s' * (artifacts.rounds > 1)}"
        text += f" after a warm start on {100 * warm:g} % of every dataset" if warm else ""
    if artifacts.merge:
        text += f", merged by {artifacts.merge['method']}{' with searched weights' * ('search' in artifacts.merge)}"
    text += "."
    if artifacts.config:
        text += f" Seed {artifacts.config['seed']}, learning rate {artifacts.config['train']['learning_rate']:g}."
    return text


def _divided(artifacts: Artifacts) -> str:
    """The keys that divide datasets between branches, in words."""
    cfg = (artifacts.config or {}).get("partition", {})
    core, public, soft = (cfg.get(key) for key in ("core", "core_datasets", "softness"))
    text = f", {100 * core:g} % of every dataset dealt over all of them" if core else ""
    text += f", {', '.join(public)} dealt whole" if public else ""
    return text + (f", softly (softness {soft:g})" if soft else "")


def _tiles(artifacts: Artifacts) -> Iterator[Tile]:
    for title, scores in means(artifacts).items() if artifacts.models else ():
        name = MERGED if MERGED in scores else THETA0
        others = [other for other in scores if other not in (THETA0, MERGED)]
        rival = max(others, key=lambda other: scores[other].value) if others else None
        note = f"theta0 {scores[THETA0].value:.1f}" if name == MERGED and THETA0 in scores else ""
        note += f"{', ' * bool(note)}{called(artifacts, rival)} {scores[rival].value:.1f}" if rival else ""
        yield Tile(f"{scores[name].value:.1f} %", f"{called(artifacts, name)}, {title.partition(':')[0]}", note)
    if MERGED in (kept := kept_skills(artifacts)):
        others = [name for name in kept if name not in (THETA0, MERGED)]
        rival = max(others, key=lambda name: kept[name].skill, default=None)
        mine = kept[MERGED]
        note = f"at λ = {mine.scale:g}, {mine.share:.0f} % retained; theta0 {kept[THETA0].skill:.1f}"
        note += f", {called(artifacts, rival)} {kept[rival]}" if rival else ""
        yield Tile(f"{mine.skill:.1f} %", f"skill at {retention(artifacts):g} % retention", note)
    if artifacts.merge:
        distance = artifacts.merge["displacement"]["merged"]
        joint = artifacts.models.get("joint", {}).get("displacement")
        note = f"joint {joint:.2f}, {joint / distance:.2f} times as far" if joint and distance else ""
        yield Tile(f"{distance:.2f}", "distance of merged from theta0", note)
    if barriers := artifacts.diagnostics.get("connectivity"):
        yield Tile(written(barriers["barrier"]), "highest loss barrier, nats/token", f"{len(barriers['paths'])} paths")
    if artifacts.times:
        yield Tile(duration(sum(artifacts.times.values())), "in all stages", "baselines and evaluation included")


def kept_skills(artifacts: Artifacts) -> dict[str, Kept]:
    """Returns model -> its scores at the scale that is chosen for it; empty without a frontier."""
    return kept_scores(artifacts.frontier["models"]) if artifacts.frontier else {}


def retention(artifacts: Artifacts) -> Number:
    """Returns the share of theta0's retained score that counts as kept, in per cent."""
    return 100 * artifacts.frontier["inputs"]["frontier"]["retention"] if artifacts.frontier else 100


def duration(seconds: Number) -> str:
    """Returns seconds in the unit that a person would choose.

    Examples:
        >>> duration(42.3), duration(600), duration(8000)
        ('42 s', '10 min', '2.2 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def verdicts(artifacts: Artifacts) -> Iterator[str]:
    """Yields a sentence on the merged model's place in each mean, with the error by chance alone."""
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
    kept = kept_skills(artifacts)
    if MERGED in kept and len(kept) > 1:
        order = sorted(kept, key=lambda name: kept[name].skill, reverse=True)
        listed = ", ".join(
            f"{called(artifacts, name)} {kept[name]} ({kept[name].share:.0f} % retained)" for name in order
        )
        yield (
            f"Skill at {retention(artifacts):g} % retention, the number to compare methods by, in per cent: {listed}. λ is "
            "chosen on one half of each suite, and the scores are those of the other half."
        )
