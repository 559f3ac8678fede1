#!/usr/bin/env bash
# Submits a run to Slurm: one array job a stage, each after the one before. Needs jq, and one file system for all machines.
#     docs/cluster/submit.sh RECIPE.toml RUN_FOLDER [options of sbatch, for all jobs]
set -euo pipefail
export RECIPE=$1 OUT=$2
shift 2
here=$(cd "$(dirname "$0")" && pwd)
plan=$(selma run "$RECIPE" --out "$OUT" --plan)
before=
for stage in prompts images train merge eval report; do
    ids=$(jq -r --arg stage "$stage" '.[] | select(.stage == $stage and (.finished | not)) | .id' <<<"$plan")
    [ -n "$ids" ] || continue
    last=$(($(wc -l <<<"$ids") - 1))
    # Ids have no spaces and no commas.
    before=$(JOBS=$(tr '\n' ' ' <<<"$ids") sbatch --parsable --job-name="selma-$stage" --array="0-$last" \
        ${before:+--dependency="afterok:$before"} --export=ALL "$@" "$here/job.sbatch")
    echo "$stage: $((last + 1)) jobs, array $before"
done
