// Everything about one account, as JSON lines.
import assert from "node:assert/strict";
import test from "node:test";
import { openAccount, policyFor } from "./harness/account.mjs";
import { objectFaults } from "./harness/faults.mjs";
import { startGateway } from "./harness/gateway.mjs";
import { startOrigin } from "./harness/origin.mjs";
import { changeStored } from "./harness/storage.mjs";

const TABLES = `
[pools.credits]
[plans.free]
grants = [{ pool = "credits", amount = 100, renews = "monthly" }]
[[routes]]
match = "POST /search/*"
cost  = 3
[[routes]]
match = "GET /free"
cost  = 0
`;

const origin = await startOrigin(test);
const policy = policyFor(origin, TABLES);
const faults = objectFaults(policy);
const gateway = await startGateway(test, { policy, more: faults.more });

const exported = (id, query = "") => gateway.admin("GET", `/accounts/${id}/export${query}`);

function linesOf(answer) {
  assert.equal(answer.status, 200, answer.text());
  assert.equal(answer.headers["content-type"], "application/x-ndjson");
  const text = answer.text();
  assert.ok(text.endsWith("\n"));
  return text.trimEnd().split("\n").map((line) => JSON.parse(line));
}

test("an export has the account, its keys, its entries and its calls, and an end", async () => {
  const account = await openAccount(gateway, { id: "exported", name: "Söhne" });
  await account.grant(40);
  const called = await account.finished("POST", "/search/a");
  const answer = await exported("exported");
  const lines = linesOf(answer);
  const types = lines.map(({ type }) => type);
  assert.deepEqual(types, ["export", "account", "plan", "balance", "key", "entry", "entry", "call", "end"]);
  const only = (type) => lines.find((line) => line.type === type);
  assert.deepEqual(only("account"), { type: "account", ...(await account.show()) });
  assert.equal(only("call").id, called.headers["x-request-id"]);
  assert.equal(only("balance").pools.credits.spent, 3);
  assert.deepEqual(only("end"), { type: "end", lines: 8 });
  assert.ok(!answer.text().includes(account.key));
  assert.ok(answer.headers["x-request-id"]);

  const head = await gateway.admin("HEAD", "/accounts/exported/export");
  assert.deepEqual([head.status, head.text()], [200, ""]);
  assert.equal((await exported("nobody")).status, 404);
  const wrong = await exported("exported", "?next=5");
  assert.deepEqual([wrong.status, wrong.json().field], [400, "next"]);
});

test("a long export comes slice by slice, and one that breaks off has no end", async () => {
  const account = await openAccount(gateway, { id: "long" });
  await account.finished("GET", "/free");
  await gateway.kill();
  // A history as nobody wants to make it call by call: the first call's row, again and again.
  const calls = 12_000;
  const columns = "at, key, method, endpoint, hold, state, status, charged, response_time_ms, ended_at, nth_end";
  changeStored(gateway, (database) => {
    const [month] = database.prepare("SELECT name FROM sqlite_master WHERE name LIKE 'calls_%'").all();
    if (!month || database.prepare(`SELECT 1 FROM ${month.name} WHERE endpoint = '/free'`).all().length === 0) return;
    database.exec(`WITH RECURSIVE n(number) AS (SELECT 2 UNION ALL SELECT number + 1 FROM n WHERE number < ${calls})
      INSERT INTO ${month.name} (number, ${columns}) SELECT n.number, ${columns} FROM n, ${month.name} WHERE ${month.name}.number = 1`);
  });
  await gateway.restart();

  const told = faults.messages;
  const lines = linesOf(await exported("long"));
  assert.ok(faults.messages - told >= 3, `${faults.messages - told} slices`);
  const ids = lines.filter(({ type }) => type === "call").map(({ id }) => id);
  assert.deepEqual(ids, Array.from({ length: calls }, (_, n) => `call_long_${n + 1}`));
  assert.deepEqual(lines.at(-1), { type: "end", lines: lines.length - 1 });

  // One slice that cannot be had is asked for once more; then the answer breaks off.
  faults.plan("pass", "pass", "break");
  assert.equal(linesOf(await exported("long")).length, lines.length);
  faults.plan("pass", "pass", "break", "break");
  // Locally the runtime does not show that an answer was broken off: the last line has to tell.
  const cut = linesOf(await exported("long"));
  assert.ok(cut.length > 1_000 && cut.every(({ type }) => type !== "end"), `${cut.length} lines`);
  await gateway.log((line) => line.event === "export_failed");
});
