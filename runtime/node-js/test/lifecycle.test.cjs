'use strict';
const assert = require('node:assert/strict');
const os = require('node:os');
const { test } = require('node:test');
const { JSON_FORMAT, Kind, NONE, encode, serve, spawnWorker } = require('./harness.cjs');

const HOOKS = (name) => `
exports.__metacall_initialize__ = async () => { await null; console.log('${name} up') };
exports.__metacall_finalize__ = async () => { await null; console.log('${name} down'); ${name === 'b' ? "throw new Error('finalize failed')" : ''} };
exports.${name} = () => '${name}';
setInterval(() => {}, 1000);
`;

test('ready describes the functions', async (t) => {
  const source = `
    exports.plain = function (a, b = 2) { return a };
    exports.later = async () => {};
    exports.items = function* () {};
    exports.laterItems = async function* () {};
    exports.page = () => {};
    exports.Class = class {};
    exports.number = 1;
    exports.bound = exports.plain.bind(null);`;
  const worker = await spawnWorker(t, { 'app.js': source });
  const settings = { page: { http: true }, unknown: {} };
  const ready = await worker.load([{ name: 'app', file: 'app.js', settings }]);
  const { language, version, functions } = JSON.parse(ready.text);
  assert.deepEqual(
    [ready.kind, ready.format, language, version],
    ['ready', JSON_FORMAT, 'node', process.versions.node],
  );
  assert.deepEqual(functions[0], {
    module: 'app',
    file: 'app.js',
    name: 'plain',
    async: false,
    generator: false,
    http: false,
    source: 'function (a, b = 2) { return a }',
  });
  assert.deepEqual(
    functions.map(({ name, async, generator, http }) => [name, async, generator, http]),
    [
      ['plain', false, false, false],
      ['later', true, false, false],
      ['items', false, true, false],
      ['laterItems', true, true, false],
      ['page', false, false, true],
      ['bound', false, false, false],
    ],
  );
});

test('entered before the app is loaded', async (t) => {
  const worker = await spawnWorker(t, { 'app.js': 'exports.f = () => [process.cwd(), process.env.WORD]' });
  const environment = [['WORD', 'pssst']];
  worker.send(Kind.enter, {
    format: JSON_FORMAT,
    body: JSON.stringify({ directory: os.tmpdir(), environment, rules: null }),
  });
  await worker.load([{ name: 'app', file: 'app.js' }]);
  worker.bind({ f: [] });
  assert.deepEqual(await worker.value('f', []), [os.tmpdir(), 'pssst']);
});

test('runs nothing of an app whose rules it cannot enter', async (t) => {
  const worker = await spawnWorker(t, { 'app.js': "console.log('loaded')" });
  worker.send(Kind.enter, {
    format: JSON_FORMAT,
    body: JSON.stringify({ directory: os.tmpdir(), environment: [], rules: 99 }),
  });
  worker.load([{ name: 'app', file: 'app.js' }]).catch(() => {});
  assert.equal(await worker.exited, 1);
  assert.ok(!worker.frames.some(({ kind, text }) => kind === 'ready' || text.includes('loaded')));
});

test('calls wait for bind', async (t) => {
  const worker = await spawnWorker(t, { 'app.js': 'exports.f = (a) => a' });
  await worker.load([{ name: 'app', file: 'app.js' }]);
  const id = worker.begin('f', []);
  worker.send(Kind.ping, { id: 5 });
  await worker.frame(({ kind, id }) => kind === 'pong' && id === 5);
  assert.equal(worker.of(id, 'result').length, 0);
  worker.bind({ f: ['a'] });
  assert.match((await worker.end(id)).text, /missing argument 'a'/);
});

test('an app without functions needs no bind', async (t) => {
  const worker = await spawnWorker(t, { 'app.js': '' });
  assert.deepEqual(JSON.parse((await worker.load([{ name: 'app', file: 'app.js' }])).text).functions, []);
  worker.send(Kind.ping, { id: 6 }, 1);
  await worker.frame(({ kind, id, channel }) => kind === 'pong' && id === 6 && channel === 1);
});

