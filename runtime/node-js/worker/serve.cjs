'use strict';
// Frames that belong to calls: `invoke`, `cancel`, `credit`, `ping`.

const { Call } = require('./call.cjs');
const { readU32, unreadable } = require('./channel.cjs');
const { Code, Format, HEADER_BYTES, Kind } = require('./frame.cjs');
const { requestArguments } = require('./http.cjs');
const { InputError } = require('./json.cjs');
const { describe } = require('./failure.cjs');

/** The app's functions; their places are the indices `invoke` uses. */
let targets = [];

/** Makes these functions callable. */
function serve(functions) {
  targets = functions;
}

/** Handles one frame of any channel. */
function receive(channel, bytes, at, end) {
  const id = readU32(bytes, at + 8);
  switch (bytes[at + 4]) {
    case Kind.INVOKE:
      if (channel.cancels !== null && cancelledAhead(channel, id, bytes, at)) break;
      invoke(channel, id, bytes, at, end);
      break;
    case Kind.CANCEL:
      channel.calls.get(id)?.cancel(bytes[at + 6]);
      break;
    case Kind.CREDIT:
      channel.calls.get(id)?.stream?.addCredit(bytes[at + 6] | (bytes[at + 7] << 8));
      break;
    case Kind.PING:
      channel.text(Kind.PONG, Format.NONE, 0, id, '', '');
      break;
    case Kind.PONG:
      break;
    default:
      unreadable(`a frame of kind ${bytes[at + 4]} on this channel`);
  }
}

/** Answers an `invoke` whose `cancel` has come already; one that lies before it was for an earlier call. */
function cancelledAhead(channel, id, bytes, at) {
  const cancelAt = channel.cancels.get(id);
  if (cancelAt === undefined || cancelAt < at) return false;
  new Call(channel, id, undefined, bytes, at).cancel(bytes[cancelAt + 6]);
  return true;
}

function invoke(channel, id, bytes, at, end) {
  const index = bytes[at + 6] | (bytes[at + 7] << 8);
  const bodyAt = at + HEADER_BYTES + readU32(bytes, at + 12);
  if (bodyAt > end) unreadable('an invoke with contradicting lengths');
  const target = targets[index];
  const call = new Call(channel, id, target, bytes, at);
  let args;
  try {
    if (target === undefined) {
      call.sendError(Code.UNKNOWN_FUNCTION, { type: 'UnknownFunction', message: `no function ${index}`, stack: '' });
      return;
    }
    const format = bytes[at + 5];
    args = target.http
      ? requestArguments(call, format, bytes.subarray(bodyAt, end))
      : target.arguments(format, bytes, bodyAt, end);
  } catch (error) {
    if (error instanceof InputError) {
      call.sendError(Code.INVALID_INPUT, { type: 'InvalidInput', message: error.message, stack: '' });
    } else {
      call.sendError(Code.INTERNAL, describe(error));
    }
    return;
  }
  call.run(args);
}

module.exports = { receive, serve };
