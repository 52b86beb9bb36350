# What a developer types. `make test` is everything that must hold; `.ci/run` calls it.

CARGO ?= cargo

.PHONY: test setup fmt clippy unit doc benches demo supply-chain

test: setup fmt clippy unit doc benches

# What the tests need of the machine, and nothing that is there already.
setup:
	@sh tests/setup.sh

fmt:
	$(CARGO) fmt --check

clippy:
	$(CARGO) clippy --all-targets --locked -- -D warnings

unit:
	$(CARGO) test --locked

doc:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --locked

# Compiled and run once each, not measured: `cargo bench` measures.
benches:
	$(CARGO) bench --locked --benches -- --test

demo:
	$(CARGO) run --release -- demo
