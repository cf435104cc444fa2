// Writes the dashboards for Grafana: node dashboards.mjs. Each panel is a title, a unit and its queries with their legends.
import { mkdirSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** The data source that the reader of a dashboard selects. */
// biome-ignore lint/suspicious/noTemplateCurlyInString: a variable of Grafana
const SOURCE = { type: 'prometheus', uid: '${source}' };

/** A quantile of a histogram by instance, or by instance and `by`. */
const quantile = (q, name, by = '') =>
  `histogram_quantile(${q}, sum by (instance, le${by && `, ${by}`}) (rate(copydesk_${name}_bucket{instance=~"$instance"}[$__rate_interval])))`;
const rate = (name, by = 'instance') =>
  `sum by (${by}) (rate(copydesk_${name}{instance=~"$instance"}[$__rate_interval]))`;
const gauge = (name) => `copydesk_${name}{instance=~"$instance"}`;

const PANELS = {
  up: ['Nodes that serve', 'none', [[gauge('serving'), '{{instance}}']]],
  sockets: ['Open sockets', 'none', [[gauge('sockets_open'), '{{instance}}']]],
  documents: [
    'Open documents',
    'none',
    [
      [gauge('documents_open'), '{{instance}} open'],
      [gauge('documents_owned'), '{{instance}} owned'],
    ],
  ],
  submits: ['Edits per second', 'ops', [[rate('submits_total', 'instance, result'), '{{instance}} {{result}}']]],
  ack: [
    'Acknowledgement of an edit',
    's',
    [
      [quantile(0.5, 'ack_seconds', 'path'), '{{instance}} {{path}} p50'],
      [quantile(0.99, 'ack_seconds', 'path'), '{{instance}} {{path}} p99'],
    ],
  ],
  delivery: ['Delivery to a socket', 's', [[quantile(0.99, 'delivery_seconds'), '{{instance}} p99']]],
  append: ['Append until durable', 's', [[quantile(0.99, 'append_seconds'), '{{instance}} p99']]],
  appends: ['Appends per second', 'ops', [[rate('appends_total', 'instance, result'), '{{instance}} {{result}}']]],
  transactions: [
    "The store's transactions",
    's',
    [
      [quantile(0.5, 'store_transaction_seconds'), '{{instance}} p50'],
      [quantile(0.99, 'store_transaction_seconds'), '{{instance}} p99'],
    ],
  ],
  queue: ["Jobs that wait for the store's writer", 'none', [[gauge('store_queued_jobs'), '{{instance}}']]],
  statements: [
    'Statements by pool',
    's',
    [[quantile(0.99, 'store_statement_seconds', 'pool'), '{{instance}} {{pool}} p99']],
  ],
  waiters: ['Calls that wait for a connection', 'none', [[gauge('store_connection_waiters'), '{{instance}} {{pool}}']]],
  closed: [
    'Sockets closed per second',
    'ops',
    [[rate('sockets_closed_total', 'instance, reason'), '{{instance}} {{reason}}']],
  ],
  refused: [
    'Sockets refused per second',
    'ops',
    [[rate('sockets_refused_total', 'instance, reason'), '{{instance}} {{reason}}']],
  ],
  owners: [
    'Changes of owners per second',
    'ops',
    [[rate('owner_changes_total', 'instance, reason'), '{{instance}} {{reason}}']],
  ],
  claims: ['Claim of a document', 's', [[quantile(0.99, 'claim_seconds'), '{{instance}} p99']]],
  messages: [
    'Messages between nodes per second',
    'ops',
    [[rate('peer_messages_total', 'instance, direction'), '{{instance}} {{direction}}']],
  ],
  dropped: [
    'Messages dropped per second',
    'ops',
    [[rate('peer_messages_dropped_total', 'instance, reason'), '{{instance}} {{reason}}']],
  ],
  membership: [
    'Membership',
    'none',
    [
      [gauge('peers_alive'), '{{instance}} others alive'],
      [gauge('peers_suspected'), '{{instance}} suspected'],
      [gauge('node_isolated'), '{{instance}} isolated'],
      [gauge('store_away'), '{{instance}} store away'],
    ],
  ],
  cpu: ['Processors in use', 'none', [[rate('process_cpu_seconds_total'), '{{instance}}']]],
  memory: ['Resident memory', 'bytes', [[gauge('process_resident_memory_bytes'), '{{instance}}']]],
  budgets: [
    'Budgets of memory in use',
    'percentunit',
    [[`${gauge('budget_used_bytes')} / ${gauge('budget_limit_bytes')}`, '{{instance}} {{budget}}']],
  ],
  files: ['Open files', 'none', [[gauge('process_open_fds'), '{{instance}}']]],
  http: [
    'HTTP requests per second',
    'reqps',
    [[rate('http_requests_total', 'instance, status'), '{{instance}} {{status}}']],
  ],
  signIns: ['Sign-ins per second', 'ops', [[rate('sign_ins_total', 'instance, result'), '{{instance}} {{result}}']]],
  throttled: [
    'Throttled messages per second',
    'ops',
    [[rate('messages_throttled_total', 'instance, limit'), '{{instance}} {{limit}}']],
  ],
  panics: [
    'Panics of documents',
    'none',
    [[`increase(copydesk_document_panics_total{instance=~"$instance"}[1h])`, '{{instance}}']],
  ],
};

const DASHBOARDS = {
  overview: [
    'Copydesk: overview',
    ['up', 'sockets', 'documents', 'submits', 'ack', 'delivery', 'append', 'cpu', 'memory', 'http'],
  ],
  node: [
    'Copydesk: one node',
    [
      'submits',
      'ack',
      'delivery',
      'append',
      'transactions',
      'queue',
      'statements',
      'waiters',
      'owners',
      'claims',
      'closed',
      'budgets',
      'cpu',
      'memory',
      'files',
      'messages',
    ],
  ],
  incident: [
    'Copydesk: incident',
    [
      'membership',
      'appends',
      'ack',
      'transactions',
      'queue',
      'dropped',
      'refused',
      'closed',
      'throttled',
      'signIns',
      'owners',
      'panics',
    ],
  ],
};

function panel(name, place) {
  const [title, unit, queries] = PANELS[name];
  return {
    id: place + 1,
    title,
    type: 'timeseries',
    datasource: SOURCE,
    gridPos: { x: (place % 2) * 12, y: Math.floor(place / 2) * 8, w: 12, h: 8 },
    fieldConfig: { defaults: { unit, min: 0 }, overrides: [] },
    options: { legend: { displayMode: 'list', placement: 'bottom' }, tooltip: { mode: 'multi' } },
    targets: queries.map(([expr, legendFormat], at) => ({ refId: String.fromCharCode(65 + at), expr, legendFormat })),
  };
}

/** The files of the dashboards, by name. */
export function dashboards() {
  const files = Object.entries(DASHBOARDS).map(([name, [title, panels]]) => {
    const content = {
      uid: `copydesk-${name}`,
      title,
      tags: ['copydesk'],
      schemaVersion: 39,
      refresh: '15s',
      time: { from: 'now-1h', to: 'now' },
      templating: {
        list: [
          { name: 'source', type: 'datasource', query: 'prometheus', label: 'Prometheus' },
          {
            name: 'instance',
            type: 'query',
            label: 'Node',
            datasource: SOURCE,
            query: 'label_values(copydesk_serving, instance)',
            refresh: 2,
            includeAll: true,
            multi: true,
            current: { text: 'All', value: '$__all' },
          },
        ],
      },
      panels: panels.map(panel),
    };
    return [`${name}.json`, `${JSON.stringify(content, null, 1)}\n`];
  });
  return Object.fromEntries(files);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const folder = new URL('dashboards/', import.meta.url);
  mkdirSync(folder, { recursive: true });
  for (const [name, text] of Object.entries(dashboards())) writeFileSync(new URL(name, folder), text);
}
