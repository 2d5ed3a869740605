"""The recipes of docs/launch: run_tpu.sh against a pretended cloud, and what the files say."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import tomllib

import jsonschema
import pytest
import yaml

ROOT = pathlib.Path(__file__).parents[1]
LAUNCH = ROOT / "docs" / "launch"
RECIPES = sorted(path for path in LAUNCH.iterdir() if path.suffix != ".md")

# Keeps the requests as files, and lets a command on all hosts run here, in a home of its own.
GCLOUD = r"""#!/usr/bin/env bash
echo "$*" >> "$CLOUD/calls"
case "$*" in
  *"queued-resources list"*) cat "$CLOUD/state" 2> /dev/null || true ;;
  *"queued-resources create"*) echo ACTIVE > "$CLOUD/state" ;;
  *"queued-resources delete"*) rm "$CLOUD/state" ;;
  *" scp "*) cp "$5" "$CLOUD/home" ;;
  *" ssh "*) HOME="$CLOUD/home" bash -c "${*##*--command=}" ;;
esac
"""
# Makes an environment whose python notes what it was started with, and runs for a while.
UV = r"""#!/usr/bin/env bash
[[ $1 == venv ]] || exit 0
mkdir -p "${!#}/bin"
printf '#!/usr/bin/env bash\necho "$@" >> "%s/started"\nexec sleep 60\n' "$CLOUD" \
  > "${!#}/bin/python"
chmod +x "${!#}/bin/python"
"""


@pytest.fixture
def cloud(tmp_path, monkeypatch):
    """A folder with what the pretended cloud knows."""
    for name, text in (("gcloud", GCLOUD), ("uv", UV)):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(text)
        program.chmod(0o755)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("CLOUD", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("POLL_SECONDS", "0.1")
    yield tmp_path
    # What was started holds the lock.
    subprocess.run(["fuser", "-sk", tmp_path / "home" / "train.lock"], check=False)


def run_tpu(*flags: str) -> str:
    """What run_tpu.sh prints."""
    command = [ROOT / "run_tpu.sh", "name", "zone", "v5litepod-8", *flags]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def calls(cloud: pathlib.Path, what: str) -> int:
    return sum(what in line for line in (cloud / "calls").read_text().splitlines())


needs_programs = pytest.mark.skipif(
    not all(map(shutil.which, ("bash", "flock", "fuser", "git", "setsid"))),
    reason="needs bash, flock, fuser, git and setsid",
)


@needs_programs
def test_run_tpu_twice_is_run_tpu_once(cloud):
    assert "train.py was started" in run_tpu("--workdir", "gs://bucket/a b", "--seed", "1")
    assert "train.py runs here" in run_tpu("--workdir", "gs://bucket/a b", "--seed", "1")
    assert (cloud / "started").read_text() == "train.py --workdir gs://bucket/a b --seed 1\n"
    assert calls(cloud, "queued-resources create") == 1
    assert (cloud / "home" / "tensorgame" / "train.py").exists()


@needs_programs
@pytest.mark.parametrize("state", ["SUSPENDED", "FAILED"])
def test_run_tpu_asks_again_for_what_was_taken_away(cloud, state):
    (cloud / "state").write_text(state)
    assert "train.py was started" in run_tpu()
    assert calls(cloud, "queued-resources delete") == calls(cloud, "queued-resources create") == 1


def test_every_recipe_says_what_resumes_and_is_told_of():
    overview = (LAUNCH / "README.md").read_text()
    for path in RECIPES:
        assert re.search(r"\bresumes?\b", path.read_text()), path.name
        assert f"({path.name})" in overview
    assert "(../../run_tpu.sh)" in overview


def test_recipes_name_configurations_and_flags_that_exist():
    flags = {"config", "workdir", "distributed"}
    texts = [path.read_text() for path in (*LAUNCH.iterdir(), ROOT / "run_tpu.sh")]
    for text in texts:
        for name in re.findall(r"tpu_configs/[a-z]\w*\.py", text):
            assert (ROOT / name).exists()
        for line in re.findall(r"train\.py((?:[^\n]|\\\n)*)", text):
            assert set(re.findall(r" --([a-z]+)\b(?!-)", line)) <= flags | {"seed"}


# The part of SkyPilot's format that is used.
TASK = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name", "workdir", "resources", "file_mounts", "setup", "run"],
    "properties": {
        "name": {"type": "string"},
        "workdir": {"const": "."},
        "resources": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "accelerators": {"type": "string", "pattern": r"^[\w-]+:\d+$"},
                "use_spot": {"type": "boolean"},
                "disk_size": {"type": "integer"},
                "job_recovery": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {"max_restarts_on_errors": {"type": "integer", "minimum": 0}},
                },
            },
        },
        "envs": {"type": "object", "additionalProperties": {"type": "string"}},
        "file_mounts": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "additionalProperties": False,
                "required": ["name"],
                "properties": {
                    "name": {"type": "string", "pattern": r"^[a-z0-9][a-z0-9.-]+$"},
                    "mode": {"enum": ["MOUNT", "COPY", "MOUNT_CACHED"]},
                },
            },
        },
        "setup": {"type": "string"},
        "run": {"type": "string"},
    },
}


def test_the_file_of_skypilot_has_its_format():
    task = yaml.safe_load((LAUNCH / "skypilot_spot.yaml").read_text())
    jsonschema.validate(task, TASK)
    assert task["envs"]["CONFIG"] in task["run"] or "$CONFIG" in task["run"]
    for script in (task["setup"], task["run"]):
        subprocess.run(["bash", "-n", "-c", script], check=True)


def test_the_image_takes_its_libraries_from_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    text = (ROOT / "Dockerfile").read_text()
    extra = re.search(r"ARG EXTRA=(\w+)", text)[1]
    assert extra in project["optional-dependencies"]
    entry = json.loads(re.search(r"ENTRYPOINT (\[.*\])", text)[1])
    assert entry[0] == "python"
    assert (ROOT / entry[1]).exists()
