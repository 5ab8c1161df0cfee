"""Measures one training step against PyTorch: seconds and largest resident memory, on the same weights, tokens and precision.

    python -m benchmarks.training_step --root=/somewhere/with/2/GB

The model is SmolLM2-135M-Instruct in float32, all of it trained by AdamW with clipped gradients; the loss is on every token. Ours
is the step of every branch (merit_jax/training/step.py) with the optimizer of configs/common.py; PyTorch's is transformers with
scaled_dot_product_attention, F.cross_entropy and the fused AdamW. Every run is a process of its own, in turns. Prints a table and
the loss at every step of both, which shows that they compute the same; --root/training_step.json has every run.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.processes import peak_bytes

MODEL = "smollm2-135m-instruct"
RATE = 1e-5


class Run(NamedTuple):
    """One run of one tool.

    Attributes:
        first: Seconds of the first step, compilation included.
        seconds: Seconds of every later step.
        cpu_seconds: The same in processor time of all threads, which other programs on the machine disturb less.
        losses: Mean negative log-likelihood at every step, before its update, in nats.
        peak_bytes: Largest resident memory of the process.
    """

    first: float
    seconds: list[float]
    cpu_seconds: list[float]
    losses: list[float]
    peak_bytes: int


def token_rows(options: argparse.Namespace) -> np.ndarray:
    """Rows of `length + 1` tokens of this repository's documentation, [rows, length + 1]."""
    from merit_jax.launch.wiring.model_path import resolve
    from merit_jax.models import load_tokenizer

    pages = sorted((Path(__file__).parents[1] / "docs").rglob("*.md"))
    ids = load_tokenizer(resolve(MODEL).path)("\n".join(page.read_text() for page in pages))["input_ids"]
    return np.array(ids[: options.rows * (options.length + 1)], np.int32).reshape(options.rows, -1)


def ours(options: argparse.Namespace) -> Run:
    """Steps of the product."""
    import jax

    from merit_jax.configs import common
    from merit_jax.core import sharding, tree
    from merit_jax.core.loss import next_token_loss
    from merit_jax.core.types import Batch
    from merit_jax.launch.wiring import open_run
    from merit_jax.training.loop import in_micro_batches
    from merit_jax.training.optimizer import make_optimizer
    from merit_jax.training.step import init_state, make_step

    config = common.get_config()
    chosen = ((name, getattr(options, name)) for name in ("remat", "scan_unroll"))
    switches = {name: config.model[name] if value is None else value for name, value in chosen}
    theta0 = open_run.open_model(MODEL, dtype="float32", **switches)
    mesh = sharding.make_mesh()
    leaves = tree.flatten(
        sharding.load(theta0.leaves(), sharding.of_params(mesh, theta0.logical_axes, theta0.abstract))
    )
    cfg = config.train
    settings = {name: cfg[name] for name in ("weight_decay", "no_decay", "clip_norm", "b1", "b2", "eps")}
    optimizer = make_optimizer(cfg.optimizer, **settings)
    state = init_state(leaves, optimizer, sharding.of_optimizer(optimizer, leaves, mesh))
    del leaves
    step = make_step(next_token_loss(theta0.model, options.chunk or config.loss.chunk), optimizer)
    ids = token_rows(options)
    tokens, targets = ids[:, :-1], ids[:, 1:]
    positions = np.broadcast_to(np.arange(options.length, dtype=np.int32), tokens.shape)
    host = Batch(tokens, targets, np.ones(tokens.shape, np.float32), positions, np.ones(tokens.shape, np.int32))

    def advance() -> float:
        nonlocal state
        placed = sharding.place_batch(in_micro_batches(host, 1), mesh, leading=1)
        state, metrics = step(state, {}, placed, np.float32(RATE))
        jax.block_until_ready(state)
        return float(metrics.nll / metrics.tokens)

    return timed(advance, options.steps)


def pytorch(options: argparse.Namespace) -> Run:
    """Steps of transformers and torch.optim."""
    import torch
    from torch.nn.functional import cross_entropy
    from transformers import LlamaForCausalLM

    torch.set_num_threads(options.threads)
    model = LlamaForCausalLM.from_pretrained(options.root / "theta0", dtype=torch.float32, attn_implementation="sdpa")
    model.train()
    from merit_jax.configs import common

    cfg = common.get_config().train
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=RATE,
        betas=(cfg.b1, cfg.b2),
        eps=cfg.eps,
        weight_decay=cfg.weight_decay,
        **{options.adamw: True},
    )
    ids = torch.from_numpy(token_rows(options)).long()
    tokens, targets = ids[:, :-1], ids[:, 1:].flatten()

    def advance() -> float:
        logits = model(input_ids=tokens, use_cache=False).logits
        loss = cross_entropy(logits.flatten(0, 1), targets)
        del logits
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), cfg.clip_norm)
        optimizer.step()
        return loss.item()

    return timed(advance, options.steps)


