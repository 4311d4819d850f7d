#!/bin/sh
# Becomes Envoy with a change to the shipped configuration. start.sh runs it in Envoy's place.
#
#   CHANGE=missing-bridge      the limiter's calls go to an internal listener that is not there
#   CHANGE=watched-listeners   the gateway's listener moves to the file LISTENERS, which Envoy watches
set -eu

case $CHANGE in
  missing-bridge)
    for argument; do
      shift
      set -- "$@" "$(printf '%s' "$argument" |
        sed 's/server_listener_name: weir_bridge/server_listener_name: nobody/')"
    done
    ;;
  watched-listeners)
    : >"$LISTENERS"
    awk -v listeners="$LISTENERS" '
      /^  listeners:/ { apart = 1; print "resources:" >listeners; next }
      /^  clusters:/ { apart = 0 }
      apart { sub(/^  - name:/, "  - \"@type\": type.googleapis.com/envoy.config.listener.v3.Listener\n    name:") }
      apart { print >listeners; next }
      { print }
      END { printf "dynamic_resources: { lds_config: { path_config_source: { path: \"%s\" } } }\n", listeners }
    ' "$RENDERED" >"$RENDERED.rest.yaml"
    mv "$RENDERED.rest.yaml" "$RENDERED"
    # Connections of the old listener are told at once that it goes.
    set -- "$@" --service-node weir --service-cluster weir --drain-time-s 2 --drain-strategy immediate
    ;;
esac
exec "$REAL_ENVOY" "$@"
