"""Where training apart pays: methods on worlds that differ in what their datasets share, and how well theta0 knows them.

    python -m benchmarks.study_map --seeds=0,1,2 --jobs=2                             # all cells, into runs/map
    python -m benchmarks.study_map --cells s1-p1-well-e4 --seeds=0                    # one
    python -m benchmarks.study_map --record=docs/results/map.json --docs              # what that file lacks; then the page
    python -m benchmarks.study_map --record=docs/results/map.json --docs --cells      # the page alone

A cell is a world (`examples.shapes.make --shared --private`), a theta0 that has met its answer forms never, a little or well,
and a number of passes over the mixture. Each is an experiment of `merit experiment` and resumes; what is finished costs seconds.
The record (`map.json`) has every run of every cell, with what merit advise measures of each before training, so that a forecast
can be fitted (benchmarks/study_forecast.py). A record that is given is completed: its seeds are not run again. `map.md` and
the pictures beside it show what each method gains over joint training.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.map_picture import draw, draw_shares
from benchmarks.map_record import Cell, against_joint, compact, joined, read_cell, read_record, shares_of_gain
from benchmarks.map_tables import tables
from benchmarks.results import place
from benchmarks.side_by_side import run, run_apart
from merit_jax.configs.common import parse
from merit_jax.launch.experiments.runner import parse_methods
from merit_jax.reporting.figures import can_draw, png, svg

ROOT = Path("runs/map")
"""Folder of all cells."""

PAGE, IMAGES = Path("docs/results/map.md"), Path("docs/images")
"""The page with the map's tables, and the folder of its pictures."""

PICTURES = {
    "map.png": lambda cells: draw(against_joint(cells)),
    "map_cosines.png": lambda cells: draw_shares(shares_of_gain(cells)),
}
"""Name of a picture -> what draws it of a record's cells."""

THETA0 = {"little": "examples/shapes/theta0", "well": "examples/shapes/theta0_forms"}
"""Forms -> theta0's folder; another one is made as examples/shapes/README.md says, and given by --theta0."""

METHODS = "joint,wise,examples4,random4,merit2d,random4:partition.core=0.25,merit2d:partition.core=0.25"
"""Methods at one budget."""

SCALES = (0.35, 0.5, 0.7, 1.0, 1.4)
"""Factors of the task vectors, each about √2 apart: a method is not held back by having to shrink to half."""

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
    return [
        "-m",
        "merit_jax.examples.shapes.make",
        f"--out={_world(cell, root)}",
        "--parts",
        "mixture",
        "suites",
        *knobs,
    ]


def experiment(cell: Cell, theta0: str, methods: str, seeds: str, root: Path) -> list[str]:
    """Returns the words of the command that trains and evaluates a cell's methods."""
    words = ["-m", "merit_jax.launch.experiment", *_config(cell, theta0, root), f"--root={root / cell.name}"]
    return [*words, f"--methods={methods}", f"--seeds={seeds}"]


def measurement(cell: Cell, theta0: str, methods: str, seed: str, root: Path, pilot: float = 0.0) -> list[str]:
    """Returns the words of the command that measures one seed of a finished cell as advice measures a user's mixture."""
    divided = ",".join(method for method in parse_methods(methods) if parse(method)[0] != "wise")
    place = [f"--workdir={root / cell.name / f'seed-{seed}'}", f"--config.seed={seed}"]
    words = ["-m", "merit_jax.launch.advise", *_config(cell, theta0, root), *place, f"--methods={divided}"]
    return [*words, f"--pilot={pilot:g}"] if pilot else words


def _config(cell: Cell, theta0: str, root: Path) -> list[str]:
    settings = {
        "model.path": theta0,
        "mixture.path": _world(cell, root) / "mixture.json",
        "evaluate.suites": _world(cell, root) / "suites.json",
        "evaluate.max_suite_records": 100,
        "evaluate.mixture_examples": 0,
        "frontier.max_records": 60,
        "frontier.scales": SCALES,
        "diagnostics.calibration_examples": 60,
        "train.epochs": cell.epochs,
    }
    return ["--config=configs/quickstart.py", *(f"--config.{key}={value}" for key, value in settings.items())]


def _world(cell: Cell, root: Path) -> Path:
    return root / "worlds" / cell.world


