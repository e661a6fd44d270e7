// The three price lists in examples/, as they are shipped: every number that they promise, over HTTP.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import * as suite from "node:test";
import { test } from "node:test";
import { openAccount, statuses } from "./harness/account.mjs";
import { secrets, startGateway } from "./harness/gateway.mjs";
import { answer, startOrigin } from "./harness/origin.mjs";

const origin = await startOrigin(suite);

async function startExample(name, t) {
  const text = readFileSync(new URL(`../../examples/${name}.toml`, import.meta.url), "utf8");
  const gateway = await startGateway(t, { policy: text.replace("https://origin.example.com", origin.url) });
  gateway.clock.stop("2031-01-15T12:00:00Z");
  return gateway;
}

// Charged, and what the pool has left: as the headers tell it.
const bill = ({ status, headers }) => [status, headers["x-credits-charged"], headers["x-credits-remaining"]];

test("music-search: one credit for a success, five calls a minute, fifty credits once", async (t) => {
  const gateway = await startExample("music-search", t);
  const free = await openAccount(gateway, { plan: "free" });
  const post = (account, path) => account.finished("POST", `/api/external/v1${path}`);

  assert.deepEqual(bill(await post(free, "/search")), [200, "1", "49"]);
  assert.deepEqual(bill(await post(free, "/download-track")), [200, "1", "48"]);
  origin.on("POST /api/external/v1/search", answer({ status: 500 }));
  assert.deepEqual(bill(await post(free, "/search")), [500, "0", "48"], "only success is charged");
  origin.on("POST /api/external/v1/search", answer());
  await post(free, "/search");
  await post(free, "/search");
  const sixth = await post(free, "/search");
  assert.deepEqual([sixth.status, sixth.json()["violated-policies"]], [429, ["minute"]]);
  const me = await free.page("/api/external/v1/me");
  assert.deepEqual([me.tier, me.credits_remaining, me.monthly_allowance], ["free", 46, 50]);

  const pro = await openAccount(gateway, { plan: "pro" });
  const told = await pro.page("/api/external/v1/me");
  assert.deepEqual(told.rate_limit, { requests_per_minute: 300, requests_per_day: null });
  assert.deepEqual(bill(await post(pro, "/search")), [200, "1", "49999"]);
  const starter = await openAccount(gateway, { plan: "starter" });
  assert.deepEqual(bill(await post(starter, "/search")), [200, "1", "299"]);
});

test("music-search: fifty calls a day, ten and three hundred a minute, and a new month's credits", async (t) => {
  const gateway = await startExample("music-search", t);
  // Each is told before the clock leaps: holds that a leap of a month ends are forgiven, and paid when their end comes.
  const search = (account) => () => account.finished("POST", "/api/external/v1/search");
  const times = (count, status) => Array(count).fill(status);
  const MINUTE = 60_000;

  // What fails is free, and counts against the day: five a minute, fifty a day.
  const free = await openAccount(gateway, { plan: "free" });
  origin.on("POST /api/external/v1/search", answer({ status: 500 }));
  for (let minute = 0; minute < 10; minute++) {
    assert.deepEqual(await statuses(5, search(free)), times(5, 500));
    gateway.clock.advance(MINUTE);
  }
  const over = await search(free)();
  assert.deepEqual([over.status, over.json()["violated-policies"]], [429, ["daily"]]);
  gateway.clock.moveTo("2031-01-16T00:00:00Z");
  origin.on("POST /api/external/v1/search", answer());
  assert.deepEqual(bill(await free.finished("POST", "/api/external/v1/search")), [200, "1", "49"]);

  // The plans that are paid: their minute, no day, and each month's credits anew.
  for (const [plan, a_minute, credits] of [
    ["starter", 10, 300],
    ["pro", 300, 50_000],
  ]) {
    const account = await openAccount(gateway, { plan });
    assert.deepEqual(await statuses(a_minute + 1, search(account)), [...times(a_minute, 200), 429], plan);
    const { renews_at } = await account.balance();
    gateway.clock.moveTo(renews_at);
    assert.equal((await account.balance()).available, credits, `${plan}: what was not used is gone`);
  }
});

