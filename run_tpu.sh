#!/usr/bin/env bash
# Trains on Cloud TPUs, one host or a whole pod:
#
#     ./run_tpu.sh NAME ZONE TYPE [flags of train.py ...]
#     ./run_tpu.sh strassen us-central1-a v5litepod-8 \
#         --config tpu_configs/v5e_8_444.py --workdir gs://BUCKET/v5e
#
# Asks for the TPUs as a queued resource, waits for them, installs this commit on all hosts and
# starts train.py there. Each of these is left alone if it is there already, so the same command
# resumes: after an interruption, after pre-emption, or to look whether the run is alive.
#
# SPOT=1 asks for spot capacity, RUNTIME names the image, POLL_SECONDS is the time between looks.
set -euo pipefail

if (($# < 3)); then
  echo "usage: $0 NAME ZONE TYPE [flags of train.py ...]" >&2
  exit 2
fi
name=$1 zone=$2 type=$3
shift 3
cd "$(dirname "${BASH_SOURCE[0]}")"

case $type in
  v5lite*) default_runtime=v2-alpha-tpuv5-lite ;;
  v5p*) default_runtime=v2-alpha-tpuv5 ;;
  v6e*) default_runtime=v2-alpha-tpuv6e ;;
  *) default_runtime=tpu-ubuntu2204-base ;;
esac

queued() {
  gcloud compute tpus queued-resources "$@" "--zone=$zone" --quiet
}

# The state of the request; nothing if there is none.
state() {
  queued list "--filter=name~/$name\$" "--format=value(state.state)"
}

request() {
  local spot=()
  if [[ ${SPOT:-0} == 1 ]]; then
    spot=(--spot)
  fi
  queued create "$name" "--node-id=$name" "--accelerator-type=$type" \
    "--runtime-version=${RUNTIME:-$default_runtime}" ${spot[@]+"${spot[@]}"}
}

# Asks again for what was taken away. Deleting a request deletes its hosts; the run is in its work
# folder, which is elsewhere.
wait_for_hosts() {
  local now
  while now=$(state) && [[ $now != ACTIVE ]]; do
    case $now in
      "") request ;;
      FAILED | SUSPENDED) queued delete "$name" --force ;;
    esac
    echo "$name is ${now:-not requested yet}"
    sleep "${POLL_SECONDS:-30}"
  done
}

on_all_hosts() {
  gcloud compute tpus tpu-vm ssh "$name" "--zone=$zone" --worker=all --quiet "--command=$1"
}

wait_for_hosts
archive=$(mktemp -d)
trap 'rm -rf "$archive"' EXIT
git archive --format=tar.gz --output="$archive/tensorgame.tar.gz" HEAD
gcloud compute tpus tpu-vm scp "$archive/tensorgame.tar.gz" "$name:" "--zone=$zone" --worker=all \
  --quiet

# The images bring an older Python. The lock is held as long as train.py runs.
on_all_hosts "set -euo pipefail
export PATH=\$HOME/.local/bin:\$PATH
if ! flock --nonblock ~/train.lock true; then
  echo 'train.py runs here'
  exit
fi
command -v uv > /dev/null || curl -LsSf https://astral.sh/uv/install.sh | sh
mkdir -p ~/tensorgame
tar -xzf ~/tensorgame.tar.gz -C ~/tensorgame
cd ~/tensorgame
[[ -d ~/venv ]] || uv venv --quiet --python 3.12 ~/venv
uv pip install --quiet --python ~/venv/bin/python -e '.[tpu]'
nohup setsid flock --nonblock ~/train.lock ~/venv/bin/python train.py $(printf '%q ' "$@") \
  >> ~/train.log 2>&1 < /dev/null &
echo 'train.py was started'"

echo "watch it with:"
echo "  gcloud compute tpus tpu-vm ssh $name --zone=$zone --worker=0 --command='tail -f train.log'"
echo "give the TPUs back with:"
echo "  gcloud compute tpus queued-resources delete $name --zone=$zone --force"
