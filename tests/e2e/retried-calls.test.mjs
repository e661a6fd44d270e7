// Where the origin deduplicates, a call that is sent again under its Idempotency-Key is charged once.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import test from "node:test";
import { openAccount, policyFor, statuses } from "./harness/account.mjs";
import { startGateway } from "./harness/gateway.mjs";
import { answer, echo, hold, resetBeforeHeaders, startOrigin } from "./harness/origin.mjs";

const DAY = 86_400_000;
const origin = await startOrigin(test);
const tables = `
"other.example.com" = "${origin.url}"
[pools.credits]
[plans.free]
requests_per_minute = 40
requests_per_day = 60
jobs_open = 1
grants = [{ pool = "credits", amount = 100, renews = "never" }]
[[routes]]
match = "POST /make"
when = { "header.x-model" = "large" }
cost = 60
idempotency = "origin"
[[routes]]
match = "POST /make"
cost = 40
idempotency = "origin"
[[routes]]
match = "GET /make"
cost = 40
idempotency = "origin"
[[routes]]
match = "POST /train"
charge = { rate = 1, unit = 1, from = "body.minutes", maximum = 90 }
job = { settle_within = "1h" }
idempotency = "origin"
[[routes]]
match = "POST /stream"
cost = 40
whole_body = true
idempotency = "origin"
[[routes]]
match = "POST /plain"
cost = 40
`;
const gateway = await startGateway(test, { policy: policyFor(origin, tables, "body_limit = 4096") });

const opened = () => openAccount(gateway);

// A request under an Idempotency-Key, and its end.
const under = (account, name, { path = "/make", method = "POST", ...options } = {}) =>
  account.finished(method, path, { ...options, headers: { "idempotency-key": name, ...options.headers } });

// What its caller is told, and how many rows it took.
const told = ({ status, headers, line }) => [status, headers["x-credits-charged"], line.rows];

// A table for the day, and a snapshot: the first of a day takes more rows than those after it.
async function openedToday() {
  const account = await opened();
  origin.on("/make", answer({ status: 500 }));
  await under(account, "first-of-the-day");
  origin.on("/make", echo);
  return account;
}

test("a repeat is forwarded and counted, and not charged again", async () => {
  const account = await openedToday();
  const body = randomBytes(4096);
  const first = await under(account, "order-1", { body });
  assert.deepEqual(told(first), [200, "40", 3]);
  // For another call of this price there are not enough credits, which the isolate remembers.
  assert.equal((await account.finished("POST", "/make", { body })).status, 200);
  assert.deepEqual(told(await account.finished("POST", "/make", { body })), [402, "0", 0]);
  const received = origin.requests.length;
  const repeat = await under(account, "order-1", { body });
  assert.deepEqual(told(repeat), [200, "0", 2]);
  assert.deepEqual(told(await account.finished("POST", "/make", { body })), [402, "0", 0]);
  assert.deepEqual(told(await under(account, "order-1", { body })), [200, "0", 2]);

  assert.equal(origin.requests.length, received + 2);
  const { headers, body: sent } = origin.requests[received];
  assert.deepEqual(await sent, body);
  assert.equal(headers["idempotency-key"], "order-1");
  assert.equal(headers["x-tollgate-call"], repeat.headers["x-request-id"]);
  assert.notEqual(headers["x-tollgate-call"], first.headers["x-request-id"]);
  assert.equal(headers["x-tollgate-held"], "0");
  assert.equal(repeat.headers["x-ratelimit-remaining-daily"], "56");
  assert.deepEqual([await account.balance()].map(({ available, spent }) => [available, spent]), [[20, 80]]);
  const shown = await gateway.admin("GET", `/calls/${repeat.headers["x-request-id"]}`);
  assert.equal(shown.json().repeats, first.headers["x-request-id"]);
  assert.deepEqual(
    (await account.usage()).usage.map((line) => line.credits_consumed),
    [0, 0, 40, 40, 0],
  );
});

