# `make run` and `make test` do all their set-up. `make` alone lists what there is.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# Each command is one line of work; cargo uses the cores.
.NOTPARALLEL:

TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
LISTEN ?= 127.0.0.1:8080
APPS ?= examples
BENCH ?=
FUZZ_SECONDS ?= 60

ifdef CI
# Nothing is built twice there: incremental data would only cost time and disk.
export CARGO_INCREMENTAL := 0
endif

.PHONY: help run dev release optimized setup previous check test test-rust test-python test-node test-scripts bench dispatch transport wan fuzz clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

run: release ## build, and serve the examples on LISTEN (or the directories in APPS)
	@exec $(TARGET)/release/fnmesh serve --listen $(LISTEN) $(APPS)

dev: release ## the same with hot reload
	@exec $(TARGET)/release/fnmesh dev --listen $(LISTEN) $(APPS)

release:
	@scripts/setup run
	@cargo build --release -p fnmesh -p fnmesh-python -p fnmesh-nodejs

optimized: ## build guided by a profile, into TARGET/optimized/release: less CPU for a call, 10 to 15 minutes
	@scripts/setup optimize
	@CARGO_TARGET_DIR=$(TARGET) scripts/optimize

setup: ## install what `make test` needs
	@scripts/setup test

previous: ## build the version before, which must work in one mesh with this one (once)
	@CARGO_TARGET_DIR=$(TARGET) scripts/previous

check: setup ## format, lints, documentation
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy -p fnmesh-python --features bench --all-targets -- -D warnings
	RUSTDOCFLAGS=-Dwarnings cargo doc --no-deps --workspace

test: check test-rust test-python test-node test-scripts ## everything, unattended

# What interpreters load is linked into no test: cargo does not build it for the tests by itself.
test-rust test-python: export FNMESH_PYTHON_EXTENSION := $(TARGET)/debug/libfnmesh_python.so
test-rust: export FNMESH_NODE_MODULE := $(TARGET)/debug/libfnmesh_nodejs.so

test-rust: setup previous
	cargo build -p fnmesh-python -p fnmesh-nodejs
	cargo nextest run --workspace
	@unshare --net true 2>/dev/null || echo 'make: the tests of several hosts did not run: they need root, network namespaces and /dev/net/tun' >&2

test-python: setup
	cargo build -p fnmesh-python
	python3 -m unittest discover -s runtime/python/tests

test-node: setup
	@# Without an argument: newer versions of node take no directory.
	cd runtime/node-js && node --test

test-scripts: setup
	cargo build -p fnmesh -p fnmesh-python -p fnmesh-nodejs
	FNMESH=$(TARGET)/debug/fnmesh scripts/check

dispatch: ## compare a call inside the Python worker with a loop over CPython's C API (options in BENCH)
	cargo build --release -p fnmesh-python --features bench --target-dir $(TARGET)/dispatch
	CARGO_TARGET_DIR=$(TARGET) loadtest/dispatch $(BENCH)

bench: optimized ## compare with other servers, write loadtest/RESULTS.md (options in BENCH, such as --quick)
	@scripts/setup bench
	CARGO_TARGET_DIR=$(TARGET)/optimized loadtest/bench --write $(BENCH)

transport: ## compare the mesh's transport with tonic gRPC, write loadtest/TRANSPORT.md (options in BENCH)
	cargo build --release --manifest-path loadtest/transport/Cargo.toml --target-dir $(TARGET)/transport
	CARGO_TARGET_DIR=$(TARGET) loadtest/transport/run --write $(BENCH)

wan: ## measure calls over a long way that loses packets, write loadtest/WAN.md (as root; options in BENCH)
	@scripts/setup run
	cargo build --release -p fnmesh -p fnmesh-python -p fnmesh-nodejs -p fnmesh-openloop -p fnmesh-switch
	cargo build --release --manifest-path loadtest/transport/Cargo.toml --target-dir $(TARGET)/transport
	CARGO_TARGET_DIR=$(TARGET) loadtest/wan --write $(BENCH)

fuzz: ## fuzz each reader of strange bytes for FUZZ_SECONDS
	@scripts/setup fuzz
	for target in bundle frame framing link route rpc; do scripts/fuzz $$target $(FUZZ_SECONDS); done

clean: ## remove all that was built
	cargo clean
	rm -rf fuzz/target
