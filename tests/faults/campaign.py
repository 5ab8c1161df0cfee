"""The long fault campaign: strikes runs of all stages, and says what each came to.

python -m tests.faults.campaign --kills=50 --damages=42 --out=faults.md

Every faulty run is judged by the bits of its results against those of an undisturbed run: *bit-equal*; *clear error* (exit code
65 or 74, and one sentence); *silent corruption* (it has finished, and the bits differ); *crash* (anything else). A killed or
interrupted run, or one that has run out of room, is started again without the fault.
"""

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from merit_jax.launch.console.exit_codes import INTERRUPTED, UNFINISHED
from tests.faults.lab import Ended, Lab, flip, truncate
from tests.faults.results import results

EQUAL, CLEAR, SILENT, CRASH = "bit-equal", "clear error", "silent corruption", "crash"


class Outcome(NamedTuple):
    """What one fault led to.

    Attributes:
        fault: Its kind.
        detail: Where and when it struck.
        struck: How the struck command ended: `CLEAR`, `CRASH`, "killed" or "ended".
        end: `EQUAL`, `CLEAR`, `SILENT` or `CRASH`, after starting again where that is right.
        said: The error, if there was one.
    """

    fault: str
    detail: str
    struck: str
    end: str
    said: str = ""


class Campaign:
    """A lab with an undisturbed run in `whole`, of which the results are known, and one of another theta0 in `foreign`.

    Args:
        root: A folder to make.
        seed: Of all that is random.
    """

    def __init__(self, root: Path, seed: int = 0):
        self.lab, self.rng = Lab(root), random.Random(seed)
        self.whole = self.lab.folder("whole")
        counter = root / "operations"
        self.first = _done(self.lab.run(self.whole, {"kind": "count", "to": str(counter)}))
        self.operations = int(counter.read_text())
        self.expected = results(self.whole)
        self.seconds = _done(self.lab.run(self.lab.folder("again"))).seconds

    def judge(self, fault: str, detail: str, workdir: Path, struck: Ended, again: bool) -> Outcome:
        """Starts a command again, if that is right, and says what it has come to."""
        ended, said = struck, _error(struck)
        if again and struck.code:
            ended = self.lab.run(workdir)
            said = said or _error(ended)
        if ended.code:
            end = CLEAR if ended.clear else CRASH
        else:
            wrong = self.wrong(workdir)
            end, said = (SILENT, f"differ: {wrong}") if wrong else (EQUAL, said)
        how = _manner(struck)
        return Outcome(
            fault, detail, how, CRASH if how == CRASH else end, said or ("" if end == EQUAL else ended.text[-400:])
        )

    def wrong(self, workdir: Path) -> list[str]:
        """Results that are not those of the undisturbed run."""
        found = results(workdir)
        return sorted(
            name for name in found.keys() | self.expected.keys() if found.get(name) != self.expected.get(name)
        )

    def kill_at_operation(self) -> Outcome:
        """SIGKILL right before one of the file operations."""
        workdir, at = self.lab.folder("struck"), self.rng.randint(1, self.operations)
        struck = self.lab.run(workdir, {"kind": "kill", "at": at})
        return self.judge("SIGKILL", f"before file operation {at} of {self.operations}", workdir, struck, again=True)

    def kill_at_time(self) -> Outcome:
        """SIGKILL at some moment."""
        workdir, after = self.lab.folder("struck"), self.rng.uniform(0.3, self.seconds)
        struck = self.lab.run(workdir, kill_after=after)
        return self.judge("SIGKILL", f"after {after:.2f} of {self.seconds:.2f} s", workdir, struck, again=True)

    def kill_twice(self) -> Outcome:
        """SIGKILL, and SIGKILL again in the run that carries on."""
        workdir, after = self.lab.folder("struck"), self.rng.uniform(0.5, self.seconds)
        self.lab.run(workdir, kill_after=after)
        at = self.rng.randint(1, self.operations)
        struck = self.lab.run(workdir, {"kind": "kill", "at": at})
        return self.judge("SIGKILL twice", f"after {after:.2f} s, before operation {at}", workdir, struck, again=True)

    def no_room_by_operation(self) -> Outcome:
        """From one file operation on, every one fails as on a full disk."""
        workdir, at = self.lab.folder("struck"), self.rng.randint(1, self.operations)
        struck = self.lab.run(workdir, {"kind": "refuse", "errno": "ENOSPC", "at": at})
        return self.judge("disk full", f"from file operation {at} of {self.operations}", workdir, struck, again=True)

    def no_room_by_file(self) -> Outcome:
        """No file can be larger than so much, in Python and in C++."""
        workdir, most = self.lab.folder("struck"), int(2 ** self.rng.uniform(4, 18))
        struck = self.lab.run(workdir, {"kind": "file_size", "bytes": most})
        return self.judge("disk full", f"no file above {most} bytes", workdir, struck, again=True)

    def no_room_on_tmpfs(self) -> Outcome | None:
        """A workdir on a small tmpfs; None where none can be mounted."""
        used = sum(path.stat().st_size for path in self.whole.rglob("*") if path.is_file())
        workdir, size = self.lab.folder("small"), int(used * self.rng.uniform(0.02, 1.1)) // 4096 * 4096 + 4096
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(workdir)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            return None
        try:
            struck = self.lab.run(workdir)
            saved = self.lab.copy(workdir, "struck")
        finally:
            subprocess.run(["umount", "-l", str(workdir)], check=True)
        return self.judge("disk full", f"tmpfs of {size} bytes", saved, struck, again=True)

    def read_only(self) -> Outcome:
        """A workdir, empty or half made, that cannot be written to."""
        half = self.rng.random() < 0.5
        workdir = self.lab.copy(self.whole, "struck", ("merged",)) if half else self.lab.folder("struck")
        struck = self.lab.run(workdir, {"kind": "refuse", "errno": "EROFS", "at": 1})
        return self.judge("read-only workdir", "half made" if half else "empty", workdir, struck, again=True)

    def unreadable(self) -> Outcome:
        """Some files of a finished half cannot be read for a moment; nobody is advised to delete anything."""
        workdir = self.lab.copy(self.whole, "struck", ("merged",))
        code = self.rng.choice(("EIO", "ESTALE", "EMFILE", "EACCES", "ETIMEDOUT"))
        fault = {
            "kind": "unreadable",
            "errno": code,
            "at": self.rng.randint(1, 40),
            "times": self.rng.choice((1, 1000)),
        }
        struck = self.lab.run(workdir, fault)
        outcome = self.judge("unreadable", f"{code} from read {fault['at']}", workdir, struck, again=True)
        return outcome._replace(struck=CRASH, end=CRASH) if "delete" in _error(struck) else outcome

    def interrupted(self) -> Outcome:
        """SIGINT right before one of the file operations."""
        workdir, at = self.lab.folder("struck"), self.rng.randint(1, self.operations)
        struck = self.lab.run(workdir, {"kind": "interrupt", "at": at})
        return self.judge("SIGINT", f"before file operation {at} of {self.operations}", workdir, struck, again=True)

    def superseded(self) -> Outcome:
        """Another process has taken every lease at one of the file operations, and has then released them."""
        workdir, at = self.lab.folder("struck"), self.rng.randint(1, self.operations)
        struck = self.lab.run(workdir, {"kind": "superseded", "at": at})
        for lease in workdir.rglob("*.lease"):
            lease.unlink()
        return self.judge("superseded", f"at file operation {at} of {self.operations}", workdir, struck, again=True)

    def clock(self) -> Outcome:
        """A wall clock that jumps there and back."""
        workdir, seconds = self.lab.folder("struck"), self.rng.choice((3600.0, 86400.0 * 365, 1.7e9 / 2))
        struck = self.lab.run(workdir, {"kind": "clock", "seconds": seconds})
        return self.judge("clock jumps", f"by {seconds:.0f} s", workdir, struck, again=True)

    def damaged(self, kind: str) -> Outcome:
        """One damaged file of a kind, in a workdir whose later results are to be made again."""
        pattern, gone = DAMAGES[kind]
        workdir = self.lab.copy(self.whole, "struck", gone)
        files = sorted(path for path in workdir.glob(pattern) if path.is_file() and path.stat().st_size)
        file, act = self.rng.choice(files), self.rng.choice((flip, truncate))
        detail = f"{file.relative_to(workdir)}: {act(file, self.rng)}"
        return self.judge(f"damaged {kind}", detail, workdir, self.lab.run(workdir), again=False)

    def damaged_before_export(self) -> Outcome:
        """One flipped bit anywhere in a finished workdir, of which the merged model or a branch is then exported."""
        branch = self.rng.choice((None, 0, 1))
        expected = self.lab.root / f"export-{branch}"
        if not expected.exists():
            _done(self.lab.export(self.whole, expected, branch))
        workdir, out = self.lab.copy(self.whole, "struck"), self.lab.root / "exported"
        shutil.rmtree(out, ignore_errors=True)
        files = sorted(path for path in workdir.rglob("*") if path.is_file() and path.stat().st_size)
        file = self.rng.choice(files)
        detail = f"{file.relative_to(workdir)}: {flip(file, self.rng)}, then the export of {branch}"
        struck = self.lab.export(workdir, out, branch)
        if struck.code:
            end = CLEAR if struck.clear else CRASH
        else:
            name = "model.safetensors"
            end = EQUAL if (out / name).read_bytes() == (expected / name).read_bytes() else SILENT
        return Outcome("one bit, then an export", detail, _manner(struck), end, _error(struck))

    def damaged_in_training(self) -> Outcome:
        """One damaged file of the checkpoint that a killed branch is to carry on from."""
        workdir = self.lab.folder("struck")
        for after in (self.seconds * share for share in (0.5, 0.6, 0.7, 0.4, 0.8)):
            self.lab.run(workdir, kill_after=after)
            files = [path for path in workdir.glob("branches/*/**/*") if path.is_file() and path.stat().st_size]
            if files and not (workdir / "merged").exists():
                break
            workdir = self.lab.folder("struck")
        else:
            return Outcome("damaged checkpoint in training", "no such moment found", "ended", EQUAL)
        file, act = self.rng.choice(sorted(files)), self.rng.choice((flip, truncate))
        detail = f"{file.relative_to(workdir)}: {act(file, self.rng)}"
        return self.judge("damaged checkpoint in training", detail, workdir, self.lab.run(workdir), again=False)

    def damaged_source(self, kind: str) -> Outcome:
        """A damaged manifest, data file or theta0, which is mended afterwards."""
        files = {"manifest": "data/mixture.json", "data": "data/*.jsonl", "theta0": "theta0/*.safetensors"}[kind]
        workdir = self.lab.copy(self.whole, "struck", ("merged", "tokens"))
        file, act = self.rng.choice(sorted(self.lab.root.glob(files))), self.rng.choice((flip, truncate))
        content = file.read_bytes()
        detail = f"{file.name}: {act(file, self.rng)}"
        try:
            return self.judge(f"damaged {kind}", detail, workdir, self.lab.run(workdir), again=False)
        finally:
            file.write_bytes(content)

    def two_drivers(self) -> Outcome:
        """Two commands on one workdir, one of them a little later; what one has in its hands, the other leaves alone."""
        workdir, delay = self.lab.folder("struck"), self.rng.uniform(0.0, self.seconds / 2)
        ends = self.lab.run_twice(workdir, delay)
        worst = next((end for end in ends if end.code not in (0, UNFINISHED)), ends[0])
        codes = " and ".join(str(end.code) for end in ends)
        return self.judge("two drivers", f"{delay:.2f} s apart, exit codes {codes}", workdir, worst, again=True)

    def foreign_branch(self) -> Outcome:
        """A branch, or its checkpoints alone, taken from a run of another theta0."""
        foreign = self.lab.root / "foreign"
        if not foreign.exists():
            _done(self.lab.run(self.lab.folder("foreign"), config="other"))
        part = self.rng.choice(("branches/1", "branches/0/checkpoints", "branches/1/done.json"))
        workdir = self.lab.copy(self.whole, "struck", ("merged", part))
        source, target = foreign / part, workdir / part
        subprocess.run(["cp", "-r", str(source), str(target)], check=True)
        return self.judge("branch of another theta0", part, workdir, self.lab.run(workdir), again=False)

    def mixed_branches(self) -> Outcome:
        """The checkpoints of one branch in the folder of another."""
        workdir = self.lab.copy(self.whole, "struck", ("merged", "branches/0/checkpoints"))
        source = self.whole / "branches/1/checkpoints"
        subprocess.run(["cp", "-r", str(source), str(workdir / "branches/0/checkpoints")], check=True)
        return self.judge("checkpoint of another branch", "1 in 0", workdir, self.lab.run(workdir), again=False)


