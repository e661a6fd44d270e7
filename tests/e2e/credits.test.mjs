// Credits: what is charged, from which lot, when they come and go. Months pass by the moved clock.
import assert from "node:assert/strict";
import * as suite from "node:test";
import { test } from "node:test";
import { openAccount, policyFor, statuses } from "./harness/account.mjs";
import { startGateway } from "./harness/gateway.mjs";
import { after, answer, hold, neverAnswer, resetBeforeHeaders, startOrigin } from "./harness/origin.mjs";
import { untilStored } from "./harness/storage.mjs";

const SECOND = 1_000;
const HOLD_SECONDS = 300;

const PLANS = `
[pools.credits]
spend_first = ["promo", "extra", "subscription"]
[pools.lyrics]

[plans.free]
grants = [{ pool = "credits", amount = 50, renews = "never" }]
[plans.none]
[plans.starter]
paid = true
grants = [{ pool = "credits", amount = 300, renews = "monthly" }]
[plans.pro]
paid = true
grants = [
  { pool = "credits", amount = 1000, renews = "monthly" },
  { pool = "lyrics", amount = 100, renews = "calendar-month" },
]

[[routes]]
match = "POST /search"
cost  = 1
[[routes]]
match = "POST /render"
cost  = 4
[[routes]]
match = "POST /all"
cost  = 300
[[routes]]
match = "POST /lyrics"
cost  = 15
pool  = "lyrics"
[[routes]]
match = "POST /strict"
cost  = 1
charge_on = "2xx"
[[routes]]
match = "POST /slow"
cost  = 1
timeout_seconds = 1
`;

const origin = await startOrigin(suite);
const gateway = await startGateway(suite, {
  policy: policyFor(origin, PLANS, `hold_seconds = ${HOLD_SECONDS}`),
});
const { clock } = gateway;
clock.stop("2031-01-15T12:00:00Z");

const search = (account) => account.call("POST", "/search");

test("two hundred concurrent callers get exactly the last fifty credits", async () => {
  const account = await openAccount(gateway, { plan: "free" });
  // Slow enough that all of them are there before the first is settled.
  origin.on("POST /search", after(200));
  const received = origin.requests.length;
  const told = await statuses(200, () => account.finished("POST", "/search"));
  origin.on("POST /search", answer());
  assert.equal(told.filter((status) => status === 200).length, 50);
  assert.equal(told.filter((status) => status === 402).length, 150);
  assert.equal(origin.requests.length - received, 50);
  const { available, held, spent } = await account.balance();
  assert.deepEqual({ available, held, spent }, { available: 0, held: 0, spent: 50 });
  assert.equal((await account.usage()).total_count, 50);
});

test("only what succeeded is charged", async () => {
  const account = await openAccount(gateway, { plan: "free" });
  let left = 50;
  for (const [path, behaviour, status, charged, code] of [
    ["/search", answer({ status: 200 }), 200, 1],
    ["/search", answer({ status: 302, headers: { location: "/elsewhere" } }), 302, 1],
    ["/search", answer({ status: 400 }), 400, 0],
    ["/search", answer({ status: 404 }), 404, 0],
    ["/search", answer({ status: 500 }), 500, 0],
    ["/search", resetBeforeHeaders(), 502, 0, "origin_unreachable"],
    ["/slow", neverAnswer(), 504, 0, "origin_timeout"],
    ["/strict", answer({ status: 201 }), 201, 1],
    ["/strict", answer({ status: 302, headers: { location: "/elsewhere" } }), 302, 0],
  ]) {
    origin.on(`POST ${path}`, behaviour);
    left -= charged;
    const answered = await account.finished("POST", path);
    assert.equal(answered.status, status);
    assert.equal(answered.headers["x-credits-charged"], String(charged), `${path} ${status}`);
    assert.equal(answered.headers["x-credits-remaining"], String(left), `${path} ${status}`);
    if (code) assert.equal(answered.json().code, code);
    const [newest] = (await account.usage("?limit=1")).usage;
    assert.deepEqual([newest.status_code, newest.credits_consumed], [status, charged]);
  }
  const { available, held, spent } = await account.balance();
  assert.deepEqual({ available, held, spent }, { available: left, held: 0, spent: 50 - left });
});

