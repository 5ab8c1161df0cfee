"""The record of benchmarks/study_map.py: cells of the map with every run, read from workdirs, joined, and compared."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from jaxtyping import Float

from merit_jax.advice.observations import DECIDING, seed_means
from merit_jax.comparison.statistics import Paired, holm, paired
from merit_jax.core.types import Array
from merit_jax.pipeline.merge_record import branch_cosine
from merit_jax.workdir.artifacts import read_arrays, read_json


class Cell(NamedTuple):
    """A place on the map.

    Attributes:
        shared: Share of every dataset's questions that are asked in a new way, 0 to 1.
        private: Share of the datasets that keep an answer form of their own, 0 to 1.
        forms: How well theta0 knows the answer forms, a key of the theta0s.
        epochs: Passes over the mixture.
    """

    shared: float
    private: float
    forms: str
    epochs: float

    @property
    def world(self) -> str:
        """The name of its world."""
        return f"s{self.shared:g}-p{self.private:g}"

    @property
    def name(self) -> str:
        """Its name: s1-p0.5-well-e4.

        Examples:
            >>> Cell(1.0, 0.5, "well", 4.0).name
            's1-p0.5-well-e4'
        """
        return f"{self.world}-{self.forms}-e{self.epochs:g}"

    @classmethod
    def parse(cls, name: str) -> "Cell":
        """Reads a name back.

        Raises:
            ValueError: It is none.

        Examples:
            >>> Cell.parse("s1-p0.5-well-e4").private
            0.5
        """
        if not (match := re.fullmatch(r"s([\d.]+)-p([\d.]+)-(\w+)-e([\d.]+)", name)):
            raise ValueError(f"cell {name!r}: expected sSHARED-pPRIVATE-FORMS-eEPOCHS, as in s1-p0.5-well-e4")
        return cls(float(match[1]), float(match[2]), match[3], float(match[4]))


def read_cell(cell: Cell, root: Path) -> dict[str, Any]:
    """Returns a finished cell: its knobs, the runs of each method, and of each seed the cosines and what advice measured.

    Raises:
        ValueError: Its results were written by a version that kept less of a run.
    """
    folder = root / cell.name
    found = json.loads((folder / "results.json").read_text())
    if missing := sorted({key for method in found["methods"].values() for key in set(KEPT) - method["runs"][0].keys()}):
        raise ValueError(
            f"{folder / 'results.json'} has no {', '.join(missing)}, so an earlier version wrote it; delete it, and run the cell "
            "again: what is trained is kept"
        )
    runs = {
        name: [{key: run[key] for key in KEPT} for run in method["runs"]] for name, method in found["methods"].items()
    }
    seeds = {str(run["seed"]) for run in runs["joint"]}
    places = {place.name.removeprefix("seed-"): place for place in sorted(folder.glob("seed-*"))}
    places = {seed: place for seed, place in places.items() if seed in seeds}
    gradients, branches = {}, {}
    for seed, place in places.items():
        similarity = read_arrays(epath.Path(place / "conflict.npz"))["similarity"]
        gradients[seed] = float(np.mean(_off_diagonal(similarity)))
        for record in sorted((place / "methods").glob("*/merged/merge.json")):
            name = record.parents[1].name.replace(",", ":", 1)
            if name in runs and (cosine := branch_cosine(json.loads(record.read_text()))) is not None:
                branches.setdefault(name, {})[seed] = cosine
    measured = {seed: read_measured(place / "advice.json") for seed, place in places.items()}
    return {
        **cell._asdict(),
        "world": cell.world,
        "cell": cell.name,
        "methods": runs,
        "gradient_cosine": gradients,
        "branch_cosine": branches,
        "measured": {seed: found for seed, found in measured.items() if found},
    }


def read_measured(path: Path) -> dict[str, Any] | None:
    """Returns the features of a mixture and of each method on it, as merit advise measured them; None where it did not."""
    if not path.exists():
        return None
    found = read_json(epath.Path(path))
    return {
        "mixture": found["features"],
        "methods": {method: candidate["features"] for method, candidate in found["candidates"].items()},
    }


KEPT = (
    *("seed", "retained", "skill", "mean", "kept_skill", "kept_scale", "kept_retained", "interpolated_skill"),
    *("mixture_loss", "tokens", "displacement", "seconds"),
)
"""Fields of a run that the map keeps."""


def joined(known: Mapping[str, Any] | None, found: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a cell of a record together with the same cell measured further; what both have is taken from the latter."""
    if known is None:
        return dict(found)
    methods = {name: list(runs) for name, runs in known["methods"].items()}
    for name, runs in found["methods"].items():
        new = {run["seed"] for run in runs}
        methods[name] = [*(run for run in methods.get(name, ()) if run["seed"] not in new), *runs]
        methods[name].sort(key=lambda run: run["seed"])
    names = known["branch_cosine"].keys() | found["branch_cosine"].keys()
    cosines = {n: known["branch_cosine"].get(n, {}) | found["branch_cosine"].get(n, {}) for n in sorted(names)}
    by_seed = {key: {**known[key], **found[key]} for key in ("gradient_cosine", "measured")}
    return {**found, "methods": methods, "branch_cosine": cosines, **by_seed}


def read_record(path: Path | None) -> list[dict[str, Any]]:
    """Returns the cells of a record; none of one that is not there yet."""
    return json.loads(path.read_text()) if path and path.exists() else []


