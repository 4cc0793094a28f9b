'use strict';
// The Node worker of fnmesh: `node worker.cjs 3,4,5 [MODULE]`, with channels at these file descriptors. One that is
// started for no app in particular gets what it confines itself with.
// docs/worker-protocol.md says what it speaks; its parts are in worker/.

const { start } = require('./worker/main.cjs');

start(process.argv[2].split(',').map(Number), process.argv[3]);
