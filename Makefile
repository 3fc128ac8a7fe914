# Shortfall: two commands do everything on a fresh machine, `make nightly` and `make test`; both set up first.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
READY := .venv/.ready

SOURCE ?= synthetic
DATA ?=
SYMBOLS ?=
FROM ?=
TO ?=
DATE ?=
PROFILE ?= quick
NAME ?= pipeline
OVERLAY ?= local
DEFINITIONS ?= definitions/server
ARGS ?=
SHORTFALL_TIMEZONE ?= UTC
export SHORTFALL_TIMEZONE

.PHONY: images push pin-digests sbom image-locks secrets deploy undeploy
.PHONY: help setup nightly trade up backfill bench train-full data-tables test test-slow test-services test-gpu test-cluster ui-test fix-acceptance mutants lint format constraints clean

help: ## List every target
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

setup: $(READY) ## Create .venv from the pinned constraints and get Java 17

$(READY): pyproject.toml constraints.txt constraints-hashed.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "Python 3.11 is needed; $(PYTHON) is $$($(PYTHON) --version 2>&1): set PYTHON=/path/to/python3.11" >&2; exit 1; }
	.ci/ensure-java
	"$(PYTHON)" -m venv .venv
	@echo "installing the pinned packages into .venv (a few minutes)"
	$(BIN)/pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r constraints-hashed.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[data,train,serve,k8s,dev]'
	@touch $(READY)

nightly: $(READY) ## The nightly flow: SOURCE=synthetic|lean|shfe DATA= SYMBOLS=A,B FROM= TO= PROFILE=quick|full ARGS=
	@$(BIN)/shortfall nightly --source $(SOURCE) $(if $(DATA),--data $(DATA)) $(if $(SYMBOLS),--symbols $(SYMBOLS)) \
	  $(if $(FROM),--from $(FROM)) $(if $(TO),--to $(TO)) --profile $(PROFILE) $(ARGS)

trade: $(READY) ## Trade a day behind the gateway, to its TCA report: SOURCE=synthetic|shfe|... DATA= SYMBOLS= DATE= ARGS=
	@$(BIN)/shortfall trade --source $(SOURCE) $(if $(DATA),--data $(DATA)) $(if $(SYMBOLS),--symbols $(SYMBOLS)) \
	  $(if $(DATE),--date $(DATE)) $(ARGS)

up: $(READY) ## Prefect server with its UI, a worker and the deployments, nightly schedule on; Ctrl-C stops all
	@$(BIN)/shortfall up $(ARGS)

test: $(READY) lint ## Every default test, after lint, types and import contracts
	$(BIN)/pytest $(ARGS)

test-slow: $(READY) ## Long runs
	$(BIN)/pytest -m slow $(ARGS)

test-services: $(READY) ## Tests against real PostgreSQL and Redis servers (installs Debian's), started and stopped on loopback
	@command -v redis-server >/dev/null && ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || { [ "$$(id -u)" = 0 ] && S= || S=sudo; \
	  $$S apt-get update -qq && $$S env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends redis-server postgresql >/dev/null; }
	@[ -x build/mlflow-image/bin/mlflow ] || { "$(PYTHON)" -m venv build/mlflow-image && \
	  build/mlflow-image/bin/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r k8s/images/requirements/mlflow.txt; }
	$(BIN)/pytest -m services $(ARGS)

test-gpu: $(READY) ## Tests that need a GPU
	$(BIN)/pytest -m gpu $(ARGS)

test-cluster: $(READY) ## Tests that need a Kubernetes cluster
	$(BIN)/pytest -m cluster $(ARGS)

train-full: $(READY) ## The full runs behind docs/results.md, and its tables: DATA=FOLDER of samples, ARGS="rb aig"
	@$(BIN)/python -m flows.full_runs $(if $(DATA),--data $(DATA)) $(ARGS)

data-tables: $(READY) ## The accounting of every source of a folder of samples, as docs/data.md shows it: DATA=FOLDER
	@$(BIN)/python -m flows.bench.accounts $(DATA)

