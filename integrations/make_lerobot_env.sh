#!/usr/bin/env bash
# An environment for the LeRobot distributions and their tests: Python >= 3.12, LeRobot, jepa-mpc and both of them, the
# last three from this checkout. LeRobot wants torch < 2.12; on x86_64 Linux PyPI has that with CUDA only (about 7 GB).
#
#   PYTHON=python3.12 integrations/make_lerobot_env.sh [FOLDER]    (default: lerobot-env)
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
folder=${1:-lerobot-env}
python=${PYTHON:-python3.12}

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 12))'; then
  echo "LeRobot needs Python >= 3.12: name one with PYTHON=, $python is none" >&2
  exit 1
fi
[ -x "$folder/bin/python" ] || "$python" -m venv "$folder"
"$folder/bin/python" -m pip install --disable-pip-version-check \
  "lerobot[training,evaluation]>=0.6,<0.7" -e "$root" -e "$root/integrations/lerobot_policy_jepampc" \
  -e "$root/integrations/lerobot_env_jepampc" "pytest>=8"
echo "LEROBOT_PYTHON=$(realpath -s "$folder/bin/python")"
