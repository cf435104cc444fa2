#!/usr/bin/env bash
# Starts a cluster on this machine, for trials: Postgres, Redis, some nodes and a balancer, all on the loopback interface and
# in one folder. Ctrl-C stops it; the data stays for the next start.
#
#   NODES=3 PORT=8080 deploy/cluster.sh
#
# NODE_PORT, POSTGRES_PORT and REDIS_PORT set the other ports, CLUSTER the folder.
#
# Prints `ready: http://127.0.0.1:8080/` on a line of its own when every node is ready. A service that ends is restarted, so
# a node may be killed: kill -9 $(cat cluster/pids/node-2)
#
# ARGS are the arguments of the nodes, --open by default: no accounts. With accounts: ARGS= deploy/cluster.sh
#
# Needs bash, setpriv (util-linux), Postgres, redis-server and nginx. Every local user has access to the databases.

set -euo pipefail
cd "$(dirname "$0")/.."

NODES=${NODES:-3}
PORT=${PORT:-8080}
NODE_PORT=${NODE_PORT:-18101}         # the first node's; the others follow
POSTGRES_PORT=${POSTGRES_PORT:-15432}
REDIS_PORT=${REDIS_PORT:-16379}
FOLDER=${CLUSTER:-cluster}
BIN=${COPYDESK_BIN:-target/release/copydesk}
read -ra ARGS <<<"${ARGS---open}"
PATIENCE=${PATIENCE:-60}              # seconds until every service is ready
STOP_PATIENCE=${STOP_PATIENCE:-45}    # seconds for a service to end; a node needs some 5

PATH=$PATH:/usr/sbin:/sbin
declare -A pid_of=() name_of=()       # what runs, by name and by process
stopping=

main() {
    check
    prepare
    trap 'exit 0' INT TERM HUP
    trap stop EXIT
    start postgres
    start redis
    await "Postgres" postgres postgres_is_ready
    make_database
    await "Redis" redis redis_is_ready
    for name in "${names[@]}"; do start "$name"; done
    for name in "${names[@]}"; do await "$name" "$name" node_is_ready "$name"; done
    start nginx
    await "the balancer" nginx answers "$PORT" /healthz
    table
    watch_over
}

# ---- Before the start ----

check() {
    [[ $NODES =~ ^[1-9][0-9]?$ ]] || die "NODES=$NODES: 1 to 99 are possible"
    local port
    for port in "$PORT" "$NODE_PORT" "$POSTGRES_PORT" "$REDIS_PORT"; do
        [[ $port =~ ^[1-9][0-9]{0,4}$ ]] && ((port + NODES <= 65535)) || die "$port is no port"
    done
    postgres_bin=$(dirname "$(ls -v /usr/lib/postgresql/*/bin/postgres 2>/dev/null | tail -n 1 || true)")
    [[ -x $postgres_bin/postgres ]] || postgres_bin=$(dirname "$(command -v postgres || true)")
    [[ -x $postgres_bin/postgres ]] || die "Postgres is missing: install Debian's package postgresql"
    command -v redis-server >/dev/null || die "redis-server is missing: install Debian's package redis-server"
    command -v nginx >/dev/null || die "nginx is missing: install Debian's package nginx"
    command -v setpriv >/dev/null || die "setpriv is missing: install Debian's package util-linux"
    [[ -x $BIN ]] || die "$BIN is missing: build it with make cluster, or name another in COPYDESK_BIN"

    mkdir -p "$FOLDER"/{logs,pids,redis,nginx}
    FOLDER=$(cd "$FOLDER" && pwd)
    exec 9>"$FOLDER/lock"
    flock -n 9 || die "a cluster runs in $FOLDER already: stop it, or choose another folder with CLUSTER=…"

    names=()
    local number
    for ((number = 1; number <= NODES; number++)); do names+=("node-$number"); done
    free "$PORT" "the balancer" PORT
    free "$POSTGRES_PORT" Postgres POSTGRES_PORT
    free "$REDIS_PORT" Redis REDIS_PORT
    for name in "${names[@]}"; do free "$(port_of "$name")" "$name" NODE_PORT; done
}

