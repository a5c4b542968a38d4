"""Fixtures that several files here share."""

from __future__ import annotations

from sshd import server as server
from sshd import tidy as tidy
