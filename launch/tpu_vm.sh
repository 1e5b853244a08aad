#!/usr/bin/env bash
# Runs maemem on a slice of Cloud TPUs: creates the slice, installs this checkout's last commit on all
# of its hosts, runs there, copies the results here, and deletes the slice, even after an error.
#
#   launch/tpu_vm.sh --name=mine --zone=us-west4-a --type=v5litepod-16 --image=v2-alpha-tpuv5-lite \
#       --shared=10.0.0.2:/runs [--spot] [--tries=10] [--dry_run] \
#       -- --config=CONFIG --workdir=runs/mine ...
#
# What follows -- goes to maemem. WORKDIR lies in runs/, which with --shared is an NFS folder, such as
# one of Filestore. Several hosts need it, and so does --spot: what is there outlives the slice. When
# a slice is lost, the next one goes on from the last checkpoint; after --tries slices this gives up.
# An error of maemem's own is not tried again. Needs gcloud, with a project and a login. The images'
# own Python may be too old for maemem; uv, from PyPI as all else, brings one whose checksum it knows.
set -euo pipefail

fail() { echo "error: $*" >&2 && exit 1; }

name='' zone='' type='' image='' shared='' spot=() tries=1 dry_run=''
while (($#)); do
  case $1 in
    --name=* | --zone=* | --type=* | --image=* | --shared=* | --tries=*)
      option=${1#--} && printf -v "${option%%=*}" %s "${option#*=}" ;;
    --spot) spot=(--spot) ;;
    --dry_run) dry_run=yes ;;
    --) shift && break ;;
    *) fail "unknown option $1; maemem's own options go behind --" ;;
  esac
  shift
done
for option in name zone type image; do
  [[ ${!option} ]] || fail "--$option is missing; see the first lines of $0"
done
workdir=''
for argument; do [[ $argument != --workdir=* ]] || workdir=${argument#--workdir=}; done
[[ $workdir == runs/* ]] || fail "--workdir is '$workdir'; behind --, expected one in runs/"
[[ ! ${spot[*]} || $shared ]] || fail "--spot needs --shared: a slice's own disks are lost with it"

# Does something or, where asked to, says what it would do.
exec 3>&1
perform() {
  if [[ $dry_run ]]; then
    { printf '%q ' "$@" && echo; } >&3
  else
    "$@"
  fi
}

tpus() { perform gcloud compute tpus "$@" "--zone=$zone"; }

state() { tpus queued-resources describe "$name" --format='value(state.state)'; }

create() {
  tpus queued-resources create "$name" "--node-id=$name" "--accelerator-type=$type" \
    "--runtime-version=$image" "${spot[@]}" || return
  local now failures=0
  until now=$(state) && [[ $dry_run || $now == ACTIVE ]]; do
    case $now in
      FAILED | SUSPENDING | SUSPENDED) return 1 ;;
      '') ((++failures < 10)) || fail "the state of $name is not told; it may still be there, and cost" ;;
      *) failures=0 ;;
    esac
    sleep 30
  done
}

# nolock: the server might keep the lock of a slice that is lost. Slices come one after the other.
install() {
  local packages=python3-venv mount=true
  [[ ! $shared ]] || packages+=' nfs-common' mount="sudo mount -t nfs -o nolock $shared runs"
  perform git archive --format=tar.gz --output="$folder/maemem.tar.gz" HEAD &&
    tpus tpu-vm scp "$folder/maemem.tar.gz" "$name:" --worker=all &&
    tpus tpu-vm ssh "$name" --worker=all --command="set -e
mkdir -p maemem/runs && tar -xzf maemem.tar.gz -C maemem && cd maemem
sudo apt-get install -y -q $packages
$mount
python3 -m venv .uv
.uv/bin/pip install --quiet uv==0.9.7
.uv/bin/uv venv --python=3.12 .venv
.uv/bin/uv pip install --python=.venv -e . 'jax[tpu]'"
}

# The same line on every host, which is told which of them it is.
run() {
  local hosts host pids=() status=0
  hosts=$(tpus tpu-vm describe "$name" --format='value(networkEndpoints[].ipAddress)') || return
  IFS=';' read -ra hosts <<<"${hosts:-IP}"
  ((${#hosts[@]} == 1)) || [[ $shared ]] ||
    fail "$type has ${#hosts[@]} hosts: give --shared, a folder that all of them see"
  for host in "${!hosts[@]}"; do
    tpus tpu-vm ssh "$name" "--worker=$host" --command="cd maemem && source .venv/bin/activate &&
export JAX_COORDINATOR_ADDRESS=${hosts[0]}:8476 JAX_NUM_PROCESSES=${#hosts[@]} JAX_PROCESS_ID=$host &&
python -m maemem.main$(printf ' %q' "$@")" &
    pids+=($!)
  done
  for host in "${!pids[@]}"; do wait "${pids[host]}" || status=$?; done
  return "$status"
}

copy() {
  mkdir -p "$(dirname "$workdir")" &&
    tpus tpu-vm scp --recurse "$name:maemem/$workdir" "$(dirname "$workdir")"
}

delete() { tpus queued-resources delete "$name" --force --quiet; }

folder=$(mktemp -d)
trap 'delete; rm -rf "$folder"' EXIT
for ((try = 1; try <= tries; try++)); do
  if create && install && run "$@"; then
    copy && exit
    trap 'rm -rf "$folder"' EXIT
    fail "the results could not be copied: slice $name in $zone still has them, and costs"
  fi
  if [[ $(state) == ACTIVE ]]; then
    copy || true
    fail "the slice is well, but what ran there is not: see above"
  fi
  echo "slice $try of $tries was lost" >&2
  ((try == tries)) || delete
done
fail "no slice lasted; the same command goes on where the last one was"
