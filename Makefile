# Annulus. `make demo` shows what it does, `make test` proves it; both install what they need.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/annulus
# Outside the checkout, so that another checkout starts warm.
export CARGO_TARGET_DIR ?= $(CACHE)/target

# Leave the cluster up after the demo: make demo KEEP=1
KEEP ?=
# Where the operator runs.
OPERATOR_NAMESPACE := annulus-system
# What the end-to-end tests are narrowed down to: make e2e ONLY=reverse
ONLY ?=

.PHONY: help
help: ## Show what can be made
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

.PHONY: demo
demo: ## Scale a cluster 3 -> 5 -> 3 under load on a real Kubernetes and count what is lost
	KEEP='$(KEEP)' tests/demo.sh

.PHONY: test
test: check sim faults-short e2e ## Everything: format, clippy, unit and process tests, simulation, faults, end-to-end tests

.PHONY: check
check: format lint unit bench-short charts-check ## All that needs no Kubernetes

.PHONY: format
format: ## Formatting is as rustfmt wants it
	cargo fmt --all --check

.PHONY: lint
lint: ## Clippy and rustdoc have nothing to say
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --locked -q

.PHONY: unit
unit: ## Unit, property and process tests
	cargo build --locked --workspace --bins
	cargo test --workspace --locked

.PHONY: charts-check
charts-check: ## The chart is clean
	tests/cluster/tools.sh
	PATH="$(CACHE)/kubernetes-1.34.4:$$PATH" helm lint --strict charts/annulus

# How many seeds `make sim` runs, or the one to tell about: make sim SEED=37
SEEDS ?= 500
SEED ?=
MINUTES ?= 10

.PHONY: sim
sim: ## Whole nodes in a deterministic simulation: SEEDS=500, or one to replay with SEED=37
	cargo build --locked -q -p annulus-sim
	"$(CARGO_TARGET_DIR)/debug/annulus-sim" $(if $(SEED),one --talk --seed $(SEED),run --seeds $(SEEDS))

# The fuzz tests: what `make unit` runs for a second each, by package and, where they are unit tests, by name.
FUZZ := cargo test --locked -p dynamo -p annulus-operator --test fuzz -- --nocapture --test-threads=16 && \
	cargo test --locked -p annulus-node --lib -- --nocapture --test-threads=16 survive any_stream any_split any_journal

.PHONY: soak
soak: ## The simulation for as long as told, and all decoders fuzzed for a fifth as long before: MINUTES=10
	cargo build --locked -q -p annulus-sim
	export FUZZ_SECONDS=$$(($(MINUTES) * 4)); $(FUZZ)
	"$(CARGO_TARGET_DIR)/debug/annulus-sim" soak --minutes $(MINUTES)

.PHONY: planted
planted: ## Put known bugs into the nodes, one at a time, and see which checker finds each after how many seeds
	cargo build --locked -q -p annulus-sim --features planted --target-dir "$(CARGO_TARGET_DIR)/planted"
	"$(CARGO_TARGET_DIR)/planted/debug/annulus-sim" planted

.PHONY: faults
faults: ## Real nodes with disks and networks of their own, which are broken under load: make faults ONLY="kill pause"
	tests/faults/tools.sh
	cargo build --locked -q --workspace --bins
	'$(CARGO_TARGET_DIR)/debug/annulus-faults' $(ONLY)

.PHONY: faults-short
faults-short: ## The most telling of them
	tests/faults/tools.sh
	cargo build --locked -q --workspace --bins
	'$(CARGO_TARGET_DIR)/debug/annulus-faults' --short

.PHONY: faults-planted
faults-planted: ## Nodes with known bugs in them lose power and go back in time: what they lose is found
	tests/faults/tools.sh
	cargo build --locked -q --workspace --bins
	cargo build --locked -q -p annulus-node --features planted --target-dir '$(CARGO_TARGET_DIR)/planted'
	'$(CARGO_TARGET_DIR)/debug/annulus-faults' power-loss-all --planted ack-before-sync \
		--node '$(CARGO_TARGET_DIR)/planted/debug/annulus-node'
	'$(CARGO_TARGET_DIR)/debug/annulus-faults' dots-rolled-back --planted dot-reuse-after-volume-loss \
		--node '$(CARGO_TARGET_DIR)/planted/debug/annulus-node'

.PHONY: e2e
e2e: ## End-to-end tests on a real Kubernetes
	ONLY='$(ONLY)' tests/e2e.sh

.PHONY: compat
compat: ## Client libraries against a ring on loopback, or on a Kubernetes: make compat ONLY=python WHERE=kubernetes
	cargo build --locked --workspace --bins
	ONLY='$(ONLY)' WHERE='$(WHERE)' tests/compat/run.sh

.PHONY: fuzz
fuzz: ## Damaged bytes to every decoder of what comes from clients, peers, disks and people: make fuzz MINUTES=60
	export FUZZ_SECONDS=$$(($(MINUTES) * 20)); $(FUZZ)

.PHONY: crds
crds: ## Write the CRDs anew from the operator's types
	cargo run --locked -q -p annulus-operator -- crd > crds/keyvalueclusters.annulus.dev.yaml

.PHONY: bench
bench: ## Figures beside Redis Cluster, etcd and the limits of this machine, all in one run
	bench/tools.sh
	cargo build --profile fast --locked -p annulus-node -p annulus-bench
	cargo run --release --locked -q -p dynamo --example claim
	cargo run --release --locked -q -p dynamo --example plan
	'$(CARGO_TARGET_DIR)/fast/annulus-bench' limits
	'$(CARGO_TARGET_DIR)/fast/annulus-bench' engine
	'$(CARGO_TARGET_DIR)/fast/annulus-bench' compare --svg docs/performance.svg
	'$(CARGO_TARGET_DIR)/fast/annulus-bench' idle
	'$(CARGO_TARGET_DIR)/fast/annulus-bench' growth
	'$(CARGO_TARGET_DIR)/fast/annulus-bench' moves

# The load that is profiled, by its name in `make bench`: make profile LOAD="get ×16"
LOAD ?= put
empty :=

.PHONY: profile
profile: ## Where the processor time of three nodes goes under a load, as a flame graph
	cargo build --profile fast --locked -p annulus-node -p annulus-bench
	bench/profile.sh '$(CARGO_TARGET_DIR)/fast' 'docs/flamegraph-$(subst ×,,$(subst $(empty) $(empty),-,$(LOAD))).svg' '$(LOAD)'

.PHONY: bench-short
bench-short: ## The same for a moment each, with the programs that the tests use: that it works, not how fast
	bench/tools.sh
	cargo build --locked -p annulus-node -p annulus-bench
	'$(CARGO_TARGET_DIR)/debug/annulus-bench' engine --rounds 1 --seconds 1
	'$(CARGO_TARGET_DIR)/debug/annulus-bench' compare --keys 5000 --seconds 0.5 --rounds 1 --strict
	'$(CARGO_TARGET_DIR)/debug/annulus-bench' limits --seconds 0.5
	'$(CARGO_TARGET_DIR)/debug/annulus-bench' growth --nodes 3,4 --keys 1000,2000 --ring-keys 2000 --seconds 0.5

.PHONY: repair-figure
repair-figure: ## A million keys at three nodes, ten thousand of which differ: how soon and at what cost they are equal
	cargo test --profile fast --locked -p annulus-node --test repair a_million_keys -- --ignored --nocapture

.PHONY: down
down: ## Remove the local Kubernetes with everything in it
	tests/cluster/down.sh
