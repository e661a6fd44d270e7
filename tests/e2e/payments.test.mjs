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
  const { tollgate_opened: opened, ...noted } = customer.form.metadata;
  assert.deepEqual({ ...customer.form, metadata: noted }, { name: "Acme", email: "ops@acme.example", metadata: { tollgate_account: account.id } });
  assert.equal(opened, session.form.payment_intent_data.metadata.tollgate_opened);
  const open = Number(session.form.expires_at) - gateway.clock.now().getTime() / 1000;
  assert.ok(open > 3_590 && open <= 7_200, `${open} s`);
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

test("refunds and disputes take back what is left, pause buying while it is open, and a won one gives it back", async (t) => {
  const { stripe, gateway, account, post, buy, available, history, audited } = await shop(t);
  const { intent } = stripe.pays(await buy());
  await stripe.deliver();
  assert.equal((await account.finished("POST", "/search")).status, 200);

  const refund = stripe.refunds(intent, 2_500);
  await stripe.deliver();
  assert.equal(await available(), 2_400);
  stripe.refundFails(refund);
  await stripe.deliver([...stripe.pending.splice(0)].reverse());
  assert.equal(await available(), 4_900);

  const dispute = stripe.disputes(intent);
  await stripe.deliver();
  assert.equal(await available(), 0);
  assert.deepEqual((await history()).map(({ status, credits }) => [status, credits[0].shortfall]), [["disputed", 100]]);
  assert.equal((await post("/credits/purchase", { package: "small" }, 409)).code, "conflict");
  const kinds = (await account.page("/ledger")).data.map(({ kind, credits }) => [kind, credits]);
  assert.deepEqual(kinds.slice(0, 2).sort(), [["shortfall", -100], ["taken_back", -4_900]]);

  // Events of its beginning come once more after its end.
  const before = stripe.all("event").filter(({ type }) => type.startsWith("charge.dispute"));
  stripe.decides(dispute, "won");
  await stripe.deliver();
  await stripe.deliver(before);
  assert.equal(await available(), 4_900);
  await buy();
  await audited();

  // A refund that is heard of before the payment.
  const early = stripe.pays(await buy());
  const payment = stripe.pending.splice(0);
  stripe.refunds(early.intent, 1_000);
  await stripe.deliver();
  await stripe.deliver(payment);
  assert.equal(await available(), 4_900 + 4_000);
  assert.equal((await gateway.admin("GET", `/accounts/${account.id}/billing/history`)).json().data.length, 2);
  await audited();
});

