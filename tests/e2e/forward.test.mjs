// What reaches the origin, and what of its answer reaches the caller.
import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { once } from "node:events";
import http from "node:http";
import net from "node:net";
import test from "node:test";
import { brotliCompressSync, gzipSync } from "node:zlib";
import { WebSocket, WebSocketServer } from "ws";
import { openAccount } from "./harness/account.mjs";
import { secrets, startGateway } from "./harness/gateway.mjs";
import { answer, startOrigin } from "./harness/origin.mjs";

const policy = (origins, gateway = "") => `
[gateway]
base_path = "/v1"
key_prefix = "tk_live"
${gateway}
[origins]
${Object.entries(origins)
  .map(([host, origin]) => `"${host}" = "${origin}"`)
  .join("\n")}
[pools.credits]
[plans.free]
grants = [{ pool = "credits", amount = 1000, renews = "never" }]
[[routes]]
match = "GET /rest/*"
cost = 1
[[routes]]
match = "POST /rest/*"
cost = 1
[[routes]]
match = "PUT /rest/*"
cost = 1
[[routes]]
match = "DELETE /rest/*"
cost = 1
[[routes]]
match = "PATCH /rest/*"
cost = 1
[[routes]]
match = "POST /priced"
charge = { rate = 2, unit = 1, from = "body.minutes", maximum = 100 }
[[routes]]
match = "POST /timed"
charge = { rate = 1, unit = 1, from = "header.x-seconds", maximum = 100 }
[[routes]]
match = "GET /socket"
cost = 3
upgrade = true
[[routes]]
match = "POST /socket"
cost = 1
upgrade = true
[[routes]]
match = "GET /cached"
cost = 1
cache = true
[[routes]]
match = "POST /hooks/*"
public = true
root = true
[[routes]]
match = "GET /elsewhere"
cost = 1
root = true
`;

const origin = await startOrigin(test);
const otherOrigin = await startOrigin(test);
const sockets = await startSocketOrigin(test);
const fromService = [];
const gateway = await startGateway(test, {
  policy: policy({
    default: origin.url,
    "other.example.com": otherOrigin.url,
    "sockets.example.com": sockets.url,
    "service.example.com": "service:MUSIC",
    "unbound.example.com": "service:MISSING",
  }),
  more: {
    serviceBindings: {
      async MUSIC(request) {
        fromService.push({ url: request.url, headers: Object.fromEntries(request.headers), cf: request.cf });
        return new Response(`served ${await request.text()}`, { status: 201, headers: { "x-from": "service" } });
      },
    },
  },
});
const { key, keyId, id, balance } = await openAccount(gateway, { external_id: "cus_77" });

// What the origin received for this one request, and the caller's answer.
async function forwarded(method, path, options, as = key) {
  const at = origin.requests.length;
  const answered = as ? await gateway.call(as, method, path, options) : await gateway.send(method, path, options);
  return { answered, received: await origin.request(at) };
}

function signatureOf({ method, path, headers }) {
  const [, t, v1] = /^t=(\d+),v1=([0-9a-f]{64})$/.exec(headers["x-tollgate-signature"]);
  const [pathOnly, query = ""] = path.split(/\?(.*)/s);
  const of = (name) => headers[`x-tollgate-${name}`] ?? "";
  const lines = [
    t,
    method,
    pathOnly,
    query,
    of("call"),
    of("account"),
    of("key"),
    of("plan"),
    of("external-id"),
  ];
  const expected = createHmac("sha256", secrets.ORIGIN_SECRET).update(lines.join("\n")).digest("hex");
  return { t: Number(t), v1, expected };
}

test("method, query and body reach the origin as they came, for each method", async () => {
  for (const [method, body] of [
    ["GET", ""],
    ["POST", "a=1&b=2"],
    ["PUT", Buffer.from([0, 255, 128, 10, 13])],
    ["PATCH", '{"a":  1}'],
    ["DELETE", ""],
  ]) {
    const query = "?q=%20a+b&Q=%zz&&empty=&#x".replace("#x", "e=%C3%A9");
    const headers = { "content-type": "application/x-thing; a=b", accept: "text/x;q=0.1" };
    const { answered, received } = await forwarded(method, `/v1/rest/x${query}`, { body, headers });
    assert.equal(answered.status, 200);
    assert.equal(received.method, method);
    assert.equal(received.path, `/v1/rest/x${query}`);
    assert.deepEqual(await received.body, Buffer.from(body));
    assert.equal(received.headers["content-type"], headers["content-type"]);
    assert.equal(received.headers.accept, headers.accept);
  }
});

