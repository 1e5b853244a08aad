#!/usr/bin/env bash
# Runs maemem under SLURM, on one node or several, through time limits and pre-emption.
#
#   sbatch --time=12:00:00 --gpus-per-node=1 launch/slurm.sh --config=CONFIG --workdir=WORKDIR ...
#   sbatch --time=12:00:00 --nodes=2 --ntasks-per-node=4 --gpus-per-node=4 launch/slurm.sh ...
#   launch/slurm.sh --dry_run --config=CONFIG --workdir=WORKDIR ...
#
# What follows the script's name goes to maemem. Submit from the checkout, with the environment that
# has maemem activated; WORKDIR lies where all nodes see it. One task uses all GPUs of its node. Of
# several tasks each uses one: give as many tasks as GPUs, and GPUs by node, not by task.
#
# Two minutes before the time limit, and when a pre-emption leaves time for it, the tasks (not this
# script) get SIGTERM: they save and leave with status 143, and the job goes back to the queue. It
# goes on there as it does after a pre-emption without notice: from the last checkpoint. A job that
# was cancelled, or that ended with an error, is not queued again.
#
# Options before the script's name win over these:
#SBATCH --job-name=maemem
#SBATCH --output=maemem-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=TERM@120
set -euo pipefail

arguments=() dry_run=
for argument; do
  case $argument in
    --dry_run) dry_run=yes ;;
    *) arguments+=("$argument") ;;
  esac
done

# If one task ends with an error, the others would wait for it.
command=(srun --kill-on-bad-exit=1 python -m maemem.main "${arguments[@]}")

if [[ $dry_run ]]; then
  echo sbatch "$(sed -n 's/^#SBATCH //p' "$0" | tr '\n' ' ')$0"
  printf '%q ' "${command[@]}" && echo
  exit
fi
if [[ -z ${SLURM_JOB_ID:-} ]]; then
  echo "error: not in a SLURM job; submit it, as in: sbatch $0 $*" >&2
  exit 1
fi
tasks=${SLURM_NTASKS:-1} gpus=$((${SLURM_GPUS_ON_NODE:-0} * SLURM_JOB_NUM_NODES))
if ((tasks > 1 && gpus && gpus != tasks)); then
  echo "error: $tasks tasks and $gpus GPUs; one task, or as many as there are GPUs, would use" \
    "them all: give sbatch --ntasks-per-node=$SLURM_GPUS_ON_NODE" >&2
  exit 1
fi

status=0
"${command[@]}" || status=$?
if ((status == 143)) && [[ $(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T) == RUNNING ]]
then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
