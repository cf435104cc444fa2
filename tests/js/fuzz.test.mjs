// Random malformed requests and messages: the server does not crash, and another user is not affected.
// FUZZ_SECONDS=1800 SEED=1 node --test fuzz.test.mjs
import { after, before, test } from 'node:test';
import { Browser } from './browser.mjs';
import { Bystander } from './bystander.mjs';
import { fuzz } from './fuzz.mjs';
import { SEED } from './random.mjs';
import { Server } from './server.mjs';

const SECONDS = Number(process.env.FUZZ_SECONDS ?? 20);

let server;
before(async () => {
  // Without rate limits, so that the requests reach the code behind them.
  const most = String(1_000_000);
  const env = {
    COPYDESK__GATEWAY__ADDRESS_HANDSHAKES_PER_SECOND: most,
    COPYDESK__GATEWAY__ADDRESS_REQUESTS_PER_SECOND: most,
    COPYDESK__GATEWAY__USER_REQUESTS_PER_SECOND: most,
    // The session is valid for the whole test, because it is not renewed.
    COPYDESK__AUTH__ACCESS_SECONDS: String(24 * 60 * 60),
  };
  server = await Server.start({ open: false, env });
});
after(() => server?.stop());

test(`${SECONDS} s of randomly malformed requests and messages (SEED=${SEED})`, {
  timeout: (SECONDS + 60) * 1_000,
}, async (t) => {
  const ann = await Browser.registered(server, 'ann');
  // A signed-in user sends them as well, and not the one who is observed.
  const { code } = (await ann.post('/api/invitations', { role: 'editor' })).body;
  const eve = await Browser.registered(server, 'eve', code);
  // Two renewals with the same token would end this session, so that its requests would count as unauthenticated.
  eve.cookies.delete('copydesk_refresh');
  const bystander = await Bystander.join(server, { headers: ann.headers });
  const counts = await bystander.whileTyping(() =>
    fuzz(server, { seconds: SECONDS, seed: SEED, headers: eve.headers }),
  );
  t.diagnostic(JSON.stringify({ ...counts, worstMs: Math.round(bystander.worstMs) }));
  await bystander.assertWell();
  bystander.leave();
});
