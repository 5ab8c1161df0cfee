"""Reads from a run's config how its branches are trained, and refuses what no other tool's config can say."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from merit_jax.core import tree
from merit_jax.core.types import Branch
from merit_jax.data.message_texts import special_ids
from merit_jax.data.sampler import BranchExamples
from merit_jax.launch.emitting.hugging_face import OPTIMIZERS
from merit_jax.launch.emitting.interface import Settings
from merit_jax.pipeline.rounds import in_rounds
from merit_jax.pipeline.run import Run
from merit_jax.pipeline.train_branches import branch_batches

PARTS = ("vision", "projector", "decoder")
"""Parts of a vision-language model, which are the heads of its parameters' paths."""

HF_DECAYED = (("norm", "bias"), ("bias", "norm"))
"""Values of `train.no_decay` that are the rule of Hugging Face's trainer."""

LION_B2 = 0.99
"""The second decay of Lion where `train.b2` keeps AdamW's default, as in optax."""

SAMPLED = 50
"""Examples that are looked at for the token that ends a response."""


def unsaid(config: Any) -> Iterator[str]:
    """Yields a sentence for each key of a config whose value no tool's config can say."""
    cfg = config.train
    if in_rounds(config):
        yield (
            f"rounds.count = {config.rounds.count} and rounds.warm = {config.rounds.warm:g}: each round starts from the merge of "
            "the one before, which no other tool makes; set 1 and 0"
        )
    if cfg.adapter:
        yield (
            f"train.adapter = {cfg.adapter!r}: the files train all parameters; leave it empty, and set the tool's own adapter in "
            "train.yaml: merit merge takes the adapters of PEFT"
        )
    if cfg.average != "token":
        yield f"train.average = {cfg.average!r}: other tools average over the supervised tokens of a step; set 'token'"
    if cfg.optimizer not in OPTIMIZERS:
        yield f"train.optimizer = {cfg.optimizer!r}: the same optimizer is only known for {', '.join(OPTIMIZERS)}; set one"
    if cfg.optimizer == "sgd" and (cfg.b1 or cfg.weight_decay):
        yield (
            f"train.optimizer = 'sgd' with train.b1 = {cfg.b1:g} and train.weight_decay = {cfg.weight_decay:g}: other tools' SGD "
            "has no momentum and couples its decay; set both to 0, or use adamw"
        )
    if cfg.weight_decay and tuple(cfg.no_decay) not in HF_DECAYED:
        yield f"train.no_decay = {tuple(cfg.no_decay)}: other tools leave out norms and biases; set ('norm', 'bias')"
    if tuple(cfg.schedule_span) != (0.0, 1.0):
        yield f"train.schedule_span = {tuple(cfg.schedule_span)}: other tools run whole schedules; set (0.0, 1.0)"


def frozen_parts(paths: Mapping[str, Any], trainable: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns (parts of the model, those that are frozen).

    Args:
        paths: Path -> anything, of all parameters.
        trainable: `train.trainable`.

    Raises:
        ValueError: A part is trained in part, or a text model not wholly.

    Examples:
        >>> frozen_parts({"vision/kernel": 0, "projector/kernel": 0, "decoder/kernel": 0}, ("^decoder/",))
        (('vision', 'projector', 'decoder'), ('vision', 'projector'))
    """
    trained = {path: any(re.search(pattern, path) for pattern in trainable) for path in paths}
    parts = tuple(part for part in PARTS if any(path.startswith(f"{part}/") for path in paths))
    whole = set(parts) == {path.partition("/")[0] for path in paths}
    groups = {part: [on for path, on in trained.items() if path.startswith(f"{part}/")] for part in parts}
    if not whole:
        parts, groups = (), {"the model": list(trained.values())}
    for name, found in groups.items():
        if any(found) != all(found) or (not whole and not all(found)):
            raise ValueError(
                f"train.trainable = {tuple(trainable)} trains a part of {name}, which other tools' configs cannot say; train all "
                "of it, or freeze whole parts: vision, projector, decoder"
            )
    return parts, tuple(part for part in parts if not any(groups[part]))


def branch_settings(run: Run, number: int, branch: Branch) -> Settings:
    """Returns how a branch is trained.

    Args:
        run: The run.
        number: Number of the branch.
        branch: The branch.

    Raises:
        ValueError: A key says what no tool's config can say, or theta0 is no folder that other tools read.
    """
    cfg, config, folder = run.config.train, run.config, str(run.theta0.source["path"])
    if problem := next(unsaid(config), ""):
        raise ValueError(problem)
    if folder.endswith(".gguf"):
        raise ValueError(
            f"model.path = {config.model.path!r}: other tools do not train .gguf files; give a Hugging Face folder"
        )
    parts, frozen = frozen_parts(tree.flatten(run.theta0.abstract), cfg.trainable)
    planned = branch_batches(run, branch)
    lion = cfg.optimizer == "lion" and cfg.b2 == 0.999
    return Settings(
        branch=number,
        model=folder,
        family=str(run.theta0.settings["model_type"]),
        parts=parts,
        frozen=frozen,
        learning_rate=float(cfg.learning_rate),
        schedule=cfg.schedule,
        warmup_steps=int(cfg.warmup * planned.steps),
        steps=planned.steps,
        epochs=float(cfg.epochs),
        batch=cfg.batch_size,
        batch_examples=max(1, round(planned.examples / planned.steps)),
        micro_batches=cfg.micro_batches,
        row_length=cfg.row_length,
        max_length=config.mixture.max_length,
        optimizer=cfg.optimizer,
        b1=float(cfg.b1),
        b2=LION_B2 if lion else float(cfg.b2),
        eps=float(cfg.eps),
        weight_decay=float(cfg.weight_decay),
        clip_norm=float(cfg.clip_norm),
        seed=branch.seed % 2**31,
        bf16=config.model.dtype != "float32",
        checkpoint_every=cfg.checkpoint_every,
        log_every=cfg.log_every,
        end_of_turn=end_of_turn(run, branch),
        eos=str(run.tokenizer.eos_token or ""),
    )


def end_of_turn(run: Run, branch: Branch) -> str:
    """Returns the special token that ends the responses of a branch; "" where none does."""
    special = special_ids(run.tokenizer)
    examples = BranchExamples(run.datasets, branch, run.config.seed)
    for index in range(min(len(examples), SAMPLED)):
        example = examples[index]
        last = int(example.tokens[np.flatnonzero(example.supervised)[-1]])
        if last in special:
            return str(run.tokenizer.convert_ids_to_tokens(last))
    return ""
