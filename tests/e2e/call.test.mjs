// A call goes through: what the caller sees, what the origin hears, what it costs the operator.
import assert from "node:assert/strict";
import * as suite from "node:test";
import { test } from "node:test";
import { lineOf, openAccount, policyFor } from "./harness/account.mjs";
import { secrets, startGateway } from "./harness/gateway.mjs";
import { startOrigin } from "./harness/origin.mjs";
import { untilStored } from "./harness/storage.mjs";

const origin = await startOrigin(suite);
const gateway = await startGateway(suite, {
  policy: policyFor(
    origin,
    `
[pools.credits]
[plans.free]
requests_per_minute = 5
requests_per_day    = 50
grants = [{ pool = "credits", amount = 50, renews = "never" }]
[plans.open]
grants = [{ pool = "credits", amount = 1000, renews = "never" }]
[[routes]]
match = "POST /search"
cost  = 1
[[routes]]
match = "GET /tracks/{id}"
cost  = 0
[[routes]]
match  = "GET /status"
public = true
root   = true
`,
    'base_path = "/api"',
  ),
});

test("a call carries all headers of the contract and reaches the origin with who called", async () => {
  gateway.clock.stop("2031-03-10T12:00:00Z");
  const account = await openAccount(gateway, { id: "acme", external_id: "customer 7", plan: "free" });
  const before = origin.requests.length;
  const answer = await account.call("POST", "/api/search?q=x", { body: { query: "blue" } });
  assert.equal(answer.status, 200);
  const of = (names) => Object.fromEntries(names.map((name) => [name, answer.headers[name]]));
  assert.deepEqual(
    of([
      "x-ratelimit-limit",
      "x-ratelimit-remaining",
      "x-ratelimit-limit-daily",
      "x-ratelimit-remaining-daily",
      "x-credits-remaining",
      "x-credits-charged",
      "x-request-id",
      "ratelimit-policy",
      "ratelimit",
    ]),
    {
      "x-ratelimit-limit": "5",
      "x-ratelimit-remaining": "4",
      "x-ratelimit-limit-daily": "50",
      "x-ratelimit-remaining-daily": "49",
      "x-credits-remaining": "49",
      "x-credits-charged": "1",
      "x-request-id": "call_acme_1",
      "ratelimit-policy": '"minute";q=5;w=60, "daily";q=50;w=86400',
      ratelimit: '"minute";r=4;t=60, "daily";r=49;t=43200',
    },
  );
  const received = await origin.request(before);
  assert.equal(received.path, "/api/search?q=x");
  assert.equal(String(await received.body), '{"query":"blue"}');
  assert.equal(received.headers["x-tollgate-account"], "acme");
  assert.equal(received.headers["x-tollgate-external-id"], "customer 7");
  assert.equal(received.headers["x-tollgate-key"], account.keyId);
  assert.equal(received.headers["x-tollgate-plan"], "free");
  assert.equal(received.headers["x-tollgate-call"], "call_acme_1");
  assert.equal(received.headers["x-tollgate-held"], "1");
  assert.equal(received.headers.authorization, undefined);
});

test("headers of limits that a plan does not have are left out", async () => {
  const account = await openAccount(gateway, { plan: "open" });
  const { headers } = await account.call("POST", "/api/search");
  assert.equal(headers["x-credits-remaining"], "999");
  const told = Object.keys(headers).filter((name) => name.includes("ratelimit"));
  assert.deepEqual(told, []);
});

test("the key is taken from either header, and a wrong one never reaches an object", async () => {
  const account = await openAccount(gateway, { plan: "free" });
  const by = async (headers) => (await gateway.send("GET", "/api/tracks/1", { headers })).status;
  assert.equal(await by({ "x-api-key": account.key }), 200);
  assert.equal(await by({ authorization: `bearer ${account.key}` }), 200);
  const forged = `${account.key.slice(0, -1)}${account.key.endsWith("A") ? "E" : "A"}`;
  for (const [headers, code] of [
    [{}, "missing_key"],
    [{ "x-api-key": forged }, "invalid_key"],
    [{ "x-api-key": "tk_live_short" }, "invalid_key"],
    [{ authorization: "Bearer somebody-elses" }, "missing_key"],
  ]) {
    const refused = await gateway.send("GET", "/api/tracks/1", { headers });
    assert.deepEqual([refused.status, refused.json().code], [401, code]);
    assert.equal(refused.headers["www-authenticate"], "Bearer");
    assert.equal(refused.headers["content-type"], "application/problem+json");
    assert.equal((await lineOf(gateway, refused)).rows, 0);
  }
});