test("of many at once one is charged, and the others wait for its answer", async () => {
  const account = await openedToday();
  const held = hold();
  origin.on("/make", held);
  const first = under(account, "at-once");
  const atOrigin = await held.next();
  const waiting = await under(account, "at-once");
  assert.deepEqual(told(waiting), [409, "0", 0]);
  assert.deepEqual([waiting.json().code, waiting.headers["retry-after"]], ["conflict", "1"]);
  assert.deepEqual(await statuses(9, () => under(account, "at-once")), Array(9).fill(409));
  atOrigin.begin(200);
  atOrigin.end();
  assert.deepEqual(told(await first), [200, "40", 3]);

  origin.on("/make", echo);
  assert.deepEqual(await statuses(9, () => under(account, "at-once")), Array(9).fill(200));
  const racing = await statuses(9, () => under(account, "racing"));
  assert.ok(racing.every((status) => status === 200 || status === 409));
  assert.equal((await account.balance()).spent, 80);
});

test("a repeat has the same method, host, path, query, body and priced headers; anything else is 422", async () => {
  const account = await openedToday();
  const sent = { path: "/make?a=1", body: "one", headers: { "x-model": "small" } };
  assert.equal((await under(account, "k", sent)).status, 200);
  for (const other of [
    { ...sent, body: "two" },
    { ...sent, body: undefined },
    { ...sent, path: "/make?a=2" },
    { ...sent, path: "/make" },
    { ...sent, path: "/stream" },
    { ...sent, method: "GET" },
    { ...sent, headers: { "x-model": "medium" } },
    { ...sent, headers: {} },
    { ...sent, headers: { ...sent.headers, host: "other.example.com" } },
  ]) {
    const refused = await under(account, "k", other);
    assert.deepEqual(told(refused), [422, "0", 0]);
    assert.equal(refused.json().code, "idempotency_mismatch");
  }
  const unpriced = { ...sent, headers: { ...sent.headers, "x-other": "1", "content-type": "text/plain" } };
  assert.deepEqual(told(await under(account, "k", unpriced)), [200, "0", 2]);
  // Another key's Idempotency-Keys are its own.
  assert.deepEqual(told(await under(await account.anotherKey(), "k", sent)), [200, "40", 3]);
});

test("what cannot be a repeat's is refused by name, and costs nothing", async () => {
  const account = await opened();
  const received = origin.requests.length;
  for (const name of ["two words", "k".repeat(256), '"open', '"a", "b"', "é"]) {
    const refused = await under(account, Buffer.from(name).toString("latin1"));
    assert.deepEqual([refused.status, refused.json().field, refused.line.rows], [400, "Idempotency-Key", 0]);
  }
  // An origin behind CGI could take the second for the first.
  const twice = await under(account, "a", { headers: { Idempotency_Key: "b" } });
  assert.deepEqual([twice.status, twice.json().field], [400, "Idempotency-Key"]);
  const large = await under(account, "a", { body: randomBytes(4097) });
  assert.deepEqual([large.status, large.json().code], [413, "body_too_large"]);
  assert.equal(origin.requests.length, received);
  for (const name of ['"two words"', "k".repeat(255)])
    assert.equal((await under(account, name)).headers["x-credits-charged"], "40");
});

test("without the header, or where it does not reach the origin, each request is a call", async () => {
  const account = await opened();
  await account.grant(100);
  const body = randomBytes(5000);
  assert.deepEqual(told(await account.finished("POST", "/make", { body })).slice(0, 2), [200, "40"]);
  const hidden = { headers: { connection: "close, idempotency-key" } };
  for (const charged of ["40", "40"])
    assert.equal((await under(account, "hop", hidden)).headers["x-credits-charged"], charged);
  const plain = { path: "/plain", body };
  for (const charged of ["40", "40"])
    assert.equal((await under(account, "k", plain)).headers["x-credits-charged"], charged);
});

