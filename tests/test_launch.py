"""The scripts in launch/: sound shell, and what they would do.

`tests/stages/test_slurm.py` runs that of SLURM for real.
"""

import os
import pathlib
import re
import subprocess
import sys

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.runs import REPOSITORY

SCRIPTS = sorted(REPOSITORY.glob("launch/*.sh"))
MAEMEM = ["--config=configs/demo.py", "--workdir=runs/it's mine", "--config.stages=('pretrain',)"]
TPU_VM = ["--name=mine", "--zone=us-west4-a", "--type=v5litepod-16", "--image=v2-alpha-tpuv5-lite"]
TPU_VM += ["--shared=10.0.0.2:/runs", "--spot", "--tries=2"]
GKE = ["--name=mine", "--image=registry/maemem:1", "--claim=runs", "--hosts=2", "--chips=4"]
GKE_TPU = [*GKE, "--tpu=tpu-v5-lite-podslice", "--topology=2x4"]


def launch(script, *options, path=None, status=0) -> str:
    """What a script prints; the programs that it runs are looked for in a folder first."""
    found = f"{path}:{os.environ['PATH']}" if path else os.environ["PATH"]
    process = subprocess.run(
        [REPOSITORY / "launch" / script, *options],
        cwd=REPOSITORY,
        env=os.environ | {"PATH": found},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.returncode == status, process.stdout
    return process.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script):
    shellcheck = pathlib.Path(sys.executable).parent / "shellcheck"
    subprocess.run([shellcheck, "--enable=quote-safe-variables", script], check=True)


def arguments_in(command: str) -> list[str]:
    """What a line of shell gives to maemem."""
    show = command.replace("python -m maemem.main", "printf '%s\\n'")
    return subprocess.check_output(["bash", "-c", show], text=True).splitlines()


def test_slurm_says_what_it_would_do():
    lines = launch("slurm.sh", *MAEMEM, "--dry_run").splitlines()
    assert {"--requeue", "--signal=TERM@120", "--open-mode=append"} <= set(lines[0].split())
    assert lines[1].startswith("srun --kill-on-bad-exit=1 python -m maemem.main --config=")
    assert arguments_in(lines[1].removeprefix("srun --kill-on-bad-exit=1")) == MAEMEM


