#!/usr/bin/env bash
# Trains on a slice of 64 TPU v5p chips of a GKE cluster that xpk has made:
#
#     docs/launch/gke_xpk.sh CLUSTER ZONE IMAGE gs://BUCKET/FOLDER
#
# IMAGE is that of the Dockerfile in the root, pushed to a registry:
#
#     docker build --tag IMAGE . && docker push IMAGE
#
# A workload of this name that is there is left alone. GKE starts pods again that were pre-empted;
# once xpk has given up, the same command resumes.
set -euo pipefail

if (($# != 4)); then
  echo "usage: $0 CLUSTER ZONE IMAGE gs://BUCKET/FOLDER" >&2
  exit 2
fi
cluster=$1 zone=$2 image=$3 workdir=$4
workload=tensorgame-v5p-64

listed() {
  xpk workload list --cluster "$cluster" --zone "$zone" --filter-by-job "^$workload\$" \
    --filter-by-status "$1" | grep --word-regexp "$workload" > /dev/null
}

if listed QUEUED || listed RUNNING; then
  echo "$workload is there already"
  exit
fi
# One that has ended keeps its name until it is deleted.
if listed FINISHED; then
  xpk workload delete --cluster "$cluster" --zone "$zone" --workload "$workload" --force
fi
xpk workload create --cluster "$cluster" --zone "$zone" --workload "$workload" \
  --tpu-type v5p-128 --num-slices 1 --docker-image "$image" --max-restarts 100 \
  --command "exec python train.py --distributed on --config tpu_configs/v5p_64_all.py \
--workdir $workdir"
