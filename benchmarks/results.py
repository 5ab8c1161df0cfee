"""Makes the tables of docs/results from nothing, one study after the other; says first how long each takes.

    python -m benchmarks.results                      # all of them, into runs/results
    python -m benchmarks.results --only=fidelity      # one
    python -m benchmarks.results --docs               # then writes the tables into the pages of docs/results

A study is some commands and the table that the last one leaves or prints. Every command resumes, so that a stopped study goes on
where it was; a finished one costs seconds. Minutes are of two CPU cores.
"""

import argparse
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path("runs/results")
"""Folder of all studies."""

PAGES = Path("docs/results")
"""Pages with tables between `<!-- table: NAME -->` and `<!-- end of table -->`."""

ELSEWHERE = ("map",)
"""Tables that another command places: benchmarks.study_map --docs."""

SHAPES = "python -m merit_jax.examples.shapes.make --out=runs/shapes-new-forms --parts mixture suites"
"""Renders the world of new forms, which is the same each time."""

METHODS = "joint,wise,examples4,random2,random4,random8,merit1d,merit2d,merit3d,raw2d"
"""Methods of the comparison, at one budget."""

CONTROLS = "examples4:train.epochs=4,merit2d:train.epochs=4"
"""Controls with four epochs, in which each branch takes as many steps as joint training does in one."""

OPERATORS = ",".join(
    f"merit2d{setting}"
    for setting in (
        "",
        ":merge.tokens=all",
        *(
            f":merge.method={name}"
            for name in (
                "uniform",
                "task_arithmetic",
                "ties",
                "dare_linear",
                "dare_ties",
                "star",
                "tsv_m",
                "iso_c",
                "iso_cts",
                "model_stock",
                "fisher",
            )
        ),
    )
)
"""MERIT-2D's branches, merged by every operator at its defaults."""

COMPARISON = (
    f"python -m merit_jax.launch.experiment --config=configs/quickstart_new_forms.py --root={ROOT}/comparison --seeds=0,1,2,3,4 "
    "--partitions=2 --config.evaluate.max_suite_records=100 --config.evaluate.mixture_examples=10 "
    "--config.frontier.max_records=60 --config.frontier.scales='(0.25,0.5,1.0,2.0)'"
)
"""The comparison where the answer forms are new, but for its methods; what a seed trains serves all tables."""


class Study(NamedTuple):
    """Some commands and their table.

    Attributes:
        commands: Shell commands, in order; each resumes.
        minutes: About how long they take from nothing on two CPU cores.
        table: The Markdown file that the last command leaves; None if it prints its table.
    """

    commands: tuple[str, ...]
    minutes: int
    table: Path | None = None


STUDIES: Mapping[str, Study] = {
    "fidelity": Study(
        (
            SHAPES,
            "python -m benchmarks.study_fidelity --config=configs/quickstart_new_forms.py --seeds=0,1,2 "
            f"--root={ROOT}/fidelity",
        ),
        minutes=5,
    ),
    "fidelity_smollm2": Study(
        (
            "python -m benchmarks.study_fidelity --config=configs/quickstart_text.py --config.gradients.examples=8 "
            f"--seeds=0,1,2 --root={ROOT}/fidelity-smollm2",
        ),
        minutes=30,
    ),
    "methods": Study(
        (
            SHAPES,
            f"{COMPARISON} --methods={METHODS} --controls={CONTROLS} --tables=methods --paper=docs/results/paper_3b.json",
        ),
        minutes=110,
        table=ROOT / "comparison/methods/results.md",
    ),
    "operators": Study(
        (
            SHAPES,
            f"{COMPARISON} --methods=joint,random4,{OPERATORS} --tables=operators --paper=docs/results/paper_7b_operators.json",
        ),
        minutes=50,
        table=ROOT / "comparison/operators/results.md",
    ),
}
"""The studies in order; later ones use what earlier ones trained."""


