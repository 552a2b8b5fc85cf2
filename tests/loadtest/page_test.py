"""The load tester's page in a real browser: made by loadtest_make_report, opened in headless Chromium.

Fails on a console error, on any request for anything but the file, on a plot without pixels in its series' colours, on
an axis without its label, and where something is wider than the window, on a desk and on a phone, in light and in dark.
`page_test.py MAKE_REPORT_BINARY [--keep DIRECTORY]` (screenshots stay in the directory).
"""
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

from playwright.sync_api import sync_playwright

MAKE_REPORT = None
KEEP = None

# Of a plot: the colours of its datasets, how many of its pixels are in each (a canvas blends edges, so "in" is near), and
# the titles and marks of its axes.
INSPECT = """
() => Object.values(Chart.instances).map(chart => {
  const {canvas} = chart;
  const probe = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgb = color => { probe.fillStyle = color; probe.fillRect(0, 0, 1, 1); return [...probe.getImageData(0, 0, 1, 1).data]; };
  const area = chart.chartArea, ratio = chart.currentDevicePixelRatio;
  const pixels = canvas.getContext('2d').getImageData(
    area.left * ratio, area.top * ratio, (area.right - area.left) * ratio, (area.bottom - area.top) * ratio).data;
  return {
    label: canvas.getAttribute('aria-label'),
    visible: canvas.offsetWidth > 100 && canvas.offsetHeight > 80,
    fits: Object.values(chart.scales).every(scale => scale.left >= -1 && scale.right <= chart.width + 1),
    series: chart.data.datasets.map(dataset => {
      const [r, g, b] = rgb(dataset.borderColor);
      let count = 0;
      for (let i = 0; i < pixels.length; i += 4) {
        if (pixels[i + 3] > 150 && Math.abs(pixels[i] - r) + Math.abs(pixels[i + 1] - g) + Math.abs(pixels[i + 2] - b) < 60) ++count;
      }
      return {label: dataset.label, count};
    }),
    axes: Object.fromEntries(Object.entries(chart.scales).map(([id, scale]) =>
      [id, {title: scale.options.title.text, ticks: scale.ticks.map(tick => tick.label)}])),
  };
})
"""

# What of the page is wider than the window, or out of it.
OVERFLOW = """
() => {
  const width = document.documentElement.clientWidth;
  const wide = document.documentElement.scrollWidth > width ? ['the page: ' + document.documentElement.scrollWidth] : [];
  for (const element of document.querySelectorAll('body *')) {
    const box = element.getBoundingClientRect();
    if (box.width > 0 && (box.right > width + 1 || box.left < -1)) wide.push(element.tagName + '.' + element.className);
    const text = document.createRange();
    text.selectNodeContents(element);
    const style = getComputedStyle(element), edge = box.right - parseFloat(style.paddingRight) + 1;
    if (/^(TH|TD|P|DIV|DT|DD|LI|H1|H2|H3)$/.test(element.tagName) && box.width > 0 && text.getBoundingClientRect().right > edge)
      wide.push('inside ' + element.tagName + '.' + element.className + ': ' + element.textContent.slice(0, 60));
  }
  return wide;
}
"""

RUN_PLOTS = ["Percentiles", "TTFT", "ITL", "E2E", "Gaps between tokens", "The server’s own metrics", "Throughput",
             "Requests that ended"]
SWEEP_PLOTS = ["TTFT against load", "ITL against load", "Requests finished against load", "Output tokens against load"]
LOOKS = [(width, scheme) for width in (1280, 360) for scheme in ("light", "dark")]


class PageTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        made = subprocess.run([MAKE_REPORT, cls.folder.name], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert made.returncode == 0, made.stdout
        cls.playwright = sync_playwright().start()
        cls.browser = cls.playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])

    @classmethod
    def tearDownClass(cls):
        cls.browser.close()
        cls.playwright.stop()
        cls.folder.cleanup()

    def open(self, name, width=1280, scheme="light"):
        page = self.browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.addCleanup(page.close)
        page.set_default_timeout(20000)
        problems = []
        file = pathlib.Path(self.folder.name, name + ".html")
        page.on("console", lambda message: problems.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: problems.append(f"error: {error}"))
        page.on("request", lambda request: problems.append(f"request: {request.url[:100]}")
                if request.url != file.as_uri() and not request.url.startswith("data:") else None)
        page.goto(file.as_uri())
        page.wait_for_function("typeof Chart !== 'undefined' && document.getElementById('meanings').children.length > 0")
        if KEEP:
            page.screenshot(path=pathlib.Path(KEEP, f"{name}-{width}-{scheme}.png"), full_page=True)
        self.addCleanup(lambda: self.assertEqual(problems, []))
        return page

    def check_plots(self, page, expected):
        plots = {plot["label"]: plot for plot in page.evaluate(INSPECT)}
        self.assertEqual(sorted(plots), sorted(expected))
        for label, plot in plots.items():
            self.assertTrue(plot["visible"], label)
            self.assertTrue(plot["fits"], f"{label}: an axis is outside of its plot")
            for series in plot["series"]:
                self.assertGreater(series["count"], 15, f"{label}: no pixels of {series['label']}")
            for axis, shown in plot["axes"].items():
                self.assertTrue(shown["title"], f"{label}: axis {axis} has no title")
                self.assertGreaterEqual(len([tick for tick in shown["ticks"] if tick]), 2, f"{label}: axis {axis}")
        return plots

    def test_one_run(self):
        for width, scheme in LOOKS:
            with self.subTest(width=width, scheme=scheme):
                page = self.open("one", width, scheme)
                plots = self.check_plots(page, RUN_PLOTS)
                self.assertEqual(page.evaluate(OVERFLOW), [])
                gaps = plots["Gaps between tokens"]
                self.assertEqual([series["label"] for series in gaps["series"]], ["Gap", "Worst"])
                self.assertIn("ms", "".join(gaps["axes"]["y"]["ticks"]))
                self.assertIn("p99", plots["Percentiles"]["axes"]["x"]["ticks"])
                self.assertRegex(" ".join(plots["Percentiles"]["axes"]["y"]["ticks"]), r"100 ms.* 10 s")
                self.assertIn("log scale", plots["TTFT"]["axes"]["x"]["title"])
                self.assertIn("100 %", plots["The server’s own metrics"]["axes"]["share"]["ticks"])
                for tick in plots["Throughput"]["axes"]["x"]["ticks"]:
                    self.assertRegex(tick, r"^[\d.]+ s$")
                self.assertFalse(page.locator("#sweep").is_visible())
                self.assertIn("Self-check passed", page.locator("#self-check").inner_text())

    def test_figures_are_those_of_the_json(self):
        report = json.loads(pathlib.Path(self.folder.name, "one.json").read_text())["runs"][0]["all"]
        page = self.open("one")
        row = page.locator("#latency-table tr", has=page.locator("th", has_text=re.compile("^ITL$")))
        shown = [float(text.replace(",", "")) for text in row.locator("td").all_inner_texts()]
        itl = report["latencies"]["itl"]
        for value, key in zip(shown, ["mean", "p50", "p90", "p95", "p99", "p999", "max"]):
            self.assertAlmostEqual(value, itl[key] * 1e3, delta=0.051, msg=key)
        self.assertEqual(shown[-1], itl["count"])
        self.assertIn("Time per output token", page.locator("#meanings").inner_text())

    def test_sweep(self):
        for width, scheme in ((360, "light"), (1000, "light"), (1280, "dark")):
            with self.subTest(width=width, scheme=scheme):
                page = self.open("sweep", width, scheme)
                plots = self.check_plots(page, SWEEP_PLOTS + RUN_PLOTS)
                self.assertEqual(page.evaluate(OVERFLOW), [])
                self.assertEqual(plots["TTFT against load"]["axes"]["x"]["title"], "Offered load, requests/s")
                self.assertEqual([series["label"] for series in plots["TTFT against load"]["series"]], ["p50", "p90", "p99"])
                self.assertIn("Self-check failed at 16 req/s", page.locator(".banner.bad").inner_text())
        self.assertEqual(page.locator("#sweep-table tbody tr").count(), 8)
        before = page.locator("#cards").inner_text()
        page.select_option("#run", label="14 req/s")
        self.assertNotEqual(page.locator("#cards").inner_text(), before)
        self.assertIn("of 14 req/s offered", page.locator("#cards").inner_text())
        self.check_plots(page, SWEEP_PLOTS + RUN_PLOTS)

    def test_nothing_came(self):
        for width in (1280, 360):
            page = self.open("empty", width)
            self.assertEqual([plot["label"] for plot in page.evaluate(INSPECT)], ["Throughput", "Requests that ended"])
            self.assertEqual(page.evaluate(OVERFLOW), [])
            text = page.locator("body").inner_text()
            self.assertIn("No request got two tokens.", text)
            self.assertIn("connection refused", text)
            self.assertNotRegex(text, r"NaN|undefined|null|Infinity")
            self.assertIn("1.2 s late", page.locator(".banner.bad").inner_text())

    def test_markup_in_the_data_is_text(self):
        for width in (1280, 360):
            page = self.open("hostile", width)
            self.assertTrue(page.title().startswith("</script>"))
            self.assertEqual(page.evaluate("document.images.length + document.querySelectorAll('main script').length"), 0)
            self.assertIn("<img src=x", page.locator("h1").inner_text())
            self.assertEqual(page.evaluate(OVERFLOW), [])

    def test_policy_forbids_scripts_and_the_network(self):
        page = self.browser.new_page()
        self.addCleanup(page.close)
        page.goto(pathlib.Path(self.folder.name, "one.html").as_uri())
        page.evaluate("const s = document.createElement('script'); s.textContent = 'window.owned = 1'; document.body.append(s)")
        self.assertIsNone(page.evaluate("window.owned ?? null"))
        self.assertEqual(page.evaluate("fetch('http://127.0.0.1:9/').catch(() => 0).then(answer => answer && 1)"), 0)
        self.assertIn("default-src 'none'", page.locator("meta[http-equiv]").get_attribute("content"))

    def test_a_hundred_thousand_requests_are_a_small_file(self):
        size = pathlib.Path(self.folder.name, "many.html").stat().st_size
        self.assertLess(size, 3_000_000)
        page = self.open("many")
        self.check_plots(page, RUN_PLOTS)
        self.assertRegex(page.locator("#timelines").inner_text(), r"The 3,000 longest of 1,\d{3},\d{3} gaps, from [\d.]+ ms up")

    def test_on_paper(self):
        page = self.open("one", scheme="dark")
        pdf = page.pdf(prefer_css_page_size=True)
        self.assertGreater(len(pdf), 20000)
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        light = page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--panel')")
        self.assertIn("#ffffff", light)
        self.check_plots(page, RUN_PLOTS)


if __name__ == "__main__":
    MAKE_REPORT = sys.argv.pop(1)
    if "--keep" in sys.argv:
        KEEP = sys.argv.pop(sys.argv.index("--keep") + 1)
        sys.argv.remove("--keep")
    unittest.main()
