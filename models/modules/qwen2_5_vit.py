"""Qwen2.5-VL's vision tower: patches of any number of images in a row; most of its layers see one window at a time."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Bool, Float, Float32, Int

from merit_jax.models.interface import StackConfig
from merit_jax.models.modules import rope
from merit_jax.models.modules.attention import heads_of, wants_entropies
from merit_jax.models.modules.layers import MLP, Norm, Projection
from merit_jax.models.modules.patch_attention import attend
from merit_jax.models.modules.patch_rows import PatchRows, PatchTowerConfig, patch_angles, patch_rows
from merit_jax.models.modules.scan import stacked


@dataclasses.dataclass(frozen=True)
class QwenVisionConfig(PatchTowerConfig):
    """Architecture of the tower.

    Attributes:
        window_size: Side of a window, in pixels.
        full_layers: Blocks that see whole images; the others see one window.
    """

    window_size: int
    full_layers: tuple[int, ...]

    def __post_init__(self):
        super().__post_init__()
        if self.window < 1:
            raise ValueError(
                f"window_size = {self.window_size} is smaller than one token of {self.patch_size * self.merge_size} pixels"
            )

    @property
    def window(self) -> int:
        """Side of a window, in tokens."""
        return self.window_size // self.merge_size // self.patch_size


@dataclasses.dataclass(frozen=True)
class PatchMergerConfig(StackConfig):
    """Architecture of the projector.

    Attributes:
        patches: Patches that become one token.
        out_size: Width of the decoder.
    """

    patches: int
    out_size: int


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
        groups = (context.segments, context.windows, full, most)
        seen = attend(query, key, value, *groups, c.attention, wants_entropies(self))
        return Projection(c, c.hidden_size, ("heads", "embed"), use_bias=True, name="output")(heads_of(self, seen))


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
        full = jnp.asarray(np.isin(np.arange(c.layers), c.full_layers))
        context = PatchContext(patch_angles(c, images), jnp.asarray(images.segments), jnp.asarray(images.windows))
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
