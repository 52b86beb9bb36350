# What a developer types. `make test` is everything that must hold of the code; `.ci/run` adds `make supply-chain`.

CARGO ?= cargo

# The advisory database: the newest snapshot in the folder that lies beside the checkout, where there is one.
ADVISORIES ?= $(lastword $(sort $(wildcard ../shared/data/rustsec-advisories-*.tgz)))

.PHONY: test setup fmt clippy unit otlp openapi benches doc deploy monitoring demo bench peers micro scale store fleet replay attack fuzz supply-chain page screenshot

# In the order in which a mistake is found soonest: two seconds, then minutes. What mostly waits, for a browser or for a
# Prometheus, does so beside what mostly computes.
test: setup fmt clippy unit
	@$(MAKE) --no-print-directory -j 2 --output-sync=target openapi page
	@$(MAKE) --no-print-directory benches
	@$(MAKE) --no-print-directory -j 2 --output-sync=target monitoring doc
	@$(MAKE) --no-print-directory deploy otlp

# What the tests need of the machine, and nothing that is there already.
setup:
	@sh tests/setup.sh

fmt:
	$(CARGO) fmt --check

clippy:
	$(CARGO) clippy --all-targets --all-features --locked -- -D warnings

unit:
	$(CARGO) test --locked

# The feature that exports spans, at a collector: what it needs is built beside the rest.
otlp:
	$(CARGO) test --locked --features otlp --test otlp

# deploy/openapi.yaml by its form, and against the program as `unit` has just built it.
openapi:
	$(CARGO) test --locked --no-run --quiet --test it
	@sh tests/openapi/check.sh "$${CARGO_TARGET_DIR:-target}/debug/audience-gateway"

# The status page in a browser without a screen, against the program as `unit` has just built it.
page:
	$(CARGO) test --locked --no-run --quiet --test it
	@sh tests/page/check.sh check.mjs "$${CARGO_TARGET_DIR:-target}/debug/audience-gateway"

# The picture of the status page that the README shows, after two minutes of load.
screenshot:
	$(CARGO) test --locked --no-run --quiet --test it
	@sh tests/page/check.sh screenshot.mjs "$${CARGO_TARGET_DIR:-target}/debug/audience-gateway" deploy/status-page.png

# Compiled and run once each in the tests' own profile, not measured: the dependencies are not built again.
benches:
	$(CARGO) test --locked --benches

# What is in deploy/, with the tools that read it there; and the image, built and started. Only the program is linked anew: the
# flags, those of deploy/Dockerfile, say nothing to what it is made of.
deploy:
	$(CARGO) rustc --locked --quiet --bin audience-gateway -- -C target-feature=+crt-static -C strip=symbols
	@sh tests/deploy/check.sh "$${CARGO_TARGET_DIR:-target}/debug/audience-gateway"

# Rules, alerts and the dashboard, against a Prometheus that watches a gateway with load on it.
monitoring:
	$(CARGO) build --locked --quiet
	@sh tests/monitoring/check.sh "$${CARGO_TARGET_DIR:-target}/debug/audience-gateway"

doc:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --locked

# What a hit costs, beside hyper itself and other caches, as released: seven minutes, and benches/results is written anew.
# A part of it with `make bench ARGS="--rounds 5 --keys 1,50 --connections 32 --only gateway,floor"`.
bench: peers
	$(CARGO) bench --locked --bench hit_path -- $(ARGS)

# What `bench` compares the gateway with, and nothing that is there already.
peers:
	@sh ci/peers.sh

# The parts of a hit; some with `make micro ONLY=lookup/hot`.
micro:
	$(CARGO) bench --locked --bench lookup -- $(ONLY)

# Millions of customers, and ten thousand callers who wait for one batch; less with `make scale ARGS="--customers 1000000"`.
scale:
	$(CARGO) bench --locked --bench scale -- $(ARGS)

# What a disk with many customers costs, after a crash; `make store ARGS="--customers 1000000"`.
store:
	$(CARGO) bench --locked --bench store -- $(ARGS)

# Several gateways with one slot, as processes with a Redis between them, in six minutes; a part of it with
# `make fleet ARGS="--only scale --gateways 1,4"`, or `--only outage --outage 20s`, or `--only kills`.
fleet: setup
	$(CARGO) bench --locked --bench fleet -- $(ARGS)

# What each idea buys, in virtual time; other loads with `make replay ARGS="--zipf 0.9 --rate 150"`.
replay: ARGS ?= --trace benches/data/trace-web07.txt --rate 220
replay:
	$(CARGO) bench --locked --bench replay -- $(ARGS)

# What ten thousand hostile connections of each kind cost; one kind with `make attack ONLY="half a head"`.
attack:
	$(CARGO) bench --locked --bench attack -- --only "$(ONLY)"

# Bytes that nobody thought of, against what must hold of them: a while for each target, with a nightly compiler and
# cargo-fuzz. `make fuzz SECONDS=1200 TARGETS=path` takes longer, over one.
SECONDS ?= 60
TARGETS ?= directives framing path request upstream write
fuzz:
	@sh ci/fuzz.sh $(SECONDS) $(TARGETS)

demo:
	$(CARGO) run --release --locked -- demo

# Licences, banned and doubled crates, sources, and known vulnerabilities.
supply-chain:
	@sh ci/supply-chain.sh "$(ADVISORIES)"
