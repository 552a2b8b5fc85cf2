"""The built-in page in headless Chromium, as large as a desk's window and as a phone: against the real server, what it
sends and shows, its plots, and that it runs nothing but its own scripts."""
import contextlib
import http.client
import json
import pathlib
import tempfile
import threading
import unittest

from playwright.sync_api import expect, sync_playwright

from server_process import PROMPT, ServerProcess, slow_model, wait_until

CHROMIUM = pathlib.Path("/usr/bin/chromium")
PATIENCE = 120_000  # milliseconds: nothing here depends on how fast the machine is
SIZES = {
    "desk": {"viewport": {"width": 1280, "height": 800}},
    "phone": {"viewport": {"width": 360, "height": 740}, "device_scale_factor": 2, "is_mobile": True,
              "has_touch": True},
}
MARKUP = "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>"


def setUpModule():
    global playwright, browser, server
    if not CHROMIUM.exists():
        raise AssertionError(f"there is no {CHROMIUM}: install the package chromium (docker/packages.txt)")
    playwright = sync_playwright().start()
    unittest.addModuleCleanup(playwright.stop)
    expect.set_options(timeout=PATIENCE)
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
    unittest.addModuleCleanup(browser.close)
    server = ServerProcess()
    unittest.addModuleCleanup(server.stop)


def total(server, name, label=""):
    """The sum of a server's series of a name, of those that have the label."""
    return sum(value for key, value in server.metrics().items() if key.split("{")[0] == name and label in key)


def answer(path, body):
    status, _, text = server.request("POST", path, body)
    assert status == 200, text
    choice = json.loads(text)["choices"][0]
    return choice["text"] if "text" in choice else choice["message"]["content"].lstrip()