def announce(studies: Mapping[str, Study], root: Path) -> str:
    """Returns what will be done and how long it takes; a study whose table is there is finished.

    Args:
        studies: Name -> study.
        root: Folder of their tables.
    """
    left = {name: study for name, study in studies.items() if not (root / f"{name}.md").exists()}
    lines = [
        f"  {name}: {f'about {study.minutes} min' if name in left else 'finished; checked again in seconds'}"
        for name, study in studies.items()
    ]
    total = sum(study.minutes for study in left.values())
    return "\n".join([f"{len(left)} of {len(studies)} studies to do, about {total} min on two CPU cores:", *lines])


def run(name: str, study: Study, root: Path) -> str:
    """Runs a study's commands and returns its table, which is also kept as `NAME.md`.

    Raises:
        RuntimeError: A command fails, or leaves no table; the command is named.
    """
    printed = ""
    for command in study.commands:
        print(f"$ {command}", flush=True)
        words = [sys.executable, *shlex.split(command)[1:]]
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise RuntimeError(f"study {name} stopped at: {command}\nIt goes on there when this is run again.")
        printed = done.stdout
    table = _left(study.table) if study.table else "\n".join(_table_lines(printed))
    if not _table_lines(table):
        raise RuntimeError(f"study {name} has no table: {study.commands[-1]} finished and left none.")
    root.mkdir(parents=True, exist_ok=True)
    (root / f"{name}.md").write_text(table.strip() + "\n")
    return table


def parts(tables: Mapping[str, str]) -> dict[str, str]:
    """Returns the first table of each study with its caption, and the others, if there are any, as `NAME_more`.

    Examples:
        >>> several = (chr(10) * 2).join(["| 1 |", "Caption.", "| 2 |", "Caption."])
        >>> sorted(parts({"a": "| 1 |", "b": several}))
        ['a', 'b', 'b_more']
    """
    found = {}
    for name, text in tables.items():
        blocks = text.strip().split("\n\n")
        found[name] = "\n\n".join(blocks[:2])
        if blocks[2:]:
            found[f"{name}_more"] = "\n\n".join(blocks[2:])
    return found


def _left(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def _table_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("|")]


def place(page: str, tables: Mapping[str, str]) -> str:
    """Returns a page with its marked tables replaced.

    Raises:
        ValueError: A marker names a study that is not there.

    Examples:
        >>> lines = ["<!-- table: a -->", "old", "<!-- end of table -->"]
        >>> place(chr(10).join(lines), {"a": "new"}).splitlines()
        ['<!-- table: a -->', '', 'new', '', '<!-- end of table -->']
    """

    def replaced(match: re.Match[str]) -> str:
        if match[1].removesuffix("_more") not in (*STUDIES, *ELSEWHERE) and match[1] not in tables:
            raise ValueError(f"no study makes the table {match[1]!r}; known: {', '.join(STUDIES)}")
        return f"<!-- table: {match[1]} -->\n\n{tables[match[1]].strip()}\n\n{END}" if match[1] in tables else match[0]

    return re.sub(rf"<!-- table: (\w+) -->\n.*?{END}", replaced, page, flags=re.DOTALL)


END = "<!-- end of table -->"
"""Marker behind a table."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Announces, runs, and places the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=STUDIES, default=list(STUDIES), help="studies to run")
    parser.add_argument("--docs", action="store_true", help="write the tables into docs/results")
    options = parser.parse_args(arguments)
    chosen = {name: STUDIES[name] for name in options.only}
    print(announce(chosen, ROOT), flush=True)
    try:
        tables = {name: run(name, study, ROOT) for name, study in chosen.items()}
    except RuntimeError as error:
        raise SystemExit(str(error)) from None
    except KeyboardInterrupt:
        raise SystemExit("stopped; what is finished is kept, and the rest goes on when this is run again") from None
    for page in PAGES.glob("*.md") if options.docs else ():
        page.write_text(place(page.read_text(), parts(tables)))
    print(f"tables: {', '.join(str(ROOT / f'{name}.md') for name in tables)}")


if __name__ == "__main__":
    main()
