"""Qwen2.5-VL's vision tower: patches of any number of images in a row; most of its layers see one window at a time."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Bool, Float, Float32, Int

from merit_jax.models.interface import Array, StackConfig
from merit_jax.models.modules import rope
from merit_jax.models.modules.layers import MLP, Norm, Projection
from merit_jax.models.modules.patch_attention import attend
from merit_jax.models.modules.scan import stacked


@dataclasses.dataclass(frozen=True)
class QwenVisionConfig(StackConfig):
    """Architecture of the tower.

    Attributes:
        layers: Number of blocks.
        hidden_size: Width of the residual stream.
        heads: Attention heads.
        mlp_size: Width of the SwiGLU.
        patch_size: Side of a patch, in pixels.
        temporal_patch_size: Frames of a patch; an image is as many equal frames.
        channels: Colours.
        merge_size: Side of the square of patches that becomes one token.
        window_size: Side of a window, in pixels.
        full_layers: Blocks that see whole images; the others see one window.
        rope_theta: Base of the wavelengths of the two-dimensional RoPE.
    """

    layers: int
    hidden_size: int
    heads: int
    mlp_size: int
    patch_size: int
    temporal_patch_size: int
    channels: int
    merge_size: int
    window_size: int
    full_layers: tuple[int, ...]
    rope_theta: float = 10000.0

    def __post_init__(self):
        super().__post_init__()
        self.check_positive(
            "layers", "hidden_size", "heads", "mlp_size", "patch_size", "temporal_patch_size", "merge_size"
        )
        if self.hidden_size % (4 * self.heads):
            raise ValueError(
                f"vision hidden_size = {self.hidden_size} with {self.heads} heads: rows and columns rotate pairs each, "
                "so a head must be a multiple of 4 wide"
            )
        if self.window < 1:
            raise ValueError(
                f"window_size = {self.window_size} is smaller than one token of {self.patch_size * self.merge_size} pixels"
            )

    @property
    def window(self) -> int:
        """Side of a window, in tokens."""
        return self.window_size // self.merge_size // self.patch_size

    @property
    def patches_per_token(self) -> int:
        """Patches that become one token."""
        return self.merge_size**2

    @property
    def patch_shape(self) -> tuple[int, int, int, int]:
        """Colours, frames, height and width of a patch."""
        return (self.channels, self.temporal_patch_size, self.patch_size, self.patch_size)


@dataclasses.dataclass(frozen=True)
class PatchMergerConfig(StackConfig):
    """Architecture of the projector.

    Attributes:
        patches: Patches that become one token.
        out_size: Width of the decoder.
    """

    patches: int
    out_size: int


class PatchRows(NamedTuple):
    """The images of rows of a batch, as patches: dense, in the order of windows, those of one token together.

    In every field, all zeros is padding.

    Attributes:
        patches: Normalised pixels of each patch, by colour, frame, line and column.
        segments: Number of the image in the row, from 1.
        windows: Number of the window in the row, from 1; a window's patches are neighbours.
        coordinates: Row and column of the patch in its image.
        slots: Place in the row of the token of each feature; feature i comes from the i-th `patches_per_token` patches.
        valid: 1 for features that stand for a token.
        positions: Temporal, height and width position of every token of the row (M-RoPE).
    """

    patches: Float[Array, "*b p d"]
    segments: Int[Array, "*b p"]
    windows: Int[Array, "*b p"]
    coordinates: Int[Array, "*b p 2"]
    slots: Int[Array, "*b f"]
    valid: Int[Array, "*b f"]
    positions: Int[Array, "*b t 3"]


def patch_rows(
    config: QwenVisionConfig, length: int, features: int, make: Callable[..., Any], batch: tuple[int, ...] = ()
) -> PatchRows:
    """Makes every array of `PatchRows`, with leading axes `batch`, by `make(shape, dtype)`, such as `np.zeros`.

    A row has `length` tokens, and room for `features` that stand for images.
    """
    patches = features * config.patches_per_token
    return PatchRows(
        make((*batch, patches, int(np.prod(config.patch_shape))), np.float32),
        *(make((*batch, *shape), np.int32) for shape in ((patches,), (patches,), (patches, 2))),
        *(make((*batch, *shape), np.int32) for shape in ((features,), (features,), (length, 3))),
    )


class PatchContext(NamedTuple):
    """The inputs of every block besides the residual stream.

    Attributes:
        theta: RoPE angles of the patches, in radians.
        segments: Number of the image.
        windows: Number of the window.
    """

    theta: Float32[jax.Array, "b p half"]
    segments: Int[jax.Array, "b p"]
    windows: Int[jax.Array, "b p"]


class PatchAttention(nn.Module):
    """Attention of patches to those of their image or of their window."""

    config: QwenVisionConfig

    @nn.compact
    def __call__(
        self, x: Float[jax.Array, "b p d"], context: PatchContext, full: Bool[jax.Array, ""]
    ) -> Float[jax.Array, "b p d"]:
        """Attends to the image if `full`, else to the window."""
        c = self.config
        qkv = Projection(c, 3 * c.hidden_size, ("embed", "heads"), use_bias=True, name="qkv")(x)
        query, key, value = jnp.moveaxis(qkv.reshape(*x.shape[:2], 3, c.heads, -1), 2, 0)
        query, key = rope.rotate(query, context.theta), rope.rotate(key, context.theta)
        most = c.window**2 * c.patches_per_token
        seen = attend(query, key, value, context.segments, context.windows, full, most, c.attention)
        return Projection(c, c.hidden_size, ("heads", "embed"), use_bias=True, name="output")(seen.reshape(x.shape))


class PatchBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    config: QwenVisionConfig

    @nn.compact
    def __call__(
        self, x: Float[jax.Array, "b p d"], context: PatchContext, full: Bool[jax.Array, ""]
    ) -> tuple[Float[jax.Array, "b p d"], None]:
        """Runs one step of the scan over blocks."""
        c = self.config
        x = x + PatchAttention(c, name="attention")(Norm(c, name="attention_norm")(x), context, full)
        return x + MLP(c, use_bias=True, name="mlp")(Norm(c, name="mlp_norm")(x)), None


class QwenVision(nn.Module):
    """Patches in, their vectors out."""

    config: QwenVisionConfig

    def setup(self):
        """Makes the parts."""
        c = self.config
        self.patch_embed = Projection(c, c.hidden_size, (None, "embed"))
        self.blocks = stacked(PatchBlock, c, c.layers, in_axes=(nn.broadcast, 0))(c)

    def __call__(self, images: PatchRows) -> Float[jax.Array, "b p d"]:
        """Computes vectors of the patches, in the same order."""
        c = self.config
        radians = rope.frequencies(c.rope_theta, c.hidden_size // c.heads // 2)
        theta = (jnp.asarray(images.coordinates, jnp.float32)[..., None] * radians).reshape(*images.segments.shape, -1)
        full = jnp.asarray(np.isin(np.arange(c.layers), c.full_layers))
        context = PatchContext(theta, jnp.asarray(images.segments), jnp.asarray(images.windows))
        return self.blocks(self.patch_embed(images.patches), context, full)[0]

    def counted(self, images: PatchRows, shape: tuple[int, ...]) -> Bool[jax.Array, "b p"]:
        """Returns which patches are no padding."""
        return (jnp.asarray(images.segments) > 0).reshape(shape)

    def blank(self) -> PatchRows:
        """Returns the smallest row: one feature of padding."""
        return patch_rows(self.config, 1, 1, jnp.zeros, batch=(1,))


class PatchMerger(nn.Module):
    """W_out gelu(W_in [norm(x_1); ...; norm(x_n)]) of the n patches of a token."""

    config: PatchMergerConfig

    @nn.compact
    def __call__(self, hidden: Float[jax.Array, "b p d"], images: PatchRows) -> Float[jax.Array, "b f out"]:
        """Computes token vectors, in the order of the patches."""
        c = self.config
        width = c.patches * hidden.shape[-1]
        x = Norm(c, name="norm")(hidden).reshape(hidden.shape[0], -1, width)
        x = Projection(c, width, ("embed", "mlp"), use_bias=True, name="input")(x)
        x = nn.gelu(x, approximate=False)
        return Projection(c, c.out_size, ("mlp", "embed"), use_bias=True, name="output")(x)
