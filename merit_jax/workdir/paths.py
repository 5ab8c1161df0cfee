"""Paths of every artifact of a run."""

import dataclasses
import os

from etils import epath

from merit_jax.core.text import has_control, visible

THETA0, MERGED = "theta0", "merged"
"""Names of the starting checkpoint and of the run's own merge, in every artifact that has models by name."""

DIAGNOSTICS = (
    "gradient_norms",
    "displacement",
    "calibration",
    "sketch",
    "split_gain",
    "connectivity",
    "perturbation",
    "gain",
    "surface",
    "curvature",
)
"""Names of the diagnostics, the cheapest first."""


ORIGIN = "hub"
"""Key of what a record says of files of the hub: "OWNER/NAME@COMMIT"."""


@dataclasses.dataclass(frozen=True)
class Workdir:
    """The files of one run (a local path, or any that `etils.epath` opens).

    Attributes:
        root: The run's directory.
        shared: The directory of what does not depend on the method (theta0's fingerprint, tokens, gradients, conflict).
    """

    root: epath.Path
    shared: epath.Path

    @classmethod
    def at(cls, root: epath.PathLike, shared: epath.PathLike | None = None) -> "Workdir":
        """Opens the workdir at `root`, created if absent; `shared` holds what methods have in common, `root` by default."""
        path = absolute(root)
        path.mkdir(parents=True, exist_ok=True)
        return cls(path, path if shared is None else absolute(shared))

    @property
    def config(self) -> epath.Path:
        """The resolved configuration."""
        return self.root / "config.json"

    @property
    def theta0(self) -> epath.Path:
        """Fingerprint of the starting checkpoint."""
        return self.shared / "theta0.json"

    @property
    def mixture(self) -> epath.Path:
        """Datasets with their rows, tokens and digests."""
        return self.root / "mixture.json"

    @property
    def elsewhere(self) -> epath.Path:
        """Datasets of other sites, as `merit join` has collected them."""
        return self.shared / "elsewhere.json"

    @property
    def token_cache(self) -> epath.Path:
        """Tokenised datasets."""
        return self.shared / "tokens"

    @property
    def gradients(self) -> epath.Path:
        """One reduced gradient per dataset, and an index."""
        return self.shared / "gradients"

    @property
    def gradient_index(self) -> epath.Path:
        """Index of the gradients: file, norm and checksum of each dataset, and their inputs."""
        return self.gradients / "index.json"

    @property
    def curvature(self) -> epath.Path:
        """One reduced product of the Gauss-Newton matrix with a gradient per dataset, and an index."""
        return self.shared / "curvature"

    @property
    def curvature_index(self) -> epath.Path:
        """Index of these products, like that of the gradients."""
        return self.curvature / "index.json"

    @property
    def conflict(self) -> epath.Path:
        """Cosine similarities and principal axes."""
        return self.shared / "conflict.npz"

    @property
    def partition(self) -> epath.Path:
        """The datasets of each branch."""
        return self.root / "partition.json"

    def branch(self, index: int) -> epath.Path:
        """Returns the directory of branch `index`: `checkpoints/`, `metrics.jsonl`, `host.json`, `done.json`."""
        return self.root / "branches" / str(index)

    def branch_metrics(self, index: int) -> epath.Path:
        """Returns the log of branch `index`: a line of JSON every few steps."""
        return self.branch(index) / "metrics.jsonl"

    def branch_done(self, index: int) -> epath.Path:
        """Returns the record of a finished branch: steps, tokens, fingerprint of its parameters, inputs."""
        return self.branch(index) / "done.json"

    def branch_host(self, index: int) -> epath.Path:
        """Returns the record of the last start of branch `index`: host, process, devices, number of starts and of steps."""
        return self.branch(index) / "host.json"

    def branch_diverged(self, index: int) -> epath.Path:
        """Returns the record of a branch that has diverged: its inputs, and what was said."""
        return self.branch(index) / "diverged.json"

    def branch_tracking(self, index: int) -> epath.Path:
        """Returns the id of branch `index` in trackers."""
        return self.branch(index) / "trackers.json"

    def branch_lease(self, index: int) -> epath.Path:
        """Returns the lease of branch `index`; outside its directory, which is copied and removed."""
        return self.root / "branches" / f"{index}.lease"

    def branch_crashes(self, index: int) -> epath.Path:
        """Returns the record of merit cluster of how often branch `index` has crashed, and how last."""
        return self.root / "branches" / f"{index}.crashes.json"

    def branch_log(self, index: int) -> epath.Path:
        """Returns the output of the processes of branch `index`, where merit cluster starts them."""
        return self.root / "logs" / f"branch-{index}.log"

    def branch_fisher(self, index: int) -> epath.Path:
        """Returns the diagonal Fisher information of branch `index`, an Orbax tree like its parameters."""
        return self.branch(index) / "fisher"

    def branch_fisher_record(self, index: int) -> epath.Path:
        """Returns the record of the Fisher information of a branch: its inputs and checksums."""
        return self.branch(index) / "fisher.json"

    def branch_input_grams(self, index: int) -> epath.Path:
        """Returns the Gram matrices of the inputs of branch `index`, an Orbax tree with one leaf for each kernel."""
        return self.branch(index) / "input_grams"

    def branch_input_grams_record(self, index: int) -> epath.Path:
        """Returns the record of the Gram matrices of a branch: their inputs and checksums."""
        return self.branch(index) / "input_grams.json"

    @property
    def search(self) -> epath.Path:
        """Merge weights that were scored, and their scores."""
        return self.root / "search.json"

    @property
    def search_lease(self) -> epath.Path:
        """The lease of the process that searches merge weights."""
        return self.root / "search.lease"

    @property
    def merged(self) -> epath.Path:
        """The merged model: `params/` (Orbax), `merge.json`, `hf/`."""
        return self.root / "merged"

    @property
    def merge_lease(self) -> epath.Path:
        """The lease of the process that merges or exports."""
        return self.root / "merged.lease"

    @property
    def merged_next(self) -> epath.Path:
        """A merge that late branches are being added to; it takes the place of `merged` once it is whole."""
        return self.root / "merged.next"

    @property
    def merged_params(self) -> epath.Path:
        """The merged parameters, an Orbax tree."""
        return self.merged / "params"

    @property
    def merged_velocity(self) -> epath.Path:
        """The velocity of the outer step that followed the merge, an Orbax tree; there in rounds with momentum only."""
        return self.merged / "velocity"

    @property
    def merged_hf(self) -> epath.Path:
        """The merged model as a Hugging Face folder."""
        return self.merged / "hf"

    @property
    def merge_record(self) -> epath.Path:
        """Method, weights and tokens of the merge."""
        return self.merged / "merge.json"

    @property
    def merged_sums(self) -> epath.Path:
        """sha256 of the files of the merged parameters."""
        return self.merged / "checksums.json"

    @property
    def projection(self) -> epath.Path:
        """Cosines of the models' displacement with the datasets' gradients."""
        return self.root / "projection.json"

    @property
    def report(self) -> epath.Path:
        """The page that shows the run."""
        return self.root / "report.html"

    @property
    def evaluation(self) -> epath.Path:
        """Scores of every model, per dataset."""
        return self.root / "evaluation.json"

    @property
    def frontier(self) -> epath.Path:
        """Retained score and skill of every model as its task vector is scaled."""
        return self.root / "frontier.json"

    def diagnostic(self, name: str) -> epath.Path:
        """Returns the record of a diagnostic: its inputs, result and seconds."""
        return self.root / "diagnostics" / f"{name}.json"

    @property
    def pruned(self) -> epath.Path:
        """The workdir in which the merged model is pruned."""
        return self.root / "pruned"

    def round(self, number: int) -> epath.Path:
        """Returns the workdir of round `number` of a run in rounds; 0 is that of the warm start."""
        return self.root / "rounds" / str(number)

    @property
    def measurements(self) -> epath.Path:
        """Measurements of the mixture before training, for advice."""
        return self.root / "measurements.json"

    @property
    def advice(self) -> epath.Path:
        """Advice on the method: measurements, forecasts and recommendation; `advice.md` has the same as a page."""
        return self.root / "advice.json"

    def pilot(self, share: float) -> epath.Path:
        """Returns the directory of a pilot on so much of the tokens."""
        return self.root / f"pilot-{share:g}"

    @property
    def baselines(self) -> epath.Path:
        """Workdirs of the methods that the run is compared with."""
        return self.root / "baselines"

    @property
    def times(self) -> epath.Path:
        """Seconds that each stage took when it last ran."""
        return self.root / "times.json"


def absolute(path: epath.PathLike) -> epath.Path:
    """Returns a local path as an absolute one, as Orbax requires; a bucket's as it is.

    Raises:
        ValueError: It has a control character, as a line break, which commands and scripts that name it would carry out.
    """
    if has_control(str(path)):
        raise ValueError(f"the path '{visible(str(path))}' has a control character; rename the folder")
    expanded = epath.Path(path).expanduser()
    return expanded if is_remote(expanded) else expanded.resolve()


def is_there(path: epath.PathLike) -> bool:
    """Returns whether a file or folder exists; `exists` of epath also says no where the machine could not look.

    Raises:
        OSError: The machine could not look: no right to, a stale handle of a network folder, ...
    """
    if is_remote(path):
        return epath.Path(path).exists()
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def is_remote(path: epath.PathLike) -> bool:
    """Returns whether a path is a URL, as gs://bucket/folder, which epath opens, instead of a local path."""
    return "://" in str(path)
