"""SmolVLM-256M-Instruct on 136 tasks of Vision-FLAN: the small model of the paper's curvature study (MERIT App. F.3).

Claim:   paper: the conflict directions of four tasks lie along the Hessian's leading eigenvectors, |cos| up to .48, on average
         .332 in the first, and more so than in the 3B model. It reports no benchmark of this model: what MERIT makes of it
         is to be seen.
Cost:    not run here; 3 GB for parameters, gradients and AdamW, and activations: one accelerator is enough.
Command: merit run --config=configs/smolvlm_256m.py:merit2d --workdir=runs/smolvlm/merit2d
         --config.model.path=/models/SmolVLM-256M-Instruct --config.mixture.path=/data/vision_flan/manifest.json
Arg:     joint, random4, merit1d, merit2d, merit3d, soup4, ...

The manifest is that of qwen2_5_vl_3b_vision_flan.py. The model's own image processor stretches the longer side to 2048 pixels
and cuts 512x512 tiles of 64 tokens: 13 tiles for most photographs, 17 at most. "size": {"longest_edge": 1024} in
preprocessor_config.json makes that 5 and halves every length below.

From the paper: model, tasks with at least 50 examples, calibration (200 here, 50 in that study). Learning rate and
batch are ours, the same as for the 3B model; lengths follow from the tiles.
"""

from merit_jax.configs import common


def get_config(method: str = "merit2d"):
    c = common.get_config()
    with c.unlocked():
        c.model.path = "SmolVLM-256M-Instruct"
        c.model.remat = "full"
        c.mixture.path = "vision_flan/manifest.json"
        c.mixture.max_length = 1536
        c.gradients.buckets = (1024, 1536)
        c.gradients.image_buckets = (832, 1088)
        c.train.trainable = ("^decoder/",)
        c.train.learning_rate = 1e-5
        c.train.row_length = 3072  # about 3 examples
        c.train.image_tokens = 2496  # three times 13 tiles
        c.train.batch_size = 40  # about 128 examples
        c.train.micro_batches = 5
        c.evaluate.buckets = (1024, 1536)
        c.evaluate.image_buckets = (832, 1088)
    return common.with_method(c, method)
