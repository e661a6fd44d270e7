// The operating API, as an operator's program sees it.
import assert from "node:assert/strict";
import * as suite from "node:test";
import { test } from "node:test";
import { lineOf, openAccount, policyFor } from "./harness/account.mjs";
import { secrets, startGateway } from "./harness/gateway.mjs";
import { startOrigin } from "./harness/origin.mjs";
import { tablesOf } from "./harness/storage.mjs";

const READ_TOKEN = "test-admin-read-token-0123456789abcdef";
const TABLES = `
[pools.credits]
[pools.lyrics]
[plans.free]
requests_per_minute = 5
requests_per_day    = 50
requests_in_flight  = 10
max_keys = 3
grants = [{ pool = "credits", amount = 50, renews = "never" }]
[plans.starter]
paid = true
grants = [{ pool = "credits", amount = 300, renews = "monthly", rollover = 20 }]
[[routes]]
match = "POST /search"
cost  = 1
`;

const origin = await startOrigin(suite);
const gateway = await startGateway(suite, {
  policy: policyFor(origin, TABLES),
  vars: { ADMIN_READ_TOKEN: READ_TOKEN },
});
const { clock } = gateway;
clock.stop("2031-03-10T12:00:00Z");

let asked = 0;
const once = () => ({ "idempotency-key": `admin-test-${++asked}` });

async function expect(status, answering) {
  const answer = await answering;
  assert.equal(answer.status, status, answer.text());
  return status === 204 ? answer : answer.json();
}

test("an account is opened with 201, and shown, changed and found again in the same shape", async () => {
  const acme = {
    id: "acme",
    external_id: "customer 7",
    name: "Acme Ltd",
    email: "ops@acme.example",
    plan: "free",
    status: "active",
    subscription: { status: "active", billing_day: 10 },
    created_at: "2031-03-10T12:00:00Z",
  };
  const { id, external_id, name, email, plan } = acme;
  const body = { id, external_id, name, email, plan, region: "weur" };
  assert.deepEqual(await expect(201, gateway.admin("POST", "/accounts", body, once())), acme);
  assert.deepEqual(await expect(200, gateway.admin("GET", "/accounts/acme")), acme);
  const changed = {
    ...acme,
    name: null,
    plan: "starter",
    status: "suspended",
    reason: "invoice 7",
    subscription: { status: "cancelled", billing_day: 31, ends_at: "2031-03-31T00:00:00Z" },
  };
  const patch = {
    name: null,
    plan: "starter",
    status: "suspended",
    reason: "invoice 7",
    subscription: { status: "cancelled", billing_day: 31 },
  };
  assert.deepEqual(await expect(200, gateway.admin("PATCH", "/accounts/acme", patch)), changed);
  await gateway.restart();
  assert.deepEqual(await expect(200, gateway.admin("GET", "/accounts/acme")), changed);
  const back = await expect(200, gateway.admin("PATCH", "/accounts/acme", { status: "active" }));
  assert.deepEqual([back.status, back.reason], ["active", undefined]);
});

test("an account without an id of the operator's gets one of its own, the same for the same key", async () => {
  const key = once();
  const first = await expect(201, gateway.admin("POST", "/accounts", { plan: "free" }, key));
  assert.match(first.id, /^[A-Za-z0-9_-]{1,64}$/);
  assert.deepEqual(await expect(201, gateway.admin("POST", "/accounts", { plan: "free" }, key)), first);
  await expect(422, gateway.admin("POST", "/accounts", { plan: "starter" }, key));
  const other = await expect(201, gateway.admin("POST", "/accounts", { plan: "free" }, once()));
  assert.notEqual(other.id, first.id);
});

test("opening again gives the same answer, also when the account has changed since", async () => {
  const [key, body] = [once(), { id: "again", plan: "free" }];
  const first = await expect(201, gateway.admin("POST", "/accounts", body, key));
  await expect(200, gateway.admin("PATCH", "/accounts/again", { plan: "starter" }));
  await gateway.restart();
  assert.deepEqual(await expect(201, gateway.admin("POST", "/accounts", body, key)), first);
  assert.equal((await expect(200, gateway.admin("GET", "/accounts/again"))).plan, "starter");
  const mismatch = await expect(
    422,
    gateway.admin("POST", "/accounts", { ...body, plan: "starter" }, key),
  );
  assert.equal(mismatch.code, "idempotency_mismatch");
  const taken = await expect(409, gateway.admin("POST", "/accounts", body, once()));
  assert.equal(taken.code, "conflict");
});

