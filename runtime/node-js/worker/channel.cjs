'use strict';
// One socket pair to the node: frames in, frames out.

const fs = require('node:fs');
const net = require('node:net');
const { setImmediate } = require('node:timers');
const { Format, HEADER_BYTES, Kind, MAX_FRAME_BYTES } = require('./frame.cjs');

const BUFFER_BYTES = 64 * 1024;
/** Strings up to this length are written by a loop, which beats the call into C++. */
const SHORT = 64;
/** Streams wait while more than this is queued for the node. */
const CONGESTED_BYTES = 1024 * 1024;
/** Frames wait for the next turn when calls have taken this long, by a clock of whole ms. */
const TURN_MS = 2;
/** Nothing is read while more than this waits for a turn: each turn may copy and scan all of it. */
const AHEAD_BYTES = 256 * 1024;

class Channel {
  /** `receive(channel, bytes, at, end)` gets each whole frame; `bytes` is only valid during that call. */
  constructor(fd, receive, closed) {
    this.fd = fd;
    this.receive = receive;
    /** Calls in flight by id, so that `cancel` and `credit` find them. */
    this.calls = new Map();
    this.receiving = false;
    this.scheduled = false;
    this.waiters = [];

    this.out = Buffer.allocUnsafeSlow(BUFFER_BYTES);
    this.length = 0;
    this.carry = null;
    this.carried = 0;

    /** Frames for the next turn. A `carry` comes after them, so there is none meanwhile. */
    this.ahead = [];
    this.aheadBytes = 0;
    /** In a turn that was put off: where the last `cancel` of an id lies in its bytes. */
    this.cancels = null;
    /** What the calls of this turn took, in ms. They tell, because they look at the clock anyway. */
    this.spent = 0;

    const input = Buffer.allocUnsafeSlow(BUFFER_BYTES);
    const callback = (count) => this.feed(input, count);
    this.socket = new net.Socket({ fd, readable: true, writable: true, onread: { buffer: input, callback } });
    this.socket.on('error', closed);
    this.socket.on('end', closed);
    this.socket.on('drain', () => this.drained());
  }

  /** Takes what was read; false if nothing more should be read for now. */
  feed(bytes, count) {
    if (this.ahead.length > 0) {
      this.putOff(Buffer.from(bytes.subarray(0, count)));
      return this.aheadBytes <= AHEAD_BYTES;
    }
    const at = this.handle(bytes, count);
    if (at < count) {
      this.putOff(Buffer.from(bytes.subarray(at, count)));
      // The sockets are read between the first and the second.
      setImmediate(() => setImmediate(() => this.turn()));
    }
    return true;
  }

  /** Handles frames until calls have taken a turn's time; returns where those begin that are left. */
  handle(bytes, count) {
    this.receiving = true;
    this.spent = 0;
    let at = this.carried > 0 ? this.finishCarry(bytes, count) : 0;
    let turnOver = false;
    while (count - at >= 4) {
      const total = frameLength(bytes, at);
      if (count - at < total) break;
      turnOver = this.spent >= TURN_MS;
      if (turnOver) break;
      this.receive(this, bytes, at, at + total);
      at += total;
    }
    if (at < count && !turnOver) {
      this.startCarry(bytes, at, count);
      at = count;
    }
    this.receiving = false;
    // Promises settled by this batch run right after it: one write takes their answers along.
    if (this.calls.size > 0) this.flushAfterMicrotasks();
    else this.flush();
    return at;
  }

  putOff(bytes) {
    this.ahead.push(bytes);
    this.aheadBytes += bytes.length;
  }

