#!/usr/bin/env python3
"""Writes service.json (what users feel) and operator.json (engine, cache, scheduler, process) beside itself.

Grafana 9 and later imports them; both let one choose the data source, the job, the model and, for operators, the instance.
A test asks each expression of a Prometheus that has scraped a real server.
"""
import json
import pathlib
import sys

RATE = "[$__rate_interval]"
MODEL = 'job="$job", model_name=~"$model_name"'
INSTANCE = MODEL + ', instance=~"$instance"'
PROCESS = 'job="$job", instance=~"$instance"'
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def rate(metric, selector, by=""):
    return f"sum{f' by ({by})' if by else ''} (rate({metric}{{{selector}}}{RATE}))"


def quantiles(metric, selector):
    return [(f"histogram_quantile({q}, {rate(metric + '_bucket', selector, 'le')})", f"p{q * 100:g}")
            for q in (0.5, 0.95, 0.99)]


def mean(metric, selector):
    return f"{rate(metric + '_sum', selector)} / {rate(metric + '_count', selector)}"


def share(metric, part, selector):
    return f"{rate(metric, selector + ', ' + part)} / {rate(metric, selector)}"


def within(metric, le, selector):
    return f"{rate(metric + '_bucket', selector + ', ' + le)} / {rate(metric + '_count', selector)}"


