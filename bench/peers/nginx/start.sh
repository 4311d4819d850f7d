#!/bin/sh
# Becomes nginx: plain, or with limits in Lua where ALGORITHM says which.
set -eu
HERE=$(pwd) MODULES=$(sh ./modules.sh) LIMIT_PHASE=
if [ "${ALGORITHM-none}" != none ]; then
  LIMIT_PHASE="access_by_lua_file $HERE/limit.lua;"
  script=../scripts/$ALGORITHM.lua
  {
    echo "return { algorithm = '$ALGORITHM', window = $WINDOW_SECONDS, limit = '$LIMIT',"
    echo "  user_limit = '$USER_LIMIT', redis_host = '$REDIS_HOST', redis_port = $REDIS_PORT,"
    echo "  hash = '$(sha1sum <"$script" | cut -d' ' -f1)', script = [==["
    cat "$script"
    echo "]==] }"
  } >"$SCRATCH/settings.lua"
fi
export HERE MODULES LIMIT_PHASE
sh "$PROJECT/envoy/render.sh" nginx.conf >"$SCRATCH/nginx.conf"
exec nginx -p "$SCRATCH" -c "$SCRATCH/nginx.conf" -e stderr
