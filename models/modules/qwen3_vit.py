"""Qwen3-VL's vision tower: patches of any number of images in a row, learned positions stretched over each image, DeepStack."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Bool, Float, Float32, Int, Int32

from merit_jax.models.interface import ACTIVATIONS, StackConfig
from merit_jax.models.modules import rope
from merit_jax.models.modules.attention import heads_of, wants_entropies
from merit_jax.models.modules.layers import Norm, Projection, parameter
from merit_jax.models.modules.patch_attention import attend_to_images
from merit_jax.models.modules.patch_rows import PatchRows, PatchTowerConfig, patch_angles, patch_rows
from merit_jax.models.modules.scan import stacked
from merit_jax.models.modules.vit import GELUS


@dataclasses.dataclass(frozen=True)
class Qwen3VisionConfig(PatchTowerConfig):
    """Architecture of the tower.

    Attributes:
        position_rows: Rows of the table of learned positions, which shows a square of them.
        deep: Blocks whose output goes to the decoder's first layers too, in order (DeepStack).
        activation: Nonlinearity of the MLP, a name of `merit_jax.models.modules.vit.GELUS`.
    """

    position_rows: int
    deep: tuple[int, ...] = ()
    activation: str = "gelu_pytorch_tanh"

    def __post_init__(self):
        super().__post_init__()
        self.check_positive("position_rows")
        if list(self.deep) != sorted(set(self.deep) & set(range(self.layers))):
            raise ValueError(
                f"deep = {self.deep} (deepstack_visual_indexes): expected growing numbers of blocks below {self.layers}"
            )
        if self.activation not in GELUS:
            raise ValueError(f"activation = {self.activation!r}: expected one of {', '.join(GELUS)}")

    @property
    def side(self) -> int:
        """Positions along one side of the square in the table."""
        return int(self.position_rows**0.5)


class PatchVectors(NamedTuple):
    """The output of the tower.

    Attributes:
        last: Vectors of the patches behind the last block.
        kept: Those behind the blocks of `Qwen3VisionConfig.deep`.
    """

    last: Float[jax.Array, "b p d"]
    kept: Float[jax.Array, "deep b p d"]


class PatchContext(NamedTuple):
    """The inputs of every block besides the residual stream.

    Attributes:
        turns: RoPE angles of the patches.
        segments: Number of the image.
    """

    turns: rope.Turns
    segments: Int[jax.Array, "b p"]


class PatchAttention(nn.Module):
    """Attention of patches to those of their image."""

    config: Qwen3VisionConfig

    @nn.compact
    def __call__(self, x: Float[jax.Array, "b p d"], context: PatchContext) -> Float[jax.Array, "b p d"]:
        """Attends to the image."""
        c = self.config
        qkv = Projection(c, 3 * c.hidden_size, ("embed", "heads"), use_bias=True, name="qkv")(x)
        query, key, value = jnp.moveaxis(qkv.reshape(*x.shape[:2], 3, c.heads, -1), 2, 0)
        query, key = rope.turn(query, context.turns), rope.turn(key, context.turns)
        seen = attend_to_images(query, key, value, context.segments, c.attention, wants_entropies(self))
        return Projection(c, c.hidden_size, ("heads", "embed"), use_bias=True, name="output")(heads_of(self, seen))


class PatchBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); the output is kept if it has a place among those for the decoder."""

    config: Qwen3VisionConfig

    @nn.compact
    def __call__(
        self, vectors: PatchVectors, context: PatchContext, place: Int32[jax.Array, ""]
    ) -> tuple[PatchVectors, None]:
        """Runs one step of the scan over blocks."""
        c, x = self.config, vectors.last
        x = x + PatchAttention(c, name="attention")(Norm(c, centred=True, name="attention_norm")(x), context)
        wide = Projection(c, c.mlp_size, ("embed", "mlp"), True, name="up")(Norm(c, centred=True, name="mlp_norm")(x))
        x = x + Projection(c, c.hidden_size, ("mlp", "embed"), True, name="down")(ACTIVATIONS[c.activation](wide))
        return PatchVectors(x, vectors.kept.at[place].set(x, mode="drop")), None


