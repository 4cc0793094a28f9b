export default {
  async fetch(request) {
    const [a, b] = await request.json();
    return Response.json(a + b);
  },
};
