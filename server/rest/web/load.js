// The server's state in the page's head, and plots of its load, from a scrape of /metrics each second. While nobody sees
// the page nothing is asked; what is missing is a gap in the lines.
import { NO_ANSWER, models, whyNotReady } from './api.js';
import { Interval, Scrape } from './metrics.js';
import { Plot } from './plots.js';
import { $, amount, duration, percent, setText } from './text.js';

const SAMPLE_MS = 1000;

const plots = [
  {
    plot: new Plot($('plots'), { id: 'requests', title: 'Requests', max: 4, lines: [
      { name: 'running', color: 'first', format: amount }, { name: 'waiting', color: 'second', format: amount }] }),
    values: ({ after }) => [after.sum('sessa_num_requests_running'), after.sum('sessa_num_requests_waiting')],
    note: ({ after }) => `${amount(after.sum('sessa_requests_total') ?? 0)} ended`,
  },
  {
    plot: new Plot($('plots'), { id: 'tokens', title: 'Tokens a second', max: 10, lines: [
      { name: 'generated', color: 'first', format: amount }, { name: 'prompt', color: 'second', format: amount }] }),
    values: interval => [interval.rate('sessa_generation_tokens_total'), interval.rate('sessa_prompt_tokens_total')],
    note: ({ after }) => `${amount(after.sum('sessa_generation_tokens_total') ?? 0)} in all`,
  },
  {
    plot: new Plot($('plots'), { id: 'step', title: 'Step time', max: 0.001, lines: [
      { name: 'mean', color: 'first', format: duration }, { name: 'p99', color: 'second', format: duration }] }),
    values: interval => [interval.mean('sessa_step_duration_seconds'),
      interval.quantile('sessa_step_duration_seconds', 0.99)],
    note: interval => `${amount(interval.rate('sessa_steps_total') ?? 0)} steps/s`,
  },
  {
    plot: new Plot($('plots'), { id: 'cache', title: 'State cache', max: 0.1, fill: true, lines: [
      { name: 'in use', color: 'first', format: percent }] }),
    values: ({ after }) => [after.sum('sessa_state_cache_usage_ratio')],
    note({ after }) {
      const hits = after.sum('sessa_prefix_cache_hits_total'), asked = after.sum('sessa_prefix_cache_queries_total');
      return `prefix hits ${asked ? `${Math.round(100 * hits / asked)} %` : '–'} · ` +
        `${amount(after.sum('sessa_num_preemptions_total') ?? 0)} preempted`;
    },
  },
];

let last = null;  // the scrape before; null after a gap
let shownModel = null;  // the name that the last scrape told; null while the server is not ready

function gap() {
  last = null;
  for (const { plot } of plots) plot.add(performance.now() / 1000, plot.lines.map(() => null));
}

function showState(state, text) {
  $('state').dataset.state = state;
  setText($('state_text'), text);
}

export async function showModel() {
  const name = shownModel;
  if (name === null) return setText($('model'), '');
  const { needsKey, list } = await models($('api_key').value);
  const facts = list.map(m => `, ${m.num_layers} layers, context of ${m.max_model_len.toLocaleString('en')} tokens`);
  if (name === shownModel) setText($('model'), name + (needsKey ? ', asks for an API key' : facts.join('')));
}

// Null when there is none to be had.
async function scrape() {
  try {
    const response = await fetch('metrics', { cache: 'no-store', signal: AbortSignal.timeout(5000) });
    return response.ok ? new Scrape(await response.text(), performance.now() / 1000) : null;
  } catch {
    return null;
  }
}

async function sample() {
  const now = await scrape();
  let model = null;
  if (now === null) {
    gap();
    showState('gone', NO_ANSWER);
  } else {
    const interval = new Interval(last ?? now, now);
    for (const { plot, values, note } of plots) plot.add(now.seconds, values(interval), note(interval));
    last = now;
    const reason = now.sum('sessa_ready') === 1 ? null : await whyNotReady();
    showState(reason === null ? 'ready' : 'waiting', reason ?? 'Ready');
    const info = name => now.label('sessa_state_cache_info', name);
    if (reason === null) model = info('model_name') ?? info('model') ?? '';
  }
  if (model !== shownModel) {
    shownModel = model;
    showModel();
  }
}

const untilVisible = () => new Promise(resolve => {
  if (!document.hidden) return resolve();
  document.addEventListener('visibilitychange', () => resolve(untilVisible()), { once: true });
});

export async function watch() {
  for (;;) {
    if (document.hidden) {
      gap();
      await untilVisible();
    }
    await sample();
    await new Promise(resolve => setTimeout(resolve, SAMPLE_MS));
  }
}