test("music-generation: each operation has its price, and lyrics a pool of their own", async (t) => {
  const gateway = await startExample("music-generation", t);
  const studio = await openAccount(gateway, { plan: "studio" });
  const post = (path, body) => studio.finished("POST", `/v1${path}`, { body });

  let left = 1000;
  for (const [path, body, cost] of [
    ["/family-a/create", { task_type: "generate" }, 15],
    ["/family-b/generate", {}, 12],
    ["/family-c/generate", {}, 10],
    ["/family-a/create", { task_type: "upload" }, 2],
    ["/family-a/create", { task_type: "concat" }, 2],
    ["/wav", {}, 2],
    ["/stems", { mode: "basic" }, 15],
    ["/stems", { mode: "full" }, 75],
  ]) {
    left -= cost;
    assert.deepEqual(bill(await post(path, body)), [200, String(cost), String(left)], `${path} ${JSON.stringify(body)}`);
  }
  assert.equal((await post("/family-a/create", { task_type: "extend" })).status, 400, "an operation without a price");

  // The origin received, byte for byte, the body that told the price.
  const sent = origin.requests.findLast(({ path }) => path === "/v1/stems");
  assert.equal((await sent.body).toString(), '{"mode":"full"}');

  for (let n = 1; n <= 10; n++) assert.deepEqual(bill(await post("/lyrics")), [200, "10", String(100 - 10 * n)]);
  const short = await post("/lyrics");
  assert.deepEqual([short.status, short.json().pool, short.json().required], [402, "lyrics", 10]);
  assert.equal((await studio.balance()).available, left, "lyrics spend nothing else");
});

test("music-generation: bought credits go first, need a subscription, and outlive its cycle", async (t) => {
  const gateway = await startExample("music-generation", t);
  const studio = await openAccount(gateway, { plan: "studio", subscription: { billing_day: 31 } });
  await studio.grant(20);
  const wav = () => studio.finished("POST", "/v1/wav");
  await wav();
  assert.deepEqual((await studio.balance()).by_source, { subscription: 1000, extra: 18, promo: 0 });

  // A new cycle: the subscription's credits start anew, the bought ones stay.
  await studio.finished("POST", "/v1/family-b/generate");
  gateway.clock.moveTo("2031-02-01T00:00:00Z");
  assert.deepEqual((await studio.balance()).by_source, { subscription: 1000, extra: 6, promo: 0 });

  await studio.patch({ subscription: { status: "lapsed" } });
  gateway.clock.moveTo("2031-03-01T00:00:00Z");
  assert.equal((await wav()).status, 402, "bought credits wait for a subscription");
  await studio.patch({ subscription: { status: "active" } });
  gateway.clock.advance(1_000); // a refusal for credits may be repeated without asking for so long
  assert.deepEqual(bill(await wav()), [200, "2", "1004"]);
});

