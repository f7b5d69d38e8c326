"""Recorded answers of a judge behind a server of OpenAI's protocol on this machine: all of it without a network."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

from actshift.errors import ActshiftError
from actshift.judging.config import JudgeConfig
from actshift.judging.ledger import question_key
from actshift.judging.prompts import judge_messages
from actshift.judging.recorded import as_completion
from actshift.judging.rows import read_rows

Reply = tuple[int, Mapping[str, str], Any]
"""Status, headers, and the JSON value of the body."""
Respond = Callable[[Mapping[str, Any]], Reply]


def recorded_answers(paths: Sequence[Path], config: JudgeConfig) -> dict[str, Any]:
    """Raw completions of files of judgments, by the question of the judge that they answer, in either order.

    Errors: a row of another annotator than the judge's.
    """
    answers = {}
    for path in paths:
        for number, row in read_rows(path):
            if row.get("annotator", config.annotator) not in (config.annotator, config.label):
                raise ActshiftError(
                    f"{path}, row {number} is of the annotator {row['annotator']}, and judge {config.name} replays "
                    f"{config.annotator}: name its own files with --recorded, or the judge of these with --judge."
                )
            every = row.get("raw_completions") or [row.get("raw_completion")]
            orders: tuple[bool | None, ...] = (None,) if len(every) == 1 else (False, True)
            for switched, raw in zip(orders, every, strict=True):
                completion = as_completion(raw, config)
                if completion:
                    texts = {"reference": row["output_1"], "output": row["output_2"]}
                    messages = judge_messages(row["instruction"], **texts, switched=switched, name=config.template)
                    answers[question_key("", messages)] = completion
    return answers


def replaying(answers: Mapping[str, Any], *, model: str) -> Respond:
    """Replies with the recorded answer, or with an error's status to a question whose answer is not recorded."""

    def respond(body: Mapping[str, Any]) -> Reply:
        found = answers.get(question_key("", body["messages"]))
        if found is None:
            begin = str(body["messages"][-1]["content"])[:120]
            said = f"none of the {len(answers)} recorded answers is to this question: {begin!r}"
            return 404, {}, {"error": {"message": f"{said}; name the files that hold it with --recorded"}}
        return 200, {}, {"object": "chat.completion", "model": model, "choices": [found]}

    return respond


class ReplayServer:
    """A server on loopback, at a port of the system's choice; a context manager that gives its base URL."""

    def __init__(self, respond: Respond) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 30

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status, headers, value = respond(body)
                data = json.dumps(value).encode()
                self.send_response(status)
                for name, text in {"Content-Type": "application/json", **headers}.items():
                    self.send_header(name, text)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                """Requests are not logged: they carry a key."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def base_url(self) -> str:
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}/v1"

    def __enter__(self) -> str:
        self._thread.start()
        return self.base_url

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
