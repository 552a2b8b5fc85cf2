// Builds the page from the data that it carries. Text from the data is only ever set as textContent.
'use strict';
(() => {
  const data = JSON.parse(document.getElementById('data').textContent);
  const definitions = data.definitions;
  const byId = id => document.getElementById(id);

  function element(tag, options = {}, ...children) {
    const made = document.createElement(tag);
    if (options.class) made.className = options.class;
    if (options.text !== undefined) made.textContent = options.text;
    if (options.label) made.dataset.label = options.label;
    if (options.title) made.title = options.title;
    made.append(...children);
    return made;
  }

  // rows: [{cells, title, note, bad, chosen}]; a cell is text. The first of each is its name, and the note is below it.
  function table(caption, head, rows) {
    const made = element('table', {class: head.length > 3 ? 'wide' : ''});
    if (caption) made.append(element('caption', {text: caption}));
    if (head.length > 2) made.append(element('thead', {}, element('tr', {}, ...head.map(text => element('th', {text})))));
    const body = element('tbody');
    for (const row of rows) {
      const line = element('tr', {class: row.chosen ? 'chosen' : ''});
      row.cells.forEach((text, i) => {
        const cell = element(i === 0 ? 'th' : 'td', {text, label: i === 0 ? '' : head[i], title: i === 0 ? row.title : ''});
        if (row.bad) cell.classList.add('bad');
        if (i === 0) cell.scope = 'row';
        if (i === 0 && row.note) cell.append(element('div', {class: 'note', text: row.note}));
        line.append(cell);
      });
      body.append(line);
    }
    made.append(body);
    return element('div', {class: 'sheet'}, made);
  }

  const charts = {sweep: [], run: []};

  function panel(parent, group, title, note, options) {
    const caption = element('figcaption', {}, element('h3', {text: title}));
    if (note) caption.append(element('p', {class: 'note', text: note}));
    const figure = element('figure', {class: 'panel' + (options.whole ? ' whole' : '')}, caption);
    parent.append(figure);
    if (!options.make) {
      figure.append(element('p', {class: 'empty', text: options.empty}));
      return;
    }
    const canvas = element('canvas');
    canvas.setAttribute('role', 'img');
    canvas.setAttribute('aria-label', title);
    figure.append(element('div', {class: 'plot'}, canvas));
    charts[group].push(new Chart(canvas, options.make()));
  }

  function clear(group, ...ids) {
    charts[group].splice(0).forEach(chart => chart.destroy());
    ids.forEach(id => byId(id).replaceChildren());
  }

  function selfCheck(run, several) {
    const box = byId('self-check');
    const failed = data.runs.filter(one => !one.self_check.ok);
    box.replaceChildren();
    for (const one of failed) {
      const where = several ? ` at ${Format.load(one)}` : '';
      box.append(element('p', {class: 'banner bad'}, element('strong', {text: `Self-check failed${where}: `}),
        one.self_check.failure + '. Do not trust the figures of this run.'));
    }
    if (failed.length) return;
    const most = key => Format.seconds(Math.max(...data.runs.map(one => one.self_check[key])));
    box.append(element('p', {class: 'banner good'}, element('strong', {text: 'Self-check passed: '}),
      `99 % of requests were sent within ${most('p99_send_lag')} of their time, and 99 % of answers read within ${most('p99_loop_lag')}.`));
  }

  const groupHead = first => [first, 'Requests', 'Failed', 'Req/s', 'Out tok/s', 'TTFT p50', 'TTFT p99', 'ITL p50', 'ITL p99', 'E2E p50', 'E2E p99'];
  function groupCells(name, group) {
    const cells = [name, Format.count(group.requests), Format.share(group.figures.error_share),
      Format.figure(group.figures.requests_per_second), Format.figure(group.figures.output_tokens_per_second)];
    for (const key of ['ttft', 'itl', 'e2e']) {
      cells.push(Format.seconds(group.latencies[key].p50), Format.seconds(group.latencies[key].p99));
    }
    return cells;
  }

  function sweep(chosen) {
    byId('sweep').hidden = data.runs.length < 2;
    if (data.runs.length < 2) return;
    clear('sweep', 'sweep-plots', 'sweep-table');
    const plots = byId('sweep-plots');
    const has = key => data.runs.some(run => run.all.latencies[key].count > 0);
    for (const key of ['ttft', 'itl']) {
      panel(plots, 'sweep', `${Plots.names[key]} against load`, '', {
        make: has(key) && (() => Plots.sweepLatency(data.runs, key)), empty: 'No token came in any run.'});
    }
    panel(plots, 'sweep', 'Requests finished against load', 'Where it leaves the offered load, the server is saturated.',
      {make: () => Plots.sweepThroughput(data.runs)});
    panel(plots, 'sweep', 'Output tokens against load', '', {make: () => Plots.sweepTokens(data.runs)});
    const head = groupHead('Load');
    head.splice(2, 0, 'Kept SLO');
    byId('sweep-table').append(table('', head, data.runs.map((run, i) => {
      const cells = groupCells(Format.load(run), run.all);
      cells.splice(2, 0, Format.share(run.all.figures.good_share));
      return {cells, bad: !run.self_check.ok, chosen: i === chosen};
    })));
  }

  function cards(run) {
    const {figures, latencies} = run.all;
    const list = [
      ['Requests finished', Format.figure(figures.requests_per_second) + '/s', run.offered_rate !== null ? `of ${Format.load(run)} offered` : `with ${Format.load(run)}`],
      ['Output tokens', Format.figure(figures.output_tokens_per_second) + '/s', `${Format.figure(figures.input_tokens_per_second)}/s in`],
      ['TTFT p50', Format.seconds(latencies.ttft.p50), `p99 ${Format.seconds(latencies.ttft.p99)}`],
      ['ITL p50', Format.seconds(latencies.itl.p50), `p99 ${Format.seconds(latencies.itl.p99)}`],
      ['E2E p50', Format.seconds(latencies.e2e.p50), `p99 ${Format.seconds(latencies.e2e.p99)}`],
      ['Worst gap', Format.seconds(run.all.worst_gap && run.all.worst_gap.seconds), run.all.worst_gap ? `at ${Format.digits(run.all.worst_gap.at)} s` : 'no two tokens came'],
    ];
    if (figures.goodput !== null) list.push(['Kept the SLO', Format.share(figures.good_share), `${Format.figure(figures.goodput)}/s goodput`]);
    list.push(['Failed', Format.share(figures.error_share), `of ${Format.count(run.all.requests)} requests`, figures.error_share > 0]);
    if (figures.cached_share !== null) list.push(['From prefix cache', Format.share(figures.cached_share), `${Format.count(figures.cached_tokens)} tokens`]);
    byId('cards').replaceChildren(...list.map(([name, value, aside, bad]) => element('div', {class: 'card' + (bad ? ' bad' : '')},
      element('div', {class: 'name', text: name}), element('div', {class: 'value', text: value}), element('div', {class: 'aside', text: aside}))));
  }

  function latencyTable(caption, group) {
    const head = ['', 'Mean', 'p50', 'p90', 'p95', 'p99', 'p99.9', 'Max', 'Count'];
    const rows = [];
    for (const {key, label, meaning} of definitions.latencies) {
      const d = group.latencies[key];
      if (d.count === 0) continue;
      const values = [d.mean, d.p50, d.p90, d.p95, d.p99, d.p999, d.max];
      rows.push({title: meaning, cells: [label, ...values.map(value => Format.milliseconds(value, d.max)), Format.count(d.count)]});
    }
    if (!rows.length) return element('p', {class: 'note', text: 'No request in the window came to its first token or its end.'});
    return table(caption, head, rows);
  }

  function latencies(run, plots) {
    clear('run', 'latency-table', 'latency-plots', 'histograms', 'timelines');
    byId('latency-table').append(latencyTable('Milliseconds', run.all));
    const none = 'No token came.';
    panel(byId('latency-plots'), 'run', 'Percentiles', 'Each further nine takes the same room: the right end is the maximum.',
      {whole: true, make: plots.quantiles.length && (() => Plots.quantiles(plots)), empty: none});
    for (const [key, whole] of [['ttft', 'requests'], ['itl', 'gaps'], ['e2e', 'requests']]) {
      const one = plots.histograms.find(histogram => histogram.key === key);
      panel(byId('histograms'), 'run', Plots.names[key], one ? `${Format.count(one.count)} ${whole}` : '',
        {make: one && (() => Plots.histogram(one, whole)), empty: 'Nothing to show.'});
    }
  }

  function timelines(run, plots) {
    const parent = byId('timelines');
    const {total, threshold, at} = plots.gaps;
    const shown = threshold > 0 ? `The ${Format.count(at.length)} longest of ${Format.count(total)} gaps, from ${Format.seconds(threshold)} up`
      : `All ${Format.count(total)} gaps`;
    const shaded = run.window.begin > 0 || run.window.end < run.duration ? '; what is shaded is left out of the figures' : '';
    panel(parent, 'run', 'Gaps between tokens', total ? shown + shaded + '.' : '',
      {make: total && (() => Plots.gaps(run, plots)), empty: 'No request got two tokens.'});
    const sampled = plots.server && plots.server.bin > 0 ? ` Means of ${plots.server.bin} s.` : '';
    panel(parent, 'run', 'The server’s own metrics', plots.server ? 'Sequences that run and wait, and pages of its cache in use.' + sampled : '',
      {make: plots.server && (() => Plots.server(run, plots)), empty: 'The server offered no metrics that are known here.'});
    const bin = `In intervals of ${plots.timeline.bin} s.`;
    const any = plots.timeline.at.length > 0 && run.duration > 0;
    panel(parent, 'run', 'Throughput', bin, {make: any && (() => Plots.throughput(run, plots)), empty: 'Nothing was sent.'});
    panel(parent, 'run', 'Requests that ended', bin, {make: any && (() => Plots.ended(run, plots)), empty: 'Nothing was sent.'});
  }

  function groups(run) {
    const parent = byId('groups');
    parent.replaceChildren();
    if (run.kinds.length || run.tenants.length || run.probes) parent.append(element('h2', {text: 'By part of the load'}));
    for (const [title, list] of [['Kind', run.kinds], ['Tenant', run.tenants]]) {
      if (!list.length) continue;
      parent.append(table('', groupHead(title), list.map(group => ({cells: groupCells(group.name || '(none)', group)}))));
    }
    if (run.probes) parent.append(latencyTable(`Probe: ${Format.count(run.probes.requests)} short requests beside the load, milliseconds`, run.probes));
  }

  function figures(run) {
    const rows = (list, values) => list.filter(({key}) => values[key] !== null && values[key] !== undefined)
      .map(({key, label, unit, meaning}) => ({title: meaning, cells: [label, Format.figure(values[key], unit)]}));
    const outcomes = definitions.outcomes.filter(({key}) => run.all.outcomes[key] > 0)
      .map(({key, meaning}) => ({
        title: meaning, bad: key !== 'ok' && key !== 'cancelled', note: run.all.errors[key],
        cells: [key.replace('_', ' '), Format.count(run.all.outcomes[key])],
      }));
    const client = run.self_check;
    const left = element('div', {}, table('Throughput', ['', ''], rows(definitions.figures, run.all.figures)));
    const right = element('div');
    if (run.server_metrics) right.append(table('The server’s own metrics', ['', ''], rows(definitions.server_metrics, run.server_metrics.figures)));
    const third = element('div', {},
      table('Outcomes', ['', ''], outcomes.length ? outcomes : [{cells: ['No requests in the window', '']}]),
      table('The client itself', ['', ''], [
        {cells: ['Sent late, p99', Format.seconds(client.p99_send_lag)]}, {cells: ['Sent late, most', Format.seconds(client.max_send_lag)]},
        {cells: ['Loop late, p99', Format.seconds(client.p99_loop_lag)]}, {cells: ['Loop late, most', Format.seconds(client.max_loop_lag)]},
        {cells: ['CPU, cores', Format.figure(client.cpu_share)]}]));
    byId('figures').replaceChildren(left, ...(right.children.length ? [right] : []), third);
  }

  function pairs(id, list) {
    byId(id).replaceChildren(...list.flatMap(([name, text]) => [element('dt', {text: name}), element('dd', {text})]));
  }

  function about(run) {
    byId('title').textContent = data.title || 'Load test';
    document.title = data.title ? `${data.title} – load test` : 'Load test';
    const facts = [run.server, run.model && `model ${run.model}`, `started ${run.started.replace('T', ' ').replace('Z', ' UTC')}`,
      data.runs.length > 1 ? `${data.runs.length} runs` : `${Format.load(run)} for ${Format.digits(run.duration)} s`,
      data.slo && `SLO ${data.slo}`];
    byId('about').replaceChildren(...facts.filter(Boolean).map(text => element('li', {text})));
  }

  let chosen = 0;
  function show() {
    const styles = getComputedStyle(document.documentElement);
    Chart.defaults.font.family = getComputedStyle(document.body).fontFamily;
    Chart.defaults.color = styles.getPropertyValue('--text').trim();
    const run = data.runs[chosen], plots = data.plots[chosen];
    about(run);
    selfCheck(run, data.runs.length > 1);
    sweep(chosen);
    cards(run);
    latencies(run, plots);
    timelines(run, plots);
    groups(run);
    figures(run);
    const window = `${Format.digits(run.window.begin)} s to ${Format.digits(run.window.end)} s of ${Format.digits(run.duration)} s; ` +
      `${Format.count(run.window.requests_outside)} requests outside of it`;
    pairs('options', [['window', window], ...Object.entries(run.options).map(([name, value]) => ['--' + name, value])]);
  }

  const picker = byId('run');
  data.runs.forEach((run, i) => picker.append(new Option(Format.load(run), i)));
  picker.addEventListener('change', () => { chosen = Number(picker.value); show(); });
  const outcomes = definitions.outcomes.map(({key, meaning}) => [key.replace('_', ' '), meaning]);
  pairs('meanings', [...[...definitions.terms, ...definitions.latencies, ...definitions.figures, ...definitions.server_metrics]
    .map(({label, meaning}) => [label, meaning]), ...outcomes]);
  show();

  // Colours are read when a plot is made, so it is made anew when they change.
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', show);
  addEventListener('beforeprint', () => { document.documentElement.dataset.paper = ''; show(); });
  addEventListener('afterprint', () => { delete document.documentElement.dataset.paper; show(); });
})();
