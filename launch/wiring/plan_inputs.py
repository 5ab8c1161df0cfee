"""Reads from a config all that a plan needs: the model without weights, the training task, and the size of the data."""

import glob
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from merit_jax import configs
from merit_jax.core import tree
from merit_jax.core.hub import CARD, cached_snapshot, parse_hub_name
from merit_jax.core.loss import next_token_loss
from merit_jax.core.sharding import Placement
from merit_jax.core.types import LossFn
from merit_jax.data.hub_entries import is_hub_path
from merit_jax.data.loader import training_batches
from merit_jax.data.mixture import load_mixture
from merit_jax.gradients.compression import make_compressor
from merit_jax.launch.wiring.attention_choice import attention_for
from merit_jax.launch.wiring.model_path import is_here, resolve, resolve_settings
from merit_jax.launch.wiring.planned_parameters import PlannedParameters, attached, planned_parameters
from merit_jax.models import build, read_config
from merit_jax.models.interface import REMAT, DecoderConfig, VisionLanguageConfig
from merit_jax.models.pretrained.config_only import ConfigOnlyCheckpoint
from merit_jax.models.pretrained.processor import load_processor
from merit_jax.models.processing.image_shapes import image_rows, image_work
from merit_jax.partition import branches
from merit_jax.pipeline.branch_parameters import ADAPTER_SPACE
from merit_jax.pipeline.estimate_curvature import uses_curvature
from merit_jax.planning.execution import TrainingTask, all_bytes, text_row
from merit_jax.planning.flops import RowShape
from merit_jax.planning.shapes import Architecture, BlockStack, ImageWork
from merit_jax.planning.workload import DataSize, Workload
from merit_jax.training.optimizer import make_optimizer

ARCHITECTURES = Path(configs.__file__).parent / "architectures"
"""Folders with the config.json of published models, for plans without their weights."""


