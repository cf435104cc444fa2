// Reads the metrics of a server.

/** The address of a server's admin listener, from its log. */
export const adminOf = (server) => /the admin listener serves metrics: (http:\/\/[^/]+)\//.exec(server.log)?.[1];

/** The value of each series of an admin listener, by name and labels. */
export async function seriesOf(address) {
  const text = await (await fetch(`${address}/metrics`, { signal: AbortSignal.timeout(5_000) })).text();
  const lines = text.split('\n').filter((line) => line && !line.startsWith('#'));
  return Object.fromEntries(
    lines.map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ') + 1))]),
  );
}
