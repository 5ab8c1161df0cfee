"""Writes low-rank updates as an adapter that PEFT loads."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from merit_jax.models.adapters.low_rank import LowRank, weighted_sum
from merit_jax.models.interface import DecoderConfig
from merit_jax.models.io.drafts import check_free, draft_of
from merit_jax.models.io.folder_writer import write_json
from merit_jax.models.io.peft_config import CONFIG, WEIGHTS
from merit_jax.models.io.safetensors import TensorSpec, write
from merit_jax.models.pretrained.load import Pretrained


class Placed(NamedTuple):
    """The update of one module of a Hugging Face model.

    Attributes:
        update: [in, rank] and [rank, out], with its scale in B.
        transposed: Whether the module's weight is [in, out] (GPT-2's).
        of_table: Whether the module looks up rows.
    """

    update: LowRank
    transposed: bool = False
    of_table: bool = False


def write_peft(out: str | Path, updates: Mapping[str, Placed], base: str, extra: Mapping[str, str]) -> None:
    """Writes a folder that `peft.PeftModel.from_pretrained` takes; it appears only when it is complete.

    Args:
        out: Folder to make; must not exist, or be empty.
        updates: Name of a weight of the base, as "model.layers.0.mlp.up_proj.weight" -> its update.
        base: Name or path of the base model.
        extra: Text files to add: file name -> content.

    Raises:
        ValueError: `out` is in use.
        OSError: A file cannot be written.
    """
    modules = {key.removesuffix(".weight"): placed for key, placed in sorted(updates.items())}
    specs = [TensorSpec(name, array.dtype, array.shape) for name, array in _tensors(modules)]
    with draft_of(Path(out)) as draft:
        write_json(draft / CONFIG, _config(modules, base))
        for name, content in extra.items():
            (draft / name).write_text(content, encoding="utf-8")
        write(draft / WEIGHTS, specs, (array for _, array in _tensors(modules)))


def check_peft_export(out: str | Path) -> None:
    """Checks, before anything is computed, that a folder can be written; raises ValueError where it is in use."""
    check_free(Path(out))


def _tensors(modules: Mapping[str, Placed]) -> Iterator[tuple[str, np.ndarray]]:
    for module, (update, _, of_table) in modules.items():
        ends = ("lora_embedding_A", "lora_embedding_B") if of_table else ("lora_A.weight", "lora_B.weight")
        for end, part in zip(ends, update, strict=True):
            yield f"base_model.model.{module}.{end}", np.ascontiguousarray(part.T, np.float32)


def _config(modules: Mapping[str, Placed], base: str) -> dict[str, Any]:
    """Returns the adapter's config: the scale is in B, so alpha is the rank, of every module."""
    ranks = {module: placed.update.rank for module, placed in modules.items()}
    most = max(ranks.values())
    other = {module: rank for module, rank in ranks.items() if rank != most}
    return {
        "peft_type": "LORA",
        "base_model_name_or_path": base,
        "task_type": "CAUSAL_LM",
        "inference_mode": True,
        "r": most,
        "lora_alpha": most,
        "rank_pattern": other,
        "alpha_pattern": dict(other),
        "target_modules": sorted(modules),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": any(placed.transposed for placed in modules.values()),
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": None,
    }


def placed_updates(opened: Pretrained, updates: Mapping[str, LowRank]) -> dict[str, Placed]:
    """Returns the updates of a model's kernels under the names of the checkpoint's weights, one for each layer.

    Args:
        opened: The checkpoint.
        updates: Path of a kernel [*layers, in, out] -> its update.

    Raises:
        ValueError: The model has parts besides its decoder, or a kernel is not of the weight of one linear layer there.
    """
    if not isinstance(opened.model.config, DecoderConfig):
        raise ValueError(
            f"{opened.checkpoint.path}: versions of transformers name the modules of vision-language models differently, "
            "so no adapter of PEFT is written; export the whole model"
        )
    found: dict[str, Placed] = {}
    for path, update in updates.items():
        shape = opened.paths()[path].shape[-2:]
        for place in opened.plan.leaves[path]:
            piece = _in_rows(LowRank(*(part[place.at] for part in update)), place.rows)
            linear = opened.checkpoint.specs[place.key].shape == (piece.b.shape[-1], shape[0])
            known = found.get(place.key)
            if not (linear and place.transpose and place.shape is None and place.key.endswith(".weight")) or (
                known is not None and place.rows is None
            ):
                raise ValueError(
                    f"{path}: in {opened.checkpoint.path} it is {place.key}, which is no weight of one linear layer, so no "
                    "adapter of PEFT is written; export the whole model"
                )
            found[place.key] = Placed(piece if known is None else weighted_sum([known.update, piece], [1.0, 1.0]))
    return found


def _in_rows(update: LowRank, rows: tuple[int, int, int] | None) -> LowRank:
    """Returns the update of a tensor of which the kernel is some rows, or all if None."""
    if rows is None:
        return update
    first, last, total = rows
    return LowRank(update.a, np.pad(update.b, ((0, 0), (first, total - last))))
