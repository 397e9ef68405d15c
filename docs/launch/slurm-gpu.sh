#!/usr/bin/env bash
# Train on the GPUs of a SLURM cluster, one process a node:
#
#   sbatch --nodes=4 docs/launch/slurm-gpu.sh runs/gpt2 --config=gpt.py:gpt2_1558m --config.mesh.preset=fsdp
#
# The environment with the zoo (pip install 'seqzoo[gpu]') is ENV, on a file system that all nodes share, as is the
# working directory. SLURM asks for an end five minutes before the time is up: the run saves and ends, and is queued again.
#SBATCH --job-name=zoo
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -euo pipefail

WORKDIR=${1:?give the working directory}
shift
ENV=${ENV:-$HOME/zoo-env}

# The step's own exit code decides what comes next; a node that is lost must take the others with it.
code=0
srun --kill-on-bad-exit=1 "$ENV/bin/zoo" train --workdir="$WORKDIR" "$@" || code=$?

# The summary is written last: without it the run was asked to stop, or failed.
if [[ -f $WORKDIR/summary.json ]]; then
    exit 0
fi
if ((code == 2)); then
    echo "the command is at fault: not queued again" >&2
    exit 2
fi
if ((${SLURM_RESTART_COUNT:-0} >= ${MOST_RESTARTS:-20})); then
    echo "restarted $SLURM_RESTART_COUNT times: not queued again" >&2
    exit 1
fi
scontrol requeue "$SLURM_JOB_ID"