test("a key is told once, listed without its secret, used, and dead as soon as it is revoked", async () => {
  const account = await openAccount(gateway, { id: "keys", plan: "free" });
  const path = "/accounts/keys/keys";
  const request = [path, { name: "laptop" }, once()];
  const issued = await expect(201, gateway.admin("POST", ...request));
  assert.match(issued.key, /^tk_live_[A-Za-z0-9_-]+$/);
  assert.deepEqual(
    { ...issued, key: null },
    {
      id: "key_keys_2",
      name: "laptop",
      status: "active",
      created_at: "2031-03-10T12:00:00Z",
      last_used_at: null,
      expires_at: null,
      limits: null,
      scope: null,
      budget: null,
      budget_used: 0,
      rotated_at: null,
      imported: false,
      overlap_ends_at: null,
      refused_today: 0,
      key: null,
    },
  );
  assert.deepEqual(await expect(201, gateway.admin("POST", ...request)), { ...issued, key: null });
  clock.advance(7_000);
  assert.equal((await gateway.call(issued.key, "POST", "/search")).status, 200);

  const list = await expect(200, gateway.admin("GET", path));
  assert.equal(list.next, null);
  assert.deepEqual(
    list.data.map(({ id, name, status, last_used_at }) => ({ id, name, status, last_used_at })),
    [
      { id: account.keyId, name: null, status: "active", last_used_at: null },
      { id: issued.id, name: "laptop", status: "active", last_used_at: "2031-03-10T12:00:07Z" },
    ],
  );
  assert.ok(!JSON.stringify(list).includes("tk_live"));

  await expect(204, gateway.admin("DELETE", `${path}/${issued.id}`));
  const refused = await gateway.call(issued.key, "POST", "/search");
  assert.deepEqual([refused.status, refused.json().code], [401, "invalid_key"]);
  await expect(204, gateway.admin("DELETE", `${path}/${issued.id}`));
  assert.equal((await account.call("POST", "/search")).status, 200);
  assert.equal((await expect(200, gateway.admin("GET", path))).data[1].status, "revoked");
});

test("a plan's max_keys counts the keys that stand", async () => {
  const account = await openAccount(gateway, { plan: "free" });
  const keys = `/accounts/${account.id}/keys`;
  await account.anotherKey();
  await account.anotherKey();
  assert.equal((await expect(409, gateway.admin("POST", keys, {}))).code, "conflict");
  await expect(204, gateway.admin("DELETE", `${keys}/${account.keyId}`));
  await expect(201, gateway.admin("POST", keys, {}));
});

test("a grant answers with its lot, and the balance adds up", async () => {
  const account = await openAccount(gateway, { id: "lots", plan: "free" });
  const lot = await account.grant(20, "extra", { expires_at: "2031-06-01T02:00:00+02:00", reference: "PO 7" });
  const shown = {
    id: lot.id,
    source: "extra",
    amount: 20,
    spent: 0,
    held: 0,
    expired: 0,
    available: 20,
    granted_at: "2031-03-10T12:00:07Z",
    expires_at: "2031-06-01T00:00:00Z",
  };
  assert.deepEqual(lot, shown);
  await account.finished("POST", "/search");
  const { pools } = await expect(200, gateway.admin("GET", "/accounts/lots/balance"));
  assert.deepEqual(Object.keys(pools), ["credits", "lyrics"]);
  const { lots, ...sums } = pools.credits;
  assert.deepEqual(sums, {
    available: 69,
    held: 0,
    spent: 1,
    by_source: { subscription: 0, extra: 20, promo: 49 },
    renews_at: null,
  });
  assert.deepEqual(lots[1], shown);
  assert.equal(pools.lyrics.available, 0);
});

