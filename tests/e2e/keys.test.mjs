// Keys as an operator and their holders live with them: limits, scope, budget, expiry, rotation,
// suspension.
import assert from "node:assert/strict";
import { test } from "node:test";
import { openAccount, policyFor } from "./harness/account.mjs";
import { secrets, startGateway } from "./harness/gateway.mjs";
import { startOrigin } from "./harness/origin.mjs";

const TABLES = `
[pools.credits]
[plans.free]
requests_per_minute = 100
requests_per_day = 1000
grants = [{ pool = "credits", amount = 500, renews = "never" }]
[[routes]]
match = "POST /search"
cost = 5
[[routes]]
match = "GET /tracks/{id}"
cost = 0
[[routes]]
match = "GET /open"
public = true
`;

const once = (() => {
  let asked = 0;
  return () => ({ "idempotency-key": `keys-test-${++asked}` });
})();

async function expect(status, answering) {
  const answer = await answering;
  assert.equal(answer.status, status, answer.text());
  return status === 204 ? answer : answer.json();
}

// What a call is answered: its status, and a refusal's code.
async function told(calling) {
  const answer = await calling;
  return answer.status === 200 ? 200 : [answer.status, answer.json().code];
}

// An isolate may repeat a refusal for 5 s: a clock that moves on has it ask again.
const REPEATED = 5_000;

test("the life of a key", async (t) => {
  const origin = await startOrigin(t);
  const gateway = await startGateway(t, { policy: policyFor(origin, TABLES) });
  const { clock } = gateway;
  clock.stop("2031-03-31T20:00:00Z");
  const account = await openAccount(gateway, { id: "acme" });
  const path = "/accounts/acme/keys";

  const shop = await account.anotherKey({
    name: "shop",
    limits: { requests_per_minute: 3, requests_per_day: "unlimited" },
    scope: ["POST /search"],
    budget: 12,
    expires_at: "2031-04-02T00:00:00+02:00",
  });
  const shown = () => expect(200, gateway.admin("GET", `${path}/${shop.keyId}`));
  const search = (key = shop) => key.finished("POST", "/search");

  // Its own limits, in the headers and on /me.
  const first = await search();
  assert.equal(first.status, 200);
  assert.equal(first.headers["x-ratelimit-limit"], "3");
  assert.equal(first.headers["x-ratelimit-limit-daily"], undefined);
  assert.equal(first.headers["x-credits-remaining"], "495", "the pool's, not the budget's");
  const me = await shop.page("/me");
  assert.deepEqual(me.rate_limit, { requests_per_minute: 3, requests_per_day: null });
  assert.deepEqual([me.key.id, me.key.budget, me.key.budget_used], [shop.keyId, 12, 5]);

  // Its scope. A public route asks nobody, and one refusal is not another's.
  const outside = await shop.call("GET", "/tracks/7");
  assert.deepEqual([outside.status, outside.json().code], [403, "out_of_scope"]);
  assert.match(outside.json().detail, /GET \/tracks\/\{id\}/);
  assert.equal(outside.headers["x-ratelimit-remaining"], "2");
  assert.equal((await shop.call("GET", "/open")).status, 200);
  assert.equal((await account.call("GET", "/tracks/7")).status, 200);
  assert.equal((await search()).status, 200);

  // Its budget, until the month is over.
  const over = await search();
  const problem = over.json();
  assert.deepEqual([over.status, problem.code], [402, "insufficient_credits"]);
  assert.deepEqual(
    [problem.pool, problem.required, problem.available, problem.budget, problem.renews_at],
    ["credits", 5, 2, 12, "2031-04-01T00:00:00Z"],
  );
  assert.match(problem.detail, /budget of this API key/);
  assert.equal(over.headers["retry-after"], `${4 * 3600}`);
  assert.equal((await search(account)).status, 200);
  await gateway.restart();
  assert.deepEqual(await told(search()), [402, "insufficient_credits"]);
  assert.equal((await shown()).budget_used, 10);
  clock.moveTo("2031-04-01T00:00:00Z");
  assert.equal((await search()).status, 200);
  assert.equal((await shown()).budget_used, 5);
  assert.equal((await shown()).last_used_at, "2031-04-01T00:00:00Z");

  // Changed while it is in use; what is wrong changes nothing.
  for (const [patch, field] of [
    [{ budget: 100, scope: ["POST /search", "POST /nothing"] }, "scope[1]"],
    [{ budget: 100, scope: ["GET /open"] }, "scope[0]"],
    [{ budget: 100, expires_at: "2031-03-31T23:59:59Z" }, "expires_at"],
    [{ budget: 100, limits: { requests_per_minute: 0 } }, "limits.requests_per_minute"],
    [{ budget: 100, secret: "sk_1" }, "secret"],
  ]) {
    const refused = await expect(400, gateway.admin("PATCH", `${path}/${shop.keyId}`, patch));
    assert.equal(refused.field, field);
  }
  assert.equal((await shown()).budget, 12);
  const patched = await expect(200, gateway.admin("PATCH", `${path}/${shop.keyId}`, { budget: null, scope: ["GET /*"] }));
  assert.deepEqual([patched.budget, patched.scope, patched.limits.requests_per_minute], [null, ["GET /*"], 3]);
  assert.equal((await shop.call("GET", "/tracks/7")).status, 200);
  assert.deepEqual(await told(search()), [403, "out_of_scope"]);

  // Expired at its moment, and alive again with another.
  clock.moveTo("2031-04-01T21:59:59Z");
  assert.equal((await shop.call("GET", "/tracks/7")).status, 200);
  clock.advance(1_000);
  assert.deepEqual(await told(shop.call("GET", "/tracks/7")), [401, "invalid_key"]);
  assert.equal((await shown()).status, "expired");
  await expect(200, gateway.admin("PATCH", `${path}/${shop.keyId}`, { expires_at: null }));
  clock.advance(REPEATED);
  assert.equal((await shop.call("GET", "/tracks/7")).status, 200);
  const { refused_today } = await shown();
  assert.ok(refused_today >= 1, `${refused_today} refused`);

  // Listed page by page.
  const page = await expect(200, gateway.admin("GET", `${path}?limit=1`));
  assert.deepEqual(page.data.map(({ id }) => id), [account.keyId]);
  const rest = await expect(200, gateway.admin("GET", `${path}?limit=1&next=${page.next}`));
  assert.deepEqual([rest.data, rest.next], [[await shown()], null]);
});

