// The plots of the report, each a function from data to a Chart.js configuration. Colours come from the style sheet, so
// that they follow light, dark and paper.
'use strict';
const Plots = (() => {
  const color = name => getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim();
  const veil = (name, percent) => color(name) + Math.round(percent * 2.55).toString(16).padStart(2, '0');
  const points = (xs, ys) => xs.map((x, i) => ({x, y: ys[i]}));

  // What has a lower `order` is drawn later: a line goes above another's filling, which would veil it.
  const line = (label, series, data, more = {}) => ({
    label, data, borderColor: color(series), backgroundColor: color(series), borderWidth: 2, pointRadius: 0,
    pointHitRadius: 8, ...more,
  });

  const axis = (title, more = {}) => ({
    title: {display: true, text: title, color: color('quiet'), font: {size: 12}},
    grid: {color: color('grid'), borderColor: color('line'), tickColor: color('grid')},
    ...more,
    ticks: {color: color('quiet'), font: {size: 12}, maxRotation: 0, ...more.ticks},
  });

  // As many marks for each power of ten as there is room for.
  const logTicks = scale => {
    const decades = Math.log10(scale.max / scale.min);
    const {chart} = scale;
    const room = scale.isHorizontal() ? (chart.width - 60) / 52 : (chart.height - 90) / 24;  // marks, side by side
    const mantissas = [[1, 2, 5], [1, 3]].find(list => Math.log10(list[1]) * room >= decades) || [1];
    const values = [];
    for (let power = Math.floor(Math.log10(scale.min)); power <= Math.log10(scale.max); ++power) {
      for (const mantissa of mantissas) {
        const value = Number((mantissa * 10 ** power).toPrecision(3));
        if (value >= scale.min * 0.999 && value <= scale.max * 1.001) values.push({value});
      }
    }
    scale.ticks = values;
  };
  const logDurations = (title, more = {}) => axis(title, {
    type: 'logarithmic', afterBuildTicks: logTicks, ...more, ticks: {callback: Format.duration, autoSkip: true},
  });
  const durations = (title, more = {}) => axis(title, {beginAtZero: true, ...more, ticks: {callback: Format.duration}});

  const config = (datasets, scales, options = {}) => ({
    type: 'line',
    data: {datasets},
    plugins: options.inline || [],
    options: {
      animation: false, responsive: true, maintainAspectRatio: false, normalized: true, scales,
      layout: {padding: {right: 4, ...options.padding}},
      interaction: {mode: 'nearest', axis: 'x', intersect: false, ...options.interaction},
      plugins: {
        legend: {
          display: datasets.length > 1, align: 'start',
          labels: {color: color('text'), boxWidth: 14, boxHeight: 2, font: {size: 12}, ...options.legend},
        },
        tooltip: {callbacks: options.tooltip || {}},
      },
    },
  });

  const series = {ttft: 'series-1', itl: 'series-2', tpot: 'series-4', e2e: 'series-3'};
  const names = {ttft: 'TTFT', itl: 'ITL', tpot: 'TPOT', e2e: 'E2E'};

  // Quantiles on a scale on which each further nine takes the same room, so that the tail is as wide as the body.
  function quantiles(plots) {
    const marks = [[0, 'min'], [-Math.log10(0.5), 'p50'], [1, 'p90'], [2, 'p99'], [3, 'p99.9'], [4, 'p99.99'], [5, 'p99.999']];
    const last = Math.max(...plots.quantiles.map(curve => curve.nines[curve.nines.length - 1]));
    return config(
      plots.quantiles.map(curve => line(names[curve.key], series[curve.key], points(curve.nines, curve.values))),
      {
        x: axis('Percentile', {
          type: 'linear', min: 0, max: Math.max(last, 1),
          afterBuildTicks: scale => {  // from the tail on, which matters more, as many as there is room for
            const room = 38 * scale.max / (scale.chart.width - 70);
            const kept = [];
            for (const [value] of marks.filter(([at]) => at <= scale.max).reverse()) {
              if (!kept.length || kept[0].value - value >= room) kept.unshift({value});
            }
            scale.ticks = kept;
          },
          ticks: {autoSkip: false, callback: value => (marks.find(([at]) => at === value) || [])[1]},
        }),
        y: logDurations('Latency, log scale'),
      },
      {tooltip: {
        title: items => 'p' + Number((100 * (1 - 10 ** -items[0].parsed.x)).toPrecision(6)),
        label: item => `${item.dataset.label}: ${Format.seconds(item.parsed.y)}`,
      }});
  }

  function histogram(histogram, whole) {
    const data = [{x: histogram.edges[0], y: 0}];
    histogram.shares.forEach((share, i) => data.push({x: histogram.edges[i], y: share * 100}));
    data.push({x: histogram.edges[histogram.edges.length - 1], y: 0});
    const name = series[histogram.key];
    return config(
      [line(names[histogram.key], name, data, {stepped: 'before', fill: 'origin', backgroundColor: veil(name, 28), borderWidth: 1.5})],
      {
        x: logDurations(names[histogram.key] + ', log scale', {min: data[0].x, max: data[data.length - 1].x}),
        y: axis(`Share of ${whole}`, {beginAtZero: true, ticks: {maxTicksLimit: 5, callback: value => value + ' %'}}),
      },
      {tooltip: {
        title: items => {
          const bin = Math.min(Math.max(items[0].dataIndex - 1, 0), histogram.shares.length - 1);
          return Format.seconds(histogram.edges[bin]) + ' to ' + Format.seconds(histogram.edges[bin + 1]);
        },
        label: item => item.parsed.y.toFixed(2) + ' %',
      }});
  }

  // All timelines have the same plot area, so that a stall stands above what the server did then.
  const side = 74;
  const fixed = {afterFit: scale => { scale.width = side; }};
  const time = duration => axis('Time since the start', {
    type: 'linear', min: 0, max: duration, ticks: {callback: value => Number(value.toPrecision(4)) + ' s', maxTicksLimit: 12, includeBounds: false},
  });
  const timeTooltip = label => ({title: items => 'at ' + Number(items[0].parsed.x.toPrecision(5)) + ' s', label});

  // Shades what is left out of the figures: warm-up and cool-down.
  const outside = run => ({
    id: 'outside',
    beforeDatasetsDraw(chart) {
      const {ctx, chartArea: area, scales: {x}} = chart;
      const clamp = at => Math.min(Math.max(x.getPixelForValue(at), area.left), area.right);
      ctx.save();
      ctx.fillStyle = color('outside');
      const begin = clamp(run.window.begin), end = clamp(run.window.end);
      ctx.fillRect(area.left, area.top, begin - area.left, area.bottom - area.top);
      ctx.fillRect(end, area.top, area.right - end, area.bottom - area.top);
      ctx.restore();
    },
  });

  // Names the worst gap beside its ring.
  const worstLabel = {
    id: 'worstLabel',
    afterDatasetsDraw(chart) {
      const ring = chart.getDatasetMeta(1).data[0];
      const worst = chart.data.datasets[1].data[0];
      const {ctx, chartArea: area} = chart;
      ctx.save();
      ctx.fillStyle = color('bad');
      ctx.font = `600 12px ${Chart.defaults.font.family}`;
      ctx.textBaseline = 'middle';
      const left = ring.x > (area.left + area.right) / 2;
      ctx.textAlign = left ? 'right' : 'left';
      ctx.fillText(Format.seconds(worst.y), ring.x + (left ? -11 : 11), ring.y);
      ctx.restore();
    },
  };

  function gaps(run, plots) {
    const data = points(plots.gaps.at, plots.gaps.seconds);
    const worst = data.reduce((a, b) => a.y >= b.y ? a : b);
    return {...config(
      [
        {label: 'Gap', data, pointRadius: 2, pointHoverRadius: 4, borderWidth: 0, backgroundColor: veil('series-2', 75), borderColor: color('series-2')},
        {label: 'Worst', data: [worst], pointRadius: 7, pointHoverRadius: 7, borderWidth: 2, borderColor: color('bad'), backgroundColor: 'transparent'},
      ],
      {x: time(run.duration), y: durations('Gap between tokens', {...fixed, grace: '8%'})},
      {
        inline: [outside(run), worstLabel], padding: {right: side}, legend: {usePointStyle: true, boxHeight: 8},
        interaction: {axis: 'xy', intersect: true},
        tooltip: timeTooltip(item => {
          const request = item.datasetIndex === 0 ? plots.gaps.request[item.dataIndex] : run.all.worst_gap.request;
          return `${Format.seconds(item.parsed.y)}, request ${request}`;
        }),
      }), type: 'scatter'};
  }

  const rightAxis = (title, more) => axis(title, {
    position: 'right', beginAtZero: true, ...fixed, ...more, grid: {drawOnChartArea: false, borderColor: color('line')}});
  const leftAxis = (title, more) => axis(title, {beginAtZero: true, ...fixed, ...more});
  const whole = {ticks: {precision: 0}};
  const big = {ticks: {callback: value => value.toLocaleString('en-US')}};

  function server(run, plots) {
    const looks = {
      running: ['series-1', {yAxisID: 'y'}], waiting: ['series-2', {yAxisID: 'y'}],
      cache_usage: ['series-3', {yAxisID: 'share', borderDash: [5, 3]}],
    };
    const datasets = plots.server.series.map(one => {
      const scale = one.key === 'cache_usage' ? 100 : 1;
      const values = one.mean.map(value => value === null ? null : value * scale);
      return line(one.label, looks[one.key][0], points(plots.server.at, values), {spanGaps: true, ...looks[one.key][1]});
    });
    const scales = {x: time(run.duration), y: leftAxis('Sequences', {...whole, suggestedMax: 1})};
    const hasUsage = plots.server.series.some(one => one.key === 'cache_usage');
    if (hasUsage) scales.share = rightAxis('Cache usage', {min: 0, max: 100, ticks: {callback: value => value + ' %', maxTicksLimit: 6}});
    return config(datasets, scales, {
      inline: [outside(run)], padding: {right: hasUsage ? 0 : side}, interaction: {mode: 'index'},
      tooltip: timeTooltip(item => `${item.dataset.label}: ${Format.digits(item.parsed.y)}${item.dataset.yAxisID === 'share' ? ' %' : ''}`),
    });
  }

  function throughput(run, plots) {
    const {at, output_tokens_per_second: tokens, in_flight: live} = plots.timeline;
    return config(
      [
        line('Output tokens/s', 'series-1', points(at, tokens), {yAxisID: 'y', fill: 'origin', backgroundColor: veil('series-1', 18)}),
        line('Requests in flight', 'series-2', points(at, live), {yAxisID: 'live', borderDash: [5, 3], order: -1}),
      ],
      {x: time(run.duration), y: leftAxis('Output tokens/s', big), live: rightAxis('Requests in flight', whole)},
      {
        inline: [outside(run)], padding: {right: 0}, interaction: {mode: 'index'},
        tooltip: timeTooltip(item => `${item.dataset.label}: ${Format.digits(item.parsed.y)}`),
      });
  }

  function ended(run, plots) {
    const {at, finished_per_second: finished, failed_per_second: failed} = plots.timeline;
    const datasets = [line('Finished', 'series-3', points(at, finished), {fill: 'origin', backgroundColor: veil('series-3', 18)})];
    if (failed.some(value => value > 0)) datasets.push(line('Failed', 'bad', points(at, failed), {order: -1}));
    return config(datasets, {x: time(run.duration), y: leftAxis('Requests/s')}, {
      inline: [outside(run)], padding: {right: side}, interaction: {mode: 'index'},
      tooltip: timeTooltip(item => `${item.dataset.label}: ${Format.digits(item.parsed.y)}/s`),
    });
  }

  // A sweep: one point a run, marked where the run's self-check failed.
  const isOpen = runs => runs.every(run => run.offered_rate !== null);
  const loadOf = run => run.offered_rate !== null ? run.offered_rate : run.users;
  const loadAxis = runs => axis(isOpen(runs) ? 'Offered load, requests/s' : 'Users', {type: 'linear', ...big});
  const perRun = (label, name, runs, value, more = {}) => line(label, name, runs.map(run => ({x: loadOf(run), y: value(run)})), {
    pointRadius: 3.5, pointHoverRadius: 5,
    pointBackgroundColor: runs.map(run => color(run.self_check.ok ? name : 'bad')),
    pointBorderColor: runs.map(run => color(run.self_check.ok ? name : 'bad')), ...more,
  });

  function sweepLatency(runs, key) {
    const of = percentile => run => run.all.latencies[key][percentile];
    return config(
      [perRun('p50', 'series-1', runs, of('p50')), perRun('p90', 'series-3', runs, of('p90')), perRun('p99', 'series-2', runs, of('p99'))],
      {x: loadAxis(runs), y: logDurations(names[key] + ', log scale')},
      {interaction: {mode: 'index'}, tooltip: {
        title: items => Format.load(runs[items[0].dataIndex]), label: item => `${item.dataset.label}: ${Format.seconds(item.parsed.y)}`,
      }});
  }

  function sweepThroughput(runs) {
    const datasets = [perRun('Finished', 'series-1', runs, run => run.all.figures.requests_per_second)];
    if (runs.some(run => run.all.figures.goodput !== null)) {
      datasets.push(perRun('Goodput', 'series-3', runs, run => run.all.figures.goodput));
    }
    if (isOpen(runs)) {
      datasets.push(line('Offered', 'quiet', runs.map(run => ({x: loadOf(run), y: loadOf(run)})), {borderDash: [4, 4], borderWidth: 1.5}));
    }
    return config(datasets, {x: loadAxis(runs), y: axis('Requests/s', {beginAtZero: true})}, {
      interaction: {mode: 'index'},
      tooltip: {title: items => Format.load(runs[items[0].dataIndex]), label: item => `${item.dataset.label}: ${Format.digits(item.parsed.y)}/s`},
    });
  }

  function sweepTokens(runs) {
    return config(
      [perRun('Output tokens/s', 'series-4', runs, run => run.all.figures.output_tokens_per_second)],
      {x: loadAxis(runs), y: axis('Output tokens/s', {beginAtZero: true, ...big})},
      {tooltip: {title: items => Format.load(runs[items[0].dataIndex]), label: item => Format.digits(item.parsed.y) + ' tokens/s'}});
  }

  return {quantiles, histogram, gaps, server, throughput, ended, sweepLatency, sweepThroughput, sweepTokens, names};
})();
