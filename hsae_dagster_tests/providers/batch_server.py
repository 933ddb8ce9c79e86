"""A scripted Batch API beside the scripted chat server: files, batches, and answers when the test says so."""

import json
import re
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from hsae_dagster_tests.providers.loopback import ChatScript, Loopback, Raw, completion, failure


class BatchServer(Loopback):
    """`end` decides what becomes of a batch; until then it is under way."""

    def __init__(self, chat: ChatScript) -> None:
        super().__init__(chat)
        self.files: dict[str, str] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.refuse_batches = False
        self.lists_batches = True
        self.page = 100
        # Called with each batch just created, before anyone hears of it; what it returns is answered instead.
        self.created: Callable[[str], Raw | None] = lambda batch: None

    def receive(self, method: str, path: str, data: bytes) -> Raw | None:
        """Answer what belongs to files and batches."""
        if method == "POST" and path.endswith("/files"):
            return self._upload(data)
        if method == "POST" and path.endswith("/batches"):
            return self._create(json.loads(data))
        if method == "GET" and urlsplit(path).path.endswith("/batches"):
            return self._list(parse_qs(urlsplit(path).query)) if self.lists_batches else failure(404, "no list")
        if found := re.search(r"/batches/(\w+)$", path):
            return Raw(self.batches[found[1]])
        if found := re.search(r"/files/(\w+)/content$", path):
            return Raw(self.files[found[1]].encode())
        return None

    def requests(self, batch: str) -> list[dict[str, Any]]:
        """Lines of a batch's input."""
        return [json.loads(line) for line in self.files[self.batches[batch]["input_file_id"]].splitlines()]

    def end(self, batch: str, status: str = "completed", answered: int | None = None, broken: int = 0) -> None:
        """End a batch: the first `broken` requests fail, the others up to `answered` are answered, the rest expire."""
        lines = self.requests(batch)
        done, errors = [], []
        for number, line in enumerate(lines):
            if number < broken:
                errors.append({"custom_id": line["custom_id"], "response": {"status_code": 500, "body": {}}})
            elif answered is None or number < answered:
                said = self.chat(line["body"], number)
                body = (said if isinstance(said, Raw) else completion(json.dumps(said))).body
                response = {"status_code": 200, "request_id": f"req-{number}", "body": body}
                done.append({"custom_id": line["custom_id"], "response": response, "error": None})
            else:
                error = {"code": "batch_expired", "message": "too late"}
                errors.append({"custom_id": line["custom_id"], "response": None, "error": error})
        record = self.batches[batch]
        for name, found in (("output", done), ("error", errors)):
            if found:
                self.files[f"{name}{batch}"] = "\n".join(json.dumps(each) for each in reversed(found))
                record[f"{name}_file_id"] = f"{name}{batch}"
        record["status"] = status

    def _upload(self, data: bytes) -> Raw:
        text = data.decode()
        body = text.split("\r\n\r\n", 1)[1] if text.startswith("--") else text
        lines = [line for line in text.splitlines() if line.startswith("{")]
        assert body
        name = f"file{len(self.files)}"
        self.files[name] = "\n".join(lines)
        return Raw({"id": name, "object": "file", "bytes": 1, "created_at": 0, "filename": "f", "purpose": "batch"})

    def _create(self, asked: dict[str, Any]) -> Raw:
        if self.refuse_batches:
            return failure(400, "no batches here")
        name = f"batch{len(self.batches)}"
        state = {"id": name, "object": "batch", "status": "in_progress", "created_at": int(time.time())}
        self.batches[name] = {**asked, **state}
        return self.created(name) or Raw(self.batches[name])

    def _list(self, query: dict[str, list[str]]) -> Raw:
        newest = list(reversed(self.batches.values()))
        start = 1 + [batch["id"] for batch in newest].index(query["after"][0]) if "after" in query else 0
        shown = newest[start : start + self.page]
        return Raw({"object": "list", "data": shown, "has_more": start + len(shown) < len(newest)})
