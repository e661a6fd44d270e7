// Policies change under live accounts: each deploy here is a restart with another policy on the same state.
import assert from "node:assert/strict";
import { test } from "node:test";
import { openAccount, policyFor, statuses } from "./harness/account.mjs";
import { startGateway } from "./harness/gateway.mjs";
import { neverAnswer, startOrigin } from "./harness/origin.mjs";

const PLAN = `
[plans.free]
requests_per_minute = 5
grants = [{ pool = "credits", amount = 50, renews = "monthly" }]
`;
const OTHER_PLAN = `
[plans.other]
`;
const ROUTE = `
[[routes]]
match = "POST /search"
cost  = 1
`;
const CREDITS = "\n[pools.credits]\n";

async function start(t, tables = CREDITS + PLAN + ROUTE, gatewayTable) {
  const origin = await startOrigin(t);
  const gateway = await startGateway(t, { policy: policyFor(origin, tables, gatewayTable) });
  gateway.clock.stop("2031-03-10T12:00:00Z");
  const deploy = (changed, changedTable) =>
    gateway.restart({ policy: policyFor(origin, changed, changedTable) });
  return { origin, gateway, clock: gateway.clock, deploy };
}

test("a plan that leaves the policy stays in force for its accounts", async (t) => {
  const { gateway, clock, deploy } = await start(t);
  const account = await openAccount(gateway, { plan: "free" });
  await account.finished("POST", "/search");
  await deploy(CREDITS + OTHER_PLAN + ROUTE);
  assert.deepEqual(
    await statuses(5, () => account.call("POST", "/search")),
    [200, 200, 200, 200, 429],
  );
  clock.moveTo("2031-04-10T00:00:00Z");
  const { tier, credits_remaining } = await account.page("/me");
  assert.deepEqual([tier, credits_remaining], ["free", 50]);
  const unknown = await gateway.admin("POST", "/accounts", { plan: "free" }, { "idempotency-key": "new" });
  assert.deepEqual([unknown.status, unknown.json().field], [400, "plan"]);
});

test("a plan's new limits and allowance reach its accounts with the deploy", async (t) => {
  const { gateway, clock, deploy } = await start(t);
  const account = await openAccount(gateway, { plan: "free" });
  assert.equal((await statuses(6, () => account.call("POST", "/search"))).at(-1), 429);
  await deploy(CREDITS + PLAN.replace("= 5\n", "= 7\n").replace("amount = 50", "amount = 80") + ROUTE);
  assert.deepEqual(await statuses(3, () => account.call("POST", "/search")), [200, 200, 429]);
  clock.moveTo("2031-04-10T00:00:00Z");
  assert.equal((await account.balance()).available, 80);
});

test("a new price is charged from the deploy on; what was admitted before ends by its own", async (t) => {
  const { origin, gateway, clock, deploy } = await start(t, undefined, "hold_seconds = 300");
  const account = await openAccount(gateway, { plan: "free" });
  origin.on("POST /search", neverAnswer());
  gateway.open("POST", "/search", { headers: { authorization: `Bearer ${account.key}` } }).end();
  await origin.request(0);
  await deploy(CREDITS + PLAN + ROUTE.replace("cost  = 1", "cost  = 20"), "hold_seconds = 300");
  origin.on("POST /search", ({ outgoing }) => outgoing.end());
  assert.equal((await account.finished("POST", "/search")).headers["x-credits-remaining"], "29");
  const { held, spent } = await account.balance();
  assert.deepEqual([held, spent], [1, 20]);
  clock.advance(300_000);
  assert.equal((await account.balance()).available, 30);
});

test("a pool that leaves the policy keeps its lots, shown and unspendable", async (t) => {
  const lyrics = "\n[pools.lyrics]\n";
  const { gateway, deploy } = await start(t, CREDITS + lyrics + PLAN + ROUTE);
  const account = await openAccount(gateway, { plan: "free" });
  await account.grant(30, "extra", { pool: "lyrics" });
  await deploy(CREDITS + PLAN + ROUTE);
  const { available, lots } = await account.balance("lyrics");
  assert.deepEqual([available, lots[0].amount, lots[0].available], [0, 30, 30]);
  await deploy(CREDITS + lyrics + PLAN + ROUTE);
  assert.equal((await account.balance("lyrics")).available, 30);
});

test("days, months and billing days start when the policy says, not at UTC's midnight", async (t) => {
  const plan = PLAN.replace("requests_per_minute = 5", "requests_per_day = 2");
  const { gateway, clock } = await start(t, CREDITS + plan + ROUTE, 'day_starts = "06:00+02:00"');
  const account = await openAccount(gateway, { plan: "free", subscription: { billing_day: 11 } });
  assert.deepEqual(await statuses(3, () => account.call("POST", "/search")), [200, 200, 429]);
  assert.equal((await account.balance()).renews_at, "2031-03-11T04:00:00Z");
  clock.moveTo("2031-03-11T03:59:59.999Z");
  assert.equal((await account.call("POST", "/search")).status, 429);
  assert.equal((await account.balance()).available, 48);
  clock.moveTo("2031-03-11T04:00:00Z");
  assert.equal((await account.finished("POST", "/search")).status, 200);
  assert.equal((await account.balance()).available, 49);
});

test("observing refuses and charges nothing, and its log tells what enforcing would have done", async (t) => {
  const { gateway, deploy } = await start(t, undefined, 'mode = "observe"');
  const account = await openAccount(gateway, { plan: "free" });
  const answers = [];
  for (let nth = 0; nth < 7; nth++) answers.push(await account.finished("POST", "/search"));
  assert.deepEqual(
    answers.map(({ status, line }) => [status, line.would_refuse]),
    [...Array(5).fill([200, undefined]), ...Array(2).fill([200, "rate_limited"])],
  );
  assert.equal((await account.balance()).available, 50);
  const nameless = await gateway.send("POST", "/search");
  assert.equal(nameless.status, 200);
  await deploy(CREDITS + PLAN + ROUTE);
  assert.equal((await account.call("POST", "/search")).status, 429);
  assert.equal((await gateway.send("POST", "/search")).status, 401);
});
