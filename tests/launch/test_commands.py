"""The commands as a user types them: what they print, and one line for each mistake."""

import json
from pathlib import Path

import numpy as np
import pytest

from merit_jax.checkpoints.branch_checkpoint import params_directory
from merit_jax.checkpoints.readers import OrbaxLeaves
from merit_jax.data.chat_template import encode
from merit_jax.data.records import read_records
from merit_jax.launch.console.exit_codes import MISTAKE
from merit_jax.launch.wiring import open_run
from merit_jax.models import load_pretrained
from merit_jax.models.processing.tokenizer import load_tokenizer
from tests.support import world
from tests.support.commands import environment, module
from tests.support.zygote import REPOSITORY, Command

CONFIG = """
from pathlib import Path
from tests.support import world

def get_config(method="merit2d"):
    return world.config(Path({root!r}), method)
"""


def commands(folder, name, lines):
    """(exit code, standard output, standard error) of each command line, one after the other."""
    return [ended(folder, name, line) for line in lines]


def ended(folder, name, line):
    argv = [name, "--compilation_cache=", *line]
    command = Command(module(name), argv, folder, environment(), imports=f"merit_jax.launch.{name}", apart=True)
    output, error = command.communicate(300)
    return command.returncode, output, error


def config(finished, folder):
    """A config file like the config of a finished run."""
    (folder / "config.py").write_text(CONFIG.format(root=str(Path(finished.workdir.root).parent)))
    return f"--config={folder / 'config.py'}"


def test_weights_in_a_bucket_are_refused():
    with pytest.raises(ValueError, match=r"model.path = gs://b/theta0: .* copy the folder to this machine first"):
        open_run.resolve("gs://b/theta0")


def test_a_mistake_is_one_line_that_names_it(finished, tmp_path):
    given, workdir = config(finished, tmp_path), f"--workdir={tmp_path / 'new'}"
    (tmp_path / "file").write_text("")
    mistakes = {
        "no_such_key": [given, "--config.no_such_key=1", workdir],
        "--config is missing": [workdir],
        "unknown method 'nonsense'; known: joint, meritRd": [f"{given}:nonsense", workdir],
        "unknown stage 'nonsense'; known: conflict": [given, workdir, "--stages=mixture,nonsense"],
        "unexpected arguments ['stray']": [given, workdir, "stray"],
        "--workdir": [given],
        "absent.py": ["--config=absent.py", workdir],
        "--distributed=here: expected": [given, workdir, "--distributed=here"],
        f"Not a directory: '{tmp_path}/file/run'": [given, f"--workdir={tmp_path}/file/run"],
        "absent: expected a Hugging Face folder": [given, workdir, "--config.model.path=absent"],
        "basin.stages is empty": [given, workdir, "--config.basin.rebuild=True"],
        "gradients.width: 262144 -> 512": [
            *(given, f"--workdir={finished.workdir.root}", "--stages=gradients", "--config.gradients.width=512")
        ],
        "mesh data=3": [given, workdir, "--stages=gradients", "--config.mesh.data=3"],
    }
    results = commands(tmp_path, "run", list(mistakes.values()))
    for (mistake, line), (code, _, error) in zip(mistakes.items(), results, strict=True):
        assert code == MISTAKE, (line, error)
        assert mistake in error, (line, error)
        assert "Traceback" not in error, (line, error)
    assert not [path for path in (tmp_path / "new").rglob("*") if path.is_file() and "tokens" not in path.parts]


def test_a_finished_run_prints_its_tables(finished, tmp_path):
    run = world.copied(finished, tmp_path)
    line = [config(finished, tmp_path), f"--workdir={run.workdir.root}"]
    ((code, output, error),) = commands(tmp_path, "run", [line])
    assert code == 0, error
    assert all(text in output for text in ("Partition", "Held-out loss", "merged", *finished.names))
    assert json.loads((run.workdir.root / "config.json").read_text())["partition"]["groups"] == 4


