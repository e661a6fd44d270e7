// What customers read about themselves, with their own key.
import assert from "node:assert/strict";
import * as suite from "node:test";
import { before, beforeEach, test } from "node:test";
import { openAccount, policyFor } from "./harness/account.mjs";
import { startGateway } from "./harness/gateway.mjs";
import { answer, startOrigin } from "./harness/origin.mjs";

const MINUTE = 60_000;
const TABLES = `
[pools.credits]
[pools.lyrics]
[plans.free]
requests_per_minute = 5
requests_per_day    = 50
grants = [{ pool = "credits", amount = 50, renews = "never" }]
[plans.pro]
paid = true
grants = [{ pool = "credits", amount = 1000, renews = "monthly" }]
[[routes]]
match = "POST /search"
cost  = 1
[[routes]]
match = "GET /tracks/{id}"
cost  = 0
`;

const origin = await startOrigin(suite);
const gateway = await startGateway(suite, { policy: policyFor(origin, TABLES, 'base_path = "/api/v1"') });
const { clock } = gateway;

before(() => clock.stop("2031-03-10T12:00:00Z"));
beforeEach(() => clock.advance(2 * MINUTE));

const search = (account) => account.finished("POST", "/api/v1/search");

test("/me tells plan, balance and limits", async () => {
  const account = await openAccount(gateway, { plan: "free" });
  await search(account);
  await account.grant(7, "extra", { expires_at: "2031-04-01T00:00:00Z" });
  assert.deepEqual(await account.page("/api/v1/me"), {
    tier: "free",
    credits_remaining: 56,
    monthly_allowance: 50,
    rate_limit: { requests_per_minute: 5, requests_per_day: 50 },
    pools: {
      credits: {
        available: 56,
        held: 0,
        by_source: { subscription: 0, extra: 7, promo: 49 },
        renews_at: null,
        expires: [{ at: "2031-04-01T00:00:00Z", credits: 7 }],
      },
      lyrics: {
        available: 0,
        held: 0,
        by_source: { subscription: 0, extra: 0, promo: 0 },
        renews_at: null,
        expires: [],
      },
    },
    status: "active",
    key: { id: account.keyId, name: null, expires_at: null, scope: null, budget: null, budget_used: 1 },
  });
});

test("unlimited is null, and a renewal is told", async () => {
  const account = await openAccount(gateway, { plan: "pro", subscription: { billing_day: 1 } });
  const { rate_limit, monthly_allowance, pools } = await account.page("/api/v1/me");
  assert.deepEqual(rate_limit, { requests_per_minute: null, requests_per_day: null });
  assert.equal(monthly_allowance, 1000);
  assert.equal(pools.credits.renews_at, "2031-04-01T00:00:00Z");
});

test("/get-credits tells what can be spent", async () => {
  const account = await openAccount(gateway, { plan: "free" });
  await account.grant(7);
  assert.deepEqual(await account.page("/api/v1/get-credits"), {
    credits: 57,
    extra_credits: 7,
    pools: { credits: 57, lyrics: 0 },
  });
});

test("/quote tells what a call would cost, to a key that stands, and reserves nothing", async () => {
  const account = await openAccount(gateway, { plan: "free" });
  const quote = "/api/v1/quote?method=POST&path=/search";
  const { credits, pool, endpoint } = await account.page(quote);
  assert.deepEqual({ credits, pool, endpoint }, { credits: 1, pool: "credits", endpoint: "/search" });
  assert.equal((await account.page("/api/v1/quote?method=POST&path=/nothing", 404)).code, "no_route");
  assert.equal((await account.page("/api/v1/quote?path=/search", 400)).field, "method");
  assert.equal((await account.balance()).available, 50);
  await gateway.admin("DELETE", `/accounts/${account.id}/keys/${account.keyId}`);
  assert.equal((await account.page(quote, 401)).code, "invalid_key");
});

