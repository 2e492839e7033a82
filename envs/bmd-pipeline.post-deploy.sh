#!/usr/bin/env bash
# Snakemake runs this once in the new environment, from the repository's root.
set -euo pipefail
pip install -r requirements.lock
pip install --no-deps --editable .
