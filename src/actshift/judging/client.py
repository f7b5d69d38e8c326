"""Asking over HTTP: one request, repeated while that can help, and refused where it cannot.

A key is sent in a header and appears nowhere else: whatever a server echoes of it is blanked out before it is read.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from actshift.errors import ActshiftError
from actshift.judging.config import JudgeConfig, is_loopback

REPEATED = frozenset({408, 409, 429, *range(500, 600)})
"""Statuses after which the same request may succeed."""
FINAL = frozenset({401, 402, 403, 404})
"""Statuses after which no request of this judge can succeed."""
QUOTA = "insufficient_quota"
LONGEST_WAIT = 60.0
BLANK = "[key]"


class Stop(ActshiftError):
    """No further question may be asked: the key, the quota, the budget or the model is not what it must be."""


class Refused(Exception):
    """The server takes this one question for wrong: it stays unjudged, and is not asked again."""


class Attempts:
    """What a question's attempts are told to: each before it leaves, and how it ended where nothing was paid."""

    def leaves(self) -> None:
        """An attempt leaves now, and may be paid from here on."""

    def unpaid(self) -> None:
        """The attempt came back with an error's status, for which nothing is paid."""


class Client:
    """One endpoint; its requests may come from several threads. Once `stop` is set no request is repeated."""

    def __init__(self, config: JudgeConfig, *, headers: Mapping[str, str], stop: threading.Event) -> None:
        import httpx

        assert config.base_url is not None
        self._config, self._stop = config, stop
        self._base = config.base_url.rstrip("/")
        # Proxies of the environment are for other machines; redirects are not followed: they would carry the key away.
        self._http = httpx.Client(
            timeout=config.timeout_s,
            headers=dict(headers),
            trust_env=not is_loopback(self._base),
            follow_redirects=False,
        )

    def close(self) -> None:
        self._http.close()

    def post(self, path: str, body: Mapping[str, Any], attempts: Attempts) -> dict[str, Any]:
        """The JSON object that answers a request.

        Repeated with full jitter (a wait from 0 to wait_s 2^n seconds, or what Retry-After says) after a status of
        `REPEATED`, a broken connection, a timeout, and an answer that is no JSON. Errors: `Stop`, `Refused`.
        """
        import httpx

        why, header = "", None
        for number in range(self._config.attempts):
            if number:
                self._wait(number, header)
            header = None
            attempts.leaves()
            try:
                answer = self._http.post(f"{self._base}{path}", json=body)
            except httpx.TransportError as error:
                why = type(error).__name__  # it may have been paid: nobody knows
                continue
            found, text = self._read(answer.text)
            if answer.status_code == 200:
                if isinstance(found, dict):
                    return found
                why = "an answer that is no JSON object"
                continue
            attempts.unpaid()
            why, header = f"status {answer.status_code}: {_message(found, text)}", answer.headers.get("retry-after")
            if answer.status_code in FINAL or QUOTA in text or answer.is_redirect:
                raise Stop(f"judge {self._config.name} at {self._base} refuses to answer, {why}")
            if answer.status_code not in REPEATED:
                raise Refused(why)
        raise Stop(
            f"judge {self._config.name} at {self._base} did not answer in {self._config.attempts} attempts, the last: "
            f"{why}. What is answered is kept; the same command goes on from here."
        )

    def _wait(self, number: int, retry_after: str | None) -> None:
        wait = random.uniform(0, min(LONGEST_WAIT, self._config.wait_s * 2 ** (number - 1)))
        with suppress(ValueError):  # of a date: the jitter will do
            wait = max(wait, min(LONGEST_WAIT, float(retry_after or 0)))
        if self._stop.wait(wait):
            raise Stop("another question met an error after which none is asked")

    def _read(self, text: str) -> tuple[Any, str]:
        """An answer as JSON (None of what is none) and as text, without the key."""
        key = self._config.key
        try:
            text = json.dumps(json.loads(text))
        except ValueError:
            return None, text.replace(key, BLANK) if key else text
        text = text.replace(key, BLANK) if key else text
        return json.loads(text), text


def _message(found: Any, text: str) -> str:
    """The sentence of an error, where the answer has one, on one line."""
    error = found.get("error") if isinstance(found, dict) else None
    said = error.get("message") if isinstance(error, dict) else error
    return " ".join(str(said or text).split())[:200]
