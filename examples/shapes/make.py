"""Writes the world: pictures, fine-tuning datasets, held-out suites, theta0's data and theta0's folder without weights.

python -m examples.shapes.make --out=DIR [--seed=0]
python -m examples.shapes.make --sheet=FILE.png
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from examples.shapes.basin import Counts, make_basin
from examples.shapes.model import save_model
from examples.shapes.render import contact_sheet, save
from examples.shapes.scenes import make_scene
from examples.shapes.suites import SUITES, make_suite
from examples.shapes.tasks import TASKS
from examples.shapes.tasks.task import Row, ask_rows
from examples.shapes.tokenizer import save_tokenizer
from examples.shapes.written import written_digits

PARTS = ("mixture", "suites", "basin", "theta0")
MIXTURE_SCENES = 2400
"""Scenes that the fine-tuning datasets share."""


def make_mixture(seed: int, share: float = 1.0) -> dict[str, list[Row]]:
    """Makes the fine-tuning datasets, by name; `share` is that part of their rows."""
    tasks = {name: task for name, task in TASKS.items() if not task.written or written_digits() is not None}
    return {
        name: ask_rows(task, max(1, round(task.rows * share)), "mixture", seed, name, MIXTURE_SCENES)
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
    out: Path, seed: int, suite_rows: int, share: float, counts: Counts, parts: Sequence[str] = PARTS
) -> None:
    """Writes the chosen parts."""
    if written_digits() is None:
        sys.stderr.write("scikit-learn is not installed: no handwritten digits, and no dataset that asks for them\n")
    if "mixture" in parts:
        write_group(out, "mixture", make_mixture(seed, share))
    if "suites" in parts:
        write_group(out, "suites", {name: make_suite(name, suite_rows, seed) for name in SUITES})
    if "basin" in parts:
        write_group(out, "basin", make_basin(counts, seed))
    if "theta0" in parts:
        write_theta0(out / "theta0")


def write_sheet(path: Path, seed: int) -> None:
    """Writes forty scenes to look at."""
    handwriting = written_digits() is not None
    contact_sheet([make_scene("basin", seed, number, handwriting and number % 5 == 4) for number in range(40)], path)


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the flags and writes the chosen parts."""
    parser = argparse.ArgumentParser(prog="python -m examples.shapes.make", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="folder to write to")
    parser.add_argument("--sheet", type=Path, help="PNG of some scenes, instead of all else or beside it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--suite_rows", type=int, default=400, help="rows of each suite")
    parser.add_argument("--mixture_share", type=float, default=1.0, help="part of each fine-tuning dataset's rows")
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=PARTS, help="what to write; everything if not given"
    )
    for name, default in Counts()._asdict().items():
        parser.add_argument(f"--{name}", type=int, default=default, help="theta0's data, see basin.py")
    flags = parser.parse_args(arguments)
    if not (flags.out or flags.sheet):
        parser.error("give --out=DIR or --sheet=FILE.png")
    if flags.sheet:
        write_sheet(flags.sheet, flags.seed)
    if flags.out:
        counts = Counts(**{name: getattr(flags, name) for name in Counts._fields})
        write_world(flags.out, flags.seed, flags.suite_rows, flags.mixture_share, counts, flags.parts)


if __name__ == "__main__":
    main()
