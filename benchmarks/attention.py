"""Memory and time of attention's implementations on this machine: one layer, forward and backward, in turns.

python -m benchmarks.attention --tokens=1024,4096
"""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from absl import app, flags
from tabulate import tabulate

from benchmarks.processes import processor
from merit_jax.models.modules.attention import attend
from merit_jax.models.modules.visible import in_segments

FLAGS = flags.FLAGS
flags.DEFINE_list("tokens", ["1024", "2048", "4096"], "Lengths of a row.")
flags.DEFINE_list("implementations", ["xla", "chunked"], "Values of model.attention.")
flags.DEFINE_integer("repeats", 5, "Timed runs of each, in turns.")
HEADS, GROUPS, DIM = 9, 3, 64
"""Of SmolLM2-135M."""


def gradient(tokens: int, implementation: str) -> tuple[Callable[..., Any], tuple[jax.Array, ...]]:
    """Returns the compiled gradient of a sum of attention over one row, and its operands."""
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = [(1, tokens, heads, DIM) for heads in (HEADS, GROUPS, GROUPS)]
    operands = tuple(jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True))
    visible = in_segments(jnp.ones((1, tokens), jnp.int32))

    def total(*operands: jax.Array) -> jax.Array:
        return (attend(*operands, visible, implementation=implementation).vectors ** 2).sum()

    return jax.jit(jax.grad(total, (0, 1, 2))).lower(*operands).compile(), operands


def row(tokens: int) -> list[str]:
    """Returns memory and median time of each implementation at one length."""
    made = [gradient(tokens, name) for name in FLAGS.implementations]
    seconds: list[list[float]] = [[] for _ in made]
    for _ in range(FLAGS.repeats + 1):
        for found, (run, operands) in zip(seconds, made, strict=True):
            start = time.perf_counter()
            jax.block_until_ready(run(*operands))
            found.append(time.perf_counter() - start)
    memory = [run.memory_analysis().temp_size_in_bytes / 2**20 for run, _ in made]
    return [
        f"{tokens:,}",
        *(
            f"{size:,.0f} MiB, {statistics.median(found[1:]):.2f} s"
            for size, found in zip(memory, seconds, strict=True)
        ),
    ]


def main(argv: Sequence[str]) -> None:
    """Prints the table."""
    print(f"{processor()}; one layer, {HEADS}/{GROUPS} heads of {DIM}, float32, forward and backward")
    print(tabulate([row(int(n)) for n in FLAGS.tokens], ["tokens", *FLAGS.implementations], tablefmt="pipe"))


if __name__ == "__main__":
    app.run(main)
