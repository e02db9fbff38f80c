# Build, test and measurement entry points for users, contributors and CI. CONTRIBUTING.md says when to run which.

CARGO ?= cargo
TOOLS := $(CURDIR)/target/tools
# Home directory of the tests: the model is installed here once.
TEST_HOME := $(CURDIR)/target/nearfield-home
# With the checks of overflow and of unsafe preconditions, which the dev profile leaves out of the kernels.
CHECKED_KERNELS := --config profile.dev.package.kernels.debug-assertions=true \
	--config profile.dev.package.kernels.overflow-checks=true
DENY_VERSION := 0.20.2
FUZZ_VERSION := 0.13.2
CYCLONEDX_VERSION := 0.5.9
DEB_VERSION := 3.8.0

.PHONY: demo build check test test-long long-crashes long-damage long-histories long-schedules long-requests long-timing long-load long-offline soak sanitize sanitize-threads fuzz fmt clippy model redis tests docs deny sbom wheel npm dist deb test-wheel test-packages

## demo: build, fetch the model, index the sample knowledge base, answer questions, serve
demo: build
	./target/release/nearfield demo

build:
	$(CARGO) build --release --locked -p nearfield

## check: format, clippy, and every test that needs no model, no Redis and no network beyond crates
# 0 skips tests even where the model or Redis Stack is installed.
check: export NEARFIELD_REQUIRE_MODEL := 0
check: export NEARFIELD_REQUIRE_REDIS := 0
check: export NEARFIELD_REQUIRE_TOOLS :=
# Half the size or less of the repeated tests that take longest. Each repetition is checked by itself, so fewer of them
# assert as much about each; `make test` has the sizes at which rare faults show.
check: export CHURN_DOCUMENTS := 10000
check: export DAMAGES := 300
check: export FAULT_SEEDS := 50
check: export CHAOS_KILLS := 4
# Left to `make test`: the tests that fill a file system or the memory, which take a quarter of the time of all.
check: fmt clippy
	if $(CARGO) nextest --version >/dev/null 2>&1; \
	then $(CARGO) nextest run --workspace --locked -E 'not test(/^(disk_full|huge_bodies|memory_limit)::/)'; \
	else $(CARGO) test --workspace --locked --all-targets; fi

## test: everything CI runs
test: fmt clippy tests test-wheel docs deny

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
	$(CARGO) test $(CHECKED_KERNELS) --locked -p kernels --lib --tests
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
	CARGO_NET_OFFLINE=true $(CARGO) build --locked -p nearfield

# Tools written in Python, at the versions in packaging/requirements.txt.
PACKAGING := target/packaging
$(PACKAGING)/ready: packaging/requirements.txt
	python3 -m venv $(PACKAGING)
	$(PACKAGING)/bin/pip install --quiet --disable-pip-version-check --requirement $<
	touch $@
MATURIN = cd packaging/python && PATH="$(CURDIR)/$(PACKAGING)/bin:$$PATH" maturin build --locked

