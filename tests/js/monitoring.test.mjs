// The alert rules and dashboards of deploy/monitoring: they are valid, name only metrics that a server exports, and each alert
// has a unit test and a runbook.
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { appendFileSync, readdirSync, readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { dashboards } from '../../deploy/monitoring/dashboards.mjs';
import { adminOf, seriesOf } from './metrics.mjs';
import { Server } from './server.mjs';
import { until } from './wait.mjs';

const deploy = new URL('../../deploy/', import.meta.url);
const monitoring = new URL('monitoring/', deploy);
const read = (name) => readFileSync(new URL(name, monitoring), 'utf8');
const alerts = [...read('alerts.yml').matchAll(/- alert: (\w+)/g)].map(([, name]) => name);

/** Runs a program in the folder of the rules, or reports that it is missing. */
function requires(program) {
  if (spawnSync(program, ['--version']).status === 0) return false;
  if (process.env.COPYDESK_SKIP_LOG) appendFileSync(process.env.COPYDESK_SKIP_LOG, `${program} is missing\n`);
  return `${program} is missing`;
}

const run = (program, ...args) => execFileSync(program, args, { cwd: fileURLToPath(monitoring), encoding: 'utf8' });

describe('deploy/monitoring', () => {
  test('Prometheus accepts its configuration and the rules', { skip: requires('promtool') }, () => {
    run('promtool', 'check', 'config', 'prometheus.yml');
  });

  test('each alert fires and is quiet as its unit test says', { skip: requires('promtool') }, () => {
    run('promtool', 'test', 'rules', 'alerts.test.yml');
  });

  test('Alertmanager accepts its configuration', { skip: requires('amtool') }, () => {
    run('amtool', 'check-config', 'alertmanager.yml');
  });

  test('each alert has a test for both cases and a runbook, and there is no other', () => {
    assert.ok(alerts.length > 20);
    const tests = [...read('alerts.test.yml').matchAll(/- name: (\w+) (fires|is quiet)/g)].map(
      ([, name, kind]) => `${name} ${kind}`,
    );
    assert.deepEqual(
      tests,
      alerts.flatMap((name) => [`${name} fires`, `${name} is quiet`]),
    );
    const operations = readFileSync(new URL('OPERATIONS.md', deploy), 'utf8');
    const runbooks = [...operations.matchAll(/^### (Copydesk\w+)$/gm)].map(([, name]) => name);
    assert.deepEqual(runbooks, alerts);
    for (const name of alerts)
      assert.ok(read('alerts.yml').includes(`runbook: deploy/OPERATIONS.md#${name.toLowerCase()}\n`), name);
  });

  test('the dashboards are those that dashboards.mjs writes', () => {
    const files = dashboards();
    assert.deepEqual(readdirSync(new URL('dashboards/', monitoring)).sort(), Object.keys(files).sort());
    for (const [name, text] of Object.entries(files)) assert.equal(read(`dashboards/${name}`), text, name);
  });

  test('rules and dashboards name only metrics that a server exports', async () => {
    const server = await Server.start();
    try {
      const admin = await until(() => adminOf(server), 'the address is logged');
      const series = Object.keys(await seriesOf(admin));
      const exported = new Set(series.map((name) => name.split('{')[0]));
      const texts = [read('alerts.yml'), ...Object.values(dashboards())];
      const named = new Set(texts.flatMap((text) => [...text.matchAll(/\bcopydesk_[a-z_]+/g)].map(([name]) => name)));
      assert.ok(named.size > 30);
      assert.deepEqual(
        [...named].filter((name) => !exported.has(name)),
        [],
      );
      // Values of labels, as `name{…label="value"…}`.
      for (const [, name, labels] of read('alerts.yml').matchAll(/\b(copydesk_[a-z_]+)\{([^}]*)\}/g)) {
        for (const [, label, values] of labels.matchAll(/(\w+)=~?"([^"]*)"/g)) {
          for (const value of values.split('|')) {
            const isExported = series.some((it) => it.startsWith(`${name}{`) && it.includes(`${label}="${value}"`));
            assert.ok(isExported, `${name}{${label}="${value}"}`);
          }
        }
      }
    } finally {
      await server.stop();
    }
  });
});
