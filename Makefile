# What one does with this repository, in one word each. `make` alone lists it.
#
# Works with any make and any POSIX shell. Every step is quick when there is nothing to do, and the first that fails is the last.

# Where cargo builds, and where tools that only the tests need are put.
CARGO_TARGET_DIR ?= target
TOOLS = $(CARGO_TARGET_DIR)/tools

# Seconds since the start, for the headings.
START := $(shell date +%s)
heading = @printf '\n==> %s (after %s s)\n' '$(1)' "$$(( $$(date +%s) - $(START) ))"
# npm ci leaves this behind, newer than what it was made from.
installed = node_modules/.package-lock.json
npm_ci = npm ci --prefix $(1) --no-audit --no-fund --loglevel=error
node_test = cd $(1) && node --test --test-reporter=spec

.PHONY: help run test compose-test clean \
	need-cargo need-npm need-node need-docker tools fmt clippy test-rust doc test-client test-python test-browser test-traefik test-nginx hops-test
# The steps of `make test` share cargo's lock, two cores and a reader.
.NOTPARALLEL:

help:
	@echo 'make run           build and start one hub at http://localhost:3000 (needs Rust and npm, no configuration)'
	@echo 'make test          install what the tests need, then run all of them'
	@echo 'make hops-test     move sessions between instances, 50 times in a row, without and with delays: a quarter of an hour (HOPS_ROUNDS=50)'
	@echo 'make compose-test  build the image, run docker-compose.yml for real and test it (needs Docker)'
	@echo 'make fuzz          feed every decoder with noise, FUZZ_SECONDS each (needs a nightly Rust)'
	@echo 'make bench         measure the hub beside other servers: most of an hour (BENCH_ONLY=steady,idle BENCH_REPS=5 BENCH_SECONDS=5)'
	@echo 'make soak          an hour of clients that come and go in every way: does memory stay flat? (SOAK_SECONDS=600 SOAK_SCALE=10)'
	@echo 'make bench-hops    measure what it costs that sessions hop: some minutes'
	@echo 'make clean         remove what was built and installed here; accounts in data/ stay'
	@echo
	@echo 'docker compose up --build   two hubs, Redis and Traefik at http://localhost:8080'

# ---- run ----------------------------------------------------------------------------------------------------------------

run: need-cargo need-npm static/$(installed)
	@echo 'Building (the first time takes minutes). Then open http://localhost:3000, or what the last line of the log says.'
	@cargo run --release

# ---- test ---------------------------------------------------------------------------------------------------------------

test: need-cargo need-node tools fmt clippy fuzz-check bench-check test-rust doc test-client test-python test-browser test-traefik test-nginx
	$(call heading,everything passed)

tools:
	$(call heading,what the tests need)
	@test/support/install-tools.sh '$(TOOLS)' redis chromium traefik nginx python-socketio

fmt:
	$(call heading,cargo fmt)
	cargo fmt --check --all

clippy: static/$(installed)
	$(call heading,cargo clippy)
	cargo clippy --locked --workspace --all-targets -- -D warnings

# Builds target/debug/sockhop, too, which the tests below start.
test-rust: static/$(installed)
	$(call heading,cargo test: unit$(comma) integration and documentation tests)
	cargo test --locked --workspace

doc:
	$(call heading,cargo doc)
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps --document-private-items

test-client: test/client/$(installed)
	$(call heading,the official client)
	@test/support/install-tools.sh '$(TOOLS)' redis python-socketio
	cargo build --locked --bins --examples
	cargo test --locked --no-run --test conformance
	$(call node_test,test/client)

# -B leaves no __pycache__ behind; sockets that the client forgets to close are not our fault.
test-python:
	$(call heading,the Python client)
	@test/support/install-tools.sh '$(TOOLS)' redis python-socketio
	cargo build --locked --example matrix
	cd test/python && '$(abspath $(TOOLS))/bin/python' -B -W ignore::ResourceWarning -m unittest -v

test-browser: test/browser/$(installed)
	$(call heading,the page in Chromium)
	cargo build --locked
	$(call node_test,test/browser)

