"""OpenAI's files and batches, in memory: a file of requests is uploaded, a file of answers is downloaded."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from utils.world.serving.apis import ApiError

ENDPOINT = "/v1/chat/completions"
WINDOW = 24 * 3600  # seconds, the one completion window that there is

Speak = Callable[[Any], tuple[int, dict[str, Any] | None]]  # a request's body -> status and body, None: never answered


@dataclass
class StoredFile:
    """An uploaded file, or one of answers."""

    about: dict[str, Any]  # as the API describes it
    content: bytes


class BatchRoutes:
    """The routes of files and batches.

    Args:
        speak: answers the body of one line.
        seconds: returns how long a batch is in progress.
    """

    def __init__(self, speak: Speak, seconds: Callable[[], float]) -> None:
        self.speak, self.seconds = speak, seconds
        self.files: dict[str, StoredFile] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.serial, self.running = itertools.count(1), {}

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/v1/files", self.upload),
            web.get("/v1/files/{id}", self.show_file),
            web.get("/v1/files/{id}/content", self.show_content),
            web.post("/v1/batches", self.create),
            web.get("/v1/batches", self.show_batches),
            web.get("/v1/batches/{id}", self.show_batch),
            web.post("/v1/batches/{id}/cancel", self.cancel),
        ]

    async def upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        file = form.get("file")
        if not isinstance(file, web.FileField) or form.get("purpose") != "batch":
            raise ApiError(400, "expected a form with a file, and with the purpose batch")
        return web.json_response(self.keep(file.filename, "batch", file.file.read()))

    def keep(self, name: str, purpose: str, content: bytes) -> dict[str, Any]:
        about = {
            "id": f"file-{next(self.serial)}",
            "object": "file",
            "bytes": len(content),
            "created_at": int(time.time()),
            "filename": name,
            "purpose": purpose,
            "status": "processed",
        }
        self.files[about["id"]] = StoredFile(about, content)
        return about

    async def show_file(self, request: web.Request) -> web.Response:
        return web.json_response(_find(self.files, request).about)

    async def show_content(self, request: web.Request) -> web.Response:
        return web.Response(body=_find(self.files, request).content, content_type="application/octet-stream")

    async def create(self, request: web.Request) -> web.Response:
        asked = await request.json()
        if asked.get("input_file_id") not in self.files or asked.get("endpoint") != ENDPOINT:
            raise ApiError(400, f"expected the id of an uploaded file, and the endpoint {ENDPOINT}")
        now = int(time.time())
        batch = {
            "id": f"batch_{next(self.serial)}",
            "object": "batch",
            "endpoint": ENDPOINT,
            "input_file_id": asked["input_file_id"],
            "completion_window": asked.get("completion_window", "24h"),
            "metadata": asked.get("metadata"),
            "status": "validating",
            "created_at": now,
            "expires_at": now + WINDOW,
            "request_counts": {"total": 0, "completed": 0, "failed": 0},
            "errors": None,
            "output_file_id": None,
            "error_file_id": None,
        }
        self.batches[batch["id"]] = batch
        self.running[batch["id"]] = asyncio.get_running_loop().create_task(self.work(batch))
        return web.json_response(batch)

    async def show_batch(self, request: web.Request) -> web.Response:
        return web.json_response(_find(self.batches, request))

    async def show_batches(self, request: web.Request) -> web.Response:
        """Show batches, the newest first, in pages of `limit` after the batch `after`."""
        rows = list(self.batches.values())[::-1]
        start = 0
        for place, row in enumerate(rows, start=1):
            if row["id"] == request.query.get("after"):
                start = place
        end = start + int(request.query.get("limit", "20"))
        return web.json_response({"object": "list", "data": rows[start:end], "has_more": end < len(rows)})

    async def cancel(self, request: web.Request) -> web.Response:
        batch = _find(self.batches, request)
        if batch["status"] in ("validating", "in_progress"):
            self.running[batch["id"]].cancel()
            batch |= {"status": "cancelled", "cancelled_at": int(time.time())}
        return web.json_response(batch)

    async def work(self, batch: dict[str, Any]) -> None:
        """Answer the lines of a batch, or fail it."""
        content = self.files[batch["input_file_id"]].content.decode("utf-8", "replace")
        lines = [line for line in content.splitlines() if line.strip()]
        faults = _faults(lines)
        if faults:
            batch |= {"status": "failed", "errors": {"object": "list", "data": faults}}
            return
        # From here on the client polls, as it does with the real service.
        batch |= {"status": "in_progress", "in_progress_at": int(time.time())}
        batch["request_counts"]["total"] = len(lines)
        await asyncio.sleep(self.seconds())
        good, bad = [], []
        for line in lines:
            row = self.line(json.loads(line))
            answered = row["response"] and row["response"]["status_code"] == 200
            (good if answered else bad).append(json.dumps(row) + "\n")
        for name, kept in (("output_file_id", good), ("error_file_id", bad)):
            # OpenAI makes no empty file either.
            if kept:
                file = self.keep(f"{batch['id']}_{name}.jsonl", "batch_output", "".join(kept).encode())
                batch[name] = file["id"]
        batch["request_counts"] |= {"completed": len(good), "failed": len(bad)}
        batch |= {"status": "completed", "completed_at": int(time.time())}

    def line(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Return the line of the output file that answers a line of the input file."""
        number = next(self.serial)
        row = {"id": f"batch_req_{number}", "custom_id": asked["custom_id"], "response": None, "error": None}
        status, body = self.speak(asked["body"])
        if body is None:
            return row | {"error": {"code": "batch_expired", "message": "the completion window has passed"}}
        return row | {"response": {"status_code": status, "request_id": f"req_batch_{number}", "body": body}}


def _find(table: dict[str, Any], request: web.Request) -> Any:
    name = request.match_info["id"]
    if name not in table:
        raise ApiError(404, f"there is no {name}", code="not_found")
    return table[name]


def _faults(lines: list[str]) -> list[dict[str, Any]]:
    """Return what is wrong with the lines of an input file."""
    if not lines:
        return [{"code": "empty_file", "line": None, "message": "no requests", "param": None}]
    found, seen = [], set()
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict) or row.get("method") != "POST" or row.get("url") != ENDPOINT or "body" not in row:
            code, message = "invalid_json_line", "expected custom_id, method POST, the batch's url, and a body"
        elif not isinstance(row.get("custom_id"), str) or row["custom_id"] in seen:
            code, message = "duplicate_custom_id", "custom_id is missing or was used before"
        else:
            seen.add(row["custom_id"])
            continue
        found.append({"code": code, "line": number, "message": message, "param": None})
    return found
