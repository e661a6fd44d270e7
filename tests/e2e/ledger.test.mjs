// The ledger and the audit, over HTTP.
import assert from "node:assert/strict";
import * as suite from "node:test";
import { before, beforeEach, test } from "node:test";
import { openAccount, policyFor } from "./harness/account.mjs";
import { startGateway } from "./harness/gateway.mjs";
import { startOrigin } from "./harness/origin.mjs";

const TABLES = `
[pools.credits]
[plans.free]
grants = [{ pool = "credits", amount = 50, renews = "never" }]
[[routes]]
match = "POST /search"
cost  = 2
`;

const origin = await startOrigin(suite);
const gateway = await startGateway(suite, { policy: policyFor(origin, TABLES) });
const { clock } = gateway;

before(() => clock.stop("2031-03-10T12:00:00Z"));
beforeEach(() => clock.advance(120_000));

const admin = (path) => gateway.admin("GET", path);

test("the ledger lists entries and charges, newest first, with the balance after each", async () => {
  const account = await openAccount(gateway);
  const search = await account.finished("POST", "/search");
  await account.grant(7, "extra", { reference: "order, 1" });
  const { data, next } = await account.page("/ledger");
  assert.equal(next, null);
  assert.deepEqual(
    data.map(({ kind, credits, balance, request_id, endpoint, reference }) => [
      kind,
      credits,
      balance,
      request_id,
      endpoint,
      reference,
    ]),
    [
      ["granted", 7, 55, null, null, "order, 1"],
      ["charged", -2, 48, search.headers["x-request-id"], "/search", null],
      ["granted", 50, 50, null, null, "free/credits"],
    ],
  );
  assert.deepEqual((await admin(`/accounts/${account.id}/ledger`)).json().data, data);

  const csv = await account.call("GET", "/ledger?limit=2", { headers: { accept: "text/csv" } });
  assert.equal(csv.headers["content-type"], "text/csv; charset=utf-8; header=present");
  assert.deepEqual(csv.text().split("\r\n"), [
    "timestamp,kind,pool,credits,balance,request_id,endpoint,key,lot,reference",
    `${data[0].timestamp},granted,credits,7,55,,,,2,"order, 1"`,
    `${data[1].timestamp},charged,credits,-2,48,${data[1].request_id},/search,${account.keyId},,`,
    "",
  ]);
  const [, link] = csv.headers.link.match(/^<(.*)>; rel="next"$/);
  const rest = await account.page(`/ledger${link}`);
  assert.deepEqual(rest, { data: data.slice(2), next: null });
});

test("a cursor is taken back only unchanged and by its own account", async () => {
  const [account, other] = [await openAccount(gateway), await openAccount(gateway)];
  for (const each of [account, other]) await each.grant(7);
  const { next } = await account.page("/ledger?limit=1");
  const forged = [next.slice(1), `A${next}`, next.slice(0, -1) + (next.endsWith("A") ? "B" : "A"), "1", ""];
  for (const cursor of forged) {
    const problem = await account.page(`/ledger?next=${cursor}`, 400);
    assert.equal(problem.code, "bad_request");
    assert.equal(problem.field, "next", problem.detail);
  }
  assert.equal((await other.page(`/ledger?next=${next}`, 400)).field, "next");
  assert.equal((await admin(`/accounts/${other.id}/ledger?next=${next}`)).status, 400);
  assert.equal((await admin(`/accounts/${account.id}/ledger?next=${next}`)).json().data.length, 1);
});

test("an audit books all of history anew and agrees with the balance", async () => {
  const account = await openAccount(gateway);
  for (const at of ["2031-03-31T23:59:00Z", "2031-04-01T00:01:00Z"]) {
    clock.moveTo(at);
    await account.finished("POST", "/search");
  }
  await gateway.restart();
  assert.deepEqual((await admin(`/accounts/${account.id}/audit`)).json(), {
    ok: true,
    entries: 1,
    calls: 2,
    pools: { credits: { balance: 46, held: 0, spent: 4, expired: 0 } },
    differences: [],
  });
});
