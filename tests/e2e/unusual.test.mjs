// Unusual consumption: flagged for the operator, and restricted for a while with a reason that the customer reads.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import * as suite from "node:test";
import { test } from "node:test";
import { inProject } from "../../scripts/project.mjs";
import { openAccount, policyFor } from "./harness/account.mjs";
import { secrets, startGateway } from "./harness/gateway.mjs";
import { startOrigin } from "./harness/origin.mjs";

const SECOND = 1_000;
const HOUR = 3_600 * SECOND;
const DAY = 24 * HOUR;
// An isolate may repeat a refusal for 5 s: a clock that moves on has it ask again.
const REPEATED = 5 * SECOND;

const origin = await startOrigin(suite);
const gateway = await startGateway(suite, {
  policy: policyFor(
    origin,
    `
[unusual]
spend_factor = 2
spend_floor = 12
refused_share = 0.8
refused_at_least = 20
restrict = "1h"
[pools.credits]
[plans.free]
requests_per_minute = 10
grants = [{ pool = "credits", amount = 500, renews = "never" }]
[[routes]]
match = "POST /search"
cost = 5
`,
  ),
});
const { clock } = gateway;
clock.stop("2031-03-10T12:00:00Z");

const search = (customer) => customer.call("POST", "/search");

// What the command line answers on the terminal of an operator's script.
async function tollgate(...words) {
  const child = spawn(process.execPath, [inProject("cli", "tollgate.mjs"), ...words], {
    env: { TOLLGATE_URL: gateway.url, TOLLGATE_ADMIN_TOKEN: secrets.ADMIN_TOKEN },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const pieces = await child.stdout.setEncoding("utf8").toArray();
  return JSON.parse(pieces.join(""));
}

// Lists may lag: asks until the list of flagged accounts is this one.
async function flaggedAre(ids) {
  for (const until = Date.now() + 5_000; ; ) {
    const { data } = await tollgate("accounts", "list", "--flagged");
    const found = data.map(({ id }) => id);
    if (found.join() === ids.join()) return data;
    assert.ok(Date.now() < until, `${found} and not ${ids}`);
  }
}

test("an account that spends far above its habit is flagged, restricted and set free", async () => {
  const account = await openAccount(gateway, { id: "acme" });
  await account.finished("POST", "/search");
  clock.advance(8 * DAY);
  for (let call = 0; call < 3; call++) await account.finished("POST", "/search");

  const refused = await search(account);
  assert.deepEqual([refused.status, refused.json().code], [403, "account_suspended"]);
  assert.equal(refused.headers["retry-after"], "3600");
  const reason =
    "unusual consumption: 15 credits of pool 'credits' in a day, " +
    "after at most 5 in a day of the four weeks before";
  assert.equal(refused.json().detail, `this account is restricted until 2031-03-18T13:00:00Z: ${reason}`);
  const me = await account.page("/me");
  assert.deepEqual([me.status, me.reason, me.restricted_until], ["active", reason, "2031-03-18T13:00:00Z"]);

  const line = await gateway.log(({ event }) => event === "account_flagged");
  assert.deepEqual([line.account, line.detail], ["acme", reason]);
  const [listed] = await flaggedAre(["acme"]);
  assert.deepEqual(listed, await account.show());
  assert.deepEqual(listed.flags, [
    {
      cause: "spending",
      at: "2031-03-18T12:00:00Z",
      pool: "credits",
      spent: 15,
      habit: 5,
      restricted_until: "2031-03-18T13:00:00Z",
    },
  ]);

  // The operator knows better.
  const { flags } = await tollgate("accounts", "unflag", "acme");
  assert.equal(flags, undefined);
  clock.advance(REPEATED);
  assert.equal((await account.finished("POST", "/search")).status, 200);
  assert.equal((await account.finished("POST", "/search")).status, 200);
  await flaggedAre([]);
});

test("a key that draws mostly refusals is restricted alone, those that isolates repeat counted", async () => {
  const account = await openAccount(gateway, { id: "loop" });
  const other = await account.anotherKey();
  const asked = [];
  for (let request = 0; request < 70; request++) asked.push((await search(account)).status);
  assert.deepEqual(new Set(asked), new Set([200, 429]));
  assert.equal((await account.show()).flags, undefined, "the isolate alone knows");

  clock.advance(REPEATED);
  const refused = await search(account);
  assert.deepEqual([refused.status, refused.json().code], [403, "account_suspended"]);
  assert.match(refused.json().detail, /^this API key is restricted until .*: \d+ of \d+ requests of this API key/);
  assert.equal((await search(other)).status, 200);
  const [flag] = (await account.show()).flags;
  assert.deepEqual([flag.cause, flag.key], ["refusals", account.keyId]);
  assert.ok(flag.refused >= 59 && flag.requests === flag.refused + 10, JSON.stringify(flag));
  const key = await gateway.admin("GET", `/accounts/loop/keys/${account.keyId}`);
  assert.deepEqual(key.json().flag, flag);

  // The clock ends it, also where it was restarted meanwhile.
  await gateway.restart();
  assert.equal((await search(account)).status, 403);
  clock.advance(HOUR);
  assert.equal((await search(account)).status, 200);
});