test("a plan is subscribed to at Stripe, granted by its paid invoices, and changed and cancelled in the portal", async (t) => {
  const { stripe, gateway, account, post, available, history, audited } = await shop(t);
  const plan = async () => {
    const { plan, subscription } = await account.show();
    return [plan, subscription.status];
  };
  assert.deepEqual((await post("/subscription", { plan: "free" }, 400)).field, "plan");
  const { subscription } = stripe.pays((await post("/subscription", { plan: "starter" })).url);
  await stripe.deliver([...stripe.pending.splice(0)].reverse());
  assert.deepEqual([await plan(), await available()], [["starter", "active"], 300]);
  assert.equal((await post("/subscription", { plan: "pro" }, 409)).code, "conflict");
  assert.match((await post("/billing/portal")).url, /^https:\/\/billing\.stripe\.test\//);

  const day = 86_400_000;
  const period = () => new Date(stripe.object(subscription.id).items.data[0].current_period_end * 1000);
  gateway.clock.moveTo(new Date(period().getTime() + 60_000));
  // Behind so many differences the event does not tell the period.
  stripe.changesToAndFro(subscription, "price_starter", 6);
  const first = stripe.renews(subscription);
  await stripe.deliver();
  await stripe.deliver(stripe.all("event").filter(({ data }) => data.object.id === first.id));
  assert.deepEqual([await plan(), await available()], [["starter", "active"], 350]);

  // The plan is another at once, the credits come with the money.
  stripe.prices.set("price_pro", { unit_amount: 4_900, currency: "usd", interval: "month" });
  stripe.changesPlan(subscription, "price_pro");
  await stripe.deliver();
  assert.deepEqual([await plan(), await available()], [["pro", "active"], 350]);
  stripe.changesPlan(subscription, "price_starter");
  stripe.changesPlanAtOnce(subscription, "price_pro");
  await stripe.deliver([...stripe.pending.splice(0)].reverse());
  assert.deepEqual([await plan(), await available()], [["pro", "active"], 1050]);

  stripe.changesCard(subscription.customer, "pm_card_visa_chargeDeclinedInsufficientFunds");
  gateway.clock.moveTo(new Date(period().getTime() + 4 * 3_600_000));
  const unpaid = stripe.renews(subscription);
  await stripe.deliver();
  assert.deepEqual([await plan(), await available()], [["pro", "lapsed"], 0]);
  gateway.clock.advance(2 * day);
  stripe.paysInvoice(unpaid.id, "pm_card_visa");
  stripe.update(subscription, { status: "active" });
  await stripe.deliver();
  assert.deepEqual([await plan(), await available()], [["pro", "active"], 1000]);

  stripe.cancels(subscription);
  await stripe.deliver();
  assert.deepEqual(await plan(), ["pro", "cancelled"]);
  stripe.cancels(subscription, { now: true });
  await stripe.deliver();
  assert.deepEqual(await plan(), ["pro", "lapsed"]);
  assert.deepEqual((await history()).map(({ kind, status }) => `${kind} ${status}`), Array(4).fill("subscription paid"));
  await audited();
});

test("two deployments at one Stripe account have accounts of the same id: what is paid at one is granted there alone", async (t) => {
  const { origin, stripe, account, buy, available } = await shop(t);
  const other = await startGateway(t, { policy: policyFor(origin, SOLD), vars: stripe.vars });
  const twin = await openAccount(other, { id: account.id });
  stripe.pays(await buy());
  const told = stripe.pending.splice(0);
  stripe.tells(other);
  await stripe.deliver(told);
  await other.log(({ event, account: of }) => event === "payment_in_vain" && of === account.id);
  assert.deepEqual([await available(), (await twin.balance()).available], [0, 0]);
});

test("where nothing is sold any more no open page can be paid, and a deleted customer is made anew", async (t) => {
  const { stripe, gateway, account, post, buy } = await shop(t);
  const until = async (holds) => {
    while (!holds()) await stripe.request(stripe.requests.length);
  };
  const { intent } = stripe.pays(await buy());
  await stripe.deliver();
  const opened = await buy();
  const dispute = stripe.disputes(intent);
  await stripe.deliver();
  await until(() => stripe.all("checkout.session").every(({ status }) => status !== "open"));
  assert.throws(() => stripe.pays(opened), /expired/);
  stripe.decides(dispute, "won");
  await stripe.deliver();

  const [customer] = stripe.all("customer");
  stripe.deletesCustomer(customer.id);
  const { subscription } = stripe.pays((await post("/subscription", { plan: "starter" })).url);
  assert.notEqual(subscription.customer, customer.id);
  await stripe.deliver();
  assert.equal((await account.show()).plan, "starter");

  await gateway.admin("PATCH", `/accounts/${account.id}`, { email: "new@acme.example" });
  await until(() => stripe.object(subscription.customer).email === "new@acme.example");
  const late = await buy();
  assert.equal((await gateway.admin("DELETE", `/accounts/${account.id}`)).status, 204);
  await until(() => stripe.object(subscription.id).status === "canceled");
  await until(() => stripe.all("checkout.session").every(({ status }) => status !== "open"));
  assert.throws(() => stripe.pays(late), /expired/);
});

test("an event counts only as Stripe has signed it, just now", async (t) => {
  const { stripe, gateway, buy, available } = await shop(t);
  stripe.pays(await buy());
  const paid = stripe.pending.find(({ type }) => type === "checkout.session.completed");
  const now = gateway.clock.now().getTime();
  for (const wrong of [
    { secret: "whsec_of_somebody_else_0123456789abcdef" },
    { at: new Date(now - 301_000) },
    { at: new Date(now + 302_000) },
    { header: "" },
    { header: "t=1,v1=00" },
  ]) {
    const refused = await stripe.send(paid, wrong);
    assert.deepEqual([refused.status, refused.json().code, refused.json().field], [400, "bad_request", "Stripe-Signature"]);
    const { rows } = await gateway.log((line) => line.request_id === refused.headers["x-request-id"]);
    assert.equal(rows, 0);
  }
  assert.equal(await available(), 0);
  for (const event of [
    { id: "evt_1", object: "event", type: "plan.created", data: { object: { id: "plan_1" } } },
    { id: "evt_2", object: "event", type: "checkout.session.completed", data: { object: { id: "cs_of_another_shop" } } },
    { id: "evt_3", object: "event", type: "customer.subscription.updated", data: { object: { id: "sub_unknown" } } },
    // An account that is not here, or no longer.
    { ...paid, data: { object: { ...paid.data.object, metadata: { ...paid.data.object.metadata, tollgate_account: "nobody" } } } },
  ])
    assert.equal((await stripe.send(event)).status, 200);
  assert.equal((await stripe.send(paid, { payload: "{}" })).status, 400);
  assert.equal((await stripe.send(paid, { at: new Date(now - 200_000) })).status, 200);
  assert.equal(await available(), 5_000);
});

test("what is paid is not what was asked: nothing is granted, and the operator is told", async (t) => {
  const { stripe, gateway, buy, available, history } = await shop(t);
  stripe.pays(await buy(), { amount: 50 });
  await stripe.deliver();
  assert.equal(await available(), 0);
  assert.equal((await history())[0].problem, "what was paid is not what the package costs");
  await gateway.log(({ event }) => event === "payment_in_vain");
});

test("the same request gets the same page, and Stripe out of reach costs nobody anything", async (t) => {
  const { stripe, gateway, account, available } = await shop(t);
  const buy = (key, body = { package: "small" }) =>
    gateway.admin("POST", `/accounts/${account.id}/credits/purchase`, body, { "idempotency-key": key });
  for (const fault of ["break", "busy", "fail"]) {
    stripe.plan("POST /v1/checkout/sessions", fault);
    const failed = await buy(`order-${fault}`);
    assert.deepEqual([failed.status, failed.json().code], [503, "unavailable"]);
  }
  // The page was made, and its answer lost.
  stripe.plan("POST /v1/checkout/sessions", "lose");
  assert.equal((await buy("order-1")).status, 503);
  const [first, again] = [(await buy("order-1")).json(), (await buy("order-1")).json()];
  assert.deepEqual(first, again);
  assert.notDeepEqual((await buy("order-2")).json(), first);
  assert.equal((await buy("order-3", { package: "huge" })).json().field, "package");

  // An event that cannot be followed up is sent again.
  const { intent } = stripe.pays(first.url);
  await stripe.deliver();
  stripe.refunds(intent, 5_000);
  const events = stripe.pending.splice(0);
  stripe.plan(`GET /v1/payment_intents/${intent.id}`, "break");
  assert.equal((await stripe.send(events[0])).status, 503);
  assert.equal(await available(), 5_000);
  await stripe.deliver(events);
  assert.equal(await available(), 0);
});