test("voice-dubbing: the origin tells the minutes, and what is held is not what is charged", async (t) => {
  const gateway = await startExample("voice-dubbing", t);
  const customer = await openAccount(gateway, { plan: "payg" });
  await customer.grant(500);
  const dub = (seconds) => {
    origin.on("POST /v1/dub", answer({ headers: seconds === undefined ? {} : { "x-audio-seconds": seconds } }));
    return customer.finished("POST", "/v1/dub");
  };

  // 500 credits are enough for a 10-credit clip, although the maximum is 600.
  assert.deepEqual(bill(await dub("30")), [200, "10", "490"]);
  assert.equal(origin.requests.at(-1).headers["x-tollgate-held"], "500");
  assert.deepEqual(bill(await dub("180")), [200, "30", "460"]);
  assert.deepEqual(bill(await dub("600")), [200, "100", "360"]);

  const marked = async (answered) => {
    const call = await gateway.admin("GET", `/calls/${answered.headers["x-request-id"]}`);
    return call.json().mark;
  };
  const unreadable = await dub("about a minute");
  assert.deepEqual([...bill(unreadable), await marked(unreadable)], [200, "10", "350", "bad_value"]);
  const above = await dub("36000000000000000000000");
  assert.deepEqual([...bill(above), await marked(above)], [200, "350", "0", "above_hold"]);
  const line = gateway.logs().find(({ request_id }) => request_id === above.headers["x-request-id"]);
  assert.equal(line.mark, "above_hold");
  const found = await customer.usage("?marked=true");
  assert.deepEqual(
    found.usage.map(({ mark, request_id }) => [mark, request_id]),
    [
      ["above_hold", above.headers["x-request-id"]],
      ["bad_value", unreadable.headers["x-request-id"]],
    ],
  );
  const { usage } = await customer.page("/v1/usage");
  assert.deepEqual([usage.length, usage.filter((call) => "mark" in call)], [5, []], "the customer sees no mark");
  assert.equal((await dub("30")).status, 402, "less than the minimum is left");

  const quote = await customer.page("/v1/quote?method=POST&path=/dub&value=180");
  assert.equal(quote.credits, 30);
});

test("voice-dubbing: packages of any size never expire", async (t) => {
  const gateway = await startExample("voice-dubbing", t);
  const packages = [500, 5_000, 50_000, 125_000];
  const customer = await openAccount(gateway, { plan: "payg" });
  for (const credits of packages) await customer.grant(credits);
  gateway.clock.moveTo("2041-01-15T12:00:00Z");
  const { available, lots } = await customer.balance();
  assert.equal(available, 180_500);
  assert.deepEqual(
    lots.map(({ amount, expires_at }) => [amount, expires_at]),
    packages.map((credits) => [credits, null]),
  );
});

test("voice-dubbing: training is a job that the origin ends, hours later, also by failing", async (t) => {
  const gateway = await startExample("voice-dubbing", t);
  const customer = await openAccount(gateway, { plan: "payg" });
  await customer.grant(700);
  origin.on("POST /v1/train", answer({ status: 202 }));
  const train = (maxMinutes) => customer.finished("POST", "/v1/train", { body: { maxMinutes } });
  const end = (job, how, body) =>
    gateway.send("POST", `/_tollgate/v1/calls/${job.headers["x-request-id"]}/${how}`, {
      headers: { authorization: `Bearer ${secrets.ORIGIN_TOKEN}`, "content-type": "application/json" },
      body: JSON.stringify(body),
    });

  const short = await train(5);
  assert.deepEqual(bill(short), [202, undefined, "650"], "not known yet what it costs");
  const long = await train(60);
  assert.equal((await customer.balance()).held, 650);
  assert.equal((await train(61)).status, 400, "more than the maximum for one call");

  await gateway.restart();
  gateway.clock.advance(5 * 3_600_000);
  const failed = await end(long, "release", { reason: "diverged" });
  assert.deepEqual([failed.status, failed.json().state], [200, "released"]);
  assert.equal((await customer.balance()).available, 650, "its credits are restored");

  assert.equal((await end(short, "settle", { credits: 51 })).json().code, "above_hold");
  const settled = await end(short, "settle", { value: 4 });
  assert.deepEqual([settled.json().state, settled.json().charged], ["settled", 40]);
  assert.equal((await end(short, "settle", { value: 4 })).json().code, "already_settled");
  assert.equal((await end(long, "settle", {})).json().code, "already_released");

  const refund = await end(short, "release", { reason: "unusable" });
  assert.equal(refund.json().state, "refunded");
  const { available, held, spent } = await customer.balance();
  assert.deepEqual({ available, held, spent }, { available: 700, held: 0, spent: 0 });
  const { usage } = await customer.page("/v1/usage?endpoint=/train");
  assert.deepEqual(usage.map((line) => line.credits_consumed), [0, 0]);
});