test("identical grants at the same moment make one lot; the same key with another body is refused", async () => {
  const account = await openAccount(gateway, { plan: "free" });
  const key = once();
  const grant = (amount) =>
    gateway.admin("POST", `/accounts/${account.id}/grants`, { pool: "credits", amount, source: "extra" }, key);
  const answers = await Promise.all(Array.from({ length: 8 }, () => grant(20)));
  const bodies = answers.map((answer) => (assert.equal(answer.status, 201), answer.text()));
  assert.equal(new Set(bodies).size, 1);
  assert.equal((await account.balance()).available, 70);
  assert.equal((await expect(422, grant(21))).code, "idempotency_mismatch");
  // Where credits are made it is kept for good, whatever comes between.
  clock.advance(400 * 86_400_000);
  await gateway.restart();
  assert.equal((await expect(201, grant(20))).amount, 20);
  assert.equal((await account.balance()).available, 70);
});

test("other answers are remembered for a day, in tables that are dropped whole", async (t) => {
  const daily = await startGateway(t, { policy: policyFor(origin, TABLES) });
  daily.clock.stop("2031-03-01T10:00:00Z");
  const { id } = await openAccount(daily, { plan: "starter" });
  const issue = async (key) => (await expect(201, daily.admin("POST", `/accounts/${id}/keys`, {}, key))).id;
  for (let day = 0; day < 4; day++) {
    const key = once();
    const issued = await issue(key);
    daily.clock.advance(23 * 3_600_000);
    assert.equal(await issue(key), issued, "the same key, not another");
    daily.clock.advance(3_600_001);
    assert.notEqual(await issue(key), issued);
  }
  await daily.kill();
  const tables = tablesOf(daily).filter((name) => name.startsWith("answers"));
  assert.deepEqual(tables.sort(), ["answers", "answers_2031_03_05", "answers_2031_03_06"]);
});

test("of requests that race, one opens the account and one makes the key", async () => {
  const opened = await Promise.all(
    Array.from({ length: 6 }, () => gateway.admin("POST", "/accounts", { id: "raced", plan: "free" }, once())),
  );
  assert.deepEqual(opened.map(({ status }) => status).sort(), [201, 409, 409, 409, 409, 409]);
  const key = once();
  const made = await Promise.all(
    Array.from({ length: 6 }, () => gateway.admin("POST", "/accounts/raced/keys", { name: "one" }, key)),
  );
  const keys = made.map((answer) => (assert.equal(answer.status, 201), answer.json()));
  assert.deepEqual(new Set(keys.map(({ id }) => id)), new Set(["key_raced_1"]));
  assert.equal(keys.filter(({ key }) => key !== null).length, 1);
  const grant = { pool: "credits", amount: 1, source: "extra" };
  await expect(404, gateway.admin("POST", "/accounts/nobody/grants", grant, once()));
});

test("an Idempotency-Key is required where accounts are opened or credits made", async () => {
  await openAccount(gateway, { id: "needs-key", plan: "free" });
  for (const [path, body] of [
    ["/accounts", { plan: "free" }],
    ["/accounts/needs-key/grants", { pool: "credits", amount: 1, source: "extra" }],
  ]) {
    const refused = await expect(400, gateway.admin("POST", path, body));
    assert.deepEqual([refused.code, refused.field], ["bad_request", "Idempotency-Key"]);
  }
});

