#!/usr/bin/env bash
# Holds what we depend on to deny.toml (licences, sources, crates that are banned) and to what is known of holes in it:
# the RustSec database for the server, npm's for the page. What cannot be had here is skipped, and said so.
#
# cargo-deny is used where it is installed, or installed under target/tools.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

VERSION=0.20.2
TOOLS=${CARGO_TARGET_DIR:-target}/tools
PATH=$PATH:$(realpath -m "$TOOLS")/bin
PATIENCE=120                          # seconds for a database to come

passed=0 failed=0

main() {
    if have_cargo_deny; then
        holds 'licences, sources and bans' cargo deny --all-features check --hide-inclusion-graph bans licenses sources
        if timeout "$PATIENCE" cargo deny fetch db >/dev/null 2>&1; then
            holds 'known holes in crates' cargo deny --all-features check --disable-fetch advisories
        else
            echo 'skipped: the RustSec database cannot be had here'
        fi
    else
        echo 'skipped: cargo-deny cannot be installed here'
    fi
    npm_audit
    # As cargo says it, for whoever adds up.
    echo "test result: $passed passed; $failed failed"
    [ "$failed" = 0 ]
}

have_cargo_deny() {
    command -v cargo-deny >/dev/null && return
    echo '== installing cargo-deny (a few minutes)'
    cargo install cargo-deny --version "$VERSION" --locked --quiet --root "$TOOLS"
}

holds() {
    local what=$1
    shift
    if "$@"; then
        echo "ok: $what"
        passed=$((passed + 1))
    else
        echo "NOT ok: $what"
        failed=$((failed + 1))
    fi
}

# Where npm's database is not to be had, npm fails as it does over a hole: only the report tells them apart.
npm_audit() {
    local report
    report=$(timeout "$PATIENCE" npm audit --prefix static --omit=dev --json 2>/dev/null) || true
    if ! grep -q '"vulnerabilities"' <<<"$report"; then
        echo "skipped: npm's database cannot be had here"
        return
    fi
    holds 'known holes in the packages of the page' node -e '
        const { high, critical } = JSON.parse(process.argv[1]).metadata.vulnerabilities;
        if (high + critical > 0) {
            console.error(`${high} high and ${critical} critical: npm audit --prefix static --omit=dev`);
            process.exit(1);
        }' "$report"
}

main
