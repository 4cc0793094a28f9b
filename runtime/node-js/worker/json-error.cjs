'use strict';
// Says where a text stops being JSON. `JSON.parse` tells it in other words in each version of Node, or not at all.

const SPACE = /[ \t\n\r]*/y;
const SCALAR = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null/y;
const ESCAPE = /\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})/y;

/** What is wrong with `text`, and where, for a text that `JSON.parse` refused. */
function explain(text) {
  const at = new Scanner(text).firstError();
  if (at >= text.length) return `unexpected end at ${place(text, text.length)}`;
  return `unexpected ${JSON.stringify(String.fromCodePoint(text.codePointAt(at)))} at ${place(text, at)}`;
}

/** `line 1 column 2`, both from 1. */
function place(text, at) {
  const before = text.slice(0, at);
  const line = before.split('\n').length;
  return `line ${line} column ${at - before.lastIndexOf('\n')}`;
}

/** Reads JSON without recursion: the ends that are still to come are a stack. */
class Scanner {
  constructor(text) {
    this.text = text;
    this.at = 0;
    this.ends = [];
  }

  firstError() {
    while (this.value() && this.afterValue());
    return this.at;
  }

  /** Takes a scalar, or an opening bracket up to where its first value is due; false at an error. */
  value() {
    for (;;) {
      this.take(SPACE);
      if (this.takeChar('[')) {
        this.ends.push(']');
        this.take(SPACE);
        if (this.text[this.at] === ']') return true;
      } else if (this.takeChar('{')) {
        this.ends.push('}');
        this.take(SPACE);
        if (this.text[this.at] === '}') return true;
        if (!this.name()) return false;
      } else {
        return this.text[this.at] === '"' ? this.string() : this.take(SCALAR);
      }
    }
  }

  /** Takes closing brackets and a comma up to where the next value is due; false at an error or the end. */
  afterValue() {
    for (;;) {
      this.take(SPACE);
      const end = this.ends.at(-1);
      if (end !== undefined && this.takeChar(end)) {
        this.ends.pop();
      } else if (end !== undefined && this.takeChar(',')) {
        this.take(SPACE);
        return end === ']' || this.name();
      } else {
        return false;
      }
    }
  }

  name() {
    return this.string() && this.take(SPACE) && this.takeChar(':');
  }

  string() {
    if (!this.takeChar('"')) return false;
    for (;;) {
      const unit = this.text.charCodeAt(this.at);
      if (unit === 0x5c) {
        if (!this.take(ESCAPE)) return false;
      } else if (unit === 0x22) {
        this.at++;
        return true;
      } else if (unit >= 0x20) {
        this.at++;
      } else {
        // A control character, or NaN past the end.
        return false;
      }
    }
  }

  take(pattern) {
    pattern.lastIndex = this.at;
    const matched = pattern.test(this.text);
    if (matched) this.at = pattern.lastIndex;
    return matched;
  }

  takeChar(char) {
    const matched = this.text[this.at] === char;
    if (matched) this.at++;
    return matched;
  }
}

module.exports = { explain, place };
