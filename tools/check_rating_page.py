#!/usr/bin/env python3
"""Rates 20 pairs in headless Chromium by keyboard, as a person would: with a mistake that is undone, a reload in the middle, a
name at the end, and the download; then imports the file and compares with what was chosen.

    apt-get install chromium; pip install pillow
    cargo build --release --bin selma
    python tools/check_rating_page.py --selma target/release/selma

Ends with an error if anything differs, the page asks anything of a network, a prompt is run as a script, a button has no
name for screen readers, or something does not fit a screen. With --screenshots, pictures of the page are left there.
"""
import argparse
import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from PIL import Image, ImageDraw

PAIRS = 20
EVIL = "</script><script>window.hacked = 1</script><img src=x onerror=\"hacked = 2\"> & a “quoted” cat"
PROMPTS = [
    "a red circle left of a large yellow star",
    "three white triangles on a navy background, one of them upside down, above a small orange ring",
    "ein grünes Herz über einem blauen Quadrat",
    "دائرة حمراء بجانب نجمة صفراء",
    "a green heart above an orange ring on a sand background, with a long shadow that falls to the right, seen from above "
    "in the light of a late afternoon, as a poster of the nineteen-sixties with flat colours and a thin white border",
]
KEYS = {"left": ["ArrowLeft", "a"], "right": ["ArrowRight", "b"], "tie": [" ", "ArrowDown", "t"]}
SCREENS = {"desktop": (1280, 800, False), "wide": (1920, 1080, False), "phone": (390, 664, True), "small": (320, 568, True),
           "landscape": (844, 390, True)}


