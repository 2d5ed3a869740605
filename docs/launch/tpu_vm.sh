#!/usr/bin/env bash
# On a TPU VM with one host, from the root of the checkout:
#
#     docs/launch/tpu_vm.sh --config tpu_configs/v5e_8_444.py --workdir gs://BUCKET/v5e
#
# Makes an environment in .venv unless it is there, and trains; flags are those of train.py. The same
# command resumes. Over a whole pod run_tpu.sh does this on all hosts.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# The images of TPU VMs bring an older Python.
export PATH=$HOME/.local/bin:$PATH
command -v uv > /dev/null || curl -LsSf https://astral.sh/uv/install.sh | sh
[[ -d .venv ]] || uv venv --quiet --python 3.12 .venv
uv pip install --quiet --python .venv/bin/python -e '.[tpu]'
# A TPU belongs to one process at a time.
exec flock --nonblock --conflict-exit-code 3 .venv/train.lock .venv/bin/python train.py "$@"
