// Browsers: preflights, and answers that a script may read.
import assert from "node:assert/strict";
import test from "node:test";
import { openAccount } from "./harness/account.mjs";
import { secrets, startGateway } from "./harness/gateway.mjs";
import { answer, startOrigin } from "./harness/origin.mjs";

const APP = "https://app.example.com";
const OURS = [
  "x-ratelimit-limit",
  "x-ratelimit-remaining",
  "x-ratelimit-limit-daily",
  "x-ratelimit-remaining-daily",
  "x-credits-remaining",
  "x-credits-charged",
  "x-request-id",
  "ratelimit-policy",
  "ratelimit",
];

const origin = await startOrigin(test);
const policy = (cors) => `
[gateway]
base_path = "/v1"
key_prefix = "tk_live"
cors = ${cors}
[origins]
default = "${origin.url}"
[pools.credits]
[plans.free]
requests_per_minute = 100
grants = [{ pool = "credits", amount = 1, renews = "never" }]
[[routes]]
match = "POST /search"
cost = 1
[[routes]]
match = "POST /hooks/*"
public = true
root = true
`;
const gateway = await startGateway(test, { policy: policy('"origin"') });
const listed = await startGateway(test, { policy: policy(`{ origins = ["${APP}", "http://localhost:3000"] }`) });
const customer = await openAccount(gateway);

const preflight = (to, path, headers = {}) =>
  to.send("OPTIONS", path, {
    headers: {
      origin: APP,
      "access-control-request-method": "POST",
      "access-control-request-headers": "authorization, content-type",
      ...headers,
    },
  });

const exposed = (answered) => (answered.headers["access-control-expose-headers"] ?? "").toLowerCase().split(/, */);

test("preflights of the gateway's own pages are answered by the gateway, without a key", async () => {
  const at = origin.requests.length;
  for (const path of ["/v1/me", "/v1/usage", "/_tollgate/v1/accounts"]) {
    const answered = await preflight(gateway, path, { "access-control-request-method": "GET" });
    assert.equal(answered.status, 204, path);
    assert.equal(answered.headers["access-control-allow-origin"], "*");
    assert.match(answered.headers["access-control-allow-methods"], /\bGET\b/);
    assert.equal(answered.headers["access-control-allow-headers"], "authorization, content-type");
    assert.equal(answered.body.length, 0);
  }
  assert.equal(origin.requests.length, at);
});

test("cors = \"origin\": the origin answers preflights, and sees method, path and CORS headers alone", async () => {
  const headers = {
    "access-control-allow-origin": APP,
    "access-control-allow-methods": "POST",
    "access-control-max-age": "5",
  };
  origin.on("OPTIONS /v1/search", answer({ status: 204, headers }));
  const at = origin.requests.length;
  const answered = await preflight(gateway, "/v1/search?secret=1", {
    authorization: `Bearer ${customer.key}`,
    cookie: "session=1",
    "x-tollgate-account": "rich",
    "x-forwarded-for": "203.0.113.9",
    "x-anything": "1",
    "access-control-request-private-network": "true",
  });
  assert.equal(answered.status, 204);
  for (const [name, value] of Object.entries(headers)) assert.equal(answered.headers[name], value);
  assert.match(answered.headers["x-request-id"], /^req_/);
  const received = await origin.request(at);
  assert.deepEqual([received.method, received.path], ["OPTIONS", "/v1/search"]);
  const platforms = ["host", "cache-control", "pragma", "cf-worker", "connection", "content-length"];
  const seen = Object.entries(received.headers).filter(([name]) => !platforms.includes(name));
  assert.deepEqual(Object.fromEntries(seen), {
    origin: APP,
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization, content-type",
    "access-control-request-private-network": "true",
  });
  assert.deepEqual(await customer.balance().then(({ held, spent }) => [held, spent]), [0, 0]);
});

test("a preflight of a path that nobody knows is the origin's to answer too", async () => {
  origin.on("OPTIONS /v1/nothing", answer({ status: 404 }));
  assert.equal((await preflight(gateway, "/v1/nothing")).status, 404);
});

