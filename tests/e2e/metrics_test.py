"""GET /metrics of a real server, held against docs/metrics.md, the names that vLLM's dashboards ask for, and promtool."""
import pathlib
import re
import subprocess
import tempfile
import unittest

from server_process import PROMPT, ROOT, ServerProcess, wait_until

NAME = 'a "model" of\\\ntwo lines, ünïcode ☃'  # as awkward as a name can be
# What the dashboards of vLLM's examples and the Gateway API inference extension read.
ASKED_FOR = """
    vllm:cache_config_info vllm:cpu_cache_usage_perc vllm:e2e_request_latency_seconds vllm:engine_sleep_state
    vllm:estimated_flops_per_gpu_total vllm:estimated_read_bytes_per_gpu_total vllm:estimated_write_bytes_per_gpu_total
    vllm:external_prefix_cache_hits_total vllm:external_prefix_cache_queries_total vllm:generation_tokens_total
    vllm:gpu_cache_usage_perc vllm:inter_token_latency_seconds vllm:iteration_tokens_total
    vllm:kv_block_idle_before_evict_seconds vllm:kv_block_lifetime_seconds vllm:kv_block_reuse_gap_seconds
    vllm:kv_cache_usage_perc vllm:lora_requests_info vllm:mm_cache_hits_total vllm:mm_cache_queries_total
    vllm:nixl_bytes_transferred vllm:nixl_post_time_seconds vllm:nixl_xfer_time_seconds vllm:num_preemptions_total
    vllm:num_requests_kv_fetch_by_stage vllm:num_requests_running vllm:num_requests_swapped vllm:num_requests_waiting
    vllm:num_requests_waiting_by_reason vllm:prefix_cache_hits_total vllm:prefix_cache_queries_total
    vllm:prompt_tokens_by_source_total vllm:prompt_tokens_cached_by_source_total vllm:prompt_tokens_cached_total
    vllm:prompt_tokens_total vllm:request_decode_time_seconds vllm:request_generation_tokens
    vllm:request_inference_time_seconds vllm:request_max_num_generation_tokens vllm:request_params_max_tokens
    vllm:request_params_n vllm:request_prefill_kv_computed_tokens vllm:request_prefill_time_seconds
    vllm:request_prompt_tokens vllm:request_queue_time_seconds vllm:request_success_total
    vllm:request_time_per_output_token_seconds vllm:rl_weight_update_operation_duration_seconds
    vllm:sleep_mode_operation_duration_seconds vllm:spec_decode_num_accepted_tokens_per_pos_total
    vllm:spec_decode_num_accepted_tokens_total vllm:spec_decode_num_draft_tokens_total
    vllm:spec_decode_num_drafts_total vllm:time_per_output_token_seconds vllm:time_to_first_token_seconds
    http_request_duration_seconds http_requests_total process_cpu_seconds_total process_max_fds process_open_fds
    process_resident_memory_bytes process_start_time_seconds""".split()
SAMPLE = re.compile(r'([a-z_0-9]+)(?:\{((?:[a-z_]+="(?:[^"\\\n]|\\["\\n])*",?)+)\})? ([-+.\deEinfNa]+)')
LABEL = re.compile(r'([a-z_]+)="((?:[^"\\\n]|\\["\\n])*)"')


def samples_of(text):
    """[(name, {label: value}, value)] of the text format; every line must be well-formed."""
    samples = []
    for line in text.splitlines():
        if not line.startswith("#"):
            name, labels, value = SAMPLE.fullmatch(line).groups()
            labels = {k: re.sub(r"\\(.)", lambda m: {"n": "\n"}.get(m[1], m[1]), v) for k, v in LABEL.findall(labels or "")}
            samples.append((name, labels, float(value)))
    return samples


