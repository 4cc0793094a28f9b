'use strict';

const { setTimeout: sleep } = require('node:timers/promises');

/** The words of a text, a line each, one each so many milliseconds. */
exports.words = async function* (text, milliseconds = 0) {
  for (const word of text.split(' ')) {
    await sleep(milliseconds);
    yield `${word}\n`;
  }
};
