// Finding accounts: listed, searched, unique, and true again whatever was lost on the way.
import assert from "node:assert/strict";
import test from "node:test";
import { openAccount, policyFor } from "./harness/account.mjs";
import { objectFaults } from "./harness/faults.mjs";
import { secrets, startGateway } from "./harness/gateway.mjs";
import { startOrigin } from "./harness/origin.mjs";

const origin = await startOrigin(test);
const FREE = `
[plans.free]
grants = [{ pool = "credits", amount = 50, renews = "never" }]`;
const PRO = `
[plans.pro]
paid = true
max_keys = 7`;
const REST = `
[pools.credits]
[[routes]]
match = "GET /work"
cost = 1`;
const policy = policyFor(origin, FREE + PRO + REST);
const faults = objectFaults(policy);
const gateway = await startGateway(test, { policy, more: faults.more });

let asked = 0;
const open = (fields, key = `open-${++asked}`, of = gateway) =>
  of.admin("POST", "/accounts", { plan: "free", ...fields }, { "idempotency-key": key });

async function expect(status, asking) {
  const answer = await asking;
  assert.equal(answer.status, status, answer.text());
  return answer.json();
}

const list = (query = {}, of = gateway) =>
  expect(200, of.admin("GET", `/accounts?${new URLSearchParams(query)}`));
const ids = async (query, of) => (await list(query, of)).data.map(({ id }) => id);

// Lists may lag: asks until what is listed is as `matches` wants it.
async function listed(query, matches, of = gateway) {
  for (const until = Date.now() + 5_000; ; ) {
    const { data } = await list(query, of);
    if (matches(data)) return data;
    assert.ok(Date.now() < until, JSON.stringify(data));
  }
}

async function everyPage(query) {
  const pages = [];
  for (let cursor; cursor !== null; ) {
    const { data, next } = await list({ ...query, ...(cursor && { cursor }) });
    pages.push(data.map(({ id }) => id));
    cursor = next;
  }
  return pages;
}

test("an account is found as soon as it is open, and shown as its own page shows it", async () => {
  const opened = await expect(
    201,
    open({ id: "acme", external_id: "CRM 7", name: "Acme Söhne Ltd", email: "Ops@acme.example", plan: "pro" }),
  );
  for (const query of [
    {},
    { query: "ACME" },
    { query: "söhne l" },
    { query: "acme.exam" },
    { query: "crm" },
    { external_id: "CRM 7" },
    { plan: "pro" },
    { status: "active", plan: "pro", query: "ltd" },
  ]) {
    assert.deepEqual(await list(query), { data: [opened], next: null }, JSON.stringify(query));
  }
  for (const query of [{ query: "cme" }, { external_id: "crm 7" }, { plan: "free" }, { status: "suspended" }]) {
    assert.deepEqual(await list(query), { data: [], next: null }, JSON.stringify(query));
  }
  assert.deepEqual(await expect(200, gateway.admin("GET", "/accounts/acme")), opened);
});

test("what changes is listed as it is: status, plan, name", async () => {
  const customer = await openAccount(gateway, { id: "changing", name: "Before" });
  const patched = await customer.patch({ status: "suspended", reason: "invoice 7", name: "After", plan: "pro" });
  assert.deepEqual(await listed({ query: "after" }, (data) => data.length === 1), [patched]);
  assert.deepEqual(await ids({ status: "suspended" }), ["changing"]);
  assert.deepEqual(await ids({ query: "before" }), []);
  await customer.patch({ status: "active", plan: "free" });
  await listed({ status: "suspended" }, (data) => data.length === 0);
  assert.deepEqual(await ids({ plan: "free", query: "after" }), ["changing"]);
});

test("an external id belongs to one account, and a refused one leaves nothing behind", async () => {
  await expect(201, open({ id: "first", external_id: "cus_1" }));
  const before = await list({ query: "second" });
  const refused = await expect(409, open({ id: "second", external_id: "cus_1" }));
  assert.deepEqual([refused.code, refused.field], ["conflict", "external_id"]);
  assert.match(refused.detail, /first/);
  assert.equal((await expect(409, open({ id: "first", external_id: "cus_2" }))).field, "id");
  assert.deepEqual(await list({ query: "second" }), before);
  await expect(404, gateway.admin("GET", "/accounts/second"));
  await expect(404, gateway.admin("POST", "/accounts/second/keys", {}));
  // The id was not given out, so it can still be had.
  await expect(201, open({ id: "second", external_id: "cus_2" }));
  assert.deepEqual(await ids({ external_id: "cus_2" }), ["second"]);
});