// Its route gives the origin far longer than this test may take.
test("the end of a call behind a slow origin does not wait for the origin's time limit", { timeout: 20_000 }, async () => {
  const account = await openAccount(gateway, { plan: "free" });
  // An end waits only where the account is busy: after two.
  for (const milliseconds of [0, 0, 700]) {
    origin.on("POST /search", after(milliseconds, answer()));
    assert.equal((await account.finished("POST", "/search")).status, 200);
  }
  origin.on("POST /search", answer());
  assert.deepEqual((await account.usage()).usage.map((call) => call.credits_consumed), [1, 1, 1]);
});

test("a client that hangs up before the answer pays for what the origin did", async () => {
  const account = await openAccount(gateway, { plan: "free" });
  const received = origin.requests.length;
  origin.on("POST /search", after(100, answer()));
  const exchange = gateway.open("POST", "/search", { headers: { authorization: `Bearer ${account.key}` } });
  exchange.end();
  await origin.request(received);
  exchange.hangUp();
  const line = await gateway.log(({ request_id }) => request_id === `call_${account.id}_1`);
  assert.equal(line.status, 200);
  assert.equal((await account.balance()).spent, 1);
});

test("credits are spent by source, then soonest expiry, then oldest; a call may span lots", async () => {
  const account = await openAccount(gateway, { plan: "starter" });
  await account.grant(3, "extra");
  await account.grant(2, "extra", { expires_at: "2031-01-20T00:00:00Z" });
  await account.grant(3, "promo");
  const spent = async () => {
    await account.finished("POST", "/render");
    const { lots } = await account.balance();
    return Object.fromEntries(lots.map(({ source, amount, spent }) => [`${source} ${amount}`, spent]));
  };
  const nothing = { "subscription 300": 0, "extra 3": 0, "extra 2": 0, "promo 3": 0 };
  assert.deepEqual(await spent(), { ...nothing, "promo 3": 3, "extra 2": 1 });
  assert.deepEqual(await spent(), { ...nothing, "promo 3": 3, "extra 2": 2, "extra 3": 3 });
  assert.deepEqual(await spent(), { "promo 3": 3, "extra 2": 2, "extra 3": 3, "subscription 300": 4 });
});

test("a grant is spendable until the moment it expires", async () => {
  const account = await openAccount(gateway, { plan: "none" });
  assert.equal((await search(account)).status, 402);
  await account.grant(5, "extra", { expires_at: new Date(clock.now().getTime() + 60 * SECOND), reference: "PO 7" });
  clock.advance(60 * SECOND - 1);
  assert.equal((await search(account)).headers["x-credits-remaining"], "4");
  clock.advance(1);
  assert.equal((await search(account)).status, 402);
});

test("a grant after a 402 is spendable within a second", async () => {
  const account = await openAccount(gateway, { plan: "none" });
  assert.equal((await search(account)).status, 402);
  await account.grant(1);
  clock.advance(SECOND);
  assert.deepEqual(await statuses(2, () => search(account)), [200, 402]);
});

test("a pool holds up to 2^53-1 credits, counted exactly, and no grant takes it beyond", async () => {
  const account = await openAccount(gateway, { plan: "none" });
  await account.grant(Number.MAX_SAFE_INTEGER - 2);
  await account.grant(2);
  const beyond = await gateway.admin(
    "POST",
    `/accounts/${account.id}/grants`,
    { pool: "credits", amount: 1, source: "extra" },
    { "idempotency-key": "beyond" },
  );
  assert.deepEqual([beyond.status, beyond.json().field], [400, "amount"]);
  const { headers } = await account.finished("POST", "/search");
  assert.equal(headers["x-credits-remaining"], "9007199254740990");
  assert.equal((await account.balance()).available, Number.MAX_SAFE_INTEGER - 1);
});

