// The runtime is killed (SIGKILL) at random moments under load, and started again on its state.
import assert from "node:assert/strict";
import test from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { openAccount, policyFor } from "../e2e/harness/account.mjs";
import { areSound, mostIn } from "../e2e/harness/books.mjs";
import { startGateway } from "../e2e/harness/gateway.mjs";
import { startOrigin } from "../e2e/harness/origin.mjs";
import { admissionsOf } from "../e2e/harness/storage.mjs";
import { percentile, randomOf, scaled, seed, show } from "../e2e/harness/scale.mjs";

const KILLS = Number(process.env.TOLLGATE_KILLS ?? scaled(6, 100));
const HOLD_SECONDS = 12;
const COST = 3;
const PER_MINUTE = 20;
const PER_DAY = 60;

const TABLES = `
[pools.credits]
[plans.minute]
requests_per_minute = ${PER_MINUTE}
grants = [{ pool = "credits", amount = 1000000, renews = "never" }]
[plans.daily]
requests_per_day = ${PER_DAY}
grants = [{ pool = "credits", amount = 1000000, renews = "monthly" }]
[plans.poor]
grants = [{ pool = "credits", amount = 100, renews = "never" }]
[plans.busy]
grants = [{ pool = "credits", amount = 100000000, renews = "never" }]
[[routes]]
match = "POST /work"
cost = ${COST}
[[routes]]
match = "POST /retried"
cost = ${COST}
idempotency = "origin"
`;
const PLANS = ["minute", "daily", "poor", "busy"];

// How the origin answers, by what the caller asks for.
const OUTCOMES = {
  ok: ({ outgoing }) => outgoing.end("done"),
  slow: ({ outgoing }) => setTimeout(() => outgoing.end("done"), 120),
  error: ({ outgoing }) => outgoing.writeHead(500).end("failed"),
  reset: (exchange) => exchange.reset(),
};