class Qwen3Vision(nn.Module):
    """Patches in, their vectors out."""

    config: Qwen3VisionConfig

    def setup(self):
        """Makes the parts."""
        c = self.config
        self.patch_embed = Projection(c, c.hidden_size, (None, "embed"), use_bias=True)
        shape = (c.position_rows, c.hidden_size)
        self.positions = parameter(self, "positions", nn.initializers.normal(0.02), shape, None, "embed")
        self.blocks = stacked(PatchBlock, c, c.layers, in_axes=(nn.broadcast, 0))(c)

    def __call__(self, images: PatchRows) -> PatchVectors:
        """Computes vectors of the patches, in the same order."""
        c = self.config
        theta = patch_angles(c, images)
        context = PatchContext(rope.Turns(jnp.cos(theta), jnp.sin(theta)), jnp.asarray(images.segments))
        x = self.patch_embed(images.patches)
        x = x + interpolated(self.positions, c.side, images).astype(x.dtype)
        kept = jnp.zeros((len(c.deep), *x.shape), x.dtype)
        places = [c.deep.index(block) if block in c.deep else len(c.deep) for block in range(c.layers)]
        return self.blocks(PatchVectors(x, kept), context, jnp.array(places, jnp.int32))[0]

    def counted(self, images: PatchRows, shape: tuple[int, ...]) -> Bool[jax.Array, "b p"]:
        """Returns which patches are no padding."""
        return (jnp.asarray(images.segments) > 0).reshape(shape)

    def blank(self) -> PatchRows:
        """Returns the smallest row: one feature of padding."""
        return patch_rows(self.config, 1, 1, jnp.zeros, batch=(1,))


def interpolated(table: Float[jax.Array, "rows d"], side: int, images: PatchRows) -> Float32[jax.Array, "b p d"]:
    """Computes the positions of patches: the table's square, stretched over each image with its corners on the image's."""
    size = jnp.maximum(jnp.asarray(images.grids) - 1, 1)
    exact = jnp.asarray(images.coordinates, jnp.float32) * (side - 1) / size
    first = jnp.floor(exact)
    second_share = exact - first
    low = first.astype(jnp.int32)
    found = jnp.zeros((*images.segments.shape, table.shape[-1]), jnp.float32)
    for corner in np.ndindex(2, 2):
        row, column = (jnp.minimum(low[..., axis] + corner[axis], side - 1) for axis in (0, 1))
        shares = [second_share[..., axis] if corner[axis] else 1 - second_share[..., axis] for axis in (0, 1)]
        found += table[row * side + column].astype(jnp.float32) * (shares[0] * shares[1])[..., None]
    return found


@dataclasses.dataclass(frozen=True)
class DeepMergerConfig(StackConfig):
    """Architecture of the projector.

    Attributes:
        patches: Patches that become one token.
        out_size: Width of the decoder.
        deep: Number of kept vectors that are projected too.
    """

    patches: int
    out_size: int
    deep: int


class TokenVectors(NamedTuple):
    """The output of a projector with DeepStack.

    Attributes:
        features: Token vectors.
        deep: What is added to them behind the decoder's first layers, a layer each.
    """

    features: Float[jax.Array, "b f out"]
    deep: Float[jax.Array, "deep b f out"]


class Merger(nn.Module):
    """W_out gelu(W_in x), x being the n patches of a token; each is normalised before they are joined, or all after."""

    config: DeepMergerConfig
    joined: bool = False

    @nn.compact
    def __call__(self, hidden: Float[jax.Array, "b p d"]) -> Float[jax.Array, "b f out"]:
        """Computes token vectors, in the order of the patches."""
        c, norm = self.config, Norm(self.config, centred=True, name="norm")
        width = c.patches * hidden.shape[-1]
        shape = (hidden.shape[0], -1, width)
        x = norm(hidden.reshape(shape)) if self.joined else norm(hidden).reshape(shape)
        x = nn.gelu(Projection(c, width, ("embed", "mlp"), use_bias=True, name="input")(x), approximate=False)
        return Projection(c, c.out_size, ("mlp", "embed"), use_bias=True, name="output")(x)


class KeptMerger(nn.Module):
    """The merger of one of the kept vectors."""

    config: DeepMergerConfig

    @nn.compact
    def __call__(self, carry: None, hidden: Float[jax.Array, "b p d"]) -> tuple[None, Float[jax.Array, "b f out"]]:
        """Runs one step of the scan over kept vectors."""
        return carry, Merger(self.config, joined=True, name="merger")(hidden)


class DeepMerger(nn.Module):
    """A merger for the tower's output, and one for each of the vectors that it kept."""

    config: DeepMergerConfig

    @nn.compact
    def __call__(self, vectors: PatchVectors, images: PatchRows) -> TokenVectors:
        """Computes token vectors, in the order of the patches."""
        c = self.config
        features = Merger(c, name="merger")(vectors.last)
        if not c.deep:
            return TokenVectors(features, jnp.zeros((0, *features.shape), features.dtype))
        return TokenVectors(features, stacked(KeptMerger, c, c.deep, in_axes=0)(c, name="deep")(None, vectors.kept)[1])