test("a wrong body is refused with 400 and the field", async () => {
  await openAccount(gateway, { id: "strict", plan: "free" });
  const grant = { pool: "credits", amount: 1, source: "extra" };
  for (const [method, path, body, field] of [
    ["POST", "/accounts", { plan: "gold" }, "plan"],
    ["POST", "/accounts", {}, "plan"],
    ["POST", "/accounts", { plan: "free", id: "a b" }, "id"],
    ["POST", "/accounts", { plan: "free", colour: "red" }, "colour"],
    ["POST", "/accounts", { plan: "free", email: "nobody" }, "email"],
    ["POST", "/accounts", { plan: "free", external_id: "" }, "external_id"],
    ["POST", "/accounts", { plan: "free", region: "moon" }, "region"],
    ["POST", "/accounts", { plan: "free", subscription: { billing_day: 32 } }, "subscription.billing_day"],
    ["POST", "/accounts/strict/grants", { ...grant, amount: 0 }, "amount"],
    ["POST", "/accounts/strict/grants", { ...grant, amount: -5 }, "amount"],
    ["POST", "/accounts/strict/grants", { ...grant, amount: 1.5 }, "amount"],
    ["POST", "/accounts/strict/grants", '{"pool":"credits","source":"extra","amount":9007199254740992}', "amount"],
    ["POST", "/accounts/strict/grants", '{"pool":"credits","source":"extra","amount":1,"amount":2}', "amount"],
    ["POST", "/accounts/strict/grants", { ...grant, pool: "gold" }, "pool"],
    ["POST", "/accounts/strict/grants", { ...grant, source: "gift" }, "source"],
    ["POST", "/accounts/strict/grants", { ...grant, expires_at: "tomorrow" }, "expires_at"],
    ["POST", "/accounts/strict/grants", { ...grant, expires_at: "2020-01-01T00:00:00Z" }, "expires_at"],
    ["PATCH", "/accounts/strict", { status: "closed" }, "status"],
    ["PATCH", "/accounts/strict", { reason: "because" }, "reason"],
    ["PATCH", "/accounts/strict", { plan: "gold" }, "plan"],
    ["POST", "/accounts/strict/keys", { limits: "none" }, "limits"],
    ["GET", "/accounts/strict?full=1", undefined, "full"],
    ["GET", "/accounts/strict/usage?limit=501", undefined, "limit"],
    ["DELETE", "/accounts/strict/keys/first", undefined, "key"],
  ]) {
    const headers = { ...once(), "content-type": "application/json" };
    const problem = await expect(400, gateway.admin(method, path, body, headers));
    assert.deepEqual([problem.code, problem.field], ["bad_request", field], JSON.stringify(body));
    assert.ok(problem.detail.includes(field), problem.detail);
  }
  const told = await expect(400, gateway.admin("POST", "/accounts", "{nonsense", { ...once(), "content-type": "application/json" }));
  assert.equal(told.code, "bad_request");
  const form = await expect(400, gateway.admin("POST", "/accounts", "plan=free", once()));
  assert.equal(form.field, "Content-Type");
  const large = { plan: "free", name: "x".repeat(70_000) };
  assert.equal((await expect(413, gateway.admin("POST", "/accounts", large, once()))).code, "body_too_large");
  assert.equal((await expect(200, gateway.admin("GET", "/accounts/strict"))).plan, "free");
});

test("who may do what: no token, a wrong one, one that may only read, one that may only end calls", async () => {
  await openAccount(gateway, { id: "guarded", plan: "free" });
  const by = (token, method, path, headers = {}) =>
    gateway.send(method, `/_tollgate/v1${path}`, {
      headers: { ...(token && { authorization: `Bearer ${token}` }), ...headers },
    });
  for (const [token, method, path, status, code] of [
    [undefined, "GET", "/accounts/guarded", 401, "missing_key"],
    ["wrong", "GET", "/accounts/guarded", 401, "invalid_key"],
    [`${secrets.ADMIN_TOKEN}x`, "GET", "/accounts/guarded", 401, "invalid_key"],
    [secrets.KEY_SECRET, "GET", "/accounts/guarded", 401, "invalid_key"],
    [READ_TOKEN, "PATCH", "/accounts/guarded", 403, "out_of_scope"],
    [READ_TOKEN, "POST", "/accounts/guarded/keys", 403, "out_of_scope"],
    [READ_TOKEN, "DELETE", "/accounts/guarded/keys/key_guarded_1", 403, "out_of_scope"],
    [secrets.ORIGIN_TOKEN, "GET", "/accounts/guarded", 403, "out_of_scope"],
    [secrets.ADMIN_TOKEN, "GET", "/accounts/nobody", 404, "not_found"],
    [secrets.ADMIN_TOKEN, "GET", "/accounts/nobody/balance", 404, "not_found"],
    [secrets.ADMIN_TOKEN, "DELETE", "/accounts/guarded/keys/key_guarded_9", 404, "not_found"],
    [secrets.ADMIN_TOKEN, "DELETE", "/accounts/guarded/keys/key_other_1", 404, "not_found"],
    [secrets.ADMIN_TOKEN, "GET", "/nothing", 404, "not_found"],
    [undefined, "GET", "/nothing", 404, "not_found"],
    [secrets.ADMIN_TOKEN, "PUT", "/accounts/guarded", 405, "method_not_allowed"],
  ]) {
    const answer = await by(token, method, path);
    const { code: told } = await expect(status, answer);
    assert.equal(told, code, `${method} ${path}`);
    if (status === 405) assert.equal(answer.headers.allow, "GET, HEAD, PATCH, DELETE");
    assert.equal((await lineOf(gateway, answer)).rows, 0);
  }
  for (const path of ["/accounts/guarded", "/accounts/guarded/keys", "/accounts/guarded/balance", "/plans"]) {
    await expect(200, by(READ_TOKEN, "GET", path));
  }
  assert.equal((await by(undefined, "GET", "/healthz")).json().status, "ok");
});

