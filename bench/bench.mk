# `make bench` and `make bench-hops`, a part of the Makefile at the top; see README.md beside this file.
#
# Not a part of `make test`: the first takes about an hour, and both want the machine for themselves. That what they are made of is sound is.
BENCH_BUILD = $(CARGO_TARGET_DIR)/bench-build
BENCH_PEERS = bench/peers/node/$(installed)

.PHONY: bench bench-hops bench-build bench-check
bench: need-cargo need-node bench-build
	@node bench/run.mjs

# Some minutes.
bench-hops: need-cargo need-node test/client/$(installed)
	@test/support/install-tools.sh '$(TOOLS)' redis
	cargo build --release --locked --bin sockhop
	@SOCKHOP_BIN='$(CARGO_TARGET_DIR)/release/sockhop' node bench/hops.mjs

bench-build: $(BENCH_PEERS)
	cargo build --release --locked --bin sockhop --example bench_rooms
	CARGO_TARGET_DIR='$(abspath $(BENCH_BUILD))' cargo build --release --locked --manifest-path bench/Cargo.toml
	CARGO_TARGET_DIR='$(abspath $(BENCH_BUILD))' cargo build --release --locked --manifest-path bench/peers/socketioxide/Cargo.toml

# Its own lints and tests.
bench-check: need-cargo need-node
	$(call heading,is what measures sound?)
	node --test bench/lib/
	cargo fmt --check --all --manifest-path bench/Cargo.toml
	cargo fmt --check --manifest-path bench/peers/socketioxide/Cargo.toml
	CARGO_TARGET_DIR='$(abspath $(BENCH_BUILD))' cargo clippy --locked --workspace --all-targets --manifest-path bench/Cargo.toml -- -D warnings
	CARGO_TARGET_DIR='$(abspath $(BENCH_BUILD))' cargo test --locked --workspace --manifest-path bench/Cargo.toml

$(BENCH_PEERS): bench/peers/node/package.json bench/peers/node/package-lock.json
	@$(call npm_ci,bench/peers/node)
	@touch $@
