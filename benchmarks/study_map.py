"""Where training apart pays: methods on worlds that differ in what their datasets share, and how well theta0 knows them.

    python -m benchmarks.study_map --seeds=0,1,2 --jobs=2            # all cells, into runs/map
    python -m benchmarks.study_map --cells s1-p1-well-e4 --seeds=0   # one

A cell is a world (`examples.shapes.make --shared --private`), a theta0 that has met its answer forms never, a little or well,
and a number of passes over the mixture. Each is an experiment of `launch.experiment` and resumes; what is finished costs seconds.
`map.json` has every run of every cell, with what launch.advise measures of each before training, so that a forecast can be fitted
(benchmarks/study_forecast.py); `map.md` and `map.png` show what each method gains over joint training.
"""

import argparse
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from jaxtyping import Float

from benchmarks.map_picture import draw, table
from benchmarks.side_by_side import run, run_apart
from configs.common import parse
from launch.experiments.runner import parse_methods
from merit_jax.advice.observations import seed_means
from merit_jax.core.types import Array
from merit_jax.pipeline.merge_record import branch_cosine
from merit_jax.reporting.figures import can_draw, png, svg
from merit_jax.workdir.artifacts import read_arrays, read_json

ROOT = Path("runs/map")
"""Folder of all cells."""

THETA0 = {"little": "examples/shapes/theta0", "well": "examples/shapes/theta0_forms"}
"""Forms -> theta0's folder; another one is made as examples/shapes/README.md says, and given by --theta0."""

METHODS = "joint,wise,examples4,random4,merit2d,random4:partition.core=0.25,merit2d:partition.core=0.25"
"""Methods at one budget."""

MEASURED = "kept_skill"
"""Field of a run that the picture shows: skill at the scale that keeps 95 % of what theta0 could do."""


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


CELLS = (
    *(Cell(shared, 1.0, "well", 1.0) for shared in (1.0, 0.1, 0.01, 0.0)),
    *(Cell(shared, private, "little", 1.0) for private in (1.0, 0.0) for shared in (1.0, 0.1, 0.0)),
    *(Cell(shared, 1.0, forms, 4.0) for forms in ("well", "little") for shared in (1.0, 0.0)),
)
"""The map. Where theta0 knows the forms well nothing private is left to be learnt; where it knows them a little, the private
share of the datasets decides how much is. Less than a tenth of new questions teaches most of what is common, so that the
shares are spaced by factors."""


def rendering(cell: Cell, root: Path) -> list[str]:
    """Returns the words of the command that makes a cell's world."""
    knobs = [f"--shared={cell.shared:g}", f"--private={cell.private:g}"]
    return ["-m", "examples.shapes.make", f"--out={_world(cell, root)}", "--parts", "mixture", "suites", *knobs]


def experiment(cell: Cell, theta0: str, methods: str, seeds: str, root: Path) -> list[str]:
    """Returns the words of the command that trains and evaluates a cell's methods."""
    words = ["-m", "launch.experiment", *_config(cell, theta0, root), f"--root={root / cell.name}"]
    return [*words, f"--methods={methods}", f"--seeds={seeds}"]


def measurement(cell: Cell, theta0: str, methods: str, seed: str, root: Path, pilot: float = 0.0) -> list[str]:
    """Returns the words of the command that measures one seed of a finished cell as advice measures a user's mixture."""
    divided = ",".join(method for method in parse_methods(methods) if parse(method)[0] != "wise")
    place = [f"--workdir={root / cell.name / f'seed-{seed}'}", f"--config.seed={seed}"]
    words = ["-m", "launch.advise", *_config(cell, theta0, root), *place, f"--methods={divided}"]
    return [*words, f"--pilot={pilot:g}"] if pilot else words


def _config(cell: Cell, theta0: str, root: Path) -> list[str]:
    settings = {
        "model.path": theta0,
        "mixture.path": _world(cell, root) / "mixture.json",
        "evaluate.suites": _world(cell, root) / "suites.json",
        "evaluate.max_suite_records": 100,
        "evaluate.mixture_examples": 0,
        "frontier.max_records": 60,
        "train.epochs": cell.epochs,
    }
    return ["--config=configs/quickstart.py", *(f"--config.{key}={value}" for key, value in settings.items())]


def _world(cell: Cell, root: Path) -> Path:
    return root / "worlds" / cell.world


