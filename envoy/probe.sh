#!/usr/bin/env bash
# Whether a server in this container answers 200: for the health checks of docker-compose.yml.
#
#   probe.sh PORT PATH [PATTERN]
#
# With PATTERN, an extended regular expression, the answer must match it too. All of it is bash's
# own: Envoy's image has neither curl nor wget.
set -euo pipefail

exec 3<>"/dev/tcp/127.0.0.1/$1"
printf 'GET %s HTTP/1.1\r\nhost: probe\r\nconnection: close\r\n\r\n' "$2" >&3
answer=$(cat <&3)
[[ $answer == "HTTP/1.1 200 "* && $answer =~ ${3-} ]]
