#!/bin/bash
#SBATCH --job-name=ovtool
#SBATCH --array=0-15
#SBATCH --cpus-per-task=4
#SBATCH --mem=8G
#SBATCH --time=08:00:00
#
# A run over images as a job array: each task does its share of the parts. The arguments are a command that
# works in parts (segment, propose, mine-pairs, cam, refine), its output and its options:
#
#   array=$(sbatch --parsable examples/slurm/map.sh segment photos.json photos/ --classes "cow,apple")
#   sbatch --dependency=afterany:"$array" --wrap "ovtool merge photos.json.parts"
#
# A task that was cut off goes on where it was when the same line is submitted again, with the same number of
# tasks or another one. `ovtool merge` refuses to write while parts are missing.
set -euo pipefail

command=$1
output=$2
shift 2
exec ovtool "$command" "$@" --output "$output" --shard slurm --resume --threads "${SLURM_CPUS_PER_TASK:-1}"
