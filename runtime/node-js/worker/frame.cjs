'use strict';
// The wire between node and worker, version 1: docs/worker-protocol.md.

const Kind = Object.freeze({
  LOAD: 1,
  READY: 2,
  INVOKE: 3,
  RESULT: 4,
  ERROR: 5,
  CHUNK: 6,
  CANCEL: 7,
  CREDIT: 8,
  LOG: 9,
  PING: 10,
  PONG: 11,
  STOP: 12,
  BIND: 13,
  ENTER: 16,
});

const Format = Object.freeze({ JSON: 0, BYTES: 1, TEXT: 2, NONE: 3 });

const Code = Object.freeze({
  UNKNOWN_FUNCTION: 1001,
  INVALID_INPUT: 1002,
  FUNCTION_FAILED: 1003,
  CANCELLED: 1005,
  LOAD_FAILED: 1006,
  /** -32603 on the outside. */
  INTERNAL: 32933,
});

module.exports = {
  Kind,
  Format,
  Code,
  HEADER_BYTES: 16,
  /** Invocation id and budget, before the JSON part of an `invoke`'s meta. */
  INVOKE_META_BYTES: 20,
  INITIAL_CREDIT: 16,
  MAX_LOG_BYTES: 64 * 1024,
  /** The node limits bodies far below; V8 cannot hold a longer string. */
  MAX_FRAME_BYTES: 512 * 1024 * 1024,
};