  /** Goes on with frames that were put off, so that a `cancel` was read meanwhile, and other channels had their turn. */
  turn() {
    if (this.socket.destroyed) return;
    const bytes = this.ahead.length === 1 ? this.ahead[0] : Buffer.concat(this.ahead);
    const paused = this.aheadBytes > AHEAD_BYTES;
    this.ahead = [];
    this.aheadBytes = 0;
    this.cancels = cancelsIn(bytes);
    const at = this.handle(bytes, bytes.length);
    this.cancels = null;
    if (at < bytes.length) {
      this.putOff(bytes.subarray(at));
      setImmediate(() => this.turn());
    }
    if (paused && this.aheadBytes <= AHEAD_BYTES) this.socket.resume();
  }

  startCarry(bytes, at, count) {
    const left = count - at;
    this.carry = Buffer.allocUnsafeSlow(left >= 4 ? frameLength(bytes, at) : HEADER_BYTES);
    this.carried = bytes.copy(this.carry, 0, at, count);
  }

  /** Completes the frame that began in earlier reads; returns how much of `bytes` it took. */
  finishCarry(bytes, count) {
    let at = 0;
    while (this.carried < 4 && at < count) this.carry[this.carried++] = bytes[at++];
    if (this.carried < 4) return at;
    const total = frameLength(this.carry, 0);
    if (this.carry.length < total) {
      const longer = Buffer.allocUnsafeSlow(total);
      this.carry.copy(longer, 0, 0, this.carried);
      this.carry = longer;
    }
    const copied = bytes.copy(this.carry, this.carried, at, Math.min(count, at + total - this.carried));
    this.carried += copied;
    if (this.carried === total) {
      const frame = this.carry;
      this.carry = null;
      this.carried = 0;
      this.receive(this, frame, 0, total);
    }
    return at + copied;
  }

  /** Sends a frame whose meta and body are strings. */
  text(kind, format, aux, id, meta, body) {
    const bound = HEADER_BYTES + (meta.length + body.length) * 3;
    if (bound > BUFFER_BYTES) {
      this.bytes(kind, format, aux, id, meta, Buffer.from(body));
      return;
    }
    this.reserve(bound);
    const start = this.length;
    let at = start + HEADER_BYTES;
    if (meta !== '') at += this.out.utf8Write(meta, at);
    const bodyAt = at;
    at += body.length <= SHORT ? this.shortText(body, at) : this.out.utf8Write(body, at);
    writeHead(this.out, start, kind, format, aux, id, bodyAt - start - HEADER_BYTES, at - start);
    this.length = at;
  }

  /** Sends a frame whose body is a `Uint8Array`; it is copied or sent before this returns. */
  bytes(kind, format, aux, id, meta, body) {
    const bound = HEADER_BYTES + meta.length * 3 + body.length;
    if (bound > BUFFER_BYTES) {
      this.large(kind, format, aux, id, Buffer.from(meta), body);
      return;
    }
    this.reserve(bound);
    const start = this.length;
    const metaLength = meta === '' ? 0 : this.out.utf8Write(meta, start + HEADER_BYTES);
    const bodyAt = start + HEADER_BYTES + metaLength;
    this.out.set(body, bodyAt);
    this.length = bodyAt + body.length;
    writeHead(this.out, start, kind, format, aux, id, metaLength, this.length - start);
  }

  large(kind, format, aux, id, meta, body) {
    const start = Buffer.allocUnsafe(HEADER_BYTES + meta.length);
    writeHead(start, 0, kind, format, aux, id, meta.length, start.length + body.length);
    start.set(meta, HEADER_BYTES);
    this.flush();
    this.write(start);
    this.write(body);
  }

  /** Sends a JSON string that needs no escapes; false, and nothing sent, if it is not that simple or short. */
  plainString(kind, id, value) {
    if (value.length > SHORT) return false;
    this.reserve(HEADER_BYTES + SHORT + 2);
    const out = this.out;
    const start = this.length;
    let at = start + HEADER_BYTES;
    out[at++] = 0x22;
    for (let i = 0; i < value.length; i++) {
      const unit = value.charCodeAt(i);
      if (unit < 0x20 || unit > 0x7e || unit === 0x22 || unit === 0x5c) return false;
      out[at++] = unit;
    }
    out[at++] = 0x22;
    writeHead(out, start, kind, Format.JSON, 0, id, 0, at - start);
    this.length = at;
    return true;
  }

