# What a user runs first, and what contributors and CI run.

CARGO ?= cargo
TOOLS := $(CURDIR)/target/tools
# Tests find the model here and write their data nowhere else.
TEST_HOME := $(CURDIR)/target/nearfield-home
DENY_VERSION := 0.20.2

.PHONY: demo build test fmt clippy model redis tests docs deny

## demo: build, fetch the model, index the bundled knowledge base, answer, serve
demo: build
	./target/release/nearfield demo

build:
	$(CARGO) build --release --locked -p nearfield

## test: everything a contributor and CI run
test: fmt clippy tests docs deny

fmt:
	$(CARGO) fmt --all --check

clippy:
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

model:
	$(CARGO) build --locked -p nearfield
	NEARFIELD_HOME=$(TEST_HOME) ./target/debug/nearfield model pull

redis:
	tools/redis_stack.py

tests: export NEARFIELD_HOME := $(TEST_HOME)
tests: export NEARFIELD_REQUIRE_MODEL := 1
tests: export NEARFIELD_REQUIRE_REDIS := 1
tests: model redis
	if $(CARGO) nextest --version >/dev/null 2>&1; \
	then $(CARGO) nextest run --workspace --locked; \
	else $(CARGO) test --workspace --locked --all-targets; fi
	$(CARGO) test --workspace --locked --doc
	$(CARGO) test --locked -p kernels --features shuttle --test arena_schedules
	$(CARGO) test --locked -p index --features shuttle --test schedules
	$(CARGO) test --locked -p engine --features shuttle --lib schedules

docs:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --locked --no-deps

deny: export PATH := $(TOOLS)/bin:$(PATH)
deny:
	cargo-deny --version 2>/dev/null || $(CARGO) install cargo-deny --version $(DENY_VERSION) --locked --root $(TOOLS)
	$(CARGO) fetch --locked
	$(CARGO) deny --offline check bans licenses sources
	if [ -d "$${CARGO_HOME:-$$HOME/.cargo}/advisory-dbs" ]; then $(CARGO) deny --offline check advisories; \
	else echo "cargo deny: no advisory database on this machine, advisories not checked"; fi
