/** The user as others see them: a chosen name and a colour derived from it. Only the name is stored. */

export interface Person {
  name: string;
  color: string;
}

export const NAME_LENGTH_MAX = 40;
const KEY = 'copydesk.name';

export function loadPerson(): Person {
  const name = cleanName(read()) || friendlyName();
  return personNamed(name);
}

/** A signed-in user has the account's name. */
export function personOf(accountName: string): Person {
  return personNamed(cleanName(accountName) || 'Somebody');
}

export function keepName(name: string): Person {
  const person = personNamed(cleanName(name) || friendlyName());
  try {
    localStorage.setItem(KEY, person.name);
  } catch {
    // Storage is refused in some private windows; the name then lasts as long as the page.
  }
  return person;
}

/** A name as others may see it: one line, no control characters, not too long. */
export function cleanName(name: unknown): string {
  if (typeof name !== 'string') return '';
  return [...name.replace(/[\p{Cc}\p{Cf}\s]+/gu, ' ').trim()].slice(0, NAME_LENGTH_MAX).join('');
}

/** Behind the name of a guest, so that a guest cannot pass for a user of that name. */
export const GUEST = ' (guest)';

export function initials(name: string): string {
  const words = name.replace(GUEST, '').split(/\s+/).filter(Boolean);
  const letters = words.length > 1 ? [words[0], words.at(-1)] : [words[0]];
  return letters.map((word) => [...(word ?? '?')][0]?.toUpperCase()).join('');
}

/** All of them are dark enough for white text (contrast of 4.5 and more). */
const COLORS = [
  '#b3261e',
  '#a34700',
  '#7a6000',
  '#2e7032',
  '#00796b',
  '#0b6bcb',
  '#4353d6',
  '#7b3fb8',
  '#ad1a72',
  '#5d4a42',
];

export function colorOf(text: string): string {
  let hash = 0;
  for (const char of text) hash = (Math.imul(hash, 31) + char.codePointAt(0)!) >>> 0;
  return COLORS[hash % COLORS.length]!;
}

export function cleanColor(color: unknown, fallbackFor: string): string {
  return typeof color === 'string' && COLORS.includes(color) ? color : colorOf(fallbackFor);
}

function personNamed(name: string): Person {
  return { name, color: colorOf(name) };
}

function read(): string | null {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null;
  }
}

const ADJECTIVES = [
  'Quiet',
  'Brave',
  'Clever',
  'Gentle',
  'Sunny',
  'Swift',
  'Merry',
  'Patient',
  'Bright',
  'Calm',
  'Curious',
  'Kind',
];
const ANIMALS = ['Otter', 'Heron', 'Badger', 'Robin', 'Fox', 'Hare', 'Owl', 'Lynx', 'Wren', 'Seal', 'Finch', 'Marten'];

function friendlyName(): string {
  const [a = 0, b = 0] = crypto.getRandomValues(new Uint32Array(2));
  const name = `${ADJECTIVES[a % ADJECTIVES.length]} ${ANIMALS[b % ANIMALS.length]}`;
  try {
    localStorage.setItem(KEY, name);
  } catch {
    // As above.
  }
  return name;
}
