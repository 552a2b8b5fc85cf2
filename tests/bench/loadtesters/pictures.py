"""./dev bench pictures: the runs that docs/load-testing.md shows, against sessa-server with random weights, and pictures of their
reports in a real browser, into docs/images/. --shots_only: of the reports that are there already."""
import argparse
import pathlib
import shlex
import subprocess

from playwright import sync_api

import servers

SERVER_CORE, CLIENT_CORE = "0", "1"
WIDTH = 1000  # CSS pixels: what GitHub shows without shrinking
MAX_BYTES = 150 * 1024
# Name, flags of sessa-loadtest as they stand in the document, and the part of the page.
PICTURES = (
    ("how-fast", "--users 1 --lengths 64-512,128", "section:has(#latency-table)"),
    ("how-much", "--rate 0.5,1,1.5,2,2.5,3 --duration_seconds 20 --lengths 64-512,32-96 --slo ttft:1s,tpot:60ms", "#sweep-plots"),
    ("long-prompt", "--rate 0.5 --lengths '32-128,96:30;8K,16:1' --duration_seconds 60 --probe_rate 2 --seed 5", "section:has(#timelines)"),
)


def run(loadtest, address, name, flags, report):
    command = ["taskset", "-c", CLIENT_CORE, loadtest, f"--url=http://{address}", f"--html={report}", f"--title={name}", "--noprogress", *shlex.split(flags)]
    subprocess.run(command, check=True)  # 3 would mean that the load tester lagged: no picture of that


def shoot(browser, report, part, picture):
    page = browser.new_page(viewport={"width": WIDTH, "height": 900}, color_scheme="light")
    page.goto(report.as_uri())
    page.evaluate("document.querySelector('#timelines > :nth-child(3)')?.remove()")  # throughput: too large with it
    page.wait_for_timeout(1500)  # plots are drawn with a movement
    page.locator(part).screenshot(path=str(picture))
    page.close()
    size = picture.stat().st_size
    print(f"{picture.name}: {size} bytes")
    if size > MAX_BYTES:
        raise RuntimeError(f"{picture} has more than {MAX_BYTES} bytes")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build_dir", required=True, type=pathlib.Path)
    parser.add_argument("--work_dir", required=True, type=pathlib.Path)
    parser.add_argument("--images", required=True, type=pathlib.Path)
    parser.add_argument("--only", default="", help="a part of a picture's name")
    parser.add_argument("--shots_only", action="store_true")
    arguments = parser.parse_args()
    model, reports = arguments.work_dir / "model", arguments.work_dir.resolve() / "reports"
    reports.mkdir(parents=True, exist_ok=True)
    arguments.images.mkdir(exist_ok=True)
    chosen = [p for p in PICTURES if arguments.only in p[0]]
    if not arguments.shots_only:
        servers.make_model(model)
        server = servers.SessaServer(arguments.build_dir / "sessa-server", model, SERVER_CORE, threads=1)
        try:
            for name, flags, _ in chosen:
                run(arguments.build_dir / "sessa-loadtest", server.address, name, flags, reports / f"{name}.html")
        finally:
            server.stop()
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        for name, _, part in chosen:
            shoot(browser, reports / f"{name}.html", part, arguments.images / f"{name}.png")
        browser.close()


if __name__ == "__main__":
    main()
