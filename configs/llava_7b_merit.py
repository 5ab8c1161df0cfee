"""The paper's 7B run: a base of Qwen2.5-VL's vision encoder and Qwen2.5-7B-Instruct, on 1.6 million examples of 176 sources.

Claim:   paper, mean of 8 benchmarks, three seeds: joint 54.9/55.2/55.5, MERIT-2D 55.4/55.3/55.7; on the base with stage 1.5 its
         text has 60.9 -> 61.5. On the same branches TIES 50.4, TSV 46.1, Iso-CTS 45.4, STAR 41.0.
Cost:    paper, 8 A100: gradients 1 h 59 min, similarities 38 min, joint 43 h 18 min, MERIT 43 h 39 min in all. Not run here.
Command: merit run --config=configs/llava_7b_merit.py:merit2d --workdir=runs/llava_7b/merit2d
         (--config.basin.rebuild=True trains stages 1 and 2 first, in the workdir, and starts from what they give)
Arg:     joint, merit1d, merit2d, random4, soup2, ...; branches on other machines: docs/guides/clusters/by_hand.md

The sources are LVIS-Instruct4V, Vision-FLAN, The Cauldron, LLaVA-Human-Preference-10K, LRV-Instruction, gpt4v-dataset and
VLGuard; a manifest names one dataset per source or task (docs/reference/manifest.md: `group_by` for Vision-FLAN, one parquet
file per set of The Cauldron). llava_7b_stage1.py says how the base is composed.

From the paper: model, sources, the decoder alone trained (all of it), r = 2, 200 calibration examples, three seeds
(--config.seed); its stride of 5 is --config.gradients.reduction=stride. Learning rate, batch, schedule
and lengths we have not found stated: 1e-5 is LLaVA-OneVision's, 128 examples per step LLaVA-1.5's, the lengths are ours.
"""

from merit_jax.configs import common
from merit_jax.configs.llava_7b_stage1 import model_7b


def get_config(method: str = "merit2d"):
    c = common.get_config()
    with c.unlocked():
        model_7b(c)
        c.model.path = "runs/llava_7b/stage2/merged/hf"
        c.basin.stages = ("configs/llava_7b_stage1.py", "configs/llava_7b_stage2.py")
        c.mixture.path = "llava/merit.json"
        c.train.trainable = ("^decoder/",)  # vision tower and projector are frozen
        c.train.learning_rate = 1e-5
        c.train.row_length = 4096  # about 6 examples
        c.train.image_tokens = 3136  # four of the largest images, more of smaller ones
        c.train.batch_size = 24
        c.train.micro_batches = 3
    return common.with_method(c, method)
