"""Adapters: a model whose kernels have trained low-rank updates beside them, attached to a Linen module by qwix."""

import dataclasses
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from merit_jax.models.adapters.forms import FORMS, MAGNITUDE, A, B, Options
from merit_jax.models.adapters.low_rank import LowRank, column_lengths, fold
from merit_jax.models.interface import Array, Model, Params

SHOWN = 8
"""Paths that an error lists."""

Run = Callable[[Params, Callable[[Any], Any]], Any]
"""(params, function of the bound module) -> its result."""


@dataclasses.dataclass(frozen=True, eq=False)
class Adapter:
    """Low-rank updates of some kernels of a model, to be trained in their place.

    Attributes:
        options: Their form, rank, scale and targets.
        model: Functions of params that hold the updates' leaves beside the kernels.
        kernels: Path of a kernel -> paths of its A and B, and of its magnitude if it has one.
        logical_axes: Path of a leaf of the updates -> a logical name for each dimension.
        abstract: Path of a leaf of the updates -> shape and type.
        four_bits: Path of a kernel that is held in NF4 -> qwix's abstract parameter.
    """

    options: Options
    model: Model
    kernels: Mapping[str, tuple[str, ...]]
    logical_axes: Mapping[str, tuple[str | None, ...]]
    abstract: Mapping[str, jax.ShapeDtypeStruct]
    four_bits: Mapping[str, Any]

    def start(self, seed: int, read: Callable[[str], Array]) -> dict[str, np.ndarray]:
        """Returns the leaves at which the model is theta0: A uniform in ±1/√in by the seed, as PEFT's; B zero; theta0's lengths.

        Args:
            seed: Of A; each leaf draws from its own.
            read: Path of a kernel -> theta0's, for DoRA.
        """
        leaves = {}
        for kernel, (a, b, *lengths) in self.kernels.items():
            shape = self.abstract[a].shape
            draws = np.random.default_rng([seed, zlib.crc32(a.encode())])
            leaves[a] = draws.uniform(-1, 1, shape).astype(np.float32) / np.float32(np.sqrt(shape[-2]))
            leaves[b] = np.zeros(self.abstract[b].shape, np.float32)
            for path in lengths:
                leaves[path] = column_lengths(np.asarray(read(kernel), np.float32))
        return dict(sorted(leaves.items()))

    def stored(self, path: str, leaf: jax.Array) -> Any:
        """Returns a leaf of theta0 as the frozen part of training holds it: as it is, or in NF4."""
        if path not in self.four_bits:
            return leaf
        from merit_jax.models.adapters.provider import quantised

        return quantised(leaf, self.four_bits[path])

    def update(self, kernel: str, read: Callable[[str], Array]) -> LowRank:
        """Returns the update of a kernel, `A (s B)`.

        Args:
            kernel: Its path.
            read: Path of a leaf of the updates -> the leaf.
        """
        a, b, *_ = self.kernels[kernel]
        return LowRank(np.asarray(read(a)), np.float32(self.options.scale) * np.asarray(read(b)))

    def fold(self, kernel: str, theta0: Array, read: Callable[[str], Array]) -> np.ndarray:
        """Returns a kernel of theta0 with its update written into it; arguments as for `update`."""
        lengths = [np.asarray(read(path)) for path in self.kernels[kernel][2:]]
        return fold(np.asarray(theta0), self.update(kernel, read), *lengths)

    @cached_property
    def is_low_rank(self) -> bool:
        """True if a trained model differs from theta0 by products A B; DoRA's does not."""
        return not FORMS[self.options.form].magnitude


