"""The curves of a branch that is killed and resumed, read back from each tracker's own store: no step lost, none there twice."""

import struct
import sys

import pytest
from etils import epath

from merit_jax.training.trackers import TRACKERS, TrackedRun
from merit_jax.training.trackers.sender import Senders

LINES = [
    {"step": step, "loss": 4.0 / step, "loss_by_dataset": {"a+b": 1.0 / step, "birds": 2.0 / step}}
    for step in (2, 4, 6, 8, 10)
]
"""The log of a branch; the first process is killed after step 8, and the second one resumes from the checkpoint of step 4."""

STEPS = [line["step"] for line in LINES]
LOSSES = [line["loss"] for line in LINES]

pytestmark = pytest.mark.filterwarnings("ignore")  # of the trackers' own libraries


def branch(folder):
    config = {"seed": 3, "train": {"epochs": 1.0}}
    return TrackedRun("study", "study/merit", "branch-0", "0123456789abcdef", epath.Path(folder), config)


def killed_and_resumed(kind, folder, sent):
    """Sends the lines as a branch does: of the first four the tracker has got `sent`."""
    first = Senders({kind: TRACKERS[kind]}, branch(folder))
    first.begin([])
    for line in LINES[:sent]:
        first.add(line)
    first.close(finished=False)
    second = Senders({kind: TRACKERS[kind]}, branch(folder))
    second.begin(LINES[:2])
    for line in LINES[2:]:
        second.add(line)
    second.close(finished=True)


def records(path):
    """The records of a TFRecord file."""
    content, start = path.read_bytes(), 0
    while start < len(content):
        (length,) = struct.unpack_from("<Q", content, start)
        yield content[start + 12 : start + 12 + length]
        start += length + 16


def log_records(path):
    """The records of a LevelDB log behind wandb's header of 7 bytes: in blocks of 32 KiB, a record in parts of types 1 to 4."""
    content, start, whole = path.read_bytes(), 7, b""
    while start + 7 <= len(content):
        if 2**15 - start % 2**15 < 7:
            start += 2**15 - start % 2**15
            continue
        length, kind = struct.unpack_from("<HB", content, start + 4)
        whole += content[start + 7 : start + 7 + length]
        start += 7 + length
        if kind in (1, 4):
            yield whole
            whole = b""


@pytest.mark.parametrize("sent", [1, 4])
def test_tensorboard(tmp_path, sent):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    killed_and_resumed("tensorboard", tmp_path, sent)
    events = [
        Event.FromString(record)
        for file in (tmp_path / "tensorboard" / "branch-0").iterdir()
        for record in records(file)
    ]
    found = [(value.tag, event.step, value.simple_value) for event in events for value in event.summary.value]
    for tag, share in (("loss", 4.0), ("loss_by_dataset/birds", 2.0)):
        curve = sorted((step, value) for name, step, value in found if name == tag)
        assert curve == [(step, pytest.approx(share / step)) for step in STEPS]


@pytest.mark.parametrize("sent", [1, 4])
def test_mlflow(tmp_path, monkeypatch, sent):
    mlflow = pytest.importorskip("mlflow")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    killed_and_resumed("mlflow", tmp_path, sent)
    client = mlflow.MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("study").experiment_id])
    assert (run.info.run_name, run.info.status) == ("study/merit/branch-0", "FINISHED")
    assert run.data.tags["merit.group"] == "study/merit"
    assert run.data.params == {"seed": "3", "train.epochs": "1.0"}
    curve = [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, "loss")]
    assert curve == list(zip(STEPS, LOSSES, strict=True))
    names = {name for name in run.data.metrics if name.startswith("loss_by_dataset/")}
    assert names == {"loss_by_dataset/a_b-c7102b10", "loss_by_dataset/birds"}


@pytest.mark.parametrize("sent", [1, 4])
def test_trackio(tmp_path, monkeypatch, sent):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    for name in [name for name in sys.modules if name.split(".")[0] == "trackio"]:
        monkeypatch.delitem(sys.modules, name)  # it reads TRACKIO_DIR when it is imported
    trackio = pytest.importorskip("trackio")
    killed_and_resumed("trackio", tmp_path, sent)
    (run,) = trackio.Api().runs("study")
    assert run.name == "study/merit/branch-0-01234567"
    assert run.config["_Group"] == "study/merit"
    logs = trackio.sqlite_storage.SQLiteStorage.get_logs("study", run.name)
    curve = [(entry["step"], entry["loss"]) for entry in logs if "loss" in entry]
    assert curve == list(zip(STEPS, LOSSES, strict=True))


@pytest.mark.parametrize("sent", [1, 4])
def test_wandb_offline(tmp_path, monkeypatch, sent):
    """Offline, each start has a file of its own under one id; the last one has the whole log."""
    pytest.importorskip("wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    killed_and_resumed("wandb", tmp_path, sent)
    newest = max(tmp_path.glob("wandb/offline-run-*/run-*.wandb"), key=lambda file: file.stat().st_mtime)
    curve, runs = [], []
    for record in map(Record.FromString, log_records(newest)):
        if record.WhichOneof("record_type") == "history":
            items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
            curve += [(record.history.step.num, float(items["loss"]))]
        elif record.WhichOneof("record_type") == "run":
            runs.append(record.run)
    assert curve == list(zip(STEPS, LOSSES, strict=True))
    run = runs[-1]
    assert (run.project, run.run_group, run.display_name, run.run_id) == tuple(
        getattr(branch(tmp_path), name) for name in ("project", "group", "name", "id")
    )