def seeds_to_run(cell: Cell, known: Mapping[str, Any] | None, methods: str, seeds: str) -> str:
    """Returns the seeds, joined by commas, that a record does not have of a cell with all methods and their measurements."""
    if known is None:
        return seeds

    def missing(seed: str) -> bool:
        found = {name for name, runs in known["methods"].items() if int(seed) in {run["seed"] for run in runs}}
        return not set(parse_methods(methods)) <= found or seed not in known["measured"]

    return ",".join(seed for seed in seeds.split(",") if missing(seed))


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the cells, and writes the map after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--cells", nargs="*", type=Cell.parse, default=list(CELLS), help="cells, in order; default: the map"
    )
    parser.add_argument("--seeds", default="0,1,2", help="seeds of each cell")
    parser.add_argument(
        "--methods", default=METHODS, help="methods, as merit experiment takes them; joint is among them"
    )
    parser.add_argument(
        "--theta0", nargs=2, action="append", default=[], metavar=("FORMS", "FOLDER"), help="another theta0"
    )
    parser.add_argument("--jobs", type=int, default=1, help="cells at a time, each on its own cores")
    parser.add_argument("--pilot", type=float, default=0.0, help="share of the tokens of a pilot in each cell; 0: none")
    parser.add_argument("--root", type=Path, default=ROOT, help="folder of all cells")
    parser.add_argument("--record", type=Path, help="a map measured before, which is completed; left out: none")
    parser.add_argument("--docs", action="store_true", help=f"write tables and picture into {PAGE}")
    options = parser.parse_args(arguments)
    theta0 = {**THETA0, **dict(options.theta0)}
    if unknown := [cell.name for cell in options.cells if cell.forms not in theta0]:
        parser.error(f"no theta0 for {', '.join(unknown)}: give --theta0 FORMS FOLDER")
    known = {cell["cell"]: cell for cell in read_record(options.record)}
    missing = {c: seeds_to_run(c, known.get(c.name), options.methods, options.seeds) for c in options.cells}
    missing = {cell: seeds for cell, seeds in missing.items() if seeds}
    for cell in {cell.world: cell for cell in missing}.values():
        if not (_world(cell, options.root) / "world.json").exists() and not run(rendering(cell, options.root)):
            raise SystemExit(f"the world {cell.world} could not be made, see above")
    words = {
        cell.name: experiment(cell, theta0[cell.forms], options.methods, seeds, options.root)
        for cell, seeds in missing.items()
    }
    measured = {
        f"{cell.name} seed {seed}": measurement(
            cell, theta0[cell.forms], options.methods, seed, options.root, options.pilot
        )
        for cell, seeds in missing.items()
        for seed in seeds.split(",")
    }
    write(options.root, known)
    for commands in (words, measured):
        if stopped := run_apart(commands, options.jobs, lambda: write(options.root, known)):
            raise SystemExit(f"{', '.join(stopped)} stopped, see above; they go on there when this is run again")
    if options.record:
        options.record.write_text((options.root / "map.json").read_text())
    if options.docs:
        PAGE.write_text(place(PAGE.read_text(), {"map": (options.root / "map.md").read_text()}))
        for name in PICTURES:
            (IMAGES / name).write_bytes((options.root / name).read_bytes())


def write(root: Path, known: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes `map.json`, `map.md` and, where they can be drawn, the pictures.

    Args:
        root: Folder of all cells; those that are finished are in the map.
        known: Cells of a record, by name.
    """
    finished = {path.parent.name: Cell.parse(path.parent.name) for path in root.glob("s*-p*/results.json")}
    cells = {
        **known,
        **{name: joined(known.get(name), read_cell(cell, root)) for name, cell in finished.items()},
    }
    order = sorted(
        map(Cell.parse, cells), key=lambda cell: (cell.forms != "well", cell.epochs, -cell.shared, -cell.private)
    )
    found = [cells[cell.name] for cell in order]
    root.mkdir(parents=True, exist_ok=True)
    (root / "map.json").write_text(compact(found))
    (root / "map.md").write_text(tables(found) + "\n")
    if found and can_draw():
        for name, picture in PICTURES.items():
            (root / name).write_bytes(png(svg(picture(found))))


if __name__ == "__main__":
    main()
