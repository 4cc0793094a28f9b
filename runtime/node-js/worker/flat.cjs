'use strict';
// The short way for the arguments of most calls: a string or a count for each parameter, by name or by position.
// What is not that simple, and all that is wrong, is left to json.cjs.

/** Up to this length it was measured to be the faster way. */
const SHORT = 512;
/** So many digits are always exact. */
const DIGITS = 15;

/** How far the text has been read. */
let at = 0;

/** The values that the JSON text `bytes[start..end]` has for the parameters `names`, in their order; null if it is anything else. */
function flatArguments(names, bytes, start, end) {
  if (end - start > SHORT) return null;
  const named = bytes[start] === 0x7b;
  if (!named && bytes[start] !== 0x5b) return null;
  if (bytes[end - 1] !== (named ? 0x7d : 0x5d)) return null;
  const text = bytes.latin1Slice(start, end);
  const args = [];
  at = start + 1;
  for (let i = 0; i < names.length; i++) {
    if (i > 0 && bytes[at++] !== 0x2c) return null;
    if (named && !skipKey(bytes, names[i])) return null;
    if (bytes[at] === 0x20) at++;
    const value = bytes[at] === 0x22 ? string(bytes, end, text) : count(bytes);
    if (value === null) return null;
    args.push(value);
  }
  return at === end - 1 ? args : null;
}

/** Steps over `"name":`, with a space before it as most writers of JSON have it. */
function skipKey(bytes, name) {
  if (bytes[at] === 0x20) at++;
  if (bytes[at++] !== 0x22) return false;
  for (let i = 0; i < name.length; i++) if (bytes[at++] !== name.charCodeAt(i)) return false;
  return bytes[at++] === 0x22 && bytes[at++] === 0x3a;
}

/** A string of printable ASCII without escapes; `text` is all of the text. */
function string(bytes, end, text) {
  const start = end - text.length;
  const from = ++at;
  for (; at < end; at++) {
    const byte = bytes[at];
    if (byte === 0x22) return text.substring(from - start, at++ - start);
    if (byte < 0x20 || byte > 0x7e || byte === 0x5c) return null;
  }
  return null;
}

/** An integer without sign, fraction or exponent. The bracket at the end of the text ends it at the latest. */
function count(bytes) {
  const from = at;
  let value = 0;
  for (let digit = bytes[at] - 0x30; digit >= 0 && digit <= 9; digit = bytes[++at] - 0x30) value = value * 10 + digit;
  const digits = at - from;
  if (digits === 0 || digits > DIGITS || (digits > 1 && bytes[from] === 0x30)) return null;
  return value;
}

module.exports = { flatArguments };