def test_slurm_refuses_to_leave_gpus_idle(tmp_path):
    job = {"SLURM_JOB_ID": "1", "SLURM_JOB_NUM_NODES": "2", "SLURM_GPUS_ON_NODE": "4"}
    process = subprocess.run(
        [REPOSITORY / "launch" / "slurm.sh", *MAEMEM],
        env=os.environ | job | {"SLURM_NTASKS": "2"},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 1
    assert "2 tasks and 8 GPUs" in process.stderr
    assert "--ntasks-per-node=4" in process.stderr


@pytest.fixture
def cloud(tmp_path):
    """A `gcloud` that notes what it is asked, and has two hosts; `fate` says how runs there end."""
    (tmp_path / "gcloud").write_text(
        f"""#!/bin/bash
printf '%s\\n' "${{*//$'\\n'/ }}" >> {tmp_path}/asked
case "$*" in
  *"describe mine --format=value(state.state)"*) cat {tmp_path}/state ;;
  *networkEndpoints*) echo '10.0.0.7;10.0.0.8' ;;
  *"queued-resources create"*) echo ACTIVE > {tmp_path}/state ;;
  *maemem.main*) bash {tmp_path}/fate ;;
  *--recurse*) test ! -e {tmp_path}/full ;;
esac
"""
    )
    (tmp_path / "gcloud").chmod(0o755)
    (tmp_path / "fate").touch()
    return tmp_path


def asked(cloud) -> list[str]:
    """What was asked of the cloud in order, in a word or two each."""
    short = re.compile(r"compute tpus (?:queued-resources|tpu-vm) (create|delete|scp|ssh)(.*)")
    found = [short.match(line) for line in (cloud / "asked").read_text().splitlines()]
    return [
        f"{verb} {'run' if 'maemem.main' in rest else ''}".strip()
        for verb, rest in (match.groups() for match in found if match)
    ]


def test_a_slice_is_created_used_and_deleted(cloud):
    launch("tpu_vm.sh", *TPU_VM, "--", *MAEMEM, path=cloud)
    expected = ["create", "scp", "ssh", "ssh run", "ssh run", "scp", "delete"]
    assert asked(cloud) == expected
    commands = [
        line for line in (cloud / "asked").read_text().splitlines() if "maemem.main" in line
    ]
    for host, command in enumerate(sorted(commands)):
        assert f"--worker={host} " in command
        assert f"JAX_NUM_PROCESSES=2 JAX_PROCESS_ID={host}" in command
        assert "JAX_COORDINATOR_ADDRESS=10.0.0.7:8476" in command
        shell = command[command.index("python -m") :].removesuffix(" --zone=us-west4-a")
        assert arguments_in(shell) == MAEMEM


def test_a_lost_slice_is_replaced(cloud):
    """The first is pre-empted in the midst of the run, the second is not."""
    (cloud / "fate").write_text(
        f"[ -e {cloud}/before ] || {{ echo SUSPENDED > {cloud}/state; sleep 0.5; "
        f"touch {cloud}/before; exit 255; }}"
    )
    output = launch("tpu_vm.sh", *TPU_VM, "--", *MAEMEM, path=cloud)
    assert "slice 1 of 2 was lost" in output
    once = ["create", "scp", "ssh", "ssh run", "ssh run"]
    assert asked(cloud) == [*once, "delete", *once, "scp", "delete"]


def test_an_error_on_a_slice_is_not_tried_again(cloud):
    (cloud / "fate").write_text("exit 1")
    output = launch("tpu_vm.sh", *TPU_VM, "--", *MAEMEM, path=cloud, status=1)
    assert "what ran there is not" in output
    assert asked(cloud).count("create") == asked(cloud).count("delete") == 1


def test_results_that_cannot_be_copied_are_not_deleted(cloud):
    (cloud / "full").touch()
    output = launch("tpu_vm.sh", *TPU_VM, "--", *MAEMEM, path=cloud, status=1)
    assert "slice mine in us-west4-a still has them" in output
    assert "delete" not in asked(cloud)


def test_a_slice_of_which_nothing_is_told_is_not_awaited_for_ever(cloud):
    gcloud = cloud / "gcloud"
    gcloud.write_text(
        gcloud.read_text().replace("case", "[[ $* != *state.state* ]] || exit 1\ncase", 1)
    )
    (cloud / "sleep").write_text("#!/bin/sh\n")  # Not half a minute each time.
    (cloud / "sleep").chmod(0o755)
    output = launch("tpu_vm.sh", *TPU_VM, "--", *MAEMEM, path=cloud, status=1)
    assert "the state of mine is not told" in output
    assert asked(cloud) == ["create", "delete"]


def test_a_slice_is_not_touched_in_a_dry_run(cloud):
    output = launch("tpu_vm.sh", *TPU_VM, "--dry_run", "--", *MAEMEM, path=cloud)
    assert not (cloud / "asked").exists()
    assert "queued-resources create mine --node-id=mine" in output
    assert "--worker=all" in output
    assert "python -m maemem.main" in output
    assert output.splitlines()[-1].startswith("gcloud compute tpus queued-resources delete mine")


# https://jobset.sigs.k8s.io, API v1alpha2: what of it the manifest uses, and no other field.
_STRING = {"type": "string"}
_JOBSET = {
    "apiVersion": {"const": "jobset.x-k8s.io/v1alpha2"},
    "kind": {"const": "JobSet"},
    "metadata": {"properties": {"name": _STRING}, "required": ["name"]},
    "spec": {
        "properties": {
            "failurePolicy": {
                "properties": {
                    "maxRestarts": {"type": "integer"},
                    "rules": {
                        "items": {
                            "properties": {
                                "name": {"pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"},
                                "action": {"enum": ["FailJobSet", "RestartJobSet"]},
                                "onJobFailureReasons": {"items": {"const": "PodFailurePolicy"}},
                            },
                            "required": ["name", "action"],
                            "additionalProperties": False,
                        }
                    },
                },
                "additionalProperties": False,
            },
            "replicatedJobs": {
                "items": {
                    "properties": {
                        "name": _STRING,
                        "replicas": {"type": "integer"},
                        "template": {},
                    },
                    "required": ["name", "template"],
                    "additionalProperties": False,
                }
            },
        },
        "additionalProperties": False,
    },
}


@pytest.mark.parametrize(
    ("options", "chips"),
    [
        (GKE_TPU, {"google.com/tpu": 4}),
        ([*GKE_TPU, "--spot"], {"google.com/tpu": 4}),
        ([*GKE, "--gpu=nvidia-h100-80gb"], {"nvidia.com/gpu": 4}),
    ],
)
def test_a_manifest_is_one_that_kubernetes_knows(options, chips):
    manifest = yaml.safe_load(launch("gke.sh", *options, "--dry_run", "--", *MAEMEM))
    strict = {"properties": _JOBSET, "required": list(_JOBSET), "additionalProperties": False}
    jsonschema.validate(manifest, strict)
    (job,) = manifest["spec"]["replicatedJobs"]
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}, **job["template"]}
    kubernetes_validate.validate(job, "1.33", strict=True)
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert [*container["command"], *container["args"]] == ["python", "-m", "maemem.main", *MAEMEM]
    assert container["resources"]["limits"] == chips
    assert container["env"][0]["value"] == "mine-hosts-0-0.mine:8476"
    assert ("cloud.google.com/gke-spot" in pod["nodeSelector"]) == ("--spot" in options)


@pytest.mark.parametrize(
    ("script", "options", "message"),
    [
        ("slurm.sh", MAEMEM, "not in a SLURM job; submit it, as in: sbatch"),
        ("tpu_vm.sh", TPU_VM[1:], "--name is missing"),
        ("tpu_vm.sh", [*TPU_VM, *MAEMEM], "maemem's own options go behind --"),
        ("tpu_vm.sh", [*TPU_VM, "--", "--workdir=/tmp/mine"], "--workdir is '/tmp/mine'"),
        ("tpu_vm.sh", [*TPU_VM, "--shared=", "--", *MAEMEM], "--spot needs --shared"),
        ("gke.sh", [*GKE, "--", *MAEMEM], "expected --tpu and --topology, or --gpu"),
        ("gke.sh", [*GKE_TPU, "--gpu=nvidia-l4", "--", *MAEMEM], "expected --tpu and --topology"),
        ("gke.sh", [*GKE_TPU, "--hosts=", "--", *MAEMEM], "--hosts is missing"),
    ],
)
def test_what_is_missing_is_named(script, options, message):
    assert message in launch(script, *options, status=1)
