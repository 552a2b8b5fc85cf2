// See web_page.h. Text from the model enters the page through textContent alone.
#include "server/rest/web_page.h"

namespace sessa {
namespace {

constexpr char kPage[] = R"html(<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Sessa Serve</title>
<style>
  :root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
  body { max-width: 52rem; margin: 2rem auto; padding: 0 1rem; }
  textarea, pre { width: 100%; box-sizing: border-box; font: 14px/1.5 ui-monospace, monospace; }
  pre { min-height: 6rem; white-space: pre-wrap; border: 1px solid #8886; border-radius: 4px; padding: .5rem; }
  label { margin-right: 1rem; white-space: nowrap; }
  input { width: 5rem; }
  #key { width: 12rem; }
  table { border-collapse: collapse; }
  td { padding: .1rem 1.5rem .1rem 0; }
  td + td { text-align: right; font-variant-numeric: tabular-nums; }
  #error { color: #c33; }
  .generated { background: #4a86; }
</style>
<h1>Sessa Serve</h1>
<p id="model">…</p>
<form id="form">
  <textarea id="prompt" rows="5" aria-label="Prompt">This is a story about Milo and Kira. Kira saw that the orange coin is in the drawer.
Question: Where is the orange coin?
Answer:</textarea>
  <p>
    <label>Tokens <input id="max_tokens" type="number" value="64" min="1"></label>
    <label>Temperature <input id="temperature" type="number" value="0" min="0" max="2" step="0.1"></label>
    <label>Top p <input id="top_p" type="number" value="1" min="0.01" max="1" step="0.01"></label>
    <label>API key <input id="key" type="password" autocomplete="off" placeholder="if one is needed"></label>
  </p>
  <p><button id="go">Complete</button> <button id="stop" type="button" disabled>Stop</button> <span id="speed"></span></p>
</form>
<pre id="output" aria-live="polite"></pre>
<p id="error" role="alert"></p>
<h2>Load</h2>
<table id="load"></table>
<p><a href="/metrics">/metrics</a> · <a href="/v1/limits">/v1/limits</a> · <a href="/v1/models">/v1/models</a></p>
<script>
const $ = id => document.getElementById(id);
const headers = () => $('key').value ? { Authorization: 'Bearer ' + $('key').value } : {};
let running = null;

async function readEvents(response, onData) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const events = (rest + value).split('\n\n');
    rest = events.pop();
    for (const event of events) if (event.startsWith('data: ')) onData(event.slice(6));
  }
}

async function complete() {
  running = new AbortController();
  $('go').disabled = true; $('stop').disabled = false; $('error').textContent = ''; $('speed').textContent = '';
  $('output').textContent = $('prompt').value;
  const generated = document.createElement('span');
  generated.className = 'generated';
  $('output').append(generated);
  const start = performance.now();
  let first = 0;
  try {
    const response = await fetch('/v1/completions', {
      method: 'POST', signal: running.signal, headers: { 'Content-Type': 'application/json', ...headers() },
      body: JSON.stringify({ prompt: $('prompt').value, max_tokens: +$('max_tokens').value,
        temperature: +$('temperature').value, top_p: +$('top_p').value, stream: true,
        stream_options: { include_usage: true } }) });
    if (!response.ok) throw new Error((await response.json()).error.message);
    await readEvents(response, data => {
      if (data === '[DONE]') return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Error(chunk.error.message);
      first ||= performance.now();
      for (const choice of chunk.choices) generated.append(choice.text);
      if (chunk.usage) {
        const tokens = chunk.usage.completion_tokens, seconds = (performance.now() - first) / 1000;
        $('speed').textContent = `${chunk.usage.prompt_tokens} + ${tokens} tokens, first after ` +
          `${Math.round(first - start)} ms` + (seconds > 0 ? `, then ${(tokens / seconds).toFixed(1)} tokens/s` : '');
      }
    });
  } catch (error) {
    if (error.name !== 'AbortError') $('error').textContent = error.message;
  }
  $('go').disabled = false; $('stop').disabled = true; running = null;
}

const gauges = [['sessa_num_requests_running', 'Running'], ['sessa_num_requests_waiting', 'Waiting'],
  ['sessa_state_cache_usage_ratio', 'State cache used', v => (100 * v).toFixed(1) + ' %'],
  ['sessa_prompt_tokens_total', 'Prompt tokens'], ['sessa_generation_tokens_total', 'Generated tokens'],
  ['sessa_prefix_cache_hits_total', 'Prompt tokens found in cache'], ['sessa_num_preemptions_total', 'Preemptions']];

async function watch() {
  try {
    const values = {};
    for (const line of (await (await fetch('/metrics')).text()).split('\n')) {
      const match = /^(\w+) (\S+)$/.exec(line);
      if (match) values[match[1]] = +match[2];
    }
    $('load').replaceChildren(...gauges.filter(([name]) => name in values).map(([name, label, format]) => {
      const row = document.createElement('tr');
      for (const text of [label, format ? format(values[name]) : values[name]]) row.insertCell().textContent = text;
      return row;
    }));
    const ready = await fetch('/readyz');
    $('model').textContent = ready.ok ? 'Ready.' : (await ready.json()).error.message;
    if (ready.ok) {
      const models = await fetch('/v1/models', { headers: headers() });
      if (models.ok) $('model').textContent = 'Ready: ' + (await models.json()).data.map(m => m.id).join(', ');
    }
  } catch { $('model').textContent = 'The server does not answer.'; }
  setTimeout(watch, 2000);
}

$('form').addEventListener('submit', event => { event.preventDefault(); if (!running) complete(); });
$('stop').addEventListener('click', () => running?.abort());
watch();
</script>
</html>
)html";

}  // namespace

const std::string& WebPage() {
  static const auto* const page = new std::string(kPage);
  return *page;
}

}  // namespace sessa