def read_cell(cell: Cell, root: Path) -> dict[str, Any]:
    """Returns a finished cell: its knobs, the runs of each method, and of each seed the cosines and what advice measured."""
    folder = root / cell.name
    found = json.loads((folder / "results.json").read_text())
    runs = {
        name: [{key: run[key] for key in KEPT} for run in method["runs"]] for name, method in found["methods"].items()
    }
    places = sorted(folder.glob("seed-*"))
    gradients = [
        float(np.mean(_off_diagonal(read_arrays(epath.Path(p / "conflict.npz"))["similarity"]))) for p in places
    ]
    branches: dict[str, list[float]] = {}
    for place in places:
        for record in sorted((place / "methods").glob("*/merged/merge.json")):
            if (cosine := branch_cosine(json.loads(record.read_text()))) is not None:
                branches.setdefault(record.parents[1].name, []).append(cosine)
    measured = {place.name.removeprefix("seed-"): read_measured(place / "advice.json") for place in places}
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
    """Returns the features of a mixture and of each method on it, as launch.advise measured them; None where it did not."""
    if not path.exists():
        return None
    found = read_json(epath.Path(path))
    return {
        "mixture": found["features"],
        "methods": {method: candidate["features"] for method, candidate in found["candidates"].items()},
    }


KEPT = ("seed", "retained", "skill", "mean", "kept_skill", "kept_retained", "tokens", "displacement", "seconds")
"""Fields of a run that the map keeps."""


def _off_diagonal(matrix: Float[Array, "t t"]) -> Float[np.ndarray, " n"]:
    values = np.asarray(matrix)
    return values[~np.eye(len(values), dtype=bool)]


def against_joint(cells: Iterable[Mapping[str, Any]], measured: str = MEASURED) -> list[dict[str, Any]]:
    """Returns one row per cell and method: the mean difference of a score from joint training's, paired by seed, in points.

    Args:
        cells: As `read_cell` returns them.
        measured: Field of the runs.

    Returns:
        Rows with the cell's knobs, `method`, `gain`, its standard `error` over seeds (0 for one seed), `joint` and the number of
        `seeds`.
    """
    rows = []
    for cell in cells:
        joint = seed_means(cell["methods"]["joint"], measured)
        for method, runs in cell["methods"].items():
            own = seed_means(runs, measured)
            if method == "joint" or not (seeds := sorted(own.keys() & joint.keys())):
                continue
            gains = np.array([100 * (own[seed] - joint[seed]) for seed in seeds])
            error = float(gains.std(ddof=1) / np.sqrt(len(gains))) if len(gains) > 1 else 0.0
            place = {key: cell[key] for key in Cell._fields}
            about = {"joint": 100 * float(np.mean([joint[seed] for seed in seeds])), "seeds": len(seeds)}
            rows.append({**place, "method": method, "gain": float(gains.mean()), "error": error, **about})
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the cells, and writes the map after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--cells", nargs="+", type=Cell.parse, default=list(CELLS), help="cells, in order; default: the map"
    )
    parser.add_argument("--seeds", default="0,1,2", help="seeds of each cell")
    parser.add_argument(
        "--methods", default=METHODS, help="methods, as launch.experiment takes them; joint is among them"
    )
    parser.add_argument(
        "--theta0", nargs=2, action="append", default=[], metavar=("FORMS", "FOLDER"), help="another theta0"
    )
    parser.add_argument("--jobs", type=int, default=1, help="cells at a time, each on its own cores")
    parser.add_argument("--pilot", type=float, default=0.0, help="share of the tokens of a pilot in each cell; 0: none")
    parser.add_argument("--root", type=Path, default=ROOT, help="folder of all cells")
    options = parser.parse_args(arguments)
    theta0 = {**THETA0, **dict(options.theta0)}
    if unknown := [cell.name for cell in options.cells if cell.forms not in theta0]:
        parser.error(f"no theta0 for {', '.join(unknown)}: give --theta0 FORMS FOLDER")
    for cell in {cell.world: cell for cell in options.cells}.values():
        if not (_world(cell, options.root) / "world.json").exists() and not run(rendering(cell, options.root)):
            raise SystemExit(f"the world {cell.world} could not be made, see above")
    words = {
        cell.name: experiment(cell, theta0[cell.forms], options.methods, options.seeds, options.root)
        for cell in options.cells
    }
    measured = {
        f"{cell.name} seed {seed}": measurement(
            cell, theta0[cell.forms], options.methods, seed, options.root, options.pilot
        )
        for cell in options.cells
        for seed in options.seeds.split(",")
    }
    for commands in (words, measured):
        if stopped := run_apart(commands, options.jobs, lambda: write(options.root)):
            raise SystemExit(f"{', '.join(stopped)} stopped, see above; they go on there when this is run again")


def write(root: Path) -> None:
    """Writes `map.json`, `map.md` and, where it can be drawn, `map.png` of all finished cells under a root."""
    finished = [Cell.parse(path.parent.name) for path in root.glob("s*-p*/results.json")]
    cells = [
        read_cell(cell, root)
        for cell in sorted(finished, key=lambda cell: (cell.forms, -cell.epochs, -cell.shared, -cell.private))
    ]
    rows = against_joint(cells)
    (root / "map.json").write_text(json.dumps(cells, indent=1) + "\n")
    (root / "map.md").write_text(table(rows) + "\n")
    if can_draw():
        (root / "map.png").write_bytes(png(svg(draw(rows))))


if __name__ == "__main__":
    main()
