const functions = require('@google-cloud/functions-framework');

functions.http('merge', (request, response) => {
  const [a, b] = request.body;
  response.json(a + b);
});