test("an Idempotency-Key opens one account: another body, or another id, is refused", async () => {
  const opened = await expect(201, open({ id: "once", name: "One" }, "one-key"));
  assert.deepEqual(await expect(201, open({ id: "once", name: "One" }, "one-key")), opened);
  for (const other of [{ id: "once", name: "Two" }, { id: "twice", name: "One" }, { name: "One" }]) {
    assert.equal((await expect(422, open(other, "one-key"))).code, "idempotency_mismatch");
  }
  await expect(201, open({ id: "twice" }));
});

test("at the same moment: identical requests open one account, rivals for an external id too", async () => {
  const same = await Promise.all(Array.from({ length: 8 }, () => open({ external_id: "cus_same" }, "same")));
  assert.deepEqual(new Set(same.map(({ status }) => status)), new Set([201]));
  assert.equal(new Set(same.map((answer) => answer.json().id)).size, 1);
  assert.equal((await ids({ external_id: "cus_same" })).length, 1);

  const rivals = await Promise.all(
    Array.from({ length: 8 }, (_, n) => open({ id: `rival-${n}`, external_id: "cus_wanted" })),
  );
  const statuses = rivals.map(({ status }) => status).sort();
  assert.deepEqual(statuses, [201, ...Array(7).fill(409)]);
  assert.equal((await ids({ query: "rival" })).length, 1);

  const oneId = await Promise.all(Array.from({ length: 4 }, (_, n) => open({ id: "one-id", name: `Name ${n}` })));
  assert.deepEqual(oneId.map(({ status }) => status).sort(), [201, 409, 409, 409]);
});

test("many accounts are paged through, each once, newest first", async () => {
  const names = Array.from({ length: 100 }, (_, n) => `many-${n}`);
  await Promise.all(names.map((id) => expect(201, open({ id, name: `Many ${id}` }))));
  const expected = new Set(names);
  for (const [query, sizes] of [
    [{ query: "many", limit: 50 }, [50, 50]],
    [{ query: "many", limit: 30 }, [30, 30, 30, 10]],
  ]) {
    const pages = await everyPage(query);
    assert.deepEqual(pages.map(({ length }) => length), sizes);
    assert.deepEqual(new Set(pages.flat()), expected);
  }
  const all = (await everyPage({ limit: 500 })).flat();
  assert.equal(new Set(all).size, all.length);
  const last = await expect(201, open({ id: "newest" }));
  assert.deepEqual((await list({ limit: 1 })).data, [last]);
});

test("what is asked for wrongly is named", async () => {
  const { next } = await list({ limit: 2, plan: "free" });
  const changed = next.replace(/.$/, (end) => (end === "A" ? "B" : "A"));
  for (const [query, field] of [
    ["cursor=" + changed + "&plan=free", "cursor"],
    ["cursor=" + next, "cursor"],
    ["cursor=" + next + "&plan=pro", "cursor"],
    ["cursor=5", "cursor"],
    ["limit=0", "limit"],
    ["limit=501", "limit"],
    ["query=", "query"],
    ["query=%40", "query"],
    ["query=a%00b", "query"],
    ["status=open", "status"],
    ["keys=all", "keys"],
    ["external_id=%C3%A9", "external_id"],
    ["plan=", "plan"],
    ["name=acme", "name"],
    ["query=a&query=b", "query"],
  ]) {
    const refused = await expect(400, gateway.admin("GET", `/accounts?${query}`));
    assert.deepEqual([refused.code, refused.field], ["bad_request", field], query);
  }
  await expect(200, gateway.admin("GET", `/accounts?cursor=${next}&plan=free&limit=7`));
});

test("GET /plans counts accounts, and lists a plan that left the policy while an account has it", async (t) => {
  const other = await startGateway(t, { policy });
  await openAccount(other, { id: "old-timer", plan: "pro" });
  const plans = async () =>
    (await expect(200, other.admin("GET", "/plans"))).data.map(({ name, in_policy, accounts, max_keys }) => [
      name,
      in_policy,
      accounts,
      max_keys,
    ]);
  assert.deepEqual(await plans(), [["free", true, 0, null], ["pro", true, 1, 7]]);
  await other.restart({ policy: policyFor(origin, FREE + REST) });
  assert.deepEqual(await plans(), [["free", true, 0, null], ["pro", false, 1, 7]]);
  assert.deepEqual(await ids({ plan: "pro" }, other), ["old-timer"]);
  await expect(200, other.admin("PATCH", "/accounts/old-timer", { plan: "free" }));
  await listed({ plan: "free" }, (data) => data.length === 1, other);
  assert.deepEqual(await plans(), [["free", true, 1, null]]);
});

