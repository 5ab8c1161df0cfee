"""Common parts of the towers of the Qwen-VL families: images of any size as patches in a row, and their two-dimensional RoPE."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float32, Int

from merit_jax.models.interface import Array, StackConfig
from merit_jax.models.modules import rope


@dataclasses.dataclass(frozen=True)
class PatchTowerConfig(StackConfig):
    """Architecture that the towers have in common.

    Attributes:
        layers: Number of blocks.
        hidden_size: Width of the residual stream.
        heads: Attention heads.
        mlp_size: Width of the MLP.
        patch_size: Side of a patch, in pixels.
        temporal_patch_size: Frames of a patch; an image is as many equal frames.
        channels: Colours.
        merge_size: Side of the square of patches that becomes one token.
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
    rope_theta: float = dataclasses.field(default=10000.0, kw_only=True)

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

    @property
    def patches_per_token(self) -> int:
        """Patches that become one token."""
        return self.merge_size**2

    @property
    def patch_shape(self) -> tuple[int, int, int, int]:
        """Colours, frames, height and width of a patch."""
        return (self.channels, self.temporal_patch_size, self.patch_size, self.patch_size)

    @property
    def window(self) -> int:
        """Side of a window, in tokens; 0 for a tower without windows."""
        return 0


class PatchRows(NamedTuple):
    """The images of rows of a batch, as patches: dense, in the order of windows if there are any, those of one token together.

    In every field, all zeros is padding.

    Attributes:
        patches: Normalised pixels of each patch, by colour, frame, line and column.
        segments: Number of the image in the row, from 1.
        windows: Number of the window in the row, from 1; a window's patches are neighbours. None for a tower without windows.
        grids: Rows and columns of patches of the patch's image. None for a tower with windows, which reads none.
        coordinates: Row and column of the patch in its image.
        slots: Place in the row of the token of each feature; feature i comes from the i-th `patches_per_token` patches.
        valid: 1 for features that stand for a token.
        positions: Temporal, height and width position of every token of the row (M-RoPE).
    """

    patches: Float[Array, "*b p d"]
    segments: Int[Array, "*b p"]
    windows: Int[Array, "*b p"] | None
    grids: Int[Array, "*b p 2"] | None
    coordinates: Int[Array, "*b p 2"]
    slots: Int[Array, "*b f"]
    valid: Int[Array, "*b f"]
    positions: Int[Array, "*b t 3"]


def patch_rows(
    config: PatchTowerConfig, length: int, features: int, make: Callable[..., Any], batch: tuple[int, ...] = ()
) -> PatchRows:
    """Makes every array of `PatchRows`, with leading axes `batch`, by `make(shape, dtype)`, such as `np.zeros`.

    A row has `length` tokens, and room for `features` that stand for images.
    """
    patches = features * config.patches_per_token

    def integers(*shape: int) -> Any:
        return make((*batch, *shape), np.int32)

    return PatchRows(
        make((*batch, patches, int(np.prod(config.patch_shape))), np.float32),
        segments=integers(patches),
        windows=integers(patches) if config.window else None,
        grids=None if config.window else integers(patches, 2),
        coordinates=integers(patches, 2),
        slots=integers(features),
        valid=integers(features),
        positions=integers(length, 3),
    )


def patch_angles(config: PatchTowerConfig, images: PatchRows) -> Float32[jax.Array, "b p half"]:
    """Computes the RoPE angles of patches, in radians: half of a head's pairs follow the row, half the column."""
    radians = rope.frequencies(config.rope_theta, config.hidden_size // config.heads // 2)
    return (jnp.asarray(images.coordinates, jnp.float32)[..., None] * radians).reshape(*images.segments.shape, -1)
