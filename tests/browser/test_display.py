"""Browsers display or save files, and execute none of them."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.support import live
from tests.support.browser import BLANK, PDF, Pages, has_viewer, png, show, until, upload, wav

SCRIPT = "document.documentElement.dataset.ran = parent.postMessage('ran', '*')"
HTML = f'<!doctype html><title>html</title><body onload="{SCRIPT}"><script>{SCRIPT}</script>'
SVG = (
    f'<svg xmlns="http://www.w3.org/2000/svg" width="5" height="5" onload="{SCRIPT}">'
    f"<script>{SCRIPT}</script></svg>"
)
PLAYS = """
() => {
  const media = document.querySelector("video, audio");
  return media && !media.error && media.readyState >= 3 && media.currentTime > 0;
}
"""
RECORD_A_VIDEO = """
async () => {
  const canvas = document.createElement("canvas");
  const drawing = canvas.getContext("2d");
  const recorder = new MediaRecorder(canvas.captureStream(25), { mimeType: "video/webm" });
  const pieces = [];
  recorder.ondataavailable = ({ data }) => pieces.push(data);
  recorder.start();
  for (let grey = 0; grey < 25; grey++) {
    drawing.fillStyle = `rgb(${grey}, ${grey}, ${grey})`;
    drawing.fillRect(0, 0, 300, 150);
    await new Promise(requestAnimationFrame);
  }
  await new Promise((resolve) => { recorder.onstop = resolve; recorder.stop(); });
  const bytes = new Uint8Array(await new Blob(pieces).arrayBuffer());
  return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
}
"""


@pytest.fixture
def isolated(context: Any, pages: Pages) -> Any:
    """A page that only embeds resources that allow it."""
    headers = {"Cross_Origin_Embedder_Policy": "require-corp"}
    headers["Cross_Origin_Opener_Policy"] = "same-origin"
    page = context.new_page()
    page.goto(pages.add("/isolated.html", BLANK, **headers))
    assert page.evaluate("crossOriginIsolated")
    return page


def test_isolated_pages_show_files(isolated: Any, public_server: live.Server) -> None:
    attachment = upload(public_server, "docs/corp", png(width=4), "a.png")
    assert show(isolated, attachment["location"]) == 4
    assert "Error" in isolated.evaluate(
        "(url) => fetch(url, { mode: 'no-cors' }).catch(String)", f"{public_server.url}/"
    )  # Kinto's own responses may not be embedded, which shows that the policy works.


@pytest.mark.parametrize("kind", ["video", "audio"])
def test_a_video_plays_in_a_tab(page: Any, public_server: live.Server, kind: str) -> None:
    if kind == "video":
        content, name = base64.b64decode(page.evaluate(RECORD_A_VIDEO)), "a.webm"
    else:
        content, name = wav(5), "a.wav"
    attachment = upload(public_server, f"docs/{kind}", content, name)
    page.goto(attachment["location"])
    until(page, "document.querySelector('video')?.readyState >= 3")
    page.focus("video")
    page.keyboard.press("Space")  # In a sandbox, browsers play media only after a user action.
    until(page, PLAYS)


def test_a_page_of_another_origin_has_a_file_saved(page: Any, server: live.Server) -> None:
    url = upload(server, "docs/saved", png(), "a.png")["url"]
    record = url.removesuffix("/attachment")
    with live.Client(server) as alice:
        body = '{"permissions": {"read": ["system.Everyone"]}}'
        path = record.removeprefix(server.url)
        json = {"Content-Type": "application/json"}
        assert alice.request("PATCH", path, body, json)[0] == 200
        owner = alice.request("GET", "/")[2]["user"]["bucket"]
    url = url.replace("default", owner)
    link = f"{url}?disposition=attachment&filename=%C3%A4.png"
    page.set_content(f'<a href="{link}">Save</a>')
    with page.expect_download() as download:
        page.click("a")
    assert download.value.suggested_filename == "ä.png"


@pytest.mark.parametrize(("name", "content"), [("a.html", HTML), ("a.svg", SVG)])
@pytest.mark.parametrize("where", ["tab", "iframe", "object", "embed", "img"])
def test_files_run_no_scripts(
    context: Any, page: Any, public_server: live.Server, name: str, content: str, where: str
) -> None:
    """Even if the operator lets browsers display them."""
    location = upload(public_server, f"docs/hostile-{where}", content.encode(), name)["location"]
    page.evaluate("window.messages = []; onmessage = ({ data }) => messages.push(data); 0")
    if where == "tab":
        page.goto(location)
        assert page.evaluate("document.documentElement.dataset.ran") is None
        assert page.evaluate("document.readyState") == "complete"
        return
    attribute = "data" if where == "object" else "src"
    page.evaluate(
        """
        ([kind, attribute, url]) => new Promise((resolve) => {
          const element = document.createElement(kind);
          element.onload = element.onerror = resolve;
          element[attribute] = url;
          document.body.append(element);
        })
        """,
        [where, attribute, location],
    )
    assert page.evaluate("messages") == []


@pytest.mark.parametrize("where", ["tab", "frame"])
def test_a_pdf_is_shown_if_the_operator_allows_it(
    page: Any, public_server: live.Server, where: str
) -> None:
    location = upload(public_server, f"docs/pdf-{where}", PDF, "a.pdf")["location"]
    if where == "tab":
        page.goto(location)
    else:
        page.set_content(f'<iframe src="{location}"></iframe>')
    has_viewer(page, location)


def test_scripts_run_without_the_policy(page: Any, pages: Pages) -> None:
    """This shows that the test above would detect them."""
    page.goto(pages.add("/hostile.html", HTML))
    assert page.evaluate("document.documentElement.dataset.ran") is not None