test(`${KILLS} kills under load lose nothing, charge nothing twice and exceed no limit`, { timeout: 60_000 + KILLS * 10_000 }, async (t) => {
  t.diagnostic(`seed: ${seed}`);
  const random = randomOf();
  const origin = await startOrigin(t);
  const gateway = await startGateway(t, {
    policy: policyFor(origin, TABLES, `origin_timeout_seconds = 5\nhold_seconds = ${HOLD_SECONDS}\nforgive_per_day = 100000000`),
  });
  // A day, a month and a year end under way.
  gateway.clock.moveTo(new Date("2027-12-31T23:59:30Z"));

  const seen = [];
  const atOrigin = (exchange) => {
    const query = new URLSearchParams(exchange.path.split("?")[1]);
    seen.push({ call: exchange.headers["x-tollgate-call"], at: gateway.clock.now().getTime(), outcome: query.get("as") });
    OUTCOMES[query.get("as")](exchange);
    // The harness keeps every request; these are many.
    origin.requests.length = 0;
  };
  origin.on("/work", atOrigin);
  origin.on("/retried", atOrigin);

  const accounts = [];
  for (const plan of PLANS) accounts.push(await openAccount(gateway, { id: plan, plan, subscription: { status: "active" } }));

  let isOver = false;
  const answered = [];
  let [broken, refused, unavailable, granted] = [0, 0, 0, 0];
  const started = performance.now();
  const workers = accounts.flatMap((account) => Array.from({ length: 3 }, (_, n) => work(account, n)));
  const restarts = [];
  for (let kill = 0; kill < KILLS; kill++) {
    await sleep(random.between(30, 900));
    const begun = performance.now();
    await gateway.kill();
    // So that minutes pass sooner than they do; what was under way is at the origin by now.
    gateway.clock.advance(random.between(0, 25_000));
    await gateway.restart();
    restarts.push(performance.now() - begun);
    if (kill % 2 === 0) await grantOnce(`kill-${kill}`);
  }
  isOver = true;
  await Promise.all(workers);
  // Whatever was left open has a deadline, which has passed now. Nobody helps.
  gateway.clock.advance((HOLD_SECONDS + 20) * 1_000);

  const log = new Map();
  let calls = 0;
  for (const { id } of accounts) {
    const books = await areSound(gateway, id);
    calls += books.calls.length;
    const admissions = admissionsOf(gateway, id);
    for (const call of books.calls) log.set(call.id, { ...call, at: admissions.get(Number(call.id.split("_").at(-1))) });
    if (id === "poor") assert.equal(books.balance.pools.credits.spent + books.balance.pools.credits.available, 100 + granted);
  }
  const admitted = (plan) => [...log.values()].filter(({ account }) => account === plan);
  const at = (call) => call.at;

  // Nothing reached the origin that is not in the log, and nothing twice.
  assert.equal(new Set(seen.map(({ call }) => call)).size, seen.length, "a call reached the origin twice");
  for (const { call } of seen) assert.ok(log.has(call), `${call} reached the origin and is not in the log`);
  for (const { call } of answered) assert.ok(log.has(call), `${call} was answered and is not in the log`);

  // Only success is charged, and once.
  let [charged, unknown] = [0, 0];
  for (const { call, outcome } of seen) {
    const row = log.get(call);
    const succeeded = outcome === "ok" || outcome === "slow";
    assert.ok(row.charged === 0 || (succeeded && row.charged === COST), `${outcome}: ${JSON.stringify(row)}`);
    if (row.charged > 0) charged += 1;
    else if (succeeded && row.repeats === undefined) unknown += 1;
  }
  const reached = new Set(seen.map(({ call }) => call));
  for (const row of log.values()) assert.ok(row.charged === 0 || reached.has(row.id), `charged and never forwarded: ${JSON.stringify(row)}`);

  // The limits, by the log to the millisecond; by what the origin saw within what a call takes to get there.
  const inAMinute = mostIn(60_000, admitted("minute").map(at));
  assert.ok(inAMinute <= PER_MINUTE, `${inAMinute} calls in 60 s by the log`);
  const date = (moment) => new Date(moment).toISOString().slice(0, 10);
  const days = Object.values(Object.groupBy(admitted("daily"), (call) => date(at(call)))).map((calls) => calls.length);
  for (const calls of days) assert.ok(calls <= PER_DAY, `${calls} calls on a day`);
  const jitter = Math.max(...seen.map((arrival) => arrival.at - at(log.get(arrival.call))));
  assert.ok(jitter < 5_000, `${jitter} ms from admission to the origin`);
  const arrivals = seen.filter(({ call }) => log.get(call).account === "minute").map((arrival) => arrival.at);
  const arrived = mostIn(60_000 - jitter, arrivals);
  assert.ok(arrived <= PER_MINUTE, `${arrived} calls in ${60_000 - jitter} ms by the origin`);

  show(t, {
    kills: KILLS,
    seconds: Math.round((performance.now() - started) / 1_000),
    "requests broken off": broken,
    refused,
    unavailable,
    "calls in the log": calls,
    "seen by the origin": seen.length,
    charged,
    "succeeded, and their end lost with a kill: given back": unknown,
    "most in any 60 s": `${inAMinute} of ${PER_MINUTE}`,
    "on its days": `${days} of ${PER_DAY}`,
    "admission to origin at most": `${jitter} ms`,
    restart: `${Math.round(percentile(restarts, 0.5))} ms`,
  });

  // One caller: asks again and again, whatever comes.
  async function work(account, n) {
    const own = randomOf(1 + n + 10 * PLANS.indexOf(account.id));
    for (let asked = 0; !isOver; asked++) {
      const outcome = own.one(["ok", "ok", "ok", "slow", "error", "reset"]);
      const isRetried = own.below(4) === 0;
      try {
        const answer = await account.call("POST", `/${isRetried ? "retried" : "work"}?as=${outcome}`, {
          headers: isRetried ? { "idempotency-key": `${n}-${Math.floor(asked / 3)}` } : {},
        });
        if ([402, 409, 422, 429].includes(answer.status)) {
          refused += 1;
          await sleep(25);
        } else if (answer.status === 503) {
          unavailable += 1;
        } else {
          answered.push({ call: answer.headers["x-request-id"], status: answer.status });
        }
      } catch {
        broken += 1;
        await sleep(25);
      }
    }
  }

  // The operator grants something, and asks again until there is an answer: it is granted once.
  async function grantOnce(reference) {
    const body = { pool: "credits", amount: 30, source: "extra" };
    const ask = () => gateway.admin("POST", "/accounts/poor/grants", body, { "idempotency-key": reference });
    const [first, again] = await Promise.all([ask(), ask()]);
    assert.deepEqual([first.status, again.status], [201, 201], first.text());
    granted += body.amount;
  }
});
