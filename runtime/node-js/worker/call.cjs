'use strict';
// One invocation, from its arguments to the one frame that ends it.

const { AsyncLocalStorage } = require('node:async_hooks');
const { Code, Format, INVOKE_META_BYTES, Kind } = require('./frame.cjs');
const { describe } = require('./failure.cjs');
const logs = require('./logs.cjs');
const { sendResult, discard } = require('./reply.cjs');

/** A function that keeps the thread this long gets earlier answers sent before it runs. */
const SLOW_MS = 2;

/** The call whose code runs right now. */
let running = null;
/** Finds the call after an `await`. Made for the first async function only: it slows every promise. */
let storage = null;

/** The call that the current code belongs to, if that is known. */
function currentCall() {
  return running ?? storage?.getStore() ?? null;
}

class Call {
  /** `frame[at..]` is the `invoke` frame, valid until `keep`. */
  constructor(channel, id, target, frame, at) {
    this.channel = channel;
    this.id = id;
    this.target = target;
    this.frame = frame;
    this.at = at;
    this.done = false;
    this.stream = null;
    this.controller = null;
    this.facts = null;
  }

  run(args) {
    const { target, channel } = this;
    if (target.slow) channel.flush();
    const began = Date.now();
    running = this;
    try {
      const value = target.suspends ? this.runSuspending(args) : target.apply(args);
      if (isThenable(value)) this.wait(value);
      else this.answer(value);
    } catch (error) {
      this.fail(error);
    }
    running = null;
    const took = Date.now() - began;
    channel.spent += took;
    target.slow = took >= SLOW_MS;
    if (target.slow) channel.flush();
  }

  runSuspending(args) {
    this.keep();
    storage ??= new AsyncLocalStorage();
    return storage.run(this, applyTarget, this.target, args);
  }

  /** Runs code of this call later than its first part. */
  enter(code) {
    const outer = running;
    running = this;
    try {
      return storage === null ? code() : storage.run(this, code);
    } finally {
      running = outer;
    }
  }

  wait(promise) {
    this.keep();
    this.target.suspends = true;
    this.channel.calls.set(this.id, this);
    Promise.resolve(promise).then(
      (value) => this.settle(value),
      (error) => this.fail(error),
    );
  }

  settle(value) {
    if (this.done) {
      discard(value);
      return;
    }
    try {
      this.enter(() => this.answer(value));
    } catch (error) {
      this.fail(error);
    }
  }

  answer(value) {
    if (this.stream === null && sendResult(this, value)) this.end();
  }

  fail(error) {
    if (!this.done) this.sendError(Code.FUNCTION_FAILED, describe(error));
  }

  sendError(code, body) {
    logs.endOf(this);
    this.channel.text(Kind.ERROR, Format.JSON, code, this.id, '', JSON.stringify(body));
    this.end();
    this.stream?.close();
  }

  end() {
    this.done = true;
    this.channel.calls.delete(this.id);
    this.channel.later();
  }

  /** The caller no longer waits: answers at once; what the function still does has no effect on the caller. */
  cancel(reason) {
    if (this.done) return;
    const message = reason === 1 ? 'the deadline of the call has passed' : 'the caller is gone';
    this.sendError(Code.CANCELLED, { type: 'Cancelled', message, stack: '' });
    this.controller?.abort(new DOMException(message, 'AbortError'));
  }

  get signal() {
    this.controller ??= new AbortController();
    return this.controller.signal;
  }

  /** Copies what `frame` says of the call, before the buffer is used for the next read. */
  keep() {
    if (this.at < 0) return;
    const { frame, at } = this;
    const start = at + 16;
    this.frame = Buffer.from(frame.subarray(start, start + frame.readUInt32LE(at + 12)));
    this.at = -1;
  }

  /** What the node said of the call: invocation id, trace, HTTP request. */
  about() {
    if (this.facts !== null) return this.facts;
    this.keep();
    const meta = this.frame;
    const members = meta.length > INVOKE_META_BYTES ? JSON.parse(meta.toString('utf8', INVOKE_META_BYTES)) : {};
    const invocationId = meta.toString('hex', 0, 16);
    this.facts = { invocationId, traceparent: members.traceparent, request: members.request };
    return this.facts;
  }
}

/** What `fnmesh.context()` gives to user code. */
function context() {
  const call = currentCall();
  if (call === null) return undefined;
  const { invocationId, traceparent } = call.about();
  return Object.freeze({
    invocationId,
    traceparent,
    get signal() {
      return call.signal;
    },
  });
}

function applyTarget(target, args) {
  return target.apply(args);
}

function isThenable(value) {
  return (
    value !== null && (typeof value === 'object' || typeof value === 'function') && typeof value.then === 'function'
  );
}

module.exports = { Call, context, currentCall };
