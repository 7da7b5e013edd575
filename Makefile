# Sallyport's house: what a developer, a reviewer and CI call. `make help` lists it.

CARGO ?= cargo
# More options for the benchmark: make bench BENCH="--quick --json figures.json"
BENCH ?=
# What `make soak` holds, and for how long
SESSIONS ?= 1000
MINUTES ?= 10
# How many lines `make bench-search` searches
LINES ?= 1000000
# More options for the tests: make test TEST="--test e2e"
TEST ?=

.DEFAULT_GOAL := help
.PHONY: help demo test check lint fmt deps bench bench-ledger bench-search bench-web soak audit web-check web-test deb

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

demo: ## Build Sallyport and try it: a bastion, a target, a person and a grant, nothing else needed
	$(CARGO) run --release --quiet -- demo

test: deps check ## Everything CI asks: installs what it lacks if it may, checks the code, runs all tests
	$(CARGO) test --workspace $(TEST)
	scripts/check-deploy
	$(MAKE) web-test

check: web-check ## What a reviewer would ask: formatting, clippy, the core built alone, licences and sources, the web app
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) check --package sallyport-domain
	@if $(CARGO) deny --version >/dev/null 2>&1; \
	then $(CARGO) deny check bans licenses sources; \
	else echo "cargo-deny is not installed: licences and sources were not checked (cargo install --locked cargo-deny)"; fi

web-check: web/node_modules/.package-lock.json ## The web app: types, lint, unit tests, the budget of JavaScript
	cd web && npm run --silent check && npm run --silent build -- ../target/web

# Built as the tests have it: without them the dependencies would have other features, and be compiled again.
web-test: web/node_modules/.package-lock.json deps ## The web app in Chromium, against the built program
	$(CARGO) build --workspace --tests
	cd web && npm run --silent browser

web/node_modules/.package-lock.json: web/package-lock.json
	cd web && npm ci --no-audit --no-fund
	@touch $@

lint: check ## The same as check

fmt: ## Format the code
	$(CARGO) fmt --all

deb: ## Build the Debian package (needs cargo-deb)
	scripts/make-deb

deps: ## Install what the tests need (Debian, as root or with sudo), or say what to install
	@scripts/install-test-deps

bench: deps ## Measure against OpenSSH, with recording on; BENCH="--quick" for a first look
	$(CARGO) bench --bench bastion -- $(BENCH)

bench-ledger: deps ## Measure how many events a second the ledger takes on PostgreSQL, for a minute each way
	SALLYPORT_TEST_LARGE=1 $(CARGO) test --release --lib -- --ignored --nocapture --test-threads=1 events_a_second

bench-search: deps ## Measure how long searches take over LINES=1000000 lines on PostgreSQL
	LINES=$(LINES) $(CARGO) test --release --lib -- --ignored --nocapture --test-threads=1 a_search_over_many_lines

bench-web: web/node_modules/.package-lock.json deps ## Measure the replay of 8 hours and 500 MB in Chromium; HOURS=1 MEGABYTES=20 for a first look
	$(CARGO) build --release
	cd web && SALLYPORT="$${SALLYPORT:-$(CURDIR)/target/release/sallyport}" npm run --silent bench

soak: deps ## Hold SESSIONS=1000 sessions for MINUTES=10 and look whether anything is lost, grows or falls behind
	$(CARGO) bench --bench soak -- --sessions $(SESSIONS) --minutes $(MINUTES)

audit: ## Check dependencies for known vulnerabilities (needs cargo-deny and the advisory database)
	$(CARGO) deny check advisories
