"""The long campaign: every reader in a process of its own, which may crash, and a report.

python -m tests.fuzz.campaign --inputs=100000 --out=fuzz.md
python -m tests.fuzz.campaign --only=gguf --from=1234 --inputs=1          # one input again
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from tests.fuzz.targets import TARGETS

REPOSITORY = Path(__file__).parents[2]


class Result(NamedTuple):
    """What became of the inputs of one reader.

    Attributes:
        inputs: Their number.
        read: Those that were read, for the damage did not matter.
        refused: Those that ended in a ValueError.
        findings: "CASE<tab>what was wrong" of the others.
        seconds: Wall time.
    """

    inputs: int
    read: int
    refused: int
    findings: list[str]
    seconds: float


def run(name: str, start: int, inputs: int) -> Result:
    """One reader; after an input that ends the process it goes on with the next."""
    began, read, refused, findings = time.monotonic(), 0, 0, []
    stop, at = start + inputs, start
    while at < stop:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "tests.fuzz.harness", name, str(at), str(stop), folder]
            done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
            case = Path(folder) / "case"
            for line in done.stdout.splitlines():
                kind, _, rest = line.partition("\t")
                if kind == "ends":
                    read, refused = (a + int(b) for a, b in zip((read, refused), rest.split("\t"), strict=True))
                else:
                    findings.append(line)
            if done.returncode and not case.exists():
                raise RuntimeError(done.stderr)
            if done.returncode:
                findings.append(f"{case.read_text()}\tthe process ended with {done.returncode}: {done.stderr[-300:]!r}")
            at = int(case.read_text()) + 1 if done.returncode else stop
    return Result(inputs, read, refused, findings, time.monotonic() - began)


def report(results: dict[str, Result]) -> str:
    """A table, and the first findings of every reader."""
    rows = [
        f"| {name} | {r.inputs:,} | {r.read:,} | {r.refused:,} | {len(r.findings):,} | {r.seconds:.0f} |"
        for name, r in results.items()
    ]
    total = [sum(getattr(r, key) for r in results.values()) for key in ("inputs", "read", "refused")]
    wrong = sum(len(r.findings) for r in results.values())
    seconds = sum(r.seconds for r in results.values())
    head = "| reader | inputs | read | refused with a sentence | rules broken | seconds |\n|---|---|---|---|---|---|"
    last = f"| **all** | {total[0]:,} | {total[1]:,} | {total[2]:,} | {wrong:,} | {seconds:.0f} |"
    found = [f"* {name}: {finding}" for name, r in results.items() for finding in r.findings[:20]]
    return "\n".join([head, *rows, last, "", *found]) + "\n"


def main() -> int:
    """Runs all readers, or some."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=sum(target.inputs for target in TARGETS.values()))
    parser.add_argument("--only", nargs="*", default=list(TARGETS), choices=list(TARGETS))
    parser.add_argument("--from", type=int, default=0, dest="start")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    whole = sum(TARGETS[name].inputs for name in options.only)
    results = {}
    for name in options.only:
        share = -(-options.inputs * TARGETS[name].inputs // whole)
        results[name] = run(name, options.start, share)
        sys.stdout.write(f"{name}: {results[name]._replace(findings=results[name].findings[:5])}\n")
        sys.stdout.flush()
    text = report(results)
    if options.out:
        options.out.write_text(text)
    sys.stdout.write(text)
    return 1 if any(result.findings for result in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
