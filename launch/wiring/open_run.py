"""Opens the run of a config: connects `models/` to `merit_jax/`."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from merit_jax.configs.schema.check import check
from merit_jax.core import sharding
from merit_jax.core.leaves import LeafReader
from merit_jax.launch.wiring.attention_choice import attention_for
from merit_jax.launch.wiring.model_path import resolve
from merit_jax.models import export_hf, open_pretrained, remove_heads
from merit_jax.models.adapters.low_rank import LowRank
from merit_jax.models.build_model import text_of
from merit_jax.models.interface import SWITCHES, Model
from merit_jax.models.pretrained.peft_export import placed_updates, write_peft
from merit_jax.models.pretrained.processor import load_processor
from merit_jax.pipeline.run import Run, Shared
from merit_jax.pipeline.run_date import fix_run_date
from merit_jax.workdir.artifacts import local_folder
from merit_jax.workdir.checksums import stamp
from merit_jax.workdir.leftovers import sweep
from merit_jax.workdir.paths import ORIGIN, Workdir, absolute
from merit_jax.workdir.version import refuse_older

LABELS = ("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "use_cache")
"""Keys of a checkpoint's config that change nothing in the computation."""


class Theta0Checkpoint:
    """theta0 on disk, as `merit_jax.pipeline.run.Theta0`."""

    def __init__(self, path: Path, *, dtype: Any = "float32", origin: str = "", **switches: Any) -> None:
        self.path, self.dtype, self.origin = path, jnp.dtype(dtype).name, origin
        self._opened = open_pretrained(path, dtype=dtype, **switches)
        self.model: Model = self._opened.model
        self.logical_axes, self.abstract = self.model.logical_axes, self.model.abstract
        files = sorted(path.glob("*")) if path.is_dir() else [path]
        stamps = [[file.name, *stamp(file)] for file in files if file.is_file()]
        self.source: Mapping[str, Any] = {
            "path": str(path.resolve()),
            **({ORIGIN: origin} if origin else {}),
            "files": stamps,
        }
        config = self._opened.checkpoint.config
        self.settings: Mapping[str, Any] = {key: value for key, value in config.items() if key not in LABELS}

    def check_unchanged(self) -> None:
        """Checks that no file has been written since the checkpoint was opened.

        Raises:
            ValueError: One has; it is named.
        """
        for name, *known in self.source["files"]:
            file = self.path / name if self.path.is_dir() else self.path
            if not file.exists() or [*stamp(file)] != known:
                raise ValueError(f"{file} was written while the run read it; start again")

    def leaves(self) -> LeafReader:
        """Returns a reader of single leaves."""
        return self._opened

    def export(
        self,
        read: Callable[[str], np.ndarray],
        directory: epath.PathLike,
        extra: Mapping[str, str],
        stop: Sequence[int] = (),
    ) -> None:
        """Writes parameters of this model as a folder, with its tokenizer and some text files; responses end at `stop` too."""
        with local_folder(directory, last="merit.json") as folder:
            export_hf(folder, read, self._opened, extra=extra, stop=stop)

    def export_without_heads(
        self,
        read: Callable[[str], np.ndarray],
        kept: Mapping[str, np.ndarray],
        directory: epath.PathLike,
        card: Callable[[Sequence[str]], Mapping[str, str]],
        stop: Sequence[int] = (),
    ) -> None:
        """Writes parameters of this model without some of its attention heads as a folder, with its tokenizer and text files."""
        removal = remove_heads(self._opened, kept)
        with local_folder(directory, last="merit.json") as folder:
            export_hf(folder, removal.reader(read), removal.base, extra=card(removal.notes), stop=stop)

    def reopened(self, directory: epath.PathLike, like: Any) -> tuple[Model, "Theta0Checkpoint"]:
        """Opens an exported folder; it computes as the model `like` does."""
        switches = {name: getattr(text_of(like.config), name) for name in SWITCHES}
        opened = Theta0Checkpoint(Path(directory), **switches)
        return opened.model, opened

    def export_adapter(
        self, updates: Mapping[str, LowRank], directory: epath.PathLike, extra: Mapping[str, str]
    ) -> None:
        """Writes updates of this model's kernels as an adapter of PEFT, with some text files.

        Raises:
            ValueError: A kernel is no whole weight of a linear layer, or the folder is in use.
        """
        write_peft(str(directory), placed_updates(self._opened, updates), str(self.path), extra)


def open_model(
    path: str, *, dtype: str = "auto", attention: str = "auto", where: str = "model.path", **switches: Any
) -> Theta0Checkpoint:
    """Opens the checkpoint of `config.model.path`; it computes in `config.model.dtype`, with the decoder's other switches.

    Args:
        path: As `model_path.resolve` takes it.
        dtype: `config.model.dtype`.
        attention: `config.model.attention`.
        where: The setting that the path is of, for error messages.
        **switches: As for `merit_jax.models.build_model.override`.

    Raises:
        ValueError: There is no such checkpoint, or the devices lack that attention.
    """
    if dtype == "auto":
        dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    switches["attention"] = attention_for(attention, jax.default_backend(), dtype)
    found = resolve(path, where)
    return Theta0Checkpoint(found.path, dtype=jnp.dtype(dtype), origin=found.origin, **switches)


def open_run(
    config: ConfigDict, workdir: epath.PathLike, *, overwrite: bool = False, allow_missing: bool = False
) -> Run:
    """Returns the run of a config in a workdir.

    Raises:
        ValueError: A value of the config is out of its range, there is no such checkpoint, or the workdir was begun by an earlier
            version.
    """
    check(config)
    root = absolute(workdir)
    refuse_older(Workdir(root, root))
    theta0 = open_model(**config.model, placement=sharding.Placement(lambda: sharding.make_mesh(**config.mesh)))
    tokenizer, reader = load_processor(theta0.path, theta0.model.config)
    fix_run_date(tokenizer, Workdir.at(root))
    shared = Shared(theta0.model, theta0, tokenizer, reader)
    found = Workdir.at(root)
    if jax.process_index() == 0:
        sweep(found)
    return Run(config, found, shared, overwrite, allow_missing)