test("who still has a key under an older KEY_SECRET is listed until it is revoked or rotated", async (t) => {
  const other = await startGateway(t, { policy });
  const [old, idle] = [await openAccount(other, { id: "old" }), await openAccount(other, { id: "idle" })];
  const rotated = await openAccount(other, { id: "rotated" });
  const previous = (of) => ids({ keys: "previous" }, of);
  assert.deepEqual(await previous(other), []);
  await other.restart({
    vars: { KEY_SECRET: "the-next-key-secret-0123456789abcdef01234", KEY_SECRET_PREVIOUS: secrets.KEY_SECRET },
  });
  await openAccount(other, { id: "young" });
  assert.deepEqual((await previous(other)).sort(), ["idle", "old", "rotated"]);
  await expect(200, other.admin("POST", `/accounts/rotated/keys/${rotated.keyId}/rotate`, { overlap_seconds: 0 }));
  await listed({ keys: "previous" }, (data) => data.length === 2, other);
  await expect(201, other.admin("POST", "/accounts/old/keys", {}));
  assert.deepEqual((await previous(other)).sort(), ["idle", "old"]);
  assert.equal((await other.admin("DELETE", `/accounts/old/keys/${old.keyId}`)).status, 204);
  await listed({ keys: "previous" }, (data) => data.length === 1, other);
  assert.deepEqual(await previous(other), ["idle"]);
  assert.equal((await other.call(idle.key, "GET", "/work")).status, 200);
});

test("an opening that breaks off anywhere is finished by a repeat, and opens one account", async () => {
  for (const [n, fault] of ["break", "lose"].entries()) {
    const fields = { id: `broken-${n}`, external_id: `cus_broken_${n}` };
    const key = `broken-key-${n}`;
    // The gateway asks the object once more by itself.
    faults.directory.plan(fault, fault);
    assert.equal((await expect(503, open(fields, key))).code, "unavailable");
    await expect(404, gateway.admin("GET", `/accounts/${fields.id}`));
    const opened = await expect(201, open(fields, key));
    assert.deepEqual(await list({ external_id: fields.external_id }), { data: [opened], next: null });
    assert.equal((await expect(200, gateway.admin("GET", `/accounts/${fields.id}/balance`))).pools.credits.available, 50);
  }
  faults.plan("lose");
  const fields = { id: "broken-2", external_id: "cus_broken_2" };
  const opened = await expect(201, open(fields, "broken-key-2"));
  assert.deepEqual(await list({ external_id: "cus_broken_2" }), { data: [opened], next: null });
});

test("what the directory missed it is told by the alarm, after a kill too", async (t) => {
  const own = objectFaults(policy);
  const other = await startGateway(t, { policy, more: own.more });
  await openAccount(other, { id: "renamed", name: "Before" });
  await listed({ query: "before" }, (data) => data.length === 1, other);
  // Told once more by itself for the key that was made.
  own.directory.plan("break", "break", "break", "break");
  await expect(200, other.admin("PATCH", "/accounts/renamed", { name: "After" }));
  await expect(503, open({ id: "unfinished", external_id: "cus_unfinished" }, "unfinished", other));
  await other.kill();
  other.clock.advance(60_000);
  own.directory.plan();
  await other.restart();
  // Nobody wakes the objects but their alarms.
  await listed({ query: "after" }, (data) => data.length === 1, other);
  const [unfinished] = await listed({ external_id: "cus_unfinished" }, (data) => data.length === 1, other);
  assert.deepEqual(await expect(201, open({ id: "unfinished", external_id: "cus_unfinished" }, "unfinished", other)), unfinished);
});

test("calls do not pay for the directory", async () => {
  const customer = await openAccount(gateway, { id: "calling" });
  await listed({ query: "calling" }, (data) => data.length === 1);
  const told = faults.directory.messages;
  for (let call = 0; call < 5; call++) {
    const { line } = await customer.finished("GET", "/work");
    if (call > 0) assert.equal(line.rows, 2);
  }
  assert.equal(faults.directory.messages, told);
});

test("while the directory cannot be asked, lists say so, and calls go on", async () => {
  const customer = await openAccount(gateway, { id: "going-on" });
  await customer.finished("GET", "/work");
  for (const path of ["/accounts", "/plans"]) {
    faults.directory.plan("break", "break");
    assert.equal((await expect(503, gateway.admin("GET", path))).code, "unavailable");
  }
  faults.directory.plan("break");
  assert.equal((await customer.call("GET", "/work")).status, 200);
  faults.directory.plan();
});
