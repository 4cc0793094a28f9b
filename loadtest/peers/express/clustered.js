const cluster = require('node:cluster');

if (cluster.isPrimary) {
  for (let worker = 0; worker < Number(process.env.WORKERS); worker += 1) cluster.fork();
} else {
  require('./app').listen(Number(process.env.PORT), '127.0.0.1');
}
