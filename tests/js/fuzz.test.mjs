// Nonsense for a while: the server stays the process it was, and somebody else on it notices nothing.
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
  // Without paces: it is their business elsewhere, and here they would keep us from what is behind them.
  const most = String(1_000_000);
  const env = {
    COPYDESK__GATEWAY__ADDRESS_HANDSHAKES_PER_SECOND: most,
    COPYDESK__GATEWAY__ADDRESS_REQUESTS_PER_SECOND: most,
    COPYDESK__GATEWAY__USER_REQUESTS_PER_SECOND: most,
    // Nobody renews a session here, however long it takes.
    COPYDESK__AUTH__ACCESS_SECONDS: String(24 * 60 * 60),
  };
  server = await Server.start({ open: false, env });
});
after(() => server?.stop());

test(`${SECONDS} s of requests and messages that dice have bent (SEED=${SEED})`, {
  timeout: (SECONDS + 60) * 1_000,
}, async (t) => {
  const ann = await Browser.registered(server, 'ann');
  // Somebody who is signed in bends them too, and not the one who is watched.
  const { code } = (await ann.post('/api/invitations', { role: 'editor' })).body;
  const eve = await Browser.registered(server, 'eve', code);
  // Renewed twice by the same token, her session would end, and she would be one more stranger.
  eve.cookies.delete('copydesk_refresh');
  const bystander = await Bystander.join(server, { headers: ann.headers });
  const counts = await bystander.whileTyping(() =>
    fuzz(server, { seconds: SECONDS, seed: SEED, headers: eve.headers }),
  );
  t.diagnostic(JSON.stringify({ ...counts, worstMs: Math.round(bystander.worstMs) }));
  await bystander.assertWell();
  bystander.leave();
});
