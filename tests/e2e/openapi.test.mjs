// The description of the API, and those who live by it.
import assert from "node:assert/strict";
import * as suite from "node:test";
import { test } from "node:test";
import { policyFor } from "./harness/account.mjs";
import { secrets, startGateway } from "./harness/gateway.mjs";
import { startOrigin } from "./harness/origin.mjs";
import { mistakes, signUp } from "./typed-client.mjs";

const TABLES = `
[pools.credits]
[pools.lyrics]
[plans.free]
requests_per_minute = 1000
max_keys = 20
grants = [{ pool = "credits", amount = 50, renews = "never" }]
[plans.starter]
paid = true
grants = [{ pool = "credits", amount = 300, renews = "monthly", rollover = 20 }]
[[routes]]
match = "POST /search"
cost  = 1
[[routes]]
match  = "POST /train"
charge = { rate = 10, unit = 1, from = "query.minutes", minimum = 10, maximum = 600 }
job    = { settle_within = "24h", on_unknown = "release" }
[self_service]
me = "/account"
ledger = "/statement"
`;

const origin = await startOrigin(suite);
const gateway = await startGateway(suite, { policy: policyFor(origin, TABLES, 'base_path = "/api/v1"') });

test("it is served without a token, with the pages where this policy has them", async () => {
  const answer = await gateway.send("GET", "/_tollgate/v1/openapi.json");
  assert.equal(answer.status, 200);
  assert.equal(answer.headers["content-type"], "application/json");
  const { openapi, paths } = answer.json();
  assert.equal(openapi, "3.1.0");
  const pages = Object.keys(paths).filter((path) => !path.startsWith("/_tollgate/"));
  assert.deepEqual(pages.sort(), [
    "/api/v1/account",
    "/api/v1/billing/history",
    "/api/v1/billing/portal",
    "/api/v1/credits/purchase",
    "/api/v1/credits/top-up",
    "/api/v1/credits/top-up/retry",
    "/api/v1/get-credits",
    "/api/v1/quote",
    "/api/v1/statement",
    "/api/v1/subscription",
    "/api/v1/usage",
    "/api/v1/usage/summary",
  ]);
});

test("a client that is generated from it operates the gateway", async () => {
  const { key, ...told } = await signUp(gateway.url, secrets.ADMIN_TOKEN);
  assert.deepEqual(told, { status: "active", lot: 500, available: 800, calls: 0 });
  const answer = await gateway.call(key, "POST", "/api/v1/search");
  assert.equal(answer.headers["x-ratelimit-limit"], "100");
  assert.deepEqual(await mistakes(gateway.url, secrets.ADMIN_TOKEN), [
    ["bad_request", "plan"],
    ["bad_request", "source"],
    ["bad_request", "Idempotency-Key"],
    ["bad_request", "status"],
  ]);
});
