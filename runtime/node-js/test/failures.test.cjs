'use strict';
const assert = require('node:assert/strict');
const { test } = require('node:test');
const { serve } = require('./harness.cjs');

const SOURCE = `
class CartError extends Error {}
class NamedError extends Error { name = 'Special' }
function inner() { throw new CartError('empty cart') }
exports.raise = (kind) => {
  switch (kind) {
    case 'subclass': return inner();
    case 'named': throw new NamedError('x');
    case 'cause': throw new Error('outer', { cause: new TypeError('inner', { cause: 'a text' }) });
    case 'aggregate': throw new AggregateError([new RangeError('first')], 'all failed');
    case 'string': throw 'just text';
    case 'null': throw null;
    case 'undefined': throw undefined;
    case 'object': throw { code: 7 };
    case 'messageObject': throw { message: 'like an error' };
    case 'hostile': throw new Proxy(new Error('x'), { get() { throw new Error('trap') } });
    case 'circular': { const e = new Error('c'); e.cause = e; throw e }
    case 'overflow': return exports.raise(kind);
  }
};
exports.raiseLater = async (kind) => { await null; return exports.raise(kind) };
exports.withCallback = (a, b, done) => {
  if (a === 'throw') throw new CartError('at once');
  if (a === 'reject') return Promise.reject(new CartError('by promise'));
  setImmediate(() => { done(a === 'fail' ? new CartError('by callback') : null, [a, b]); done(null, 'twice') });
};
exports.optional = (a, b = 2, done = undefined) => done(null, [a, b ?? 'default']);
exports.stray = async () => { Promise.reject(new CartError('nobody waits')); await new Promise(() => {}) };
exports.timer = async () => { setTimeout(() => { throw new CartError('in a timer') }); await new Promise(() => {}) };
exports.lateStray = async () => { setTimeout(() => Promise.reject(new CartError('after the answer')), 1); return 'answered' };
exports.sleep = async (ms) => { await new Promise((done) => setTimeout(done, ms)); return ms };
exports.lost = () => { setTimeout(() => { throw new CartError('of no known call') }); return 'ok' };
exports.quick = () => 'quick';
exports.leave = (code) => process.exit(code);
exports.thenable = () => ({ then(resolve) { resolve('by then') } });
`;
const parameters = {
  raise: ['kind'],
  raiseLater: ['kind'],
  withCallback: ['a', 'b', 'done'],
  optional: ['a', 'b = 2', 'done'],
  sleep: ['ms'],
  leave: ['code'],
};
const settings = { withCallback: { callback: true }, optional: { callback: true } };
const start = (t) => serve(t, SOURCE, { parameters, settings });

test('errors carry type, message and the user frames only', async (t) => {
  const worker = await start(t);
  for (const how of ['raise', 'raiseLater']) {
    const { code, type, message, stack } = await worker.failure(how, ['subclass']);
    assert.deepEqual([code, type, message], [1003, 'CartError', 'empty cart']);
    assert.match(stack, /^Error: empty cart\n    at inner \(.*app\.js:4:\d+\)\n/);
    for (const line of stack.split('\n').slice(1)) assert.match(line, /app\.js/);
  }
});

test('anything thrown is described', async (t) => {
  const worker = await start(t);
  const expected = {
    named: ['Special', 'x'],
    string: ['string', 'just text'],
    null: ['null', 'null'],
    undefined: ['undefined', 'undefined'],
    object: ['Object', '{ code: 7 }'],
    messageObject: ['Object', 'like an error'],
    hostile: ['Error', 'the error itself cannot be read: its properties throw'],
    circular: ['Error', 'c'],
    overflow: ['RangeError', 'Maximum call stack size exceeded'],
  };
  for (const [kind, [type, message]] of Object.entries(expected)) {
    for (const how of ['raise', 'raiseLater']) {
      const failure = await worker.failure(how, [kind]);
      assert.deepEqual([failure.code, failure.type, failure.message], [1003, type, message], kind);
    }
  }
});

test('causes are part of the stack', async (t) => {
  const worker = await start(t);
  const { stack } = await worker.failure('raise', ['cause']);
  assert.match(stack, /^Error: outer\n.*app\.js[^]*\nCaused by: TypeError: inner\n.*app\.js[^]*\nCaused by: a text$/);
  assert.match((await worker.failure('raise', ['aggregate'])).stack, /Caused by: RangeError: first/);
});

test('callback functions answer through their callback', async (t) => {
  const worker = await start(t);
  assert.deepEqual(await worker.value('withCallback', { a: 1, b: 2 }), [1, 2]);
  assert.deepEqual(await worker.value('optional', [1]), [1, 2]);
  assert.equal((await worker.failure('withCallback', ['fail', 1])).message, 'by callback');
  assert.equal((await worker.failure('withCallback', ['throw', 1])).message, 'at once');
  assert.equal((await worker.failure('withCallback', ['reject', 1])).message, 'by promise');
  assert.equal((await worker.failure('withCallback', [1])).message, "withCallback(a, b): missing argument 'b'");
});

test('an uncaught error fails the call it belongs to and no other', async (t) => {
  const worker = await start(t);
  const other = worker.begin('sleep', [50]);
  const stray = await worker.failure('stray', []);
  assert.deepEqual([stray.code, stray.type, stray.message], [1003, 'CartError', 'nobody waits']);
  assert.equal((await worker.failure('timer', [])).message, 'in a timer');
  assert.equal(await worker.value('lateStray', []), 'answered');
  const log = await worker.frame(({ kind, text }) => kind === 'log' && text.includes('after the answer'));
  assert.deepEqual([log.id, log.aux, log.channel], [0, 40, 0]);
  assert.equal((await worker.end(other)).text, '50');
  assert.equal(await worker.value('thenable', []), 'by then');
});

test('an uncaught error of no known call is logged and ends the worker', async (t) => {
  const worker = await start(t);
  assert.equal(await worker.value('lost', []), 'ok');
  assert.equal(await worker.exit(), 1);
  const [log] = worker.logs();
  assert.deepEqual([log.id, log.level], [0, 40]);
  assert.match(log.text, /of no known call/);
});

test('process.exit ends the worker and earlier answers still leave', async (t) => {
  const worker = await start(t);
  worker.sockets[1].cork();
  const late = worker.begin('sleep', [1000]);
  const quick = worker.begin('quick', []);
  worker.begin('leave', [3]);
  worker.sockets[1].uncork();
  assert.equal(await worker.exit(), 3);
  assert.deepEqual(
    worker.frames.slice(1).map(({ kind, id }) => [kind, id]),
    [['result', quick]],
    `not ${late}`,
  );
});
