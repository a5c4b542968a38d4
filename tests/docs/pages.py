"""The pages of the documentation and the code blocks in them."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
RESULTS = tuple(sorted((ROOT / "benchmarks" / "results").glob("*.md")))

_BLOCK = re.compile(
    r"^(?P<indent> *)(?:<!-- (?P<mark>run) -->\n *)?```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced code block.  mark: "run" where a comment above it says that the tests run it, else ""."""

    page: Path
    line: int
    language: str
    text: str
    mark: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    def commands(self) -> list[list[str]]:
        """The words of every command of a shell block, comments left out and continued lines joined."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [words for words in (shlex.split(line, comments=True) for line in lines) if words]


def blocks(language: str) -> Iterator[Block]:
    """All blocks of a language, page by page."""
    for page in PAGES:
        content = page.read_text()
        for match in _BLOCK.finditer(content):
            if match["language"] == language:
                line = content.count("\n", 0, match.start("text"))
                yield Block(page, line, language, textwrap.dedent(match["text"]), match["mark"] or "")