# A wheel of the debug build, installed into a fresh environment: one search with its command.
test-wheel: export NEARFIELD_HOME := $(TEST_HOME)
test-wheel: model $(PACKAGING)/ready
	rm -rf target/test-wheel
	$(MATURIN) --profile dev --compatibility linux --out $(CURDIR)/target/test-wheel
	python3 -m venv target/test-wheel/environment
	target/test-wheel/environment/bin/pip install --quiet --disable-pip-version-check --no-index target/test-wheel/*.whl
	tools/installed_test.sh target/test-wheel/environment/bin/nearfield $(TEST_HOME)/models
	tools/installed_test.sh "target/test-wheel/environment/bin/python -m nearfield" $(TEST_HOME)/models

## wheel: Python wheel with the program, for Linux with glibc 2.17 or newer, in target/packages
DIST := $(CURDIR)/target/packages
# zig compiles and links C code against an old glibc.
WHEEL_FLAGS ?= --zig --target x86_64-unknown-linux-gnu --compatibility manylinux2014
wheel: $(PACKAGING)/ready
	rm -f $(DIST)/*.whl
	$(MATURIN) --profile dist $(WHEEL_FLAGS) --out $(DIST)

## npm: npm packages with the program of the wheel
npm: wheel
	tools/package.py npm $(DIST)/*.whl $(DIST)

## deb: Debian package with the program of the wheel
deb: export PATH := $(TOOLS)/bin:$(PATH)
deb: wheel sbom
	cargo-deb --version 2>/dev/null || $(CARGO) install cargo-deb --version $(DEB_VERSION) --locked --root $(TOOLS)
	tools/package.py stage $(DIST)/*.whl target/deb
	cargo-deb --package nearfield --no-build --no-strip --output $(DIST)/

## dist: everything that is published: wheel, npm packages, archive, Debian package, bill of materials, checksums
dist: wheel npm sbom deb
	tools/package.py archive $(DIST)/*.whl $(DIST)
	cp target/nearfield.cdx.json $(DIST)/
	cd $(DIST) && find . -type f ! -name SHA256SUMS | sort | xargs sha256sum >SHA256SUMS

# Installs every package as a user would, and prints the time until the first answers. Needs root, debootstrap and mirrors
# of pip, npm and Debian.
test-packages: dist model
	tools/packages_test.py $(DIST) $(TEST_HOME)/models
	tools/deb_test.sh $(DIST)/*.deb $(TEST_HOME)/models
	tools/image_test.sh target/deb/nearfield $(TEST_HOME)/models

## sbom: CycloneDX bill of materials in target/nearfield.cdx.json
sbom: export PATH := $(TOOLS)/bin:$(PATH)
sbom:
	cargo-cyclonedx cyclonedx --version 2>/dev/null || \
		$(CARGO) install cargo-cyclonedx --version $(CYCLONEDX_VERSION) --locked --root $(TOOLS)
	cargo-cyclonedx cyclonedx --manifest-path crates/app/Cargo.toml --describe binaries --format json --spec-version 1.5
	rm crates/bench/nearfield-bench_bin.cdx.json
	sed 's|file://$(CURDIR)|file:///nearfield|g' crates/app/nearfield_bin.cdx.json >target/nearfield.cdx.json
	rm crates/app/nearfield_bin.cdx.json
	grep -c '"type": "library"' target/nearfield.cdx.json

## test-long: tests that are too long for every change; each part takes less than half an hour
test-long: long-crashes long-damage long-histories long-schedules long-requests long-timing long-load long-offline fuzz sanitize sanitize-threads

# A hundred kills of the real server; ten thousand power losses; each disk call failing once.
long-crashes:
	CHAOS_KILLS=100 $(CARGO) test --release --locked -p nearfield --test process kills -- --nocapture
	FAULT_SEEDS=10000 $(CARGO) test --release --locked -p engine --test engine faults -- --nocapture
	PROPTEST_CASES=10000 $(CARGO) test --release --locked -p store --test keyspace power_loss

# Ten thousand flipped bits in every kind of file.
long-damage:
	DAMAGES=10000 $(CARGO) test --release --locked -p engine --test engine damage -- --nocapture

long-histories:
	PROPTEST_CASES=20000 $(CARGO) test --release --locked -p engine --test engine histories -- --nocapture

# Ten thousand random thread schedules and ten thousand by priorities, of every scenario.
long-schedules: export SCHEDULES := 10000
long-schedules:
	$(CARGO) test --release --locked -p kernels --features shuttle --test arena_schedules
	$(CARGO) test --release --locked -p index --features shuttle --test schedules -- --nocapture
	$(CARGO) test --release --locked -p engine --features shuttle --lib schedules

# Ten thousand requests generated from /openapi.json.
long-requests: export NEARFIELD_HOME := $(TEST_HOME)
long-requests: export NEARFIELD_REQUIRE_MODEL := 1
long-requests: model
	tools/schemathesis.py
	SCHEMATHESIS_EXAMPLES=200 $(CARGO) test --release --locked -p nearfield --test process generated -- --nocapture

# Whether the time to reject a key reveals how wrong it is.
long-timing:
	$(CARGO) test --release --locked -p server --lib rejection_time -- --ignored --nocapture

# Ten times the load that can be carried; restarts with 250,000 documents. Prints measurements, asserts nothing.
long-load: export NEARFIELD_HOME := $(TEST_HOME)
long-load: model
	$(CARGO) build --release --locked -p nearfield -p nearfield-bench
	./target/release/nearfield-bench overload
	./target/release/nearfield-bench restart

# A release build from scratch without a network (in a network namespace where the system allows one), which shows that no
# build script downloads anything.
long-offline:
	$(CARGO) fetch --locked
	alone=$$(unshare -rn true 2>/dev/null && echo unshare -rn); \
	CARGO_NET_OFFLINE=true $$alone $(CARGO) build --release --locked -p nearfield --target-dir target/offline
	rm -rf target/offline

## soak: two hours of searches, writes, deletes, expiry and collection changes at once
soak: export NEARFIELD_HOME := $(TEST_HOME)
soak: model
	$(CARGO) build --release --locked -p nearfield -p nearfield-bench
	./target/release/nearfield-bench --json soak --minutes 120

# AddressSanitizer. The stable toolchain includes the sanitizers' runtimes; only the flags are unstable. Kernels run at
# every instruction set the machine has.
HOST := $(shell rustc -vV | sed -n 's/^host: //p')
sanitize:
	RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address $(CARGO) test $(CHECKED_KERNELS) --locked -p kernels -p index -p store --lib --tests \
		--target $(HOST) --target-dir target/sanitize
	RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address $(CARGO) test $(CHECKED_KERNELS) --locked -p engine --lib --tests \
		--target $(HOST) --target-dir target/sanitize

# ThreadSanitizer, one minute per stress test. The standard library is not compiled for it (that needs its source and a
# nightly toolchain), hence the suppressions.
THREADS := RUSTC_BOOTSTRAP=1 STRESS_SECONDS=60 TSAN_OPTIONS=suppressions=$(CURDIR)/tools/tsan.suppressions \
	RUSTFLAGS="-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer --cfg thread_sanitizer" \
	$(CARGO) test --locked --target $(HOST) --target-dir target/sanitize-threads
sanitize-threads:
	$(THREADS) -p kernels --lib arena -- --nocapture
	$(THREADS) -p index --test index stress -- --nocapture
	$(THREADS) -p engine --test engine stress -- --nocapture
	$(THREADS) -p engine --test engine concurrency

# libFuzzer with AddressSanitizer, FUZZ_SECONDS per target. New inputs go to target/corpus; the corpora in the repository
# are the starting point and stay unchanged.
FUZZ_SECONDS ?= 60
FUZZ_TARGETS := filter_parse vector_blob schema_bytes storage_record backup_file graph_snapshot \
	collection_snapshot tokenizer_text model_files csv_rows jsonl_rows ndjson_lines http_request \
	config_toml redis_reply
fuzz: export PATH := $(TOOLS)/bin:$(PATH)
fuzz: export RUSTC_BOOTSTRAP := 1
fuzz:
	cargo-fuzz --version 2>/dev/null || $(CARGO) install cargo-fuzz --version $(FUZZ_VERSION) --locked --root $(TOOLS)
	for target in $(FUZZ_TARGETS); do \
		mkdir -p target/corpus/$$target; \
		$(CARGO) fuzz run $$target target/corpus/$$target fuzz/corpus/$$target -- -max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=1024 || exit 1; done
