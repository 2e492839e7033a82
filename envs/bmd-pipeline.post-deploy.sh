#!/usr/bin/env bash
# Snakemake runs this once in the new environment, from the folder that it was started in: the repository's root.
set -euo pipefail
if [ ! -f requirements.lock ]; then
  echo "error: --sdm conda needs the repository's root, whose requirements.lock it installs" >&2
  exit 2
fi
pip install --requirement requirements.lock
pip install --no-deps --no-build-isolation --editable .
