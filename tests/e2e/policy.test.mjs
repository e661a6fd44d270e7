// The policy lies beside the code: a deploy with another one is all that a new price takes.
import assert from "node:assert/strict";
import test from "node:test";
import { openAccount } from "./harness/account.mjs";
import { startGateway } from "./harness/gateway.mjs";
import { startOrigin } from "./harness/origin.mjs";

const origin = await startOrigin(test);
const policy = ({ cost = 1, amount = 50, more = "" } = {}) => `
[gateway]
key_prefix = "tk_live"
[origins]
default = "${origin.url}"
[pools.credits]
[plans.free]
grants = [{ pool = "credits", amount = ${amount}, renews = "never" }]
[[routes]]
match = "GET /search"
cost = ${cost}
${more}
`;

test("an edited price holds from the next start, and balances are kept", async (t) => {
  const gateway = await startGateway(t, { policy: policy() });
  const customer = await openAccount(gateway);
  const call = () => gateway.call(customer.key, "GET", "/search");
  assert.equal((await call()).headers["x-credits-remaining"], "49");
  await gateway.restart({ policy: policy({ cost: 20 }) });
  const dearer = await call();
  assert.deepEqual([dearer.headers["x-credits-charged"], dearer.headers["x-credits-remaining"]], ["20", "29"]);
  await gateway.restart({ policy: policy({ cost: 0 }) });
  assert.equal((await call()).headers["x-credits-remaining"], "29");
  const { total_count, usage } = (await gateway.admin("GET", `/accounts/${customer.id}/usage`)).json();
  assert.equal(total_count, 3);
  assert.deepEqual(usage.map((line) => line.credits_consumed), [0, 20, 1]);
});

test("a new route and a new plan are there after a start; one that went is gone", async (t) => {
  const gateway = await startGateway(t, { policy: policy() });
  const customer = await openAccount(gateway);
  assert.equal((await gateway.call(customer.key, "GET", "/new")).status, 404);
  const more = `[plans.pro]\nrequests_per_minute = 7\n[[routes]]\nmatch = "GET /new"\ncost = 2`;
  await gateway.restart({ policy: policy({ more }) });
  const answered = await gateway.call(customer.key, "GET", "/new");
  assert.equal(answered.headers["x-credits-charged"], "2");
  assert.equal((await gateway.admin("PATCH", `/accounts/${customer.id}`, { plan: "pro" })).status, 200);
  assert.equal((await gateway.call(customer.key, "GET", "/new")).headers["x-ratelimit-limit"], "7");
  // The account keeps the limits of a plan that the policy no longer has.
  await gateway.restart({ policy: policy() });
  assert.equal((await gateway.call(customer.key, "GET", "/new")).status, 404);
  assert.equal((await gateway.call(customer.key, "GET", "/search")).headers["x-ratelimit-limit"], "7");
});

test("a wrong policy is refused at start: the place, what was expected, what was found", async (t) => {
  for (const [text, place] of [
    [policy({ cost: -1 }), /policy\.toml.*routes\[0\]\.cost.*expected.*found -1/s],
    [policy({ cost: 1.5 }), /routes\[0\]\.cost.*expected.*1\.5/s],
    [policy({ more: 'colour = "red"' }), /routes\[0\]\.colour.*unknown/s],
    [policy({ more: 'pool = "lyrics"' }), /routes\[0\]\.pool.*lyrics/s],
    [policy({ more: "timeout_seconds = 300" }), /routes\[0\]\.timeout_seconds/],
    [policy({ more: '[[routes]]\nmatch = "GET /me"\ncost = 1' }), /routes\[1\]\.match.*self-service/s],
    [policy().replace("cost = 1", ""), /routes\[0\]\.cost.*none of them/s],
    ["[gateway", /policy\.toml/],
  ]) {
    await assert.rejects(startGateway(t, { policy: text }), (error) => {
      assert.match(error.message, place);
      return true;
    });
  }
});

test("all mistakes are told at once", async (t) => {
  const text = policy({ cost: -1, more: '[plans.pro]\nrequests_per_minute = "many"' });
  await assert.rejects(startGateway(t, { policy: text }), (error) => {
    assert.match(error.message, /routes\[0\]\.cost/);
    assert.match(error.message, /plans\.pro\.requests_per_minute/);
    return true;
  });
});

test("a policy that another release compiled is refused at start", async (t) => {
  await assert.rejects(startGateway(t, { policy: Buffer.from([0x82, 0, 0x80]) }), (error) => {
    assert.match(error.message, /compiled by another release/);
    return true;
  });
});
