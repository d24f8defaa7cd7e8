#!/bin/bash
#SBATCH --job-name=ovtool-train
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --requeue
#
# A training on several machines, a process for each GPU (without GPUs, PROCESSES on each machine). The
# arguments are a training and its options:
#
#   sbatch examples/slurm/train.sh train-segmenter pseudo.json --images train/ -o s.safetensors
#
# It is requeued when a machine is lost, and --resume goes on from the last checkpoint, which lies beside the
# output, on a file system that all machines share.
set -euo pipefail

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
processes=${PROCESSES:-${SLURM_GPUS_ON_NODE:-1}}
threads=$((${SLURM_CPUS_PER_TASK:-1} / processes))

exec srun torchrun \
    --nnodes "$SLURM_NNODES" \
    --nproc-per-node "$processes" \
    --rdzv-id "$SLURM_JOB_ID" \
    --rdzv-backend c10d \
    --rdzv-endpoint "$head:${PORT:-29500}" \
    -m ovtool "$@" --resume --threads "$((threads > 0 ? threads : 1))"
