"""MERIT on real data: easy-vqa's questions about pictures of one shape, 16 kinds of question as datasets.

Claim:   real pictures and questions through LLaVA's format, from files to merged model; theta0, joint training, a random split
         and MERIT-2D at one budget on held-out questions of every kind. docs/results/index.md says what came out.
Cost:    under half an hour on 2 CPU cores that have other work too; 3 GB of memory. mixture.max_train = 0 takes all
         38,575 questions: four times as long.
Command: pip install --no-deps easy-vqa
         python -m merit_jax.examples.easy_vqa.make --out=runs/easy_vqa
         merit run --config=configs/easy_vqa.py --workdir=runs/easy_vqa/merit2d
Arg:     joint, merit1d, merit2d, merit3d, random4, ...; see configs/common.py.

theta0 is the quickstart's. Its pictures have dark grounds, small things in a 3x3 grid, and no brown, teal, gray, black or
rectangle; here one large shape is anywhere on a bright ground. Features that never had to tell these apart cannot be
left frozen, so that vision tower and projector are trained as well.
"""

from merit_jax.configs import common
from merit_jax.configs.quickstart import world


def get_config(method: str = "merit2d"):
    c = common.get_config()
    with c.unlocked():
        world(c)
        c.baselines = ("joint", "random4")
        c.model.path = common.shipped("examples/shapes/theta0")
        c.mixture.path = "runs/easy_vqa/mixture.json"
        c.mixture.max_train = 600
        c.mixture.max_held_out = 100
        c.gradients.examples = 100
        c.train.trainable = ("^(vision|projector|decoder)/",)
        c.train.row_length = 104  # four examples of at most 26 tokens, 9 of them of the image
        c.train.learning_rate = 1e-3
        c.evaluate.mixture_examples = 20
        c.evaluate.max_new_tokens = 8  # answers are a word; theta0's own are sentences
    return common.with_method(c, method)