def compact(cells: Sequence[Mapping[str, Any]]) -> str:
    """Returns a record as JSON with a line for each run and each seed's measurements, numbers of six digits."""

    def text(value: Any, depth: int) -> str:
        inner = "\n" + "  " * (depth + 1)
        if isinstance(value, dict) and any(isinstance(one, dict | list) for one in value.values()):
            parts = [f"{json.dumps(key)}: {text(one, depth + 1)}" for key, one in value.items()]
            return "{" + inner + f",{inner}".join(parts) + "\n" + "  " * depth + "}"
        if isinstance(value, list) and any(isinstance(one, dict | list) for one in value):
            return "[" + inner + f",{inner}".join(text(one, depth + 1) for one in value) + "\n" + "  " * depth + "]"
        return json.dumps(value)

    rounded = json.loads(json.dumps(cells), parse_float=lambda digits: float(f"{float(digits):.6g}"))
    return text(rounded, 0) + "\n"


def against_joint(cells: Iterable[Mapping[str, Any]], measured: str = DECIDING) -> list[dict[str, Any]]:
    """Returns one row per cell and method: the mean difference of a score from joint training's, paired by seed, in points.

    Args:
        cells: As `read_cell` returns them.
        measured: Field of the runs; methods without it are left out (WiSE, which lies on joint training's frontier).

    Returns:
        Rows with the cell's knobs, `method`, `gain`, its standard `error` over seeds (None for one seed), `joint` and the number
        of `seeds`.
    """
    rows = []
    for cell in cells:
        joint = seed_means(cell["methods"]["joint"], measured)
        for method, runs in cell["methods"].items():
            own = seed_means(runs, measured)
            if method == "joint" or not (seeds := sorted(own.keys() & joint.keys())):
                continue
            gains = np.array([100 * (own[seed] - joint[seed]) for seed in seeds])
            error = float(gains.std(ddof=1) / np.sqrt(len(gains))) if len(gains) > 1 else None
            place = {key: cell[key] for key in Cell._fields}
            about = {"joint": 100 * float(np.mean([joint[seed] for seed in seeds])), "seeds": len(seeds)}
            rows.append({**place, "method": method, "gain": float(gains.mean()), "error": error, **about})
    return rows


LEARNT = 3.0
"""Points that joint training has to gain on theta0 for a share of its gain to mean something."""


def shares_of_gain(cells: Iterable[Mapping[str, Any]], measured: str = DECIDING) -> list[dict[str, Any]]:
    """Returns, of each method apart in each cell, how much it learns of what joint training does, and how alike its branches are.

    Returns:
        Rows with the cell's knobs, `method`, `share` in per cent of joint training's gain over theta0 at the same retention, and
        `cosine`, the mean cosine of the branches' task vectors; means over the seeds that have both. Cells where joint training
        gains less than `LEARNT` points are left out.
    """
    rows = []
    for cell in cells:
        means = {method: seed_means(runs, measured) for method, runs in cell["methods"].items()}
        for method, cosines in cell["branch_cosine"].items():
            seeds = sorted(set.intersection(*(set(means.get(name, ())) for name in (method, "joint", "theta0"))))
            seeds = [seed for seed in seeds if str(seed) in cosines]
            if not seeds:
                continue
            own, joint, base = (np.mean([means[name][seed] for seed in seeds]) for name in (method, "joint", "theta0"))
            if 100 * (joint - base) >= LEARNT:
                place = {key: cell[key] for key in Cell._fields}
                cosine = float(np.mean([cosines[str(seed)] for seed in seeds]))
                rows.append(
                    {**place, "method": method, "share": float(100 * (own - base) / (joint - base)), "cosine": cosine}
                )
    return rows


class Compared(NamedTuple):
    """One method against another over cells.

    Attributes:
        ours: A method.
        theirs: The other.
        cells: Number of cells that have both.
        result: Difference in points, paired by cell and seed, with its two-sided p: twice that of the better side.
        error: Standard error of the difference over the pairs; None for one pair.
    """

    ours: str
    theirs: str
    cells: int
    result: Paired
    error: float | None


def compare(
    cells: Sequence[Mapping[str, Any]], pairs: Sequence[tuple[str, str]], measured: str = DECIDING
) -> list[Compared]:
    """Compares methods over cells and seeds; p-values are corrected for the number of comparisons (Holm).

    Args:
        cells: Of a record.
        pairs: Methods to compare.
        measured: Field of the runs.
    """
    found = []
    for ours, theirs in pairs:
        both = [cell for cell in cells if {ours, theirs} <= cell["methods"].keys()]
        sides: tuple[dict[tuple[str, int], float], ...] = ({}, {})
        for cell in both:
            for side, method in zip(sides, (ours, theirs), strict=True):
                means = seed_means(cell["methods"][method], measured)
                side.update({(cell["cell"], seed): 100 * value for seed, value in means.items()})
        common = sorted(sides[0].keys() & sides[1].keys())
        first, second = ({place: side[key] for place, key in enumerate(common)} for side in sides)
        if (result := paired(first, second)) and (other := paired(second, first)):
            result = result._replace(p=min(1.0, 2 * min(result.p, other.p)))
            differences = np.array([first[place] - second[place] for place in first])
            error = float(differences.std(ddof=1) / np.sqrt(len(first))) if len(first) > 1 else None
            found.append(Compared(ours, theirs, len({cell for cell, _ in common}), result, error))
    adjusted = holm([one.result.p for one in found])
    return [one._replace(result=one.result._replace(holm=p)) for one, p in zip(found, adjusted, strict=True)]


def _off_diagonal(matrix: Float[Array, "t t"]) -> Float[np.ndarray, " n"]:
    values = np.asarray(matrix)
    return values[~np.eye(len(values), dtype=bool)]
