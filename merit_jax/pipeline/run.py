"""One run: its configuration, its workdir, and the model, data and compiled step that its stages share."""

import dataclasses
import logging
from collections.abc import Callable, Sequence
from typing import Any

import jax
import optax
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from merit_jax.core import sharding, tree
from merit_jax.core.adapters import Adaptable, Adapter
from merit_jax.core.leaves import LeafReader
from merit_jax.core.loss import next_token_loss
from merit_jax.core.types import Batch, Dataset, DifferentiableTwice, ImageReader, LossFn, Model, Params
from merit_jax.data.chat_template import tokenizer_digest
from merit_jax.data.template_source import fixed_date
from merit_jax.data.weights import visited_digest
from merit_jax.pipeline.datasets import load_datasets, record_elsewhere
from merit_jax.pipeline.shared import Shared, Theta0
from merit_jax.training.optimizer import make_optimizer
from merit_jax.training.step import TrainStep, make_step
from merit_jax.workdir.artifacts import is_current, read_json, write_json
from merit_jax.workdir.checksums import fingerprint
from merit_jax.workdir.left_open import LeftOpen
from merit_jax.workdir.paths import Workdir

log = logging.getLogger("merit_jax")


@dataclasses.dataclass(frozen=True)
class Run:
    """The input of every stage of a pipeline.

    Attributes:
        config: All keys of `configs/common.py`.
        workdir: Directory of the artifacts.
        shared: Model, theta0, tokenizer, and what is made of them once.
        overwrite: Make artifacts again whose inputs have changed, instead of refusing.
        allow_missing: Merge the finished branches where others are not finished, instead of refusing.
    """

    config: Any
    workdir: Workdir
    shared: Shared
    overwrite: bool = False
    allow_missing: bool = False

    def derive(self, config: Any, workdir: Workdir) -> "Run":
        """Returns a run of another method or seed on the same theta0; everything loaded and compiled is shared.

        Args:
            config: Like this run's, but for `method`, `seed`, `conflict`, `partition`, `train` and `merge`.
            workdir: Directory of its artifacts.
        """
        return dataclasses.replace(self, config=config, workdir=workdir)

    def starting_from(self, theta0: Theta0, datasets: tuple[Dataset, ...], config: Any, workdir: Workdir) -> "Run":
        """Returns a run as `derive` does, from another start and on other data."""
        return dataclasses.replace(self.derive(config, workdir), shared=self.shared.starting_from(theta0, datasets))

    @property
    def model(self) -> Model:
        """Pure functions of the parameters."""
        return self.shared.model

    @property
    def twice_model(self) -> Model:
        """The model for second and forward derivatives."""
        model = self.model
        return self.shared.once("twice_model", (), model.twice) if isinstance(model, DifferentiableTwice) else model

    @property
    def theta0(self) -> Theta0:
        """The starting checkpoint."""
        return self.shared.theta0

    @property
    def tokenizer(self) -> Any:
        """A Hugging Face tokenizer."""
        return self.shared.tokenizer

    @property
    def reader(self) -> ImageReader | None:
        """The reader of images; None for a text model."""
        return self.shared.reader

    @property
    def mesh(self) -> Mesh:
        """All devices, by `config.mesh`."""
        sizes = self.config.mesh.to_dict()
        return self.shared.once("mesh", sizes, lambda: sharding.make_mesh(**sizes))

    @property
    def shardings(self) -> Params:
        """The sharding of each parameter."""
        theta0, mesh = self.theta0, self.mesh
        return self.shared.once(
            "shardings", mesh, lambda: sharding.of_params(mesh, theta0.logical_axes, theta0.abstract)
        )

    @property
    def params(self) -> Params:
        """theta0 on the devices."""
        return self.shared.once("params", (self.mesh, self.theta0), self._place_theta0, kept=1)

    def _place_theta0(self) -> Params:
        params = self.place(self.theta0.leaves())
        self.theta0.check_unchanged()
        return params

    def place(self, leaves: LeafReader) -> Params:
        """Puts parameters from files on the devices, one leaf at a time."""
        return sharding.load(leaves, self.shardings)

    def place_batch(self, batch: Batch, leading: int = 0) -> Batch:
        """Puts a host batch on the devices."""
        return sharding.place_batch(batch, self.mesh, leading)

    @property
    def loss_fn(self) -> LossFn:
        """Next-token cross-entropy."""
        options = (self.config.loss.chunk, self.config.mesh.sequence)
        return self.shared.once("loss_fn", options, lambda: next_token_loss(self.model, *options))

    @property
    def twice_loss_fn(self) -> LossFn:
        """The same loss for second and forward derivatives."""
        if self.twice_model is self.model:
            return self.loss_fn
        options = (self.config.loss.chunk, self.config.mesh.sequence)
        return self.shared.once("twice_loss_fn", options, lambda: next_token_loss(self.twice_model, *options))

    @property
    def adapter(self) -> Adapter | None:
        """The low-rank updates that branches train in place of theta0's parameters; None where they train those.

        Raises:
            ValueError: The model can have none, or the targets are not among its kernels.
        """
        cfg, model = self.config.train, self.model
        if not cfg.adapter:
            return None
        patterns = (tuple(cfg.adapter_targets), tuple(cfg.trainable))
        options = (cfg.adapter, cfg.adapter_rank, cfg.adapter_alpha, *patterns)
        if not isinstance(model, Adaptable):
            raise ValueError(f"train.adapter = {cfg.adapter!r}: this model has no `adapted`; leave the key empty")
        return self.shared.once("adapter", options, lambda: model.adapted(*options))

    @property
    def branch_loss_fn(self) -> LossFn:
        """Next-token cross-entropy of theta0 with the leaves that branches train."""
        adapter, options = self.adapter, (self.config.loss.chunk, self.config.mesh.sequence)
        if adapter is None:
            return self.loss_fn
        return self.shared.once("branch_loss_fn", (adapter, options), lambda: next_token_loss(adapter.model, *options))

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """The optimizer of every branch."""
        options = self.optimizer_options
        return self.shared.once("optimizer", options, lambda: make_optimizer(**options))

    @property
    def optimizer_options(self) -> dict[str, Any]:
        """The keys of `config.train` that decide the optimizer."""
        cfg = self.config.train
        options = ("weight_decay", "no_decay", "clip_norm", "b1", "b2", "eps")
        return {"name": cfg.optimizer, **{name: cfg[name] for name in options}}

    @property
    def train_step(self) -> TrainStep:
        """The step of every branch, compiled once."""
        made_from = (self.branch_loss_fn, self.optimizer, self.config.train.average, len(self.datasets))
        return self.shared.once("train_step", made_from, lambda: make_step(*made_from))

    @property
    def datasets(self) -> tuple[Dataset, ...]:
        """The mixture, tokenised; of datasets that are elsewhere (`mixture.elsewhere`), what a record says."""
        options, text = self.config.mixture.to_dict(), {"tokenizer": self.tokenizer, "seed": self.config.seed}
        record = record_elsewhere(self.workdir, allowed=options["elsewhere"])
        made_from = (options, self.config.seed, record)
        return self.shared.once(
            "datasets", made_from, lambda: load_datasets(options, self.workdir, record, **text), kept=1
        )

    @property
    def names(self) -> list[str]:
        """Names of the datasets, in order."""
        return [dataset.name for dataset in self.datasets]

    @property
    def samples(self) -> list[int]:
        """Training examples per dataset, each as often as an epoch visits it, s_t."""
        return [dataset.visit_count for dataset in self.datasets]

    @property
    def tokens(self) -> list[int]:
        """Supervised training tokens per dataset, n_t."""
        return [dataset.report.tokens for dataset in self.datasets]

    @property
    def all_tokens(self) -> list[int]:
        """Tokens per dataset that an epoch of training reads: all but the last of each example, which is only a target."""
        return [d.report.total_tokens - d.visit_count for d in self.datasets]

    @property
    def theta0_fingerprint(self) -> str:
        """Fingerprint of theta0's parameters and config; kept in the workdir until its files are written again."""
        return self.shared.once("theta0_fingerprint", self.theta0, self._fingerprint_theta0)

    def _fingerprint_theta0(self) -> str:
        path, inputs = self.workdir.theta0, dict(self.theta0.source)
        if path.exists() and is_current(path, inputs, overwrite=True):
            return read_json(path)["fingerprint"]
        value = fingerprint({"params": tree.fingerprint(self.params), "config": dict(self.theta0.settings)})
        self.on_first_process(lambda: write_json(path, {"inputs": inputs, "fingerprint": value}))
        return value

    @property
    def compute_dtype(self) -> str:
        """Type of the computation; where `model.dtype` leaves it to the device, that of what is there already serves as well."""
        return LeftOpen(self.theta0.dtype) if self.config.model.dtype == "auto" else self.theta0.dtype

    @property
    def text_inputs(self) -> dict[str, Any]:
        """Everything that decides how a record becomes tokens, as JSON values."""
        mixture, date = self.config.mixture, fixed_date(self.tokenizer)
        return {
            **({"date": date} if date else {}),
            "seed": self.config.seed,
            "tokenizer": self.shared.once("tokenizer_digest", None, lambda: tokenizer_digest(self.tokenizer)),
            "max_length": mixture.max_length,
            "max_train": mixture.max_train,
        }

    def digests(self, names: Sequence[str] | None = None) -> dict[str, str]:
        """Returns the sha256 of the files of the named datasets, of all by default, with the weights that repeat examples."""
        return {d.name: visited_digest(d) for d in self.datasets if names is None or d.name in names}

    def on_first_process(self, write: Callable[[], Any]) -> None:
        """Lets process 0 write while the others wait.

        They first wait for each other, so that the files that each has read before the call are the same for all.
        """
        self._wait_for_all()
        if jax.process_index() == 0:
            write()
        self._wait_for_all()

    def _wait_for_all(self) -> None:
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("artifact")
