# From a fresh clone: `make run` for results, `make test` for the tests. Both set up .venv first.
#
#   make run TARGET=results/GaussianMixture-smoke/eval.json ARGS="--config preset=smoke"
#   make test ARGS="-k config"

TARGET ?= results/PushT/eval.json
CORES ?= $(shell $(VENV)/bin/python -c \
  'from bmd_pipeline.config.resources import usable_cores; print(usable_cores())')
ARGS ?=
VENV := .venv
AUDIT := .audit
RUNTIME := .onnxruntime-web
READY := $(VENV)/.ready
SNAKEFMT := snakefmt --line-length 120

# What recipes start finds bmd-pipeline here, and so do Snakemake's jobs.
export VIRTUAL_ENV := $(CURDIR)/$(VENV)
export PATH := $(VIRTUAL_ENV)/bin:$(PATH)
# Hundreds of processes start in a run: each would compile the package again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup run test package-test docs playground fault-test fuzz audit determinism slurm-test bench lint \
	format clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/'

setup: $(READY)  ## .venv with the exact versions of requirements.lock

$(READY): requirements.lock pyproject.toml
	@if [ ! -x $(VENV)/bin/python ]; then \
	  for python in "$(PYTHON)" python3.11 python3.12 python3; do \
	    if "$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then \
	      echo "setting up $(VENV) with $$python"; exec "$$python" -m venv $(VENV); \
	    fi; \
	  done; \
	  echo "error: Python 3.11 or 3.12 is needed; name it with make PYTHON=..." >&2; exit 2; \
	fi
	$(VENV)/bin/python -m pip install --quiet --requirement requirements.lock
	$(VENV)/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

run: setup  ## make TARGET (default results/PushT/eval.json) with CORES cores (default: all there are)
	snakemake --cores $(CORES) $(TARGET) $(ARGS)

test: setup  ## the tests
	pytest --numprocesses auto --dist loadfile --ignore tests/package $(ARGS)

package-test: setup  ## the wheel, formats and environments of others, tasks and data of one's own; see docs/install.md
	python -m tests.package $(ARGS)

docs: setup  ## the documentation as a site, in site/; links that lead nowhere are errors
	NO_MKDOCS_2_WARNING=1 python -m mkdocs build --strict

playground: $(RUNTIME)/.ready docs  ## the same with what its playground runs with, by npm; tries it in Chromium
	python -m tests.docs.playground

$(RUNTIME)/.ready:  # what the playground runs its policies with
	mkdir -p $(RUNTIME)
	cd $(RUNTIME) && npm pack --silent onnxruntime-web@1.30.0 && tar xzf *.tgz $(addprefix package/dist/,\
	  ort.wasm.min.mjs ort-wasm-simd-threaded.mjs ort-wasm-simd-threaded.wasm) && rm *.tgz
	touch $@

fault-test: setup  ## kill, damage and fill up whatever can be, about 100 kills; see docs/reliability.md
	python -m tests.faults.campaign $(ARGS)

fuzz: setup  ## malformed settings, command lines, stores and artifacts, 1000 of them; see docs/reliability.md
	python -m tests.fuzz.campaign $(ARGS)

audit: $(AUDIT)/.ready  ## known vulnerabilities of what requirements.lock pins; asks pypi.org
	@$(AUDIT)/bin/pip-audit --strict --no-deps --disable-pip --requirement requirements.lock || \
	  { echo "error: something is vulnerable, or (no network, a mirror without advisories) could not be checked" >&2; exit 1; }

$(AUDIT)/.ready:
	@python3 -m venv $(AUDIT)
	$(AUDIT)/bin/python -m pip install --quiet pip-audit==2.10.1
	@touch $@

determinism: setup  ## a small pipeline twice, every artifact compared
	python -m tests.faults.determinism

slurm-test: setup  ## the workflow on a real one-node Slurm, as root; see docs/cluster.md
	python -m tests.slurm.trial $(ARGS)

bench: setup  ## our speed beside others', in PEERS=<folder with dppo/ and cleanrl/>; see docs/results/speed.md
	python -m benchmarks.speed $(if $(PEERS),--peers "$(PEERS)") $(ARGS)

lint: setup  ## style, types and the workflow's form
	ruff check
	ruff format --check
	mypy
	$(SNAKEFMT) --check Snakefile workflow
	snakemake --lint

format: setup  ## put code and workflow into their form
	ruff check --fix
	ruff format
	$(SNAKEFMT) Snakefile workflow

clean:  ## remove data, results and logs; .venv stays
	rm -rf results logs .snakemake
	find data -mindepth 1 -maxdepth 1 -type d -exec rm -rf {} +