def timed(advance: Callable[[], float], steps: int) -> Run:
    """Takes one step and then `steps` more."""
    seconds, cpu, losses = [], [], []
    for _ in range(steps + 1):
        start, cpu_start = time.perf_counter(), time.process_time()
        losses.append(advance())
        seconds.append(time.perf_counter() - start)
        cpu.append(time.process_time() - cpu_start)
    return Run(seconds[0], seconds[1:], cpu[1:], losses, peak_bytes())


TOOLS = {"ours": ours, "pytorch": pytorch}


def in_its_own_process(tool: str, arguments: list[str]) -> Run:
    """One run; what this process holds would count as its memory otherwise.

    Raises:
        RuntimeError: It failed.
    """
    command = [sys.executable, "-m", "benchmarks.training_step", *arguments, f"--tool={tool}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    return Run(**json.loads(done.stdout.splitlines()[-1]))


def export_theta0(folder: Path) -> None:
    """Writes the weights that PyTorch reads."""
    from merit_jax.launch.wiring import open_run

    theta0 = open_run.open_model(MODEL, dtype="float32")
    theta0.export(theta0.leaves().read, folder, {})


def compare(arguments: list[str], repeats: int) -> dict[str, list[Run]]:
    """Runs both tools in turns."""
    runs: dict[str, list[Run]] = {tool: [] for tool in TOOLS}
    for _ in range(repeats):
        for tool in TOOLS:
            runs[tool].append(in_its_own_process(tool, arguments))
    return runs


def table(runs: dict[str, list[Run]], tokens: int) -> str:
    """The figures, a row each: medians over the runs, of the median step of each."""
    rates, cpu_rates, firsts, peaks = (
        {tool: statistics.median(map(measure, found)) for tool, found in runs.items()}
        for measure in (
            lambda run: tokens / statistics.median(run.seconds),
            lambda run: tokens / statistics.median(run.cpu_seconds),
            lambda run: run.first,
            lambda run: run.peak_bytes / 1e9,
        )
    )
    lines = ["| | ours | PyTorch | ratio |", "|---|---|---|---|"]
    for name, found, form in (
        ("tokens per second", rates, ".1f"),
        ("tokens per processor second", cpu_rates, ".1f"),
        ("peak memory, GB", peaks, ".2f"),
        ("first step with compilation, s", firsts, ".1f"),
    ):
        a, b = found["ours"], found["pytorch"]
        lines.append(f"| {name} | {a:{form}} | {b:{form}} | {a / b:.2f} |")
    lines += ["", "| step | loss, ours | loss, PyTorch | difference |", "|---|---|---|---|"]
    for step, (a, b) in enumerate(zip(runs["ours"][0].losses, runs["pytorch"][0].losses, strict=True)):
        lines.append(f"| {step} | {a:.6f} | {b:.6f} | {abs(a - b):.1e} |")
    return "\n".join(lines)


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder for PyTorch's weights and results")
    parser.add_argument("--rows", type=int, default=8, help="rows of a step")
    parser.add_argument("--length", type=int, default=128, help="tokens of a row")
    parser.add_argument("--steps", type=int, default=3, help="steps that are timed, after the first")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="CPUs that both may use")
    parser.add_argument("--scan_unroll", type=int, help="model.scan_unroll; left out: the default")
    parser.add_argument("--remat", help="model.remat; left out: the default")
    parser.add_argument("--chunk", type=int, help="loss.chunk; left out: the default")
    parser.add_argument("--adamw", choices=("fused", "foreach"), default="fused", help="PyTorch's implementation")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tool", choices=tuple(TOOLS), help="run only this one, in this process, and print it as JSON")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> None:
    """Measures and prints."""
    options = parse(arguments)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    if options.tool:
        print(json.dumps(TOOLS[options.tool](options)._asdict()))
        return
    options.root.mkdir(parents=True, exist_ok=True)
    if not (options.root / "theta0").exists():
        export_theta0(options.root / "theta0")
    print(f"{options.rows} x {options.length} tokens a step, {options.threads} CPUs, medians of {options.repeats}\n")
    runs = compare(arguments, options.repeats)
    content: dict[str, Any] = {tool: [run._asdict() for run in found] for tool, found in runs.items()}
    (options.root / "training_step.json").write_text(json.dumps(content, indent=2) + "\n")
    print(table(runs, options.rows * options.length))


if __name__ == "__main__":
    main(sys.argv[1:])
