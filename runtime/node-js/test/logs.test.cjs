'use strict';
const assert = require('node:assert/strict');
const { test } = require('node:test');
const { serve } = require('./harness.cjs');

const SOURCE = `
console.log('while loading');
exports.say = (text) => { console.log(text); return 'said' };
exports.levels = () => { console.log('log'); console.debug('debug'); console.info('info'); console.warn('warn'); console.error('error'); console.log('log again') };
exports.parts = () => { process.stdout.write('a'); process.stdout.write(Buffer.from('b\\nc')); process.stderr.write('d\\r\\n', () => {}); process.stdout.write('unfinished') };
exports.later = async (text) => { console.log(text, 1); await null; console.log(text, 2); await new Promise((r) => setTimeout(r, 2)); console.log(text, 3); return text };
exports.promised = (text) => new Promise((r) => setTimeout(() => { console.log(text); r(text) }, 1));
exports.gen = function* () { console.log('first'); yield 1; console.log('second') };
exports.long = () => { console.log('é'.repeat(100000)); process.stdout.write('x'.repeat(200000)) };
exports.many = (n) => { for (let i = 0; i < n; i++) console.log('line ' + i); return n };
exports.background = () => { setTimeout(() => console.log('in the background'), 5); return 'ok' };
exports.fails = () => { console.log('before'); throw new Error('x') };
exports.stuck = () => { console.log('last words'); for (;;); };
exports.native = () => { require('fs').writeSync(1, 'native out\\n'); require('child_process').spawnSync('sh', ['-c', 'echo native err >&2'], { stdio: 'inherit' }) };
exports.stream = () => [process.stdout.fd, process.stdout.isTTY, process.stdout.writable, typeof process.stdout.on];
`;
const start = (t) =>
  serve(t, SOURCE, { parameters: { say: ['text'], later: ['text'], promised: ['text'], many: ['n'] } });
const of = (worker, id) =>
  worker
    .logs()
    .filter((log) => log.id === id)
    .map(({ level, text }) => [level, text]);

test('output carries its call, its level, and comes before the answer', async (t) => {
  const worker = await start(t);
  assert.deepEqual(of(worker, 0), [[0, 'while loading']]);
  const said = worker.begin('say', ['hello\nworld']);
  await worker.end(said);
  assert.deepEqual(of(worker, said), [
    [0, 'hello'],
    [0, 'world'],
  ]);
  assert.equal(worker.frames.at(-1).kind, 'result');
  const levels = worker.begin('levels', []);
  await worker.end(levels);
  assert.deepEqual(of(worker, levels), [
    [0, 'log'],
    [10, 'debug'],
    [20, 'info'],
    [30, 'warn'],
    [40, 'error'],
    [0, 'log again'],
  ]);
  const fails = worker.begin('fails', []);
  await worker.end(fails);
  assert.deepEqual(of(worker, fails), [[0, 'before']]);
  assert.equal(worker.stdout + worker.stderr, '');
});

test('pieces are joined to lines and the rest is sent with the answer', async (t) => {
  const worker = await start(t);
  const id = worker.begin('parts', []);
  await worker.end(id);
  assert.deepEqual(of(worker, id), [
    [0, 'ab'],
    [0, 'c'],
    [1, 'd'],
    [0, 'unfinished'],
  ]);
  assert.equal(worker.frames.at(-1).kind, 'result');
});

test('output after an await still carries its call', async (t) => {
  const worker = await start(t);
  const ids = ['a', 'b', 'c'].map((text) => worker.begin('later', [text]));
  for (const id of ids) await worker.end(id);
  ids.forEach((id, i) =>
    assert.deepEqual(
      of(worker, id),
      [1, 2, 3].map((n) => [0, `${'abc'[i]} ${n}`]),
    ),
  );
  await worker.value('promised', ['found out']);
  const second = worker.begin('promised', ['known']);
  await worker.end(second);
  assert.deepEqual(of(worker, second), [[0, 'known']]);
  const stream = worker.begin('gen', []);
  await worker.end(stream);
  assert.deepEqual(of(worker, stream), [
    [0, 'first'],
    [0, 'second'],
  ]);
});

test('output of no call is logged without one', async (t) => {
  const worker = await start(t);
  assert.equal(await worker.value('background', []), 'ok');
  const log = await worker.frame(({ kind, text }) => kind === 'log' && text === 'in the background');
  assert.deepEqual([log.id, log.channel], [0, 0]);
});

test('long lines are split between characters', async (t) => {
  const worker = await start(t);
  const id = worker.begin('long', []);
  await worker.end(id);
  const lines = worker.of(id, 'log');
  assert.ok(lines.every(({ body }) => body.length <= 64 * 1024));
  const text = lines.map((line) => line.text).join('');
  assert.equal(text, 'é'.repeat(100000) + 'x'.repeat(200000));
});

test('many lines keep their order', async (t) => {
  const worker = await start(t);
  const id = worker.begin('many', [20000]);
  await worker.end(id);
  assert.deepEqual(
    of(worker, id),
    Array.from({ length: 20000 }, (_, i) => [0, `line ${i}`]),
  );
});

test('output leaves before an endless loop', async (t) => {
  const worker = await start(t);
  const quick = worker.begin('say', ['x']);
  const id = worker.begin('stuck', []);
  await worker.frame(({ kind, text }) => kind === 'log' && text === 'last words');
  assert.equal((await worker.end(quick)).kind, 'result');
  assert.equal(worker.of(id, 'result').length, 0);
});

test('native output stays on the pipes', async (t) => {
  const worker = await start(t);
  await worker.call('native', []);
  assert.deepEqual(await worker.value('stream', []), [1, false, true, 'function']);
  await worker.stop();
  assert.deepEqual([worker.stdout, worker.stderr], ['native out\n', 'native err\n']);
});