test('hooks run once around the life of the worker', async (t) => {
  const worker = await spawnWorker(t, { 'a.js': HOOKS('a'), 'b.js': HOOKS('b') });
  await worker.load([
    { name: 'a', file: 'a.js' },
    { name: 'b', file: 'b.js' },
  ]);
  assert.deepEqual(
    worker.functions.map(({ name }) => name),
    ['a', 'b'],
  );
  assert.deepEqual(
    worker.frames.map(({ kind }) => kind),
    ['log', 'log', 'ready'],
  );
  worker.bind({});
  assert.equal(await worker.value('b', []), 'b');
  assert.equal(await worker.stop(), 0, 'timers do not keep it');
  const logs = worker.logs().map(({ level, text }) => [level, text]);
  assert.deepEqual(logs.slice(0, 3), [
    [0, 'a up'],
    [0, 'b up'],
    [0, 'b down'],
  ]);
  assert.deepEqual(logs[3], [40, 'Error: finalize failed']);
  assert.deepEqual(logs.at(-1), [0, 'a down']);
});

test('calls on every channel, and on the control channel, are answered where they came from', async (t) => {
  const worker = await serve(t, 'exports.f = (a) => a; exports.g = async (a) => a', { channels: 4 });
  for (const channel of [0, 1, 2, 3]) {
    for (const name of ['f', 'g']) assert.equal((await worker.call(name, [channel], { channel })).channel, channel);
    worker.send(Kind.ping, { id: 70 + channel }, channel);
    await worker.frame((frame) => frame.kind === 'pong' && frame.id === 70 + channel && frame.channel === channel);
  }
});

test('the end of the node ends the worker', async (t) => {
  const worker = await serve(
    t,
    'setInterval(() => {}, 1000); exports.f = () => 1; process.on("exit", () => console.log("x"))',
  );
  worker.sockets[0].end();
  assert.equal(await worker.exit(), 0);
});

test('the end of a call channel leaves the others alone', async (t) => {
  const worker = await serve(t, 'exports.f = () => 1', { channels: 3 });
  const closed = new Promise((resolve) => worker.sockets[1].once('close', resolve));
  worker.sockets[1].end();
  await closed;
  assert.equal(await worker.value('f', [], { channel: 2 }), 1);
});

test('an unreadable frame ends the worker with 70', async (t) => {
  const short = Buffer.from([11, 0, 0, 0]);
  const huge = Buffer.from([255, 255, 255, 255]);
  const unknown = encode(99);
  const contradicting = encode(Kind.invoke, { format: NONE });
  contradicting.writeUInt32LE(1000, 12);
  for (const bytes of [short, huge, unknown, contradicting]) {
    const worker = await serve(t, 'exports.f = () => 1');
    worker.sockets[1].write(bytes);
    assert.equal(await worker.exit(), 70);
    assert.match(worker.stderr, /^fnmesh worker: cannot read /);
  }
});

test('child processes do not inherit the channels', async (t) => {
  const source = `exports.list = () => require('child_process').execFileSync('ls', ['-l', '/proc/self/fd']).toString()`;
  const worker = await serve(t, source, { channels: 20 });
  const inherited = (await worker.value('list', []))
    .split('\n')
    .filter((line) => / ([3-9]|1\d|2[0-3]) -> socket/.test(line));
  assert.deepEqual(inherited, []);
});

test('user code sees no trace of the worker', async (t) => {
  const source = `exports.f = () => ({ main: require.main === module, argv: process.argv.length, cwd: process.cwd(), dir: __dirname })`;
  const worker = await serve(t, source);
  const { directory } = worker;
  assert.deepEqual(await worker.value('f', []), { main: false, argv: 1, cwd: directory, dir: directory });
});