test("an empty query stays a query, and none stays none", async () => {
  assert.equal((await forwarded("GET", "/v1/rest/x?")).received.path, "/v1/rest/x?");
  assert.equal((await forwarded("GET", "/v1/rest/x")).received.path, "/v1/rest/x");
});

test("the origin receives the canonical spelling of a path", async () => {
  for (const [sent, received] of [
    ["/v1/rest/%61bc", "/v1/rest/abc"],
    ["/v1/rest/caf%c3%a9", "/v1/rest/caf%C3%A9"],
    ["/v1/%72est/a%20b", "/v1/rest/a%20b"],
  ]) {
    assert.equal((await forwarded("GET", sent)).received.path, received, sent);
  }
});

test("a GET with a body keeps it", async () => {
  const { received } = await forwarded("GET", "/v1/rest/x", { body: "query", headers: { "content-length": "5" } });
  assert.equal(String(await received.body), "query");
});

test("a body that was read for its price reaches the origin byte for byte", async () => {
  const body = '{ "minutes" : 3, "text": "é\\u00e9" }';
  const headers = { "content-type": "application/json" };
  const { answered, received } = await forwarded("POST", "/v1/priced", { body, headers });
  assert.equal(answered.headers["x-credits-charged"], "6");
  assert.equal(String(await received.body), body);
  assert.equal(received.headers["x-tollgate-held"], "6");
  assert.equal(received.headers["content-type"], "application/json");
});

test("a header that sets a price has one spelling and one value", async () => {
  assert.equal((await gateway.call(key, "POST", "/v1/timed", { headers: { "x-seconds": "7" } })).headers["x-credits-charged"], "7");
  const received = origin.requests.length;
  for (const headers of [
    { "x-seconds": "7", x_seconds: "70" },
    { x_seconds: "7" },
    { "x-seconds": ["7", "70"] },
    {},
  ]) {
    const answered = await gateway.call(key, "POST", "/v1/timed", { headers });
    assert.deepEqual([answered.status, answered.json().code], [400, "bad_request"], JSON.stringify(headers));
  }
  assert.equal(origin.requests.length, received);
});

test("what a client claims in the gateway's name is dropped, in every spelling", async () => {
  const claims = {
    "X-Tollgate-Account": "rich",
    X_Tollgate_Account: "rich",
    "X-Tollgate-Held": "1000000",
    "X-Tollgate-External-Id": "cus_1",
    "X-Tollgate-Signature": "t=1,v1=00",
    "X-Tollgate-Anything": "x",
    Forwarded: "for=203.0.113.9",
    "X-Forwarded-For": "203.0.113.9",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Port": "1",
    X_Forwarded_For: "203.0.113.9",
    "X-HTTP-Method-Override": "DELETE",
    "X-HTTP-Method": "DELETE",
    "X-Method-Override": "DELETE",
    "X-Original-URL": "/admin",
    "X-Rewrite-URL": "/admin",
    Connection: "close, X-Private , content-language",
    "X-Private": "1",
    "Content-Language": "de",
    "Keep-Alive": "timeout=5",
    TE: "trailers",
    "Proxy-Authorization": "Basic eA==",
    "Proxy-Connection": "close",
  };
  for (const as of [key, null]) {
    const path = as ? "/v1/rest/x" : "/hooks/x";
    const { received } = await forwarded("POST", path, { headers: claims, body: "x" }, as);
    const kept = Object.keys(claims).filter((name) => {
      const value = received.headers[name.toLowerCase()];
      return value !== undefined && (value === claims[name] || /_/.test(name));
    });
    // Node's own connection header may be there, the client's may not.
    assert.deepEqual(kept, []);
    assert.equal(received.headers["x-tollgate-anything"], undefined);
    assert.equal(received.headers["x-forwarded-port"], undefined);
    assert.equal(received.headers["x-tollgate-account"], as ? id : undefined);
  }
});