DAMAGES = {
    "checkpoint": ("branches/*/checkpoints/**/*", ("merged",)),
    "record of a branch": ("branches/*/*.json", ("merged",)),
    "gradient": ("gradients/*", ("conflict.npz", "merged")),
    "similarities": ("conflict.npz", ("partition.json", "merged")),
    "partition": ("partition.json", ("merged",)),
    "partition before training": ("partition.json", ("merged", "branches")),
    "mixture": ("mixture.json", ("merged",)),
    "token cache": ("tokens/*/*", ("merged", "branches")),
    "fingerprint of theta0": ("theta0.json", ("merged",)),
    "merged parameters": ("merged/params/**/*", ("merged/hf",)),
    "record of the merge": ("merged/*.json", ("merged/hf",)),
}
"""Kind -> which files, and what is made again from them."""


def strikes(campaign: Campaign, kills: int, damages: int) -> Iterator[Callable[[], Outcome | None]]:
    """The faults of a campaign, in order."""
    for number in range(kills):
        yield (campaign.kill_at_operation, campaign.kill_at_time, campaign.kill_at_operation, campaign.kill_twice)[
            number % 4
        ]
    others = (
        campaign.no_room_by_operation,
        campaign.no_room_by_file,
        campaign.no_room_on_tmpfs,
        campaign.read_only,
        campaign.unreadable,
        campaign.interrupted,
        campaign.superseded,
        campaign.clock,
        campaign.two_drivers,
        campaign.foreign_branch,
        campaign.mixed_branches,
        campaign.damaged_in_training,
        campaign.damaged_before_export,
    )
    for number in range(kills // 2):
        yield others[number % len(others)]
    kinds = [
        *(("damaged", kind) for kind in DAMAGES),
        *(("damaged_source", kind) for kind in ("manifest", "data", "theta0")),
    ]
    for number in range(damages):
        name, kind = kinds[number % len(kinds)]
        yield lambda name=name, kind=kind: getattr(campaign, name)(kind)


def report(outcomes: list[Outcome]) -> str:
    """A table by kind of fault, and every outcome."""
    ends = (EQUAL, CLEAR, SILENT, CRASH)
    counts: Counter[tuple[str, str]] = Counter((outcome.fault, outcome.end) for outcome in outcomes)
    lines = [f"| fault | injected | {' | '.join(ends)} |", "|---|---|" + "---|" * len(ends)]
    for fault in dict.fromkeys(outcome.fault for outcome in outcomes):
        row = [counts[fault, end] for end in ends]
        lines.append(f"| {fault} | {sum(row)} | {' | '.join(map(str, row))} |")
    total = [sum(count for (_, end), count in counts.items() if end == wanted) for wanted in ends]
    lines.append(f"| **all** | {len(outcomes)} | {' | '.join(map(str, total))} |")
    details = [f"* {o.fault}, {o.detail}: {o.struck}, then {o.end}. {_brief(o.said)}" for o in outcomes]
    return "\n".join([*lines, "", *details]) + "\n"


def _manner(struck: Ended) -> str:
    """How a command ended."""
    if struck.code in (0, UNFINISHED, INTERRUPTED) and "Traceback" not in struck.text:
        return "ended"
    if struck.code == -signal.SIGKILL:
        return "killed"
    return CLEAR if struck.clear else CRASH


def _brief(text: str) -> str:
    return " ".join(text.split())[:400]


def _error(ended: Ended) -> str:
    return next((line for line in ended.text.splitlines() if line.startswith("error: ")), "")


def _done(ended: Ended) -> Ended:
    if ended.code:
        raise RuntimeError(ended.text)
    return ended


def main() -> int:
    """Runs the campaign; 1 if anything was corrupted in silence, or crashed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--damages", type=int, default=42)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    outcomes = []
    with tempfile.TemporaryDirectory() as folder:
        campaign = Campaign(Path(folder) / "lab", options.seed)
        for strike in strikes(campaign, options.kills, options.damages):
            if (outcome := strike()) is not None:
                outcomes.append(outcome)
                sys.stdout.write(f"{outcome._replace(said=_brief(outcome.said))}\n")
                sys.stdout.flush()
            if options.out:
                options.out.write_text(report(outcomes))
    sys.stdout.write(report(outcomes))
    return 1 if any(outcome.end in (SILENT, CRASH) for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
