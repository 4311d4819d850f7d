#!/bin/sh
# Installs what the service needs into a virtual environment that is kept, once.
set -eu
[ -f "$KEPT/fastapi/whole" ] && exit
python3 -m venv --clear "$KEPT/fastapi" >&2
"$KEPT/fastapi/bin/python" -m pip install --quiet --disable-pip-version-check \
  --requirement requirements.txt >&2
touch "$KEPT/fastapi/whole"