test("the origin hears who called, and nothing else is added", async () => {
  const { answered, received } = await forwarded("POST", "/v1/rest/x", {
    body: "x",
    headers: { "User-Agent": "it/1", Cookie: "a=1; b=2", "X-Request-Id": "mine", "Accept-Encoding": "zstd" },
  });
  // What Cloudflare's fetch itself adds: it asks no cache, and says which Worker calls.
  const platforms = ["host", "content-length", "cache-control", "pragma", "cf-worker", "connection"];
  const told = Object.fromEntries(Object.entries(received.headers).filter(([name]) => !platforms.includes(name)));
  delete told["x-tollgate-signature"];
  assert.deepEqual(told, {
    "user-agent": "it/1",
    cookie: "a=1; b=2",
    "x-request-id": "mine",
    "accept-encoding": "zstd",
    "x-forwarded-for": "192.0.2.1",
    "x-forwarded-host": new URL(gateway.url).host,
    "x-forwarded-proto": "http",
    "x-tollgate-account": id,
    "x-tollgate-external-id": "cus_77",
    "x-tollgate-key": keyId,
    "x-tollgate-plan": "free",
    "x-tollgate-call": answered.headers["x-request-id"],
    "x-tollgate-held": "1",
  });
});

test("the signature covers what the origin sees of a call", async () => {
  const { received } = await forwarded("POST", "/v1/rest/%61?q=%20b&c", { body: "x" });
  const { t, v1, expected } = signatureOf(received);
  assert.equal(v1, expected);
  assert.ok(Math.abs(t - gateway.clock.now() / 1000) < 10);
});

test("the signature covers the query as the runtime writes it for the origin", async () => {
  const { received } = await forwarded("POST", `/v1/rest/a?it's="<é>&|^`, { body: "x" });
  assert.match(received.path, /%27s=%22%3C/);
  const { v1, expected } = signatureOf(received);
  assert.equal(v1, expected);
});

test("the signature of a public request has empty lines, and no header names anyone", async () => {
  // A key makes no call of it, and is not shown to the origin.
  for (const as of [null, key]) {
    const { received } = await forwarded("POST", "/hooks/stripe?a=1", { body: "{}" }, as);
    const { v1, expected } = signatureOf(received);
    assert.equal(v1, expected);
    const names = Object.keys(received.headers).filter((name) => name.startsWith("x-tollgate-"));
    assert.deepEqual(names, ["x-tollgate-signature"]);
    assert.equal(received.headers.authorization, undefined);
  }
});

test("a public route takes no key, counts and charges nothing, and its answer carries its id alone", async () => {
  const before = await balance();
  const { answered, received } = await forwarded("POST", "/hooks/a/b", { body: "raw" }, null);
  assert.equal(answered.status, 200);
  assert.equal(String(await received.body), "raw");
  assert.match(answered.headers["x-request-id"], /^req_/);
  const ours = Object.keys(answered.headers).filter((name) => /^(x-)?(ratelimit|credits)/.test(name));
  assert.deepEqual(ours, []);
  assert.deepEqual(await balance(), before);
});

test("a route with root = true stands outside base_path, and only there", async () => {
  assert.equal((await forwarded("GET", "/elsewhere")).received.path, "/elsewhere");
  assert.equal((await gateway.call(key, "GET", "/v1/elsewhere")).status, 404);
});

