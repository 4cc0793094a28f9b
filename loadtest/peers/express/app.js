const express = require('express');

const app = express();
app.use(express.json());
app.post('/', (request, response) => {
  const [a, b] = request.body;
  response.json(a + b);
});

module.exports = app;
