// What is bought at Stripe, and what becomes of it here.
import test from "node:test";
import assert from "node:assert/strict";
import { openAccount, policyFor } from "./harness/account.mjs";
import { startGateway } from "./harness/gateway.mjs";
import { startOrigin } from "./harness/origin.mjs";
import { startStripe } from "./harness/stripe.mjs";

const SOLD = `
[pools.credits]
[plans.free]
[plans.starter]
stripe_price = "price_starter"
grants = [{ pool = "credits", amount = 300, renews = "monthly", rollover = 50 }]
[plans.pro]
stripe_price = "price_pro"
grants = [{ pool = "credits", amount = 1000, renews = "monthly" }]
[[packages]]
id = "small"
pool = "credits"
credits = 5000
price = "50.00 USD"
[payments]
return_url = "https://app.example.com/billing"
[[routes]]
match = "POST /search"
cost = 100
`;

async function shop(t) {
  const origin = await startOrigin(t);
  const stripe = await startStripe(t);
  const gateway = await startGateway(t, { policy: policyFor(origin, SOLD), vars: stripe.vars });
  stripe.tells(gateway);
  const account = await openAccount(gateway, { name: "Acme", email: "ops@acme.example" });
  const post = async (path, body, status = 201) => {
    const answer = await gateway.call(account.key, "POST", path, { body });
    assert.equal(answer.status, status, answer.text());
    return answer.json();
  };
  return {
    origin,
    stripe,
    gateway,
    account,
    post,
    buy: async () => (await post("/credits/purchase", { package: "small" })).url,
    available: async () => (await account.balance()).available,
    history: async () => (await account.page("/billing/history")).data,
    audited: async () => assert.equal((await gateway.admin("GET", `/accounts/${account.id}/audit`)).json().ok, true),
  };
}

test("without Stripe's secrets everything about payments is 501, and the rest works", async (t) => {
  const origin = await startOrigin(t);
  const gateway = await startGateway(t, { policy: policyFor(origin, SOLD) });
  const account = await openAccount(gateway);
  await account.grant(100);
  for (const [method, path, body] of [
    ["POST", "/credits/purchase", { package: "small" }],
    ["POST", "/subscription", { plan: "starter" }],
    ["POST", "/billing/portal", {}],
    ["GET", "/billing/history"],
  ]) {
    const own = await gateway.call(account.key, method, path, { body });
    const operators = await gateway.admin(method, `/accounts/${account.id}${path}`, body);
    for (const answer of [own, operators]) assert.deepEqual([answer.status, answer.json().code], [501, "payments_off"]);
  }
  assert.equal((await gateway.send("POST", "/_tollgate/v1/stripe/webhook", { body: "{}" })).status, 501);
  assert.equal((await account.call("POST", "/search")).status, 200);
});

test("a package is paid at Stripe and granted once, however often and in whatever order Stripe tells", async (t) => {
  const { stripe, gateway, account, buy, available, history, audited } = await shop(t);
  const url = await buy();
  assert.match(url, /^https:\/\/checkout\.stripe\.test\//);
  const [customer, session] = stripe.requests;
  assert.deepEqual(customer.form, { name: "Acme", email: "ops@acme.example", metadata: { tollgate_account: account.id } });
  assert.deepEqual(
    [session.form.mode, session.form.line_items[0].price_data.unit_amount, session.form.invoice_creation.enabled, session.form.success_url],
    ["payment", "5000", "true", "https://app.example.com/billing"],
  );
  assert.equal(await available(), 0);

  stripe.pays(url);
  const told = stripe.pending.splice(0);
  await stripe.deliver([...told].reverse());
  await stripe.deliver(told);
  assert.equal(await available(), 5000);
  const [paid] = await history();
  assert.deepEqual(
    [paid.kind, paid.package, paid.status, paid.paid, paid.credits[0].amount, paid.receipt_url.startsWith("https://invoice.stripe.test/")],
    ["package", "small", "paid", "50.00 USD", 5000, true],
  );

  // After a kill the repeat is still one.
  await gateway.restart();
  await stripe.deliver(told);
  assert.equal(await available(), 5000);
  // The same customer buys again.
  await buy();
  assert.equal(stripe.requests.filter(({ path }) => path === "/v1/customers").length, 1);
  await audited();
});

test("money that takes days, or never comes, is credited when it is there", async (t) => {
  const { stripe, buy, available, history } = await shop(t);
  const late = stripe.pays(await buy(), { later: true });
  const lost = stripe.pays(await buy(), { later: true });
  await stripe.deliver();
  assert.equal(await available(), 0);
  stripe.succeeds(late);
  stripe.fails(lost);
  await stripe.deliver();
  assert.equal(await available(), 5000);
  assert.deepEqual((await history()).map(({ status }) => status), ["failed", "paid"]);
});