test("the gateway's key is taken off, whichever header it came in; other credentials travel untouched", async () => {
  const calls = [
    [{ authorization: `Bearer ${key}` }, {}],
    [{ authorization: `bearer  ${key}` }, {}],
    [{ "x-api-key": key }, {}],
    [{ authorization: `Bearer ${key}`, "x-api-key": key }, {}],
    [{ authorization: "Bearer sk_foreign", "x-api-key": key }, { authorization: "Bearer sk_foreign" }],
    [{ authorization: "Basic dXNlcjpwYXNz", "x-api-key": key }, { authorization: "Basic dXNlcjpwYXNz" }],
    [{ authorization: `Bearer ${key}`, "x-api-key": "foreign" }, { "x-api-key": "foreign" }],
  ];
  for (const [headers, left] of calls) {
    const { answered, received } = await forwarded("GET", "/v1/rest/x", { headers }, null);
    assert.equal(answered.status, 200);
    const { authorization, "x-api-key": apiKey } = received.headers;
    assert.deepEqual({ authorization, apiKey }, { authorization: left.authorization, apiKey: left["x-api-key"] });
    assert.equal(JSON.stringify(received.rawHeaders).includes(key), false);
  }
});

test("with forward_key the origin sees the key", async (t) => {
  const other = await startGateway(t, { policy: policy({ default: origin.url }, "forward_key = true") });
  const customer = await openAccount(other);
  const at = origin.requests.length;
  await other.call(customer.key, "GET", "/v1/rest/x");
  assert.equal((await origin.request(at)).headers.authorization, `Bearer ${customer.key}`);
});

test("no cache is asked but where the route says so", async () => {
  // There is no cache locally; a fetch that passes it by says so to the origin as well.
  for (const [path, said] of [
    ["/v1/rest/x.pdf", "no-cache"],
    ["/v1/cached", undefined],
  ]) {
    assert.equal((await forwarded("GET", path)).received.headers["cache-control"], said);
  }
});

test("a redirect is the client's to follow: at the origin it leads to the called host, elsewhere it is left alone", async () => {
  const host = "api.example.com";
  for (const [status, location, expected] of [
    [302, `${origin.url}/v1/rest/next?a=1#b`, `http://${host}/v1/rest/next?a=1#b`],
    [307, "https://elsewhere.example/x", "https://elsewhere.example/x"],
    [303, "/v1/rest/relative", "/v1/rest/relative"],
    [201, `${origin.url}/v1/rest/made`, `http://${host}/v1/rest/made`],
  ]) {
    origin.on("/v1/rest/moved", answer({ status, headers: { location } }));
    const at = origin.requests.length;
    const { answered } = await forwarded("POST", "/v1/rest/moved", { body: "x", headers: { host } });
    assert.deepEqual([answered.status, answered.headers.location], [status, expected]);
    assert.equal(answered.headers["x-credits-charged"], "1");
    assert.equal(origin.requests.length, at + 1);
  }
});

test("the origin's status, headers and body come back as they are, several Set-Cookie too", async () => {
  origin.on("/v1/rest/cookies", ({ outgoing }) => {
    outgoing.writeHead(418, {
      "Set-Cookie": ["a=1; Path=/", "b=2; Expires=Wed, 21 Oct 2026 07:28:00 GMT"],
      "X-Custom": "kept",
      "Content-Type": "text/weird; charset=latin1",
      ETag: 'W/"x"',
      "Cache-Control": "private, max-age=3",
    });
    outgoing.end(Buffer.from([0xe9, 0, 0xff]));
  });
  const { answered } = await forwarded("GET", "/v1/rest/cookies");
  assert.equal(answered.status, 418);
  assert.deepEqual(answered.headers["set-cookie"], ["a=1; Path=/", "b=2; Expires=Wed, 21 Oct 2026 07:28:00 GMT"]);
  assert.equal(answered.headers["x-custom"], "kept");
  assert.equal(answered.headers["content-type"], "text/weird; charset=latin1");
  assert.equal(answered.headers.etag, 'W/"x"');
  assert.equal(answered.headers["cache-control"], "private, max-age=3");
  assert.deepEqual(answered.body, Buffer.from([0xe9, 0, 0xff]));
});

