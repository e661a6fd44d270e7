// What happens while an account's object cannot answer.
import assert from "node:assert/strict";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import test from "node:test";
import { openAccount } from "./harness/account.mjs";
import { objectFaults } from "./harness/faults.mjs";
import { startGateway } from "./harness/gateway.mjs";
import { startOrigin } from "./harness/origin.mjs";

const origin = await startOrigin(test);
const policy = (mode = "enforce") => `
[gateway]
key_prefix = "tk_live"
mode = "${mode}"
[origins]
default = "${origin.url}"
[pools.credits]
[plans.free]
requests_in_flight = 1
grants = [{ pool = "credits", amount = 100, renews = "never" }]
[[routes]]
match = "GET /work"
cost = 4
[[routes]]
match = "GET /vital"
cost = 0
when_unavailable = "allow"
[[routes]]
match = "GET /free"
cost = 0
`;
const faults = objectFaults(policy());
const gateway = await startGateway(test, { policy: policy(), more: faults.more });
const customer = await openAccount(gateway);
const call = (path) => gateway.call(customer.key, "GET", path);

const isRefused = (answered) => {
  const { status, headers } = answered;
  assert.deepEqual([status, answered.json().code, headers["retry-after"]], [503, "unavailable", "1"]);
  // The object had no part in it: nothing is known of limits and credits.
  assert.equal(headers["x-credits-remaining"], undefined);
  assert.match(headers["x-request-id"], /^req_/);
};

// Nothing held, nothing spent beyond `spent`, and nothing in flight, of which one is allowed.
async function standsAt(spent) {
  const { held, spent: found } = await customer.balance();
  assert.deepEqual({ held, found }, { held: 0, found: spent });
  const answered = await call("/free");
  assert.equal(answered.status, 200);
  await gateway.log((line) => line.request_id === answered.headers["x-request-id"]);
}

test("an object that fails: 503 with Retry-After, and nothing is forwarded", async () => {
  const { spent } = await customer.balance();
  for (const path of ["/work", "/free"]) {
    const [at, told] = [origin.requests.length, faults.messages];
    faults.plan("break");
    isRefused(await call(path));
    assert.equal(origin.requests.length, at);
    // The admission, and the cancel that undoes it.
    await faults.told(told + 2);
  }
  await standsAt(spent);
});

test("an admission whose answer is lost is undone in the background", async () => {
  const { spent } = await customer.balance();
  const [at, told] = [origin.requests.length, faults.messages];
  faults.plan("lose");
  isRefused(await call("/work"));
  await faults.told(told + 2);
  assert.equal(origin.requests.length, at);
  await standsAt(spent);
});

test("where the first cancel fails too, the second undoes it", async () => {
  const { spent } = await customer.balance();
  const told = faults.messages;
  faults.plan("lose", "break");
  isRefused(await call("/work"));
  await faults.told(told + 3);
  await standsAt(spent);
});

test("where the runtime says that a retry may help, the same call is asked for once more, and made once", async () => {
  const { spent } = await customer.balance();
  for (const [n, fault] of ["break retryable", "lose retryable"].entries()) {
    const [at, told] = [origin.requests.length, faults.messages];
    faults.plan(fault);
    const answered = await call("/work");
    assert.deepEqual([answered.status, answered.headers["x-credits-charged"]], [200, "4"]);
    assert.equal(origin.requests.length, at + 1);
    // Admitted, admitted again, settled.
    await gateway.log((line) => line.request_id === answered.headers["x-request-id"]);
    assert.equal(faults.messages, told + 3);
    await standsAt(spent + 4 * (n + 1));
  }
});

test("an overloaded object is not asked again", async () => {
  const { spent } = await customer.balance();
  const told = faults.messages;
  faults.plan("break retryable overloaded");
  isRefused(await call("/work"));
  await faults.told(told + 2);
  await standsAt(spent);
  // One admission and one cancel; the balance and the free call came after.
  assert.equal(faults.messages, told + 2 + 3);
});

test("a route of cost 0 that says so goes through without its account, unnamed to the origin", async () => {
  const at = origin.requests.length;
  faults.plan("break");
  const answered = await call("/vital");
  assert.equal(answered.status, 200);
  const { headers } = await origin.request(at);
  assert.equal(headers["x-tollgate-account"], undefined);
  assert.match(headers["x-tollgate-signature"], /^t=\d+,v1=/);
  const line = await gateway.log((line) => line.request_id === answered.headers["x-request-id"]);
  assert.deepEqual([line.status, line.would_refuse], [200, "unavailable"]);
  assert.equal(answered.headers["x-credits-remaining"], undefined);
});

test("a settlement that fails once is told again", async () => {
  const { spent } = await customer.balance();
  for (const [n, fault] of ["break", "lose"].entries()) {
    faults.plan("pass", fault);
    const answered = await call("/work");
    assert.equal(answered.status, 200);
    const line = await gateway.log((line) => line.request_id === answered.headers["x-request-id"]);
    assert.equal(line.detail, undefined);
    await standsAt(spent + 4 * (n + 1));
  }
});

test("self-service and the admin API say so, too", async () => {
  for (const ask of [() => call("/me"), () => gateway.admin("GET", `/accounts/${customer.id}/balance`)]) {
    faults.plan("break", "break");
    isRefused(await ask());
  }
});

test("observing, the call goes through", async (t) => {
  const observed = objectFaults(policy("observe"));
  const other = await startGateway(t, { policy: policy("observe"), more: observed.more });
  const { key } = await openAccount(other);
  const at = origin.requests.length;
  observed.plan("break");
  assert.equal((await other.call(key, "GET", "/work")).status, 200);
  assert.equal(origin.requests.length, at + 1);
});

test("a database that cannot be read refuses its own account alone", async (t) => {
  const other = await startGateway(t, { policy: policy() });
  const [broken, sound] = [await openAccount(other), await openAccount(other, { id: "sound" })];
  await other.kill();
  await breakDatabaseOf(other.state, broken.id);
  await other.restart();
  const at = origin.requests.length;
  isRefused(await other.call(broken.key, "GET", "/work"));
  assert.equal(origin.requests.length, at);
  assert.equal((await other.call(sound.key, "GET", "/work")).status, 200);
});

// Writes over every page of this account's database, but leaves its header alone.
async function breakDatabaseOf(state, id) {
  for (const name of await readdir(state, { recursive: true })) {
    if (!/-Account\b.*\/[0-9a-f]+\.sqlite$/.test(name)) continue;
    const path = join(state, name);
    const bytes = await readFile(path);
    const log = await readFile(`${path}-wal`).catch(() => Buffer.alloc(0));
    if (!bytes.includes(id) && !log.includes(id)) continue;
    await writeFile(path, bytes.fill(0xff, 100));
    await writeFile(`${path}-wal`, "");
  }
}
