"""Runs scripts in a page of the HTML report in a real Chromium, headless, and hands back what they answer.

No driver is needed: the browser prints the document as it is when all timers have run, and the answer stands in it.
"""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

needs_chromium = pytest.mark.skipif(
    BROWSER is None, reason="there is no chromium on the PATH (Debian: apt-get install chromium)"
)

_ANSWERING = """
<script>
{
  const written = document.createElement("pre");
  written.id = "answer-of-the-test";
  const failed = [];
  window.addEventListener("error", (event) => failed.push(event.message));
  (async () => {
    let answer;
    try { answer = { value: await (async () => { %s })() }; } catch (error) { answer = { error: String(error.stack || error) }; }
    written.textContent = JSON.stringify({ ...answer, failed });
    document.body.append(written);
  })();
}
</script>
"""


def answer(page: str, script: str, folder: Path, *, fragment: str = "", width: int = 1280) -> Any:
    """What `script` (the body of an async function) returns when it has run at the end of `page`, a whole HTML document."""
    assert BROWSER is not None
    file = folder / "page.html"
    before, end, after = page.rpartition("</body>")
    assert end
    file.write_text(before + _ANSWERING % script + end + after, encoding="utf-8")
    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}",
        f"--window-size={width},1000", "--virtual-time-budget=20000", "--dump-dom", f"{file.as_uri()}{fragment}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    found = re.search(r'<pre id="answer-of-the-test">(.*?)</pre>', done.stdout.decode("utf-8"), re.DOTALL)
    assert found, done.stderr.decode("utf-8", "replace")[-2_000:]
    told = json.loads(html.unescape(found[1]))
    assert "error" not in told, told["error"]
    assert not told["failed"], told["failed"]
    return told.get("value")
