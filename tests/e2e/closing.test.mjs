// Closing an account: its keys are dead, its calls end as usual; kept for a time, then erased.
import assert from "node:assert/strict";
import * as suite from "node:test";
import { before, test } from "node:test";
import { lineOf, openAccount, policyFor } from "./harness/account.mjs";
import { startGateway } from "./harness/gateway.mjs";
import { echo, startOrigin } from "./harness/origin.mjs";
import { leaveAloneUntil, untilStored } from "./harness/storage.mjs";

const TABLES = `
[pools.credits]
[plans.free]
grants = [{ pool = "credits", amount = 100, renews = "monthly" }]
[[routes]]
match = "POST /search"
cost  = 3
[[routes]]
match = "POST /slow"
cost  = 5
`;

const origin = await startOrigin(suite);
const gateway = await startGateway(suite, {
  policy: policyFor(origin, TABLES, "usage_days = 7\nretain_days = 9"),
});
const { admin, clock } = gateway;

before(() => clock.stop("2031-03-20T12:20:00Z"));

async function asked(status, method, path, body, headers) {
  const answer = await admin(method, path, body, headers);
  assert.equal(answer.status, status, answer.text());
  return status === 204 ? null : answer.json();
}

test("a closed account: keys dead, calls ended, kept, its external id free, erased by the alarm", async () => {
  const account = await openAccount(gateway, { id: "leaving", external_id: "cus_1", name: "Leaving Ltd" });
  const first = await account.finished("POST", "/search");
  let answerNow;
  origin.on("POST /slow", (exchange) => {
    answerNow = () => echo(exchange);
  });
  const running = account.call("POST", "/slow");
  await origin.request(1);

  assert.equal(await asked(204, "DELETE", "/accounts/leaving"), null);
  await asked(204, "DELETE", "/accounts/leaving");
  for (const [method, path] of [["POST", "/search"], ["GET", "/me"], ["GET", "/ledger"]]) {
    const refused = await account.call(method, path);
    assert.deepEqual([refused.status, refused.json().code], [401, "invalid_key"], path);
  }
  answerNow();
  const ended = await running;
  assert.deepEqual([ended.status, ended.headers["x-credits-charged"]], [200, "5"]);
  await lineOf(gateway, ended);

  const shown = await account.show();
  assert.deepEqual([shown.status, shown.closed_at], ["closed", "2031-03-20T12:20:00Z"]);
  assert.equal((await account.balance()).spent, 8);
  for (const [method, path, body] of [
    ["PATCH", "/accounts/leaving", { status: "active" }],
    ["POST", "/accounts/leaving/keys", {}],
    ["DELETE", `/accounts/leaving/keys/${account.keyId}`],
    ["POST", "/accounts/leaving/grants", { pool: "credits", amount: 5, source: "extra" }],
    ["POST", "/accounts/leaving/adjustments", { pool: "credits", amount: 5, reason: "none" }],
  ]) {
    const refused = await asked(409, method, path, body, { "idempotency-key": `${method} ${path}`.replace(" ", "") });
    assert.equal(refused.code, "conflict", path);
    assert.match(refused.detail, /closed at 2031-03-20T12:20:00Z/);
  }
  const refunded = await asked(200, "POST", `/calls/${first.headers["x-request-id"]}/release`, {});
  assert.equal(refunded.state, "refunded");
  assert.equal((await asked(200, "GET", "/accounts/leaving/audit")).ok, true);

  // Lists may lag; then the external id is another account's to have.
  const heir = { id: "heir", external_id: "cus_1", plan: "free" };
  for (let status; status !== 201; ) {
    ({ status } = await admin("POST", "/accounts", heir, { "idempotency-key": `heir-${Math.random()}` }));
    assert.ok([201, 409].includes(status), `${status}`);
  }
  assert.deepEqual((await asked(200, "GET", "/accounts?status=closed")).data, [shown]);

  await leaveAloneUntil(gateway, new Date("2031-03-29T12:20:00Z"));
  const tables = await untilStored(gateway, (database) => {
    const named = database.prepare("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE '\\_%' ESCAPE '\\'");
    const names = named.all().map(({ name }) => name);
    return names.includes("tombstone") ? names : null;
  });
  assert.deepEqual(tables, ["tombstone"]);
  for (const path of ["", "/balance", "/ledger", "/keys"]) {
    assert.equal((await asked(404, "GET", `/accounts/leaving${path}`)).code, "not_found");
  }
  await asked(404, "GET", `/calls/${first.headers["x-request-id"]}`);
  assert.equal((await account.call("POST", "/search")).status, 401);
  const reopened = await asked(409, "POST", "/accounts", { id: "leaving", plan: "free" }, { "idempotency-key": "again" });
  assert.deepEqual([reopened.code, reopened.field], ["conflict", "id"]);
  // The directory is told from that alarm, too.
  for (let data; data?.length !== 1; ) ({ data } = await asked(200, "GET", "/accounts"));
  assert.deepEqual((await asked(200, "GET", "/accounts?query=leaving")).data, []);
});
