// Whoever pretends to be Stripe, and whoever pretends to be another customer where money is concerned.
import assert from "node:assert/strict";
import test from "node:test";
import Stripe from "stripe";
import { openAccount, policyFor } from "../e2e/harness/account.mjs";
import { objectFaults } from "../e2e/harness/faults.mjs";
import { secrets, startGateway } from "../e2e/harness/gateway.mjs";
import { residentMegabytes } from "../e2e/harness/memory.mjs";
import { startOrigin } from "../e2e/harness/origin.mjs";
import { each } from "../e2e/harness/raw.mjs";
import { scaled, show } from "../e2e/harness/scale.mjs";
import { startStripe } from "../e2e/harness/stripe.mjs";

const MB = 1 << 20;
const BIG_ONES = scaled(20, 500);
const ENDLESS_MB = scaled(30, 1_000);

const origin = await startOrigin(test);
const stripe = await startStripe(test);
const policy = policyFor(origin, `
[pools.credits]
[plans.free]
[plans.starter]
stripe_price = "price_starter"
grants = [{ pool = "credits", amount = 300, renews = "monthly" }]
[[packages]]
id = "small"
pool = "credits"
credits = 2000
price = "20.00 USD"
[top_up]
credits_per = 100
price = "1.00 USD"
[[routes]]
match = "POST /search"
cost = 100
`);
const faults = objectFaults(policy);
const gateway = await startGateway(test, { policy, vars: stripe.vars, more: faults.more });
stripe.tells(gateway);
const alice = await openAccount(gateway, { id: "alice" });
const mallory = await openAccount(gateway, { id: "mallory" });
const buys = async ({ call }, options) => call("POST", "/credits/purchase", { body: { package: "small" }, ...options });
stripe.pays((await buys(alice)).json().url);
await stripe.deliver();
const customerOf = (id) => stripe.all("customer").find(({ metadata }) => metadata.tollgate_account === id);
const available = async (account) => (await account.balance()).available;
const everything = async ({ id }) => {
  const parts = await Promise.all(["", "/balance", "/ledger", "/billing/history", "/top-up"].map((page) => gateway.admin("GET", `/accounts/${id}${page}`)));
  return parts.map((part) => part.text());
};
const sent = (payload, header, more = {}) =>
  gateway.send("POST", "/_tollgate/v1/stripe/webhook", { headers: { "content-type": "application/json", ...(header !== undefined && { "stripe-signature": header }), ...more }, body: payload });
const seconds = () => Math.floor(gateway.clock.now().getTime() / 1_000);
const signed = (payload, secret = stripe.vars.STRIPE_WEBHOOK_SECRET, timestamp = seconds()) => Stripe.webhooks.generateTestHeaderString({ payload, secret, timestamp });

test("an event that Stripe did not sign, or not just now, asks no object and no Stripe, and changes nothing", async (t) => {
  stripe.pays((await buys(mallory)).json().url);
  const event = stripe.pending.splice(0).find(({ type }) => type === "checkout.session.completed");
  const payload = JSON.stringify(event);
  const good = signed(payload);
  const [, time, mac] = /^t=(\d+),v1=([0-9a-f]{64})$/.exec(good);
  const wrong = Array.from(mac, (digit, at) => `t=${time},v1=${mac.slice(0, at)}${digit === "0" ? "1" : "0"}${mac.slice(at + 1)}`);
  for (let length = 0; length < mac.length; length += 3) wrong.push(`t=${time},v1=${mac.slice(0, length)}`);
  for (const secret of [...Object.values(secrets), stripe.vars.STRIPE_SECRET_KEY, stripe.vars.STRIPE_WEBHOOK_SECRET.slice(6), " ", "whsec_"]) wrong.push(signed(payload, secret));
  for (const late of [301, 3_600, 86_400, 86_400 * 365, -600, -86_400]) wrong.push(signed(payload, undefined, seconds() - late));
  wrong.push(
    undefined, "", " ", good.replace("v1=", "v0="), good.replace("t=", ""), good.replace(time, String(Number(time) + 1)), good.replace(time, `${time}.0`), good.replace(time, `-${time}`), good.replace(time, `0x${Number(time).toString(16)}`),
    good.replace(time, "99999999999999999999"), good.replace("v1=", "V1="), mac, `v1=${mac}`, `t=${time}`, good.replaceAll(",", ";"), `t=${time},${`v1=${"0".repeat(64)},`.repeat(500)}v1=${mac}`, `t=0,${good}`,
    signed(`${payload} `), signed(payload.replace("mallory", "alice")), signed(""),
  );
  const before = [await available(mallory), await everything(alice)];
  const [objects, asked] = [faults.messages, stripe.requests.length];
  for (const header of wrong) {
    const { status, json } = await sent(payload, header);
    assert.deepEqual([status, json().field], [400, "Stripe-Signature"], header?.slice(0, 200));
  }
  // What was signed is the body: another one under a good signature is none of Stripe's.
  for (const body of [payload.replaceAll("mallory", "alice"), payload.replaceAll("2000", "9000"), `${payload}\n`, ` ${payload}`, payload.slice(0, -1), ""]) assert.equal((await sent(body, good)).status, 400);
  assert.deepEqual([faults.messages, stripe.requests.length], [objects, asked], "somebody was asked");
  // Signed, and no event.
  for (const body of ["", "null", "[]", "{}", '"x"', "{", "\ufeff{}", '{"type":5,"data":[]}', `{"type":"checkout.session.completed","data":{"object":${"[".repeat(100_000)}`, "\0".repeat(100)]) assert.ok([200, 400].includes((await sent(body, signed(body))).status), body.slice(0, 40));
  assert.deepEqual([await available(mallory), await everything(alice)], before);
  // The right one counts once, however often it is played back, and not at all when it is old.
  const answers = await Promise.all(Array.from({ length: 20 }, () => sent(payload, good)));
  assert.deepEqual(new Set(answers.map(({ status }) => status)), new Set([200]));
  assert.equal(await available(mallory), 2_000);
  gateway.clock.advance(301_000);
  assert.equal((await sent(payload, good)).status, 400);
  assert.equal((await sent(payload, signed(payload))).status, 200);
  assert.equal(await available(mallory), 2_000);
  show(t, { "refused, and nobody asked": wrong.length + 6, "played back": answers.length + 1, "granted": "once" });
});

