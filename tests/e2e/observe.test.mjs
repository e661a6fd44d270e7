// mode = "observe": decides, logs and counts; refuses nothing, charges nothing.
import assert from "node:assert/strict";
import test from "node:test";
import { openAccount } from "./harness/account.mjs";
import { startGateway } from "./harness/gateway.mjs";
import { answer, startOrigin } from "./harness/origin.mjs";

const origin = await startOrigin(test);
const policy = (mode) => `
[gateway]
base_path = "/v1"
key_prefix = "tk_live"
mode = "${mode}"
[origins]
default = "${origin.url}"
[pools.credits]
[plans.free]
requests_per_minute = 2
grants = [{ pool = "credits", amount = 5, renews = "never" }]
[plans.poor]
[[routes]]
match = "POST /work"
cost = 2
[[routes]]
match = "POST /minutes"
charge = { rate = 1, unit = 1, from = "body.minutes", maximum = 10 }
`;
const gateway = await startGateway(test, { policy: policy("observe") });
const free = await openAccount(gateway);
const poor = await openAccount(gateway, { id: "poor", plan: "poor" });

// Sends it, and resolves with the answer, what the origin received, and the log line.
async function observed(method, path, options = {}, key) {
  const at = origin.requests.length;
  const answered = key
    ? await gateway.call(key, method, path, options)
    : await gateway.send(method, path, options);
  const received = await origin.request(at);
  const line = await gateway.log((line) => line.request_id === answered.headers["x-request-id"]);
  return { answered, received, line };
}

test("what would be refused before the account is asked goes through as it came, and is logged", async () => {
  for (const [wouldRefuse, method, path, options] of [
    ["missing_key", "POST", "/v1/work", {}],
    ["invalid_key", "POST", "/v1/work", { headers: { authorization: "Bearer tk_live_forged" } }],
    ["no_route", "GET", "/anything/else", { headers: { authorization: `Bearer ${free.key}` } }],
    ["no_route", "POST", "/v1/Work", { headers: { authorization: `Bearer ${free.key}` } }],
    ["method_not_allowed", "DELETE", "/v1/work", { headers: { authorization: `Bearer ${free.key}` } }],
    ["bad_path", "POST", "/v1//work", {}],
    ["bad_path", "POST", "/v1/work;a=%2f", {}],
    [
      "bad_request",
      "POST",
      "/v1/work",
      { headers: { authorization: `Bearer ${free.key}`, "x-api-key": poor.key } },
    ],
  ]) {
    const { answered, received, line } = await observed(method, path, { ...options, body: "as it came" });
    assert.equal(answered.status, 200, `${method} ${path}`);
    assert.deepEqual([received.method, received.path], [method, path]);
    if (method === "POST") assert.equal(String(await received.body), "as it came");
    assert.deepEqual([line.would_refuse, line.status, line.code], [wouldRefuse, 200, undefined]);
    // Nobody is named to the origin, and no key shown.
    assert.equal(received.headers["x-tollgate-account"], undefined);
    assert.equal(JSON.stringify(received.rawHeaders).includes(free.key), false);
  }
});

test("a call that is read for its price and would be refused keeps its body", async () => {
  const headers = { "content-type": "application/json" };
  for (const body of ['{"minutes":11}', '{"Minutes":1}', "no JSON"]) {
    const { answered, received, line } = await observed("POST", "/v1/minutes", { body, headers }, poor.key);
    assert.equal(answered.status, 200);
    assert.equal(String(await received.body), body);
    assert.equal(line.would_refuse, "bad_request");
  }
  const tooLong = { "transfer-encoding": "chunked", ...headers };
  const body = JSON.stringify({ minutes: 1, text: "long ".repeat(40_000) });
  const { received, line } = await observed("POST", "/v1/minutes", { body, headers: tooLong }, poor.key);
  assert.equal(String(await received.body), body);
  assert.equal(line.would_refuse, "body_too_large");
});

test("a good call is counted and named, and costs nothing", async () => {
  const customer = await openAccount(gateway, { id: "good" });
  const { answered, received, line } = await observed("POST", "/v1/work", { body: "x" }, customer.key);
  assert.equal(received.headers["x-tollgate-account"], "good");
  assert.equal(line.would_refuse, undefined);
  assert.equal(answered.headers["x-ratelimit-remaining"], "1");
  assert.equal(answered.headers["x-credits-charged"], "0");
  assert.equal(answered.headers["x-credits-remaining"], "5");
  const { available, held, spent } = await customer.balance();
  assert.deepEqual({ available, held, spent }, { available: 5, held: 0, spent: 0 });
});

test("beyond a limit, and out of credits, calls go through, are logged and counted", async () => {
  for (const expected of [undefined, undefined, "rate_limited", "rate_limited"]) {
    const { answered, line } = await observed("POST", "/v1/work", { body: "x" }, free.key);
    assert.deepEqual([answered.status, line.would_refuse], [200, expected]);
    assert.equal(answered.headers["retry-after"], undefined);
  }
  const broke = await observed("POST", "/v1/work", { body: "x" }, poor.key);
  assert.deepEqual([broke.answered.status, broke.line.would_refuse], [200, "insufficient_credits"]);
  const usage = await gateway.admin("GET", `/accounts/${free.id}/usage`);
  assert.equal(usage.json().total_count, 4);
  assert.equal((await free.balance()).spent, 0);
});

test("a suspended account and a revoked key go through", async () => {
  const customer = await openAccount(gateway, { id: "former" });
  await gateway.admin("PATCH", "/accounts/former", { status: "suspended", reason: "unpaid" });
  const suspended = await observed("POST", "/v1/work", { body: "x" }, customer.key);
  assert.deepEqual([suspended.answered.status, suspended.line.would_refuse], [200, "account_suspended"]);
  await gateway.admin("DELETE", `/accounts/former/keys/${customer.keyId}`);
  const revoked = await observed("POST", "/v1/work", { body: "x" }, customer.key);
  assert.deepEqual([revoked.answered.status, revoked.line.would_refuse], [200, "invalid_key"]);
});

test("the origin's refusals are still the origin's", async () => {
  origin.on("/v1/work", answer({ status: 429, body: "mine" }));
  const { answered } = await observed("POST", "/v1/work", { body: "x" });
  assert.deepEqual([answered.status, answered.text()], [429, "mine"]);
});

test("switched to enforce, the balance is whole and refusals are refusals", async () => {
  await gateway.restart({ policy: policy("enforce") });
  assert.equal((await gateway.send("POST", "/v1/work")).status, 401);
  assert.equal((await free.balance()).available, 5);
  const customer = await openAccount(gateway, { id: "later" });
  origin.on("/v1/work", answer());
  assert.equal((await gateway.call(customer.key, "POST", "/v1/work")).headers["x-credits-charged"], "2");
});
