"""Counts the files that a reader opens to follow one operation, by a trace of the calls.

python -m benchmarks.walks --walks=data,merge --show

A walk lists the project files of an operation in the order in which it first enters them. Its stops are the changes of file
along the calls, each function counted where it is first called: a file that is left and entered again is two stops.
"""

import argparse
import dataclasses
import importlib
import pkgutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import groupby
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

ROOT = Path(__file__).parents[1]
METHOD = ("merit_jax", "launch")
EVERYTHING = ("merit_jax", "launch", "models", "configs")

NAMES = {
    "world": "tests.support.world",
    "open": "merit_jax.launch.wiring.open_run",
    "stages": "merit_jax.pipeline.stages",
    "train": "merit_jax.pipeline.train_branches",
    "mixture": "merit_jax.data.mixture",
    "loader": "merit_jax.data.loader",
    "loss": "merit_jax.core.loss",
    "types": "merit_jax.core.types",
    "slice": "DatasetSlice",
    "compressor": "make_compressor",
    "compress": "device_part",
}
"""Modules and functions that the walks start from or lead to."""


class Walk:
    """The files that were entered while tracing.

    Args:
        packages: Those whose files count.
        targets: Names of functions; where given, only the calls that lead to the first call of each count.

    Attributes:
        entries: A file for every function, in the order of first calls.
    """

    def __init__(self, packages: Sequence[str], targets: Sequence[str] = ()) -> None:
        self.entries: list[str] = []
        self._folders = tuple(f"{ROOT / package}/" for package in packages)
        self._targets, self._seen = set(targets), set[CodeType]()

    @property
    def files(self) -> list[str]:
        """The distinct files, in the order of first entry."""
        return list(dict.fromkeys(self.entries))

    @property
    def stops(self) -> int:
        """The number of changes of file."""
        return sum(1 for _ in groupby(self.entries))

    @contextmanager
    def trace(self) -> Iterator[None]:
        """Records the calls inside, in this thread and in those that it starts."""
        threading.setprofile(self._profile)
        sys.setprofile(self._profile)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)

    def _profile(self, frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event != "call" or code in self._seen or not self._counts(code):
            return
        if not self._targets:
            self._enter(code)
        elif code.co_name in self._targets and code.co_name not in {seen.co_name for seen in self._seen}:
            for caller in reversed(list(_callers(frame))):
                if self._counts(caller.f_code):
                    self._enter(caller.f_code)

    def _counts(self, code: CodeType) -> bool:
        """Returns whether code is a named function of the packages; comprehensions and lambdas are read with theirs."""
        return code.co_filename.startswith(self._folders) and not code.co_name.startswith("<")

    def _enter(self, code: CodeType) -> None:
        if code not in self._seen:
            self._seen.add(code)
            self.entries.append(str(Path(code.co_filename).relative_to(ROOT)))


def _callers(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def module(key: str) -> Any:
    """Imports a module of `NAMES`."""
    return importlib.import_module(NAMES[key])


def from_line_to_loss(root: Path) -> Walk:
    """Walks from a row of a dataset file to the loss of the first training batch."""
    world, walk = module("world"), Walk(METHOD)
    config = world.config(root)
    (root / "one").mkdir()
    world.write_rows(root / "one" / "copy.train.jsonl", [{"inputs": "say ab", "targets": "ab"}])
    with config.unlocked():
        config.mixture.path = str(root / "one" / "*.train.jsonl")
    run, types = world.on_one_device(module("open").open_run(config, root / "run")), module("types")
    params, branch = run.params, types.Branch((getattr(types, NAMES["slice"])("copy"),), 0)
    load, batches, loss = module("mixture").load_mixture, module("loader").training_batches, module("loss")
    tokenizer, model = run.tokenizer, run.model
    with walk.trace():
        datasets = load(config.mixture.path, tokenizer, max_length=96, seed=0, cache_dir=root / "cache")
        found = batches(datasets, branch, epochs=1, row_length=96, batch_size=1, seed=0)
        loss.next_token_loss(model)(params, next(found.iterator()))
    return walk


def from_gradient_to_group(root: Path) -> Walk:
    """Walks from theta0 and the tokenised mixture to the groups."""
    run, walk = opened(root), Walk(METHOD)
    with walk.trace():
        module("stages").run_stages(run, ["gradients", "conflict", "partition"])
    return walk


def from_leaf_to_export(root: Path) -> Walk:
    """Walks from a Hugging Face folder to a copy of it that is written leaf by leaf."""
    walk, config = Walk(EVERYTHING), module("world").config(root)
    with walk.trace():
        theta0 = module("open").open_model(config.model.path)
        theta0.export(theta0.leaves().read, root / "export", {})
    return walk


def from_config_to_stride(root: Path) -> Walk:
    """Walks to where `gradients.stride` is read, and to where it acts."""
    run = opened(root, **{"gradients.reduction": "stride", "gradients.stride": 5})
    walk = Walk(EVERYTHING, (NAMES["compressor"], NAMES["compress"]))
    with walk.trace():
        module("stages").run_stages(run, ["gradients"])
    return walk


def from_kill_to_end(root: Path) -> Walk:
    """Walks through the second start of a branch whose first was killed."""
    run, walk = partitioned(root), Walk(METHOD)
    step, calls = run.train_step, []

    def failing(*arguments: Any) -> Any:
        calls.append(None)
        if len(calls) > 3:
            raise KeyboardInterrupt
        return step(*arguments)

    with suppress(KeyboardInterrupt):
        module("train").train_branch(with_step(run, failing), 0)
    run = opened(root)
    with walk.trace():
        module("train").train_branch(run, 0)
    return walk


def from_branches_to_merged(root: Path) -> Walk:
    """Walks through the merge of finished branches."""
    run, walk = partitioned(root), Walk(METHOD)
    module("stages").run_stages(run, ["train"])
    run = opened(root)
    with walk.trace():
        module("stages").run_stages(run, ["merge"])
    return walk


WALKS: dict[str, Callable[[Path], Walk]] = {
    "data": from_line_to_loss,
    "group": from_gradient_to_group,
    "export": from_leaf_to_export,
    "stride": from_config_to_stride,
    "resume": from_kill_to_end,
    "merge": from_branches_to_merged,
}


def opened(root: Path, **changes: Any) -> Any:
    """A run of the tiny world whose theta0 and mixture are in memory."""
    run = module("world").run(root, "run", **{"train.epochs": 4, **changes})
    assert run.samples
    assert run.params
    assert run.theta0_fingerprint
    return run


def partitioned(root: Path) -> Any:
    """A run of the tiny world that is divided into branches."""
    run = opened(root)
    module("stages").run_stages(run, ["mixture", "gradients", "conflict", "partition"])
    return run


def with_step(run: Any, step: Callable[..., Any]) -> Any:
    """Returns the run with another training step."""
    return dataclasses.replace(run, shared=run.shared.with_value("train_step", step))


def import_everything() -> None:
    """Imports all modules, so that no import is part of a walk."""
    for package in EVERYTHING:
        inside = "" if package == "merit_jax" else "merit_jax."
        for found in pkgutil.walk_packages([str(ROOT / package)], f"{inside}{package}."):
            try:
                importlib.import_module(found.name)
            except ImportError:  # of an extra that is not installed
                continue


def main() -> None:
    """Prints the walks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--walks", default=",".join(WALKS), help="which, of " + ", ".join(WALKS))
    parser.add_argument("--show", action="store_true", help="print the files")
    flags = parser.parse_args()
    import_everything()
    for name in flags.walks.split(","):
        with tempfile.TemporaryDirectory() as folder:
            walk = WALKS[name](Path(folder))
        print(f"{name}: {len(walk.files)} files, {walk.stops} stops")
        if flags.show:
            print("".join(f"  {file}\n" for file, _ in groupby(walk.entries)))


if __name__ == "__main__":
    main()
