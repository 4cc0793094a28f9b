'use strict';
const assert = require('node:assert/strict');
const fs = require('node:fs');
const path = require('node:path');
const { test } = require('node:test');
const { setImmediate: turn } = require('node:timers/promises');
const { Kind, encode, serve } = require('./harness.cjs');

/** `gate` keeps the thread until `open` is called, so that what is sent meanwhile waits in the socket. */
const SOURCE = `
const fs = require('fs');
let runs = 0;
const block = (ms) => { for (const end = Date.now() + ms; Date.now() < end; ); };
exports.gate = () => { while (!fs.existsSync('open')) block(1); };
exports.compute = (ms) => { block(ms); return ++runs; };
exports.computeLater = async (ms) => { block(ms); return ++runs; };
exports.echo = (value) => value;
exports.runs = () => runs;
exports.runsLater = async () => { await null; return runs; };
`;

const open = (worker) => fs.writeFileSync(path.join(worker.directory, 'open'), '');

/** Waits until all that was sent on `channel` lies in the socket. */
const sent = (worker, channel = 1) => new Promise((resolve) => worker.sockets[channel].write('', resolve));

const answers = (worker) => worker.frames.filter(({ kind }) => kind === 'result' || kind === 'error');

for (const name of ['compute', 'computeLater']) {
  test(`${name}: calls cancelled before they begin do not run`, async (t) => {
    const worker = await serve(t, SOURCE);
    const gate = worker.begin('gate', []);
    const ids = Array.from({ length: 20 }, () => worker.begin(name, [5]));
    for (const id of ids.slice(5)) worker.send(Kind.cancel, { id, aux: 1 }, 1);
    const last = worker.begin('runs', []);
    await sent(worker);
    open(worker);
    assert.equal((await worker.end(last)).text, '5');
    for (const id of ids) await worker.end(id);
    assert.deepEqual(
      ids.map((id) => (worker.of(id, 'result').length === 1 ? 'result' : worker.of(id, 'error')[0].aux)),
      ids.map((_, i) => (i < 5 ? 'result' : 1005)),
    );
    assert.match(worker.of(ids[19], 'error')[0].text, /deadline/);
    await worker.value('runs', []);
    assert.equal(answers(worker).length, [gate, ...ids, last].length + 1, 'one answer each');
  });
}

test('a cancel of an earlier call with the same id is not for the next one', async (t) => {
  const worker = await serve(t, SOURCE);
  // One write: what is read after a call that computes must be put off.
  worker.sockets[1].cork();
  worker.begin('compute', [5]);
  worker.send(Kind.cancel, { id: worker.nextId }, 1);
  const id = worker.begin('runs', []);
  worker.sockets[1].uncork();
  assert.equal((await worker.end(id)).text, '1');
});

test('frames in pieces are all answered in order while functions compute', async (t) => {
  const worker = await serve(t, SOURCE);
  const { send } = worker;
  const parts = [];
  worker.send = (kind, fields) => parts.push(encode(kind, fields));
  const expected = new Map([[worker.begin('gate', []), 'null']]);
  let runs = 0;
  for (let i = 0; i < 90; i++) {
    if (i % 3 === 0) expected.set(worker.begin('compute', [3]), `${++runs}`);
    else {
      const text = String.fromCharCode(97 + (i % 26)).repeat(i === 40 ? 300_000 : (i * 7919) % 20_000);
      expected.set(worker.begin('echo', [text]), JSON.stringify(text));
    }
  }
  worker.send = send;
  const bytes = Buffer.concat(parts);
  const sizes = [1, 2, 3, 13, 17, 61, 1009, 4099, 40_009];
  for (let at = 0, i = 0; at < bytes.length; i++) {
    const size = sizes[i % sizes.length];
    worker.sockets[1].write(bytes.subarray(at, (at += size)));
    if (i === 20) open(worker);
    await turn();
  }
  await worker.until(() => answers(worker).length >= expected.size, 'all answers');
  assert.deepEqual(
    answers(worker).map(({ id }) => id),
    [...expected.keys()],
  );
  for (const { id, text } of answers(worker)) assert.ok(text === expected.get(id), `the answer of call ${id}`);
});

test('other channels and promises have their turn between calls that compute', async (t) => {
  const worker = await serve(t, SOURCE, { channels: 3 });
  worker.begin('gate', []);
  const later = worker.begin('runsLater', []);
  const ids = Array.from({ length: 20 }, () => worker.begin('compute', [5]));
  const other = worker.begin('runs', [], { channel: 2 });
  await sent(worker, 1);
  await sent(worker, 2);
  open(worker);
  for (const id of [other, later]) assert.ok(Number((await worker.end(id)).text) < 5);
  assert.equal((await worker.end(ids[19])).text, '20');
});