test("a call writes two rows and a refused request none", async () => {
  const account = await openAccount(gateway, { plan: "free" });
  // The month's first call makes the month's table, too.
  await account.finished("POST", "/api/search");
  for (let nth = 2; nth <= 5; nth++) {
    const { status, line } = await account.finished(nth % 2 ? "POST" : "GET", nth % 2 ? "/api/search" : "/api/tracks/1");
    assert.deepEqual([status, line.rows], [200, 2]);
  }
  for (const [method, path, expected] of [
    ["POST", "/api/search", 429],
    ["POST", "/api/search", 429],
    ["GET", "/api/nowhere", 404],
    ["DELETE", "/api/search", 405],
    ["GET", "/api/tracks/%2e%2e", 400],
  ]) {
    const { status, line } = await account.finished(method, path);
    assert.deepEqual([status, line.rows], [expected, 0], `${method} ${path}`);
  }
  const broke = await openAccount(gateway, { plan: "open" });
  await broke.finished("POST", "/api/search");
  await broke.patch({ status: "suspended" });
  const { status, line } = await broke.finished("POST", "/api/search");
  assert.deepEqual([status, line.rows], [403, 0]);
});

test("under load a call writes two rows, and one in sixty-four at most one more", async () => {
  const account = await openAccount(gateway, { plan: "open" });
  await account.finished("POST", "/api/search");
  const answers = await Promise.all(
    Array.from({ length: 128 }, () => account.finished("POST", "/api/search")),
  );
  const rows = answers.reduce((sum, { line }) => sum + line.rows, 0);
  assert.ok(rows >= 256 && rows <= 256 + 128 / 64, `${rows} rows for 128 calls`);
});

test("where calls come one after the other, the end of one goes with the next, and no question is ahead of it", async () => {
  const account = await openAccount(gateway, { plan: "open" });
  await account.finished("POST", "/api/search");
  const answers = [];
  for (let nth = 2; nth <= 8; nth++) answers.push(await account.call("POST", "/api/search"));
  const page = await account.call("GET", "/api/usage");
  const { usage } = page.json();
  assert.deepEqual(usage.map((line) => [line.status_code, line.credits_consumed]), Array(8).fill([200, 1]));
  const lines = await Promise.all([...answers, page].map((answer) => lineOf(gateway, answer)));
  const rows = lines.map((line) => line.rows);
  assert.equal(rows.reduce((sum, written) => sum + written), 2 * answers.length);
  // The page told of the last, and wrote nothing itself.
  assert.equal(rows.at(-1), 1, `${rows}`);
});

test("an end that no other message takes along is told by itself", async () => {
  const account = await openAccount(gateway, { plan: "open" });
  for (let nth = 1; nth <= 7; nth++) await account.call("GET", "/api/tracks/1");
  // To ask the account would take them along: its database tells.
  await untilStored(gateway, (database) => {
    const { name } = database.prepare("SELECT max(name) AS name FROM sqlite_master WHERE name LIKE 'calls_%'").get();
    const ended = name && `SELECT count(ended_at) AS ended FROM ${name} WHERE endpoint = '/tracks/{id}'`;
    return ended && database.prepare(ended).get().ended === 7 ? true : null;
  });
});

test("each request has one structured line, and none tells a key, token or secret", async () => {
  const account = await openAccount(gateway, { id: "logged", plan: "free" });
  const asked = [
    await account.finished("POST", "/api/search?secret=in-the-query", { headers: { "x-note": "private" } }),
    await account.finished("GET", `/api/nowhere/${account.key}`),
    await account.finished("GET", "/status"),
    await account.finished("GET", "/api/me"),
  ];
  const refused = await gateway.send("GET", "/api/tracks/1");
  asked.push(Object.assign(refused, { line: await lineOf(gateway, refused) }));
  const [paid, , open, page] = asked;
  assert.deepEqual(
    { ...paid.line, ms: typeof paid.line.ms },
    {
      request_id: "call_logged_1",
      account: "logged",
      key: account.keyId,
      method: "POST",
      route: "/search",
      status: 200,
      ms: "number",
      rows: paid.line.rows,
    },
  );
  assert.equal(open.line.account, undefined);
  assert.equal(page.line.account, "logged");
  for (const { headers } of asked) {
    const lines = gateway.logs().filter(({ request_id }) => request_id === headers["x-request-id"]);
    assert.equal(lines.length, 1, headers["x-request-id"]);
  }
  const text = JSON.stringify(gateway.logs());
  const [, secretPart] = account.key.split("tk_live_");
  for (const secret of [...Object.values(secrets), secretPart, "in-the-query", "private"]) {
    assert.ok(!text.includes(secret), secret);
  }
});
