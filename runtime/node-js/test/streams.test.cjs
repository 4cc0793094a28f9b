'use strict';
const assert = require('node:assert/strict');
const { test } = require('node:test');
const { BYTES, JSON_FORMAT, Kind, NONE, TEXT, serve } = require('./harness.cjs');

const SOURCE = `
const { Readable } = require('node:stream');
const closed = [];
exports.closed = () => closed;
exports.kinds = function* () { yield 'text'; yield Buffer.from('raw'); yield { a: 1n }; yield null };
exports.count = function* (n) { try { for (let i = 0; i < n; i++) yield i } finally { closed.push('count') } };
exports.countLater = async function* (n) { try { for (let i = 0; i < n; i++) { await null; yield i } } finally { closed.push('countLater') } };
exports.readable = () => Readable.from(['a', 'b']);
exports.web = async () => new ReadableStream({ start(c) { c.enqueue('a'); c.enqueue(new Uint8Array([1])); c.close() } });
exports.plain = () => { let n = 0; return { next: () => ({ done: n++ > 1, value: fnmesh.context().invocationId.slice(0, 2) }), [Symbol.iterator]() { return this } } };
exports.promises = () => [Promise.resolve(1), 2][Symbol.iterator]();
exports.fails = function* () { yield 1; throw new RangeError('half way') };
exports.failsLater = async function* () { yield 1; throw new RangeError('half way') };
exports.unsendable = function* () { try { yield 1; yield () => 1 } finally { closed.push('unsendable') } };
exports.empty = function* () {};
exports.array = () => [1, 2];
exports.never = async function* () { try { yield 1; await new Promise(() => {}) } finally { closed.push('never') } };
exports.large = function* () { for (let i = 0; i < 40; i++) yield Buffer.alloc(500_000, i) };
exports.busy = function* () { for (let i = 0; i < 5; i++) { const end = Date.now() + 5; while (Date.now() < end); yield i } };
exports.quick = () => 'quick';
exports.hang = (signal) => new Promise(() => {});
exports.watch = async () => { await new Promise((resolve) => fnmesh.context().signal.addEventListener('abort', resolve)); closed.push(fnmesh.context().signal.reason.name); return 'late' };
exports.lateStream = async () => { await new Promise((r) => setTimeout(r, 20)); return Readable.from(['x']).on('close', () => closed.push('lateStream')) };
`;
const parameters = { count: ['n'], countLater: ['n'], hang: ['signal'] };
const start = (t) => serve(t, SOURCE, { parameters });
const items = (worker, id) =>
  worker.of(id, 'chunk').map(({ format, text }) => (format === JSON_FORMAT ? JSON.parse(text) : text));

test('generators and streams answer in chunks', async (t) => {
  const worker = await start(t);
  const expected = {
    kinds: ['text', 'raw', { a: 1 }, null],
    readable: ['a', 'b'],
    web: ['a', '\x01'],
    promises: [1, 2],
    plain: ['05', '05'],
    empty: [],
  };
  for (const [name, values] of Object.entries(expected)) {
    const id = worker.begin(name, []);
    const end = await worker.end(id);
    assert.deepEqual([end.kind, end.format, end.body.length], ['result', NONE, 0], name);
    assert.deepEqual(items(worker, id), values, name);
  }
  const kinds = worker.frames.filter(({ kind, id }) => kind === 'chunk' && id === 1).map(({ format }) => format);
  assert.deepEqual(kinds, [TEXT, BYTES, JSON_FORMAT, JSON_FORMAT]);
  assert.deepEqual(await worker.value('array', []), [1, 2]);
});

