"""Makes docs/images/page.png: the built-in page of a real server under changing load, as headless Chromium draws it.

    SESSA_ROOT=. SESSA_SERVER_BINARY=build/release/sessa-server build/venv/bin/python tests/e2e/page_screenshot.py OUT.png [--model build/smollm2]
"""
import argparse
import contextlib
import http.client
import math
import pathlib
import random
import threading
import time

from playwright.sync_api import sync_playwright

from server_process import PROMPT, ROOT, ServerProcess

CHROMIUM = "/usr/bin/chromium"


STORIES = ("This is a story about Milo and Kira. Kira saw that the orange coin is in the drawer. Milo said that the red key is in the barn.\n"
           "Question: Where is the red key?\nAnswer:", "Kira saw that the blue hat is in the drawer.\nQuestion: Where is the blue hat?\nAnswer:")
QUESTIONS = ("What is the capital of France?", "Which river flows through it?")


def keep_busy(server, stop, user, seconds, tokens):
    """One user of many: completions one after another, with pauses that grow and shrink over the time shown."""
    draw = random.Random(user)
    begin = time.monotonic()
    while not stop.is_set():
        wave = 0.5 + 0.5 * math.sin((time.monotonic() - begin) / seconds * 4 * math.pi + user / 4)
        stop.wait(draw.expovariate(1 / (0.1 + 3 * wave)))
        with contextlib.suppress(OSError, http.client.HTTPException):  # the server ends first
            server.request("POST", "/v1/completions", {
                "prompt": f"{user}. {PROMPT}" * draw.randint(1, 20), "ignore_eos": True,
                "max_tokens": draw.randint(tokens // 12, tokens)})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--seconds", type=float, default=115, help="of load before the picture")
    parser.add_argument("--width", type=int, default=1200)
    parser.add_argument("--height", type=int, default=760)
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--completion", action="store_true", help="show this tab, not the chat")
    parser.add_argument("--model", type=pathlib.Path, help="that chats; none: the demo, which knows stories alone")
    args = parser.parse_args()
    # As large as makes the plots interesting: sequences wait, and the cache is nearly full now and then.
    model, cache, num_users, tokens = (args.model, "128MiB", 6, 120) if args.model else (ROOT / "models" / "demo", "16MiB", 16, 600)
    server = ServerProcess("--max_num_seqs=8", f"--state_cache_bytes={cache}", "--access_log=off", model=model)
    stop = threading.Event()
    users = [threading.Thread(target=keep_busy, args=(server, stop, user, args.seconds, tokens)) for user in range(num_users)]
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": args.width, "height": args.height},
                                    color_scheme="dark" if args.dark else "light")
            page.goto(f"http://{server.http_address}/")
            page.wait_for_selector("#state[data-state=ready]")
            for user in users:
                user.start()
            time.sleep(args.seconds)
            if not args.model:
                page.fill("#stops", "\\n\n.")
            if args.completion:
                page.click("#completion_tab")
                page.click("#send")
                page.wait_for_selector("#usage:not(:empty)")
            else:
                for question in QUESTIONS if args.model else STORIES:
                    page.fill("#message", question)
                    page.click("#send")
                    page.wait_for_selector("#usage:not(:empty)")
            page.screenshot(path=args.out, full_page=True)
            browser.close()
    finally:
        stop.set()
        server.stop()
        for user in users:
            if user.is_alive():
                user.join()


if __name__ == "__main__":
    main()
