#!/usr/bin/env bash
# Train on TPU slices of a GKE cluster with the JobSet API: prints the manifest, for kubectl.
#
#   IMAGE=us-docker.pkg.dev/me/zoo/zoo:1 BUCKET=my-bucket docs/launch/gke-jobset.sh gpt2 --config=gpt.py:gpt2_1558m |
#       kubectl apply -f -
#
# IMAGE is Python with seqzoo[tpu] installed. The defaults are for one v5e slice of 16x16; HOSTS is how many machines a
# slice has, CHIPS how many chips a machine. The bucket is mounted by the Cloud Storage FUSE driver, as service account
# ACCOUNT, which may write to it.
set -euo pipefail

NAME=${1:?give the run a name}
shift
: "${IMAGE:?name the image}" "${BUCKET:?name a bucket for the run}"
ACCELERATOR=${ACCELERATOR:-tpu-v5-lite-podslice}
TOPOLOGY=${TOPOLOGY:-16x16}
HOSTS=${HOSTS:-64}
CHIPS=${CHIPS:-4}
SLICES=${SLICES:-1}
ACCOUNT=${ACCOUNT:-default}

# YAML takes a JSON string as it is; a backslash and a quotation mark are all that it needs escaped here.
quoted() {
    local text=${1//\\/\\\\}
    printf '"%s"' "${text//\"/\\\"}"
}

arguments="$(quoted train), $(quoted "--workdir=/mnt/zoo/runs/$NAME")"
for argument in "$@"; do
    arguments+=", $(quoted "$argument")"
done

cat <<MANIFEST
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: $NAME
  annotations:
    alpha.jobset.sigs.k8s.io/exclusive-topology: cloud.google.com/gke-nodepool
spec:
  failurePolicy:
    maxRestarts: 20
  replicatedJobs:
  - name: slice
    replicas: $SLICES
    template:
      spec:
        parallelism: $HOSTS
        completions: $HOSTS
        completionMode: Indexed
        backoffLimit: 0
        template:
          metadata:
            annotations:
              gke-gcsfuse/volumes: "true"
          spec:
            serviceAccountName: $ACCOUNT
            restartPolicy: Never
            terminationGracePeriodSeconds: 300
            nodeSelector:
              cloud.google.com/gke-tpu-accelerator: $ACCELERATOR
              cloud.google.com/gke-tpu-topology: $TOPOLOGY
            containers:
            - name: zoo
              image: $IMAGE
              command: ["zoo"]
              args: [$arguments]
              ports:
              - containerPort: 8471
              - containerPort: 8080
              resources:
                requests:
                  google.com/tpu: $CHIPS
                limits:
                  google.com/tpu: $CHIPS
              volumeMounts:
              - name: bucket
                mountPath: /mnt/zoo
            volumes:
            - name: bucket
              csi:
                driver: gcsfuse.csi.storage.gke.io
                volumeAttributes:
                  bucketName: $BUCKET
                  mountOptions: implicit-dirs
MANIFEST