test('chunks stop at zero credit until more comes', async (t) => {
  const worker = await start(t);
  for (const name of ['count', 'countLater']) {
    const id = worker.begin(name, [40]);
    await worker.until(() => worker.of(id, 'chunk').length >= 16, '16 chunks');
    assert.equal(await worker.value('quick', []), 'quick');
    assert.equal(worker.of(id, 'chunk').length, 16);
    worker.send(Kind.credit, { id, aux: 1 }, 1);
    await worker.until(() => worker.of(id, 'chunk').length >= 17, '17 chunks');
    assert.equal(await worker.value('quick', []), 'quick');
    assert.equal(worker.of(id, 'chunk').length, 17);
    worker.send(Kind.credit, { id, aux: 300 }, 1);
    assert.equal((await worker.end(id)).kind, 'result');
    assert.deepEqual(
      items(worker, id),
      Array.from({ length: 40 }, (_, i) => i),
    );
  }
});

test('an error ends the stream', async (t) => {
  const worker = await start(t);
  for (const name of ['fails', 'failsLater']) {
    const id = worker.begin(name, []);
    const { kind, aux, text } = await worker.end(id);
    assert.deepEqual([kind, aux, JSON.parse(text).message], ['error', 1003, 'half way']);
    assert.deepEqual(items(worker, id), [1]);
  }
  assert.equal((await worker.failure('unsendable', [])).type, 'ResultError');
  assert.deepEqual(await worker.value('closed', []), ['unsendable']);
});

test('cancel closes the stream and is answered once', async (t) => {
  const worker = await start(t);
  for (const name of ['count', 'countLater']) {
    const id = worker.begin(name, [1000]);
    await worker.until(() => worker.of(id, 'chunk').length === 16, '16 chunks');
    worker.send(Kind.cancel, { id }, 1);
    worker.send(Kind.credit, { id, aux: 100 }, 1);
    const { kind, aux } = await worker.end(id);
    assert.deepEqual([kind, aux], ['error', 1005]);
    assert.deepEqual((await worker.value('closed', [])).at(-1), name);
    assert.equal(worker.of(id, 'chunk').length, 16);
    assert.equal(worker.of(id, 'result').length, 0);
  }
  const never = worker.begin('never', []);
  await worker.until(() => worker.of(never, 'chunk').length === 1, 'a chunk');
  worker.send(Kind.cancel, { id: never, aux: 1 }, 1);
  assert.match((await worker.end(never)).text, /deadline/);
});

test('a cancelled async call is answered at once and its late value ignored', async (t) => {
  const worker = await start(t);
  for (const name of ['hang', 'watch', 'lateStream']) {
    const id = worker.begin(name, name === 'hang' ? [1] : []);
    assert.equal(await worker.value('quick', []), 'quick');
    worker.send(Kind.cancel, { id }, 1);
    const { aux } = await worker.end(id);
    assert.equal(aux, 1005);
  }
  let closed = [];
  while (closed.length < 2) closed = await worker.value('closed', []);
  assert.deepEqual(closed, ['AbortError', 'lateStream']);
  assert.equal(worker.frames.filter(({ kind }) => kind === 'error').length, 3);
  worker.send(Kind.cancel, { id: 4_000_000_000 }, 1);
  assert.equal(await worker.value('quick', []), 'quick', 'cancel of an unknown call is ignored');
});

test('a slow reader slows the stream and loses nothing', async (t) => {
  const worker = await start(t);
  const socket = worker.sockets[1];
  socket.pause();
  const id = worker.begin('large', []);
  worker.send(Kind.credit, { id, aux: 100 }, 1);
  worker.send(Kind.ping, { id: 9 });
  await worker.frame(({ kind, id }) => kind === 'pong' && id === 9);
  socket.resume();
  assert.equal((await worker.end(id)).kind, 'result');
  const chunks = worker.of(id, 'chunk');
  assert.equal(chunks.length, 40);
  chunks.forEach(({ body }, i) => assert.ok(body.length === 500_000 && body.every((byte) => byte === i)));
});

test('other calls run between the items of a busy generator', async (t) => {
  const worker = await start(t);
  worker.sockets[1].cork();
  const busy = worker.begin('busy', []);
  const quick = worker.begin('quick', []);
  worker.sockets[1].uncork();
  await worker.end(busy);
  const order = worker.frames.map(({ kind, id }) => `${kind} ${id}`);
  assert.ok(order.indexOf(`result ${quick}`) < order.indexOf(`result ${busy}`));
});
