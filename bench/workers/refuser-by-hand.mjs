// A Worker that refuses as Tollgate does, written by hand in JavaScript: it finds the route, verifies the key's MAC,
// knows who was refused a moment ago, and answers and logs as the contract wants. It forwards nothing, and leaves out the
// canonical path, the loop's signature and the count of repeated refusals.
import { keyOf, newKey, secrets as known, secretsOf } from "./keys.mjs";

const BASE = "/api/external/v1";
const ROUTES = [
  { method: "POST", pattern: /^\/search$/, template: "/search" },
  { method: "GET", pattern: /^\/tracks\/[^/]+$/, template: "/tracks/{id}" },
];
const OWN_CORS = { "Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": "*" };

// Until when a key may not call, by its id.
const refused = new Map();
let count = 0;

export default {
  async fetch(request, env) {
    const started = Date.now();
    const secrets = known ?? (await secretsOf(env));
    const url = new URL(request.url);
    if (url.pathname === "/open") return open(url, secrets);
    const { method, headers } = request;
    const line = { request_id: `req_${(++count).toString(16).padStart(14, "0")}`, method };
    if (headers.get("X-Tollgate-Signature") !== null) return refuse(508, "loop", "Loop", "it came back", {}, {}, headers, line, started);
    const path = url.pathname.startsWith(BASE) ? url.pathname.slice(BASE.length) : "";
    const route = ROUTES.find((route) => route.method === method && route.pattern.test(path));
    if (route === undefined) return refuse(404, "no_route", "No route", "there is nothing here", {}, {}, headers, line, started);
    const key = await keyOf(headers.get("Authorization") ?? headers.get("X-API-Key"), secrets);
    if (key === null) {
      const detail = "this key is not one of this gateway's";
      return refuse(401, "invalid_key", "API key not valid", detail, {}, { "WWW-Authenticate": "Bearer" }, headers, line, started);
    }
    line.account = key.account;
    line.key = `key_${key.account}_${key.number}`;
    line.route = route.template;
    const wait = Math.ceil(((refused.get(line.key) ?? 0) - started) / 1000);
    if (wait <= 0) return refuse(404, "no_route", "No route", "nothing is forwarded", {}, {}, headers, line, started);
    const detail = `1 request in any 60 seconds is allowed; try again in ${wait} s`;
    const standing = {
      "X-RateLimit-Limit": "1",
      "X-RateLimit-Remaining": "0",
      "X-Credits-Remaining": "0",
      "X-Credits-Charged": "0",
      "RateLimit-Policy": '"minute";q=1;w=60',
      RateLimit: `"minute";r=0;t=${wait}`,
      "Retry-After": `${wait}`,
    };
    return refuse(429, "rate_limited", "Quota exceeded", detail, { "violated-policies": ["minute"] }, standing, headers, line, started);
  },
};

function refuse(status, code, title, detail, members, told, asked, line, started) {
  const { request_id } = line;
  const problem = { type: `urn:tollgate:problem:${code}`, title, status, code, detail, ...members, request_id };
  const headers = {
    "X-Request-Id": request_id,
    "Content-Type": "application/problem+json",
    "Cache-Control": "no-store",
    ...told,
    ...(asked.has("Origin") && OWN_CORS),
  };
  console.log(JSON.stringify({ ...line, code, status, ms: Date.now() - started, rows: 0 }));
  return new Response(JSON.stringify(problem), { status, headers });
}

// For the bench: makes a key of an account that was just refused for an hour, and shows it.
async function open(url, secrets) {
  const account = url.searchParams.get("account");
  refused.set(`key_${account}_1`, Date.now() + 3_600_000);
  const { shown } = await newKey(account, secrets);
  return new Response(shown);
}
