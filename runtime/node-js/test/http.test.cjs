'use strict';
const assert = require('node:assert/strict');
const { test } = require('node:test');
const { BYTES, JSON_FORMAT, Kind, NONE, serve } = require('./harness.cjs');

const SOURCE = `
exports.page = async (request, { path, invocationId, signal }) => ({
  standard: request instanceof Request, method: request.method, url: request.url, agent: request.headers.get('user-agent'),
  body: await request.text(), path, invocationId, aborted: signal.aborted,
});
exports.marked = (request) => new Response('made ' + request.method, { status: 201, headers: { 'x-a': '1' } });
exports.marked.http = true;
exports.cookies = () => { const r = new Response(null, { status: 204 }); r.headers.append('set-cookie', 'a=1'); r.headers.append('set-cookie', 'b=2'); return r };
exports.stream = () => new Response(new ReadableStream({
  async start(c) { for (const part of ['a', 'b']) { await new Promise((r) => setTimeout(r, 5)); c.enqueue(Buffer.from(part)) } c.close() },
}), { headers: { 'content-type': 'text/event-stream' } });
exports.burst = () => new Response(new ReadableStream({ start(c) { c.enqueue(Buffer.from('x')); c.enqueue(Buffer.from('y')); c.close() } }));
exports.failing = () => new Response(new ReadableStream({ start(c) { c.error(new RangeError('body failed')) } }));
exports.strings = () => new Response(new ReadableStream({ start(c) { c.enqueue('not bytes'); c.close() } }));
exports.json = () => Response.json({ a: 1 });
exports.used = async () => { const r = new Response('x'); await r.text(); return r };
exports.bad = () => Response.error();
let cancelled = false;
exports.endless = () => new Response(new ReadableStream({ pull(c) { c.enqueue(Buffer.alloc(10)) }, cancel() { cancelled = true } }));
exports.wasCancelled = () => cancelled;
exports.where = async () => { await null; const { invocationId, traceparent } = fnmesh.context(); return { invocationId, traceparent } };
`;
const start = (t) =>
  serve(t, SOURCE, {
    settings: { page: { http: true } },
    parameters: { page: ['request', '{ path }'], marked: ['request'] },
  });
const head = (frame) => JSON.parse(frame.meta);

test('request functions get a standard Request', async (t) => {
  const worker = await start(t);
  const request = {
    method: 'PUT',
    url: 'http://shop.test/test/page/a/b?c=d',
    path: '/a/b',
    query: 'c=d',
    headers: [
      ['user-agent', 'curl/→'],
      ['content-type', 'text/plain'],
    ],
  };
  const id = worker.begin('page', Buffer.from('body'), { format: BYTES, meta: { request } });
  const page = JSON.parse((await worker.end(id)).text);
  assert.deepEqual(page, {
    standard: true,
    method: 'PUT',
    url: request.url,
    agent: Buffer.from('curl/→').toString('latin1'),
    body: 'body',
    path: '/a/b',
    invocationId: Buffer.alloc(16, id).toString('hex'),
    aborted: false,
  });
  const get = { ...request, method: 'GET' };
  assert.equal((await worker.value('page', '', { meta: { request: get } })).body, '');
  const { code, message } = await worker.failure('page', '', { meta: { request: { ...get, method: 'TRACE' } } });
  assert.equal(code, 1002);
  assert.match(message, /^TRACE http:\/\/shop\.test/);
});

test('request functions can be called without HTTP', async (t) => {
  const worker = await start(t);
  const page = await worker.value('page', { a: 1 });
  assert.deepEqual(
    [page.method, page.url, page.body, page.path],
    ['POST', 'http://localhost/test/page', '{"a":1}', ''],
  );
});

test('a Response gives status, headers and body', async (t) => {
  const worker = await start(t);
  const marked = await worker.call('marked', []);
  assert.deepEqual([marked.kind, marked.format, marked.text], ['result', BYTES, 'made POST']);
  assert.deepEqual(head(marked), {
    status: 201,
    headers: [
      ['content-type', 'text/plain;charset=UTF-8'],
      ['x-a', '1'],
    ],
  });
  const cookies = await worker.call('cookies', []);
  assert.deepEqual(head(cookies), {
    status: 204,
    headers: [
      ['set-cookie', 'a=1'],
      ['set-cookie', 'b=2'],
    ],
  });
  assert.equal(cookies.body.length, 0);
  assert.equal((await worker.call('json', [])).text, '{"a":1}');
});

test('a Response whose body takes time is streamed', async (t) => {
  const worker = await start(t);
  const id = worker.begin('stream', []);
  assert.deepEqual([(await worker.end(id)).kind, worker.frames.at(-1).format], ['result', NONE]);
  const chunks = worker.of(id, 'chunk');
  assert.deepEqual(
    chunks.map(({ text }) => text),
    ['', 'a', 'b'],
  );
  assert.deepEqual(head(chunks[0]), { status: 200, headers: [['content-type', 'text/event-stream']] });
  assert.deepEqual(
    chunks.slice(1).map(({ meta }) => meta),
    ['', ''],
  );
  const burst = worker.begin('burst', []);
  await worker.end(burst);
  assert.deepEqual(
    worker.of(burst, 'chunk').map(({ text, meta }) => [text, meta !== '']),
    [
      ['x', true],
      ['y', false],
    ],
  );
});

test('a Response that cannot be sent is an error', async (t) => {
  const worker = await start(t);
  assert.equal((await worker.failure('failing', [])).message, 'body failed');
  assert.equal((await worker.failure('strings', [])).type, 'ResultError');
  assert.match((await worker.failure('used', [])).message, /read already/);
  assert.match((await worker.failure('bad', [])).message, /status 0/);
});

test('cancel reaches the body of a Response', async (t) => {
  const worker = await start(t);
  const id = worker.begin('endless', []);
  await worker.until(() => worker.of(id, 'chunk').length === 16, '16 chunks');
  worker.send(Kind.cancel, { id }, 1);
  assert.equal((await worker.end(id)).aux, 1005);
  assert.equal(await worker.value('wasCancelled', []), true);
});

test('the context tells invocation and trace', async (t) => {
  const worker = await start(t);
  const traceparent = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01';
  const id = worker.begin('where', [], { meta: { traceparent } });
  const answer = await worker.end(id);
  assert.equal(answer.format, JSON_FORMAT);
  assert.deepEqual(JSON.parse(answer.text), { invocationId: Buffer.alloc(16, id).toString('hex'), traceparent });
});
