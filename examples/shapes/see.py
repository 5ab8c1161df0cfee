"""Pretrains the vision tower against words, as CLIP's is: each cell's vector must be near the words for its content.

python -m merit_jax.examples.shapes.see --theta0=runs/shapes/theta0 --out=runs/shapes/seen
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

from merit_jax.core.types import Example, PackedExample
from merit_jax.examples.shapes.glyphs import DIGITS, LETTERS
from merit_jax.examples.shapes.render import save
from merit_jax.examples.shapes.scenes import COLORS, SHAPES, SIZES, Scene, make_scene
from merit_jax.examples.shapes.words import PLACES
from merit_jax.examples.shapes.written import written_digits
from merit_jax.models import export_hf, load_pretrained
from merit_jax.models.modules.vision_language import VisionLanguage
from merit_jax.models.pretrained.compose import compose
from merit_jax.models.pretrained.processor import load_processor

CELLS = 9
NOTHING = "nothing"
LABELS = {
    "kind": (NOTHING, "shape", "letter", "digit", "written"),
    "name": (NOTHING, *SHAPES, *LETTERS, *DIGITS),
    "color": (NOTHING, *COLORS),
    "size": (NOTHING, *SIZES),
    "place": PLACES,
}
"""What a cell's token is asked, and the possible answers."""

WORDS = 0.5
"""Root mean square of the word vectors to start from. The usual 0.02 is far below what a picture's vectors have."""

START = 2
"""Place of the first image token in a row that begins as a conversation does."""


def labels(scene: Scene) -> np.ndarray:
    """Returns the answers, i32[9, 5]."""
    things = {thing.cell: thing._asdict() for thing in scene.things}
    rows = []
    for cell, place in enumerate(PLACES):
        told = {**things.get(cell, {}), "place": place}
        rows.append([answers.index(told.get(question) or NOTHING) for question, answers in LABELS.items()])
    return np.array(rows, np.int32)


def read(scenes: Sequence[Scene], reader: Any, image_token: int) -> Any:
    """Reads the pictures of scenes as a batch of the model's image rows."""
    tokens = np.full(START + CELLS + 1, image_token, np.int32)
    tokens[:START] = tokens[-1] = 0
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for scene in scenes:
            save(scene, Path(folder))
            image = {"type": "image", "path": f"{folder}/{scene.name}.png"}
            example = Example(tokens, np.zeros(len(tokens), bool), (image,))
            rows.append(reader.row([PackedExample(0, example)], len(tokens), CELLS))
    return jax.tree.map(lambda *leaves: np.stack(leaves), *rows)


class Learnt(NamedTuple):
    """The trained parameters.

    Attributes:
        parts: Vision tower and projector.
        words: Word vectors [vocab, width].
    """

    parts: dict[str, Any]
    words: jax.Array


def loss(
    model: Any, params: Any, spelt: dict[str, list[list[int]]], learnt: Learnt, images: Any, answers: np.ndarray
) -> tuple[jax.Array, jax.Array]:
    """Computes the summed cross-entropy of all questions, and the share of correctly classified cells per question.

    An answer's score is the inner product of the cell's vector and the sum of the answer's word vectors.
    """
    variables = {"params": {**params, **learnt.parts}}
    features = VisionLanguage(model.config).apply(variables, images, method=VisionLanguage.features)
    features = features / jnp.linalg.norm(features, axis=-1, keepdims=True)
    wanted = jnp.take_along_axis(answers, (images.slots - START)[:, :, None], axis=1)
    total, right = jnp.zeros(()), []
    for place, question in enumerate(LABELS):
        scores = features @ jnp.stack([learnt.words[jnp.array(ids)].sum(axis=0) for ids in spelt[question]], axis=1)
        total += optax.softmax_cross_entropy_with_integer_labels(scores, wanted[..., place]).mean()
        right.append((scores.argmax(-1) == wanted[..., place]).mean())
    return total, jnp.stack(right)


def train(
    model: Any, params: Any, tokenizer: Any, images: Any, answers: np.ndarray, *, epochs: int, batch: int, rate: float
) -> Any:
    """Trains vision tower, projector and word vectors until a cell's vector is near the right words; returns the params."""
    steps = epochs * (len(answers) // batch)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(optax.cosine_decay_schedule(rate, steps)))
    spelt = {question: [tokenizer(answer)["input_ids"] for answer in LABELS[question]] for question in LABELS}
    words = params["decoder"]["embed"]["embedding"]
    words = words * (WORDS / jnp.sqrt(jnp.mean(words**2)))
    learnt = Learnt({part: params[part] for part in ("vision", "projector")}, words)

    @jax.jit
    def step(learnt: Learnt, state: Any, images: Any, answers: np.ndarray) -> tuple[Learnt, Any, jax.Array]:
        gradient, right = jax.grad(partial(loss, model, params, spelt), has_aux=True)(learnt, images, answers)
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
    decoder = {**params["decoder"], "embed": {"embedding": learnt.words}}
    return {**params, **learnt.parts, "decoder": decoder}


def main() -> None:
    """Reads the flags, trains, and writes the folder."""
    parser = argparse.ArgumentParser(
        prog="python -m merit_jax.examples.shapes.see", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--theta0", type=Path, required=True, help="folder of the model without weights")
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument("--scenes", type=int, default=9_000)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        compose(f"{folder}/random", like=flags.theta0, seed=flags.seed)
        model, params = load_pretrained(f"{folder}/random")
        tokenizer, reader = load_processor(flags.theta0, model.config)
        crowds = ("many", "many", "few")
        scenes = [
            make_scene("basin", flags.seed, n, n % 2 == 0 and written_digits() is not None, crowd=crowds[n % 3])
            for n in range(flags.scenes)
        ]
        images, answers = read(scenes, reader, model.config.image_token), np.stack([labels(scene) for scene in scenes])
        params = train(model, params, tokenizer, images, answers, epochs=flags.epochs, batch=100, rate=3e-3)
        leaves = flatten_dict(params, sep="/")
        export_hf(flags.out, leaves.__getitem__, f"{folder}/random")


if __name__ == "__main__":
    main()
