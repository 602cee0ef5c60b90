# `make fuzz`, a part of the Makefile at the top.
#
# Not a part of `make test`: it needs a nightly toolchain and has no end of its own. That the targets fit what they call is.
FUZZ_SECONDS ?= 60
FUZZ_TOOLCHAIN ?= nightly-x86_64-unknown-linux-gnu
CARGO_FUZZ = $(TOOLS)/bin/cargo-fuzz
FUZZ_TARGETS = $(patsubst fuzz/fuzz_targets/%.rs,%,$(wildcard fuzz/fuzz_targets/*.rs))

.PHONY: fuzz fuzz-check
fuzz-check: need-cargo
	$(call heading,do the fuzz targets fit what they call?)
	cargo fmt --check --manifest-path fuzz/Cargo.toml
	CARGO_TARGET_DIR='$(abspath $(CARGO_TARGET_DIR))' cargo clippy --locked --manifest-path fuzz/Cargo.toml --no-default-features -- -D warnings

fuzz: $(CARGO_FUZZ)
	RUSTUP_TOOLCHAIN='$(FUZZ_TOOLCHAIN)' '$(CARGO_FUZZ)' fuzz build
	@for target in $(FUZZ_TARGETS); do \
		printf '\n==> %s for %s s\n' "$$target" '$(FUZZ_SECONDS)'; \
		mkdir -p "$(CARGO_TARGET_DIR)/fuzz-corpus/$$target"; \
		RUSTUP_TOOLCHAIN='$(FUZZ_TOOLCHAIN)' '$(CARGO_FUZZ)' fuzz run "$$target" \
			"$(CARGO_TARGET_DIR)/fuzz-corpus/$$target" "fuzz/corpus/$$target" \
			-- -max_total_time='$(FUZZ_SECONDS)' -timeout=10 -verbosity=0 -print_final_stats=1 || exit 1; \
	done

$(CARGO_FUZZ):
	cargo install cargo-fuzz --locked --root '$(TOOLS)'