# Reports a needed port that is in use, and how to choose another.
free() {
    if (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; then
        die "port $1, meant for $2, is taken: stop what listens there, or choose another with $3=…"
    fi
}

prepare() {
    rm -f "$FOLDER"/pids/*
    # Logs are kept of this run and of the previous one.
    local log
    for log in "$FOLDER"/logs/*.log; do
        [[ ! -e $log ]] || mv -f "$log" "$log.old"
    done

    # Postgres does not run as root: then it runs as the user that its package created, in a folder of that user.
    as_postgres=()
    postgres_data=$FOLDER/postgres
    if [[ $(id -u) = 0 ]]; then
        id postgres >/dev/null 2>&1 || die "there is no user postgres: install Debian's package postgresql"
        as_postgres=(setpriv --reuid=postgres --regid=postgres --init-groups)
        if ! "${as_postgres[@]}" test -x "$FOLDER"; then
            # Only root has access to this folder, for example below /root.
            postgres_data=/var/lib/postgresql/copydesk-$(cksum <<<"$FOLDER" | cut -d ' ' -f 1)
        fi
    fi
    if [[ ! -s $postgres_data/PG_VERSION ]]; then
        # Local users need no password; there is no socket in the file system. Created under another name and then renamed, so
        # that an interrupted set-up is not used.
        rm -rf "$postgres_data.new"
        mkdir -m 700 "$postgres_data.new"
        [[ $(id -u) != 0 ]] || chown postgres: "$postgres_data.new"
        (cd / && "${as_postgres[@]}" "$postgres_bin/initdb" --pgdata="$postgres_data.new" --username=copydesk \
            --auth=trust --encoding=UTF8 --no-locale) >"$FOLDER/logs/initdb.log" 2>&1 9>&- ||
            die "Postgres cannot be set up, see $FOLDER/logs/initdb.log"
        mv -T "$postgres_data.new" "$postgres_data"
    elif [[ $(cat "$postgres_data/PG_VERSION") != "$("$postgres_bin/postgres" --version | grep -oE '[0-9]+' | head -n 1)" ]]; then
        die "$postgres_data is of Postgres $(cat "$postgres_data/PG_VERSION"), here is $("$postgres_bin/postgres" --version)"
    fi

    # nginx.conf of this folder, with the addresses of this cluster.
    local addresses="" name
    for name in "${names[@]}"; do addresses+="127.0.0.1:$(port_of "$name") "; done
    awk -v addresses="$addresses" -v port="$PORT" -v folder="$FOLDER/nginx" -v root="$(id -u)" '
        /^worker_processes/ { print "worker_processes 1;"; next }
        /^worker_rlimit_nofile/ { next }
        /worker_connections/ { print "    worker_connections 4096;"; next }
        # Without this line nginx, started by root, changes to a user without access to this folder.
        /^pid / && root == 0 { print "user root;" }
        # The servers are addresses, so no resolver is needed, and older versions of nginx than in compose.yml work.
        /^ *resolver / { next }
        # All servers of an upstream have the same parameters: the nodes of this cluster take those of the first.
        /^    upstream / { named = 0 }
        /^ *server node-/ {
            if (named++) next
            parameters = $0
            sub(/^ *server [^ ]+ resolve /, "", parameters)
            count = split(addresses, each, " ")
            for (at = 1; at <= count; at++) print "        server " each[at] " " parameters
            next
        }
        /^ *listen / { print "        listen 127.0.0.1:" port ";"; next }
        { gsub("/tmp/nginx", folder "/nginx"); print }
    ' deploy/nginx.conf >"$FOLDER/nginx/nginx.conf"
}

# ---- The services ----

port_of() { echo $((NODE_PORT + ${1#node-} - 1)); }

store() { echo "postgres://copydesk@127.0.0.1:$POSTGRES_PORT/copydesk"; }

# Starts a service in a session of its own, so that Ctrl-C reaches this script only, which stops the services in order. If this
# script is killed, the kernel sends them the given signal.
start() {
    local name=$1 signal=TERM command
    case $name in
    postgres)
        signal=INT
        command=("$postgres_bin/postgres" -D "$postgres_data" -c port="$POSTGRES_PORT" -c listen_addresses=127.0.0.1
            -c unix_socket_directories= -c max_connections=$((50 + 30 * NODES)))
        ;;
    redis)
        command=(redis-server --bind 127.0.0.1 --port "$REDIS_PORT" --dir "$FOLDER/redis" --save "" --appendonly no
            --maxmemory 256mb --maxmemory-policy allkeys-lru)
        ;;
    nginx)
        command=(nginx -p "$FOLDER/nginx" -e stderr -c "$FOLDER/nginx/nginx.conf" -g "daemon off;")
        ;;
    node-*)
        # Behind nginx, which states the client's address.
        command=(env COPYDESK__AUTH__BEHIND_PROXY=true "$BIN" serve --node "$name" --listen "127.0.0.1:$(port_of "$name")" --store "$(store)"
            --redis "redis://127.0.0.1:$REDIS_PORT" "${ARGS[@]}")
        ;;
    esac
    local user=()
    [[ $name != postgres ]] || user=("${as_postgres[@]:1}")
    setsid setpriv "${user[@]}" --pdeathsig "$signal" "${command[@]}" \
        </dev/null >>"$FOLDER/logs/$name.log" 2>&1 9>&- &
    pid_of[$name]=$!
    name_of[$!]=$name
    echo "$!" >"$FOLDER/pids/$name"
}

# await WHAT NAME CONDITION…: waits until the condition holds, while the service lives.
await() {
    local what=$1 name=$2 until=$((SECONDS + PATIENCE))
    shift 2
    until "$@"; do
        kill -0 "${pid_of[$name]}" 2>/dev/null || fail "$what has ended" "$name"
        ((SECONDS < until)) || fail "$what is not ready after $PATIENCE s" "$name"
        sleep 0.1
    done
}

postgres_is_ready() { "$postgres_bin/pg_isready" -q -h 127.0.0.1 -p "$POSTGRES_PORT"; }

redis_is_ready() {
    local answer
    { exec 3<>"/dev/tcp/127.0.0.1/$REDIS_PORT"; } 2>/dev/null || return 1
    printf 'PING\r\n' >&3
    IFS= read -r -t 2 answer <&3 || true
    exec 3>&-
    [[ ${answer:-} = +PONG* ]]
}

node_is_ready() { answers "$(port_of "$1")" /readyz; }

# Succeeds if a port answers a path with 200.
answers() {
    local line
    { exec 3<>"/dev/tcp/127.0.0.1/$1"; } 2>/dev/null || return 1
    printf 'GET %s HTTP/1.1\r\nHost: 127.0.0.1:%s\r\nConnection: close\r\n\r\n' "$2" "$1" >&3
    IFS= read -r -t 5 line <&3 || true
    exec 3>&-
    [[ ${line:-} = "HTTP/1.1 200"* ]]
}

make_database() {
    local psql=("$postgres_bin/psql" -h 127.0.0.1 -p "$POSTGRES_PORT" -U copydesk -d postgres -qtAX)
    [[ $("${psql[@]}" -c "SELECT 1 FROM pg_database WHERE datname = 'copydesk'") = 1 ]] ||
        "${psql[@]}" -c "CREATE DATABASE copydesk"
}

# ---- While it runs ----

table() {
    local name
    printf '\n  %-10s %-31s %s\n' "what" "where" "log"
    printf '  %-10s %-31s %s\n' "the page" "http://127.0.0.1:$PORT/" "$FOLDER/logs/nginx.log"
    for name in "${names[@]}"; do
        printf '  %-10s %-31s %s\n' "$name" "http://127.0.0.1:$(port_of "$name")/" "$FOLDER/logs/$name.log"
    done
    printf '  %-10s %-31s %s\n' Postgres "127.0.0.1:$POSTGRES_PORT" "$FOLDER/logs/postgres.log"
    printf '  %-10s %-31s %s\n' Redis "127.0.0.1:$REDIS_PORT" "$FOLDER/logs/redis.log"
    cat <<END

  Which node owns a document:  $BIN where documents/ID --store $(store)
  Kill a node and write on:    kill -9 \$(cat $FOLDER/pids/node-1)   (it is started again)
  The data:                    $postgres_data, kept when this ends
  Stop everything:             Ctrl-C

ready: http://127.0.0.1:$PORT/
END
}

# Restarts services that end.
watch_over() {
    local ended status name
    while true; do
        status=0
        { wait -n -p ended "${pid_of[@]}" || status=$?; } 2>/dev/null # bash reports killed processes itself
        [[ -n ${ended:-} ]] || continue
        name=${name_of[$ended]}
        unset "name_of[$ended]"
        echo "$name has ended (status $status) and is started again, see $FOLDER/logs/$name.log"
        sleep 1
        start "$name"
    done
}

# Nodes first: they commit what they accepted and close their sockets. The store last.
stop() {
    trap '' HUP PIPE
    trap 'kill_nodes TERM' INT TERM # a second Ctrl-C does not wait
    exec 2>/dev/null
    say "stopping"
    kill_nodes TERM
    local name
    for name in "${names[@]}"; do ended "$name"; done
    end nginx QUIT
    end redis TERM
    end postgres INT
    say "stopped; what was written is kept in $postgres_data"
}

kill_nodes() {
    local name
    for name in "${names[@]}"; do
        [[ -z ${pid_of[$name]:-} ]] || kill "-$1" "${pid_of[$name]}" || true
    done
}

end() {
    [[ -z ${pid_of[$1]:-} ]] || kill "-$2" "${pid_of[$1]}" || true
    ended "$1"
}

# Waits for the end of a service, and kills it after a time.
ended() {
    local pid=${pid_of[$1]:-} until=$((SECONDS + STOP_PATIENCE))
    [[ -n $pid ]] || return 0
    while kill -0 "$pid"; do
        if ((SECONDS >= until)); then
            say "$1 does not end: it is killed"
            kill -KILL "$pid" || true
            break
        fi
        sleep 0.1
    done
    rm -f "$FOLDER/pids/$1"
}

# The terminal may be gone.
say() { echo "$1" || true; }

fail() {
    echo "cluster: $1; the end of $FOLDER/logs/$2.log:" >&2
    tail -n 15 "$FOLDER/logs/$2.log" >&2 || true
    exit 1
}

die() {
    echo "cluster: $1" >&2
    exit 1
}

main
