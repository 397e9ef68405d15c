#!/usr/bin/env bash
# Train on one TPU slice, or on several as one run: makes queued resources, waits for them, installs the zoo on every host
# and starts the same command on all.
#
#   PROJECT=my-project ZONE=us-west4-a TYPE=v5litepod-256 VERSION=v2-alpha-tpuv5-lite BUCKET=my-bucket \
#       docs/launch/tpu-slice.sh NAME --config=gpt.py:gpt2_1558m --config.data.path=/mnt/zoo/text
#
# SLICES=4 joins four slices over the data-center network; say then also how the mesh lies over them, as
# --config.mesh.dcn_data=4. Run again with the same NAME after an interruption: it resumes from the last checkpoint.
set -euo pipefail

: "${PROJECT:?name a project of Google Cloud}" "${ZONE:?name its zone}" "${BUCKET:?name a bucket for the run}"
TYPE=${TYPE:-v5litepod-16}
VERSION=${VERSION:-v2-alpha-tpuv5-lite}
SLICES=${SLICES:-1}
SOURCE=${SOURCE:?give what pip installs: a git+https://... address or gs://... wheel of this repository}
NAME=${1:?give the run a name}
shift

at=(--project="$PROJECT" --zone="$ZONE")
nodes=("$NAME")
request=(--node-id="$NAME")
if ((SLICES > 1)); then
    mapfile -t nodes < <(seq -f "$NAME-%.0f" 0 $((SLICES - 1)))
    request=(--node-prefix="$NAME" --node-count="$SLICES")
fi

if ! gcloud compute tpus queued-resources describe "$NAME" "${at[@]}" >/dev/null 2>&1; then
    gcloud compute tpus queued-resources create "$NAME" "${at[@]}" "${request[@]}" \
        --accelerator-type="$TYPE" --runtime-version="$VERSION"
fi
until state=$(gcloud compute tpus queued-resources describe "$NAME" "${at[@]}" --format='value(state.state)') &&
    [[ $state == ACTIVE ]]; do
    if [[ $state == FAILED || $state == SUSPENDED ]]; then
        echo "the slice is $state: delete the queued resource $NAME and ask again" >&2
        exit 1
    fi
    echo "the slice is $state" >&2
    sleep 30
done

on_all_hosts() {
    local node pids=()
    for node in "${nodes[@]}"; do
        gcloud compute tpus tpu-vm ssh "$node" "${at[@]}" --worker=all --command="$1" &
        pids+=($!)
    done
    for pid in "${pids[@]}"; do
        wait "$pid"
    done
}

# The bucket is mounted, so that every host sees one working directory.
on_all_hosts "set -e
    python3 -m venv ~/zoo-env
    ~/zoo-env/bin/pip install --quiet 'seqzoo[tpu] @ $SOURCE'
    sudo mkdir -p /mnt/zoo && sudo chown \"\$USER\" /mnt/zoo
    mountpoint -q /mnt/zoo || gcsfuse --implicit-dirs '$BUCKET' /mnt/zoo"

# What follows NAME goes to train as it stands; printf quotes it for the hosts' shells.
on_all_hosts "\$HOME/zoo-env/bin/zoo train --workdir=/mnt/zoo/runs/$NAME $(printf '%q ' "$@")"
