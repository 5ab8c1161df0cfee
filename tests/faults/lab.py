"""A small world with an undisturbed run, and commands on it that a fault may strike."""

import json
import os
import random
import shutil
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from merit_jax.launch.console.exit_codes import FAULT, MISTAKE
from tests.support import world
from tests.support.commands import environment, module, write_config
from tests.support.zygote import REPOSITORY, Command

STAGES = "mixture,gradients,conflict,partition,train,merge,export"
NOTHING: Mapping[str, Any] = {"kind": "none"}
LONGEST = 600.0
"""Seconds after which a command is killed."""


class Ended(NamedTuple):
    """How a command ended.

    Attributes:
        code: Exit code; minus the signal's number if a signal ended it.
        text: All that it printed.
        seconds: Wall time.
    """

    code: int
    text: str
    seconds: float

    @property
    def clear(self) -> bool:
        """Whether it stopped with one sentence, as a command does that tells its user what to mend."""
        said = [line for line in self.text.splitlines() if line.startswith("error: ")]
        return self.code in (MISTAKE, FAULT) and len(said) == 1 and len(said[0]) > 30 and "Traceback" not in self.text


class Lab:
    """Theta0, data, a config, and what starts commands.

    Args:
        root: A folder to make.
    """

    def __init__(self, root: Path):
        self.root = root
        world.checkpoint(root / "theta0")
        world.checkpoint(root / "other_theta0", seed=1)
        _manifest(root / "data")
        for name, theta0 in (("config", "theta0"), ("other", "other_theta0")):
            write_config(root / f"{name}.py", root, theta0=theta0, mixture="mixture.json", batch_size=8, epochs=2.0)

    def run(
        self,
        workdir: Path,
        fault: Mapping[str, Any] = NOTHING,
        *,
        kill_after: float | None = None,
        stages: str = STAGES,
        config: str = "config",
    ) -> Ended:
        """Runs stages in a workdir.

        Args:
            workdir: The workdir.
            fault: What strikes the process (see `inject`).
            kill_after: Seconds until SIGKILL.
            stages: The stages.
            config: Name of the config file.
        """
        began = time.monotonic()
        argv = [f"--config={self.root}/{config}.py", f"--workdir={workdir}", f"--stages={stages}"]
        struck = f"from tests.faults.inject import inject; inject({dict(fault)!r}, {str(workdir)!r}); {module('run')}"
        argv = ["run", *argv, f"--compilation_cache={self.root}/compiled"]
        command = Command(struck, argv, REPOSITORY, environment())
        text, _ = command.communicate(kill_after or LONGEST)
        return Ended(command.returncode, text, time.monotonic() - began)

    def export(self, workdir: Path, out: Path, branch: int | None = None) -> Ended:
        """Exports the merged model of a workdir, or a branch."""
        began = time.monotonic()
        argv = ["export", f"--config={self.root}/config.py", f"--workdir={workdir}", f"--out={out}"]
        argv += [] if branch is None else [f"--branch={branch}"]
        command = Command(
            module("export"), [*argv, f"--compilation_cache={self.root}/compiled"], REPOSITORY, environment()
        )
        text, _ = command.communicate(LONGEST)
        return Ended(command.returncode, text, time.monotonic() - began)

    def run_twice(self, workdir: Path, delay: float) -> list[Ended]:
        """Runs all stages in two processes at a time, the second one so many seconds later."""
        with ThreadPoolExecutor(2) as pool:
            ends = []
            for _ in range(2):
                ends.append(pool.submit(self.run, workdir))
                time.sleep(delay)
            return [end.result() for end in ends]

    def folder(self, name: str) -> Path:
        """A new folder of that name."""
        path = self.root / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        return path

    def copy(self, source: Path, name: str, without: Sequence[str] = ()) -> Path:
        """A copy of a workdir, without some of its files and folders."""
        target = self.folder(name)
        shutil.copytree(source, target, dirs_exist_ok=True, symlinks=True)
        for part in without:
            place = target / part
            shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
        return target


def flip(path: Path, rng: random.Random) -> str:
    """Turns over one bit of a file; its length stays."""
    content = bytearray(path.read_bytes())
    if not content:
        return "is empty"
    place, bit = rng.randrange(len(content)), rng.randrange(8)
    content[place] ^= 1 << bit
    path.write_bytes(content)
    return f"bit {bit} of byte {place}"


def truncate(path: Path, rng: random.Random) -> str:
    """Cuts off the end of a file, or all of it."""
    size = path.stat().st_size
    kept = rng.choice((0, rng.randrange(size + 1), max(0, size - 1)))
    os.truncate(path, kept)
    return f"cut to {kept} of {size} bytes"


def _manifest(folder: Path) -> None:
    """The mixture of the tests' world, as a manifest."""
    tasks = tuple(world.TASKS)[:4]
    world.mixture(folder, tasks=tasks, rows=10, held_out=2)
    entries = {
        name: {"file_name": f"{name}.train.jsonl", "eval_file_name": f"{name}.test.jsonl", "formatting": "flan"}
        for name in tasks
    }
    (folder / "mixture.json").write_text(json.dumps(entries, indent=1))
