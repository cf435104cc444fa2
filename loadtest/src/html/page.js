// Draws a report of copydesk-loadtest from the JSON in the page.
(() => {
  const { report, figures, tables } = JSON.parse(document.getElementById('data').textContent);
  const page = document.getElementById('page');
  const dark = matchMedia('(prefers-color-scheme: dark)');
  const palette = {
    light: ['#1f6feb', '#d1571b', '#8250df', '#1a7f37', '#bf3989', '#7d6608'],
    dark: ['#6cb0ff', '#ff9d5c', '#c29bff', '#5fd08f', '#ff8cc6', '#e5c15a'],
  };
  const plots = [];

  function element(name, properties = {}, ...children) {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  }

  function style(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  // ---- units ----

  const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
  const short = new Intl.NumberFormat('en', { notation: 'compact', maximumSignificantDigits: 3 });
  const time = (us) => {
    if (us == null) return '–';
    if (us < 1000) return `${whole.format(us)} µs`;
    return us < 1e6 ? `${(us / 1e3).toPrecision(3)} ms` : `${(us / 1e6).toPrecision(3)} s`;
  };
  const bytes = (value) => (value == null ? '–' : `${(value / 1048576).toFixed(1)} MiB`);
  const mebibytes = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192].map((step) => step * 1048576);
  const rate = (value) => (value == null ? '–' : `${short.format(value)}/s`);
  const count = (value) => (value == null ? '–' : whole.format(value));
  const cores = (value) => (value == null ? '–' : value.toFixed(2));

  // ---- plots ----

  /** Adds a plot: `lines` have a name and values; `show` formats a value. */
  function plot(into, title, at, lines, show, { log = false, x, steps } = {}) {
    const used = lines.filter(({ values }) => values.some((value) => value != null && (!log || value > 0)));
    if (!used.length || at.length < 2) return;
    const card = element('section', { className: 'card' }, element('h2', { textContent: title }));
    const place = element('div');
    card.append(place);
    into.append(card);
    const data = [at, ...used.map(({ values }) => (log ? values.map((value) => (value > 0 ? value : null)) : values))];
    const drawing = { place, data, used, show, log, x, steps, drawn: undefined };
    plots.push(drawing);
    new ResizeObserver(() => drawing.drawn?.setSize(size(place))).observe(place);
  }

  function size(place) {
    return { width: Math.max(240, place.clientWidth), height: place.clientWidth < 420 ? 220 : 260 };
  }

  function draw(drawing) {
    drawing.drawn?.destroy();
    const { place, data, used, show, log, x, steps } = drawing;
    const colours = palette[dark.matches ? 'dark' : 'light'];
    const axis = {
      stroke: style('--soft'),
      grid: { stroke: style('--line'), width: 1 },
      ticks: { stroke: style('--line') },
    };
    const series = used.map(({ name, dash }, index) => ({
      label: name,
      stroke: colours[index % colours.length],
      width: 1.6,
      dash,
      points: { show: !x && data[0].length < 40, size: 4 },
      spanGaps: Boolean(x),
      value: (_, value) => show(value),
    }));
    const options = {
      ...size(place),
      scales: {
        x: { time: false, ...(x?.log && { distr: 3 }) },
        y: { distr: log ? 3 : 1, ...(!log && { range: (_, __, max) => [0, max > 0 ? max * 1.08 : 1] }) },
      },
      axes: [
        { ...axis, values: (_, ticks) => ticks.map(x?.tick ?? ((tick) => `${tick} s`)) },
        {
          ...axis,
          size: 66,
          ...(steps && { incrs: steps }),
          values: (_, ticks) => ticks.map((tick) => (tick == null ? '' : show(tick))),
        },
      ],
      series: [
        {
          label: x?.name ?? 'time',
          value: (_, value) => (value == null ? '–' : (x?.show ?? ((at) => `${at.toFixed(1)} s`))(value)),
        },
        ...series,
      ],
      hooks: x ? {} : { draw: [marks] },
      cursor: { y: false, sync: x ? undefined : { key: 'time' } },
    };
    drawing.drawn = new uPlot(options, data, place);
  }

  /** Draws a line where a part of the run begins. */
  function marks(chart) {
    const { ctx } = chart;
    ctx.save();
    ctx.strokeStyle = style('--soft');
    ctx.setLineDash([3, 4]);
    for (const { at_s: at } of report.series.marks.slice(1)) {
      const left = Math.round(chart.valToPos(at, 'x', true));
      if (left < chart.bbox.left || left > chart.bbox.left + chart.bbox.width) continue;
      ctx.beginPath();
      ctx.moveTo(left, chart.bbox.top);
      ctx.lineTo(left, chart.bbox.top + chart.bbox.height);
      ctx.stroke();
    }
    ctx.restore();
  }

  function seriesPlots(into) {
    const { at_s: at, groups, servers } = report.series;
    const names = Object.keys(groups);
    const ends = names.length > 1 ? ['p50', 'p99'] : ['p50', 'p99', 'max'];
    const named = (name, what) => (names.length > 1 ? `${name}: ${what}` : what);
    for (const [key, title] of [
      ['ack', 'Ack latency'],
      ['delivery', 'Delivery latency (edit to screen)'],
    ]) {
      const lines = names.flatMap((name) =>
        ends.map((end) => ({
          name: named(name, end),
          values: groups[name][`${key}_${end}_us`],
          dash: end === 'max' ? [3, 3] : undefined,
        })),
      );
      plot(into, title, at, lines, time, { log: true });
    }
    percentiles(into);
    for (const [key, title] of [
      ['ops_per_second', 'Ops acknowledged'],
      ['deliveries_per_second', 'Deliveries'],
      ['rejected_per_second', 'Ops refused'],
    ]) {
      const lines = names.map((name) => ({ name: named(name, key.split('_')[0]), values: groups[name][key] }));
      plot(
        into,
        title,
        at,
        lines.filter(({ values }) => values.some((value) => value > 0)),
        rate,
      );
    }
    const each = (key) =>
      servers.map((server, index) => ({ name: `node ${index + 1} (pid ${server.pid})`, values: server[key] }));
    plot(into, 'Server: processors in use', at, each('cpu'), cores);
    plot(into, 'Server: memory', at, each('rss_bytes'), bytes, { steps: mebibytes });
    plot(into, 'Server: open files', at, each('open_files'), count);
  }

  /** Latency against the share of values, on a scale that stretches the last per cent. */
  function percentiles(into) {
    const names = Object.keys(report.distributions).filter((name) => !name.startsWith('generator_'));
    const places = new Map();
    for (const name of names) {
      for (const [share, us] of report.distributions[name]) {
        const at = 1 / Math.max(1 - share, 1e-5);
        places.set(at, { ...places.get(at), [name]: us });
      }
    }
    const at = [...places.keys()].sort((one, other) => one - other);
    const lines = names.map((name) => ({
      name: name.replaceAll('_', ' '),
      values: at.map((place) => places.get(place)[name] ?? null),
    }));
    const percent = (place) => `${Number((100 - 100 / place).toFixed(4))} %`;
    const tick = (place) => (place == null || !Number.isInteger(Math.log10(place)) ? '' : percent(place));
    plot(into, 'Percentiles', at, lines, time, { log: true, x: { log: true, name: 'share', show: percent, tick } });
  }

  // ---- the page ----

  function verdict() {
    const [text, kind] = report.fault_count
      ? ['FAULTY', 'bad']
      : report.is_checked
        ? ['converged', 'good']
        : ['not checked', 'none'];
    return element(
      'p',
      { className: 'verdict' },
      element('b', { className: kind, textContent: text }),
      `: ${report.checked}`,
    );
  }

  function table({ name, columns, rows }) {
    const head = element('tr', {}, ...[name, ...columns].map((textContent) => element('th', { textContent })));
    const body = rows.map((cells) => element('tr', {}, ...cells.map((textContent) => element('td', { textContent }))));
    return element(
      'section',
      { className: 'card wide' },
      element('table', {}, element('thead', {}, head), element('tbody', {}, ...body)),
    );
  }

  page.append(element('h1', { textContent: `copydesk-loadtest ${report.scenario}` }), verdict());
  if (report.faults.length || report.notes.length) {
    const lines = [
      ...report.faults.map((textContent) => element('li', { textContent, className: 'faults' })),
      ...report.notes.map((textContent) => element('li', { textContent })),
    ];
    page.append(element('ul', {}, ...lines));
  }
  const parameters = Object.entries(report.parameters).map(([name, value]) =>
    element('li', { textContent: `${name} ${value}` }),
  );
  page.append(element('ul', { className: 'parameters' }, ...parameters));
  page.append(...tables.map(table));
  const list = figures.map(([name, shown]) =>
    element('div', {}, element('dt', { textContent: name }), element('dd', { textContent: shown })),
  );
  page.append(element('section', { className: 'card' }, element('dl', { className: 'figures' }, ...list)));
  const grid = element('div', { className: 'plots' });
  page.append(grid);
  seriesPlots(grid);
  page.append(
    element('footer', {
      textContent: 'Latencies count from when an edit was due. Dashed vertical lines: the next part of the run.',
    }),
  );
  const drawAll = () => plots.forEach(draw);
  dark.addEventListener('change', drawAll);
  drawAll();
})();
