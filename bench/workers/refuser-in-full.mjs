// A Worker that answers every request with all that the contract wants of a refusal, and writes its log line: what
// of a refusal's time is the answer's own. It knows no keys and counts nothing.
let count = 0;

export default {
  fetch(request) {
    const id = `req_${(++count).toString(36).padStart(12, "0")}`;
    const problem = {
      type: "https://tollgate.dev/problems/rate_limited",
      title: "Too many requests",
      status: 429,
      code: "rate_limited",
      detail: "at most 1 request in 60 seconds; try again in 33 seconds",
      request_id: id,
      retry_after_seconds: 33,
      violated_policies: [{ policy: "minute", limit: 1 }],
    };
    const headers = {
      "X-Request-Id": id,
      "X-RateLimit-Limit": "1",
      "X-RateLimit-Remaining": "0",
      "X-RateLimit-Limit-Daily": "100000000",
      "X-RateLimit-Remaining-Daily": "99999999",
      "X-Credits-Remaining": "1000000",
      "X-Credits-Charged": "0",
      "RateLimit-Policy": '"minute";q=1;w=60, "daily";q=100000000;w=86400',
      RateLimit: '"minute";r=0;t=33, "daily";r=99999999;t=43200',
      "Content-Type": "application/problem+json",
      "Cache-Control": "no-store",
      "Retry-After": "33",
    };
    const { method } = request;
    console.log(JSON.stringify({ request_id: id, account: "flood", key: "key_flood_1", method, route: "/tracks/{id}", code: "rate_limited", status: 429, ms: 0, rows: 0 }));
    return new Response(JSON.stringify(problem), { status: 429, headers });
  },
};