test("each route pays from its own pool", async () => {
  const account = await openAccount(gateway, { plan: "pro" });
  const lyrics = await account.finished("POST", "/lyrics");
  const credits = await account.finished("POST", "/search");
  assert.deepEqual(
    [lyrics.headers["x-credits-charged"], lyrics.headers["x-credits-remaining"]],
    ["15", "85"],
  );
  assert.deepEqual(
    [credits.headers["x-credits-charged"], credits.headers["x-credits-remaining"]],
    ["1", "999"],
  );
  assert.deepEqual(await statuses(6, () => account.call("POST", "/lyrics")), [200, 200, 200, 200, 200, 402]);
  const refused = (await account.call("POST", "/lyrics")).json();
  assert.deepEqual([refused.pool, refused.required, refused.available], ["lyrics", 15, 10]);
  assert.equal((await search(account)).status, 200);
});

test("a monthly grant renews on the billing day, in short months on their last, to the millisecond", async () => {
  clock.moveTo("2031-01-20T08:00:00Z");
  const account = await openAccount(gateway, { plan: "starter", subscription: { billing_day: 31 } });
  for (const renewal of ["2031-01-31T00:00:00Z", "2031-02-28T00:00:00Z", "2031-03-31T00:00:00Z"]) {
    assert.equal((await account.finished("POST", "/all")).status, 200);
    const refused = await search(account);
    assert.equal(refused.status, 402);
    assert.equal(refused.json().renews_at, renewal);
    const wait = Number(refused.headers["retry-after"]) * SECOND;
    assert.equal(clock.now().getTime() + wait, Date.parse(renewal));
    clock.advance(wait - 1);
    assert.equal((await search(account)).status, 402);
    clock.advance(1);
    const { available, lots } = await account.balance();
    assert.equal(available, 300);
    assert.equal(lots.at(-1).granted_at, renewal);
  }
});

test("a call that straddles a renewal is paid by the month it began in, and its release comes back to that", async () => {
  clock.moveTo("2031-04-04T23:58:00Z");
  const account = await openAccount(gateway, { plan: "starter", subscription: { billing_day: 5 } });
  const held = hold();
  origin.on("POST /render", held);
  const open = [account.finished("POST", "/render"), account.finished("POST", "/render")];
  const [charged, released] = [await held.next(), await held.next()];
  // Its deadline is later than the renewal.
  clock.moveTo("2031-04-05T00:00:00Z");
  origin.on("POST /render", answer());
  assert.equal((await account.balance()).available, 300);
  charged.begin(200);
  charged.end();
  await Promise.race(open);
  assert.equal((await account.balance()).available, 300);
  released.begin(500);
  released.end();
  await Promise.all(open);
  // For the seven days that the policy's `restore` says unless told otherwise.
  assert.equal((await account.balance()).available, 304);
  clock.moveTo("2031-04-12T00:00:00Z");
  assert.equal((await account.balance()).available, 300);
});

test("a calendar-month grant renews on the first, and what was left is gone", async () => {
  clock.moveTo("2031-04-17T08:00:00Z");
  const account = await openAccount(gateway, { plan: "pro", subscription: { billing_day: 17 } });
  await account.finished("POST", "/lyrics");
  assert.equal((await account.balance("lyrics")).renews_at, "2031-05-01T00:00:00Z");
  assert.equal((await account.balance("credits")).renews_at, "2031-05-17T00:00:00Z");
  clock.moveTo("2031-04-30T23:59:59.999Z");
  assert.equal((await account.balance("lyrics")).available, 85);
  clock.moveTo("2031-05-01T00:00:00Z");
  assert.equal((await account.balance("lyrics")).available, 100);
});

test("an account that slept for months wakes with one month's grant, dated at its moment", async () => {
  clock.moveTo("2031-05-10T00:00:00Z");
  const account = await openAccount(gateway, { plan: "starter" });
  clock.moveTo("2031-09-15T00:00:00Z");
  await gateway.restart();
  const { available, renews_at, lots } = await account.balance();
  assert.equal(available, 300);
  assert.equal(renews_at, "2031-10-10T00:00:00Z");
  assert.equal(lots.at(-1).granted_at, "2031-09-10T00:00:00Z");
});

