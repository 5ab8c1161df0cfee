"""The keys of the section `diagnostics`, declared as those of `configs/common.py`."""

from ml_collections import ConfigDict

from merit_jax.configs.schema.keys import Key
from merit_jax.core.ranges import TEXT, each, number, whole


def diagnostics() -> ConfigDict:
    """Returns the keys of the section, each a `Key`."""
    c = ConfigDict()
    # workdir of a joint run to compare with; empty: baselines/joint of this run, if there
    c.joint = Key("", TEXT)
    # training examples per dataset on which losses are computed; held in the host's memory
    c.examples = Key(20, whole(1))
    # points of each line between two models, ends included (paper: 21)
    c.points = Key(21, whole(3))
    # standard deviations of weight noise, rising (paper: these)
    c.sigmas = Key((0.01, 0.05, 0.1), each(number(above=0), least=1, rising=True))
    # noise vectors
    c.draws = Key(5, whole(1))
    # points of the loss surface along each axis
    c.grid = Key(15, whole(2))
    # room around the models on the surface, as a share of their extent
    c.margin = Key(0.25, number(least=0))
    # examples per dataset whose mean gradient is the reference (paper: 1000)
    c.calibration_examples = Key(200, whole(1))
    # examples whose gradient is computed together and drawn together
    c.calibration_block = Key(10, whole(1))
    # sample sizes, multiples of the block
    c.calibration_sizes = Key((10, 20, 50, 100, 150, 200), each(whole(1), least=1, rising=True))
    # samples of each size, and random halvings
    c.bootstrap = Key(200, whole(2))
    # reliability for which the number of examples needed is reported
    c.reliability = Key(0.9, number(above=0, below=1))
    # datasets whose whole gradients are held together, drawn by seed; 0: all
    c.sketch_datasets = Key(12, whole(0))
    # strides compared with the whole gradient
    c.strides = Key((5, 25, 125), each(whole(1)))
    # widths of the sketch compared with it
    c.widths = Key((2**14, 2**18), each(whole(1)))
    # examples of each of four datasets (paper: 50)
    c.curvature_examples = Key(50, whole(1))
    # Lanczos iterations (paper: 50)
    c.iterations = Key(50, whole(1))
    # leading eigenvectors of the Hessian (paper: 10)
    c.eigenvectors = Key(10, whole(1))
    # random splits to compare with the chosen one
    c.splits = Key(1000, whole(1))
    return c