def rows(section):
    """The cells of each table row of docs/metrics.md under `section`."""
    text = (ROOT / "docs" / "metrics.md").read_text()
    body = re.search(rf"^## {re.escape(section)}$(.*?)(?=^## |\Z)", text, re.M | re.S).group(1)
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in body.splitlines() if line.startswith("|")]
    return [row for row in table if row[0].startswith("`") or section.startswith("Gateway")]


def names_in(cell):
    return re.findall(r"`([a-z_:0-9]+)`", cell)


KEY = "Bearer secret"


def server_with_key(*flags):
    """A server whose clients are a tenant, so that there are metrics of tenants."""
    with tempfile.NamedTemporaryFile("w", suffix="keys") as keys:
        keys.write("secret team\n")
        keys.flush()
        return ServerProcess(*flags, f"--api_keys_file={keys.name}")


class MetricsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = server_with_key(f"--served_model_name={NAME}")
        cls.addClassCleanup(cls.server.stop)
        key = {"Authorization": KEY}
        for body in ({"max_tokens": 7, "n": 2}, {"max_tokens": 5, "n": 1}, {"max_tokens": 1}):
            status, _, text = cls.server.request("POST", "/v1/completions", {"prompt": 4 * PROMPT, "ignore_eos": True} | body,
                                                  key)
            assert status == 200, text
        cls.server.request("POST", "/v1/completions", {"prompt": 4 * PROMPT, "temperature": -1}, key)
        wait_until(lambda: cls.server.metrics()["sessa_state_cache_usage_ratio"] == 0)
        _, cls.headers, cls.text = cls.server.request("GET", "/metrics")
        cls.samples = samples_of(cls.text)
        cls.types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", cls.text, re.M))

    def value(self, name, **labels):
        found = [v for n, l, v in self.samples if n == name and labels.items() <= l.items()]
        self.assertEqual(len(found), 1, (name, labels))
        return found[0]

    def test_what_is_documented_is_exposed_and_the_other_way_round(self):
        documented = {row[0].strip("`"): row for row in rows("What is there")}
        self.assertEqual({name: row[1] for name, row in documented.items()}, self.types)
        labels = {name: set() for name in self.types}
        for name, found, _ in self.samples:
            family = name if name in labels else re.sub("_(bucket|sum|count)$", "", name)
            labels[family] |= set(found) - {"model_name", "le"}
            self.assertEqual(found.get("model_name"), None if family.startswith("process_") else NAME, family)
        # The parts in brackets are values, not labels.
        self.assertEqual({name: set(names_in(re.sub(r"\(.*?\)", "", row[3]))) for name, row in documented.items()}, labels)

    def test_names_that_vllms_dashboards_ask_for_are_there_or_said_not_to_be(self):
        there = {name: row[0].strip("`") for row in rows("What is there") for name in names_in(row[5])}
        absent = {name for row in rows("What vLLM has and this server has not") for name in names_in(row[0])}
        self.assertEqual(set(ASKED_FOR) - set(there) - absent, set())
        self.assertEqual(absent & set(there), {"vllm:iteration_tokens_total"})
        for name, ours in there.items():
            if name not in absent:  # a dashboard needs no more than another prefix
                self.assertEqual(ours, name.replace("vllm:", "sessa_"))
        for row in rows("Gateway API inference extension")[2:]:
            for name in names_in(row[1]):
                self.assertTrue(name in self.types or any(name in labels for _, labels, _ in self.samples), name)

    def test_promtool_has_nothing_to_say(self):
        done = subprocess.run(["promtool", "check", "metrics"], input=self.text, text=True, capture_output=True, timeout=60)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))

    def test_help_and_type_come_once_before_each_family(self):
        current, seen = None, []
        for line in self.text.splitlines():
            if line.startswith("# HELP "):
                current = line.split(" ", 3)[2]
                seen.append(current)
                self.assertTrue(line.endswith("."), line)
            elif line.startswith("# TYPE "):
                self.assertEqual(line.split()[2], current)
            else:
                self.assertTrue(line.startswith(current), line)
        self.assertEqual(sorted(seen), sorted(self.types))

    def test_histograms_add_up(self):
        for family in (name for name, kind in self.types.items() if kind == "histogram"):
            buckets = [(float(labels["le"]), v) for name, labels, v in self.samples if name == family + "_bucket"]
            counts = [v for _, v in sorted(buckets)]
            self.assertEqual(counts, sorted(counts), family)
            self.assertEqual(max(buckets)[0], float("inf"))
            self.assertEqual(counts[-1], self.value(family + "_count"), family)
            if family.endswith("_seconds"):
                self.assertEqual(min(buckets)[0], 0.001)

    def test_values_are_those_of_what_was_asked(self):
        for name, sum_and_count in {
                "request_params_n": (4, 3), "request_params_max_tokens": (13, 3), "request_generation_tokens": (20, 3),
                "request_max_num_generation_tokens": (13, 3)}.items():
            self.assertEqual((self.value(f"sessa_{name}_sum"), self.value(f"sessa_{name}_count")), sum_and_count, name)
        self.assertEqual(self.value("sessa_inter_token_latency_seconds_count"), 2 * 6 + 4)
        self.assertEqual(self.value("sessa_request_time_per_output_token_seconds_count"), 2, "one token has no gap")
        self.assertEqual(self.value("sessa_generation_tokens_total"), 20)
        self.assertEqual(self.value("sessa_request_prompt_tokens_sum"), self.value("sessa_prompt_tokens_total"))
        self.assertEqual(self.value("sessa_request_prompt_tokens_sum") - self.value("sessa_prefix_cache_hits_total"),
                         self.value("sessa_request_prefill_kv_computed_tokens_sum"))
        self.assertGreater(self.value("sessa_prefix_cache_hits_total"), 0)
        self.assertEqual(self.value("sessa_request_success_total", finished_reason="length"), 3)
        self.assertEqual(self.value("sessa_responses_total", protocol="rest", code="200"), 3)
        self.assertEqual(self.value("sessa_responses_total", protocol="rest", code="400"), 1)
        self.assertEqual(self.value("sessa_tenant_requests_total", tenant="team"), 3)
        self.assertEqual(self.value("sessa_tenant_tokens_total", tenant="team", kind="generation"), 20)
        self.assertEqual(self.value("sessa_cache_config_info", block_size="64", num_gpu_blocks="1024"), 1)
        self.assertEqual((self.value("sessa_ready"), self.value("sessa_live"), self.value("sessa_engine_healthy")), (1, 1, 1))

    def test_the_process_is_this_one(self):
        proc = pathlib.Path("/proc", str(self.server.process.pid))
        limit = int(re.search(r"Max open files\s+(\d+)", (proc / "limits").read_text()).group(1))
        self.assertEqual(self.value("process_max_fds"), limit)
        resident = int(re.search(r"VmRSS:\s+(\d+)", (proc / "status").read_text()).group(1)) * 1024
        self.assertAlmostEqual(self.value("process_resident_memory_bytes") / resident, 1, delta=0.5)
        self.assertGreater(self.value("process_open_fds"), 3)
        self.assertGreater(self.value("process_cpu_seconds_total"), 0)

    def test_content_type_and_head(self):
        self.assertEqual(self.headers["Content-Type"], "text/plain; version=0.0.4; charset=utf-8")
        status, headers, body = self.server.request("HEAD", "/metrics")
        self.assertEqual((status, headers["Content-Type"], body), (200, self.headers["Content-Type"], ""))
        self.assertGreater(int(headers["Content-Length"]), 10000)
        self.assertEqual(self.server.request("POST", "/metrics", {})[0], 405)

    def test_a_name_that_is_not_utf8_is_refused(self):
        done = subprocess.run([self.server.process.args[0], f"--model={ROOT / 'models' / 'demo'}",
                               b"--served_model_name=\xff"], capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 1)
        self.assertIn("--served_model_name", done.stderr)


if __name__ == "__main__":
    unittest.main()