def test_a_branch_is_exported(finished, tmp_path):
    given = [config(finished, tmp_path), f"--workdir={finished.workdir.root}"]
    lines = [["--out=b1", "--branch=1"], ["--out=merged"], ["--out=b9", "--branch=9"], [f"--out={tmp_path}"]]
    results = commands(tmp_path, "export", [[*given, *line] for line in lines])
    assert [code for code, *_ in results] == [0, 0, MISTAKE, MISTAKE], results
    assert "there is no branch 9; " in results[2][2]
    assert "not an empty folder" in results[3][2]
    sources = (params_directory(finished.workdir.branch(1) / "checkpoints"), finished.workdir.merged_params)
    for name, source in zip(("b1", "merged"), sources, strict=True):
        leaves, folder = world.host(OrbaxLeaves(source)), world.exported(tmp_path / name)
        assert all(folder[path].tobytes() == leaves[path].tobytes() for path in leaves)
    card = json.loads((tmp_path / "b1" / "merit.json").read_text())
    assert (card["branch"], card["theta0"]) == (1, finished.theta0_fingerprint)
    assert not (tmp_path / "b9").exists()


def test_scores_are_log_likelihoods_in_the_order_of_the_file(finished, tmp_path):
    model = Path(finished.workdir.root).parent / "theta0"
    rows = [{"inputs": f"say {'ab' * n}", "targets": "xyz" * (5 - n)} for n in (4, 1, 3, 2)]
    world.write_rows(tmp_path / "data.jsonl", rows)
    given = [f"--model={model}", "--data=data.jsonl", "--batch_size=2"]
    lines = [
        given,
        [*given, "--generate", "--max_new_tokens=4"],
        [*given, "--max_length=52"],
        [*given, "--data=no.jsonl"],
    ]
    scored, generated, long, absent = commands(tmp_path, "score", lines)
    assert (scored[0], generated[0], long[0], absent[0]) == (0, 0, MISTAKE, MISTAKE), (scored, generated, long, absent)
    assert "data.jsonl:2" in long[2]
    assert "raise --max_length" in long[2]
    assert "no.jsonl" in absent[2]
    assert "Traceback" not in long[2] + absent[2]

    decoder, params = load_pretrained(model)
    tokenizer, results = load_tokenizer(model), [json.loads(line) for line in scored[1].splitlines()]
    for record, result in zip(read_records(str(tmp_path / "data.jsonl")), results, strict=True):
        example, _ = encode(tokenizer, record.messages, 2048, where="")
        ids = example.tokens.tolist()
        logits = decoder.unembed(params, decoder.hidden(params, world.row(ids)))[0]
        scores = np.asarray(logits, np.float64)
        log_p = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
        expected = sum(log_p[i - 1, ids[i]] for i in range(1, len(ids)) if example.supervised[i])
        assert result["tokens"] == int(example.supervised.sum())
        assert result["log_likelihood"] == pytest.approx(expected, abs=1e-4)
    completed = [json.loads(line) for line in generated[1].splitlines()]
    assert [line.pop("completion") is not None for line in completed] == [True] * 4
    assert completed == results


def test_diagnose_reads_the_config_that_the_run_keeps(finished, tmp_path):
    run = world.copied(finished, tmp_path)
    kept = run.config.to_json_best_effort()
    (tmp_path / "finished" / "config.json").write_text(kept)
    workdir, only = f"--workdir={tmp_path}/finished", "--only=gradient_norms,displacement"
    nothing, points = "--only=nonsense", "--config.diagnostics.points=2"
    lines = [
        [workdir, only],
        [workdir, only],
        [workdir, nothing],
        [f"--workdir={tmp_path}"],
        [workdir, points, "--only=connectivity"],
        [workdir, "--config.diagnostics.sigmas=(0.0,)", "--only=perturbation"],
        [workdir, "--config.nonsense=1"],
    ]
    first, again, unknown, nowhere, few, zero, key = commands(tmp_path, "diagnose", lines)
    assert [line[0] for line in (first, again, unknown, nowhere, few, zero, key)] == [0, 0, *[MISTAKE] * 5], first
    assert "displacement: no loss evaluations" in first[2]
    assert "took" not in again[2]
    for output in (first[1], again[1]):
        assert "coefficient of variation" in output
        assert "from theta0: branch 0" in output
    assert "known: calibration, connectivity" in unknown[2]
    assert f"{tmp_path}/config.json is missing" in nowhere[2]
    assert "diagnostics.points = 2; expected a whole number of at least 3" in few[2]
    assert "diagnostics.sigmas = (0.0,)" in zero[2]
    assert "nonsense" in key[2]
    assert not any("Traceback" in line[2] for line in (unknown, nowhere, few, zero, key))


