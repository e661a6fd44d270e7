// Totals for charts, and what is left of months whose calls are no longer kept.
import assert from "node:assert/strict";
import * as suite from "node:test";
import { before, test } from "node:test";
import { openAccount, policyFor } from "./harness/account.mjs";
import { startGateway } from "./harness/gateway.mjs";
import { answer, startOrigin } from "./harness/origin.mjs";
import { leaveAloneUntil, untilStored } from "./harness/storage.mjs";

const TABLES = `
[pools.credits]
[pools.lyrics]
[plans.free]
grants = [{ pool = "credits", amount = 100, renews = "never" }, { pool = "lyrics", amount = 100, renews = "never" }]
[[routes]]
match = "POST /search"
cost  = 3
[[routes]]
match = "GET /tracks/{id}"
cost  = 0
[[routes]]
match = "POST /lyrics"
cost  = 10
pool  = "lyrics"
`;

const origin = await startOrigin(suite);
const policy = policyFor(origin, TABLES, 'base_path = "/api/v1"\nusage_days = 7');
const gateway = await startGateway(suite, { policy });
const { clock } = gateway;

before(() => clock.stop("2031-03-29T12:20:00Z"));

test("calls are summed by day, hour, endpoint and key; a month that is over for long comes as days", async () => {
  const account = await openAccount(gateway, { id: "charts" });
  const other = await account.anotherKey();
  const page = (query = "", status) => account.page(`/api/v1/usage/summary${query}`, status);

  const first = await account.finished("POST", "/api/v1/search");
  await other.finished("POST", "/api/v1/lyrics");
  clock.advance(3_600_000);
  origin.on("GET /api/v1/tracks/9", answer({ status: 404 }));
  await account.finished("GET", "/api/v1/tracks/9");

  const day = { day: "2031-03-29", calls: 3, failed: 1, credits_consumed: 3, pools: { credits: 3, lyrics: 10 } };
  const asked = { by: "day", from: "2031-02-28T00:00:00Z", to: "2031-03-29T14:00:00Z" };
  assert.deepEqual(await page(), { ...asked, summary: [day], next: null });
  const searched = { calls: 1, failed: 0, credits_consumed: 3, pools: { credits: 3 } };
  const tracked = { calls: 1, failed: 1, credits_consumed: 0, pools: { credits: 0 } };
  const sung = { calls: 1, failed: 0, credits_consumed: 0, pools: { lyrics: 10 } };
  assert.deepEqual((await page("?by=endpoint")).summary, [
    { endpoint: "/lyrics", ...sung },
    { endpoint: "/search", ...searched },
    { endpoint: "/tracks/{id}", ...tracked },
  ]);
  assert.deepEqual((await page("?by=hour&from=2031-03-29T13:00:00Z")).summary, [
    { hour: "2031-03-29T13:00:00Z", ...tracked },
  ]);
  assert.deepEqual((await page("?by=key")).summary[1], { key: other.keyId, ...sung });
  for (const [query, field] of [
    ["?by=year", "by"],
    ["?from=2031-03-02T00:00:00Z&to=2031-03-01T00:00:00Z", "from"],
    ["?next=h0-0", "next"],
  ]) {
    assert.equal((await page(query, 400)).field, field);
  }

  const rolledUp = await leaveAloneUntil(gateway, new Date("2031-04-08T00:00:00Z"), 6 * 3_600_000);
  await untilStored(gateway, (database) => {
    const tables = database.prepare("SELECT name FROM sqlite_master").all().map(({ name }) => name);
    return tables.includes("account") && !tables.some((name) => name.endsWith("2031_03")) ? true : null;
  });
  assert.deepEqual((await page("?by=hour")).summary, [day]);
  assert.deepEqual((await page("?by=endpoint")).summary[1], { endpoint: "/search", ...searched });
  assert.equal((await account.page("/api/v1/usage")).total_count, 0);
  const gone = await gateway.admin("POST", `/calls/${first.headers["x-request-id"]}/release`, {});
  assert.deepEqual([gone.status, gone.json().code], [404, "not_found"]);

  // Hours come again with the next month's calls, for the operator as well.
  await account.finished("POST", "/api/v1/search");
  await gateway.restart();
  const { summary } = (await gateway.admin("GET", `/accounts/${account.id}/usage/summary?by=hour`)).json();
  assert.deepEqual(summary, [day, { hour: `${rolledUp.toISOString().slice(0, 13)}:00:00Z`, ...searched }]);
  assert.equal((await account.balance()).spent, 6);
});

test("a key may ask for ten summaries a minute", async () => {
  const account = await openAccount(gateway);
  for (let asked = 0; asked < 10; asked++) await account.page("/api/v1/usage/summary");
  const refused = await account.call("GET", "/api/v1/usage/summary");
  assert.deepEqual([refused.status, refused.headers["retry-after"]], [429, "60"]);
});