test("the origin's own limits and credits are replaced by the gateway's", async () => {
  const headers = {
    "X-RateLimit-Limit": "99",
    "X-RateLimit-Remaining-Daily": "98",
    "X-Credits-Remaining": "97",
    "X-Credits-Charged": "96",
    "X-Request-Id": "origin",
    RateLimit: '"origin";r=1',
    "RateLimit-Policy": '"origin";q=1',
    "X-RateLimit-Reset": "kept, as the gateway writes none",
  };
  origin.on("/v1/rest/limits", answer({ headers }));
  const { answered } = await forwarded("GET", "/v1/rest/limits");
  const seen = answered.headers;
  assert.equal(seen["x-ratelimit-limit"], undefined);
  assert.equal(seen["x-ratelimit-remaining-daily"], undefined);
  assert.equal(seen.ratelimit, undefined);
  assert.equal(seen["ratelimit-policy"], undefined);
  assert.equal(seen["x-credits-charged"], "1");
  assert.equal(seen["x-credits-remaining"], String((await balance()).available));
  assert.equal(seen["x-request-id"].startsWith(`call_${id}_`), true);
  assert.equal(seen["x-ratelimit-reset"], headers["X-RateLimit-Reset"]);
});

test("an origin that echoes what it hears hands its caller nothing of it", async () => {
  origin.on("/v1/rest/echo", ({ headers, outgoing }) => {
    for (const [name, value] of Object.entries(headers)) if (name.startsWith("x-tollgate-")) outgoing.setHeader(name, value);
    outgoing.end();
  });
  const { answered, received } = await forwarded("GET", "/v1/rest/echo");
  const isOurs = (name) => name.startsWith("x-tollgate-");
  assert.equal(Object.keys(received.headers).filter(isOurs).length, 7);
  assert.deepEqual(Object.keys(answered.headers).filter(isOurs), []);
});

test("HEAD is priced as GET and has no body", async () => {
  origin.on("/v1/rest/head", answer({ headers: { "content-length": "12", "x-custom": "kept" } }));
  const { answered, received } = await forwarded("HEAD", "/v1/rest/head");
  assert.equal(received.method, "HEAD");
  assert.deepEqual([answered.status, answered.body.length], [200, 0]);
  assert.equal(answered.headers["x-custom"], "kept");
  assert.equal(answered.headers["content-length"], "12");
  assert.equal(answered.headers["x-credits-charged"], "1");
  assert.equal(signatureOf(received).v1, signatureOf(received).expected);
});

test("answers without a body: 204, 205 and 304", async () => {
  for (const status of [204, 205, 304]) {
    origin.on("/v1/rest/empty", answer({ status, headers: { etag: '"1"' } }));
    const { answered } = await forwarded("GET", "/v1/rest/empty");
    assert.deepEqual([answered.status, answered.body.length], [status, 0]);
    assert.equal(answered.headers.etag, '"1"');
    assert.equal(answered.headers["x-credits-charged"], "1");
  }
});

test("compressed answers keep their bytes, whatever the client said it accepts", async () => {
  const text = "The same line again. ".repeat(500);
  for (const [encoding, body] of [
    ["gzip", gzipSync(text)],
    ["br", brotliCompressSync(text)],
    ["x-own", Buffer.from(text)],
  ]) {
    const headers = { "content-encoding": encoding, "content-length": String(body.length) };
    origin.on("/v1/rest/packed", answer({ headers, body }));
    for (const accepts of [{ "accept-encoding": "gzip, br" }, {}]) {
      const { answered } = await forwarded("GET", "/v1/rest/packed", { headers: accepts });
      assert.equal(answered.headers["content-encoding"], encoding);
      assert.deepEqual(answered.body, body);
    }
  }
});

test("a client that would wait for 100 Continue gets its answer all the same", async () => {
  const headers = { expect: "100-continue" };
  const { answered, received } = await forwarded("POST", "/v1/rest/x", { body: "sent anyway", headers });
  assert.equal(answered.status, 200);
  assert.equal(received.headers.expect, undefined);
  assert.equal(String(await received.body), "sent anyway");
});

test("a compressed request body keeps its bytes", async () => {
  const body = gzipSync("packed by the client");
  const { received } = await forwarded("POST", "/v1/rest/x", { body, headers: { "content-encoding": "gzip" } });
  assert.equal(received.headers["content-encoding"], "gzip");
  assert.deepEqual(await received.body, body);
});

