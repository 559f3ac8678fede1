#!/usr/bin/env python3
"""Looks at the page of a report in headless Chromium: on a desk and a telephone, light and dark, and printed; orders and filters the
pictures, opens one with the keyboard and walks through the models.

    apt-get install chromium; pip install pillow
    cargo build --release --bin selma
    target/release/selma run recipes/mini.toml
    python tools/check_report_page.py runs/mini/report/index.html

Ends with an error if the page asks anything of a network, a script fails, something sticks out of a screen, or the pictures are not in
the order asked for. With --screenshots, pictures of the page and its print are left there.
"""
import argparse
import base64
import shutil
import tempfile
from pathlib import Path

from check_rating_page import Browser

SCREENS = ["desktop", "phone", "small"]
DELTAS = """[...document.querySelectorAll('.sample:not([hidden]) .delta')].map((d) => d.textContent)
  .filter((text) => text).map((text) => Number(text.replace('\\u2212', '-').replace('\\u00b1', '')))"""


def choose(browser, name, value):
    browser.js(f"""(() => {{ const field = document.getElementById('{name}'); field.value = '{value}';
      field.dispatchEvent(new Event('change', {{ bubbles: true }})); }})()""")


def check_pictures(browser):
    if not browser.js("!!document.getElementById('grid')"):
        return "no pictures"
    choose(browser, "order", "gain")
    deltas = browser.js(DELTAS)
    assert deltas == sorted(deltas, reverse=True), deltas
    choose(browser, "order", "loss")
    deltas = browser.js(DELTAS)
    assert deltas == sorted(deltas), deltas
    for metric in range(browser.js("document.getElementById('metric').options.length")):
        choose(browser, "metric", metric)
        deltas = browser.js(DELTAS)
        assert deltas == sorted(deltas), (metric, deltas)
    if browser.js("document.getElementById('metric').options.length"):
        choose(browser, "metric", 0)
    for field in ["skill", "category"]:
        for option in browser.js(f"[...document.getElementById('{field}').options].map((o) => o.value)"):
            choose(browser, field, option)
            assert browser.js("document.querySelectorAll('.sample:not([hidden])').length"), (field, option)
            skills = browser.js("[...new Set([...document.querySelectorAll('.sample:not([hidden])')].map((s) => s.dataset.skill))]")
            assert field != "skill" or not option or skills == [option], (option, skills)
        choose(browser, field, "")
    browser.js("document.querySelector('.sample:not([hidden]) .thumb').focus()")
    browser.press(" ")
    browser.wait("document.getElementById('window').open")
    first = browser.js("document.getElementById('window-model').textContent")
    assert browser.js("document.querySelectorAll('#window-answers li').length || document.getElementById('window-metrics').textContent")
    browser.press("ArrowRight")
    second = browser.js("document.getElementById('window-model').textContent")
    models = browser.js("document.querySelector('.sample:not([hidden])').querySelectorAll('.thumb').length")
    assert models == 1 or first != second, first
    return f"pictures of {models} models"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", type=Path, help="index.html of a report")
    parser.add_argument("--chromium", default=shutil.which("chromium") or "chromium")
    parser.add_argument("--screenshots", type=Path, help="folder for pictures of the page")
    args = parser.parse_args()
    if args.screenshots:
        args.screenshots.mkdir(parents=True, exist_ok=True)

    def save(name, data):
        if args.screenshots:
            (args.screenshots / name).write_bytes(base64.b64decode(data))

    with tempfile.TemporaryDirectory() as folder:
        browser = Browser(args.chromium, Path(folder) / "profile")
        try:
            browser.open(args.page.resolve())
            for name in SCREENS:
                for dark in (False, True):
                    browser.screen(name, dark)
                    wide = browser.js("document.documentElement.scrollWidth - innerWidth")
                    assert wide <= 0, (name, wide)
                    shade = "dark" if dark else "light"
                    for section in browser.js("['', ...[...document.querySelectorAll('section')].map((s) => s.id)]"):
                        browser.js(f"document.documentElement.style.scrollBehavior = 'auto'; "
                                   f"(document.getElementById('{section}') ?? document.body).scrollIntoView()")
                        if args.screenshots:
                            save(f"{name}-{shade}-{section or 'top'}.png", browser.call("Page.captureScreenshot")["data"])
            browser.screen("desktop")
            pictures = check_pictures(browser)
            save("window.png", browser.call("Page.captureScreenshot")["data"])
            browser.screen("phone", True)
            save("window-phone.png", browser.call("Page.captureScreenshot")["data"])
            browser.js("document.getElementById('window')?.close()")
            browser.screen("desktop")
            printed = browser.call("Page.printToPDF", printBackground=True, preferCSSPageSize=True)["data"]
            save("print.pdf", printed)
            requests = {event["params"]["request"]["url"].split(":")[0] for event in browser.events
                        if event.get("method") == "Network.requestWillBeSent"}
            assert requests <= {"file", "data", "about"}, requests
            errors = [event for event in browser.events if event.get("method") == "Runtime.exceptionThrown"]
            assert not errors, errors
        finally:
            browser.close()
    size = args.page.stat().st_size
    print(f"{args.page}: {size / 1e6:.1f} MB, {pictures}, {len(printed) * 3 // 4 / 1e6:.1f} MB printed: as it should be")


if __name__ == "__main__":
    main()
