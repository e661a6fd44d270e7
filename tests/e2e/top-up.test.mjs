// Automatic top-up at Stripe: an account's story, and what a kill between "paid" and "granted" does to it.
import test from "node:test";
import assert from "node:assert/strict";
import { openAccount, policyFor } from "./harness/account.mjs";
import { startGateway } from "./harness/gateway.mjs";
import { startOrigin } from "./harness/origin.mjs";
import { startStripe } from "./harness/stripe.mjs";

const sold = (origin) => `
[pools.credits]
[plans.free]
[[packages]]
id = "small"
pool = "credits"
credits = 2000
price = "20.00 USD"
[top_up]
credits_per = 100
price = "1.00 USD"
[notifications]
url = "${origin.url}/hooks"
[[routes]]
match = "POST /search"
cost = 100
`;
const HOUR = 3_600_000;
const SWEEP = 10_000;

async function shop(t) {
  const origin = await startOrigin(t);
  let gateway;
  const stripe = await startStripe(t, { now: () => gateway?.clock.now() ?? new Date() });
  const vars = { ...stripe.vars, WEBHOOK_SECRET: `whsec_${Buffer.alloc(32, 7).toString("base64")}` };
  gateway = await startGateway(t, { policy: policyFor(origin, sold(origin)), vars });
  stripe.tells(gateway);
  const account = await openAccount(gateway, { name: "Acme", email: "ops@acme.example" });
  const own = async (method, path, status, body) => {
    const answer = await gateway.call(account.key, method, path, { body });
    assert.equal(answer.status, status, answer.text());
    return answer.json();
  };
  // The customer buys the package, with a card that Stripe keeps.
  const { url } = await own("POST", "/credits/purchase", 201, { package: "small" });
  stripe.pays(url);
  await stripe.deliver();
  await own("PUT", "/credits/top-up", 200, { enabled: true, threshold: 500, target: 2000, monthly_cap: "60.00 USD" });
  const [customer] = stripe.all("customer");

  // What the operator was told, in order: the next one of this type, after those asked for before.
  let heard = 0;
  async function hook(type) {
    for (;;) {
      const { path, body } = await origin.request(heard++);
      if (path !== "/hooks") continue;
      const event = JSON.parse(await body);
      if (event.type === type) return event.data;
    }
  }

  return {
    origin,
    stripe,
    gateway,
    account,
    own,
    customer,
    hook,
    // The alarm goes off at multiples of ten seconds: the next one is near.
    alarmIsNear: () => gateway.clock.advance(SWEEP - (gateway.clock.now().getTime() % SWEEP) - 2_000),
    calls: (count) =>
      Promise.all(Array.from({ length: count }, async () => (await account.finished("POST", "/search")).status)),
    topUp: async () => (await gateway.admin("GET", `/accounts/${account.id}/top-up`)).json(),
    available: async () => (await account.balance()).available,
    paid: () => stripe.all("invoice").filter(({ status }) => status === "paid"),
    payments: () => stripe.requests.filter(({ path }) => path.endsWith("/pay")).length,
  };
}

