# Everything a user or developer runs. Works from any folder (make -C DIR, make -f DIR/Makefile), as root or not.

ifneq ($(words $(abspath $(lastword $(MAKEFILE_LIST)))) $(words $(filter-out $(MAKEFILES),$(MAKEFILE_LIST))),1 1)
$(error make cannot work in a folder whose path has a space in it: move the clone to one without)
endif
ROOT := $(patsubst %/,%,$(dir $(abspath $(lastword $(MAKEFILE_LIST)))))
# The system's own first: distributions build it with profile-guided optimization, which pyenv and the like leave out.
PYTHON ?= $(shell for name in /usr/bin/python3 python3.11 python3; do \
	$$name -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$name; break; }; done)
VENV := $(ROOT)/.venv
BIN := $(VENV)/bin
PEERS_VENV := $(ROOT)/.venv-peers
IS_ROOT := $(filter 0,$(shell id -u))

PORT ?= 8080
ADMIN_PORT ?= 8081
# As root the embedded PostgreSQL runs as another user, who must reach it: not below a clone in /root.
ROOT_DATA_DIR = /var/lib/clickedge/$(shell printf %s '$(ROOT)' | sha256sum | cut -c1-12)
DATA_DIR ?= $(if $(IS_ROOT),$(ROOT_DATA_DIR),$(ROOT)/data)

# Debian packages that tests and measurements use beside the Python ones.
SYSTEM_PACKAGES := chromium faketime haproxy nginx postgresql-15 prometheus systemd valgrind wrk
MISSING_PACKAGES = $(shell for name in $(SYSTEM_PACKAGES); do dpkg -s $$name >/dev/null 2>&1 || echo $$name; done)

PYTEST_ARGS ?=
GUARD_ARGS ?=
SOAK_MINUTES ?= 30
SOAK_ARGS ?=
CLUSTER_ARGS ?=
# As root PostgreSQL runs as another user here too.
CLUSTER_DIR ?= $(if $(IS_ROOT),$(ROOT_DATA_DIR)-cluster,$(ROOT)/build/cluster)
FUZZ_SECONDS ?= 60
FUZZ_TARGETS ?=
LOCK_ARGS ?=
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
LOCK = cd '$(ROOT)' && $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-header $(LOCK_ARGS)

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev setup-bench setup-peers run test test-browser test-older check system missing faults guard soak cluster cluster-faults bench lock vendor clean fuzz

help:  ## shows this list
	@sed -n 's/^\([a-z-]*\):.*  ## \(.*\)/make \1 — \2/p' '$(ROOT)/Makefile'

setup: $(VENV)/.run-installed  ## makes .venv with the clickedge command in it

setup-dev: $(VENV)/.dev-installed

setup-bench: $(VENV)/.bench-installed

# A stamp is written last: a run that was cut off starts over, a second one is instant.
$(VENV)/.run-installed: $(ROOT)/requirements/run.txt $(ROOT)/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'make: ClickEdge needs Python 3.11 or later as python3; or say make PYTHON=/path/to/python3.11' >&2; exit 2; }
	$(PYTHON) -m venv '$(VENV)'
	$(PIP_INSTALL) --require-hashes -r '$(ROOT)/requirements/run.txt'
	$(PIP_INSTALL) --no-deps -e '$(ROOT)'
	@touch '$@'

$(VENV)/.dev-installed: $(ROOT)/requirements/dev.txt $(VENV)/.run-installed
	$(PIP_INSTALL) --require-hashes -r '$(ROOT)/requirements/dev.txt'
	@touch '$@'

$(VENV)/.bench-installed: $(ROOT)/requirements/bench.txt $(VENV)/.run-installed
	$(PIP_INSTALL) --require-hashes -r '$(ROOT)/requirements/bench.txt'
	@touch '$@'

$(VENV)/.fuzz-installed: $(ROOT)/requirements/fuzz.txt $(VENV)/.dev-installed
	$(PIP_INSTALL) --require-hashes -r '$(ROOT)/requirements/fuzz.txt'
	@touch '$@'

# The servers that ours is measured beside; their versions need not fit ours.
setup-peers: $(PEERS_VENV)/.installed

$(PEERS_VENV)/.installed: $(ROOT)/requirements/peers.txt
	$(PYTHON) -m venv '$(PEERS_VENV)'
	'$(PEERS_VENV)/bin/python' -m pip install --quiet --disable-pip-version-check --require-hashes -r '$<'
	@touch '$@'

run: setup  ## starts ClickEdge with the example catalog: PORT= ADMIN_PORT= DATA_DIR=
	@exec '$(BIN)/clickedge' serve --port $(PORT) --admin-port $(ADMIN_PORT) --data-dir '$(DATA_DIR)' \
		--apply '$(ROOT)/examples/catalog.toml'

test: setup-dev $(if $(IS_ROOT),system)  ## runs the tests: PYTEST_ARGS=
	@for name in $(MISSING_PACKAGES); do echo "make: without Debian's $$name its tests are left out; as root: make system"; done
	cd '$(ROOT)' && $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile $(PYTEST_ARGS)

