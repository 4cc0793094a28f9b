'use strict';
// Sends what a function returned: JSON, raw bytes, a stream or an HTTP response.

const { types } = require('node:util');
const { Format, Kind } = require('./frame.cjs');
const logs = require('./logs.cjs');
const { sendResponse, isResponse } = require('./http.cjs');
const { ResultTooLarge, toJson } = require('./serialize.cjs');
const { Stream } = require('./stream.cjs');

/** From `load`. */
const limits = { replyBytes: 64 * 1024 * 1024 };

/** Sends `value` as the call's answer; false if the answer only begins here. */
function sendResult(call, value) {
  logs.endOf(call);
  if (typeof value === 'object' && value !== null) {
    const iterator = iteratorOf(value);
    if (iterator !== null) return begin(call, new Stream(call, iterator, sendItem));
    if (isResponse(value)) return sendResponse(call, value, limits.replyBytes);
  }
  sendItem(call, Kind.RESULT, '', value, Format.JSON);
  return true;
}

function begin(call, stream) {
  stream.start();
  return false;
}

/** Sends one value as a frame; strings in format `strings`. */
function sendItem(call, kind, head, value, strings = Format.TEXT) {
  const { channel, id } = call;
  if (typeof value === 'string') {
    if (strings === Format.TEXT) return sendText(call, kind, head, value);
    if (channel.plainString(kind, id, value)) return;
  }
  const bytes = bytesOf(value);
  if (bytes !== null) {
    if (bytes.length > limits.replyBytes) throw new ResultTooLarge(limits.replyBytes);
    channel.bytes(kind, Format.BYTES, 0, id, head, bytes);
  } else {
    channel.text(kind, Format.JSON, 0, id, head, toJson(value, limits.replyBytes));
  }
}

function sendText(call, kind, head, text) {
  const limit = limits.replyBytes;
  if (text.length > limit || (text.length * 3 > limit && Buffer.byteLength(text) > limit))
    throw new ResultTooLarge(limit);
  call.channel.text(kind, Format.TEXT, 0, call.id, head, text);
}

function bytesOf(value) {
  if (typeof value !== 'object' || value === null) return null;
  if (value instanceof Uint8Array) return value;
  return types.isAnyArrayBuffer(value) ? new Uint8Array(value) : null;
}

/** The iterator of a generator, a stream or any other source of items; null for values, arrays and maps among them. */
function iteratorOf(value) {
  if (typeof value[Symbol.asyncIterator] === 'function') return value[Symbol.asyncIterator]();
  if (typeof value.next === 'function' && typeof value[Symbol.iterator] === 'function') return value[Symbol.iterator]();
  return null;
}

/** Frees what a cancelled call returned too late. */
function discard(value) {
  if (typeof value !== 'object' || value === null) return;
  try {
    if (isResponse(value)) value.body?.cancel().catch(() => {});
    else if (typeof value.destroy === 'function') value.destroy();
    else Promise.resolve(iteratorOf(value)?.return?.()).catch(() => {});
  } catch {
    // The value is the user's: nobody is left who could be told.
  }
}

module.exports = { discard, limits, sendResult };
