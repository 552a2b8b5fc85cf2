// One card for each thing that is watched: the current numbers and, under them, their last two minutes (Chart.js). The
// numbers double as the legend, and the canvas says them to those who can't see it.
/* global Chart */

const WINDOW = 120;  // seconds

const colors = () => {
  const style = getComputedStyle(document.documentElement);
  return name => style.getPropertyValue(`--${name}`).trim();
};

function element(tag, className, parent) {
  const made = document.createElement(tag);
  made.className = className;
  parent.append(made);
  return made;
}

// A value between two gaps is a dot, as no line goes there.
const radius = ({ dataset: { data }, dataIndex: i }) => (isNaN(data[i - 1]?.y) && isNaN(data[i + 1]?.y) ? 2 : 0);

export class Plot {
  // lines: [{ name, color, format }], color the name of a custom property of the style sheet; format makes the text of a
  // value and of the y axis's ticks. `max`: the y axis's end is never less.
  constructor(parent, { id, title, lines, max, fill = false }) {
    this.title = title;
    this.lines = lines;
    this.points = lines.map(() => []);  // [{ seconds, value }]
    const card = element('article', 'card plot', parent);
    card.id = id;
    element('h2', '', card).textContent = title;
    const numbers = element('dl', 'numbers', card);
    this.values = lines.map(({ name, color }) => {
      const pair = element('div', `swatch ${color}`, numbers);
      element('dt', '', pair).textContent = name;
      return element('dd', '', pair);
    });
    this.note = element('p', 'note', card);
    this.canvas = element('canvas', '', element('div', 'canvas', card));
    this.canvas.setAttribute('role', 'img');
    this.chart = new Chart(this.canvas, {
      type: 'line',
      data: { datasets: lines.map(({ name }) => ({ label: name, data: [], borderWidth: 2, pointRadius: radius, fill })) },
      options: {
        animation: false, maintainAspectRatio: false, parsing: false, normalized: true,
        interaction: { mode: 'index', intersect: false },
        plugins: {
          legend: { display: false },
          tooltip: { callbacks: {
            title: items => `${Math.round(-items[0].parsed.x)} s ago`,
            label: item => `${item.dataset.label}: ${lines[item.datasetIndex].format(item.parsed.y)}`,
          } },
        },
        scales: {
          x: { type: 'linear', min: -WINDOW, max: 0, grid: { display: false },
            ticks: { stepSize: 60, maxRotation: 0, callback: x => (x === 0 ? 'now' : `${-x / 60} min ago`) } },
          y: { beginAtZero: true, suggestedMax: max, afterFit: axis => { axis.width = 56; },  // so that all plots line up
            ticks: { maxTicksLimit: 4, callback: y => lines[0].format(y) } },
        },
      },
    });
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.paint());
    this.paint();
    this.add(0, lines.map(() => null));
  }

  paint() {
    const color = colors();
    this.lines.forEach((line, i) => {
      Object.assign(this.chart.data.datasets[i], { borderColor: color(line.color), backgroundColor: color(line.color) + '33' });
    });
    for (const scale of Object.values(this.chart.options.scales)) {
      Object.assign(scale.ticks, { color: color('quiet'), font: { size: 11 } });
      Object.assign(scale.grid, { color: color('edge'), borderColor: color('edge') });
    }
    this.chart.update('none');
  }

  // One value a line at a time in seconds; null breaks the line and reads as a dash. `note`: small text beside the numbers.
  add(seconds, values, note = '') {
    values.forEach((value, i) => {
      const points = this.points[i];
      points.push({ seconds, value });
      while (points[0].seconds < seconds - WINDOW) points.shift();
      this.values[i].textContent = value === null ? '–' : this.lines[i].format(value);
      this.chart.data.datasets[i].data = points.map(p => ({ x: p.seconds - seconds, y: p.value ?? NaN }));
    });
    this.note.textContent = note;
    const said = this.lines.map(({ name }, i) => `${name} ${this.values[i].textContent}`).join(', ');
    this.canvas.setAttribute('aria-label', `${this.title}, last two minutes. Now: ${said}.`);
    this.chart.update('none');
  }
}
