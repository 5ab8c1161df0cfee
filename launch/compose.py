"""Composes a vision-language checkpoint of parts; a part that is left out gets random weights.

merit compose --out=DIR --like=Qwen2.5-VL-7B-Instruct --vision=Qwen2.5-VL-7B-Instruct --text=Qwen2.5-7B-Instruct
merit compose --out=DIR --like=FOLDER_WITH_A_CONFIG_AND_A_TOKENIZER --seed=1
"""

from collections.abc import Sequence

from absl import flags

from merit_jax.launch.console import app
from merit_jax.launch.wiring.model_path import resolve, resolve_settings
from merit_jax.models import compose

FLAGS = flags.FLAGS

PARTS = ("vision", "projector", "text")


def define_flags() -> None:
    """Defines the command's flags."""
    flags.DEFINE_string("out", None, "Folder to make.", required=True)
    flags.DEFINE_string(
        "like",
        None,
        "Folder, or OWNER/NAME of the hub, with config.json, tokenizer and image processor; weights in it are not read.",
        required=True,
    )
    flags.DEFINE_string("vision", None, "Vision-language checkpoint to take the vision tower from; left out: random.")
    flags.DEFINE_string("projector", None, "Vision-language checkpoint to take the projector from; left out: random.")
    flags.DEFINE_string(
        "text",
        None,
        "Text checkpoint (folder, OWNER/NAME of the hub, or .gguf file) to take the decoder from; left out: random.",
    )
    flags.DEFINE_integer("seed", 0, "Seed of the random parts.")
    flags.DEFINE_string("dtype", "float32", "Type of the tensors: float32, bfloat16 or float16.")


def main(argv: Sequence[str]) -> None:
    """Writes the folder."""
    like = resolve_settings(FLAGS.like, "--like").path
    given = {name: str(FLAGS[name].value) for name in PARTS if FLAGS[name].value is not None}
    parts = [resolve(given[name], f"--{name}").path if name in given else None for name in PARTS]
    compose(FLAGS.out, like, *parts, FLAGS.seed, FLAGS.dtype)


if __name__ == "__main__":
    app.start(main, define_flags)
