const ALPHABET = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';

/** 22 characters of base62, 131 bits: an address that cannot be guessed and does not repeat. */
export function randomId(length = 22): string {
  let id = '';
  while (id.length < length) {
    // 248 = 4 * 62: bytes above it would favour the first letters.
    for (const byte of crypto.getRandomValues(new Uint8Array(32))) {
      if (byte < 248 && id.length < length) id += ALPHABET[byte % 62];
    }
  }
  return id;
}
