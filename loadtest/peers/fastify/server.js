const fastify = require('fastify')();

fastify.post('/', {
  schema: {
    body: { type: 'array', items: { type: 'string' }, minItems: 2, maxItems: 2 },
    response: { 200: { type: 'string' } },
  },
  handler: async (request, reply) => {
    const [a, b] = request.body;
    reply.type('application/json');
    return JSON.stringify(a + b);
  },
});

fastify.listen({ port: Number(process.env.PORT), host: '127.0.0.1' });
