// A Worker that only answers 429: the floor for refusals.
const problem = JSON.stringify({ title: "Too many requests", status: 429, code: "rate_limited" });

export default {
  fetch() {
    return new Response(problem, {
      status: 429,
      headers: { "content-type": "application/problem+json", "cache-control": "no-store", "retry-after": "1" },
    });
  },
};
