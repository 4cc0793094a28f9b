const escaped = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' };

/** A page in HTML: takes the standard Request, answers with a standard Response. */
export async function show(request) {
  const name = new URL(request.url).searchParams.get('name') ?? 'nobody';
  const safe = name.replace(/[&<>"]/g, (character) => escaped[character]);
  return new Response(`<!doctype html><p>Hello, ${safe}.</p>\n`, {
    headers: { 'content-type': 'text/html; charset=utf-8', 'cache-control': 'no-store' },
  });
}
