'use strict';
const assert = require('node:assert/strict');
const { test } = require('node:test');
const { BYTES, NONE, TEXT, serve } = require('./harness.cjs');

const SOURCE = `
exports.merge = (a, b) => a + b;
exports.show = (...values) => values.map((value) => typeof value + ':' + String(value));
exports.last = (...values) => typeof values.at(-1) + ':' + values.at(-1);
exports.total = (items, tax = 0, ...more) => ({ items, tax, more });
exports.greet = ({ name, greeting = 'Hi' }) => greeting + ', ' + name;
exports.count = function (a) { return [...arguments].length };
exports.none = () => 'nothing';
exports.keep = (value) => { (exports.kept ??= []).push(value); return exports.kept.map(String) };
exports.kind = (value) => [value?.constructor?.name, String(value)];
exports.unbound = (...values) => values.length;
exports.owner = function () { return Object.keys(this).length > 3 };
`;
const parameters = {
  merge: ['a', 'b'],
  show: ['...values'],
  last: ['...values'],
  total: ['items', 'tax = 0', '...more'],
  greet: ["{ name, greeting = 'Hi' }"],
  count: ['a'],
  none: [],
  keep: ['value'],
  kind: ['value'],
  owner: [],
};
const start = (t) => serve(t, SOURCE, { parameters });

test('arguments reach parameters by position and by name', async (t) => {
  const worker = await start(t);
  assert.equal(await worker.value('merge', ['a', 'b']), 'ab');
  assert.equal(await worker.value('merge', { a: 'a', b: 'b' }), 'ab');
  assert.equal(await worker.value('merge', { b: 'b', a: 'a' }), 'ab');
  assert.equal(await worker.value('merge', { x: 'a', y: 'b' }), 'ab', 'other keys: the values in their order');
  assert.deepEqual(await worker.value('total', { items: 1 }), { items: 1, tax: 0, more: [] });
  assert.deepEqual(await worker.value('total', { tax: 2, items: 1 }), { items: 1, tax: 2, more: [] });
  assert.deepEqual(await worker.value('total', [1, 2, 3, 4]), { items: 1, tax: 2, more: [3, 4] });
  assert.deepEqual(await worker.value('total', 'one'), { items: 'one', tax: 0, more: [] });
  assert.deepEqual(await worker.value('total', null), { items: null, tax: 0, more: [] });
  assert.equal(await worker.value('none'), 'nothing');
  assert.equal(await worker.value('none', undefined, { format: NONE }), 'nothing');
  assert.equal(await worker.value('owner', []), true, 'a method of the exported object has it as this');
});

test('single destructured parameter takes the whole object', async (t) => {
  const worker = await start(t);
  assert.equal(await worker.value('greet', { name: 'Bob' }), 'Hi, Bob');
  assert.equal(await worker.value('greet', [{ name: 'Bob', greeting: 'Ho' }]), 'Ho, Bob');
  assert.equal(await worker.value('greet', {}), 'Hi, undefined');
});

test('missing, unknown and surplus arguments are named with the signature', async (t) => {
  const worker = await start(t);
  const refusals = [
    ['total', {}, "total(items, tax = 0, ...more): missing argument 'items'"],
    ['total', { tax: 1 }, "total(items, tax = 0, ...more): missing argument 'items'"],
    ['merge', undefined, "merge(a, b): missing arguments 'a' and 'b'"],
    ['merge', ['a'], "merge(a, b): missing argument 'b'"],
    ['merge', { b: 1 }, "merge(a, b): missing argument 'a'"],
    ['merge', ['a', 'b', 'c'], 'merge(a, b): takes 2 arguments, got 3'],
    ['merge', { a: 1, b: 2, c: 3 }, "merge(a, b): unknown argument 'c'"],
    ['none', [1], 'none(): takes 0 arguments, got 1'],
    ['greet', [], "greet({ name, greeting = 'Hi' }): missing argument '{ name, greeting = 'Hi' }'"],
  ];
  for (const [name, args, message] of refusals) {
    assert.deepEqual(await worker.failure(name, args), { code: 1002, type: 'InvalidInput', message, stack: '' });
  }
});

test('functions that read arguments themselves take any number', async (t) => {
  const worker = await start(t);
  assert.equal(await worker.value('count', []), 0);
  assert.equal(await worker.value('count', [1, 2, 3]), 3);
  assert.equal(await worker.value('unbound', [1, 2]), 2, 'unreadable source: positions only');
  assert.equal(await worker.value('unbound', { a: 1, b: 2 }), 2);
});

test('bytes arrive as a Buffer of their own and text as a string', async (t) => {
  const worker = await start(t);
  assert.deepEqual(await worker.value('kind', Buffer.from('raw'), { format: BYTES }), ['Buffer', 'raw']);
  assert.deepEqual(await worker.value('kind', 'ü𝄞', { format: TEXT }), ['String', 'ü𝄞']);
  await worker.value('keep', Buffer.from('first'), { format: BYTES });
  assert.deepEqual(await worker.value('keep', Buffer.from('other'), { format: BYTES }), ['first', 'other']);
  const { code, message } = await worker.failure('kind', Buffer.from([0x61, 0xff]), { format: TEXT });
  assert.deepEqual([code, message], [1002, 'not UTF-8 at byte 1']);
});