def test_validate_lists_bad_rows_and_fails(finished, tmp_path):
    good, bad = {"inputs": "q", "targets": "a"}, {"inputs": "q"}
    world.write_rows(tmp_path / "a.train.jsonl", [good, bad, good, {**good, "targets": ""}])
    world.write_rows(tmp_path / "b.train.jsonl", [good])
    given = [f"--tokenizer={Path(finished.workdir.root).parent / 'theta0'}", "--mixture=*.train.jsonl"]
    lines = [given, [*given, "--include=b"], [*given, "--mixture=none*.jsonl"]]
    (code, output, _), (fine, _, _), (empty, _, error) = commands(tmp_path, "validate", lines)
    assert (code, fine, empty) == (MISTAKE, 0, MISTAKE)
    assert all(f"a.train.jsonl:{row}" in output for row in (2, 4))
    assert "2 bad records" in output
    assert "none*.jsonl" in error


def test_evaluate_writes_scores_and_samples(finished, tmp_path):
    pytest.importorskip("lm_eval")
    model = Path(finished.workdir.root).parent / "theta0"
    suite = REPOSITORY / "examples" / "bigbench" / "suite.yaml"
    given = [f"--model={model}", f"--suite={suite}", "--tasks=hyperbaton", "--limit=3", "--batch_size=2"]
    lines = [[*given, "--out=out"], [*given, "--suite=nothing"], [*given, "--tasks=boolq"]]
    right, unknown, other = commands(tmp_path, "evaluate", lines)
    assert (right[0], unknown[0], other[0]) == (0, MISTAKE, MISTAKE), (right, unknown, other)
    assert "hyperbaton" in right[1]
    assert "known: paper_text" in unknown[2]
    assert "no task 'boolq' in this suite; it has hyperbaton, pig_latin_encode" in other[2]
    assert "Traceback" not in unknown[2] + other[2]
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (results["limit"], results["results"]["hyperbaton"]["records"]) == (3, 3)
    samples = [
        json.loads(line) for line in (tmp_path / "out" / "samples" / "hyperbaton.jsonl").read_text().splitlines()
    ]
    assert results["mean"] == sum(sample["acc"] for sample in samples) / 3
    assert "theta0" not in results
    assert "theta0" not in right[1]


def test_evaluate_scores_the_theta0_of_a_merged_model_too(finished, tmp_path):
    pytest.importorskip("lm_eval")
    suite = REPOSITORY / "examples" / "bigbench" / "suite.yaml"
    given = [f"--model={finished.workdir.merged_hf}", f"--suite={suite}", "--tasks=hyperbaton", "--limit=3"]
    ((code, output, error),) = commands(tmp_path, "evaluate", [[*given, "--batch_size=2", "--out=out"]])
    assert code == 0, error
    assert "theta0 (%)" in output
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["theta0"]["model"] == finished.config.model.path
    for scores, folder in ((results, "samples"), (results["theta0"], "samples/theta0")):
        lines = (tmp_path / "out" / folder / "hyperbaton.jsonl").read_text().splitlines()
        assert scores["mean"] == sum(json.loads(line)["acc"] for line in lines) / 3


def test_the_theta0_of_a_model_is_the_one_given_or_the_one_that_its_record_names(finished, tmp_path, caplog):
    from merit_jax.launch.evaluate import theta0_of

    merged = str(finished.workdir.merged_hf)
    assert theta0_of(merged, None) == finished.config.model.path
    assert theta0_of(merged, "other") == "other"
    assert theta0_of(merged, "") is None
    assert theta0_of(str(tmp_path), None) is None
    (tmp_path / "merit.json").write_text(json.dumps({"config": {"model": {"path": "gone"}}}))
    assert theta0_of(str(tmp_path), None) is None
    assert "the table has no theta0" in caplog.text
    assert "--theta0" in caplog.text
