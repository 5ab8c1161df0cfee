"""Writes the world: pictures, fine-tuning datasets, held-out suites, theta0's data and theta0's folder without weights.

python -m merit_jax.examples.shapes.make --out=DIR [--seed=0] [--shared=0] [--private=1] [--forms=little]
python -m merit_jax.examples.shapes.make --sheet=FILE.png
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from merit_jax.examples.shapes.basin import FORMS, Counts, make_basin
from merit_jax.examples.shapes.knobs import DEFAULTS, Knobs
from merit_jax.examples.shapes.model import save_model
from merit_jax.examples.shapes.render import contact_sheet, save
from merit_jax.examples.shapes.scenes import make_scene
from merit_jax.examples.shapes.suites import SUITES, make_suite
from merit_jax.examples.shapes.tasks.task import Row, ask_rows
from merit_jax.examples.shapes.tokenizer import save_tokenizer
from merit_jax.examples.shapes.written import written_digits

PARTS = ("mixture", "suites", "basin", "theta0")
MIXTURE_SCENES = 2400
"""Scenes that the fine-tuning datasets share."""


def make_mixture(seed: int, share: float = 1.0, knobs: Knobs = DEFAULTS) -> dict[str, list[Row]]:
    """Makes the fine-tuning datasets, by name; `share` is that part of their rows."""
    tasks = {name: task for name, task in knobs.tasks().items() if not task.written or written_digits() is not None}
    return {
        name: knobs.reverse_some(
            ask_rows(task, max(1, round(task.rows * share)), "mixture", seed, name, MIXTURE_SCENES), name
        )
        for name, task in tasks.items()
    }


def write_group(out: Path, group: str, datasets: Mapping[str, Sequence[Row]]) -> None:
    """Writes datasets to out/group/NAME.jsonl, their pictures to out/images and the manifest to out/group.json."""
    for folder in (out / group, out / "images"):
        folder.mkdir(parents=True, exist_ok=True)
    for name, rows in datasets.items():
        lines = [json.dumps(record(f"{name}-{number}", row)) + "\n" for number, row in enumerate(rows)]
        (out / group / f"{name}.jsonl").write_text("".join(lines))
    for scene in {row.scene.name: row.scene for rows in datasets.values() for row in rows}.values():
        save(scene, out / "images")
    entries = {
        name: {"file_name": f"{group}/{name}.jsonl", "formatting": "llava", "image_root": "images"} for name in datasets
    }
    (out / f"{group}.json").write_text(json.dumps(entries, indent=2) + "\n")


def record(name: str, row: Row) -> dict:
    """Returns a row in LLaVA's form; the first question carries the picture."""
    said = [{"from": ("human", "gpt")[place % 2], "value": text} for place, text in enumerate(row.turns)]
    said[0]["value"] = "<image>\n" + said[0]["value"]
    result = {"id": name, "image": f"{row.scene.name}.png", "conversations": said}
    extra = {"options": list(row.options), "facts": list(row.facts)}
    return result | {key: value for key, value in extra.items() if value}


def write_theta0(folder: Path) -> None:
    """Writes all of theta0's folder but the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    save_model(folder)
    save_tokenizer(folder)


def write_world(
    out: Path,
    seed: int,
    suite_rows: int,
    share: float,
    counts: Counts,
    parts: Sequence[str] = PARTS,
    knobs: Knobs = DEFAULTS,
    forms: str = "little",
) -> None:
    """Writes the chosen parts, and to out/world.json how each was made."""
    if written_digits() is None:
        sys.stderr.write("scikit-learn is not installed: no handwritten digits, and no dataset that asks for them\n")
    made: dict[str, dict[str, Any]] = {}
    if "mixture" in parts:
        write_group(out, "mixture", make_mixture(seed, share, knobs))
        made["mixture"] = {"seed": seed, **asdict(knobs), "own_forms": knobs.own_forms, "share": share}
    if "suites" in parts:
        write_group(out, "suites", {name: make_suite(name, suite_rows, seed, knobs) for name in SUITES})
        made["suites"] = {"seed": seed, **asdict(knobs), "own_forms": knobs.own_forms, "rows": suite_rows}
    if "basin" in parts:
        write_group(out, "basin", make_basin(counts, seed, forms, knobs.tasks()))
        made["basin"] = {
            "seed": seed,
            "private": knobs.private,
            "own_forms": knobs.own_forms,
            "forms": forms,
            "counts": counts._asdict(),
        }
    if "theta0" in parts:
        write_theta0(out / "theta0")
    if made:
        write_record(out / "world.json", made)


def write_record(path: Path, made: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes how parts of the world were made; what is on record of parts made before stays."""
    earlier = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**earlier, **made}, indent=2) + "\n")


def write_sheet(path: Path, seed: int) -> None:
    """Writes forty scenes to look at."""
    handwriting = written_digits() is not None
    contact_sheet([make_scene("basin", seed, number, handwriting and number % 5 == 4) for number in range(40)], path)


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the flags and writes the chosen parts."""
    parser = argparse.ArgumentParser(
        prog="python -m merit_jax.examples.shapes.make", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--out", type=Path, help="folder to write to")
    parser.add_argument("--sheet", type=Path, help="PNG of some scenes, instead of all else or beside it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--suite_rows", type=int, default=400, help="rows of each suite")
    parser.add_argument("--mixture_share", type=float, default=1.0, help="part of each fine-tuning dataset's rows")
    parser.add_argument("--shared", type=float, default=0.0, help="part of the questions in reversed order of words")
    parser.add_argument("--private", type=float, default=1.0, help="part of the answer forms that are kept apart")
    parser.add_argument("--forms", choices=FORMS, default="little", help="how well theta0's data has the answer forms")
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=PARTS, help="what to write; everything if not given"
    )
    for name, default in Counts()._asdict().items():
        parser.add_argument(f"--{name}", type=int, default=default, help="theta0's data, see basin.py")
    flags = parser.parse_args(arguments)
    if not (flags.out or flags.sheet):
        parser.error("give --out=DIR or --sheet=FILE.png")
    try:
        knobs = Knobs(flags.shared, flags.private)
    except ValueError as error:
        parser.error(f"--{error}")
    if flags.sheet:
        write_sheet(flags.sheet, flags.seed)
    if flags.out:
        counts = Counts(**{name: getattr(flags, name) for name in Counts._fields})
        write_world(
            flags.out, flags.seed, flags.suite_rows, flags.mixture_share, counts, flags.parts, knobs, flags.forms
        )


if __name__ == "__main__":
    main()
