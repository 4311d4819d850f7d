"""A service that answers as the upstream does, and with ALGORITHM limits its callers by a middleware."""

import hashlib
import os
import time
from itertools import count
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from redis.asyncio import Redis
from redis.exceptions import NoScriptError

app = FastAPI()
algorithm = os.environ["ALGORITHM"]


@app.get("/api/v1/items")
async def items():
    return {"items": ["one", "other"]}


if algorithm != "none":
    script = Path(f"../scripts/{algorithm}.lua").read_text()
    digest = hashlib.sha1(script.encode()).hexdigest()
    limit, user_limit = os.environ["LIMIT"], os.environ["USER_LIMIT"]
    window = int(os.environ["WINDOW_SECONDS"])
    redis = Redis(host=os.environ["REDIS_HOST"], port=int(os.environ["REDIS_PORT"]))
    numbers = count()

    async def check(user, address):
        if algorithm == "fixed_window":
            now = int(time.time()) // window
            keys = [f"g:{now}", f"u:{user}:{now}", f"a:{address}:{now}"]
            arguments = [window, limit, user_limit, limit]
        else:
            keys = ["g", f"u:{user}", f"a:{address}"]
            arguments = [window, limit, user_limit, limit, next(numbers)]
        try:
            return await redis.evalsha(digest, len(keys), *keys, *arguments)
        except NoScriptError:
            return await redis.eval(script, len(keys), *keys, *arguments)

    @app.middleware("http")
    async def limited(request: Request, call_next):
        reply = await check(request.headers.get("x-user-id"), request.client.host)
        remaining, reset = map(int, reply.split())
        headers = {
            "x-ratelimit-limit": user_limit,
            "x-ratelimit-remaining": str(max(remaining, 0)),
            "x-ratelimit-reset": str(reset),
        }
        if remaining < 0:
            headers["retry-after"] = str(reset)
            return JSONResponse({"error": "Rate limit exceeded"}, 429, headers)
        response = await call_next(request)
        response.headers.update(headers)
        return response
