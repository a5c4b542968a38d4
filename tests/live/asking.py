"""Requests to a page's server without a browser."""

from __future__ import annotations

import http.client


def ask(port: int, method: str, path: str, sent: bytes | None = None, **headers: str) -> tuple[int, bytes, str]:
    """Status, body and headers of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, sent, headers)
        answer = connection.getresponse()
        return answer.status, answer.read(), str(answer.headers)
    finally:
        connection.close()
