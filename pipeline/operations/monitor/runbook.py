"""docs/runbook.md as a page, so that a trouble's link leads somewhere on a machine without this project's files too."""

import html
import re
from collections.abc import Iterator
from functools import cache
from itertools import takewhile
from pathlib import Path

from pipeline.config import project_file

_FILE = project_file("docs/runbook.md")
_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Runbook · Chimera</title><style>/*style*/</style><body class="runbook"><main>
<p><a href="/">Back to the monitor</a></p>
{body}
</main></body></html>
"""


@cache
def runbook_page() -> bytes:
    """Return the runbook as HTML; each heading has the id that links to docs/runbook.md have."""
    style = (Path(__file__).with_name("page") / "style.css").read_text(encoding="utf-8")
    body = "\n".join(_blocks(_FILE.read_text(encoding="utf-8")))
    return _PAGE.replace("{body}", body).replace("/*style*/", style).encode()


def _blocks(text: str) -> Iterator[str]:
    """Yield HTML of the blocks that the runbook uses: headings, code, lists, paragraphs."""
    lines = iter(text.splitlines())
    block: list[str] = []
    for line in lines:
        if line.startswith("```"):
            yield from _block(block)
            code = "\n".join(takewhile(lambda each: each != "```", lines))
            yield f"<pre><code>{html.escape(code)}</code></pre>"
            block = []
        elif line:
            block.append(line)
        else:
            yield from _block(block)
            block = []
    yield from _block(block)


def _block(lines: list[str]) -> Iterator[str]:
    text = "\n".join(lines)
    if heading := re.fullmatch(r"(#+) (.*)", text):
        level, words = len(heading[1]), heading[2]
        anchor = re.sub(r"[^\w -]", "", words).lower().replace(" ", "-")
        yield f'<h{level} id="{anchor}">{_inline(words)}</h{level}>'
    elif text.startswith("- "):
        items = re.split(r"\n?^- ", text, flags=re.MULTILINE)[1:]
        yield "<ul>" + "".join(f"<li>{_inline(item)}</li>" for item in items) + "</ul>"
    elif text:
        yield f"<p>{_inline(text)}</p>"


def _inline(text: str) -> str:
    """Return HTML of text with code, bold words, and links to sections; other links lose their target."""
    text = html.escape(text, quote=False)
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", text)
    text = re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", text)
    text = re.sub(r"\[([^\]]+)\]\((#[^)]+)\)", r'<a href="\2">\1</a>', text)
    return re.sub(r"\[([^\]]+)\]\(([^)]+)\)", r"\1 (docs/\2)", text)