check: setup-dev  ## lints, checks types, the layers, and dependencies: licences, known vulnerabilities
	cd '$(ROOT)' && $(BIN)/ruff check .
	cd '$(ROOT)' && $(BIN)/mypy
	cd '$(ROOT)' && $(BIN)/python -m pytest --quiet tests/test_layers.py
	cd '$(ROOT)' && $(BIN)/python .ci/licences.py
	cd '$(ROOT)' && $(BIN)/python .ci/audit.py

missing:
	@echo $(MISSING_PACKAGES)

system:  ## installs the Debian packages that tests and measurements use (as root)
	@set -e; missing='$(MISSING_PACKAGES)'; [ -n "$$missing" ] || exit 0; \
	command -v apt-get >/dev/null || { echo "make: no apt-get here to install $$missing"; exit 0; }; \
	apt-get update -qq; \
	for name in $$missing; do \
		apt-cache show $$name >/dev/null 2>&1 || { echo "make: this system has no package $$name"; continue; }; \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$name; \
	done

test-browser: setup-dev $(if $(IS_ROOT),system)  ## runs the tests of the console and of edge.js in chromium
	cd '$(ROOT)' && $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile -m browser $(PYTEST_ARGS)

test-older: setup-dev $(if $(IS_ROOT),system)  ## runs the tests of PostgreSQL again, on Debian's version 15
	cd '$(ROOT)' && $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile -m 'older_server and not faults' $(PYTEST_ARGS)

faults: setup-dev $(if $(IS_ROOT),system)  ## kills processes, cuts wires, fills disks, and counts what arrived
	cd '$(ROOT)' && $(BIN)/python -m pytest -n 2 --dist loadfile -m faults $(PYTEST_ARGS)

fuzz: $(VENV)/.fuzz-installed  ## fuzzes every parser, guided by coverage: FUZZ_SECONDS= for each, FUZZ_TARGETS=
	@mkdir -p '$(ROOT)/build/fuzz/files'
	@set -e; export PYTHONPATH='$(ROOT)' FUZZ_FOLDER='$(ROOT)/build/fuzz/files'; cd '$(ROOT)/build/fuzz'; \
	for name in $(or $(FUZZ_TARGETS),$$($(BIN)/python -m tests.fuzz)); do \
		echo "fuzz: $$name for $(FUZZ_SECONDS) s"; \
		$(BIN)/python -m tests.fuzz $$name $(FUZZ_SECONDS) >$$name.log 2>&1 || { tail -40 $$name.log; exit 1; }; \
		grep 'stat::number_of_executed_units' $$name.log; rm -rf files/*; \
	done

guard: setup-bench $(if $(IS_ROOT),system)  ## has a click become dearer, is what was sent stored: GUARD_ARGS=
	cd '$(ROOT)' && $(BIN)/python -m benchmarks guard $(GUARD_ARGS)

soak: setup-bench $(if $(IS_ROOT),system)  ## mixed load, a fault a minute, and every answer counted: SOAK_MINUTES= SOAK_ARGS=
	cd '$(ROOT)' && $(BIN)/python -m benchmarks.soak --minutes $(SOAK_MINUTES) $(SOAK_ARGS)

cluster: setup-bench  ## three NATS servers, two edges, two drains, one PostgreSQL on this machine, to play with: CLUSTER_DIR=
	@cd '$(ROOT)' && exec $(BIN)/python -m benchmarks.cluster --directory '$(CLUSTER_DIR)' $(CLUSTER_ARGS)

cluster-faults: setup-bench  ## the same under load; everything is killed, cut off, lost, and every answer counted: CLUSTER_ARGS=
	cd '$(ROOT)' && $(BIN)/python -m benchmarks.cluster.faults $(CLUSTER_ARGS)

bench: setup-bench $(if $(IS_ROOT),system)  ## measures; needs a quiet machine
	@$(MAKE) -f '$(ROOT)/Makefile' setup-peers || echo 'make: the peers cannot be installed and are left out'
	cd '$(ROOT)' && $(BIN)/python -m benchmarks

lock: $(VENV)/.run-installed  ## resolves requirements/*.txt anew: LOCK_ARGS=--upgrade for newer versions
	$(PIP_INSTALL) uv
	$(LOCK) pyproject.toml --output-file requirements/run.txt
	$(LOCK) pyproject.toml --extra dev --constraints requirements/run.txt --output-file requirements/dev.txt
	$(LOCK) pyproject.toml --extra bench --constraints requirements/run.txt --output-file requirements/bench.txt
	$(LOCK) pyproject.toml --extra fuzz --extra dev --constraints requirements/dev.txt --output-file requirements/fuzz.txt
	$(LOCK) --group pyproject.toml:peers --output-file requirements/peers.txt

vendor: setup  ## fetches the console's browser libraries again, as pinned (needs npm)
	cd '$(ROOT)' && $(BIN)/python -m edge.admin.console.vendor

clean:  ## removes what was built; data stays
	rm -rf '$(VENV)' '$(PEERS_VENV)' '$(ROOT)/build' '$(ROOT)'/*.egg-info '$(ROOT)/.mypy_cache' '$(ROOT)/.ruff_cache' \
		'$(ROOT)/.pytest_cache' '$(ROOT)/.hypothesis'
	find '$(ROOT)' -name __pycache__ -type d -prune -exec rm -rf {} +
