#!/bin/sh
# Becomes Envoy, as a gateway with Weir. The arguments go to Envoy.
#
#   start.sh [ENVOY ARGUMENT]...
#
# Everything is set by the variables below. A path is relative to where this is called.
set -eu

: "${ENVOY:=envoy}"                                               # the Envoy to run
: "${WASM:=target/weir.wasm}"               # the filter
: "${LISTEN:=127.0.0.1}" "${PORT:=10000}"                         # where the gateway listens
: "${ADMIN_HOST:=127.0.0.1}" "${ADMIN_PORT:=9901}"                # where Envoy's admin page is
: "${UPSTREAM_HOST:=127.0.0.1}" "${UPSTREAM_PORT:=8080}"          # what the gateway guards
: "${STORE:=bridge}"                                              # the way to Redis: bridge, sidecar
: "${REDIS_HOST:=127.0.0.1}" "${REDIS_PORT:=6379}"                # for STORE=bridge
: "${REDIS_USERNAME:=}" "${REDIS_PASSWORD:=}"                     # for STORE=bridge; none if empty
: "${SIDECAR_HOST:=127.0.0.1}" "${SIDECAR_PORT:=6380}"            # for STORE=sidecar
: "${STORE_SECRET:=}"                                             # what the sidecar asks for, if it does
: "${TIMEOUT_MS:=50}"                                             # the longest wait for the store
[ "${TRUST-}" ] || TRUST='["127.0.0.0/8", "::1/128"]'             # peers whose identity headers count
: "${WORKERS:=2}"                                                 # Envoy's worker threads
: "${GATEWAYS:=1}"                                                # how many gateways share this Redis
: "${POLICY_POLL_MS:=2000}"                                       # how late a policy published in Redis is seen
: "${TOPOLOGY:=single}"                                           # one primary, or a cluster
: "${NAMESPACE:=}"                                                # the environment, if several share this Redis
here=$(dirname "$0")
: "${ACCESS_LOG:=}"                                               # /dev/stdout or a file; none if empty
: "${POLICY:=$here/policy.json}"                                  # the rules
: "${RENDERED:=$(mktemp -d)/gateway.yaml}"                         # where the filled-in template goes

export WASM LISTEN PORT ADMIN_HOST ADMIN_PORT UPSTREAM_HOST UPSTREAM_PORT REDIS_HOST REDIS_PORT
export SIDECAR_HOST SIDECAR_PORT STORE_SECRET TIMEOUT_MS TRUST POLICY WORKERS
export GATEWAYS TOPOLOGY NAMESPACE POLICY_POLL_MS ACCESS_LOG
# Envoy writes durations in seconds.
TIMEOUT_SECONDS=$(printf '%d.%03ds' $((TIMEOUT_MS / 1000)) $((TIMEOUT_MS % 1000)))
export TIMEOUT_SECONDS

case $TOPOLOGY in
  single | cluster) ;;
  *) echo "start.sh: TOPOLOGY=$TOPOLOGY: must be single or cluster" >&2; exit 1 ;;
esac
case $STORE in
  bridge)
    overlays="store-bridge redis-$TOPOLOGY" TRANSPORT=stream
    [ "$REDIS_USERNAME" ] && [ -z "$REDIS_PASSWORD" ] &&
      { echo "start.sh: REDIS_USERNAME=$REDIS_USERNAME without REDIS_PASSWORD: set both" >&2; exit 1; }
    if [ "$REDIS_PASSWORD" ]; then
      overlays="$overlays redis-auth"
      export REDIS_USERNAME REDIS_PASSWORD
    else
      unset REDIS_USERNAME REDIS_PASSWORD
    fi
    ;;
  sidecar) overlays=store-sidecar TRANSPORT=http ;;
  *) echo "start.sh: STORE=$STORE: must be bridge or sidecar" >&2; exit 1 ;;
esac
export TRANSPORT

# Without an access log nothing is paid for one: the filter leaves no decision where a log would find it.
ACCESS_LOGS='[]'
if [ "$ACCESS_LOG" ]; then
  : "${DECISIONS:=true}"                                          # whether it tells what Weir decided
  ACCESS_LOGS=$(sh "$here/render.sh" "$here/access-log.json" | tr '\n' ' ')
fi
: "${DECISIONS:=false}"
export DECISIONS ACCESS_LOGS

# The policy may be longer than an argument can be, so the gateway goes through a file.
sh "$here/render.sh" "$here/gateway.yaml" >"$RENDERED"
overlay=$(for part in $overlays; do sh "$here/render.sh" "$here/$part.yaml" || exit; done)

# Without hot restart any number of gateways share a machine, and none leaves shared memory behind.
exec "$ENVOY" --disable-hot-restart --concurrency "$WORKERS" \
  --config-path "$RENDERED" --config-yaml "$overlay" "$@"
