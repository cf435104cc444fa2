#!/bin/sh
# Measures Copydesk beside its peers; see bench.mjs for the options.
set -eu
cd "$(dirname "$0")"
[ -d node_modules ] || npm ci --no-audit --no-fund
exec node bench.mjs "$@"