  shortText(text, at) {
    const out = this.out;
    for (let i = 0; i < text.length; i++) {
      const unit = text.charCodeAt(i);
      if (unit > 0x7f) return out.utf8Write(text, at);
      out[at + i] = unit;
    }
    return text.length;
  }

  reserve(bytes) {
    if (this.length + bytes > BUFFER_BYTES) this.flush();
  }

  /** Writes all frames gathered so far. */
  flush() {
    if (this.length === 0) return;
    const length = this.length;
    this.length = 0;
    this.write(this.out, length);
  }

  /** Writes what the socket takes at once, so that `bytes` is free afterwards, and queues a copy of the rest. */
  write(bytes, length = bytes.length) {
    let written = 0;
    if (this.socket.writableLength === 0 && !this.socket.destroyed) written = writeNow(this.fd, bytes, length);
    if (written < length) this.socket.write(Uint8Array.prototype.slice.call(bytes, written, length));
  }

  /** Sees to it that frames written outside of `feed` leave soon, and together. */
  later() {
    if (this.receiving || this.scheduled) return;
    this.scheduled = true;
    process.nextTick(() => this.flushScheduled());
  }

  flushAfterMicrotasks() {
    if (this.scheduled) return;
    this.scheduled = true;
    queueMicrotask(() => process.nextTick(() => this.flushScheduled()));
  }

  flushScheduled() {
    this.scheduled = false;
    this.flush();
  }

  /** Calls `resume` once the node has taken what is queued; false when nothing needs to wait. */
  waitIfCongested(resume) {
    if (this.socket.writableLength <= CONGESTED_BYTES) return false;
    this.waiters.push(resume);
    return true;
  }

  drained() {
    for (const resume of this.waiters.splice(0)) resume();
  }

  /** Flushes, and calls `done` when the node has everything or is gone. */
  finish(done) {
    this.flush();
    if (this.socket.writableLength === 0 || this.socket.destroyed) done();
    else this.socket.end(done);
  }
}

function frameLength(bytes, at) {
  const total = readU32(bytes, at) + 4;
  if (total < HEADER_BYTES || total > MAX_FRAME_BYTES) unreadable(`a frame of ${total} bytes`);
  return total;
}

/** The place of the last `cancel` for each id, null if there is none. */
function cancelsIn(bytes) {
  let cancels = null;
  for (let at = 0; bytes.length - at >= HEADER_BYTES; at += frameLength(bytes, at)) {
    if (bytes[at + 4] === Kind.CANCEL) (cancels ??= new Map()).set(readU32(bytes, at + 8), at);
  }
  return cancels;
}

/** Ends the worker: nothing after an unreadable frame can be trusted. */
function unreadable(what) {
  fs.writeSync(2, `fnmesh worker: cannot read ${what} from the node\n`);
  process.reallyExit(70);
}

/** The bytes a non-blocking socket took; errors are left for the socket's own write to report. */
function writeNow(fd, bytes, length) {
  try {
    return fs.writeSync(fd, bytes, 0, length);
  } catch {
    return 0;
  }
}

function writeHead(out, at, kind, format, aux, id, metaLength, total) {
  writeU32(out, at, total - 4);
  out[at + 4] = kind;
  out[at + 5] = format;
  out[at + 6] = aux;
  out[at + 7] = aux >>> 8;
  writeU32(out, at + 8, id);
  writeU32(out, at + 12, metaLength);
}

function readU32(bytes, at) {
  return (bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16) | (bytes[at + 3] << 24)) >>> 0;
}

function writeU32(bytes, at, value) {
  bytes[at] = value;
  bytes[at + 1] = value >>> 8;
  bytes[at + 2] = value >>> 16;
  bytes[at + 3] = value >>> 24;
}

module.exports = { Channel, readU32, unreadable };
