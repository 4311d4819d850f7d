#!/bin/sh
# Becomes the service: one process, without a log of requests.
exec "$KEPT/fastapi/bin/python" -m uvicorn service:app --host "$HOST" --port "$PORT" \
  --no-access-log --log-level warning --backlog 4096
