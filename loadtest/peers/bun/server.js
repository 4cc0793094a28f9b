Bun.serve({
  hostname: '127.0.0.1',
  port: Number(process.env.PORT),
  async fetch(request) {
    const [a, b] = await request.json();
    return Response.json(a + b);
  },
});
