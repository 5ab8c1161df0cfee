"""A stand-in for Slurm's commands: tasks of an array are processes of this machine, known by files in the folder $FAKE_SLURM."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path


def sbatch(words):
    script = Path(words[-1])
    (array,) = [word.partition("=")[2] for word in words if word.startswith("--array=")]
    number = str(100 + len(list(home().glob("*.submitted"))))
    (home() / f"{number}.submitted").touch()
    for index in array.split(","):
        save(number, index, running=True, code=None, name=option(script, "job-name"))
        words = [sys.executable, __file__, "task", number, index, str(script)]
        subprocess.Popen(words, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    sys.stdout.write(f"{number}\n")


def task(words):
    number, index, script = words
    log = Path(option(Path(script), "output").replace("%a", index))
    env = {**os.environ, "SLURM_ARRAY_JOB_ID": number, "SLURM_ARRAY_TASK_ID": index}
    again = home() / f"{number}_{index}.requeue"
    while True:
        with log.open("ab") as output:
            code = subprocess.run(["bash", script], env=env, stdout=output, stderr=output, check=False).returncode
        if not again.exists():
            break
        again.unlink()
    save(number, index, running=False, code=code, name=option(Path(script), "job-name"))


def squeue(words):
    (name,) = [word.partition("=")[2] for word in words if word.startswith("--name=")]
    for path in sorted(home().glob("*.json")):
        state = json.loads(path.read_text())
        if state["running"] and state["name"] == name:
            sys.stdout.write(path.stem.partition("_")[2] + "\n")


def scontrol(words):
    if words[0] == "requeue":
        (home() / f"{words[1]}.requeue").touch()
        return
    number, _, index = words[-1].partition("_")
    state = json.loads((home() / f"{words[-1]}.json").read_text())
    sys.stdout.write(
        f"JobId=7 ArrayJobId={number} ArrayTaskId={index} JobState=DONE ExitCode={state['code']}:0 Restarts=0\n"
    )


def srun(words):
    os.execvp(words[0], words)


def home():
    return Path(os.environ["FAKE_SLURM"])


def save(number, index, **state):
    temporary = home() / f"{number}_{index}.tmp"
    temporary.write_text(json.dumps(state))
    temporary.replace(home() / f"{number}_{index}.json")


def option(script, name):
    (word,) = shlex.split(re.search(rf"^#SBATCH (--{name}=.*)$", script.read_text(), re.MULTILINE)[1])
    return word.partition("=")[2].replace("%%", "%")


if __name__ == "__main__":
    globals()[sys.argv[1]](sys.argv[2:])