test("a status that no answer can have is the origin's fault, and free", async () => {
  // An early hint (103) is no answer; Cloudflare's edge takes it off, workerd hands it on as one.
  for (const status of [103, 600, 999]) {
    origin.on("/v1/rest/odd", answer({ status }));
    const before = (await balance()).available;
    const { answered } = await forwarded("GET", "/v1/rest/odd");
    assert.deepEqual([answered.status, answered.json().code], [502, "origin_unreachable"], `${status}`);
    assert.equal(answered.headers["x-credits-charged"], "0");
    assert.equal(answered.headers["x-credits-remaining"], String(before));
    const line = await gateway.log((line) => line.request_id === answered.headers["x-request-id"]);
    assert.deepEqual([line.status, line.code], [502, "origin_unreachable"]);
    assert.equal((await balance()).available, before);
  }
});

test("only a GET is upgraded: any other method reaches the origin as what was priced and signed", async () => {
  for (const method of ["POST", "HEAD"]) {
    const headers = { connection: "Upgrade", upgrade: "websocket", "sec-websocket-version": "13", "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==" };
    const { received } = await forwarded(method, "/v1/socket", { headers });
    assert.equal(received.method, method);
    assert.equal(received.headers.upgrade, undefined);
    assert.equal(signatureOf(received).v1, signatureOf(received).expected);
  }
});

test("each host is served by its own origin", async () => {
  const at = otherOrigin.requests.length;
  const answered = await gateway.call(key, "GET", "/v1/rest/x", { headers: { host: "OTHER.example.com" } });
  assert.equal(answered.status, 200);
  const received = await otherOrigin.request(at);
  assert.equal(received.headers["x-forwarded-host"].toLowerCase(), "other.example.com");
  assert.equal(received.headers.host, new URL(otherOrigin.url).host);
  const unnamed = await forwarded("GET", "/v1/rest/x", { headers: { host: "unnamed.example.com" } });
  assert.equal(unnamed.received.headers["x-forwarded-host"], "unnamed.example.com");
});

test("a bound service can be the origin; one that is not bound is unreachable", async () => {
  const headers = { host: "service.example.com" };
  const answered = await gateway.call(key, "POST", "/v1/rest/x?a=1", { body: "by hand", headers });
  assert.deepEqual([answered.status, answered.text()], [201, "served by hand"]);
  assert.equal(answered.headers["x-from"], "service");
  assert.equal(answered.headers["x-credits-charged"], "1");
  const [received] = fromService;
  assert.equal(received.url, "http://service.example.com/v1/rest/x?a=1");
  assert.equal(received.headers["x-tollgate-account"], id);
  assert.equal(received.headers.authorization, undefined);

  // What Cloudflare knows of the client, as miniflare lets it be told, also beside a body that was read.
  const from = { ...headers, "mf-cf-blob": '{"country":"IS"}', "content-type": "application/json" };
  for (const path of ["/v1/rest/x", "/v1/priced"]) await gateway.call(key, "POST", path, { body: '{"minutes":1}', headers: from });
  assert.deepEqual(fromService.slice(-2).map(({ cf }) => cf.country), ["IS", "IS"]);

  const unbound = await gateway.call(key, "GET", "/v1/rest/x", { headers: { host: "unbound.example.com" } });
  assert.deepEqual([unbound.status, unbound.json().code], [502, "origin_unreachable"]);
  assert.equal(unbound.headers["x-credits-charged"], "0");
});

test("a request that comes back to its own gateway is a loop", async (t) => {
  const self = await startGateway(t, { policy: policy({ default: "zone" }) });
  const customer = await openAccount(self);
  for (const [as, method, path] of [
    [customer.key, "GET", "/v1/rest/a%20b?q=%20"],
    [null, "POST", "/hooks/x"],
  ]) {
    const looped = as ? await self.call(as, method, path) : await self.send(method, path, { body: "x" });
    assert.deepEqual([looped.status, looped.json().code], [508, "loop"]);
  }
  assert.deepEqual((await customer.balance()).available, 1000);
});

