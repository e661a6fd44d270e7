// The loop that API documentation shows its customers works against this gateway.
import assert from "node:assert/strict";
import { test } from "node:test";
import { openAccount, policyFor } from "./harness/account.mjs";
import { startGateway } from "./harness/gateway.mjs";
import { startOrigin } from "./harness/origin.mjs";

test("sleeping int(Retry-After) on a 429 gets every call through, never refused twice in a row", async (t) => {
  const origin = await startOrigin(t);
  const gateway = await startGateway(t, {
    policy: policyFor(
      origin,
      `
[pools.credits]
[plans.free]
requests_per_minute = 5
requests_per_day    = 50
grants = [{ pool = "credits", amount = 50, renews = "never" }]
[[routes]]
match = "POST /search"
cost  = 1
`,
    ),
  });
  const account = await openAccount(gateway, { plan: "free" });

  // def call():
  //     response = requests.post(url, headers={"Authorization": f"Bearer {key}"})
  //     if response.status_code == 429:
  //         time.sleep(int(response.headers["Retry-After"]))
  //         return call()
  //     return response
  const told = [];
  async function call() {
    const response = await account.call("POST", "/search");
    told.push(response.status);
    if (response.status === 429) {
      gateway.clock.advance(parseInt(response.headers["retry-after"], 10) * 1_000);
      return call();
    }
    return response;
  }

  for (let nth = 1; nth <= 12; nth++) {
    assert.equal((await call()).headers["x-credits-remaining"], String(50 - nth));
    // A caller does something with the answer.
    gateway.clock.advance(700 * (nth % 3));
  }
  const refused = told.flatMap((status, at) => (status === 429 ? [at] : []));
  assert.ok(refused.length >= 2, "the limit was never met");
  assert.ok(
    refused.every((at) => told[at + 1] === 200),
    `refused twice in a row: ${told}`,
  );
  assert.equal(origin.requests.length, 12);
});