test("a rotated key has two secrets for a while, across a roll of KEY_SECRET, and then one", async (t) => {
  const origin = await startOrigin(t);
  const gateway = await startGateway(t, { policy: policyFor(origin, TABLES) });
  const { clock } = gateway;
  clock.stop("2031-03-10T12:00:00Z");
  const account = await openAccount(gateway, { id: "acme" });
  await account.finished("POST", "/search");
  const call = (key) => told(gateway.call(key, "POST", "/search"));
  const rotate = (body, headers = once()) =>
    gateway.admin("POST", `/accounts/acme/keys/${account.keyId}/rotate`, body, headers);

  // KEY_SECRET rolls; every key is rotated before the old one is taken off the list.
  const KEY_SECRET = "the-next-key-secret-0123456789abcdef01234";
  await gateway.restart({ vars: { KEY_SECRET, KEY_SECRET_PREVIOUS: secrets.KEY_SECRET } });
  assert.equal(await call(account.key), 200);
  const request = [{ overlap_seconds: 3_600 }, once()];
  const rotated = await expect(200, rotate(...request));
  assert.match(rotated.key, /^tk_live_[A-Za-z0-9_-]+$/);
  assert.notEqual(rotated.key, account.key);
  assert.deepEqual(
    [rotated.id, rotated.status, rotated.budget_used, rotated.overlap_ends_at],
    [account.keyId, "rotating", 10, "2031-03-10T13:00:00Z"],
  );
  // Its secret is shown once, and the same request rotates once.
  assert.deepEqual(await expect(200, rotate(...request)), { ...rotated, key: null });
  assert.equal((await expect(422, rotate({ overlap_seconds: 60 }, request[1]))).code, "idempotency_mismatch");
  assert.equal(await call(account.key), 200);
  assert.equal(await call(rotated.key), 200);
  assert.equal((await account.balance()).available, 480);
  assert.deepEqual((await account.usage()).usage.map(({ key }) => key), Array(4).fill(account.keyId));

  // The old KEY_SECRET goes: what it has signed is forged from now on, and what is new stays.
  await gateway.restart({ vars: { KEY_SECRET, KEY_SECRET_PREVIOUS: undefined } });
  assert.deepEqual(await call(account.key), [401, "invalid_key"]);
  assert.equal(await call(rotated.key), 200);

  // Again during an overlap: the oldest is dropped, and the one before it lives its time.
  await gateway.restart({ vars: { KEY_SECRET, KEY_SECRET_PREVIOUS: secrets.KEY_SECRET } });
  assert.equal(await call(account.key), 200);
  const again = await expect(200, rotate({ overlap_seconds: 60 }));
  assert.deepEqual(await call(account.key), [401, "invalid_key"]);
  assert.equal(await call(rotated.key), 200);
  clock.advance(59_000);
  assert.equal(await call(rotated.key), 200);
  clock.advance(1_000);
  assert.deepEqual(await call(rotated.key), [401, "invalid_key"]);
  assert.equal(await call(again.key), 200);
  await gateway.restart();
  assert.deepEqual(await call(rotated.key), [401, "invalid_key"]);
  assert.equal(await call(again.key), 200);

  // Without an overlap a leaked secret is dead at once; revoked, the key is for good.
  const last = await expect(200, rotate({ overlap_seconds: 0 }));
  assert.deepEqual([await call(again.key), await call(last.key), last.status], [[401, "invalid_key"], 200, "active"]);
  assert.equal((await expect(400, rotate({}))).field, "overlap_seconds");
  assert.equal((await expect(400, rotate({ overlap_seconds: 2_592_001 }))).field, "overlap_seconds");
  await expect(204, gateway.admin("DELETE", `/accounts/acme/keys/${account.keyId}`));
  assert.deepEqual(await call(last.key), [401, "invalid_key"]);
  assert.equal((await expect(409, rotate({ overlap_seconds: 0 }))).code, "conflict");
  const missing = gateway.admin("POST", "/accounts/acme/keys/key_acme_9/rotate", { overlap_seconds: 0 });
  assert.equal((await expect(404, missing)).code, "not_found");
});

