"""The paper's controlled study: Qwen2.5-VL-3B-Instruct on 136 tasks of Vision-FLAN (MERIT §4, the 3B study).

Claim:   paper, mean of 8 benchmarks: theta0 53.7, joint 54.3, random-2/4/8 54.6/54.4/54.5, conflict-induced 54.9,
         soup-2/3/4 55.4/55.0/54.9, MERIT-1D/2D/3D 55.2/55.7/57.0.
Cost:    paper, 8 V100: gradients 1 h 38 min, joint 4 h 22 min, MERIT-3D 5 h 24 min in all. Not run here; 52 GB for
         parameters, gradients and AdamW, shared by the devices, and activations; 2.5 GB of disk per dataset for gradients.
Command: merit run --config=configs/qwen2_5_vl_3b_vision_flan.py:merit3d --workdir=runs/vision_flan/merit3d
         --config.model.path=/models/Qwen2.5-VL-3B-Instruct --config.mixture.path=/data/vision_flan/manifest.json
Arg:     joint, random2, random4, random8, conflict8, soup2, soup3, soup4, merit1d, merit2d, merit3d, ...

Before:  in the model's preprocessor_config.json set "max_pixels": 614656 (784x784, 784 tokens), which no key here can do.
         manifest.json is {"vision_flan": {"file_name": "annotation_191-task_1k.json", "formatting": "llava",
         "image_root": "images_191task_1k", "group_by": "task_name", "held_out": 0.05}}.

From the paper: the model, 136 of the tasks (which it does not name: those with at least 50 examples, mixture.include lists
yours), the decoder alone trained, images up to 784x784, AdamW, 200 calibration examples, r = 1, 2, 3, one epoch;
its stride of 5 is --config.gradients.reduction=stride.
Learning rate, schedule, batch (it searches joint training's) and lengths we have not found stated: 1e-5 is LLaVA-OneVision's,
128 examples per step LLaVA-1.5's, the lengths are ours.
"""

from merit_jax.configs import common


def get_config(method: str = "merit3d"):
    c = common.get_config()
    with c.unlocked():
        c.model.path = "Qwen2.5-VL-3B-Instruct"
        c.model.remat = "full"
        c.mixture.path = "vision_flan/manifest.json"
        c.mixture.max_length = 1024
        c.gradients.buckets = (512, 1024)
        c.gradients.image_buckets = (256, 400, 784)
        c.train.trainable = ("^decoder/",)  # vision tower and projector are frozen
        c.train.learning_rate = 1e-5
        c.train.row_length = 2048  # about 6 examples
        c.train.image_tokens = 1568  # two of the largest images, more of smaller ones
        c.train.batch_size = 24  # about 128 examples
        c.train.micro_batches = 3
        c.evaluate.buckets = (512, 1024)
        c.evaluate.image_buckets = (256, 400, 784)
    return common.with_method(c, method)
