// Figures as people read them, the same as in the terminal's table. All take numbers of the report (seconds, shares of
// one), and null for "it did not come to that".
'use strict';
const Format = {
  digits(value) {  // three of them, or all before the point
    const decimals = value >= 100 ? 0 : value >= 10 ? 1 : 2;
    return value.toLocaleString('en-US', {minimumFractionDigits: decimals, maximumFractionDigits: decimals});
  },
  count: value => value === null ? '–' : Math.round(value).toLocaleString('en-US'),
  seconds(value) {
    if (value === null) return '–';
    return value >= 10 ? Format.digits(value) + ' s' : Format.digits(value * 1e3) + ' ms';
  },
  // Without the unit, with decimals that suit a row whose largest value is `largest`.
  milliseconds(value, largest) {
    if (value === null) return '–';
    const decimals = largest < 0.01 ? 3 : largest < 0.1 ? 2 : largest < 10 ? 1 : 0;
    return (value * 1e3).toLocaleString('en-US', {minimumFractionDigits: decimals, maximumFractionDigits: decimals});
  },
  share(value) {
    if (value === null) return '–';
    return (value * 100).toFixed(value > 0 && value < 0.001 ? 3 : 1) + ' %';
  },
  figure(value, unit) {
    if (value === null || value === undefined) return '–';
    if (unit === 's') return Format.seconds(value);
    if (unit === 'share') return Format.share(value);
    if (['tokens', 'count', 'requests'].includes(unit) && Number.isInteger(value)) return Format.count(value);
    return Format.digits(value);
  },
  // At an axis: short, with the unit.
  duration(value) {
    const trim = number => String(Number(number.toPrecision(3)));
    if (value === 0) return '0';
    if (value < 1e-3) return trim(value * 1e6) + ' µs';
    return value < 1 ? trim(value * 1e3) + ' ms' : trim(value) + ' s';
  },
  load(run) {
    if (run.offered_rate !== null) return Number(run.offered_rate.toPrecision(4)) + ' req/s';
    return run.users + (run.users === 1 ? ' user' : ' users');
  },
};
