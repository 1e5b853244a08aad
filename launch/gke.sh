#!/usr/bin/env bash
# Runs maemem on a Kubernetes cluster (GKE) that has JobSet: one process a host, on TPUs or GPUs.
#
#   launch/gke.sh --name=mine --image=IMAGE --claim=CLAIM --hosts=4 --chips=4 \
#       --tpu=tpu-v5-lite-podslice --topology=4x4 [--spot] [--dry_run] \
#       -- --config=CONFIG --workdir=runs/mine ...
#   launch/gke.sh --name=mine --image=IMAGE --claim=CLAIM --hosts=2 --chips=8 \
#       --gpu=nvidia-h100-80gb ...
#
# What follows -- goes to maemem. --chips are those of one host. IMAGE has a checkout in /maemem, and
# in its Python maemem with jax[tpu] or jax[cuda12]. CLAIM is a persistent volume claim that all hosts
# can write to; it becomes runs/, where WORKDIR lies. When a host is lost, all start again and go on
# from the last checkpoint. An error of maemem's own (status 1) ends the run. --dry_run prints the
# manifest; without it, kubectl submits that.
set -euo pipefail

fail() { echo "error: $*" >&2 && exit 1; }

name='' image='' claim='' hosts='' chips='' tpu='' topology='' gpu='' spot='' dry_run=''
while (($#)); do
  case $1 in
    --name=* | --image=* | --claim=* | --hosts=* | --chips=* | --tpu=* | --topology=* | --gpu=*)
      option=${1#--} && printf -v "${option%%=*}" %s "${option#*=}" ;;
    --spot | --dry_run) printf -v "${1#--}" yes ;;
    --) shift && break ;;
    *) fail "unknown option $1; maemem's own options go behind --" ;;
  esac
  shift
done
for option in name image claim hosts chips; do
  [[ ${!option} ]] || fail "--$option is missing; see the first lines of $0"
done
workdir=''
for argument; do [[ $argument != --workdir=* ]] || workdir=${argument#--workdir=}; done
[[ $workdir == runs/* ]] || fail "--workdir is '$workdir'; behind --, expected one in runs/"
[[ ($tpu && $topology && ! $gpu) || ($gpu && ! $tpu && ! $topology) ]] ||
  fail "expected --tpu and --topology, or --gpu"

quoted() { printf "'%s'" "${1//\'/\'\'}"; }  # As YAML has it.

manifest() {
  local argument
  cat <<YAML
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: $name
spec:
  failurePolicy:
    maxRestarts: 100
    rules:
      - name: mistake
        action: FailJobSet
        onJobFailureReasons: [PodFailurePolicy]
  replicatedJobs:
    - name: hosts
      replicas: 1
      template:
        spec:
          completionMode: Indexed
          completions: $hosts
          parallelism: $hosts
          backoffLimit: 0
          podFailurePolicy:
            rules:
              - action: FailJob
                onExitCodes: {containerName: maemem, operator: In, values: [1]}
          template:
            spec:
              restartPolicy: Never
              terminationGracePeriodSeconds: 120
              nodeSelector:
YAML
  if [[ $tpu ]]; then
    echo "                cloud.google.com/gke-tpu-accelerator: $tpu"
    echo "                cloud.google.com/gke-tpu-topology: $topology"
  else
    echo "                cloud.google.com/gke-accelerator: $gpu"
  fi
  [[ ! $spot ]] || cat <<YAML
                cloud.google.com/gke-spot: 'true'
              tolerations:
                - {key: cloud.google.com/gke-spot, operator: Equal, value: 'true', effect: NoSchedule}
YAML
  cat <<YAML
              containers:
                - name: maemem
                  image: $(quoted "$image")
                  workingDir: /maemem
                  env:
                    - {name: JAX_COORDINATOR_ADDRESS, value: '$name-hosts-0-0.$name:8476'}
                    - {name: JAX_NUM_PROCESSES, value: '$hosts'}
                    - name: JAX_PROCESS_ID
                      valueFrom:
                        fieldRef:
                          fieldPath: metadata.annotations['batch.kubernetes.io/job-completion-index']
                  resources:
                    limits: {$([[ $tpu ]] && echo google.com/tpu || echo nvidia.com/gpu): $chips}
                  volumeMounts:
                    - {name: runs, mountPath: /maemem/runs}
                  command: [python, -m, maemem.main]
                  args:
YAML
  for argument; do echo "                    - $(quoted "$argument")"; done
  cat <<YAML
              volumes:
                - name: runs
                  persistentVolumeClaim: {claimName: $(quoted "$claim")}
YAML
}

if [[ $dry_run ]]; then
  manifest "$@"
else
  manifest "$@" | kubectl create --filename=-
fi