test("events that are too long are not kept: up to 1 MB is read, whoever sends it and however much", async (t) => {
  const padded = (length) => {
    const text = JSON.stringify({ id: "evt_big", object: "event", type: "plan.created", data: { object: { id: "plan_1" } }, padding: "" });
    return text.replace('"padding":""', `"padding":"${"x".repeat(length - text.length)}"`);
  };
  const [longest, longer] = [padded(MB), padded(MB + 1)];
  assert.equal((await sent(longest, signed(longest))).status, 200);
  assert.equal((await sent(longer, signed(longer))).status, 413);
  const statuses = new Set();
  const forged = (count) => each(Array(count).fill(longest), 8, async (payload) => statuses.add((await sent(payload, "t=1,v1=00")).status));
  // The runtime's heap grows under load until it is worth collecting: what counts is whether it goes on to grow.
  await forged(BIG_ONES / 2);
  const memory = residentMegabytes();
  await forged(BIG_ONES / 2);
  assert.deepEqual(statuses, new Set([400]));
  // No length, and no end.
  const endless = gateway.open("POST", "/_tollgate/v1/stripe/webhook", { headers: { "transfer-encoding": "chunked", "stripe-signature": "t=1,v1=00" } });
  const piece = Buffer.alloc(65_536, " ");
  let [written, isAnswered] = [0, false];
  const answered = endless.answer.finally(() => (isAnswered = true));
  // Nobody reads on once it is answered: then a write is never done, or the connection is closed upon it, and the
  // answer with it (RFC 9112 §9.6).
  const isClosed = ({ code }) => ["ECONNRESET", "EPIPE"].includes(code) && 413;
  try {
    for (; !isAnswered && written < ENDLESS_MB * MB; written += piece.length) await Promise.race([endless.write(piece), answered]);
  } catch (error) {
    assert.ok(isClosed(error), error);
  }
  const status = await answered.then((answer) => answer.status, isClosed);
  endless.hangUp();
  assert.equal(status, 413);
  assert.ok(written < (ENDLESS_MB * MB) / 2, `${written} bytes were taken`);
  const grown = residentMegabytes() - memory;
  assert.ok(grown < 100, `workerd grew by ${grown} MB`);
  show(t, { "forged, of 1 MB": BIG_ONES, "without end, in MB": Math.round(written / MB), "workerd grew by": `${grown.toFixed(0)} MB` });
});

