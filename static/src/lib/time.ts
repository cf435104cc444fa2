const STEPS: [limitMs: number, unitMs: number, unit: Intl.RelativeTimeFormatUnit][] = [
  [3_600_000, 60_000, 'minute'],
  [86_400_000, 3_600_000, 'hour'],
  [7 * 86_400_000, 86_400_000, 'day'],
];
const relative = new Intl.RelativeTimeFormat('en', { numeric: 'auto', style: 'short' });
const calendar = new Intl.DateTimeFormat('en', { day: 'numeric', month: 'short', year: 'numeric' });

/** "just now", "5 min. ago", "yesterday", and a date after a week. */
export function ago(timeMs: number, nowMs = Date.now()): string {
  const age = Math.max(0, nowMs - timeMs);
  if (age < 60_000) return 'just now';
  for (const [limit, size, unit] of STEPS) {
    if (age < limit)
      return relative
        .format(-Math.floor(age / size), unit)
        .replace('min. ', 'min ')
        .replace('hr. ', 'h ');
  }
  return calendar.format(timeMs);
}
