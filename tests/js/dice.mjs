// Seeded random numbers.

/** A source of random numbers; the seed, a number or a text, determines them. */
export function dice(seed) {
  let state = [...String(seed)].reduce((hash, char) => Math.imul(hash ^ char.codePointAt(0), 16777619), 2166136261);
  const next = () => {
    state = (state + 0x9e3779b9) | 0;
    let z = state;
    z = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
    return ((z ^ (z >>> 15)) >>> 0) / 2 ** 32;
  };
  return {
    /** 0 to n - 1. */
    below: (n) => Math.floor(next() * n),
    /** From a to b, both included. */
    from: (a, b) => a + Math.floor(next() * (b - a + 1)),
    pick: (list) => list[Math.floor(next() * list.length)],
    chance: (p) => next() < p,
    /** The same items in random order. */
    shuffled(list) {
      const left = [...list];
      return Array.from(list, () => left.splice(Math.floor(next() * left.length), 1)[0]);
    },
  };
}
