"""One run: its configuration, its workdir, and what is computed once and used by several stages."""

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import jax
import optax
from etils import epath
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from merit_jax.core import sharding, tree
from merit_jax.core.loss import next_token_loss
from merit_jax.core.types import Batch, Dataset, ImageReader, LeafReader, LossFn, Model, Params
from merit_jax.data.chat_template import tokenizer_digest
from merit_jax.data.mixture import load_mixture
from merit_jax.training.optimizer import make_optimizer
from merit_jax.training.step import TrainStep, make_step
from merit_jax.workdir.artifacts import is_current, read_json, write_json
from merit_jax.workdir.paths import Workdir

log = logging.getLogger("merit_jax")


@runtime_checkable
class Theta0(Protocol):
    """The merge-ready checkpoint that every branch starts from.

    Attributes:
        source: Identity of its files (path, sizes, times), as JSON values.
        logical_axes: Tree like the params; per leaf a tuple of logical axis names.
        abstract: Tree like the params; per leaf its shape and dtype.
    """

    source: Mapping[str, Any]
    logical_axes: Params
    abstract: Params

    def leaves(self) -> LeafReader:
        """Reads single leaves from the files."""

    def export(self, read: Callable[[str], Any], directory: epath.Path, extra: Mapping[str, str]) -> None:
        """Writes other parameters in the format of this checkpoint, with its tokenizer and some more text files."""


@dataclasses.dataclass(frozen=True)
class Run:
    """What the stages of a pipeline share.

    Attributes:
        config: All keys of `configs/common.py`.
        workdir: Where artifacts go.
        model: Pure functions of the parameters.
        theta0: The starting checkpoint.
        tokenizer: A Hugging Face tokenizer.
        reader: Reads images; None for a text model.
        overwrite: Make artifacts again whose inputs have changed, instead of refusing.
        allow_missing: Merge the finished branches where others are not finished, instead of refusing.
    """

    config: Any
    workdir: Workdir
    model: Model
    theta0: Theta0
    tokenizer: Any
    reader: ImageReader | None = None
    overwrite: bool = False
    allow_missing: bool = False

    @cached_property
    def mesh(self) -> Mesh:
        """All devices, by `config.mesh`."""
        return sharding.make_mesh(**self.config.mesh)

    @cached_property
    def shardings(self) -> Params:
        """Where each parameter lies."""
        return sharding.of_params(self.mesh, self.theta0.logical_axes, self.theta0.abstract)

    @cached_property
    def params(self) -> Params:
        """theta0 on the devices."""
        return self.place(self.theta0.leaves())

    def derive(self, config: Any, workdir: Workdir) -> "Run":
        """A run of another method or seed on the same theta0 and mixture; what this one has loaded and compiled is shared.

        Args:
            config: Like this run's, but for `method`, `seed`, `conflict`, `partition`, `train` and `merge`.
            workdir: Where its artifacts go.
        """
        other = dataclasses.replace(self, config=config, workdir=workdir)
        own = {
            *vars(other),
            *(() if other.optimizer_options == self.optimizer_options else ("optimizer", "train_step")),
            *(() if config.seed == self.config.seed else ("datasets", "text_inputs")),
        }
        vars(other).update({name: value for name, value in vars(self).items() if name not in own})
        return other

    def place(self, leaves: LeafReader) -> Params:
        """Parameters from files to the devices, one leaf at a time."""
        return sharding.load(leaves, self.shardings)

    def place_batch(self, batch: Batch, leading: int = 0) -> Batch:
        """A host batch on the devices."""
        return sharding.place_batch(batch, self.mesh, leading)

    @cached_property
    def loss_fn(self) -> LossFn:
        """Next-token cross-entropy."""
        return next_token_loss(self.model, self.config.loss.chunk)

    @cached_property
    def optimizer(self) -> optax.GradientTransformation:
        """The optimizer of every branch."""
        return make_optimizer(**self.optimizer_options)

    @property
    def optimizer_options(self) -> dict[str, Any]:
        """Everything of `config.train` that makes the optimizer."""
        cfg = self.config.train
        options = ("weight_decay", "no_decay", "clip_norm", "b1", "b2", "eps")
        return {"name": cfg.optimizer, **{name: cfg[name] for name in options}}

    @cached_property
    def train_step(self) -> TrainStep:
        """The step of every branch, compiled once."""
        return make_step(self.loss_fn, self.optimizer)

    @cached_property
    def datasets(self) -> tuple[Dataset, ...]:
        """The mixture, tokenised."""
        log.info("reading the mixture %s", self.config.mixture.path)
        return load_mixture(
            **self.config.mixture, tokenizer=self.tokenizer, seed=self.config.seed, cache_dir=self.workdir.token_cache
        )

    @property
    def names(self) -> list[str]:
        """Names of the datasets, in order."""
        return [dataset.name for dataset in self.datasets]

    @property
    def samples(self) -> list[int]:
        """Training examples per dataset, s_t."""
        return [len(dataset.train) for dataset in self.datasets]

    @property
    def tokens(self) -> list[int]:
        """Supervised training tokens per dataset, n_t."""
        return [dataset.report.tokens for dataset in self.datasets]

    @cached_property
    def theta0_fingerprint(self) -> str:
        """Content of theta0; kept in the workdir until its files change, so that a finished run need not load it."""
        path = self.workdir.theta0
        inputs = dict(self.theta0.source)
        if path.exists() and is_current(path, inputs, overwrite=True):
            return read_json(path)["fingerprint"]
        value = tree.fingerprint(self.params)
        self.on_first_process(lambda: write_json(path, {"inputs": inputs, "fingerprint": value}))
        return value

    @cached_property
    def text_inputs(self) -> Mapping[str, Any]:
        """What decides how a record becomes tokens."""
        mixture = self.config.mixture
        return {
            "seed": self.config.seed,
            "tokenizer": tokenizer_digest(self.tokenizer),
            "max_length": mixture.max_length,
            "max_train": mixture.max_train,
        }

    def digests(self, names: Sequence[str] | None = None) -> dict[str, str]:
        """Content of the files of the named datasets."""
        return {d.name: d.report.digest for d in self.datasets if names is None or d.name in names}

    def on_first_process(self, write: Callable[[], Any]) -> None:
        """Lets process 0 write while the others wait.

        They first wait for each other, so that what each has read before the call, to decide on it, is the same everywhere.
        """
        self._wait_for_all()
        if jax.process_index() == 0:
            write()
        self._wait_for_all()

    def _wait_for_all(self) -> None:
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("artifact")
