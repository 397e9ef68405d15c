#!/usr/bin/env bash
# Train English to German on Multi30k with one GPU, and score the test set:
#
#   docs/launch/one-gpu-translation.sh DATA WORKDIR [--config.KEY=VALUE ...]
#
# DATA holds train, val and test_2016_flickr, each as .en and .de. The same command again resumes where it stopped. ZOO is
# the command of the zoo (default: python -m zoo).
set -euo pipefail

DATA=${1:?give the directory of Multi30k}
WORKDIR=${2:?give the working directory}
shift 2
read -ra zoo <<<"${ZOO:-python -m zoo}"

"${zoo[@]}" train --config=multi30k.py:en-de --workdir="$WORKDIR" --config.data.path="$DATA" "$@"
"${zoo[@]}" eval "$WORKDIR" --split=test --json >"$WORKDIR/test.json"
cat "$WORKDIR/test.json"