bench: $(READY) ## Measure this machine: NAME=pipeline|features|simulator|training|gateway DATA=FOLDER ARGS=--json
	@$(BIN)/shortfall bench $(NAME) $(if $(DATA),--data $(DATA)) $(ARGS)

backfill: $(READY) ## Ticks to features for a range of days: SOURCE= DATA= SYMBOLS= FROM= TO= ARGS=
	@$(BIN)/shortfall backfill --source $(SOURCE) $(if $(DATA),--data $(DATA)) $(if $(SYMBOLS),--symbols $(SYMBOLS)) \
	  $(if $(FROM),--from $(FROM)) $(if $(TO),--to $(TO)) $(ARGS)

ui-test: $(READY) ## Drive the Prefect UI and the operator page in headless Chromium (installs Debian's chromium) and save screenshots
	@command -v chromedriver >/dev/null || { [ "$$(id -u)" = 0 ] && S= || S=sudo; $$S apt-get update -qq && \
	  $$S env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium chromium-driver >/dev/null; }
	$(BIN)/pytest -m ui $(ARGS)

fix-acceptance: $(READY) ## QuickFIX's acceptance suite against the FIX acceptor: DEFINITIONS=FOLDER of its .def files ARGS="--port 9880"
	$(BIN)/python tests/fix_acceptance.py "$(DEFINITIONS)" $(ARGS)

mutants: $(READY) ## Mutation testing of the gateway's controls: NAMES="collar locate", all without; lists what survives
	$(BIN)/python tests/mutants.py $(NAMES)

lint: $(READY) ## ruff, mypy and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY) ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

constraints: $(READY) ## Regenerate constraints.txt from pyproject.toml with the newest versions that fit
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --all-extras --python-version 3.11 --upgrade --prerelease=if-necessary-or-explicit --no-header --annotation-style line -o constraints.txt

image-locks: ## Regenerate the hash-locked requirements of the images from pyproject.toml, within constraints.txt
	@command -v uv >/dev/null || "$(PYTHON)" -m pip install --quiet --disable-pip-version-check uv
	"$(PYTHON)" k8s/images/lock.py

images: ## Build the images with docker, podman or buildah: IMAGES="serve gateway" TAG= REGISTRY= TORCH=cpu|cuda TORCH_INDEX= BASE= PIP_CONF=
	@REGISTRY="$(REGISTRY)" TAG="$(TAG)" TORCH="$(TORCH)" TORCH_INDEX="$(TORCH_INDEX)" BASE="$(BASE)" PIP_CONF="$(PIP_CONF)" k8s/images/build build $(IMAGES)

push: ## Push the images that were built: REGISTRY=registry.example.com/team TAG=
	@REGISTRY="$(REGISTRY)" TAG="$(TAG)" k8s/images/build push $(IMAGES)

pin-digests: $(READY) ## Write the digests of the pushed images into an overlay: REGISTRY= OVERLAY=production TAG=
	@REGISTRY="$(REGISTRY)" TAG="$(TAG)" $(BIN)/python k8s/images/pin.py $(OVERLAY)

sbom: ## Bills of material (CycloneDX JSON) of the images' Python packages, into build/sbom
	@k8s/images/sbom

secrets: $(READY) ## Make the secrets of an overlay into build/secrets: OVERLAY=local ARGS="--rotate NAMESPACE/SECRET"
	@$(BIN)/python k8s/make_secrets.py $(OVERLAY) $(ARGS)

deploy: $(READY) ## Apply an overlay with kubectl and wait until it runs: OVERLAY=local|gpu|production ARGS="--context NAME"
	@$(BIN)/python k8s/deploy.py up $(OVERLAY) $(ARGS)

undeploy: $(READY) ## Take an overlay away; data stay unless ARGS=--delete-data
	@$(BIN)/python k8s/deploy.py down $(OVERLAY) $(ARGS)

clean: ## Remove .venv and caches; the lake stays
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache *.egg-info
