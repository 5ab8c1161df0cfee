"""One plain vision transformer for square tiles of one size: CLIP, SigLIP, and SigLIP as Idefics3 and SmolVLM use it."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Bool, Float, Int

from merit_jax.models.interface import ACTIVATIONS, Array, StackConfig
from merit_jax.models.modules.attention import attend, heads_of, wants_entropies
from merit_jax.models.modules.layers import Norm, Projection, parameter
from merit_jax.models.modules.scan import stacked
from merit_jax.models.modules.visible import EVERYWHERE, Visible, in_groups

GELUS = ("quick_gelu", "gelu", "gelu_pytorch_tanh")
"""Nonlinearities of towers and projectors, names of `merit_jax.models.interface.ACTIVATIONS`."""


class TileRows(NamedTuple):
    """The images of rows of a batch, as tiles. In every field, all zeros is padding.

    Attributes:
        pixels: Normalised values of each patch, by colour, line and column.
        mask: 1 on patches that show something; None where every patch of every tile does.
        slots: Place in the row of the token of each feature.
        valid: 1 for features that stand for a token.
        positions: None: rotary positions count tokens.
    """

    pixels: Float[Array, "*b tiles patches values"]
    mask: Bool[Array, "*b tiles grid grid"] | None
    slots: Int[Array, "*b features"]
    valid: Bool[Array, "*b features"]
    positions: None = None


@dataclasses.dataclass(frozen=True)
class ViTConfig(StackConfig):
    """Architecture of the tower, and the choice of its output.

    Attributes:
        hidden_size: Width of the residual stream.
        layers: Blocks that have parameters.
        heads: Attention heads; divides `hidden_size`.
        mlp_size: Width of the MLP.
        image_size: Side of a tile, in pixels.
        patch_size: Side of a patch, in pixels.
        channels: Colours.
        activation: A name of `GELUS`.
        clip: Whether there are a class vector and a norm before the blocks, and no bias on the patches (CLIP).
        masked: Whether tiles come with a mask of their patches, which also decides their positions (Idefics3).
        depth: Blocks that are run, `layers` at most.
        normed: Whether the norm behind the last block is applied.
        skipped: Vectors dropped from the front of the output.
    """

    hidden_size: int
    layers: int
    heads: int
    mlp_size: int
    image_size: int
    patch_size: int
    depth: int
    channels: int = 3
    activation: str = "gelu_pytorch_tanh"
    clip: bool = False
    masked: bool = False
    normed: bool = True
    skipped: int = 0

    def __post_init__(self):
        super().__post_init__()
        self.check_positive("hidden_size", "layers", "heads", "mlp_size", "patch_size", "channels")
        if self.hidden_size % self.heads:
            raise ValueError(f"hidden_size = {self.hidden_size} is not a multiple of heads = {self.heads}")
        if self.image_size < self.patch_size:
            raise ValueError(f"image_size = {self.image_size} is smaller than patch_size = {self.patch_size}")
        if not 0 <= self.depth <= self.layers:
            raise ValueError(f"depth = {self.depth}: expected 0 to layers = {self.layers}")
        if self.activation not in GELUS:
            raise ValueError(f"activation = {self.activation!r}: expected one of {', '.join(GELUS)}")

    @property
    def grid(self) -> int:
        """Patches along one side of a tile."""
        return self.image_size // self.patch_size

    @property
    def patch_values(self) -> int:
        """Numbers in one patch."""
        return self.channels * self.patch_size**2

    @property
    def vectors(self) -> int:
        """Vectors that come out per tile."""
        return self.grid**2 + self.clip - self.skipped


def tile_rows(
    config: ViTConfig, tiles: int, features: int, make: Callable[..., Any], batch: tuple[int, ...] = ()
) -> TileRows:
    """Makes every array of `TileRows`, with leading axes `batch`, by `make(shape, dtype)`, such as `np.zeros`."""
    return TileRows(
        make((*batch, tiles, config.grid**2, config.patch_values), np.float32),
        make((*batch, tiles, config.grid, config.grid), np.bool_) if config.masked else None,
        make((*batch, features), np.int32),
        make((*batch, features), np.bool_),
    )


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); every patch sees every patch of its tile that the mask leaves."""

    config: ViTConfig

    @nn.compact
    def __call__(self, x: Float[jax.Array, "n s d"], visible: Visible) -> tuple[Float[jax.Array, "n s d"], None]:
        """Runs one step of the scan over blocks."""
        c = self.config
        x = x + self._attend(Norm(c, centred=True, name="attention_norm")(x), visible)
        wide = Projection(c, c.mlp_size, ("embed", "mlp"), True, name="up")(Norm(c, centred=True, name="mlp_norm")(x))
        return x + Projection(c, c.hidden_size, ("mlp", "embed"), True, name="down")(
            ACTIVATIONS[c.activation](wide)
        ), None

    def _attend(self, x: Float[jax.Array, "n s d"], visible: Visible) -> Float[jax.Array, "n s d"]:
        c = self.config
        heads = (*x.shape[:2], c.heads, c.hidden_size // c.heads)
        parts = (
            Projection(c, c.hidden_size, ("embed", "heads"), True, name=name)(x) for name in ("query", "key", "value")
        )
        query, key, value = (part.reshape(heads) for part in parts)
        seen = attend(query, key, value, visible, implementation=c.attention, entropies=wants_entropies(self))
        return Projection(c, c.hidden_size, ("heads", "embed"), True, name="output")(heads_of(self, seen))


class ViT(nn.Module):
    """Tiles in, one vector per patch out."""

    config: ViTConfig

    def blank(self) -> TileRows:
        """Returns a row without a tile."""
        return tile_rows(self.config, 0, 0, jnp.zeros, batch=(1,))

    def counted(self, images: TileRows, shape: tuple[int, ...]) -> Bool[jax.Array, "n s"]:
        """Returns which vectors are no padding: those of tiles with a feature that is read, and of patches that are shown."""
        b, tiles = images.pixels.shape[:2]
        read = jnp.asarray(images.valid, bool).reshape(b * tiles, -1).any(axis=1)
        shown = jnp.broadcast_to(read[:, None], shape)
        if not self.config.masked:
            return shown
        return shown & jnp.asarray(images.mask, bool).reshape(shape)

    @nn.compact
    def __call__(self, images: TileRows) -> Float[jax.Array, "b tiles s d"]:
        """Computes hidden states of every tile, after `depth` blocks."""
        c = self.config
        b, tiles = images.pixels.shape[:2]
        mask = None
        if c.masked:
            mask = jnp.asarray(images.mask, bool).reshape(b * tiles, c.grid, c.grid)
        x = self._embed(jnp.reshape(images.pixels, (b * tiles, c.grid**2, c.patch_values)), mask)
        visible = (
            EVERYWHERE
            if mask is None
            else in_groups(jnp.ones((len(mask), 1), int), mask.reshape(b * tiles, c.grid**2).astype(int))
        )
        x, _ = self._blocks()(x, visible)
        after = Norm(c, centred=True, name="final_norm")(x)
        x = (after if c.normed else x)[:, c.skipped :]
        return x.reshape(b, tiles, *x.shape[1:])

    def _embed(
        self, pixels: Float[Array, "n p v"], mask: Bool[Array, "n grid grid"] | None
    ) -> Float[jax.Array, "n s d"]:
        """Embeds patches as vectors, with their positions."""
        c, normal = self.config, nn.initializers.normal(0.02)
        x = Projection(c, c.hidden_size, (None, "embed"), not c.clip, name="patch")(pixels)
        if c.clip:
            first = parameter(self, "class_vector", normal, (c.hidden_size,), "embed").astype(c.dtype)
            x = jnp.concatenate([jnp.broadcast_to(first, (x.shape[0], 1, c.hidden_size)), x], axis=1)
        shape = (c.grid**2 + c.clip, c.hidden_size)
        table = parameter(self, "positions", normal, shape, None, "embed").astype(c.dtype)
        x = x + (table if mask is None else table[places(mask)])
        return Norm(c, centred=True, name="first_norm")(x) if c.clip else x

    def _blocks(self) -> nn.Module:
        """Makes the blocks, with parameters stacked on a leading axis; all are initialised, the first `depth` are run."""
        c = self.config
        length = c.layers if self.is_initializing() else c.depth
        stack = stacked(Block, c, length, in_axes=nn.broadcast)
        if length < c.layers:
            stack = nn.map_variables(stack, "params", lambda all: jax.tree.map(lambda leaf: leaf[:length], all))
        return stack(c, name="blocks")


def places(mask: Bool[Array, "n grid grid"]) -> Int[Array, "n patches"]:
    """Returns the row of the position table for each patch: its place in the tile, as a fraction of the part that is shown.

    A tile of h x w shown patches is treated as if stretched over the whole tile: line i of h takes the positions of line
    floor(grid * i / h), and columns likewise.
    """
    buckets = _buckets(mask.shape[-1])
    lines, columns = buckets[mask[:, :, 0].sum(1)], buckets[mask[:, 0, :].sum(1)]
    found = lines[:, :, None] * mask.shape[-1] + columns[:, None, :]
    return jnp.where(mask, found, 0).reshape(mask.shape[0], mask.shape[1] * mask.shape[2])


def _buckets(grid: int) -> Int[Array, "counts grid"]:
    """Returns the bucket of place i when h places are shown, for h = 0 to grid; in float32, as PyTorch."""
    edges = (1 / grid + np.arange(grid - 1) * (1 / grid)).astype(np.float32)
    steps = np.float32(1) / np.maximum(np.arange(grid + 1), 1).astype(np.float32)
    fractions = np.minimum(np.arange(grid, dtype=np.float32) * steps[:, None], np.float32(1 - 1e-6))
    return jnp.asarray(np.searchsorted(edges, fractions, side="right"), jnp.int32)
