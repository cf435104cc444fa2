# Targets for users, tests and contributors. `make` alone lists them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

TARGET := $(or $(CARGO_TARGET_DIR),target)
LOGS := $(TARGET)/test-logs
CHROMIUM ?= /usr/bin/chromium
SEEDS ?= 20000
FUZZ ?= text_op_parse rich_op_parse transform request_parse
FUZZ_SECONDS ?= 60
CUTS ?= 10000
SECONDS ?= 60
CLIENTS ?= 200
DOCS ?= 24
# Files of tests/js that assert times, and files of tests/cluster that assert none: `make test` runs those that assert times
# alone, and the others side by side.
TIMED_CLIENTS := greedy.test.mjs people.test.mjs
UNTIMED_CLIENTS := $(filter-out $(TIMED_CLIENTS),$(notdir $(wildcard tests/js/*.test.mjs)))
UNTIMED_CLUSTER := $(addsuffix .test.mjs,balancers deploy history idle ledger manifests metrics rebalance)
TIMED_CLUSTER := $(filter-out $(UNTIMED_CLUSTER),$(notdir $(wildcard tests/cluster/*.test.mjs)))
CLUSTER_PACKAGES := tests/js/node_modules/.stamp tests/cluster/node_modules/.stamp
export COPYDESK_BIN ?= $(abspath $(TARGET))/debug/copydesk
export CHROMIUM

##@ Use

.PHONY: help
help: ## List what can be done
	@awk 'BEGIN { FS = ":.*## " } /^##@ / { printf "\n%s\n", substr($$0, 5) } /^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: run
run: tools static ## Build the server and serve on this machine: ARGS="--listen 0.0.0.0:8080 --data DIR"
	@echo "== building the server (a few minutes the first time)"
	cargo build --release --bin copydesk
	echo "== the page: http://127.0.0.1:8080/ unless ARGS or config.toml say otherwise; Ctrl-C ends it"
	exec $(TARGET)/release/copydesk serve $(ARGS)

.PHONY: dev
dev: tools static ## Develop: the server without accounts, and the web editor with reload on http://127.0.0.1:5173/
	@cargo build --workspace --bin copydesk
	"$(COPYDESK_BIN)" serve --open --listen 127.0.0.1:8080 --data data/dev &
	trap "kill $$!" EXIT
	cd static && npx vite --host 127.0.0.1 --port 5173 --strictPort

.PHONY: cluster
cluster: tools servers static ## Try a whole cluster on this machine: NODES=3 PORT=8080 ARGS=--open; Ctrl-C ends it
	@echo "== building the server (a few minutes the first time)"
	cargo build --release --bin copydesk
	COPYDESK_BIN=$(TARGET)/release/copydesk exec deploy/cluster.sh

.PHONY: static
static: static/dist/index.html ## Build the web editor

##@ Check

.PHONY: check
check: tools static/node_modules/.stamp node_modules/.stamp ## Before a commit: format, lints, types, unit tests (about a minute when warm)
	@cargo fmt --all --check
	npx biome ci --error-on-warnings
	npm run check --silent --prefix static
	mkdir -p static/dist
	cargo clippy --workspace --all-targets -- -D warnings
	if command -v cargo-nextest >/dev/null; then
		cargo nextest run --workspace --lib --bins --test layers --test log_lines --test language --status-level fail
	else
		cargo test --workspace --lib --bins --test layers --test log_lines --test language
	fi

.PHONY: test
test: tools chromium servers balancers static $(CLUSTER_PACKAGES) tests/browser/node_modules/.stamp node_modules/.stamp ## Check everything; the last line is the sum
	@rm -rf $(LOGS)
	mkdir -p $(LOGS)
	# All suites run, also after a failure.
	suite() {
		local name=$$1 status=0 start=$$(date +%s)
		shift
		echo; echo "== $$name: $$*" | cut -c1-160
		export COPYDESK_SKIP_LOG="$(abspath $(LOGS))/$$name.skips"
		"$$@" 2>&1 | tee "$(LOGS)/$$name.log" || status=1
		echo $$status >"$(LOGS)/$$name.status"
		echo "$$(($$(date +%s) - start)) s $$name" >>"$(LOGS)/times"
	}
	in_folder() { (cd "$$1" && "$${@:2}"); }
	node_tests() { in_folder "tests/$$1" node --test --test-force-exit --test-concurrency=1 --test-reporter=spec "$${@:2}"; }
	# 1. Compilers: they use all processors.
	suite format cargo fmt --all --check
	suite web npx biome ci --error-on-warnings
	suite lints cargo clippy --workspace --all-targets -- -D warnings
	if command -v cargo-nextest >/dev/null; then
		suite rust cargo nextest run --workspace --no-fail-fast --color never
		suite docs cargo test --workspace --doc --no-fail-fast
	else
		suite rust cargo test --workspace --no-fail-fast
	fi
	suite server cargo build --workspace --bin copydesk
	# 2. Suites that mostly wait, side by side. All but the browser tests print to their logs only.
	suite dependencies nice -n 19 tests/dependencies.sh >/dev/null &
	suite waits in_folder tests/cluster npm --silent run test:waits >/dev/null &
	{ suite clients node_tests js $(UNTIMED_CLIENTS); suite cluster node_tests cluster $(UNTIMED_CLUSTER); } >/dev/null &
	suite browser in_folder tests/browser npm test
	wait
	# 3. Test files that assert times, alone.
	suite clients-timed node_tests js $(TIMED_CLIENTS)
	suite cluster-timed node_tests cluster $(TIMED_CLUSTER)
	echo; echo "== seconds by suite"; cat "$(LOGS)/times"
	node tests/sum.mjs $(LOGS)

.PHONY: cluster-test
cluster-test: tools servers balancers static $(CLUSTER_PACKAGES) ## Run the cluster tests alone: failures of nodes, Postgres and Redis
	@cargo build --workspace --bin copydesk
	cd tests/cluster
	npm test
	npm run test:waits

.PHONY: chaos
chaos: tools servers $(CLUSTER_PACKAGES) ## Inject random faults into a cluster and audit the log: SECONDS=60 SEED=1
	@cargo build --workspace --bin copydesk
	cd tests/cluster && node --test --test-force-exit history.test.mjs
	# By env: SECONDS is a special variable of bash.
	cd tests/cluster && exec env SECONDS=$(SECONDS) CLIENTS=$(CLIENTS) DOCS=$(DOCS) $(if $(SEED),SEED=$(SEED)) node chaos.mjs

.PHONY: cluster-bench
cluster-bench: tools servers $(CLUSTER_PACKAGES) ## Kill nodes and compare the waits with their limits: KILLS=30 (a few minutes)
	@cargo build --release --bin copydesk
	cd tests/cluster && exec env $(if $(KILLS),KILLS=$(KILLS)) $(if $(SEED),SEED=$(SEED)) COPYDESK_BIN=$(abspath $(TARGET))/release/copydesk node failover-bench.mjs

.PHONY: bench-cluster
bench-cluster: tools servers ## Compare several nodes with as many of ShareDB, on one Postgres and one Redis
	@loadtest/peers/bench.sh --cluster $(ARGS)

.PHONY: bench
bench: tools ## Benchmarks: the OT operations, then Copydesk beside ShareDB (ARGS go to loadtest/peers/bench.sh)
	@cargo test --release --workspace --test ot_bench -- --ignored --nocapture
	loadtest/peers/bench.sh $(ARGS)

.PHONY: sim
sim: tools ## Run SEEDS=20000 scenarios of the cluster simulation
	@SIM_SEEDS=$(SEEDS) cargo test --release --workspace --test sim -- --nocapture

.PHONY: mutants
mutants: tools ## Mutation tests: break each rule; a unit test or the simulation must fail: SEEDS=1000 ONLY="part of a rule" PART=shell JOBS=2
	@$(if $(filter-out file,$(origin SEEDS)),SEEDS=$(SEEDS)) $(if $(ONLY),ONLY="$(ONLY)") $(if $(PART),PART=$(PART)) JOBS=$${JOBS:-2} node tests/sim/mutate.mjs

.PHONY: cuts
cuts: tools tests/js/node_modules/.stamp ## Break connections at random bytes: CUTS=10000 SEED=1 (some 10 minutes; make test has 500)
	@cargo build --workspace --bin copydesk
	cd tests/js && exec env CUTS=$(CUTS) $(if $(SEED),SEED=$(SEED)) node --test --test-force-exit --test-reporter=spec cuts.test.mjs

.PHONY: autobahn
autobahn: tools ## Run the WebSocket conformance suite (needs Python 2.7: PYTHON2=python2)
	@cargo build --release --workspace --features echo --example echo
	ECHO=$(abspath $(TARGET))/release/examples/echo tests/autobahn/run.sh

.PHONY: fuzz
fuzz: tools ## Fuzz each parser for FUZZ_SECONDS=60 (needs a nightly compiler and cargo-fuzz)
	@command -v cargo-fuzz >/dev/null || { echo "cargo-fuzz is missing: cargo install cargo-fuzz"; exit 1; }
	for target in $(FUZZ); do
		echo "== $$target"
		cargo +nightly fuzz run $$target -- -max_total_time=$(FUZZ_SECONDS) -dict=fuzz/json.dict
	done

##@ Tidy

.PHONY: fmt
fmt: node_modules/.stamp ## Format the code and apply the safe fixes of the linters
	@cargo fmt --all
	npx biome check --write

.PHONY: hooks
hooks: ## Run the fast checks before each commit (git config core.hooksPath)
	@git config core.hooksPath .githooks
	echo "on; git config --unset core.hooksPath turns it off"

.PHONY: clean
clean: ## Remove what was built and installed here
	@cargo clean
	rm -rf node_modules static/dist static/node_modules tests/js/node_modules tests/js/oracle/node_modules tests/browser/node_modules tests/cluster/node_modules tests/cluster/.cache tests/autobahn/.cache

# Prerequisites of the targets above.

# Installs missing Debian packages if run as root; for compilers it only checks the version.
.PHONY: tools
tools:
	@need() { command -v "$$1" >/dev/null || { echo "$$1 is missing: $$2"; exit 1; }; }
	need cargo "install Rust 1.95 or newer, see https://rustup.rs"
	need node "install Node 20 or newer, see https://nodejs.org"
	need npm "it comes with Node, see https://nodejs.org"
	node -e 'process.exit(process.versions.node.split(".")[0] >= 20 ? 0 : 1)' || { echo "node is $$(node --version): 20 or newer is needed"; exit 1; }
	command -v cc >/dev/null || $(call debian,build-essential,cc)

.PHONY: chromium
chromium:
	@[ -x "$(CHROMIUM)" ] || $(call debian,chromium,a browser at $(CHROMIUM))

.PHONY: postgres
postgres:
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null || $(call debian,postgresql,Postgres)

# The servers of a cluster.
.PHONY: servers
servers: postgres
	@command -v redis-server >/dev/null || $(call debian,redis-server,redis-server)
	PATH=$$PATH:/usr/sbin command -v nginx >/dev/null || $(call debian,nginx,nginx)

# Needed by the cluster tests in addition.
.PHONY: balancers
balancers:
	@PATH=$$PATH:/usr/sbin command -v haproxy >/dev/null || $(call debian,haproxy,haproxy)
	PATH=$$PATH:/usr/sbin command -v keepalived >/dev/null || $(call debian,keepalived,keepalived)
	PATH=$$PATH:/usr/sbin command -v ip >/dev/null || $(call debian,iproute2,ip)
	command -v curl >/dev/null || $(call debian,curl,curl)
	command -v promtool >/dev/null || $(call debian,prometheus,promtool)
	command -v amtool >/dev/null || $(call debian,prometheus-alertmanager,amtool)

# $(call debian,package,program): installs a package, or fails with its name.
define debian
{
		[ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null || { echo "$(2) is missing: install Debian's package $(1)"; exit 1; }
		echo "== installing Debian's package $(1)"
		apt-get update -qq
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(1) >/dev/null
	}
endef

# Packages are installed again when their lock file changes.
%/node_modules/.stamp: %/package-lock.json %/package.json
	@echo "== installing the packages of $*"
	npm ci --prefix $*
	touch $@

node_modules/.stamp: package-lock.json package.json
	@echo "== installing the formatter and linter"
	npm ci
	touch $@

static/dist/index.html: static/node_modules/.stamp $(shell find static -type f -not -path '*/node_modules/*' -not -path 'static/dist/*')
	@echo "== building the web editor"
	npm run build --prefix static
	touch $@
