#!/usr/bin/env bash
# Pretrain GPT-1 at full size on books with one GPU, then fine-tune it on four tasks of GLUE, with the pretraining and
# without it:
#
#   docs/launch/one-gpu-gpt1.sh BOOKS VOCABULARY GLUE RUNS
#
# BOOKS and VOCABULARY are what zoo/configs/gpt1_books.py asks for; GLUE holds CoLA, SST-2, STS-B and RTE, a directory
# each, as GLUE gives them out; the working directories are made in RUNS. The same command again goes on where it
# stopped, and repeats nothing that is finished.
#
#   STEPS      updates of the pretraining (default: 4400, see docs/one-gpu.md)
#   SIZE       paper or small, of gpt1_books.py (default: paper)
#   PRETRAIN   more changes for the pretraining, as "--config.KEY=VALUE ..."
#   FINETUNE   more changes for each task
#   ZOO        the command of the zoo (default: python -m zoo)
set -euo pipefail

BOOKS=${1:?give the directory of the books}
VOCABULARY=${2:?give the directory of the published vocabulary}
GLUE=${3:?give the directory of GLUE}
RUNS=${4:?give the directory for the runs}
STEPS=${STEPS:-4400}
read -ra zoo <<<"${ZOO:-python -m zoo}"
read -ra pretrain <<<"${PRETRAIN:-}"
read -ra finetune <<<"${FINETUNE:-}"

mkdir -p "$RUNS"
if [ "${SIZE:-paper}" = paper ]; then
    pretrain=(--config.data.vocabulary_files="$VOCABULARY" --config.optimizer.warmup=200 "${pretrain[@]}")
fi
"${zoo[@]}" train --config="gpt1_books.py:${SIZE:-paper}" --workdir="$RUNS/books" --config.data.path="$BOOKS" \
    --config.train.steps="$STEPS" "${pretrain[@]}"

for task in cola:CoLA sst2:SST-2 stsb:STS-B rte:RTE; do
    for start in init_from like; do
        workdir=$RUNS/${task%:*}-$start
        [ -s "$workdir/valid.json" ] && continue
        "${zoo[@]}" train --config="gpt1_finetune.py:${task%:*}" --workdir="$workdir" \
            --config.data.path="$GLUE/${task#*:}" --"$start"="$RUNS/books" "${finetune[@]}"
        "${zoo[@]}" eval "$workdir" --split=valid --json >"$workdir/valid.json.part"
        mv "$workdir/valid.json.part" "$workdir/valid.json"
    done
done
for result in "$RUNS"/*/valid.json; do
    echo "$(basename "$(dirname "$result")") $(cat "$result")"
done