test("a list of origins: the gateway answers, and allows those alone", async () => {
  const at = origin.requests.length;
  for (const [from, allowed] of [
    [APP, APP],
    ["http://localhost:3000", "http://localhost:3000"],
    ["https://evil.example", undefined],
    ["https://app.example.com.evil.example", undefined],
    ["null", undefined],
  ]) {
    const answered = await preflight(listed, "/v1/search", { origin: from });
    assert.equal(answered.status, 204);
    assert.equal(answered.headers["access-control-allow-origin"], allowed, from);
    assert.match(answered.headers.vary, /origin/i);
    if (allowed) {
      assert.equal(answered.headers["access-control-allow-methods"], "POST");
      assert.equal(answered.headers["access-control-allow-headers"], "authorization, content-type");
    }
  }
  assert.equal(origin.requests.length, at);
});

test("preflights of public routes go straight on, whoever answers the others", async () => {
  origin.on("OPTIONS /hooks/x", answer({ status: 204, headers: { "access-control-allow-origin": "*" } }));
  for (const to of [gateway, listed]) {
    const at = origin.requests.length;
    const answered = await preflight(to, "/hooks/x?a=1", { "x-anything": "1" });
    assert.deepEqual([answered.status, answered.headers["access-control-allow-origin"]], [204, "*"]);
    const received = await origin.request(at);
    assert.equal(received.path, "/hooks/x?a=1");
    assert.equal(received.headers["x-anything"], "1");
    assert.match(received.headers["x-tollgate-signature"], /^t=\d+,v1=/);
  }
});

test("OPTIONS that is no preflight needs what every request needs", async () => {
  for (const headers of [{}, { origin: APP }, { "access-control-request-method": "POST" }]) {
    const answered = await gateway.send("OPTIONS", "/v1/search", { headers });
    assert.equal(answered.status, 401);
  }
});

test("a browser can read every refusal and its headers", async () => {
  origin.on("POST /v1/search", answer());
  const call = (path, headers = {}) =>
    gateway.send("POST", path, { headers: { origin: APP, authorization: `Bearer ${customer.key}`, ...headers } });
  assert.equal((await call("/v1/search")).status, 200);
  for (const [status, answered] of [
    [400, await call("/v1//search")],
    [401, await call("/v1/search", { authorization: "Bearer tk_live_forged" })],
    [401, await call("/v1/search", { authorization: "" })],
    [402, await call("/v1/search")],
    [404, await call("/v1/nothing")],
    [405, await call("/v1/me")],
  ]) {
    assert.equal(answered.status, status);
    assert.equal(answered.headers["access-control-allow-origin"], "*");
    for (const name of [...OURS, "retry-after"]) assert.ok(exposed(answered).includes(name), `${status} ${name}`);
  }
  // The admin API's and self-service's answers are the gateway's own, too.
  for (const [path, token] of [
    ["/v1/me", customer.key],
    ["/_tollgate/v1/plans", secrets.ADMIN_TOKEN],
  ]) {
    const answered = await gateway.send("GET", path, { headers: { origin: APP, authorization: `Bearer ${token}` } });
    assert.equal(answered.status, 200, path);
    assert.equal(answered.headers["access-control-allow-origin"], "*");
  }
});

test("without an Origin nothing is said about browsers", async () => {
  const answered = await gateway.send("POST", "/v1/search");
  assert.equal(answered.status, 401);
  const cors = Object.keys(answered.headers).filter((name) => name.startsWith("access-control-"));
  assert.deepEqual(cors, []);
});

test("where the origin lets a script read its answer, the script sees the gateway's headers as well", async (t) => {
  const rich = await startGateway(t, { policy: policy('"origin"').replace("amount = 1,", "amount = 100,") });
  const { key } = await openAccount(rich);
  const call = async (headers) => {
    origin.on("POST /v1/search", answer({ headers }));
    return rich.call(key, "POST", "/v1/search", { headers: { origin: APP } });
  };
  const merged = await call({ "access-control-allow-origin": APP, "access-control-expose-headers": "X-Own, ETag" });
  assert.equal(merged.headers["access-control-allow-origin"], APP);
  assert.deepEqual(exposed(merged).toSorted(), [...OURS, "x-own", "etag"].toSorted());
  assert.deepEqual(exposed(await call({ "access-control-allow-origin": "*" })).toSorted(), OURS.toSorted());
  const closed = await call({});
  assert.equal(closed.headers["access-control-allow-origin"], undefined);
  assert.equal(closed.headers["access-control-expose-headers"], undefined);
});