class Dashboard:
    """Panels are put from left to right, 24 columns a line."""

    def __init__(self, uid, title, description, variables):
        self.panels, self.x, self.y, self.line_height = [], 0, 0, 0
        self.body = {
            "uid": uid, "title": title, "description": description, "tags": ["sessa-serve"], "schemaVersion": 37,
            "editable": True, "refresh": "30s", "time": {"from": "now-1h", "to": "now"}, "timezone": "",
            "templating": {"list": variables}, "panels": self.panels,
            "links": [{"type": "dashboards", "title": "Sessa Serve", "tags": ["sessa-serve"], "asDropdown": False,
                       "includeVars": True, "keepTime": True}],
        }

    def place(self, panel, width, height):
        if self.x + width > 24:
            self.x, self.y, self.line_height = 0, self.y + self.line_height, 0
        panel |= {"id": len(self.panels) + 1, "gridPos": {"x": self.x, "y": self.y, "w": width, "h": height}}
        self.x, self.line_height = self.x + width, max(self.line_height, height)
        self.panels.append(panel)

    def row(self, title):
        self.x = 24
        self.place({"type": "row", "title": title, "collapsed": False, "panels": []}, 24, 1)

    def panel(self, kind, title, unit, description, targets, width, height, defaults=None, options=None):
        """`targets`: an expression, or (expression, legend) pairs."""
        if isinstance(targets, str):
            targets = [(targets, "")]
        is_now = kind in ("stat", "table")
        queries = [{"refId": chr(ord("A") + i), "datasource": SOURCE, "expr": expr, "legendFormat": legend or "__auto",
                    "instant": is_now, "range": not is_now,
                    "format": {"table": "table", "heatmap": "heatmap"}.get(kind, "time_series")}
                   for i, (expr, legend) in enumerate(targets)]
        self.place({"type": kind, "title": title, "description": description, "datasource": SOURCE, "targets": queries,
                    "fieldConfig": {"defaults": {"unit": unit} | (defaults or {}), "overrides": []},
                    "options": options or {}}, width, height)

    def stat(self, title, unit, description, expr, steps=((None, "blue"),)):
        thresholds = {"mode": "absolute", "steps": [{"value": value, "color": color} for value, color in steps]}
        self.panel("stat", title, unit, description, expr, 4, 4,
                   {"thresholds": thresholds, "color": {"mode": "thresholds"}, "noValue": "none"},
                   {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value", "graphMode": "none"})

    def plot(self, title, unit, description, targets, stacked=False):
        custom = {"fillOpacity": 30 if stacked else 8, "lineWidth": 1, "showPoints": "never",
                  "stacking": {"mode": "normal" if stacked else "none", "group": "A"}}
        self.panel("timeseries", title, unit, description, targets, 8, 8,
                   {"custom": custom, "min": 0, "color": {"mode": "palette-classic"}},
                   {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
                    "tooltip": {"mode": "multi", "sort": "desc"}})

    def heatmap(self, title, unit, description, metric, selector):
        self.panel("heatmap", title, unit, description, [(rate(metric + "_bucket", selector, "le"), "{{le}}")], 8, 8, None,
                   {"calculate": False, "yAxis": {"unit": unit}, "cellGap": 1,
                    "color": {"mode": "scheme", "scheme": "Blues", "steps": 64}})

    def table(self, title, description, expr):
        self.panel("table", title, "none", description, expr, 12, 5)


def variable(name, label, query, choose_all):
    return {"type": "query", "name": name, "label": label, "datasource": SOURCE, "query": query, "definition": query,
            "refresh": 2, "sort": 1, "multi": choose_all, "includeAll": choose_all,
            "allValue": ".*" if choose_all else None, "current": {"text": "All", "value": "$__all"} if choose_all else {}}


DATASOURCE = {"type": "datasource", "name": "datasource", "label": "Data source", "query": "prometheus", "current": {}}
JOB = variable("job", "Job", "label_values(sessa_ready, job)", False)
MODEL_NAME = variable("model_name", "Model", 'label_values(sessa_ready{job="$job"}, model_name)', True)
INSTANCE_NAME = variable("instance", "Instance",
                         'label_values(sessa_ready{job="$job", model_name=~"$model_name"}, instance)', True)


def service():
    d = Dashboard("sessa-serve-service", "Sessa Serve / Service", "What users feel: is it there, is it fast, does it fail.",
                  [DATASOURCE, JOB, MODEL_NAME])
    responses, ttft, itl = "sessa_responses_total", "sessa_time_to_first_token_seconds", "sessa_inter_token_latency_seconds"
    d.stat("Servers ready", "none", "Servers that take requests.", f"sum(sessa_ready{{{MODEL}}})",
           ((None, "red"), (1, "green")))
    d.stat("Requests", "reqps", "Generation requests that end, a second.", rate(responses, MODEL))
    d.stat("Failed", "percentunit", "Share of requests that end with 500 or 504.",
           share(responses, 'code=~"500|504"', MODEL), ((None, "green"), (0.001, "orange"), (0.01, "red")))
    d.stat("Refused", "percentunit", "Share of requests refused with 503 (full, or ending) or 429 (the tenant's limit).",
           share(responses, 'code=~"503|429"', MODEL), ((None, "green"), (0.01, "orange"), (0.05, "red")))
    d.stat("Tokens out", "none", "Generated tokens a second.", rate("sessa_generation_tokens_total", MODEL))
    d.stat("Alerts that fire", "none", "Of deploy/prometheus/rules.yaml.",
           'count(ALERTS{alertname=~"Sessa.*", alertstate="firing"}) or vector(0)', ((None, "green"), (1, "red")))
    d.row("Latency")
    d.plot("Time to first token", "s", "From arrival to the first token; the objective is 99 % within 2 s.",
           quantiles(ttft, MODEL))
    d.plot("Between tokens", "s", "Every gap between two tokens of an answer; the objective is 99 % within 0.2 s.",
           quantiles(itl, MODEL))
    d.plot("Whole answer", "s", "From arrival to the end.", quantiles("sessa_e2e_request_latency_seconds", MODEL))
    d.plot("Objectives", "percentunit", "Share of first tokens within 2 s and of gaps within 0.2 s.",
           [(within(ttft, 'le=~"2(\\\\.0)?"', MODEL), "first tokens"), (within(itl, 'le="0.2"', MODEL), "gaps")])
    d.plot("Budget burnt", "none", "How many times faster than a month allows the budget of 1 % burns, over one hour.",
           [('sessa:ttft_slow:ratio_rate1h{job="$job", model_name=~"$model_name"} / 0.01', "first tokens, {{model_name}}"),
            ('sessa:itl_slow:ratio_rate1h{job="$job", model_name=~"$model_name"} / 0.01', "gaps, {{model_name}}")])
    d.heatmap("First tokens by time", "s", "How many first tokens a second came within each time.", ttft, MODEL)
    d.row("Answers")
    d.plot("Requests by status", "reqps", "Over gRPC the status is the one that REST would give; 499: the client left.",
           [(rate(responses, MODEL, "code"), "{{code}}")], stacked=True)
    d.plot("Finish reasons", "reqps", "How the requests that were taken ended.",
           [(rate("sessa_request_success_total", MODEL, "finished_reason"), "{{finished_reason}}")], stacked=True)
    d.plot("Requests by protocol", "reqps", "Generation requests received.",
           [(rate("sessa_requests_received_total", MODEL, "protocol"), "{{protocol}}")], stacked=True)
    d.row("Work")
    d.plot("Tokens", "none", "Prompt tokens taken and tokens generated, a second.",
           [(rate("sessa_prompt_tokens_total", MODEL), "prompt"), (rate("sessa_generation_tokens_total", MODEL), "generated")])
    d.plot("Prompt lengths", "none", "Tokens of a prompt.", quantiles("sessa_request_prompt_tokens", MODEL))
    d.plot("Answer lengths", "none", "Tokens generated for a request.", quantiles("sessa_request_generation_tokens", MODEL))
    return d.body


def operator():
    d = Dashboard("sessa-serve-operator", "Sessa Serve / Operator", "Engine, cache, scheduler and process of each server.",
                  [DATASOURCE, JOB, MODEL_NAME, INSTANCE_NAME])
    by_instance = "{{instance}}"
    each = lambda metric, selector=INSTANCE: [(f"{metric}{{{selector}}}", by_instance)]
    d.stat("Up", "none", "Servers that answer scrapes.", f"sum(up{{{PROCESS}}})", ((None, "red"), (1, "green")))
    d.stat("Ready", "none", "Servers that take requests.", f"sum(sessa_ready{{{INSTANCE}}})", ((None, "red"), (1, "green")))
    d.stat("Engines failed", "none", "Servers whose device has failed.", f"sum(1 - sessa_engine_healthy{{{INSTANCE}}})",
           ((None, "green"), (1, "red")))
    d.stat("Longest since a step", "s", "Of engines that have work; the watchdog ends one at 60 s.",
           f"max(sessa_engine_loop_age_seconds{{{INSTANCE}}})", ((None, "green"), (5, "orange"), (30, "red")))
    d.stat("In flight", "none", "Requests received that have not ended.", f"sum(sessa_num_requests_in_flight{{{INSTANCE}}})")
    d.stat("Fullest cache", "percentunit", "Used pages of the state cache over all.",
           f"max(sessa_state_cache_usage_ratio{{{INSTANCE}}})", ((None, "green"), (0.9, "orange"), (0.98, "red")))
    d.row("Engine")
    d.plot("Step duration", "s", "A stream waits so long for its next token.", quantiles("sessa_step_duration_seconds", INSTANCE))
    d.plot("Tokens in a step", "none", "New tokens, of prompts and answers.",
           quantiles("sessa_iteration_tokens", INSTANCE) + [(mean("sessa_iteration_tokens", INSTANCE), "mean")])
    d.plot("Steps", "ops", "Steps a second.", [(rate("sessa_steps_total", INSTANCE, "instance"), by_instance)])
    d.plot("Busy", "percentunit", "Share of the time that steps take.",
           [(rate("sessa_step_duration_seconds_sum", INSTANCE, "instance"), by_instance)])
    d.plot("Tokens", "none", "Prompt tokens taken and tokens generated, a second, by server.",
           [(rate("sessa_prompt_tokens_total", INSTANCE, "instance"), "prompt, {{instance}}"),
            (rate("sessa_generation_tokens_total", INSTANCE, "instance"), "generated, {{instance}}")])
    d.plot("Drafts", "percentunit", "Tokens guessed ahead that were right, over all guessed; and over all tokens generated.",
           [(f"{rate('sessa_spec_decode_num_accepted_tokens_total', INSTANCE, 'instance')} / "
             f"{rate(of, INSTANCE, 'instance')}", f"{what}, {{{{instance}}}}")
            for of, what in (("sessa_spec_decode_num_draft_tokens_total", "accepted"),
                             ("sessa_generation_tokens_total", "of all tokens"))])
    d.heatmap("Steps by duration", "s", "How many steps a second took how long.", "sessa_step_duration_seconds", INSTANCE)
    d.row("Scheduler")
    d.plot("Sequences that run", "none", "In each server's steps.", each("sessa_num_requests_running"))
    d.plot("Sequences that wait", "none", "For pages or a place in the step.", each("sessa_num_requests_waiting"))
    d.plot("Tokens that wait", "none", "Prompt tokens of those.", each("sessa_num_tokens_waiting"))
    d.plot("Where requests spend their time", "s", "Means of queue, prefill and decode.",
           [(mean(f"sessa_request_{phase}_time_seconds", INSTANCE), phase) for phase in ("queue", "prefill", "decode")],
           stacked=True)
    d.plot("Queue time", "s", "From arrival to the first step.", quantiles("sessa_request_queue_time_seconds", INSTANCE))
    d.plot("Asked for and generated", "none", "Means of max_tokens and of the longest choice, and of n.",
           [(mean("sessa_request_params_max_tokens", INSTANCE), "max_tokens"),
            (mean("sessa_request_max_num_generation_tokens", INSTANCE), "generated"),
            (mean("sessa_request_params_n", INSTANCE), "n")])
    d.row("State cache")
    d.plot("Usage", "percentunit", "Used pages over all.", each("sessa_state_cache_usage_ratio"))
    d.plot("Prefix hits", "percentunit", "Share of prompt tokens found in the prefix cache.",
           [(f"{rate('sessa_prefix_cache_hits_total', INSTANCE, 'instance')} / "
             f"{rate('sessa_prefix_cache_queries_total', INSTANCE, 'instance')}", by_instance)])
    d.plot("Preemptions", "ops", "Sequences that gave up their pages, a second.",
           [(rate("sessa_num_preemptions_total", INSTANCE, "instance"), by_instance)])
    d.plot("Computed twice", "percentunit", "Tokens computed again after a preemption, over those of prompts and answers.",
           [(f"{rate('sessa_recomputed_tokens_total', INSTANCE, 'instance')} / "
             f"({rate('sessa_prompt_tokens_total', INSTANCE, 'instance')} + "
             f"{rate('sessa_generation_tokens_total', INSTANCE, 'instance')})", by_instance)])
    d.plot("Prefill after the cache", "none", "Means of prompt tokens and of those that were not in the cache.",
           [(mean("sessa_request_prompt_tokens", INSTANCE), "prompt"),
            (mean("sessa_request_prefill_kv_computed_tokens", INSTANCE), "computed")])
    d.plot("Slots of recurrent state", "none",
           "Of models that keep such a state: what sequences hold, what snapshots of prefixes hold, and what is free.",
           [(f"sum(sessa_state_slots_used{{{INSTANCE}}})", "sequences"), (f"sum(sessa_state_snapshots{{{INSTANCE}}})", "snapshots"),
            (f"sum(sessa_state_slots{{{INSTANCE}}}) - sum(sessa_state_slots_used{{{INSTANCE}}})"
             f" - sum(sessa_state_snapshots{{{INSTANCE}}})", "free")], stacked=True)
    d.plot("Outcomes", "reqps", "Requests ended, by outcome.", [(rate("sessa_requests_total", INSTANCE, "outcome"), "{{outcome}}")],
           stacked=True)
    d.row("Process")
    d.plot("CPU", "none", "Cores in use.", [(rate("process_cpu_seconds_total", PROCESS, "instance"), by_instance)])
    d.plot("Resident memory", "bytes", "Weights and state cache included.", each("process_resident_memory_bytes", PROCESS))
    d.plot("File descriptors", "percentunit", "Open over allowed; each connection holds one.",
           [(f"process_open_fds{{{PROCESS}}} / process_max_fds{{{PROCESS}}}", by_instance)])
    d.plot("Uptime", "s", "Since the process started.", [(f"time() - process_start_time_seconds{{{PROCESS}}}", by_instance)])
    d.plot("Scrape", "s", "How long a scrape takes.", each("scrape_duration_seconds", PROCESS))
    d.row("Configuration")
    d.table("Builds", "Version, compiler and CUDA toolkit.", f"sessa_build_info{{{INSTANCE}}}")
    d.table("State caches", "Pages and their size in tokens.", f"sessa_state_cache_info{{{INSTANCE}}}")
    return d.body


def main():
    folder = pathlib.Path(__file__).parent
    for name, body in (("service", service()), ("operator", operator())):
        (folder / f"{name}.json").write_text(json.dumps(body, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