test("an account tops up under load, pauses when its card is declined, and goes on with another card", async (t) => {
  const { stripe, gateway, account, own, customer, hook, alarmIsNear, calls, topUp, available, paid, payments } = await shop(t);
  assert.deepEqual([(await topUp()).status, await available()], ["ready", 2000]);

  // Under load it falls below its threshold, and tops up once.
  alarmIsNear();
  assert.deepEqual(new Set(await calls(16)), new Set([200]));
  const first = await hook("top_up.succeeded");
  assert.deepEqual([first.account, first.pool, payments()], [account.id, "credits", 1]);
  const bought = first.credits;
  assert.equal(await available(), 400 + bought);
  assert.equal(first.price, `${(bought / 100).toFixed(2)} USD`);

  // Later the card is declined: top-up pauses at once, and tells so.
  gateway.clock.advance(7 * HOUR);
  stripe.changesCard(customer.id, "pm_card_visa_chargeDeclinedInsufficientFunds");
  await stripe.deliver();
  const spent = Math.floor((400 + bought - 300) / 100);
  alarmIsNear();
  await calls(spent);
  assert.equal((await hook("top_up.failed")).reason, "the payment was declined (insufficient_funds)");
  const paused = await hook("top_up.paused");
  const unpaid = stripe.all("invoice").find(({ status }) => status === "open");
  assert.equal(paused.url, unpaid.hosted_invoice_url);
  const state = await own("GET", "/credits/top-up", 200);
  assert.deepEqual([state.status, state.url], ["paused", unpaid.hosted_invoice_url]);
  assert.match(state.reason, /declined \(insufficient_funds\); it goes on when the payment method is changed or a retry succeeds/);

  // Service goes on while credits last, and no payment is tried.
  const left = await available();
  assert.deepEqual(await calls(Math.floor(left / 100)), Array(Math.floor(left / 100)).fill(200));
  assert.equal((await account.call("POST", "/search")).status, 402);
  assert.equal(payments(), 2);

  // The card is changed; the customer does not wait for the next attempt.
  gateway.clock.advance(HOUR);
  stripe.changesCard(customer.id, "pm_card_mastercard");
  await stripe.deliver();
  await hook("top_up.resumed");
  assert.equal((await topUp()).status, "cooling_down");
  assert.equal((await own("POST", "/credits/top-up/retry", 202)).status, "attempting");
  const second = await hook("top_up.succeeded");
  assert.equal(second.credits, 2000 - (left % 100));
  assert.equal(unpaid.status, "void");
  assert.equal((await account.finished("POST", "/search")).status, 200);
  // One is enough for six hours.
  await own("POST", "/credits/top-up/retry", 409);

  // What Stripe tells besides changes nothing, and everything agrees to the credit.
  const events = stripe.pending.splice(0);
  await stripe.deliver([...events, ...events].reverse());
  const { data: history } = await own("GET", "/billing/history", 200);
  assert.deepEqual(history.map(({ kind, status }) => [kind, status]), [["top_up", "paid"], ["top_up", "paid"], ["package", "paid"]]);
  const credits = history.reduce((sum, payment) => sum + payment.credits[0].amount, 0);
  assert.equal(paid().reduce((sum, { amount_paid }) => sum + amount_paid, 0), credits);
  for (const payment of history) assert.match(payment.receipt_url, /^https:\/\/invoice\.stripe\.test\//);
  const { data: ledger } = await own("GET", "/ledger?limit=100", 200);
  assert.equal(ledger[0].balance, await available());
  const kinds = ledger.filter(({ kind }) => ["topped_up", "bought"].includes(kind)).map(({ credits }) => credits);
  assert.equal(kinds.reduce((sum, each) => sum + each), credits);
  const audit = (await gateway.admin("GET", `/accounts/${account.id}/audit`)).json();
  assert.equal(audit.ok, true);
});

test("a kill between paid and granted neither loses nor repeats a payment", async (t) => {
  const { stripe, gateway, own, hook, alarmIsNear, calls, topUp, available, paid } = await shop(t);
  const pay = /^POST \/v1\/invoices\/.*\/pay$/;
  stripe.plan(pay, "hold");
  alarmIsNear();
  await calls(16);
  // Stripe has the money, and nobody heard of it.
  for (let n = 0; !pay.test(`${(await stripe.request(n)).method} ${stripe.requests[n].path}`); n++);
  await gateway.kill();
  stripe.release();
  assert.equal(paid().length, 2);
  await gateway.restart();
  gateway.clock.advance(60_000);
  // Whoever looks has what is overdue done.
  await topUp();
  const told = await hook("top_up.succeeded");
  assert.equal(await available(), 400 + told.credits);
  await stripe.deliver();
  assert.equal(await available(), 400 + told.credits);
  assert.deepEqual([paid().length, (await topUp()).status], [2, "ready"]);
  await own("PUT", "/credits/top-up", 200, { enabled: false, threshold: 500, target: 2000 });
  assert.equal((await topUp()).reason, "automatic top-up is off");
});

test("a debit that fails after days pauses, until something else is paid with", async (t) => {
  const { stripe, gateway, own, customer, hook, alarmIsNear, calls, topUp, payments } = await shop(t);
  stripe.changesCard(customer.id, "pm_sepaDebit");
  await stripe.deliver();
  alarmIsNear();
  await calls(16);
  for (let n = 0; !(await stripe.request(n)).path.endsWith("/pay"); n++);
  gateway.clock.advance(48 * HOUR);
  assert.equal((await topUp()).status, "attempting");
  stripe.debitFails(stripe.all("invoice").find(({ status }) => status === "open"));
  await stripe.deliver();
  assert.equal((await hook("top_up.paused")).reason, "the payment was declined (insufficient_funds)");

  // A card that paid a package is not the default, nor is a footer.
  gateway.clock.advance(60_000);
  const { url } = await own("POST", "/credits/purchase", 201, { package: "small" });
  stripe.pays(url);
  stripe.emit("customer.updated", stripe.object(customer.id), { invoice_settings: { footer: null } });
  await stripe.deliver();
  assert.deepEqual([(await topUp()).status, payments()], ["paused", 1]);
  stripe.changesCard(customer.id, "pm_card_mastercard");
  await stripe.deliver();
  await hook("top_up.resumed");
  assert.deepEqual([(await topUp()).status, payments()], ["ready", 1]);
});

test("without Stripe's secrets top-up is 501, and where the policy sells none, 404", async (t) => {
  const origin = await startOrigin(t);
  const stripe = await startStripe(t);
  const tables = "[pools.credits]\n[plans.free]\n[[routes]]\nmatch = \"GET /\"\ncost = 0\n";
  const gateway = await startGateway(t, { policy: policyFor(origin, tables) });
  const account = await openAccount(gateway);
  const off = { enabled: false, threshold: 500, target: 2000 };
  async function answers(status) {
    for (const [method, path, body] of [["GET", ""], ["PUT", "", off], ["POST", "/retry"]]) {
      const own = await gateway.call(account.key, method, `/credits/top-up${path}`, { body });
      const operators = await gateway.admin(method, `/accounts/${account.id}/top-up${path}`, body);
      assert.deepEqual([own.status, operators.status], [status, status], `${method} ${path} ${own.text()} ${operators.text()}`);
    }
  }
  await answers(501);
  await gateway.restart({ vars: stripe.vars });
  await answers(404);
});
