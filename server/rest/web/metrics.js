// The Prometheus text format, and what can be told from two scrapes of it: rates, means and quantiles. A series may
// have any labels: values are summed over all that are not asked for.

const toNumber = text => text === '+Inf' ? Infinity : text === '-Inf' ? -Infinity : Number(text);
const unescape = text => text.replace(/\\(.)/g, (_, c) => (c === 'n' ? '\n' : c));

export class Scrape {
  constructor(text, seconds) {
    this.seconds = seconds;  // when, on a clock that only goes forward
    this.series = new Map();  // name -> [{ labels, value }]
    for (const line of text.split('\n')) {
      const match = /^([A-Za-z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)/.exec(line);
      if (!match) continue;
      const labels = {};
      for (const [, name, value] of (match[2] ?? '').matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) labels[name] = unescape(value);
      if (!this.series.has(match[1])) this.series.set(match[1], []);
      this.series.get(match[1]).push({ labels, value: toNumber(match[3]) });
    }
  }

  // Null when there is no such series.
  sum(name) {
    return this.series.get(name)?.reduce((sum, { value }) => sum + value, 0) ?? null;
  }

  label(name, label) {
    return this.series.get(name)?.[0].labels[label] ?? null;
  }

  // A histogram's cumulative counts by upper bound, in order of bounds.
  buckets(name) {
    const counts = new Map();
    for (const { labels, value } of this.series.get(`${name}_bucket`) ?? []) {
      const bound = toNumber(labels.le);
      counts.set(bound, (counts.get(bound) ?? 0) + value);
    }
    return [...counts].sort(([a], [b]) => a - b);
  }
}

// What happened between two scrapes of one server. All are null when it can't be said: a series is missing, nothing
// happened, or a counter fell, since the server was started anew.
export class Interval {
  constructor(before, after) {
    this.before = before;
    this.after = after;
  }

  increase(name) {
    const before = this.before.sum(name), after = this.after.sum(name);
    return before === null || after === null || after < before ? null : after - before;
  }

  rate(name) {
    const increase = this.increase(name), seconds = this.after.seconds - this.before.seconds;
    return increase === null || seconds === 0 ? null : increase / seconds;
  }

  mean(histogram) {
    const count = this.increase(`${histogram}_count`), sum = this.increase(`${histogram}_sum`);
    return count && sum !== null ? sum / count : null;
  }

  // Linear within a bucket, as Prometheus's histogram_quantile; the highest finite bound at most.
  quantile(histogram, q) {
    const before = new Map(this.before.buckets(histogram));
    const buckets = this.after.buckets(histogram).map(([bound, count]) => [bound, count - (before.get(bound) ?? 0)]);
    const total = buckets.at(-1)?.[1];
    if (!total || buckets.some(([, count]) => count < 0)) return null;
    const rank = q * total;
    let lower = 0, below = 0;
    for (const [bound, count] of buckets) {
      if (count >= rank) return bound === Infinity ? lower : lower + (bound - lower) * (rank - below) / (count - below);
      [lower, below] = [bound, count];
    }
    return null;
  }
}
