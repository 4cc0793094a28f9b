'use strict';
// What user code prints becomes `log` frames with the call it belongs to.

const { Writable } = require('node:stream');
const { Format, Kind, MAX_LOG_BYTES } = require('./frame.cjs');

const STDOUT = 0;
const STDERR = 1;
const LEVELS = { debug: 10, info: 20, warn: 30, error: 40 };

let control = null;
let ownerOf = () => null;
/** Output without its newline yet. One at a time, so that lines of different calls do not mix. */
let partial = '';
let partialOwner = null;
let partialLevel = STDOUT;

/** Takes over `console`, `process.stdout` and `process.stderr`; `currentCall` tells whose output it is. */
function capture(channel, currentCall) {
  control = channel;
  ownerOf = currentCall;
  const out = new LogStream(1, STDOUT);
  const err = new LogStream(2, STDERR);
  Object.defineProperty(process, 'stdout', { configurable: true, enumerable: true, get: () => out });
  Object.defineProperty(process, 'stderr', { configurable: true, enumerable: true, get: () => err });
  for (const [name, level] of Object.entries(LEVELS)) console[name] = leveled(console[name], [out, err], level);
}

/** A stand-in for `process.stdout`: native code and child processes still have the real descriptor. */
class LogStream extends Writable {
  constructor(fd, level) {
    super({ decodeStrings: false });
    this.fd = fd;
    this.isTTY = false;
    this.level = level;
  }

  /** Without the queue of `Writable`: the line must leave before the answer of the call that wrote it. */
  write(chunk, encoding, callback) {
    append(typeof chunk === 'string' ? chunk : Buffer.from(chunk).toString(), this.level);
    const done = typeof encoding === 'function' ? encoding : callback;
    if (typeof done === 'function') process.nextTick(done);
    return true;
  }

  end(chunk) {
    if (chunk !== undefined && typeof chunk !== 'function') this.write(chunk);
    return this;
  }
}

function leveled(print, streams, level) {
  return (...values) => {
    const before = streams.map((stream) => stream.level);
    for (const stream of streams) stream.level = level;
    try {
      print(...values);
    } finally {
      streams.forEach((stream, i) => (stream.level = before[i]));
    }
  };
}

function append(text, level) {
  const owner = ownerOf();
  if (partial !== '' && (owner !== partialOwner || level !== partialLevel)) flushPartial();
  const lines = (partial + text).split('\n');
  partial = lines.pop();
  partialOwner = owner;
  partialLevel = level;
  for (const line of lines) send(owner, level, line);
  if (partial.length > MAX_LOG_BYTES) flushPartial();
}

function flushPartial() {
  const line = partial;
  partial = '';
  if (line !== '') send(partialOwner, partialLevel, line);
  partialOwner = null;
}

/** Sends the line that `call` began; to be called before its answer. */
function endOf(call) {
  if (partialOwner === call) flushPartial();
}

/** Sends one line of the worker's own on behalf of `call` or, with null, of none. */
function log(call, level, text) {
  for (const line of text.split('\n')) send(call, level, line);
}

function send(call, level, line) {
  // The id of a call that was answered may already name another one.
  const live = call !== null && !call.done;
  const channel = live ? call.channel : control;
  const id = live ? call.id : 0;
  if (line.endsWith('\r')) line = line.slice(0, -1);
  if (line.length * 3 <= MAX_LOG_BYTES) channel.text(Kind.LOG, Format.TEXT, level, id, '', line);
  else for (const part of pieces(Buffer.from(line))) channel.bytes(Kind.LOG, Format.TEXT, level, id, '', part);
  // At once: the next thing the function does may be an endless loop.
  channel.flush();
}

/** `bytes` in parts of at most `MAX_LOG_BYTES`, cut between characters. */
function* pieces(bytes) {
  let start = 0;
  while (start < bytes.length) {
    let end = Math.min(start + MAX_LOG_BYTES, bytes.length);
    while (end < bytes.length && (bytes[end] & 0xc0) === 0x80) end--;
    yield bytes.subarray(start, end);
    start = end;
  }
}

module.exports = { capture, endOf, flushPartial, log };