test("a repeat of a call that failed or was refunded is a new call", async () => {
  const account = await openedToday();
  origin.on("/make", resetBeforeHeaders());
  assert.deepEqual(told(await under(account, "k")), [502, "0", 3]);
  origin.on("/make", answer({ status: 503 }));
  assert.deepEqual(told(await under(account, "k")), [503, "0", 3]);
  origin.on("/make", echo);
  const paid = await under(account, "k");
  assert.deepEqual(told(paid), [200, "40", 3]);
  assert.deepEqual(told(await under(account, "k")), [200, "0", 2]);
  const refund = await gateway.admin("POST", `/calls/${paid.headers["x-request-id"]}/release`, {});
  assert.equal(refund.json().state, "refunded");
  assert.deepEqual(told(await under(account, "k")), [200, "40", 3]);
  assert.equal((await account.balance()).spent, 40);
});

test("a job's first runs until its answer; while the job goes on, and when it is paid, repeats are free", async () => {
  const account = await opened();
  origin.on("/train", answer({ status: 202 }));
  const sent = { path: "/train", body: { minutes: 30 } };
  const first = await under(account, "job", sent);
  assert.deepEqual([first.status, first.headers["x-credits-charged"]], [202, undefined]);
  // The plan allows one open job, and this opens none.
  assert.deepEqual(told(await under(account, "job", sent)), [202, "0", 2]);
  assert.equal((await account.balance()).held, 30);
  const settled = await gateway.admin("POST", `/calls/${first.headers["x-request-id"]}/settle`, { credits: 20 });
  assert.equal(settled.json().charged, 20);
  assert.deepEqual(told(await under(account, "job", sent)), [202, "0", 2]);
});

test("an answer that is charged whole has its repeats wait for its end", async () => {
  const account = await openedToday();
  const held = hold();
  origin.on("/stream", held);
  const first = under(account, "s", { path: "/stream" });
  const atOrigin = await held.next();
  atOrigin.begin(200);
  await atOrigin.write("begun");
  assert.equal((await under(account, "s", { path: "/stream" })).status, 409);
  atOrigin.end("done");
  assert.equal((await first).text(), "begundone");
  origin.on("/stream", answer({ body: "again" }));
  const repeat = await under(account, "s", { path: "/stream" });
  assert.deepEqual(told(repeat), [200, "0", 2]);
  assert.equal((await account.balance()).spent, 40);
});

test("a GET can be repeated, and keeps the body that it should not have", async () => {
  const account = await openedToday();
  for (const body of [undefined, "odd"]) {
    const sent = { method: "GET", body, headers: body && { "content-length": "3" } };
    for (const charged of ["40", "0"]) {
      const answered = await under(account, `get-${body}`, sent);
      assert.deepEqual([answered.headers["x-credits-charged"], answered.json().body], [charged, body ?? ""]);
    }
  }
});

test("a repeat is known after a restart, and for a day", async () => {
  const account = await openedToday();
  assert.deepEqual(told(await under(account, "k")), [200, "40", 3]);
  await gateway.restart();
  assert.equal((await under(account, "k")).headers["x-credits-charged"], "0");
  gateway.clock.advance(DAY - 60_000);
  assert.equal((await under(account, "k")).headers["x-credits-charged"], "0");
  gateway.clock.advance(60_000);
  assert.equal((await under(account, "k")).headers["x-credits-charged"], "40");
  // Old days' tables go.
  for (let day = 0; day < 3; day++) {
    await account.grant(40);
    gateway.clock.advance(DAY);
    assert.equal((await under(account, "k")).headers["x-credits-charged"], "40");
    assert.equal((await under(account, "k")).headers["x-credits-charged"], "0");
  }
  assert.equal(Math.max(...tablesOfFirsts()), 3);
});

function tablesOfFirsts() {
  const files = readdirSync(gateway.state, { recursive: true }).filter((name) => /[0-9a-f]{64}\.sqlite$/.test(name));
  return files.map((file) => {
    const database = new DatabaseSync(join(gateway.state, file), { readOnly: true });
    const tables = database.prepare("SELECT name FROM sqlite_master WHERE name LIKE 'firsts_%'").all();
    database.close();
    return tables.length;
  });
}
