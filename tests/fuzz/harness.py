"""Feeds damaged files to a reader and says what it did that it may not."""

import os
import random
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from merit_jax.data.rows import FileError, RowError
from tests.fuzz import corpus
from tests.fuzz.guard import SECONDS, HangError, guarded
from tests.fuzz.targets import TARGETS, Target


class Finding(NamedTuple):
    """A rule that was broken.

    Attributes:
        target: Name of the reader.
        case: Number of the input; the same number is the same input.
        what: The error or the act.
    """

    target: str
    case: int
    what: str


class Fuzz:
    """One reader in a folder of its own.

    Args:
        name: A key of `TARGETS`.
        root: A folder to make.
    """

    def __init__(self, name: str, root: Path):
        self.name, self.target, self.root = name, TARGETS[name], root
        corpus.data_folder(root)
        self.folder = root / "inside"
        (root / "seeds").mkdir()
        self.seeds = list(self.target.seeds(root / "seeds"))
        self.target.beside(self.folder)
        self.ends: Counter[str] = Counter()
        (self.folder / self.target.file).write_bytes(self.seeds[0])
        self.target.read(self.folder)  # imports what it needs, which takes longer than reading may

    def content(self, case: int) -> bytes:
        """Input number `case`; the first ones are the valid files as they are."""
        if case < len(self.seeds):
            return self.seeds[case]
        rng = random.Random(f"{self.name} {case}")
        return rng.choice(self.target.mutators)(rng.choice(self.seeds), rng)

    def run(self, case: int) -> list[Finding]:
        """What one input led to."""
        (self.folder / self.target.file).write_bytes(self.content(case))
        wrong = self._read(self.target)
        return [Finding(self.name, case, what) for what in wrong]

    def _read(self, target: Target) -> list[str]:
        end = ""
        try:
            with guarded(self.folder) as seen:
                try:
                    target.read(self.folder)
                    self.ends["read"] += 1
                except ValueError as error:
                    self.ends["refused"] += 1
                    end = _sentence(error)
        except HangError:
            return [f"took more than {SECONDS} s"]
        except BaseException as error:
            return [_described(error)]
        return [*seen, *([end] if end else [])]

    def many(self, start: int, stop: int) -> Iterator[Finding]:
        """What inputs `start` to `stop` led to."""
        for case in range(start, stop):
            yield from self.run(case)


def _sentence(error: ValueError) -> str:
    """What is wrong with the message of an error that is allowed; empty if nothing is."""
    text = str(error)
    if type(error) not in (ValueError, RowError, FileError):
        return f"{type(error).__name__} instead of a ValueError with a sentence: {text:.200}"
    return "" if len(text) > 15 and " " in text else f"a message that says nothing: {text!r:.200}"


def _described(error: BaseException) -> str:
    trace, places = error.__traceback__, []
    while trace is not None:
        places.append(f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}")
        trace = trace.tb_next
    return f"{type(error).__name__}: {error!s:.200} at {' < '.join(reversed(places[-4:]))}"


def main() -> None:
    """Runs one reader on a range of inputs, in this process: NAME START STOP FOLDER; the number under way is in a file."""
    name, start, stop, root = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # some readers print
    fuzz = Fuzz(name, root / "world")
    progress = root / "case"
    for case in range(start, stop):
        progress.write_text(str(case))
        for finding in fuzz.run(case):
            out.write(f"{finding.case}\t{finding.what!r}\n")
    out.write(f"ends\t{fuzz.ends['read']}\t{fuzz.ends['refused']}\n")
    out.close()


if __name__ == "__main__":
    main()
