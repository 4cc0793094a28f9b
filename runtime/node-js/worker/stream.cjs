'use strict';
// An answer in parts: as many chunks as the node has given credit for.

const { Format, INITIAL_CREDIT, Kind } = require('./frame.cjs');

/** A source of items that are ready at once lets other calls run after this long. */
const TURN_MS = 2;

class Stream {
  /** `send(call, kind, head, item)` sends an item; `head` goes with the first one. */
  constructor(call, iterator, send, head = '') {
    this.call = call;
    this.iterator = iterator;
    this.send = send;
    this.head = head;
    this.credit = INITIAL_CREDIT;
    /** Waiting for an item, for the socket or for other calls: whoever ends that calls `pump`. */
    this.waiting = false;
    this.ended = false;
  }

  start() {
    this.register();
    this.pump();
  }

  /** The call outlives the function from here on. */
  register() {
    const { call } = this;
    call.keep();
    call.stream = this;
    call.channel.calls.set(call.id, call);
  }

  addCredit(chunks) {
    this.credit += chunks;
    this.pump();
  }

  pump() {
    const { channel } = this.call;
    const began = Date.now();
    while (this.credit > 0 && !this.waiting && !this.ended) {
      if (channel.waitIfCongested(() => this.resume())) {
        this.waiting = true;
      } else if (Date.now() - began >= TURN_MS) {
        channel.flush();
        this.waiting = true;
        setImmediate(() => this.resume());
      } else {
        this.advance();
      }
    }
    channel.later();
  }

  resume() {
    this.waiting = false;
    this.pump();
  }

  advance() {
    let step;
    try {
      step = this.call.enter(() => this.iterator.next());
      // `for await` awaits the items of a synchronous iterator too.
      if (typeof step?.then !== 'function' && typeof step?.value?.then === 'function') step = awaitItem(step);
    } catch (error) {
      this.fail(error);
      return;
    }
    if (typeof step?.then !== 'function') {
      this.take(step);
      return;
    }
    this.waiting = true;
    step.then(
      (result) => {
        this.take(result);
        this.resume();
      },
      (error) => this.fail(error),
    );
  }

  take(step) {
    if (this.ended) return;
    if (step.done) {
      this.finish();
      return;
    }
    try {
      this.call.enter(() => this.chunk(step.value));
    } catch (error) {
      this.fail(error);
      this.release();
    }
  }

  /** Sends one item and spends a credit on it. */
  chunk(item) {
    this.send(this.call, Kind.CHUNK, this.head, item);
    this.head = '';
    this.credit--;
  }

  finish() {
    const { call } = this;
    this.ended = true;
    call.channel.text(Kind.RESULT, Format.NONE, 0, call.id, this.head, '');
    call.end();
  }

  fail(error) {
    if (this.ended) return;
    this.ended = true;
    this.call.fail(error);
  }

  /** The caller is gone. */
  close() {
    if (this.ended) return;
    this.ended = true;
    this.release();
  }

  /** Lets the source run its `finally`. */
  release() {
    try {
      Promise.resolve(this.call.enter(() => this.iterator.return?.())).catch(() => {});
    } catch {
      // Its caller already has an answer.
    }
  }
}

async function awaitItem({ done, value }) {
  return { done, value: await value };
}

module.exports = { Stream };