test("/usage lists calls as they ended, newest first", async () => {
  const account = await openAccount(gateway, { id: "lister", plan: "free" });
  await search(account);
  clock.advance(1_500);
  origin.on("GET /api/v1/tracks/9", answer({ status: 404 }));
  await account.finished("GET", "/api/v1/tracks/9");
  const { usage, ...page } = await account.page("/api/v1/usage");
  assert.deepEqual(page, { total_count: 2, offset: 0, limit: 50, next: null });
  assert.deepEqual(
    usage.map(({ response_time_ms, ...call }) => {
      assert.equal(typeof response_time_ms, "number");
      return call;
    }),
    [
      {
        timestamp: usage[0].timestamp,
        endpoint: "/tracks/{id}",
        status_code: 404,
        credits_consumed: 0,
        request_id: "call_lister_2",
        method: "GET",
        key: account.keyId,
      },
      {
        timestamp: usage[1].timestamp,
        endpoint: "/search",
        status_code: 200,
        credits_consumed: 1,
        request_id: "call_lister_1",
        method: "POST",
        key: account.keyId,
      },
    ],
  );
  const apart = Date.parse(usage[0].timestamp) - Date.parse(usage[1].timestamp);
  assert.ok(apart >= 1_000 && apart <= 2_000, `${apart} ms apart`);
});

test("/usage is filtered by endpoint, status and time, by customers and operators alike", async () => {
  const account = await openAccount(gateway, { id: "filter", plan: "free" });
  origin.on("GET /api/v1/tracks/9", answer({ status: 404 }));
  await search(account);
  clock.advance(10_000);
  const between = clock.now().toISOString();
  clock.advance(10_000);
  await account.finished("GET", "/api/v1/tracks/9");
  await account.finished("GET", "/api/v1/tracks/1");
  for (const [query, calls] of [
    ["endpoint=/search", [1]],
    ["endpoint=%2Ftracks%2F%7Bid%7D", [3, 2]],
    ["endpoint=/nowhere", []],
    ["status=404", [2]],
    ["status=200&endpoint=/tracks/{id}", [3]],
    [`from=${between}`, [3, 2]],
    [`to=${between}`, [1]],
  ]) {
    for (const { usage, total_count } of [
      await account.page(`/api/v1/usage?${query}`),
      await account.usage(`?${query}`),
    ]) {
      assert.deepEqual(
        usage.map(({ request_id }) => request_id),
        calls.map((number) => `call_filter_${number}`),
        query,
      );
      assert.equal(total_count, calls.length, query);
    }
  }
});

test("/usage goes page by page, over a month's end, and counts all", async () => {
  clock.moveTo("2031-03-31T23:58:00Z");
  const account = await openAccount(gateway, { id: "pager", plan: "pro" });
  for (let nth = 1; nth <= 4; nth++) await search(account);
  clock.moveTo("2031-04-01T00:00:00Z");
  for (let nth = 5; nth <= 7; nth++) await search(account);
  await gateway.restart();
  const ids = async (query) => {
    const { usage, total_count } = await account.page(`/api/v1/usage${query}`);
    assert.equal(total_count, 7);
    return usage.map(({ request_id }) => Number(request_id.split("_").at(-1)));
  };
  assert.deepEqual(await ids(""), [7, 6, 5, 4, 3, 2, 1]);
  assert.deepEqual(await ids("?limit=2"), [7, 6]);
  assert.deepEqual(await ids("?limit=2&offset=2"), [5, 4]);
  assert.deepEqual(await ids("?limit=3&offset=3"), [4, 3, 2]);
  assert.deepEqual(await ids("?limit=500&offset=6"), [1]);
  assert.deepEqual(await ids("?limit=1&offset=7"), []);
  // Going on by `next` sees each call once, whatever was added in front meanwhile.
  const first = await account.page("/api/v1/usage?limit=4");
  await search(account);
  const second = await account.page(`/api/v1/usage?limit=4&next=${first.next}`);
  assert.deepEqual(
    second.usage.map(({ request_id }) => request_id),
    ["call_pager_3", "call_pager_2", "call_pager_1"],
  );
  assert.equal(second.next, null);
  for (const [query, field] of [
    ["limit=0", "limit"],
    ["limit=501", "limit"],
    ["offset=-1", "offset"],
    ["limit=500&offset=3501", "offset"],
    ["page=2", "page"],
  ]) {
    const problem = await account.page(`/api/v1/usage?${query}`, 400);
    assert.deepEqual([problem.code, problem.field], ["bad_request", field]);
  }
  assert.deepEqual(
    (await account.usage("?limit=2")).usage.map(({ request_id }) => request_id),
    ["call_pager_8", "call_pager_7"],
  );
});