test("a one-time grant comes once, however often the plan changes", async () => {
  const account = await openAccount(gateway, { plan: "free" });
  await account.finished("POST", "/search");
  await account.patch({ plan: "none" });
  await account.patch({ plan: "free" });
  await gateway.restart();
  await account.patch({ plan: "none" });
  await account.patch({ plan: "free" });
  clock.advance(40 * 86_400 * SECOND);
  assert.equal((await account.balance()).available, 49);
});

test("a plan change sets the running allowance, and keeps what was spent and bought", async () => {
  const account = await openAccount(gateway, { plan: "starter" });
  await account.finished("POST", "/all");
  await account.grant(7);
  assert.equal((await account.patch({ plan: "pro" })).plan, "pro");
  let { available, by_source } = await account.balance();
  assert.deepEqual([available, by_source.subscription, by_source.extra], [707, 700, 7]);
  await account.finished("POST", "/render");
  await account.patch({ plan: "starter" });
  ({ available, by_source } = await account.balance());
  // More was spent than the smaller plan allows: nothing is left of it, and nothing is owed.
  assert.deepEqual([available, by_source.subscription, by_source.extra], [3, 0, 3]);
});

test("a suspended account is refused with the operator's reason, and goes on where it stood", async () => {
  const account = await openAccount(gateway, { plan: "free" });
  await account.finished("POST", "/search");
  await account.patch({ status: "suspended", reason: "invoice 7 is open" });
  const refused = await search(account);
  assert.equal(refused.status, 403);
  assert.equal(refused.json().code, "account_suspended");
  assert.match(refused.json().detail, /invoice 7 is open/);
  assert.equal(refused.headers["x-credits-remaining"], "49");
  await account.patch({ status: "active" });
  clock.advance(5 * SECOND);
  assert.equal((await search(account)).headers["x-credits-remaining"], "48");
});

test("a lapsed subscription is granted nothing, until it is active again", async () => {
  const account = await openAccount(gateway, { plan: "starter" });
  await account.patch({ subscription: { status: "lapsed" } });
  // What was granted stays to the cycle's end.
  assert.equal((await search(account)).status, 200);
  assert.equal((await account.balance()).renews_at, null);
  clock.advance(32 * 86_400 * SECOND);
  const refused = await search(account);
  assert.equal(refused.status, 402);
  assert.equal(refused.json().renews_at, undefined);
  await account.patch({ subscription: { status: "active" } });
  clock.advance(SECOND);
  assert.equal((await search(account)).headers["x-credits-remaining"], "299");
});

test("a cancelled subscription lives to its cycle's end and no longer", async () => {
  const account = await openAccount(gateway, { plan: "starter" });
  const { renews_at } = await account.balance();
  const { subscription } = await account.patch({ subscription: { status: "cancelled" } });
  assert.deepEqual([subscription.status, subscription.ends_at], ["cancelled", renews_at]);
  clock.moveTo(new Date(Date.parse(renews_at) - 1));
  assert.equal((await search(account)).status, 200);
  clock.advance(1);
  assert.equal((await search(account)).status, 402);
});

test("a hold that a kill left behind ends after hold_seconds, and is forgiven", async () => {
  const account = await openAccount(gateway, { plan: "free" });
  await account.finished("POST", "/search");
  const received = origin.requests.length;
  origin.on("POST /render", neverAnswer());
  const exchange = gateway.open("POST", "/render", { headers: { authorization: `Bearer ${account.key}` } });
  exchange.end();
  await origin.request(received);
  await gateway.restart();
  origin.on("POST /render", answer());
  const standing = async () => {
    const { available, held, spent } = await account.balance();
    return { available, held, spent };
  };
  assert.deepEqual(await standing(), { available: 45, held: 4, spent: 1 });
  clock.advance(HOLD_SECONDS * SECOND - 1);
  assert.deepEqual(await standing(), { available: 45, held: 4, spent: 1 });
  clock.advance(1);
  assert.deepEqual(await standing(), { available: 49, held: 0, spent: 1 });
  const [unknown] = (await account.usage("?limit=1")).usage;
  assert.deepEqual([unknown.status_code, unknown.credits_consumed], [null, 0]);
  await gateway.restart();
  assert.deepEqual(await standing(), { available: 49, held: 0, spent: 1 });
});