class WebPageTest(unittest.TestCase):
    @contextlib.contextmanager
    def page(self, size="desk", address=None, path="/", console=(), prefix=None, **context):
        """A page of its own context. It fails when a script failed, when a line of the console is not one of `console`
        (parts of such lines), or when anything was asked of another host. `prefix` stands before every path, as
        behind a proxy."""
        host = address or server.http_address
        said, hosts = [], set()
        context = browser.new_context(**SIZES[size], **context)
        try:
            page = context.new_page()
            page.set_default_timeout(PATIENCE)
            page.on("pageerror", lambda error: said.append(f"error: {error}"))
            page.on("console", lambda line: said.append(line.text))
            page.on("request", lambda request: hosts.add(request.url.split("/")[2]))
            if prefix:
                page.route(f"**{prefix}/**", lambda route: route.continue_(
                    url=route.request.url.replace(prefix, "", 1)))
            self.response = page.goto(f"http://{host}{prefix or ''}{path}")
            yield page
        finally:
            context.close()
        self.assertEqual(hosts, {host})
        self.assertEqual([line for line in said if not any(part in line for part in console)], [])

    def send(self, page):
        """Sends the form and waits for the end of its stream; the request's body."""
        with page.expect_request(lambda request: request.method == "POST") as sent:
            page.click("#send")
        expect(page.locator("#send")).to_have_attribute("aria-disabled", "false")
        return sent.value.post_data_json

    def fits(self, page):
        """Nothing is wider than the window, and the page itself never scrolls sideways."""
        wide = page.evaluate("""() => {
          const wide = [...document.querySelectorAll('body *')].filter(e => e.getClientRects().length > 0 &&
            (e.getBoundingClientRect().right > innerWidth + 0.5 || e.getBoundingClientRect().left < -0.5));
          return [document.documentElement.scrollWidth - innerWidth, wide.map(e => e.outerHTML.slice(0, 80))];
        }""")
        self.assertEqual(wide, [0, []])

    def test_chat_and_completion_are_what_the_api_answers(self):
        for size in SIZES:
            with self.subTest(size), self.page(size) as page:
                self.chat_sends_every_turn(page)
                page.click("#completion_tab")
                self.completion_streams(page)

    def completion_streams(self, page):
        expected = answer("/v1/completions", {"prompt": PROMPT, "max_tokens": 48, "temperature": 0})
        page.fill("#prompt", PROMPT)
        page.fill("#max_tokens", "48")
        body = self.send(page)
        self.assertEqual((body["prompt"], body["temperature"], body["stream"]), (PROMPT, 0, True))
        self.assertEqual(page.text_content("#output"), PROMPT + expected)
        self.assertEqual(page.text_content("#output mark"), expected)
        expect(page.locator("#usage")).to_contain_text("tokens, first after")
        self.fits(page)

    def chat_sends_every_turn(self, page):
        page.fill("#max_tokens", "12")
        page.click("summary")
        page.fill("#system", "Tell stories.")
        page.fill("#message", "Where is the red key?")
        turns = [{"role": "system", "content": "Tell stories."}, {"role": "user", "content": "Where is the red key?"}]
        self.assertEqual(self.send(page)["messages"], turns)
        told = answer("/v1/chat/completions", {"messages": turns, "max_tokens": 12, "temperature": 0})
        expect(page.locator(".assistant")).to_contain_text(told)
        page.fill("#message", "And the coin?")
        turns += [{"role": "assistant", "content": told}, {"role": "user", "content": "And the coin?"}]
        self.assertEqual(self.send(page)["messages"], turns)
        self.assertEqual(page.locator(".bubble").count(), 4)
        self.fits(page)
        page.click("#clear")
        page.fill("#system", "")
        page.fill("#message", "x")
        self.assertEqual(self.send(page)["messages"], [{"role": "user", "content": "x"}])

    def test_seed_and_stop_strings_reach_the_server(self):
        with self.page(path="/#completion") as page:
            page.fill("#temperature", "1")
            page.fill("#top_k", "50")
            page.fill("#max_tokens", "40")

            def drawn(seed):
                page.fill("#seed", seed)
                self.assertEqual(self.send(page).get("seed"), int(seed))
                return page.text_content("#output mark")

            text = drawn("7")
            self.assertEqual(drawn("7"), text)
            self.assertNotEqual(drawn("8"), text)
            prompt = page.input_value("#prompt")
            self.assertEqual(text, answer("/v1/completions", {
                "prompt": prompt, "max_tokens": 40, "temperature": 1, "top_k": 50, "seed": 7}))
            page.fill("#temperature", "0")
            page.fill("#stops", "\\n\nthe \\\\n\n\n")
            body = self.send(page)
            self.assertEqual(body["stop"], ["\n", "the \\n"])
            text = page.text_content("#output mark")
            self.assertEqual(text, answer("/v1/completions", {
                "prompt": prompt, "max_tokens": 40, "temperature": 0, "stop": "\n"}))
            page.fill("#stops", "a\nb\nc\nd")  # the most that are taken
            self.assertEqual(self.send(page)["stop"], ["a", "b", "c", "d"])
            expect(page.locator("#error")).to_be_hidden()

    def test_errors_are_the_servers_own_words(self):
        with self.page(console=["400 (Bad Request)"]) as page:
            page.fill("#stops", "a\nb\nc\nd\ne")
            page.fill("#message", "Hello")
            self.send(page)
            expect(page.locator("#error")).to_have_text("stop: at most 4 stop strings, got 5")
            self.assertEqual(page.input_value("#message"), "Hello")  # the turn was taken back
            self.assertEqual(page.locator(".bubble").count(), 0)
            page.fill("#stops", "")
            self.assertEqual(len(self.send(page)["messages"]), 1)
            expect(page.locator("#error")).to_be_hidden()

    def test_stop_cancels_the_request(self):
        slow = ServerProcess(model=slow_model())
        self.addCleanup(slow.stop)
        with self.page(address=slow.http_address) as page:
            page.route("**/completions", lambda route: route.continue_(  # it ends no sooner
                post_data=json.dumps({**route.request.post_data_json, "ignore_eos": True})))
            page.fill("#max_tokens", "3900")
            page.fill("#message", PROMPT)
            page.keyboard.press("Control+Enter")
            expect(page.locator(".assistant")).not_to_be_empty()  # it shows what there is
            expect(page.locator("#clear")).to_be_disabled()  # and more is to come
            page.click("#stop")
            expect(page.locator(".assistant small")).to_have_text("stopped")
            expect(page.locator("#message")).to_be_focused()
            wait_until(lambda: total(slow, "sessa_requests_total", 'outcome="cancelled"') == 1)
            wait_until(lambda: total(slow, "sessa_num_requests_running") == 0)
            page.fill("#max_tokens", "4")
            page.fill("#message", "Go on")
            self.assertEqual([m["role"] for m in self.send(page)["messages"]], ["user", "assistant", "user"])

    def test_api_key(self):
        with tempfile.TemporaryDirectory() as folder:
            keys = pathlib.Path(folder, "keys")
            keys.write_text("secret team\n")
            locked = ServerProcess(f"--api_keys_file={keys}")
            self.addCleanup(locked.stop)
        with self.page(address=locked.http_address, console=["401 (Unauthorized)"]) as page:
            expect(page.locator("#model")).to_have_text("demo, asks for an API key")
            page.fill("#max_tokens", "4")
            page.fill("#message", "Hello")
            self.send(page)
            expect(page.locator("#error")).to_contain_text("An API key is needed")
            page.fill("#api_key", "wrong")
            self.send(page)
            expect(page.locator("#error")).to_have_text("The API key is not known.")
            page.fill("#api_key", "secret")
            self.send(page)
            expect(page.locator("#error")).to_be_hidden()
            expect(page.locator(".assistant")).not_to_be_empty()
            expect(page.locator("#model")).to_contain_text("demo, 4 layers")
            page.reload()
            self.assertEqual(page.input_value("#api_key"), "secret")
            self.assertEqual(page.evaluate("() => [localStorage.length, document.cookie]"), [0, ""])

    def test_text_is_never_markup(self):
        events = "".join(f"data: {json.dumps(event)}\n\n" for event in (
            {"choices": [{"text": MARKUP, "delta": {"content": MARKUP}, "finish_reason": "length"}], "usage": None},
            {"error": {"message": MARKUP}}))
        with self.page() as page:
            page.route("**/completions", lambda route: route.fulfill(content_type="text/event-stream", body=events))
            page.fill("#message", MARKUP)
            self.send(page)
            self.assertEqual(page.locator(".user").text_content(), MARKUP)
            self.assertEqual(page.locator(".assistant").text_content(), MARKUP + "broken off")
            page.click("#completion_tab")
            page.fill("#prompt", MARKUP)
            self.send(page)
            self.assertEqual(page.text_content("#output"), MARKUP * 2)
            self.assertEqual(page.text_content("#error"), MARKUP)
            self.assertEqual(page.locator("img, script").count(), 3)  # the page's own
            self.assertEqual(page.title(), "Sessa Serve")

    def test_only_its_own_scripts_run(self):
        with self.page(console=["Content Security Policy"]) as page:
            policy = self.response.headers["content-security-policy"]
            self.assertIn("default-src 'none'; script-src 'self'; style-src 'self'", policy)
            self.assertNotIn("unsafe", policy)
            self.assertEqual(self.response.headers["x-content-type-options"], "nosniff")
            page.evaluate("""() => {
              const script = document.createElement('script');
              script.textContent = "document.title = 'run'";
              document.body.append(script);
            }""")
            self.assertEqual(page.title(), "Sessa Serve")

    def test_behind_a_proxys_prefix(self):
        with self.page(prefix="/models/demo", path="/#completion") as page:
            expect(page.locator("#state_text")).to_have_text("Ready")
            self.send(page)
            expect(page.locator("#output mark")).not_to_be_empty()
            self.assertEqual(page.locator("nav a").evaluate_all("links => links.map(a => new URL(a.href).pathname)"),
                             [f"/models/demo/{name}" for name in ("metrics", "v1/limits", "v1/models", "version")])

    def drawn(self, page, plot, color):
        """How many pixels of a plot have the line's color."""
        return page.evaluate("""([plot, name]) => {
          const canvas = document.querySelector(`#${plot} canvas`);
          const color = getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
          const wanted = [1, 3, 5].map(i => parseInt(color.slice(i, i + 2), 16));
          const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d');
          copy.drawImage(canvas, 0, 0);
          const { data } = copy.getImageData(0, 0, canvas.width, canvas.height);
          let count = 0;
          for (let i = 0; i < data.length; i += 4) {
            if (data[i + 3] > 60 && wanted.every((value, c) => Math.abs(data[i + c] - value) < 24)) ++count;
          }
          return count;
        }""", [plot, color])

    def test_plots_move(self):
        with self.page("desk") as desk, self.page("phone", color_scheme="dark") as phone:
            pages = desk, phone
            for page in pages:
                expect(page.locator("#state_text")).to_have_text("Ready")
                expect(page.locator("#requests dd").first).to_have_text("0")
                expect(page.locator("#step dd").first).to_have_text("–")  # no step, no time
            left = threading.Event()

            def load():  # eight sequences, again and again until all has been seen of them
                while not left.is_set():
                    connection = http.client.HTTPConnection(server.http_address)
                    connection.request("POST", "/v1/completions", json.dumps({
                        "prompt": [PROMPT] * 8, "max_tokens": 3900, "ignore_eos": True, "stream": True}),
                        {"Content-Type": "application/json"})
                    with connection.getresponse() as stream:  # read, as the server keeps little for who does not
                        while not left.is_set() and stream.read1(1 << 16):
                            pass
                    connection.close()

            loader = threading.Thread(target=load)
            loader.start()
            self.addCleanup(loader.join)
            self.addCleanup(left.set)
            for page in pages:
                expect(page.locator("#requests dd").first).to_have_text("8")
                expect(page.locator("#cache dd")).not_to_have_text("0 %")
                expect(page.locator("#tokens dd").first).not_to_have_text("0")
                expect(page.locator("#step dd").first).to_contain_text("ms")
                expect(page.locator("#step dd").nth(1)).to_contain_text("ms")
                expect(page.locator("#requests canvas")).to_have_attribute(
                    "aria-label", "Requests, last two minutes. Now: running 8, waiting 0.")
                for plot, color in (("requests", "first"), ("tokens", "first"), ("tokens", "second"), ("step", "first"),
                                    ("step", "second"), ("cache", "first")):
                    wait_until(lambda: self.drawn(page, plot, color) > 8)
            left.set()
            loader.join()
            for page in pages:
                expect(page.locator("#requests dd").first).to_have_text("0")
                self.fits(page)
            self.nothing_is_asked_while_nobody_looks(desk)

    def nothing_is_asked_while_nobody_looks(self, page):
        page.evaluate("() => Object.defineProperty(document, 'hidden', { get: () => !window.looks })")
        expect(page.locator("#requests dd").first).to_have_text("–")  # a gap
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        page.wait_for_timeout(1200)  # more than between two samples
        self.assertEqual(asked, [])
        page.evaluate("() => { window.looks = true; document.dispatchEvent(new Event('visibilitychange')); }")
        expect(page.locator("#requests dd").first).to_have_text("0")

    def test_a_server_that_goes_and_comes_back(self):
        mortal = ServerProcess()
        self.addCleanup(mortal.stop)
        address = mortal.http_address
        with self.page(address=address, console=["net::ERR", "503 (Service Unavailable)"]) as page:
            expect(page.locator("#state")).to_have_attribute("data-state", "ready")
            mortal.stop()
            expect(page.locator("#state_text")).to_have_text("The server does not answer.")
            expect(page.locator("#requests dd").first).to_have_text("–")
            page.fill("#message", "Hello")
            self.send(page)
            expect(page.locator("#error")).to_have_text("The server does not answer.")
            again = ServerProcess(f"--http_port={address.split(':')[1]}")
            self.addCleanup(again.stop)
            expect(page.locator("#state")).to_have_attribute("data-state", "ready")
            expect(page.locator("#model")).to_contain_text("demo, 4 layers")

    def test_keys_and_names(self):
        with self.page() as page:
            page.focus("#chat_tab")
            page.keyboard.press("ArrowRight")
            expect(page.locator("#completion_tab")).to_be_focused()
            expect(page.locator("#completion")).to_be_visible()
            expect(page.locator("#chat")).to_be_hidden()
            page.reload()
            expect(page.locator("#completion")).to_be_visible()
            page.focus("#prompt")
            page.keyboard.press("Control+Enter")
            expect(page.locator("#output mark")).not_to_be_empty()
            nameless = page.locator("input, textarea, button, canvas, [role=log], [role=tabpanel]").evaluate_all(
                "all => all.filter(e => !e.labels?.length && !e.ariaLabel && !e.textContent.trim() && "
                "!e.hasAttribute('aria-labelledby')).map(e => e.outerHTML)")
            self.assertEqual(nameless, [])

    def test_long_words_do_not_widen_the_page(self):
        word = "w" * 400
        with self.page("phone", console=["400 (Bad Request)"]) as page:
            page.route("**/completions", lambda route: route.fulfill(status=400, json={"error": {"message": word}}))
            page.fill("#message", word)
            self.send(page)
            expect(page.locator("#error")).to_have_text(word)
            self.fits(page)
            page.unroute("**/completions")
            page.fill("#max_tokens", "4")
            self.send(page)
            self.fits(page)
            page.click("#completion_tab")
            page.fill("#prompt", word)
            self.send(page)
            self.fits(page)


if __name__ == "__main__":
    unittest.main()
