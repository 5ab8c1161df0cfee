"""Pretrains the vision tower, as real towers are before any language: each cell's token must tell what the cell holds.

python -m examples.shapes.see --theta0=runs/shapes/theta0 --out=runs/shapes/seen
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict

from examples.shapes.glyphs import DIGITS, LETTERS
from examples.shapes.render import save
from examples.shapes.scenes import COLORS, SHAPES, SIZES, Scene, make_scene
from examples.shapes.written import written_digits
from merit_jax.types import Example, Placed
from models import export_hf, load_pretrained
from models.compose import compose
from models.processor import load_processor
from models.vision_language import VisionLanguage

CELLS = 9
KINDS = (None, "shape", "letter", "digit", "written")
NAMES = (None, *SHAPES, *LETTERS, *DIGITS)
LABELS = {"kind": KINDS, "name": NAMES, "color": (None, *COLORS), "size": (None, *SIZES), "cell": tuple(range(CELLS))}
"""What a cell's token is asked, and the possible answers."""

WORDS = 0.5
"""Root mean square of the word vectors that the decoder starts from: pictures' are near 1, and it hardly learns to find by its
name what is 50 times larger than the name."""

EMBEDDING = "decoder/embed/embedding"

START = 2
"""Place of the first image token in a row that begins as a conversation does."""


def labels(scene: Scene) -> np.ndarray:
    """The answers, i32[9, 5]."""
    things = {thing.cell: thing._asdict() for thing in scene.things}
    rows = []
    for cell in range(CELLS):
        told = {"kind": None, "name": None, "color": None, "size": None, **things.get(cell, {}), "cell": cell}
        rows.append([answers.index(told[question]) for question, answers in LABELS.items()])
    return np.array(rows, np.int32)


def read(scenes: Sequence[Scene], reader: Any, image_token: int) -> Any:
    """The pictures of scenes as a batch of the model's image rows."""
    tokens = np.full(START + CELLS + 1, image_token, np.int32)
    tokens[:START] = tokens[-1] = 0
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for scene in scenes:
            save(scene, Path(folder))
            image = {"type": "image", "path": f"{folder}/{scene.name}.png"}
            example = Example(tokens, np.zeros(len(tokens), bool), (image,))
            rows.append(reader.row([Placed(0, example)], len(tokens), CELLS))
    return jax.tree.map(lambda *leaves: np.stack(leaves), *rows)


class Learnt(NamedTuple):
    """What is trained.

    Attributes:
        parts: Vision tower and projector.
        heads: Per question a linear layer from a token vector to the scores of its answers.
    """

    parts: dict[str, Any]
    heads: dict[str, jax.Array]


def loss(model: Any, params: Any, learnt: Learnt, images: Any, answers: np.ndarray) -> tuple[jax.Array, jax.Array]:
    """Summed cross-entropy of all questions, and the share of cells told right per question."""
    variables = {"params": {**params, **learnt.parts}}
    features = VisionLanguage(model.config).apply(variables, images, method=VisionLanguage.features)
    features = features / jnp.sqrt(jnp.mean(features**2, axis=-1, keepdims=True) + 1e-6)
    wanted = jnp.take_along_axis(answers, (images.slots - START)[:, :, None], axis=1)
    total, right = 0.0, []
    for place, question in enumerate(LABELS):
        scores = features @ learnt.heads[question]
        total += optax.softmax_cross_entropy_with_integer_labels(scores, wanted[..., place]).mean()
        right.append((scores.argmax(-1) == wanted[..., place]).mean())
    return total, jnp.stack(right)


def train(model: Any, params: Any, images: Any, answers: np.ndarray, *, epochs: int, batch: int, rate: float) -> Any:
    """The params, with vision tower and projector trained to tell every cell's content through one linear layer."""
    steps = epochs * (len(answers) // batch)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(optax.cosine_decay_schedule(rate, steps)))
    width = model.config.text.hidden_size
    keys = dict(zip(LABELS, jax.random.split(jax.random.key(1), len(LABELS)), strict=True))
    heads = {
        question: jax.random.normal(keys[question], (width, len(LABELS[question]))) / width**0.5 for question in LABELS
    }
    learnt = Learnt({part: params[part] for part in ("vision", "projector")}, heads)

    @jax.jit
    def step(learnt: Learnt, state: Any, images: Any, answers: np.ndarray) -> tuple[Learnt, Any, jax.Array]:
        gradient, right = jax.grad(partial(loss, model, params), has_aux=True)(learnt, images, answers)
        updates, state = optimizer.update(gradient, state, learnt)
        return optax.apply_updates(learnt, updates), state, right

    state, rng = optimizer.init(learnt), np.random.default_rng(0)
    for epoch in range(1, epochs + 1):
        order = rng.permutation(len(answers))
        for start in range(0, len(answers) - batch + 1, batch):
            rows = order[start : start + batch]
            learnt, state, right = step(
                learnt, state, jax.tree.map(lambda x, rows=rows: x[rows], images), answers[rows]
            )
        told = ", ".join(f"{question} {share:.1%}" for question, share in zip(LABELS, right.tolist(), strict=True))
        sys.stderr.write(f"epoch {epoch}: {told}\n")
    return {**params, **learnt.parts}


def main() -> None:
    """Reads the flags, trains, and writes the folder."""
    parser = argparse.ArgumentParser(prog="python -m examples.shapes.see", description=__doc__.splitlines()[0])
    parser.add_argument("--theta0", type=Path, required=True, help="folder of the model without weights")
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument("--scenes", type=int, default=9_000)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        compose(f"{folder}/random", like=flags.theta0, seed=flags.seed)
        model, params = load_pretrained(f"{folder}/random")
        reader = load_processor(flags.theta0, model.config).images
        crowds = ("many", "many", "few")
        scenes = [
            make_scene("basin", flags.seed, n, n % 2 == 0 and written_digits() is not None, crowd=crowds[n % 3])
            for n in range(flags.scenes)
        ]
        images, answers = read(scenes, reader, model.config.image_token), np.stack([labels(scene) for scene in scenes])
        params = train(model, params, images, answers, epochs=flags.epochs, batch=100, rate=3e-3)
        leaves = flatten_dict(params, sep="/")
        leaves[EMBEDDING] = leaves[EMBEDDING] * (WORDS / jnp.sqrt(jnp.mean(leaves[EMBEDDING] ** 2)))
        export_hf(flags.out, leaves.__getitem__, f"{folder}/random")


if __name__ == "__main__":
    main()
