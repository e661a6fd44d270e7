// Messages to objects are lost, refused or answered too late, and objects evicted, at random and under load.
import assert from "node:assert/strict";
import test from "node:test";
import { openAccount, policyFor } from "../e2e/harness/account.mjs";
import { areSound } from "../e2e/harness/books.mjs";
import { objectFaults } from "../e2e/harness/faults.mjs";
import { startGateway } from "../e2e/harness/gateway.mjs";
import { startOrigin } from "../e2e/harness/origin.mjs";
import { randomOf, scaled, seed, show } from "../e2e/harness/scale.mjs";

const REQUESTS = scaled(150, 10_000);
const COST = 3;
const FAULTS = ["break", "lose", "evict", "break retryable", "lose retryable", "break overloaded"];

test("whatever becomes of messages, and whenever an object is evicted, the books stand", { timeout: 600_000 }, async (t) => {
  t.diagnostic(`seed: ${seed}`);
  const random = randomOf();
  const origin = await startOrigin(t);
  const seen = new Map();
  origin.on("/work", ({ headers, outgoing }) => {
    const call = headers["x-tollgate-call"];
    assert.ok(!seen.has(call), `${call} reached the origin twice`);
    const status = random.below(5) === 0 ? 500 : 200;
    seen.set(call, status);
    origin.requests.length = 0;
    outgoing.writeHead(status).end();
  });
  const policy = policyFor(origin, `
[pools.credits]
[plans.free]
grants = [{ pool = "credits", amount = ${COST * REQUESTS}, renews = "never" }]
[[routes]]
match = "POST /work"
cost = ${COST}
`, "hold_seconds = 12\norigin_timeout_seconds = 5\nforgive_per_day = 100000");
  const faults = objectFaults(policy);
  const gateway = await startGateway(t, { policy, more: faults.more });
  const account = await openAccount(gateway, { id: "acme" });
  const came = new Map();
  const count = (what) => came.set(what, (came.get(what) ?? 0) + 1);
  faults.choose(() => {
    const fault = random.below(4) === 0 ? random.one(FAULTS) : "pass";
    count(fault);
    return fault;
  });
  let asked = 0;
  const statuses = new Map();
  await Promise.all(
    Array.from({ length: 6 }, async () => {
      while (asked++ < REQUESTS) {
        const { status } = await account.call("POST", "/work");
        statuses.set(status, (statuses.get(status) ?? 0) + 1);
      }
    }),
  );
  faults.choose(() => "pass");
  gateway.clock.advance(40_000);
  const { calls } = await areSound(gateway, "acme");
  const log = new Map(calls.map((call) => [call.id, call]));
  for (const [call, status] of seen) {
    const { charged } = log.get(call) ?? assert.fail(`${call} reached the origin and is not in the log`);
    assert.ok(charged === 0 || (charged === COST && status === 200), `${call}: ${status}, charged ${charged}`);
  }
  for (const { id, charged } of calls) assert.ok(charged === 0 || seen.has(id), `${id} was charged and not forwarded`);
  assert.deepEqual([...statuses.keys()].filter((status) => ![200, 500, 503].includes(status)), []);
  const told = (map) => [...map].map(([what, count]) => `${what} × ${count}`).join(", ");
  show(t, { requests: REQUESTS, messages: told(came), answers: told(statuses), "calls in the log": calls.length, "at the origin": seen.size });
});