class PlanInputs:
    """The inputs of a plan, from a config.

    Attributes:
        config: All keys of configs/common.py.
        where: The config.json or .gguf file that the model was read from.
        model: The model's config, in the computation's type.
    """

    def __init__(self, config: ConfigDict, dtype: str, platform: str = "cpu") -> None:
        self.config = config
        self.where, self._raw = open_config(config.model.path)
        switches = config.model.to_dict()
        del switches["path"], switches["remat"]
        if switches["dtype"] == "auto":
            switches["dtype"] = dtype
        attention = attention_for(switches["attention"], platform, switches["dtype"])
        switches["attention"] = "chunked" if attention == "cudnn" else attention  # which stores what cuDNN does
        self._switches = switches
        self._model = build(self._raw, **switches)
        self.model = self._model.config
        self._adapter = attached(self._model, config.train)
        self._in_adapters = config.gradients.space == ADAPTER_SPACE
        self.image_tokens = image_room(self.model, config.train.row_length, config.train.image_tokens)

    def _parameters(self, *, in_adapters: bool) -> PlannedParameters:
        """Returns the parameters that a step differentiates."""
        adapter = self._adapter if in_adapters else None
        return planned_parameters(self._model, adapter, tuple(self.config.train.trainable))

    def architecture(self) -> Architecture:
        """Returns the model's sizes, with those of the updates that its branches train."""
        text = self.model.text if isinstance(self.model, VisionLanguageConfig) else self.model
        images = self._images(self.config.train.row_length, self.image_tokens)
        itemsize = np.dtype(np.float32).itemsize // (1 + (text.dtype == "bfloat16"))
        abstract = self._parameters(in_adapters=True).abstract
        return Architecture(abstract, _decoder(text), text.vocab_size, _tower(self.model), images, itemsize)

    def task(self, datasets: int = 0) -> TrainingTask:
        """Returns the training step, on a mixture of so many datasets."""
        length = self.config.train.row_length
        images = image_rows(self.model, length, self.image_tokens) if self.image_tokens else None
        task = self._task(text_row(length, images, owned=datasets > 0), in_adapters=True)
        return task._replace(datasets=datasets, keeps_best=self.config.train.patience > 0)

    def calibration_task(self) -> TrainingTask:
        """Returns the gradient stage's batch, in its largest bucket."""
        length, tokens = self._bucket()
        row = text_row(length, image_rows(self.model, length, tokens) if tokens else None)
        return self._task(row, in_adapters=self._in_adapters)

    def _task(self, row: Any, *, in_adapters: bool) -> TrainingTask:
        train, parameters = self.config.train, self._parameters(in_adapters=in_adapters)
        options = {name: train[name] for name in ("weight_decay", "no_decay", "clip_norm", "b1", "b2", "eps")}
        return TrainingTask(
            parameters.abstract,
            parameters.logical_axes,
            parameters.trainable,
            make_optimizer(train.optimizer, **options),
            partial(self._loss, in_adapters=in_adapters),
            row,
            tuple(REMAT),
            train.average,
        )

    def _loss(self, remat: str, mesh: Mesh | None, *, in_adapters: bool) -> LossFn:
        placement = None if mesh is None else Placement(lambda: mesh)
        model = build(self._raw, remat=remat, placement=placement, **self._switches)
        adapter = attached(model, self.config.train) if in_adapters else None
        shards = self.config.mesh.sequence
        return next_token_loss(model if adapter is None else adapter.model, self.config.loss.chunk, shards)

    def workload(self) -> Workload:
        """Returns the work of a run on its data."""
        train, gradients, length = self.config.train, self.config.gradients, self._bucket()[0]
        trained, taken = (self._parameters(in_adapters=adapters) for adapters in (True, self._in_adapters))
        flat = tree.flatten(taken.abstract)
        leaves = {path: flat[path] for path in tree.matching(flat, taken.trainable)}
        compressor = make_compressor(gradients.reduction, stride=gradients.stride, width=gradients.width)
        return Workload(
            self.architecture(),
            trained.trainable,
            RowShape(train.row_length, train.row_length, self._images(train.row_length, self.image_tokens)),
            RowShape(length, length, self._images(*self._bucket())),
            train.batch_size,
            self.config.partition.groups,
            self.config.partition.method == "replicate",
            compressor.size(leaves),
            gradients.curvature_examples if uses_curvature(self.config) else 0,
            taken.trainable,
            trained.added,
        )

    def _bucket(self) -> tuple[int, int]:
        """Returns tokens and image tokens of the largest bucket of the gradient stage."""
        gradients = self.config.gradients
        length = max(gradients.buckets)
        return length, image_room(self.model, length, max(gradients.image_buckets, default=0))

    def _images(self, length: int, tokens: int) -> ImageWork:
        if not tokens:
            return ImageWork()
        return ImageWork(*image_work(self.model, tokens), all_bytes(image_rows(self.model, length, tokens)))

    def data(self, steps: int, datasets: int) -> DataSize:
        """Returns the size of the data: counted if the mixture and a tokenizer are at hand, else from the arguments.

        Args:
            steps: Steps of joint training, if there is no mixture; 0: 1,000.
            datasets: Number of datasets, likewise; 0: 100.
        """
        cfg = self.config
        if is_here(cfg.model.path) and cfg.mixture.path and _can_be_read(cfg.mixture.path):
            return self._count()
        source = "assumed: " + ", ".join(
            f"{number or default:,} {name}" + ("" if number else f" (give --{name})")
            for name, number, default in (("steps", steps, 1000), ("datasets", datasets, 100))
        )
        source += ", every position supervised, every example in the largest bucket"
        datasets = datasets or 100
        return DataSize(datasets, steps or 1000, datasets * cfg.gradients.examples, 0, 1.0, source)

    def _count(self) -> DataSize:
        cfg = self.config
        tokenizer, reader = load_processor(resolve(cfg.model.path).path, self.model)
        options = {key: value for key, value in cfg.mixture.items() if key != "elsewhere"}
        away = None if cfg.mixture.elsewhere else ()
        datasets = load_mixture(**options, tokenizer=tokenizer, seed=cfg.seed, elsewhere=away)
        names = [dataset.name for dataset in datasets]
        (joint,) = branches.from_groups(names, np.zeros(len(names), np.int32), cfg.seed)
        batches = training_batches(
            datasets,
            joint,
            epochs=cfg.train.epochs,
            row_length=cfg.train.row_length,
            batch_size=cfg.train.batch_size,
            seed=cfg.seed,
            reader=reader,
            image_tokens=cfg.train.image_tokens,
        )
        positions = batches.steps * cfg.train.batch_size * cfg.train.row_length
        return DataSize(
            len(names),
            batches.steps,
            sum(min(cfg.gradients.examples, len(dataset.train)) for dataset in datasets),
            sum(len(dataset.held_out) for dataset in datasets),
            batches.tokens / positions,
            f"counted in {cfg.mixture.path}; calibration and evaluation examples as if in the largest bucket",
        )