test("the plans are told as the policy has them", async () => {
  const { data, next } = await expect(200, gateway.admin("GET", "/plans"));
  assert.equal(next, null);
  assert.deepEqual(data[1], {
    name: "starter",
    in_policy: true,
    accounts: data[1].accounts,
    paid: true,
    limits: {
      requests_per_minute: null,
      requests_per_day: null,
      requests_in_flight: null,
      jobs_open: null,
      account_requests_per_minute: null,
    },
    max_keys: null,
    grants: [{ pool: "credits", amount: 300, renews: "monthly", rollover: 20 }],
  });
});

test("secrets roll: what is listed as previous still counts, and no longer once it is not", async (t) => {
  const rolling = await startGateway(t, { policy: policyFor(origin, TABLES) });
  const account = await openAccount(rolling, { plan: "free" });
  const KEY_SECRET = "the-next-key-secret-0123456789abcdef01234";
  const ADMIN_TOKEN = "the-next-admin-token-0123456789abcdef0123";
  const withOld = () =>
    rolling.admin("GET", `/accounts/${account.id}`, undefined, {
      authorization: `Bearer ${secrets.ADMIN_TOKEN}`,
    });
  const previous = { KEY_SECRET_PREVIOUS: secrets.KEY_SECRET, ADMIN_TOKEN_PREVIOUS: secrets.ADMIN_TOKEN };
  await rolling.restart({ vars: { KEY_SECRET, ADMIN_TOKEN, ...previous } });
  const issued = await account.anotherKey();
  assert.equal((await account.call("POST", "/search")).status, 200);
  assert.equal((await issued.call("POST", "/search")).status, 200);
  assert.equal((await withOld()).status, 200);
  await rolling.restart({ vars: { KEY_SECRET, ADMIN_TOKEN } });
  assert.equal((await account.call("POST", "/search")).status, 401);
  assert.equal((await issued.call("POST", "/search")).status, 200);
  assert.equal((await withOld()).status, 401);
  assert.equal((await account.show()).id, account.id);
});

test("admin_hosts limits where the operating API answers", async (t) => {
  const narrow = await startGateway(t, {
    policy: policyFor(origin, TABLES, 'admin_hosts = ["admin.example.com"]'),
  });
  const at = (host) => narrow.admin("GET", "/plans", undefined, { host });
  assert.equal((await at("admin.example.com")).status, 200);
  assert.equal((await at("ADMIN.example.com:443")).status, 200);
  const elsewhere = await at("api.example.com");
  assert.deepEqual([elsewhere.status, elsewhere.json().code], [404, "no_route"]);
});

test("a deployment with a wrong secret serves nobody, and its log says which it is", async (t) => {
  const unfit = await startGateway(t, {
    policy: policyFor(origin, TABLES),
    vars: { KEY_SECRET: undefined, ORIGIN_SECRET: "too-short" },
  });
  const told = async () => {
    for (const path of ["/search", "/_tollgate/v1/healthz", "/me"]) {
      const refused = await unfit.send("GET", path);
      assert.deepEqual([refused.status, refused.json().code], [503, "unavailable"]);
      assert.equal(refused.headers["retry-after"], "1");
      assert.ok(!refused.text().includes("SECRET"), refused.text());
    }
    const { detail } = unfit.logs().findLast(({ event }) => event === "not_fit_to_serve");
    return detail;
  };
  const detail = await told();
  assert.match(detail, /KEY_SECRET is missing/);
  assert.match(detail, /ORIGIN_SECRET is shorter than 32 characters/);
  assert.ok(!detail.includes("too-short"));
  // Values for development are no secrets, and only `npm run dev` says that it is no deployment.
  const development = "development-only-key-secret-01234567890";
  await unfit.restart({ vars: { KEY_SECRET: development } });
  assert.match(await told(), /KEY_SECRET is a development value/);
  await unfit.restart({ vars: { KEY_SECRET: development, DEVELOPMENT: "true" } });
  assert.equal((await unfit.send("GET", "/_tollgate/v1/healthz")).status, 200);
});
