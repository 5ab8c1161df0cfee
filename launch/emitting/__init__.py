"""Writes the branches of a partition for other trainers."""

from merit_jax.launch.emitting.axolotl import AXOLOTL
from merit_jax.launch.emitting.interface import Emitter
from merit_jax.launch.emitting.llamafactory import LLAMAFACTORY
from merit_jax.launch.emitting.trl import TRL

EMITTERS: dict[str, Emitter] = {"llamafactory": LLAMAFACTORY, "axolotl": AXOLOTL, "trl": TRL}
"""Name of `--emit` -> the tool."""
