// Waits for conditions instead of durations.
import { setTimeout as pause } from 'node:timers/promises';

/** When a wait fails. Long, because a passing test does not wait for it, and suites run side by side on slow machines. */
const DEADLINE_MS = 60_000;

/** Resolves when `condition` holds, which is checked every `everyMs`; rejects after `deadlineMs` and names `what`. */
export async function until(condition, what, deadlineMs = DEADLINE_MS, everyMs = 2) {
  const deadline = performance.now() + deadlineMs;
  for (;;) {
    const held = await condition();
    if (held) return held;
    if (performance.now() > deadline) throw new Error(`waited ${deadlineMs} ms in vain until ${what}`);
    await pause(everyMs);
  }
}

/** Calls a function that takes a Node callback, and makes it a promise with a deadline. */
export function called(act, what = 'a callback', deadlineMs = DEADLINE_MS) {
  return new Promise((resolve, reject) => {
    const late = () => reject(new Error(`${what} was not called back within ${deadlineMs} ms`));
    const timer = setTimeout(late, deadlineMs);
    act((error, value) => {
      clearTimeout(timer);
      if (error) reject(error);
      else resolve(value);
    });
  });
}

/** As `called`, but resolves to the error. */
export async function refused(act, what) {
  try {
    await called(act, what);
  } catch (error) {
    return error;
  }
  throw new Error('it was not refused');
}

/** Lets the event loop turn a number of times. */
export async function turns(count) {
  for (let turn = 0; turn < count; turn++) await new Promise(setImmediate);
}
