#!/bin/sh
# Prints where nginx's modules are, or says what is missing.
for folder in /usr/lib/nginx/modules /usr/lib64/nginx/modules /usr/share/nginx/modules; do
  if command -v nginx >/dev/null && [ -f "$folder/ngx_http_lua_module.so" ]; then
    echo "$folder"
    exit
  fi
done
echo "there is no nginx with Lua (Debian: apt-get install nginx libnginx-mod-http-lua)" >&2
exit 1
