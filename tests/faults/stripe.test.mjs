// Stripe is slow, silent, breaks off or talks nonsense, and the runtime is killed, while money moves: what is paid is
// what is granted, once, and the accounts go on meanwhile.
import assert from "node:assert/strict";
import test from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { openAccount, policyFor } from "../e2e/harness/account.mjs";
import { PATIENT, WAYS, startBetween } from "../e2e/harness/between.mjs";
import { startGateway } from "../e2e/harness/gateway.mjs";
import { residentMegabytes } from "../e2e/harness/memory.mjs";
import { answer, startOrigin } from "../e2e/harness/origin.mjs";
import { isFull, randomOf, scaled, seed, show } from "../e2e/harness/scale.mjs";
import { startStripe } from "../e2e/harness/stripe.mjs";

const KILLS = scaled(3, 40);
const [ALARM_MS, HOUR_MS] = [10_000, 3_600_000];
// Of the requests that a top-up makes, in their order.
const STEPS = [/^GET .*\/customers\//, /^POST .*\/invoices$/, /^POST .*\/invoiceitems$/, /\/finalize$/, /\/pay$/];
// Those for which the gateway has patience take that long: in full alone.
const all = Object.keys(WAYS).filter((way) => isFull || !PATIENT.includes(way));
const some = (list, stream) => (isFull ? list : randomOf(stream).shuffled([...list]).slice(0, 6));
const TAKEN = ["pass", "slow"];

// 0: the connection broke, or there was none to be had.
async function statusOf(ask) {
  try {
    return (await ask()).status;
  } catch {
    return 0;
  }
}

async function shop(t) {
  const origin = await startOrigin(t);
  origin.on("/search", answer({ body: "found" }));
  let gateway;
  const stripe = await startStripe(t, { now: () => gateway?.clock.now() ?? new Date() });
  const between = await startBetween(t, stripe.url);
  gateway = await startGateway(t, {
    policy: policyFor(origin, `
[pools.credits]
[plans.free]
[[packages]]
id = "small"
pool = "credits"
credits = 2000
price = "20.00 USD"
[payments]
return_url = "https://app.example.com/billing"
[top_up]
credits_per = 100
price = "1.00 USD"
[[routes]]
match = "POST /search"
cost = 100
`),
    vars: { ...stripe.vars, STRIPE_API: between.url },
  });
  stripe.tells(gateway);
  const customerOf = (id) => stripe.all("customer").find(({ metadata }) => metadata.tollgate_account === id);
  return {
    gateway,
    stripe,
    between,
    customerOf,
    buys: (id, key) => gateway.admin("POST", `/accounts/${id}/credits/purchase`, { package: "small" }, { "idempotency-key": key }),
    // Stripe sends an event again until it is taken.
    async delivers(events) {
      for (const event of events)
        for (let attempt = 0; ; attempt++) {
          const status = await statusOf(() => stripe.send(event));
          if (status === 200) break;
          assert.ok(status === 503 || status === 0, `${event.type}: ${status}`);
          assert.ok(attempt < 1_000, `${event.type} is never taken`);
          await sleep(20);
        }
    },
    topUp: async (id) => (await gateway.admin("GET", `/accounts/${id}/top-up`)).json(),
    // The customer's money is the account's credits, to the cent, by the ledger too.
    async agrees({ id }) {
      const paid = stripe.all("payment_intent").filter(({ customer, status }) => customer === customerOf(id).id && status === "succeeded");
      const money = paid.reduce((sum, { amount_received }) => sum + amount_received, 0);
      const { data: history } = (await gateway.admin("GET", `/accounts/${id}/billing/history?limit=100`)).json();
      const bought = history.filter(({ status }) => status === "paid").reduce((sum, payment) => sum + payment.credits[0].amount, 0);
      const { available, spent, held } = (await gateway.admin("GET", `/accounts/${id}/balance`)).json().pools.credits;
      assert.deepEqual([bought, available + spent, held], [money, money, 0], `${id}: ${JSON.stringify(history)}`);
      assert.equal((await gateway.admin("GET", `/accounts/${id}/audit`)).json().ok, true);
      return { money, payments: paid.length };
    },
  };
}

test("however Stripe fails while a page is ordered: 503, nothing changes, and the repeat gets the one page", { timeout: 120_000 }, async (t) => {
  t.diagnostic(`seed: ${seed}`);
  const { gateway, stripe, between, buys, customerOf, delivers, agrees } = await shop(t);
  const ways = some(all, 1);
  const accounts = await Promise.all(ways.map((_, n) => openAccount(gateway, { id: `buyer-${n}` })));
  const customers = new Map();
  for (const [n, { id }] of accounts.entries()) {
    assert.equal((await buys(id, "first")).status, 201);
    customers.set(customerOf(id).id, ways[n]);
  }
  between.chooses(({ body }) => customers.get(new URLSearchParams(body.toString()).get("customer")) ?? "pass");
  const statuses = await Promise.all(
    accounts.map(async ({ id }, n) => {
      const { status } = await buys(id, "second");
      assert.equal(status, TAKEN.includes(ways[n]) ? 201 : 503, ways[n]);
      return status;
    }),
  );
  between.chooses(() => "pass");
  for (const [n, account] of accounts.entries()) {
    const again = await buys(account.id, "second");
    assert.equal(again.status, 201, again.text());
    const pages = stripe.all("checkout.session").filter(({ customer }) => customers.get(customer) === ways[n]);
    assert.deepEqual([pages.length, again.json().url], [2, pages.at(-1).url], ways[n]);
    // Nobody paid for anything so far.
    assert.equal((await account.balance()).available, 0);
    stripe.pays(again.json().url);
  }
  await delivers(stripe.pending.splice(0));
  for (const account of accounts) assert.equal((await agrees(account)).money, 2_000);
  assert.ok(between.requests.every(({ path }) => path !== "/elsewhere"), "a redirect was followed");
  show(t, { ways: ways.join(", "), "503": statuses.filter((status) => status === 503).length });
});

test("an answer of Stripe's without end takes no memory", { timeout: 60_000 }, async (t) => {
  const { gateway, between, buys } = await shop(t);
  const { id } = await openAccount(gateway);
  assert.equal((await buys(id, "first")).status, 201);
  const before = residentMegabytes();
  between.chooses(() => "endless");
  assert.equal((await buys(id, "second")).status, 503);
  const grown = residentMegabytes() - before;
  show(t, { "workerd grew by": `${grown.toFixed(0)} MB` });
  assert.ok(grown < 100, `workerd grew by ${grown} MB`);
});

test("however Stripe fails while an event is followed up, the event comes again and counts once", { timeout: 120_000 }, async (t) => {
  t.diagnostic(`seed: ${seed}`);
  const { gateway, stripe, between, buys, delivers } = await shop(t);
  const ways = some(all, 2);
  const intents = new Map();
  const accounts = [];
  for (const [n, way] of ways.entries()) {
    const account = await openAccount(gateway, { id: `refunded-${n}` });
    accounts.push(account);
    const { intent } = stripe.pays((await buys(account.id, "first")).json().url);
    intents.set(intent.id, way);
  }
  await delivers(stripe.pending.splice(0));
  for (const intent of intents.keys()) stripe.refunds(intent, 500);
  const events = stripe.pending.splice(0).filter(({ type }) => type === "refund.created");
  between.chooses(({ path }) => intents.get(/payment_intents\/([^?]*)/.exec(path)?.[1]) ?? "pass");
  const told = await Promise.all(events.map(async (event) => [intents.get(event.data.object.payment_intent), (await stripe.send(event)).status]));
  const lost = told.filter(([way, status]) => status !== (TAKEN.includes(way) ? 200 : 503));
  between.chooses(() => "pass");
  assert.deepEqual(lost, [], "taken, and not followed up");
  await delivers([...events, ...events]);
  for (const account of accounts) assert.equal((await account.balance()).available, 1_500);
  show(t, { ways: told.length, "503, and then taken": told.filter(([, status]) => status === 503).length });
});

test("however Stripe fails at any step of a top-up, it is paid once and granted once", { timeout: 400_000 }, async (t) => {
  t.diagnostic(`seed: ${seed}`);
  const { gateway, stripe, between, customerOf, buys, delivers, topUp, agrees } = await shop(t);
  const trials = STEPS.flatMap((step) => all.map((way) => ({ step, way })));
  const tried = some(trials, 3);
  const accounts = [];
  for (const [n, trial] of tried.entries()) {
    const account = await openAccount(gateway, { id: `topped-${n}` });
    stripe.pays((await buys(account.id, "first")).json().url);
    stripe.changesCard(customerOf(account.id).id, "pm_card_visa");
    accounts.push(account);
    Object.assign(trial, { account, customer: customerOf(account.id).id, isOver: false });
  }
  await delivers(stripe.pending.splice(0));
  // Once for each, at the step that is its own.
  between.chooses(({ method, path, body }) => {
    const [place] = path.split("?");
    const named = [...place.split("/"), new URLSearchParams(body.toString()).get("customer")];
    const isAbout = ({ customer }) => named.includes(customer) || stripe.all("invoice").some((invoice) => invoice.customer === customer && named.includes(invoice.id));
    const trial = tried.find((trial) => !trial.isOver && trial.step.test(`${method} ${place}`) && isAbout(trial));
    if (trial) trial.isOver = true;
    return trial?.way ?? "pass";
  });
  for (const account of accounts) {
    const body = { enabled: true, threshold: 500, target: 2_000, monthly_cap: "60.00 USD" };
    assert.equal((await gateway.admin("PUT", `/accounts/${account.id}/top-up`, body)).status, 200);
  }
  await Promise.all(accounts.map(async (account) => {
    for (let call = 0; call < 16; call++) assert.equal((await account.call("POST", "/search")).status, 200);
  }));
  // Time goes by, and the customers look now and then.
  const isDone = async ({ account }) => (await account.balance()).available > 500;
  for (let round = 0; ; round++) {
    const waiting = [];
    for (const trial of tried) {
      await topUp(trial.account.id);
      if (!(await isDone(trial))) waiting.push(`${trial.way} at ${trial.step}`);
    }
    if (waiting.length === 0) break;
    assert.ok(round < 100, `never paid, or never granted: ${waiting.join("; ")}`);
    gateway.clock.advance(2 * ALARM_MS);
    await sleep(isFull ? 300 : 50);
  }
  assert.deepEqual(tried.filter(({ isOver }) => !isOver).map(({ way, step }) => `${way} at ${step}`), [], "that step was never asked for");
  await delivers(stripe.pending.splice(0));
  for (const account of accounts) {
    assert.equal((await account.finished("POST", "/search")).status, 200);
    assert.equal((await agrees(account)).payments, 2, account.id);
  }
  show(t, { "ways and steps": tried.length, "of": trials.length, "paid and granted once": accounts.length });
});

test(`${KILLS} kills while customers buy, pay and top up: the money is the credits`, { timeout: 60_000 + KILLS * 10_000 }, async (t) => {
  t.diagnostic(`seed: ${seed}`);
  const random = randomOf();
  const { gateway, stripe, customerOf, buys, delivers, topUp, agrees } = await shop(t);
  const accounts = await Promise.all(["ann", "bob", "cleo"].map((id) => openAccount(gateway, { id })));
  const patiently = async (ask, wanted) => {
    for (;;) {
      let answer;
      const status = await statusOf(async () => (answer = await ask()));
      if (wanted.includes(status)) return answer;
      assert.ok(status === 0 || status === 503, answer?.text());
      await sleep(20);
    }
  };
  let [isOver, pages, calls, broken] = [false, 0, 0, 0];
  const shopping = accounts.map(async ({ id, call }) => {
    for (let n = 0; !isOver; n++) {
      const page = await patiently(() => buys(id, `order-${n}`), [201]);
      pages += 1;
      if (random.below(3) > 0) stripe.pays(page.json().url);
      stripe.changesCard(customerOf(id).id, "pm_card_visa");
      if (n === 0) await patiently(() => gateway.admin("PUT", `/accounts/${id}/top-up`, { enabled: true, threshold: 5_000, target: 7_000, monthly_cap: "1000.00 USD" }), [200]);
      // Events may come late, twice, and in any order.
      const events = random.shuffled(stripe.pending.splice(0));
      await delivers(random.below(2) === 0 ? events : [...events, ...events]);
      for (let spent = 0; spent < 12 && !isOver; spent++) {
        const status = await statusOf(() => call("POST", "/search"));
        if (status === 0) broken += 1;
        calls += 1;
        assert.ok([0, 200, 402, 503].includes(status), `${status}`);
      }
    }
  });
  for (let kill = 0; kill < KILLS; kill++) {
    await sleep(random.between(50, 900));
    await gateway.kill();
    gateway.clock.advance(random.below(4) === 0 ? 7 * HOUR_MS : random.between(0, 2 * ALARM_MS));
    await gateway.restart();
  }
  isOver = true;
  await Promise.all(shopping);
  // What is under way comes to its end by itself, the holds that a kill left among it.
  for (let round = 0; ; round++) {
    gateway.clock.advance(round === 0 ? 400_000 : 2 * ALARM_MS);
    await delivers(stripe.pending.splice(0));
    const states = [];
    for (const { id } of accounts) states.push((await topUp(id)).status);
    if (!states.includes("attempting") && !states.includes("due") && stripe.pending.length === 0) break;
    assert.ok(round < 100, `${states}`);
    await sleep(50);
  }
  let [money, payments] = [0, 0];
  for (const account of accounts) {
    const agreed = await agrees(account);
    money += agreed.money;
    payments += agreed.payments;
    assert.equal(stripe.all("customer").filter(({ id }) => id === customerOf(account.id).id).length, 1);
  }
  const topUps = stripe.all("invoice").filter(({ status, metadata }) => status === "paid" && metadata.tollgate_top_up !== undefined).length;
  show(t, { kills: KILLS, pages, calls, "broken off": broken, payments, "paid, and granted": `${(money / 100).toFixed(2)} USD`, "invoices of top-ups": topUps });
});
