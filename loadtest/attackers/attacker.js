'use strict';
// Does its worst. Each function ends by itself or at its deadline.

const fs = require('node:fs');

exports.memory = () => {
  const held = [];
  while (held.length < 4096) held.push(Buffer.alloc(1 << 20, 1));
};

exports.objects = () => {
  const held = [];
  while (held.length < 1e9) held.push({ held: [held.length] });
};

exports.print_flood = (mebibytes) => {
  for (let i = 0; i < mebibytes; i++) process.stdout.write('x'.repeat(1 << 20));
};

exports.pipe_flood = (mebibytes) => {
  for (let i = 0; i < 16 * mebibytes; i++) fs.writeSync(1, Buffer.alloc(1 << 16, 120));
};

exports.huge = () => 'x'.repeat(70 << 20);

exports.deep = () => {
  let nested = [];
  for (let i = 0; i < 100000; i++) nested = [nested];
  return nested;
};

exports.spin = () => {
  for (;;);
};

exports.match = () => /^(a+)+$/.test('a'.repeat(64) + 'b');

exports.reject = () => {
  setTimeout(() => Promise.reject(new Error('nobody waits for this')), 1);
};

exports.exit = () => {
  setTimeout(() => process.exit(3), 1);
};

exports.ok = () => null;
