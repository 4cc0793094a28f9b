'use strict';
// Reads argument bodies: strict UTF-8, strict JSON (RFC 8259), at most 128 levels, integers kept exact.

const buffer = require('node:buffer');
const { explain, place } = require('./json-error.cjs');

const MAX_DEPTH = 128;
/** A shorter text cannot hold more than `MAX_DEPTH` levels and their ends. */
const DEEP_LENGTH = 2 * MAX_DEPTH + 1;
/** Up to this length a loop over the bytes beats a call into C++. */
const SHORT = 64;
/** 16 digits in a row may be more than a double holds. */
const LONG_NUMBER = /\d{16}/;
const NUMBER = /-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const LONG_INTEGER = /^-?\d{16,}$/;

/** What the caller sent cannot be used: `error` 1002. */
class InputError extends Error {}

const decoder = buffer.isUtf8 ? null : new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** The text of `bytes[start..end]`. */
function decodeText(bytes, start, end) {
  if (end - start <= SHORT) {
    let seen = 0;
    for (let i = start; i < end; i++) seen |= bytes[i];
    if (seen < 0x80) return bytes.latin1Slice(start, end);
  }
  if (!isUtf8(bytes.subarray(start, end))) throw new InputError(`not UTF-8 at byte ${firstBadByte(bytes, start, end)}`);
  return bytes.utf8Slice(start, end);
}

/** The value of the JSON text `bytes[start..end]`; integers beyond ±(2^53 - 1) are `BigInt`s. */
function parseJson(bytes, start, end) {
  const text = decodeText(bytes, start, end);
  if (text.length >= DEEP_LENGTH) checkDepth(text);
  let value;
  try {
    value = JSON.parse(text);
  } catch {
    throw new InputError(`invalid JSON: ${explain(text)}`);
  }
  return text.length >= 16 && LONG_NUMBER.test(text) ? withBigIntegers(text, value) : value;
}

function isUtf8(bytes) {
  if (decoder === null) return buffer.isUtf8(bytes);
  try {
    decoder.decode(bytes);
    return true;
  } catch {
    return false;
  }
}

/** Decoding replaces what is not UTF-8, so the first difference after encoding again is the place. */
function firstBadByte(bytes, start, end) {
  const again = Buffer.from(bytes.utf8Slice(start, end));
  let i = 0;
  while (i < again.length && again[i] === bytes[start + i]) i++;
  return i;
}

function checkDepth(text) {
  let depth = 0;
  for (let i = 0; i < text.length; i++) {
    switch (text.charCodeAt(i)) {
      case 0x22:
        i = endOfString(text, i);
        break;
      case 0x5b:
      case 0x7b:
        if (++depth > MAX_DEPTH) {
          throw new InputError(`JSON is nested deeper than ${MAX_DEPTH} levels at ${place(text, i)}`);
        }
        break;
      case 0x5d:
      case 0x7d:
        depth--;
        break;
    }
  }
}

/** Where the string that begins at `i` ends; past the text if it does not. */
function endOfString(text, i) {
  for (i++; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    if (unit === 0x22) return i;
    if (unit === 0x5c) i++;
  }
  return i;
}

/** Parses again with each too large integer as a marked string, which then becomes a `BigInt`. `text` is valid JSON. */
function withBigIntegers(text, parsed) {
  let mark = '#';
  while (text.includes(mark)) mark += '#';
  let marked = '';
  let copied = 0;
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    if (unit === 0x22) {
      i = endOfString(text, i);
    } else if (unit === 0x2d || (unit >= 0x30 && unit <= 0x39)) {
      NUMBER.lastIndex = i;
      const [token] = NUMBER.exec(text);
      if (LONG_INTEGER.test(token) && !Number.isSafeInteger(Number(token))) {
        marked += `${text.slice(copied, i)}"${mark}${token}"`;
        copied = i + token.length;
      }
      i += token.length - 1;
    }
  }
  return copied === 0 ? parsed : unmark(JSON.parse(marked + text.slice(copied)), mark);
}

function unmark(value, mark) {
  if (typeof value === 'string') return value.startsWith(mark) ? BigInt(value.slice(mark.length)) : value;
  if (typeof value !== 'object' || value === null) return value;
  // Own members only, `__proto__` among them: assigning to it sets the member that exists.
  for (const key of Object.keys(value)) value[key] = unmark(value[key], mark);
  return value;
}

module.exports = { InputError, MAX_DEPTH, decodeText, parseJson };
