# Rollcall: what to run while working on it and with it. `make` alone lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

BIN := .venv/bin
STAMP := .venv/.installed
MANIFESTS := pyproject.toml uv.lock $(wildcard libs/*/pyproject.toml services/*/pyproject.toml)
SOURCES = $(wildcard libs/*/src services/*/src tests examples benchmarks tools)
COMPOSE = $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose)
ARGS ?=
# Where the test operating system is kept; tests look there too.
VM_CACHE = $(or $(ROLLCALL_VM_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/rollcall/vm)
SEEDS ?= 5000
# The tests that need a Docker engine run where one answers.
MARKS = not debian$(shell docker info >/dev/null 2>&1 || echo " and not compose")$(LIBVIRT)
# Those that need libvirt run where it is there, or can be installed.
LIBVIRT = $(shell { PATH=$$PATH:/usr/sbin command -v libvirtd || { [ "$$(id -u)" = 0 ] && command -v apt-get; }; } >/dev/null || echo " and not libvirt")

# Most tests wait more than they work (ARGS="-n 0": one by one). tests/conftest.py says what is shared.
SIDE_BY_SIDE = -n 3 --dist loadgroup --no-loadscope-reorder

.PHONY: help install check static format test test-clients test-debian test-az integration e2e demo demo-vm demo-libvirt demo-docker up bench simulate mutants golden compose-up compose-down clean

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

install: $(STAMP) ## install Rollcall and its tools into .venv

$(STAMP): $(MANIFESTS) deploy/install
	@deploy/install
	@touch $@

check: static ## format, lint, imports, types and unit tests: under a minute (fewer drawn examples than make test)
	ROLLCALL_EXAMPLES=20 $(BIN)/pytest -q -n auto tests/unit

static: install ## format, lint, imports and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy $(SOURCES)

format: install ## format the code, and mend what can be mended by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: install ## every test: unit, integration, end to end, real clients; with a Docker engine compose too
	$(BIN)/pytest -m "$(MARKS)" $(SIDE_BY_SIDE) tests $(ARGS)

integration: install ## the tests against real Postgres, RabbitMQ, processes and files
	$(BIN)/pytest -m "$(MARKS)" tests/integration $(ARGS)

e2e: install ## the tests of the whole stack
	$(BIN)/pytest -m "$(MARKS)" tests/e2e $(ARGS)

test-clients: install ## real Azure SDKs, installed from PyPI, against the whole stack
	$(BIN)/pytest tests/clients $(ARGS)

test-az: install ## the real az in two versions, from PyPI, against the whole stack (large, so not in make test)
	$(BIN)/pytest tests/az $(ARGS)

test-debian: install ## a full Debian with systemd and cloud-init, upgraded in a virtual machine: minutes
	$(BIN)/pytest tests/vm -m debian $(ARGS)

demo: install ## two upgrades of ten instances on this machine, one good and one bad
	@$(BIN)/rollcall demo $(ARGS)

demo-vm: install ## three upgrades of five virtual machines of QEMU: one good, two bad
	@tests/vm/build-test-os $(VM_CACHE)
	@$(BIN)/rollcall demo-vm --images $(VM_CACHE) $(ARGS)

demo-libvirt: install ## three upgrades of five domains of libvirt, three of which are adopted
	@tests/vm/install-libvirt
	@tests/vm/build-test-os $(VM_CACHE)
	@$(BIN)/rollcall demo-libvirt --images $(VM_CACHE) $(ARGS)

demo-docker: install ## three upgrades of ten containers of a Docker engine: one good, two bad
	@tests/docker/build-images $(VM_CACHE)/containers
	@$(BIN)/rollcall demo-docker --images $(VM_CACHE)/containers $(ARGS)

up: install ## the whole stack on this machine, until Ctrl-C (ARGS="--config FILE")
	@$(BIN)/rollcall up $(ARGS)

bench: install ## measure: overhead of a rollout, swaps of each driver, rate of the control plane
	$(BIN)/python -m benchmarks $(ARGS)

simulate: install ## rollouts in virtual time with every promise checked, on all cores (SEEDS=20000)
	@$(BIN)/rollcall simulate --seeds $(SEEDS) $(ARGS)

mutants: install ## faults planted in a copy of the rules: a test must catch each (ARGS="window")
	$(BIN)/python -m tools.mutants $(ARGS)

golden: install ## write event schemas, the OpenAPI document and stories of rollouts anew, after an intended change
	$(BIN)/python tools/golden.py docs/events tests/unit/rollout/stories docs/openapi.json

compose-up: ## build and start the stack with Docker
	deploy/init
	$(COMPOSE) up --build --detach $(ARGS)

compose-down: ## stop the stack of compose-up; its data stays in volumes
	$(COMPOSE) down $(ARGS)

clean: ## remove what install made
	rm -rf .venv .venv-tools
