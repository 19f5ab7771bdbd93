# `make help` lists the targets. Everything a machine lacks beside Python 3.11, Go and root is installed by them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv
PY := $(VENV)/bin/python
CLUSTER := PYTHONPATH=tests $(PY) -m cluster
# With both given, `make demo` uses that cluster; a KUBECONFIG in the environment alone is never used.
KUBECONFIG_FILE ?=
CONTEXT ?=
RUNS ?= runs
# Random orders of events a story that `make soak` tries.
SEEDS ?= 200
export PYTHONDONTWRITEBYTECODE := 1

.PHONY: help install run demo demo-down cluster-up cluster-down test check generate unit e2e bench soak images clean clean-cache

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.installed ## Make .venv with everything (.venv/bin/anneal)

$(VENV)/.installed: requirements/dev.txt pyproject.toml
	@scripts/step "environment" scripts/install $(VENV)
	@touch $@

run: install ## Fine-tune a small model here, without a cluster
	@mkdir -p $(RUNS)
	@scripts/step "model and data" $(PY) -m anneal_trainer quickstart --out $(RUNS)/quickstart
	@$(VENV)/bin/anneal run examples/01-first-lora.yaml --volume runs=$(RUNS)

demo: install ## The same manifest on a real cluster, made for it (or KUBECONFIG_FILE=... CONTEXT=...)
	@PYTHONPATH=tests $(PY) -m demo.demo up --kubeconfig "$(KUBECONFIG_FILE)" --context "$(CONTEXT)"

demo-down: install ## Remove what `make demo` made
	@PYTHONPATH=tests $(PY) -m demo.demo down --kubeconfig "$(KUBECONFIG_FILE)" --context "$(CONTEXT)"

cluster-up: install ## A cluster with everything installed, for work by hand
	@PYTHONPATH=tests $(PY) -m demo.demo cluster-up

cluster-down: install ## Remove it
	@PYTHONPATH=tests $(PY) -m demo.demo cluster-down

images: install ## Build the operator and trainer images
	@$(CLUSTER) images

generate: install ## Write the generated files: CRDs, chart copies, reference
	@scripts/generate

check: install ## Lint, types, import contracts, generated files, fast tests
	@scripts/check

test: install ## Everything: check, trainer tests, then end-to-end on a real cluster
	@scripts/test

unit: install ## Unit tests only
	@$(PY) -m pytest tests --ignore=tests/e2e -n 2 -q

e2e: install ## End-to-end tests only
	@$(PY) -m pytest tests/e2e -q

bench: install ## Measure against peers and limits; a table and bench/results/*.json
	@$(PY) bench/run.py

soak: install ## The whole of the long campaigns that `make test` samples
	@ANNEAL_SOAK_SEEDS=$(SEEDS) $(PY) -m pytest tests/operator/test_stories.py -n 2 -q

clean: ## Remove the environment and local runs
	rm -rf $(VENV) runs bench/results

clean-cache: install ## Remove what is cached outside the checkout (binaries, image layers)
	@$(CLUSTER) clean-cache
