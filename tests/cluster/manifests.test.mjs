// The files in deploy/ are consistent with each other and with the program, checked without Kubernetes or Docker.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { parse, parseAllDocuments } from 'yaml';

const root = new URL('../../', import.meta.url);
const read = (file) => readFileSync(new URL(file, root), 'utf8');

/** All settings of config.toml, as `section.name`, with their defaults as they are written there. */
const settings = (() => {
  const found = new Map();
  let section = '';
  for (const line of read('config.toml').split('\n')) {
    section = /^\[(\w+)\]/.exec(line)?.[1] ?? section;
    // Settings without a default are commented out.
    const setting = /^(?:# )?(\w+) = (.+)$/.exec(line);
    if (setting) found.set(`${section}.${setting[1]}`, setting[2]);
  }
  return found;
})();

/** The most connections of one node to Postgres: all pools, and the one for revocations. */
const connectionsOfNode = [...settings]
  .filter(([name]) => /^postgres\.\w+_connections$/.test(name))
  .reduce((sum, [, value]) => sum + Number(value), 1);

function assertKnown(name, where) {
  const [, section, setting] = /^COPYDESK__([A-Z]+)__([A-Z_]+)$/.exec(name) ?? [];
  assert.ok(settings.has(`${section}.${setting}`.toLowerCase()), `${where}: ${name} is no setting`);
}

/** `37s`, `512mb`, `2Gi`: as a number of seconds or bytes. */
function amount(text) {
  const [, number, unit] = /^(\d+)([a-zA-Z]*)$/.exec(text);
  const units = { '': 1, s: 1, k: 2 ** 10, m: 2 ** 20, mb: 2 ** 20, Mi: 2 ** 20, g: 2 ** 30, Gi: 2 ** 30 };
  assert.ok(unit in units, text);
  return Number(number) * units[unit];
}

/** The longest time in seconds that a node takes to stop, from OPERATIONS.md. */
const STOP_SECONDS = Number(/it takes (\d+) s: give it/.exec(read('deploy/OPERATIONS.md'))[1]);

/** The addresses of the nodes in a balancer's configuration, by upstream. */
const serversIn = (text, pattern) =>
  text
    .split(/^\s*(?:upstream|backend) /m)
    .slice(1)
    .map((part) => [...part.matchAll(pattern)].map(([, address]) => address));

test('OPERATIONS.md states how many connections a node has', () => {
  const page = read('deploy/OPERATIONS.md');
  assert.equal(Number(/\*\*Postgres connections\*\*: at most (\d+) for each node/.exec(page)[1]), connectionsOfNode);
  for (const [, count] of page.matchAll(/up to (\d+) connections/g)) assert.equal(Number(count), connectionsOfNode);
});

describe('compose.yml', () => {
  const { services } = parse(read('deploy/compose.yml'), { merge: true });
  const nodes = Object.entries(services).filter(([, { image }]) => image === 'copydesk');

  test('its nodes have existing settings, unique names and enough time to stop', () => {
    assert.equal(nodes.length, 3);
    for (const [name, node] of nodes) {
      Object.keys(node.environment).forEach((variable) => assertKnown(variable, name));
      assert.equal(node.environment.COPYDESK__SERVER__NODE, name);
      assert.equal(node.environment.COPYDESK__AUTH__BEHIND_PROXY, 'true');
      assert.match(node.environment.COPYDESK__POSTGRES__URL, /@postgres\/copydesk$/);
      assert.match(node.environment.COPYDESK__REDIS__URL, /^redis:\/\/redis:6379$/);
      for (const other of Object.keys(node.depends_on))
        assert.ok(services[other]?.healthcheck, `${other} has a health check`);
      assert.ok(amount(node.stop_grace_period) > STOP_SECONDS);
      assert.ok(node.read_only && node.cap_drop.includes('ALL'));
    }
  });

  test('Postgres allows connections of all nodes and one more, and every service has a memory limit', () => {
    const room = Number(/max_connections=(\d+)/.exec(services.postgres.command.join(' '))[1]);
    // Postgres reserves three for its superuser.
    assert.ok(room - 3 >= (nodes.length + 1) * connectionsOfNode, `${room} connections`);
    const { command } = services.redis;
    const maxmemory = amount(command[command.indexOf('--maxmemory') + 1]);
    assert.ok(maxmemory < amount(services.redis.mem_limit));
    assert.ok(command.includes('allkeys-lru'));
    for (const [name, { mem_limit, pids_limit }] of Object.entries(services)) assert.ok(mem_limit && pids_limit, name);
  });

  test('both balancers name exactly its nodes in every upstream', () => {
    const addresses = nodes.map(([name]) => `${name}:8080`);
    const inNginx = serversIn(read('deploy/nginx.conf'), /^\s*server (node-\S+) /gm);
    const inHaproxy = serversIn(read('deploy/haproxy.cfg'), /^\s*server \S+ (\S+)/gm);
    assert.deepEqual([...inNginx, ...inHaproxy], [addresses, addresses, addresses, addresses]);
    const [, port] = /:(\d+)$/.exec(services.balancer.ports[0]);
    assert.match(read('deploy/nginx.conf'), new RegExp(`^ *listen ${port};`, 'm'));
    assert.match(read('deploy/Dockerfile'), /8080/);
  });
});

describe('kubernetes/', () => {
  const files = readdirSync(new URL('deploy/kubernetes', root));
  const objects = files.flatMap((file) =>
    parseAllDocuments(read(`deploy/kubernetes/${file}`)).map((document) => {
      assert.deepEqual(document.errors, [], file);
      return document.toJS();
    }),
  );
  const all = (kind) => objects.filter((it) => it.kind === kind);
  const named = (kind, name) => {
    const found = all(kind).find(({ metadata }) => metadata.name === name);
    assert.ok(found, `there is no ${kind} ${name}`);
    return found;
  };
  const pods = all('Deployment').map(({ metadata, spec }) => ({ name: metadata.name, ...spec.template }));
  const matches = (labels, selector) => Object.entries(selector).every(([key, value]) => labels[key] === value);
  const [node] = named('Deployment', 'copydesk').spec.template.spec.containers;

  test('every object has an API version, a kind and a unique name', () => {
    for (const { apiVersion, kind, metadata } of objects) assert.ok(apiVersion && kind && metadata?.name);
    const names = objects.map(({ kind, metadata }) => `${kind} ${metadata.name}`);
    assert.deepEqual(names, [...new Set(names)]);
  });

  test('every selector matches a pod', () => {
    for (const { kind, metadata, spec } of objects) {
      const selector = spec?.podSelector ?? spec?.selector;
      if (!selector) continue;
      const labels = selector.matchLabels ?? selector;
      assert.ok(
        pods.some((pod) => matches(pod.metadata.labels, labels)),
        `${kind} ${metadata.name} selects nothing`,
      );
    }
  });

  test('every pod has limits, no privileges, a disruption budget and a network policy', () => {
    for (const { name, metadata, spec } of pods) {
      assert.equal(spec.automountServiceAccountToken, false);
      assert.equal(spec.securityContext.runAsNonRoot, true);
      for (const { resources, securityContext } of spec.containers) {
        for (const what of ['cpu', 'memory', 'ephemeral-storage'])
          assert.ok(resources.requests[what] && resources.limits[what], `${name}: ${what}`);
        assert.deepEqual(securityContext.capabilities.drop, ['ALL']);
        assert.ok(securityContext.readOnlyRootFilesystem && securityContext.allowPrivilegeEscalation === false);
      }
      for (const kind of ['PodDisruptionBudget', 'NetworkPolicy']) {
        const selectors = all(kind).map(({ spec }) => (spec.selector ?? spec.podSelector).matchLabels);
        assert.ok(
          selectors.some((labels) => matches(metadata.labels, labels)),
          `${name} has a ${kind}`,
        );
      }
    }
  });

  test('settings exist and come from existing objects', () => {
    for (const { configMapRef, secretRef } of node.envFrom) {
      const source = configMapRef
        ? named('ConfigMap', configMapRef.name).data
        : named('Secret', secretRef.name).stringData;
      Object.keys(source).forEach((variable) => assertKnown(variable, JSON.stringify(configMapRef ?? secretRef)));
    }
    node.env.forEach(({ name }) => assertKnown(name, 'env'));
    const redis = named('Deployment', 'copydesk-redis').spec.template.spec.containers[0];
    for (const { valueFrom } of redis.env)
      assert.ok(valueFrom.secretKeyRef.key in named('Secret', valueFrom.secretKeyRef.name).stringData);
    const { COPYDESK__REDIS__URL: url, COPYDESK__POSTGRES__URL: store } = named('Secret', 'copydesk').stringData;
    named('Service', new URL(url).hostname);
    assert.match(store, /\?sslmode=verify-full$/);
  });

  test('the certificate of Postgres is verified against a mounted file', () => {
    const file = named('ConfigMap', 'copydesk').data.COPYDESK__POSTGRES__CA_FILE;
    const mount = node.volumeMounts.find(({ mountPath }) => file.startsWith(`${mountPath}/`));
    const { volumes } = named('Deployment', 'copydesk').spec.template.spec;
    const { secret } = volumes.find(({ name }) => name === mount.name);
    const [{ key, path }] = secret.items;
    assert.equal(`${mount.mountPath}/${path}`, file);
    assert.ok(key in named('Secret', secret.secretName).stringData);
  });

  test('ports and probes are those that the node serves', () => {
    const ports = Object.fromEntries(node.ports.map(({ name, containerPort }) => [name, containerPort]));
    assert.match(read('deploy/Dockerfile'), new RegExp(`:${ports.http}\\b`));
    const probes = { startupProbe: '/healthz', readinessProbe: '/readyz', livenessProbe: '/healthz' };
    for (const [probe, path] of Object.entries(probes)) {
      assert.equal(node[probe].httpGet.path, path);
      assert.ok(node[probe].httpGet.port in ports);
    }
    // The time for which a start waits for Postgres.
    const { periodSeconds, failureThreshold } = node.startupProbe;
    assert.ok(periodSeconds * failureThreshold * 1_000 > Number(settings.get('postgres.open_patience_ms')));
    for (const { metadata, spec } of all('Service')) {
      const target = pods.find((pod) => matches(pod.metadata.labels, spec.selector)).spec.containers[0];
      for (const { targetPort } of spec.ports)
        assert.ok(
          target.ports.some(({ name }) => name === targetPort),
          metadata.name,
        );
    }
    const [{ http }] = named('Ingress', 'copydesk').spec.rules;
    const { service } = http.paths[0].backend;
    assert.ok(named('Service', service.name).spec.ports.some(({ name }) => name === service.port.name));
  });

  test('a node has time to stop, sockets outlive its idle timeout, and connections to Postgres fit', () => {
    const { spec } = named('Deployment', 'copydesk').spec.template;
    const preStop = Number(node.lifecycle.preStop.exec.command[1]);
    assert.ok(spec.terminationGracePeriodSeconds > preStop + STOP_SECONDS);
    const { annotations } = named('Ingress', 'copydesk').metadata;
    const idle = Number(settings.get('gateway.idle_timeout_ms')) / 1_000;
    for (const what of ['read', 'send'])
      assert.ok(Number(annotations[`nginx.ingress.kubernetes.io/proxy-${what}-timeout`]) > idle);
    const text = read('deploy/kubernetes/copydesk.yaml');
    assert.equal(Number(/Each node has up to (\d+) connections to Postgres/.exec(text)[1]), connectionsOfNode);
    const { maxReplicas, scaleTargetRef } = named('HorizontalPodAutoscaler', 'copydesk').spec;
    named(scaleTargetRef.kind, scaleTargetRef.name);
    assert.equal(Number(/for (\d+) times as many/.exec(text)[1]), maxReplicas + 1);
  });

  test('Redis has a memory limit for data below its container limit, and evicts instead of rejecting messages', () => {
    const [{ args, resources }] = named('Deployment', 'copydesk-redis').spec.template.spec.containers;
    const [, maxmemory] = /--maxmemory (\S+)/.exec(args[0]);
    assert.ok(amount(maxmemory) < amount(resources.limits.memory));
    assert.equal(resources.requests.memory, resources.limits.memory);
    assert.match(args[0], /--maxmemory-policy allkeys-lru/);
  });
});
