#!/usr/bin/env bash
# Installs this checkout of maemem, and JAX for the accelerator that the machine has.
set -euo pipefail
cd "$(dirname "$0")/.."

jax=jax
if command -v nvidia-smi >/dev/null; then
  jax='jax[cuda12]'
elif compgen -G '/dev/accel*' >/dev/null || compgen -G '/dev/vfio/[0-9]*' >/dev/null; then
  jax='jax[tpu]'
fi
pip install --quiet '.[view]' "$jax"
