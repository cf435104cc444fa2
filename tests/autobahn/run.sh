#!/usr/bin/env bash
# The WebSocket conformance suite (RFC 6455) against the server's own way of taking and writing WebSockets.
#
#   make autobahn              some minutes
#   CASES='"1.*", "5.*"' make autobahn
#
# Left out are 12.* and 13.*, for the server does not offer compression, and those of 9.* that send one message in more
# than 1,024 frames: it takes no more, and closes with 1009.
#
# The suite runs on Python 2.7 alone. PYTHON2 says where that is; where there is none, nothing is checked, and it says so.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

PYTHON2=${PYTHON2:-python2}
ECHO=${ECHO:-../../target/release/examples/echo}
CASES=${CASES:-'"*"'}
PORT=${PORT:-9001}
SUITE=autobahntestsuite==0.8.2
CACHE=$PWD/.cache

if ! "$PYTHON2" -c 'import sys; sys.exit(sys.version_info[:2] != (2, 7))' 2>/dev/null; then
    echo "NOT TESTED: the suite needs Python 2.7: PYTHON2=/path/to/python2.7 make autobahn"
    exit 0
fi
if [ ! -e "$CACHE/suite/ready" ]; then
    "$PYTHON2" -m pip install --quiet --target "$CACHE/suite" "$SUITE"
    # One of its packages is in two folders, and the first hides the second.
    touch "$CACHE/suite/zope/__init__.py" "$CACHE/suite/ready"
fi

rm -rf "$CACHE/report"
"$ECHO" "127.0.0.1:$PORT" &
echo=$!
trap 'kill $echo 2>/dev/null || true' EXIT
for ((patience = 100; ; patience--)); do
    (exec 3<>"/dev/tcp/127.0.0.1/$PORT") 2>/dev/null && break
    ((patience > 0)) || { echo "the echo does not listen"; exit 1; }
    sleep 0.1
done

cat >"$CACHE/spec.json" <<SPEC
{
  "outdir": "$CACHE/report",
  "servers": [{ "agent": "copydesk", "url": "ws://127.0.0.1:$PORT" }],
  "cases": [$CASES],
  "exclude-cases": ["9.3.1", "9.3.2", "9.3.3", "9.3.4", "9.4.1", "9.4.2", "9.4.3", "9.4.4", "12.*", "13.*"],
  "exclude-agent-cases": {}
}
SPEC
PYTHONPATH=$CACHE/suite "$PYTHON2" -c 'from autobahntestsuite.wstest import run; run()' \
    -m fuzzingclient -s "$CACHE/spec.json" >"$CACHE/log" 2>&1 || { tail -n 20 "$CACHE/log"; exit 1; }

"$PYTHON2" - "$CACHE/report/index.json" <<'COUNT'
import json, sys
cases = json.load(open(sys.argv[1]))["copydesk"]
counts, wrong = {}, []
for name, case in sorted(cases.items()):
    for kind in ("behavior", "behaviorClose"):
        if case[kind] not in ("OK", "INFORMATIONAL"):
            wrong.append("%s: %s %s" % (name, kind, case[kind]))
    counts[case["behavior"]] = counts.get(case["behavior"], 0) + 1
for line in wrong:
    print(line)
print("%d cases: %s" % (len(cases), ", ".join("%d %s" % (n, kind) for kind, n in sorted(counts.items()))))
sys.exit(1 if [line for line in wrong if "NON-STRICT" not in line] else 0)
COUNT
