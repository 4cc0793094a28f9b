'use strict';
// The Node worker of fnmesh: `node worker.cjs N`, with channels at file descriptors 3 .. 3+N.
// docs/worker-protocol.md says what it speaks; its parts are in worker/.

const { start } = require('./worker/main.cjs');

start(Number(process.argv[2]));