test("two gateways of one deployment that point at each other loop once", async (t) => {
  let relayTo;
  const relay = net.createServer((from) => {
    const to = net.connect(new URL(relayTo).port, "127.0.0.1");
    from.pipe(to).pipe(from);
    for (const socket of [from, to]) socket.on("error", () => {});
  });
  relay.listen(0, "127.0.0.1");
  await once(relay, "listening");
  t.after(() => relay.close());
  const first = await startGateway(t, {
    policy: policy({ default: `http://127.0.0.1:${relay.address().port}` }),
  });
  const second = await startGateway(t, { policy: policy({ default: first.url }) });
  relayTo = second.url;
  const customer = await openAccount(first);
  const looped = await first.call(customer.key, "GET", "/v1/rest/x");
  assert.deepEqual([looped.status, looped.json().code], [508, "loop"]);
  assert.equal(looped.headers["x-credits-charged"], "0");
});

test("a signature of someone else's making is no loop", async () => {
  const headers = { "x-tollgate-signature": `t=1,v1=${"0".repeat(64)}` };
  assert.equal((await forwarded("GET", "/v1/rest/x", { headers })).answered.status, 200);
});

test("a WebSocket is opened where the route allows it, and speaks both ways", async () => {
  const socket = new WebSocket(`${gateway.url.replace("http", "ws")}/v1/socket?a=1`, ["chat"], {
    headers: { authorization: `Bearer ${key}`, host: "sockets.example.com" },
  });
  const [[response]] = await Promise.all([once(socket, "upgrade"), once(socket, "open")]);
  assert.equal(response.statusCode, 101);
  assert.equal(response.headers["x-credits-charged"], "3");
  assert.equal(socket.protocol, "chat");
  const received = sockets.requests.at(-1);
  assert.equal(received.url, "/v1/socket?a=1");
  assert.equal(received.headers["x-tollgate-account"], id);
  assert.equal(received.headers.authorization, undefined);

  socket.send("to the origin");
  assert.equal(String((await once(socket, "message"))[0]), "heard: to the origin");
  socket.send(Buffer.from([1, 2]));
  const [bytes, isBinary] = await once(socket, "message");
  assert.deepEqual([Buffer.concat([bytes]), isBinary], [Buffer.from([1, 2]), true]);
  // Charged and out of flight when accepted, not when closed.
  const line = await gateway.log((line) => line.request_id === response.headers["x-request-id"]);
  assert.equal(line.status, 101);
  assert.equal((await balance()).held, 0);
  socket.close(4001, "enough");
  const [code, reason] = await once(sockets.closed, "closed");
  assert.deepEqual([code, String(reason)], [4001, "enough"]);
});

test("an upgrade to anything but a WebSocket is none", async () => {
  const { answered, received } = await forwarded("GET", "/v1/socket", { headers: { upgrade: "h2c" } });
  assert.equal(answered.status, 200);
  assert.equal(received.headers.upgrade, undefined);
});

test("an upgrade is not forwarded by any other route", async () => {
  const at = sockets.requests.length;
  const socket = new WebSocket(`${gateway.url.replace("http", "ws")}/v1/rest/socket`, {
    headers: { authorization: `Bearer ${key}`, host: "sockets.example.com" },
  });
  const [, response] = await once(socket, "unexpected-response");
  socket.on("error", () => {});
  socket.terminate();
  assert.notEqual(response.statusCode, 101);
  const received = sockets.requests.slice(at);
  assert.deepEqual(received.map(({ headers }) => headers.upgrade), received.map(() => undefined));
});

// An origin that takes upgrades, and answers everything else with 200.
async function startSocketOrigin(t) {
  const requests = [];
  const server = http.createServer((incoming, outgoing) => {
    requests.push(incoming);
    outgoing.end("plain");
  });
  const sockets = new WebSocketServer({ server });
  sockets.on("connection", (socket, request) => {
    requests.push(request);
    socket.on("message", (data, isBinary) => socket.send(isBinary ? data : `heard: ${data}`, { binary: isBinary }));
    socket.on("close", (code, reason) => sockets.emit("closed", code, reason));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    for (const socket of sockets.clients) socket.terminate();
    server.closeAllConnections();
    server.close();
  });
  return { url: `http://127.0.0.1:${server.address().port}`, requests, closed: sockets };
}