test("a suspended account's keys all stop with their next call, and tell the customer why", async (t) => {
  const origin = await startOrigin(t);
  const gateway = await startGateway(t, { policy: policyFor(origin, TABLES) });
  gateway.clock.stop("2031-03-10T12:00:00Z");
  const account = await openAccount(gateway);
  const keys = [account, await account.anotherKey(), await account.anotherKey()];
  const all = () => Promise.all(keys.map((key) => key.call("GET", "/tracks/7")));
  assert.deepEqual((await all()).map(({ status }) => status), [200, 200, 200]);
  await account.patch({ status: "suspended", reason: "invoice 7 is open" });
  for (const answer of await all()) {
    assert.deepEqual([answer.status, answer.json().code], [403, "account_suspended"]);
    assert.match(answer.json().detail, /invoice 7 is open/);
  }
  // The customer still reads, and the operator still operates.
  for (const key of keys) {
    const me = await key.page("/me");
    assert.deepEqual([me.status, me.reason], ["suspended", "invoice 7 is open"]);
  }
  await account.page("/usage");
  assert.equal((await account.page("/quote?method=POST&path=/search")).credits, 5);
  await account.grant(10);
  await gateway.restart();
  assert.deepEqual((await all()).map(({ status }) => status), [403, 403, 403]);
  // Resumed within the 5 s that an isolate may repeat a refusal.
  await account.patch({ status: "active" });
  gateway.clock.advance(REPEATED);
  assert.deepEqual((await all()).map(({ status }) => status), [200, 200, 200]);
});

test("a refused settle is refused again under its Idempotency-Key", async (t) => {
  const origin = await startOrigin(t);
  const gateway = await startGateway(t, { policy: policyFor(origin, TABLES) });
  const account = await openAccount(gateway, { id: "acme" });
  await account.finished("POST", "/search");
  const end = (verb, body, headers) => gateway.admin("POST", `/calls/call_acme_1/${verb}`, body, headers);
  const key = once();
  const refused = await expect(409, end("settle", { credits: 5 }, key));
  assert.equal(refused.code, "already_settled");
  await expect(200, end("release", {}, once()));
  const again = await expect(409, end("settle", { credits: 5 }, key));
  assert.deepEqual([again.code, again.detail], [refused.code, refused.detail]);
  assert.equal((await expect(409, end("settle", { credits: 5 }, once()))).code, "already_released");
  assert.equal((await expect(422, end("settle", { credits: 4 }, key))).code, "idempotency_mismatch");
});
