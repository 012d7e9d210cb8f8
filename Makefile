# Two commands: `make demo` runs the main job, `make test` the tests.  Both do all the set-up themselves.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check bench scale chaos cases crashpoints storm fuzz clean help

demo: $(VENV)/ready  ## run scenarios/quickstart.py on five local machines, without SSH
	$(BIN)/fanout run scenarios/quickstart.py -n 5

test: $(VENV)/ready-test check  ## all tests; installs the OpenSSH server they need (Debian, as root)
	bootstrap/test-machine
	base=$$(mktemp -d /tmp/ft.XXXX) && trap "rm -rf $$base" EXIT && \
	$(BIN)/python -m pytest -n 2 --dist loadfile --basetemp $$base/t  # short: sockets are made below it

check: $(VENV)/ready-test  ## lint, types, import direction: no machine needed
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache > $(VENV)/lint-imports.log || { cat $(VENV)/lint-imports.log; exit 1; }

bench: $(VENV)/ready-test  ## measure fanout on this machine
	bootstrap/test-machine
	$(BIN)/python -m fanout.bench

scale: $(VENV)/ready-test  ## the protocol core with up to 100,000 machines in one process; ARGS='--most 10000'
	$(BIN)/python -m fanout.bench.scale --plots docs $(ARGS)

chaos: $(VENV)/ready-test  ## random faults on a lab; ARGS='--seed 7 --runs 1 --hosts 40'
	$(BIN)/python -m tests.faults.chaos $(ARGS)

cases: $(VENV)/ready-test  ## one fault at a time, of each kind, at each moment of a run, on a lab
	$(BIN)/python -m tests.faults.cases $(ARGS)

crashpoints: $(VENV)/ready-test  ## kill the root at each of its calls to a cloud; ARGS='--points 240 --seed 1'
	$(BIN)/python -m tests.cloud.crashpoints $(ARGS)

storm: $(VENV)/ready-test  ## the same against the pure core, in simulation
	$(BIN)/python -m tests.faults.storm $(ARGS)

fuzz: $(VENV)/ready-test  ## a million inputs at frames and nodes
	$(BIN)/python -m tests.faults.fuzz $(ARGS)

$(VENV)/ready: pyproject.toml
	PYTHON=$(PYTHON) bootstrap/venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/ready-test: $(VENV)/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

clean:  ## remove what was made here
	rm -rf $(VENV) build dist

help:  ## this text
	@awk -F ':.*##  *' '/^[a-z]+:.*##/ {printf "%-12s%s\n", $$1, $$2}' $(MAKEFILE_LIST)
