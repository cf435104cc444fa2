// Waiting for what will be, never for time to pass.
import { setTimeout as pause } from 'node:timers/promises';

/** Resolves when `condition` holds; looks every `everyMs`, and says what it waited for when it gives up. */
export async function until(condition, what, deadlineMs = 15_000, everyMs = 2) {
  const deadline = performance.now() + deadlineMs;
  for (;;) {
    const held = await condition();
    if (held) return held;
    if (performance.now() > deadline) throw new Error(`waited ${deadlineMs} ms in vain until ${what}`);
    await pause(everyMs);
  }
}

/** Calls a function that takes a Node callback, and makes it a promise with a deadline. */
export function called(act, what = 'a callback', deadlineMs = 15_000) {
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

/** Lets the event loop go round a number of times: a moment of no particular length. */
export async function turns(count) {
  for (let turn = 0; turn < count; turn++) await new Promise(setImmediate);
}
