'use strict';
// The Node worker of fnmesh: `node worker.cjs 3,4,5`, with channels at these file descriptors.
// docs/worker-protocol.md says what it speaks; its parts are in worker/.

const { start } = require('./worker/main.cjs');

start(process.argv[2].split(',').map(Number));