test-traefik: test/client/$(installed) test/browser/$(installed)
	$(call heading,two hubs behind Traefik)
	cargo build --locked
	$(call node_test,test/traefik)

test-nginx: test/client/$(installed)
	$(call heading,two hubs behind nginx)
	cargo build --locked
	$(call node_test,test/nginx)

# What `make test` does once, many times in a row. Each round tells how it went as it ends.
HOPS_ROUNDS ?= 50
hops-test: need-cargo need-node test/client/$(installed)
	@test/support/install-tools.sh '$(TOOLS)' redis
	cargo build --locked
	$(call heading,histories of clients whose sessions move: $(HOPS_ROUNDS) rounds)
	cd test/client && KILLS=all HISTORY_ROUNDS='$(HOPS_ROUNDS)' node --test --test-reporter=spec kills.test.mjs history.test.mjs

compose-test: need-node need-docker test/client/$(installed) test/browser/$(installed)
	$(call heading,what the tests need)
	@test/support/install-tools.sh '$(TOOLS)' chromium
	$(call heading,docker-compose.yml (the image takes minutes to build))
	$(call node_test,test/compose)

# What the suite does in half a minute and with a tenth of the clients, each alone on the machine. Client and server have
# thousands of connections, and take the open files for them that the system allows (`ulimit -Hn`).
SOAK_SECONDS ?= 3600
SOAK_SCALE ?= 10
SOAK = cargo test --release --locked --test integration

.PHONY: soak
soak: need-cargo
	@test/support/install-tools.sh '$(TOOLS)' redis
	cargo build --release --locked --bins --example churn
	$(call heading,many clients at once$(comma) $(SOAK_SCALE) times as many as in the suite)
	SOAK_SCALE='$(SOAK_SCALE)' $(SOAK) bounded:: -- --nocapture --test-threads=1
	$(call heading,clients that come and go$(comma) $(SOAK_SECONDS) s)
	SOAK_SECONDS='$(SOAK_SECONDS)' $(SOAK) soak:: -- --nocapture

include fuzz/fuzz.mk
include bench/bench.mk

# ---- parts --------------------------------------------------------------------------------------------------------------

comma = ,

static/$(installed): static/package.json static/package-lock.json
	@$(call npm_ci,static)
	@touch $@
test/client/$(installed): test/client/package.json test/client/package-lock.json
	@$(call npm_ci,test/client)
	@touch $@
test/browser/$(installed): test/browser/package.json test/browser/package-lock.json
	@$(call npm_ci,test/browser)
	@touch $@

need-cargo:
	@command -v cargo >/dev/null || { echo 'cargo is missing. Install Rust: https://rustup.rs' >&2; exit 1; }

need-npm:
	@command -v npm >/dev/null || { \
	  echo 'npm is missing: it brings the official Socket.IO client. Install Node.js 18 or later (https://nodejs.org; Debian: apt-get' >&2; \
	  echo 'install npm). A hub alone starts without it, too: cargo run --release (its page then loads the client from the CDN).' >&2; \
	  exit 1; }

# The tests drive Chromium through Playwright, which does not start with less.
need-node: need-npm
	@node -e 'process.exit(parseInt(process.versions.node, 10) < 20 ? 1 : 0)' \
	  || { echo "The tests need Node.js 20 or later, and this is $$(node --version): https://nodejs.org" >&2; exit 1; }

need-docker:
	@command -v docker >/dev/null || { echo 'docker is missing. Install Docker with its Compose plugin: https://docs.docker.com/engine/install' >&2; exit 1; }
	@docker info >/dev/null 2>&1 || { echo 'docker does not answer. Start its daemon, or ask for the right to use it.' >&2; exit 1; }
	@docker compose version >/dev/null 2>&1 || command -v docker-compose >/dev/null \
	  || { echo 'Docker Compose is missing: https://docs.docker.com/compose/install' >&2; exit 1; }

clean: need-cargo
	cargo clean
	rm -rf static/node_modules test/client/node_modules test/browser/node_modules bench/peers/node/node_modules
