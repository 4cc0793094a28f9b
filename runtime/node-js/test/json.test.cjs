'use strict';
const assert = require('node:assert/strict');
const { test } = require('node:test');
const { InputError, parseJson } = require('../worker/json.cjs');
const { explain } = require('../worker/json-error.cjs');
const { toJson } = require('../worker/serialize.cjs');

const LIMIT = 1 << 20;

/** Numbers that look random and are the same on each run (mulberry32). */
function random(seed) {
  return (below) => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % below;
  };
}

function parse(text) {
  const bytes = Buffer.from(text);
  return parseJson(bytes, 0, bytes.length);
}

test('any text is accepted exactly when JSON.parse accepts it, and else the place is right', () => {
  const next = random(1);
  const tokens = [
    '[',
    ']',
    '{',
    '}',
    ',',
    ':',
    '"',
    '"a"',
    '"é\\n"',
    '1',
    '-',
    '0',
    '.5',
    'e3',
    'true',
    'nul',
    ' ',
    '\n',
    '\\',
    '\t',
    '12345678901234567890',
  ];
  for (let round = 0; round < 50_000; round++) {
    const text = Array.from({ length: 1 + next(9) }, () => tokens[next(tokens.length)]).join('');
    let expected;
    try {
      expected = JSON.parse(text);
    } catch {
      assert.throws(() => parse(text), InputError, text);
      const [, line, column] = /line (\d+) column (\d+)$/.exec(explain(text));
      const before = text
        .split('\n')
        .slice(0, line - 1)
        .join('\n');
      const at = before.length + (line > 1 ? 1 : 0) + Number(column) - 1;
      assert.ok(at <= text.length, `${JSON.stringify(text)}: ${explain(text)}`);
      continue;
    }
    const asNumbers = JSON.parse(
      JSON.stringify(parse(text), (_, value) => (typeof value === 'bigint' ? Number(value) : value)),
    );
    assert.deepEqual(asNumbers, JSON.parse(JSON.stringify(expected)), text);
  }
});

test('values survive the way there and back', () => {
  const next = random(2);
  const leaves = [null, true, 0, -1.5, 'x', 'é"\\', 2n ** 70n, -(2n ** 64n), '', 1e300];
  const value = (depth) => {
    const kind = depth > 4 ? 2 : next(4);
    if (kind === 0) return Array.from({ length: next(4) }, () => value(depth + 1));
    if (kind === 1) return Object.fromEntries(Array.from({ length: next(4) }, (_, i) => [`k${i}`, value(depth + 1)]));
    return leaves[next(leaves.length)];
  };
  for (let round = 0; round < 5_000; round++) {
    const sent = value(0);
    assert.deepEqual(parse(toJson(sent, LIMIT)), sent);
  }
});

test('plain values are written as JSON.stringify does', () => {
  for (const value of [
    [],
    {},
    [[{}]],
    { a: undefined, b: [undefined] },
    'é',
    [1.5, -0, 1e21],
    { '': null },
    Object.create(null),
  ]) {
    assert.equal(toJson(value, LIMIT), JSON.stringify(value));
  }
});