test("reading is free, counts against no limit and is in no history", async () => {
  const account = await openAccount(gateway, { plan: "free" });
  for (let nth = 0; nth < 8; nth++) await account.page("/api/v1/me");
  const page = await account.finished("GET", "/api/v1/usage");
  assert.equal(page.json().total_count, 0);
  assert.equal(page.line.rows, 0);
  assert.equal(page.headers["x-ratelimit-remaining"], "5");
  assert.equal(page.headers["x-credits-remaining"], "50");
  assert.equal(page.headers["x-credits-charged"], "0");
  assert.equal(page.headers["cache-control"], "no-store");
  assert.equal((await search(account)).headers["x-ratelimit-remaining"], "4");
});

test("sixty pages a minute and key are read, then each waits for exactly Retry-After", async () => {
  const account = await openAccount(gateway, { plan: "pro" });
  const pages = ["/api/v1/me", "/api/v1/usage", "/api/v1/get-credits"];
  for (let nth = 0; nth < 60; nth++) await account.page(pages[nth % 3]);
  const refused = await account.call("GET", "/api/v1/me");
  assert.equal(refused.status, 429);
  assert.equal(refused.json().code, "rate_limited");
  assert.equal(refused.headers["retry-after"], "60");
  // The guard is no limit of the plan's: calls go on, and so do the pages of another key.
  assert.equal((await search(account)).status, 200);
  await (await account.anotherKey()).page("/api/v1/me");
  clock.advance(MINUTE - 1);
  await account.page("/api/v1/me", 429);
  clock.advance(1);
  await account.page("/api/v1/me");
});

test("an account that is suspended, out of credits or over its limit still reads about itself", async () => {
  const account = await openAccount(gateway, { plan: "free" });
  for (let nth = 0; nth < 6; nth++) await search(account);
  assert.equal((await account.call("POST", "/api/v1/search")).status, 429);
  await account.page("/api/v1/me");
  await account.patch({ status: "suspended", reason: "invoice 7 is open" });
  clock.advance(MINUTE);
  assert.equal((await account.call("GET", "/api/v1/tracks/1")).status, 403);
  const me = await account.page("/api/v1/me");
  assert.deepEqual([me.status, me.reason, me.credits_remaining], ["suspended", "invoice 7 is open", 45]);
  assert.equal((await account.page("/api/v1/usage")).total_count, 5);
});

test("a key sees its own account and nothing of another's, and a dead one sees nothing", async () => {
  const one = await openAccount(gateway, { plan: "free" });
  const two = await openAccount(gateway, { plan: "pro" });
  await search(one);
  assert.equal((await two.page("/api/v1/usage")).total_count, 0);
  assert.equal((await two.page("/api/v1/me")).tier, "pro");
  // Keys of one account share its history, each call with the key that made it.
  const other = await one.anotherKey();
  await search(other);
  const { usage } = await one.page("/api/v1/usage");
  assert.deepEqual(
    usage.map(({ key }) => key),
    [other.keyId, one.keyId],
  );
  assert.equal((await gateway.send("GET", "/api/v1/me")).status, 401);
  assert.equal((await gateway.admin("DELETE", `/accounts/${one.id}/keys/${other.keyId}`)).status, 204);
  assert.equal((await other.page("/api/v1/me", 401)).code, "invalid_key");
});

test("pages answer GET and HEAD alone, and look-alikes are no pages", async () => {
  const account = await openAccount(gateway, { plan: "free" });
  const received = origin.requests.length;
  const posted = await account.call("POST", "/api/v1/me");
  assert.deepEqual([posted.status, posted.headers.allow], [405, "GET, HEAD"]);
  const head = await account.call("HEAD", "/api/v1/me");
  assert.deepEqual([head.status, head.body.length], [200, 0]);
  for (const path of ["/api/v1/ME", "/api/v1/me/", "/me"]) {
    assert.equal((await account.call("GET", path)).status, 404, path);
  }
  assert.equal(origin.requests.length, received);
});

test("the policy renames pages and switches them off", async (t) => {
  const renamed = await startGateway(t, {
    policy: policyFor(
      origin,
      `${TABLES}
[self_service]
me = "/account"
usage = false
`,
    ),
  });
  const account = await openAccount(renamed, { plan: "free" });
  assert.equal((await account.page("/account")).tier, "free");
  await account.page("/me", 404);
  await account.page("/usage", 404);
  await account.page("/get-credits");
  // Operators read it all the same.
  assert.equal((await account.usage()).total_count, 0);
});