def open_config(path: str) -> tuple[str, DecoderConfig | VisionLanguageConfig]:
    """Returns the file of the model that `config.model.path` names, and its config, without weights.

    Raises:
        ValueError: There is none, there or in `ARCHITECTURES`.
    """
    if not path:
        raise ValueError(
            "model.path is not set; give a folder with a config.json, a .gguf file, or a model's name (OWNER/NAME of the hub)"
        )
    if Path(path).suffix == ".gguf" and Path(path).is_file():
        return path, read_config(path)
    known = {folder.name.lower(): folder for folder in sorted(ARCHITECTURES.iterdir()) if folder.is_dir()}
    checkpoint = ConfigOnlyCheckpoint(_config_folder(path, known))
    return checkpoint.config_file, checkpoint.model.config


def _config_folder(path: str, known: Mapping[str, Path]) -> Path:
    """Returns the folder of a config: the path, a model of that name in the hub's cache, a shipped one, or one of the hub."""
    if (Path(path) / "config.json").is_file():
        return Path(path)
    wanted, shipped = parse_hub_name(path, "model"), known.get(Path(path.partition("@")[0]).name.lower())
    cached = None if wanted is None else cached_snapshot(wanted, ("config.json",))
    if cached is not None and (cached.folder / "config.json").is_file():
        return cached.folder
    if shipped is not None:
        return shipped
    names = ", ".join(found.name for found in known.values())
    if wanted is None or Path(path).exists():
        raise ValueError(
            f"model.path = {path!r}: there is no {path}/config.json, and none is shipped for a model of that name; write one "
            f"(no weights are needed), or plan for one of {names}"
        )
    try:
        return resolve_settings(path).path
    except ValueError as error:
        raise ValueError(f"{error}; or plan for one of {names}, whose config.json is shipped") from None


def _can_be_read(path: str) -> bool:
    """Returns whether `config.mixture.path` is at hand: files, or a dataset in the hub's cache."""
    wanted = parse_hub_name(path, "dataset") if is_hub_path(path) else None
    return bool(glob.glob(path)) if wanted is None else cached_snapshot(wanted, (CARD,)) is not None


def image_room(model: DecoderConfig | VisionLanguageConfig, length: int, tokens: int) -> int:
    """Returns the image tokens of a row; 0 for a text model."""
    return (tokens or length) if isinstance(model, VisionLanguageConfig) else 0


def _decoder(text: DecoderConfig) -> BlockStack:
    head, experts = text.head_dim, text.experts
    mlp, used = (
        (text.mlp_size, 1.0) if experts is None else (text.mlp_size * experts.chosen, experts.chosen / experts.total)
    )
    return BlockStack(text.layers, text.hidden_size, text.heads * head, text.kv_heads * head, text.heads, mlp, used)


def _tower(model: Any) -> BlockStack | None:
    if not isinstance(model, VisionLanguageConfig):
        return None
    vision: Any = model.vision
    return BlockStack(
        vision.layers, vision.hidden_size, vision.hidden_size, vision.hidden_size, vision.heads, vision.mlp_size
    )