test('JSON integers stay exact', async (t) => {
  const worker = await start(t);
  const body =
    '[9007199254740991, 9007199254740993, -12345678901234567890, 1e30, 0.12345678901234567, "1234567890123456789"]';
  assert.deepEqual(await worker.value('show', null, { body }), [
    'number:9007199254740991',
    'bigint:9007199254740993',
    'bigint:-12345678901234567890',
    'number:1e+30',
    'number:0.12345678901234566',
    'string:1234567890123456789',
  ]);
  const large = `["${'x\\n'.repeat(1_000_000)}1234567890123456789", 1234567890123456789]`;
  assert.equal(await worker.value('last', null, { body: large }), 'bigint:1234567890123456789');
  const nested = '[{"a":[{"__proto__":12345678901234567890,"#":"#12345678901234567890"}]}]';
  assert.equal(
    (await worker.call('total', null, { body: nested })).text,
    `{"items":${nested.slice(1, -1)},"tax":0,"more":[]}`,
  );
});

test('strict JSON is refused with the place of the error', async (t) => {
  const worker = await start(t);
  const refusals = [
    ['{"a":1,\n"b":}', 'unexpected "}" at line 2 column 5'],
    ['[1,]', 'unexpected "]" at line 1 column 4'],
    ['[NaN]', 'unexpected "N" at line 1 column 2'],
    ['[01]', 'unexpected "1" at line 1 column 3'],
    ["{'a':1}", 'unexpected "\'" at line 1 column 2'],
    ['{"a" 1}', 'unexpected "1" at line 1 column 6'],
    ['{"a":1,}', 'unexpected "}" at line 1 column 8'],
    ['["a', 'unexpected end at line 1 column 4'],
    ['[1', 'unexpected end at line 1 column 3'],
    [' ', 'unexpected end at line 1 column 2'],
    ['[1] 2', 'unexpected "2" at line 1 column 5'],
    ['\ufeff[1]', 'unexpected "\ufeff" at line 1 column 1'],
    ['["a\t"]', 'unexpected "\\t" at line 1 column 4'],
    ['["\\x"]', 'unexpected "\\\\" at line 1 column 3'],
    ['[1}', 'unexpected "}" at line 1 column 3'],
  ];
  for (const [body, place] of refusals) {
    const { code, message } = await worker.failure('show', null, { body });
    assert.deepEqual([code, message], [1002, `invalid JSON: ${place}`], body);
  }
  const far = await worker.failure('show', null, { body: `["${'x\\n'.repeat(1_000_000)}", }` });
  assert.equal(far.message, 'invalid JSON: unexpected "}" at line 1 column 3000006');
  const { message } = await worker.failure('show', null, { body: Buffer.from([0x22, 0xc3, 0x28, 0x22]) });
  assert.equal(message, 'not UTF-8 at byte 1');
  const long = Buffer.concat([Buffer.from(`["${'x'.repeat(100)}`), Buffer.from([0xed, 0xa0, 0x80]), Buffer.from('"]')]);
  assert.equal((await worker.failure('show', null, { body: long })).message, 'not UTF-8 at byte 102');
});

test('nesting is limited to 128 levels', async (t) => {
  const worker = await start(t);
  const nested = (levels) => '['.repeat(levels) + ']'.repeat(levels);
  assert.equal((await worker.call('unbound', null, { body: nested(128) })).kind, 'result');
  assert.equal((await worker.call('unbound', null, { body: JSON.stringify(['[{'.repeat(200)]) })).kind, 'result');
  assert.equal((await worker.call('unbound', null, { body: `[${'[],'.repeat(200)}[]]` })).kind, 'result');
  for (const body of [nested(129), '['.repeat(100_000), '{"a":'.repeat(100_000), nested(100_000)]) {
    const { code, message } = await worker.failure('unbound', null, { body });
    assert.equal(code, 1002);
    assert.match(message, /nested deeper than 128 levels at line 1 column \d+/);
  }
  assert.equal(await worker.value('merge', ['still', ' here']), 'still here');
});

test('dangerous keys are plain members', async (t) => {
  const worker = await start(t);
  const body = '[{"__proto__":{"polluted":1},"constructor":2}]';
  assert.equal(
    (await worker.call('total', null, { body })).text,
    '{"items":{"__proto__":{"polluted":1},"constructor":2},"tax":0,"more":[]}',
  );
  assert.deepEqual(await worker.value('show', null, { body: '{"__proto__":1}' }), ['number:1']);
});

test('unknown function index is refused', async (t) => {
  const worker = await start(t);
  assert.equal((await worker.failure('no such function', [])).code, 1001);
});

test('frames split and joined at any byte are read', async (t) => {
  const worker = await start(t);
  const { encode, Kind, JSON_FORMAT } = require('./harness.cjs');
  const aux = worker.functions.findIndex(({ name }) => name === 'merge');
  const big = 'x'.repeat(300_000);
  const frames = [
    ['a', 'b'],
    [big, 'c'],
    ['d', 'e'],
  ].map((args, i) =>
    encode(Kind.invoke, { format: JSON_FORMAT, aux, id: 1000 + i, meta: Buffer.alloc(20), body: JSON.stringify(args) }),
  );
  const bytes = Buffer.concat(frames);
  const cuts = [1, 2, 3, 4, 15, 16, 17, 40, frames[0].length + 2, frames[0].length + 70_000, bytes.length - 1];
  let at = 0;
  for (const cut of [...cuts.sort((a, b) => a - b), bytes.length]) {
    await new Promise((resolve) => worker.sockets[1].write(bytes.subarray(at, cut), resolve));
    await new Promise(setImmediate);
    at = cut;
  }
  assert.equal((await worker.end(1000)).text, '"ab"');
  assert.equal((await worker.end(1001)).text, `"${big}c"`);
  assert.equal((await worker.end(1002)).text, '"de"');
});