test("nobody buys, pays, reads or changes anything in another customer's name", async (t) => {
  await buys(alice, { headers: { "idempotency-key": "order-1" } });
  assert.equal((await alice.call("PUT", "/credits/top-up", { body: { enabled: true, threshold: 500, target: 1_600, monthly_cap: "20.00 USD" } })).status, 200);
  const before = await everything(alice);
  const at = stripe.requests.length;
  const hers = customerOf("alice").id;
  const pages = [["POST", "/credits/purchase", { package: "small" }], ["POST", "/subscription", { plan: "starter" }], ["POST", "/billing/portal", {}], ["GET", "/billing/history"], ["GET", "/credits/top-up"], ["PUT", "/credits/top-up", { enabled: false, threshold: 500, target: 2_000 }], ["POST", "/credits/top-up/retry", {}]];
  const names = { account: "alice", account_id: "alice", id: "alice", customer: hers, customer_id: hers, client_reference_id: "alice", external_id: "alice", key: alice.keyId, metadata: { tollgate_account: "alice" }, "metadata[tollgate_account]": "alice", tollgate_account: "alice" };
  const headers = { "x-tollgate-account": "alice", "x-account": "alice", "stripe-account": hers, cookie: "account=alice" };
  let tried = 0;
  const attempt = async (method, path, options) => {
    tried += 1;
    const answer = await mallory.call(method, path, options);
    assert.ok(answer.status < 500, `${method} ${path}: ${answer.text()}`);
    // A refusal may tell her what she sent herself.
    const told = answer.text().replace(/"detail":"[^"]*"/, "");
    assert.ok(!told.includes("alice") && !told.includes(hers), `${method} ${path}: ${told}`);
    return answer;
  };
  for (const [method, path, body] of pages) {
    for (const [name, value] of Object.entries(names)) {
      if (body) assert.equal((await attempt(method, path, { body: { ...body, [name]: value } })).status, 400, `${path} ${name}`);
      await attempt(method, `${path}?${new URLSearchParams({ [name]: typeof value === "string" ? value : "alice" })}`, { body, headers });
    }
    // The same Idempotency-Key as hers is another request, and the page of another customer.
    if (method === "POST") await attempt(method, path, { body, headers: { "idempotency-key": "order-1" } });
    // By the operator's door, and by hers.
    for (const door of [`/_tollgate/v1/accounts/alice${path}`, "/_tollgate/v1/accounts/alice/top-up"]) {
      const { status } = await attempt(method, door, { body, headers: { "cf-connecting-ip": `198.51.100.${(tried % 250) + 1}` } });
      assert.ok([401, 404, 405].includes(status), `${method} ${door}: ${status}`);
    }
  }
  const made = stripe.requests.slice(at);
  for (const { method, path, form } of made) assert.ok(!JSON.stringify([path, form]).includes(hers) && !JSON.stringify(form).includes("alice"), `${method} ${path}: ${JSON.stringify(form)}`);
  assert.deepEqual(await everything(alice), before);
  show(t, { tried, "asked of Stripe, all for the caller's own customer": made.length });
});

test("what customers can write at Stripe names no account: only what was noted with the secret key does", async (t) => {
  const before = [await everything(alice), await available(mallory)];
  const session = (fields) => ({
    id: `cs_foreign_${Math.random()}`, object: "checkout.session", mode: "payment", status: "complete", payment_status: "paid", amount_total: 2_000, currency: "usd", payment_intent: `pi_foreign_${Math.random()}`, invoice: null, subscription: null,
    client_reference_id: null, customer: null, metadata: {}, ...fields,
  });
  const event = (object, type = "checkout.session.completed") => ({ id: `evt_${Math.random()}`, object: "event", type, data: { object } });
  const hers = customerOf("alice").id;
  // A link to pay by, a shop beside this one, fields that the customer fills in.
  const foreign = [
    session({ client_reference_id: "alice" }),
    session({ customer: hers }),
    session({ customer: hers, client_reference_id: "alice", customer_details: { name: "alice", email: "alice@example.com" } }),
    session({ custom_fields: [{ key: "tollgate_account", text: { value: "alice" } }] }),
    session({ metadata: { account: "alice", package: "small" } }),
    session({ metadata: { tollgate_account: "alice" } }),
    ...["", " ", "../alice", "alice/keys", "nobody", "a".repeat(500), "\u0000", "alice\n"].map((name) => session({ metadata: { tollgate_account: name, tollgate_package: "small", tollgate_pool: "credits", tollgate_credits: "2000", tollgate_price: "20.00 USD" } })),
  ];
  for (const object of foreign) assert.equal((await stripe.send(event(object))).status, 200, JSON.stringify(object.metadata));
  // An invoice of hers that was made by hand, for something else.
  assert.equal((await stripe.send(event({ id: "in_foreign", object: "invoice", status: "paid", customer: hers, amount_paid: 2_000, currency: "usd", metadata: {}, lines: { data: [] }, parent: null }, "invoice.paid"))).status, 200);
  assert.deepEqual([await everything(alice), await available(mallory)], before);
  // Who says to be another at Stripe is still who ordered.
  const ordered = await buys(mallory);
  Object.assign(customerOf("mallory"), { name: "alice", email: "alice@example.com" });
  const { session: own } = stripe.pays(ordered.json().url);
  own.client_reference_id = "alice";
  for (const { data } of stripe.pending) if (data.object.id === own.id) data.object.client_reference_id = "alice";
  await stripe.deliver();
  assert.deepEqual([await everything(alice), await available(mallory)], [before[0], before[1] + 2_000]);
  show(t, { "events that name her and do not count": foreign.length + 1 });
});