class Browser:
    """A page of Chromium, through the pipes of its debugging protocol."""

    def __init__(self, program, folder):
        to_child, self.to = os.pipe()
        self.back, from_child = os.pipe()
        # Away from 3 and 4, which the child uses.
        to_child, from_child = (fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (to_child, from_child))

        def wire():
            os.dup2(to_child, 3)
            os.dup2(from_child, 4)

        command = [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars",
                   "--remote-debugging-pipe", f"--user-data-dir={folder}", "about:blank"]
        self.process = subprocess.Popen(command, preexec_fn=wire, close_fds=False, stderr=subprocess.DEVNULL)
        os.close(to_child)
        os.close(from_child)
        self.number, self.buffer, self.events, self.session = 0, b"", [], None

    def call(self, method, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + 60
        while True:
            while b"\0" not in self.buffer:
                assert select.select([self.back], [], [], end - time.monotonic())[0], f"no answer to {method}"
                self.buffer += os.read(self.back, 1 << 20)
            line, self.buffer = self.buffer.split(b"\0", 1)
            reply = json.loads(line)
            if reply.get("id") == self.number:
                assert "error" not in reply, reply
                return reply["result"]
            self.events.append(reply)

    def open(self, path):
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ["Page", "Runtime", "Network", "Accessibility"]:
            self.call(f"{domain}.enable")
        self.call("Page.navigate", url=path.as_uri())
        self.wait("document.readyState === 'complete'")

    def js(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait(self, expression):
        for _ in range(200):
            if self.js(expression):
                return
            time.sleep(0.05)
        raise AssertionError(f"never true: {expression}")

    def press(self, key):
        params = {"key": key, "text": key} if len(key) == 1 else {"key": key}
        codes = {" ": 32, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Enter": 13, "Tab": 9}
        params["windowsVirtualKeyCode"] = codes.get(key, ord(key[0].upper()))
        self.call("Input.dispatchKeyEvent", type="keyDown", **params)
        self.call("Input.dispatchKeyEvent", type="keyUp", **params)

    def screen(self, name, dark=False):
        width, height, mobile = SCREENS[name]
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        self.call("Emulation.setTouchEmulationEnabled", enabled=mobile)
        self.call("Emulation.setEmulatedMedia", features=[
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce"}])
        self.js("Promise.all([...document.images].map((image) => image.decode().catch(() => {})))")

    def close(self):
        with contextlib.suppress(AssertionError, OSError):
            self.session = None
            self.call("Browser.close")
        self.process.wait(timeout=20)


def draw(folder, shift):
    """Pictures of 512 pixels, and a few small ones; the second model's are warmer."""
    folder.mkdir()
    for number in range(PAIRS):
        edge = 64 if number % 5 == 4 else 512
        size = (edge, edge * 3 // 4) if number % 7 == 3 else (edge, edge)
        picture = Image.new("RGB", size, (70 + shift, 110 + 5 * number, 200 - shift))
        pen = ImageDraw.Draw(picture)
        pen.ellipse([edge // 8 + number, edge // 8, edge * 5 // 8, edge * 5 // 8], fill=(230, 90 + shift, 60))
        pen.rectangle([edge // 2, edge * 3 // 8, edge * 7 // 8, edge * 11 // 16], fill=(250, 220 - shift, 90))
        picture.save(folder / f"item-{number}.png")


def prompt(number):
    return EVIL if number == 7 else f"{PROMPTS[number % len(PROMPTS)]} ({number})"


def fits(browser, where):
    """Nothing sticks out, and both pictures and all choices can be seen at once."""
    box = browser.js("""(() => {
      const boxes = ["#left", "#right", "[data-choice=left]", "[data-choice=tie]", "[data-choice=right]"]
        .map((name) => document.querySelector(name).getBoundingClientRect());
      return { wide: document.documentElement.scrollWidth - innerWidth, top: Math.min(...boxes.map((b) => b.top)),
        bottom: Math.max(...boxes.map((b) => b.bottom)) - innerHeight, low: Math.min(...boxes.slice(2).map((b) => b.height)),
        covered: Math.max(boxes[0].bottom, boxes[1].bottom) - boxes[2].top, picture: boxes[0].width };
    })()""")
    assert box["wide"] <= 0 and box["low"] >= 44, (where, box)
    return box


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--selma", type=Path, required=True, help="the command-line program")
    parser.add_argument("--chromium", default=shutil.which("chromium") or "chromium")
    parser.add_argument("--screenshots", type=Path, help="folder for pictures of the page")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        draw(work / "base", 0)
        draw(work / "tuned", 45)
        rows = [{"id": f"item-{n}", "text": prompt(n), "category": "even" if n % 2 == 0 else "odd"} for n in range(PAIRS)]
        (work / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        selma = [args.selma.resolve(), "rate"]
        subprocess.run([*selma, "export", "base", "tuned", "--prompts", "prompts.jsonl", "--out", "rate.html", "--seed", "5"],
                       cwd=work, check=True)
        key = json.loads((work / "rate.key.json").read_text())
        page = (work / "rate.html").read_text()
        assert len(key["pairs"]) == PAIRS and "tuned" not in page and "item-" not in page

        # The tuned model wins twelve times, four pairs are ties, and the rest it loses.
        def wanted(number):
            if number % 5 == 2:
                return "tie"
            winner = "base" if number % 5 == 4 else "tuned"
            return "left" if key["pairs"][number]["left"] == winner else "right"

        browser = Browser(args.chromium, work / "profile")
        try:
            browser.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(work))
            browser.open(work / "rate.html")
            browser.screen("desktop")
            shown = "document.getElementById('text').textContent"
            count = "document.getElementById('count').textContent"
            for number in range(PAIRS):
                assert browser.js(count) == f"{number + 1} of {PAIRS}", (number, browser.js(count))
                assert browser.js(shown) == key["pairs"][number]["text"], number
                if number == 0:
                    tree = browser.call("Accessibility.getFullAXTree")["nodes"]
                    names = {node.get("name", {}).get("value") for node in tree if node["role"]["value"] == "button"}
                    assert {"A is better", "Both alike", "B is better"} <= names, names
                    check_screens(browser, args.screenshots)
                if number == 10:
                    browser.js("window.old = true")
                    browser.call("Page.reload")
                    browser.wait(f"!window.old && document.readyState === 'complete' && {count} === '11 of {PAIRS}'")
                if number == 13:
                    browser.press("b" if wanted(number) == "left" else "a")
                    assert browser.js(count) == f"{number + 2} of {PAIRS}"
                    browser.press("u")
                    assert browser.js(count) == f"{number + 1} of {PAIRS}"
                if key["pairs"][number]["text"] == EVIL:
                    assert browser.js("window.hacked") is None
                keys = KEYS[wanted(number)]
                browser.press(keys[number % len(keys)])
            assert browser.js("document.getElementById('app').hidden && !document.getElementById('done').hidden")
            browser.press("a")  # Nothing is left to choose.
            browser.js("document.getElementById('name').focus()")
            browser.call("Input.insertText", text="Ada \"L\" <b>")
            browser.press("u")  # A letter of the name, no command.
            picture(browser, args.screenshots, "done")
            browser.js("document.querySelector('#done [data-action=save]').focus()")
            browser.press(" ")
            for _ in range(200):
                files = list(work.glob("answers-*.json"))
                if files:
                    break
                time.sleep(0.05)
            [answers] = files
            requests = {event["params"]["request"]["url"].split(":")[0] for event in browser.events
                        if event.get("method") == "Network.requestWillBeSent"}
            assert requests <= {"file", "data", "blob", "about"}, requests
            errors = [event for event in browser.events if event.get("method") == "Runtime.exceptionThrown"]
            assert not errors, errors
        finally:
            browser.close()

        saved = json.loads(answers.read_text())
        assert [answer["choice"] for answer in saved["answers"]] == [wanted(n) for n in range(PAIRS)], saved
        assert saved["name"] == "Ada \"L\" <b>u", saved["name"]
        done = subprocess.run([*selma, "import", "rate.key.json", answers, "--format", "json"], cwd=work, check=True,
                              stdout=subprocess.PIPE)
        [comparison] = json.loads(done.stdout)["comparisons"]
        counts = [comparison["overall"][name] for name in ("losses", "ties", "wins")]
        assert (comparison["first"], counts) == ("base", [12, 4, 4]), comparison
        subprocess.run([*selma, "import", "rate.key.json", answers], cwd=work, check=True)
    print(f"{PAIRS} pairs rated by keyboard, reloaded, downloaded and imported: all as chosen")


def check_screens(browser, folder):
    """The first pair and those with other shapes and texts, on every screen."""
    for name in SCREENS:
        for dark in (False, True):
            browser.screen(name, dark)
            box = fits(browser, name)
            if name in ("desktop", "wide", "phone", "landscape"):
                assert box["top"] >= 0 and box["bottom"] <= 0 and box["covered"] <= 0, (name, box)
            picture(browser, folder, f"{name}-{'dark' if dark else 'light'}")
    browser.screen("desktop")


def picture(browser, folder, name):
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.png").write_bytes(base64.b64decode(browser.call("Page.captureScreenshot")["data"]))


if __name__ == "__main__":
    main()