def attach(
    module: nn.Module, exact: nn.Module, base: Model, options: Options, functions: Callable[[Run], dict[str, Any]]
) -> Adapter:
    """Attaches updates to the kernels that the options' targets name.

    Args:
        module: The model's module.
        exact: The same, computing in float32.
        base: The model.
        options: Form, rank, scale and targets.
        functions: Makes the functions of `Model` that read parameters.

    Raises:
        ImportError: qwix is not installed.
        ValueError: No kernel is named, or one whose product qwix does not find, or the rank is not below a kernel's sides.
    """
    try:
        import qwix

        from merit_jax.models.adapters.provider import Provider, rules
    except ImportError:
        raise ImportError("training adapters needs qwix: pip install 'merit-jax[adapters]'") from None
    form = FORMS[options.form]
    flat = flatten_dict(base.abstract, sep="/")
    wanted = targeted(flat, options)
    provider = Provider(rules(wanted, options.rank, options.scale, form.four_bits))

    def adapted(module: nn.Module) -> nn.Module:
        return qwix.apply_lora_to_model(_enterable(module), provider, methods=("__call__", "enter"))

    found = _abstract(adapted(exact))
    new = {path: box for path, box in found.items() if path not in flat}
    kernels = {path: tuple(path + end for end in (A, B, MAGNITUDE)[: 2 + form.magnitude]) for path in wanted}
    _check_attached(kernels, new, flat)
    axes = {path: tuple(box.names) for path, box in new.items()}
    shapes = {path: nn.meta.unbox(box) for path, box in new.items()}
    if form.magnitude:
        names = flatten_dict(base.logical_axes, sep="/")
        axes |= {path + MAGNITUDE: (*names[path][:-2], names[path][-1]) for path in wanted}
        shapes |= {path + MAGNITUDE: _without_inputs(spec) for path, spec in wanted.items()}
    bound = adapted(module)

    def run(params: Params, function: Callable[[Any], Any]) -> Any:
        return bound.apply({"params": _cast(params, shapes, base)}, function, method="enter")

    in_nf4 = {path: nn.meta.unbox(found[path]) for path in wanted} if form.four_bits else {}
    return Adapter(options, dataclasses.replace(base, **functions(run)), kernels, axes, shapes, in_nf4)


def targeted(flat: Mapping[str, Any], options: Options) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the kernels in whose paths one of the targets is found.

    Raises:
        ValueError: A target is found in none, or a kernel has a side that is not longer than the rank.
    """
    known = {
        path: spec
        for path, spec in flat.items()
        if path.endswith("/kernel") and len(spec.shape) in (2, 3) and any(re.search(p, path) for p in options.among)
    }
    for pattern in options.targets:
        if not any(re.search(pattern, path) for path in known):
            raise ValueError(
                f"train.adapter_targets: {pattern!r} matches no trainable kernel, so it would attach no adapter; trainable "
                f"kernels are {_listed(list(known))}"
            )
    wanted = {path: spec for path, spec in known.items() if any(re.search(p, path) for p in options.targets)}
    if not wanted:
        raise ValueError(
            f"train.adapter_targets is empty: no adapter would be attached; trainable kernels are {_listed(list(known))}"
        )
    for path, spec in wanted.items():
        if options.rank >= min(spec.shape[-2:]):
            raise ValueError(
                f"train.adapter_rank = {options.rank}: {path} has {spec.shape[-2]} inputs and {spec.shape[-1]} outputs, and an "
                "update of low rank needs more of both; lower the rank, or leave the kernel out of train.adapter_targets"
            )
    return wanted


def _check_attached(kernels: Mapping[str, Sequence[str]], new: Mapping[str, Any], flat: Mapping[str, Any]) -> None:
    missed = [kernel for kernel, (a, b, *_) in kernels.items() if a not in new or b not in new]
    if missed:
        others = [path for path in flat if path.endswith("/kernel") and path not in missed]
        raise ValueError(
            f"train.adapter_targets match {missed[0]}{f' and {len(missed) - 1} more' if len(missed) > 1 else ''}, whose product "
            f"qwix does not find (it is no jax.lax.dot_general with the kernel), so it would not be trained; leave it out. "
            f"Kernels that may have adapters are {_listed(others)}"
        )


def _listed(paths: Sequence[str]) -> str:
    further = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
    return ", ".join(paths[:SHOWN]) + further if paths else "none"


def _enterable(module: nn.Module) -> nn.Module:
    """Returns the module with a method that applies a function to it, within qwix's interception."""
    kind = type(module)
    return type(kind.__name__, (kind,), {"enter": lambda self, function: function(self)})(module.config)


def _abstract(module: nn.Module) -> dict[str, Any]:
    """Returns path -> abstract parameter, with its logical axes."""
    key = jax.ShapeDtypeStruct((2,), jnp.uint32)
    return flatten_dict(
        jax.eval_shape(lambda rng: module.init(rng, jnp.zeros((1, 1), jnp.int32))["params"], key), sep="/"
    )


def _without_inputs(spec: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((*spec.shape[:-2], spec.shape[-1]), spec.dtype)


def _cast(params: Params, own: Mapping[str, Any], base: Model) -> Params:
    """Returns the params with A and B in the type of the computation, in which qwix multiplies them."""
    text: Any = getattr(base.config, "text", base.config)
    flat = flatten_dict(params, sep="/")
    cast = {path: flat[path].astype(text.dtype) for path in own if path in flat and not path.endswith(MAGNITUDE)}
    return unflatten_dict({**flat, **cast}, sep="/")