test("the alarm ends a hold whose account nobody asks about, dated at its deadline", async () => {
  const account = await openAccount(gateway, { plan: "free" });
  const admitted = clock.now().getTime();
  const received = origin.requests.length;
  origin.on("POST /render", neverAnswer());
  gateway.open("POST", "/render", { headers: { authorization: `Bearer ${account.key}` } }).end();
  await origin.request(received);
  await gateway.kill();
  // Alarms are set to full ten seconds, so that holds share them.
  clock.advance((HOLD_SECONDS + 10) * SECOND);
  await gateway.restart();
  // Nothing but the database tells, as to ask the account would end the hold.
  const ended = await untilStored(gateway, (database) => {
    const { name } = database.prepare("SELECT max(name) AS name FROM sqlite_master WHERE name LIKE 'calls_%'").get();
    const found = name && database.prepare(`SELECT ended_at FROM ${name} WHERE endpoint = '/render' AND at = ?`);
    return found?.get(admitted)?.ended_at;
  });
  assert.equal(ended, admitted + HOLD_SECONDS * SECOND);
  origin.on("POST /render", answer());
  assert.equal((await account.balance()).available, 50);
});

test("an origin that answers after the hold was given back is paid all the same", async () => {
  const account = await openAccount(gateway, { plan: "free" });
  const held = hold();
  origin.on("POST /render", held);
  const answered = account.finished("POST", "/render");
  const exchange = await held.next();
  clock.advance(HOLD_SECONDS * SECOND);
  assert.equal((await account.balance()).available, 50);
  exchange.begin(200);
  exchange.end();
  assert.equal((await answered).status, 200);
  const { available, spent } = await account.balance();
  assert.deepEqual([available, spent], [46, 4]);
  const [call] = (await account.usage()).usage;
  assert.deepEqual([call.status_code, call.credits_consumed], [200, 4]);
  origin.on("POST /render", answer());
});

test("a kill keeps the balance, the lots and the usage history as they were", async () => {
  const account = await openAccount(gateway, { plan: "pro" });
  await account.grant(9);
  for (const path of ["/search", "/render", "/lyrics", "/search"]) await account.finished("POST", path);
  const seen = async () => [await account.balance(), await account.balance("lyrics"), await account.usage()];
  const before = await seen();
  assert.equal(before[2].total_count, 4);
  await gateway.restart();
  assert.deepEqual(await seen(), before);
});

test("bought credits wait for a subscription where the policy says so", async () => {
  await gateway.restart({ policy: policyFor(origin, PLANS, "extra_needs_subscription = true") });
  const account = await openAccount(gateway, { plan: "starter" });
  await account.grant(5);
  await account.patch({ subscription: { status: "lapsed" } });
  clock.advance(32 * 86_400 * SECOND);
  assert.equal((await search(account)).status, 402);
  await account.patch({ plan: "free" });
  assert.equal((await account.balance()).available, 50);
  await account.patch({ plan: "starter", subscription: { status: "active" } });
  assert.equal((await account.balance()).available, 355);
});

test("no more unknown ends are forgiven in a day than the policy says", async () => {
  const policy = policyFor(origin, PLANS, `hold_seconds = ${HOLD_SECONDS}\nforgive_per_day = 1`);
  await gateway.restart({ policy });
  const account = await openAccount(gateway, { plan: "free" });
  const received = origin.requests.length;
  origin.on("POST /render", neverAnswer());
  for (let nth = 0; nth < 3; nth++) {
    gateway.open("POST", "/render", { headers: { authorization: `Bearer ${account.key}` } }).end();
  }
  await origin.request(received + 2);
  await gateway.restart();
  clock.advance(HOLD_SECONDS * SECOND);
  const { available, held, spent } = await account.balance();
  assert.deepEqual({ available, held, spent }, { available: 42, held: 0, spent: 8 });
});
