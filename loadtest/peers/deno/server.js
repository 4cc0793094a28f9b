Deno.serve({ hostname: '127.0.0.1', port: Number(Deno.env.get('PORT')), onListen() {} }, async (request) => {
  const [a, b] = await request.json();
  return Response.json(a + b);
});
