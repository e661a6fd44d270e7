// A Stripe of the tests' own, on 127.0.0.1: as much of its API as Tollgate uses, behaving as its documentation
// says, and what a customer, a bank or Stripe itself does, as methods. Events are signed with the real library.
//
//   const stripe = await startStripe(t);
//   const gateway = await startGateway(t, { policy, vars: stripe.vars });
//   stripe.tells(gateway);
//   const paid = stripe.pays(checkoutUrl);           // the customer pays on the page of a Checkout session
//   await stripe.deliver();                          // the events so far, in the order in which they came about
//
//   stripe.pending                                   // events that nobody delivered yet: reorder them at will
//   stripe.requests                                  // what the gateway asked: { method, path, form, key }
//   stripe.plan("POST /v1/customers", "lose")        // what happens to the next request of that kind:
//     "lose"   it is carried out, and the connection breaks before the answer: the money may have moved
//     "break"  the connection breaks before it is carried out
//     "fail"   500, not carried out; as Stripe does, the same Idempotency-Key gets it again
//     "busy"   429, not carried out
//     "hold"   carried out, and answered when `stripe.release()` is called
import http from "node:http";
import { EventEmitter, once } from "node:events";
import Stripe from "stripe";

const SECRET_KEY = "sk_test_0123456789abcdef0123456789abcdef";
const WEBHOOK_SECRET = "whsec_0123456789abcdef0123456789abcdef";
const VERSION = Stripe.API_VERSION;

// What Stripe's test cards do: `null` is success, "debit" takes days (`debitFails`).
const CARDS = {
  pm_card_visa: null,
  pm_sepaDebit: "debit",
  pm_card_mastercard: null,
  pm_card_visa_chargeDeclined: "generic_decline",
  pm_card_visa_chargeDeclinedInsufficientFunds: "insufficient_funds",
  pm_card_chargeDeclinedExpiredCard: "expired_card",
  pm_card_chargeDeclinedFraudulent: "fraudulent",
  pm_card_authenticationRequired: "authentication_required",
};

export async function startStripe(t, { now = () => new Date() } = {}) {
  const objects = new Map();
  const answers = new Map();
  const requests = [];
  const planned = [];
  const told = new EventEmitter().setMaxListeners(0);
  let pending = [];
  let gateway = null;
  let made = 0;

  const seconds = () => Math.floor(now().getTime() / 1000);
  const make = (prefix, object, fields) => {
    const id = `${prefix}_test_${++made}`;
    const complete = { id, object, created: seconds(), livemode: false, metadata: {}, ...fields };
    objects.set(id, complete);
    return complete;
  };
  const get = (id) => {
    const object = objects.get(id);
    if (!object) throw new Refused(404, { type: "invalid_request_error", code: "resource_missing", message: `No such object: '${id}'` });
    return object;
  };
  // No more than ten of an invoice's lines come with it.
  const shown = (object) =>
    object.object === "invoice" && object.lines.data.length > 10 ? { ...object, lines: { ...object.lines, data: object.lines.data.slice(0, 10), has_more: true } } : object;
  const all = (kind) => [...objects.values()].filter(({ object }) => object === kind);
  const emit = (type, object, previous) => {
    // As of now, and not as it may be when the event is delivered.
    const data = structuredClone(previous ? { object: shown(object), previous_attributes: previous } : { object: shown(object) });
    pending.push(make("evt", "event", { type, api_version: VERSION, data }));
  };

  // --- payments --------------------------------------------------------------------------------------------

  // Tries to move the money of a payment intent.
  function charge(intent, card, { onSession = false } = {}) {
    const refusal = CARDS[card];
    if (refusal === undefined) throw new Refused(400, { type: "invalid_request_error", message: `No such PaymentMethod: '${card}'` });
    intent.payment_method = card;
    if (refusal === "debit") {
      intent.status = "processing";
      emit("payment_intent.processing", intent);
      return null;
    }
    const fails = refusal && !(onSession && refusal === "authentication_required");
    if (fails) {
      const isFor3ds = refusal === "authentication_required";
      intent.status = isFor3ds ? "requires_action" : "requires_payment_method";
      const code = isFor3ds ? "authentication_required" : refusal === "expired_card" ? "expired_card" : "card_declined";
      intent.last_payment_error = { type: "card_error", code, decline_code: refusal, message: "Your card was declined." };
      emit("payment_intent.payment_failed", intent);
      return intent.last_payment_error;
    }
    intent.status = "succeeded";
    intent.amount_received = intent.amount;
    intent.last_payment_error = null;
    const charged = make("ch", "charge", {
      amount: intent.amount,
      amount_captured: intent.amount,
      amount_refunded: 0,
      currency: intent.currency,
      customer: intent.customer,
      disputed: false,
      metadata: { ...intent.metadata },
      paid: true,
      payment_intent: intent.id,
      refunded: false,
      status: "succeeded",
    });
    charged.receipt_url = `https://pay.stripe.test/receipts/${charged.id}`;
    intent.latest_charge = charged.id;
    emit("payment_intent.succeeded", intent);
    emit("charge.succeeded", charged);
    return null;
  }

  const intentOf = (fields) =>
    make("pi", "payment_intent", {
      amount_received: 0,
      latest_charge: null,
      last_payment_error: null,
      customer: null,
      status: "requires_payment_method",
      ...fields,
    });

  // The payments of an invoice, as `expand[]=payments` shows them.
  const paymentsOf = (invoice) => all("invoice_payment").filter(({ invoice: of }) => of === invoice.id);

  function invoiceOf(customer, currency, fields) {
    const invoice = make("in", "invoice", {
      amount_due: 0,
      amount_paid: 0,
      attempt_count: 0,
      billing_reason: "manual",
      currency,
      customer: customer ?? null,
      hosted_invoice_url: null,
      invoice_pdf: null,
      lines: list([]),
      parent: null,
      status: "draft",
      subtotal: 0,
      total: 0,
      ...fields,
    });
    return invoice;
  }

  function finalize(invoice) {
    const total = invoice.lines.data.reduce((sum, line) => sum + line.amount, 0);
    Object.assign(invoice, {
      status: "open",
      subtotal: total,
      total,
      amount_due: total,
      hosted_invoice_url: `https://invoice.stripe.test/i/${invoice.id}`,
      invoice_pdf: `https://invoice.stripe.test/i/${invoice.id}/pdf`,
    });
    emit("invoice.finalized", invoice);
    if (total === 0) return settle(invoice, 0);
    const intent = intentOf({ amount: total, currency: invoice.currency, customer: invoice.customer });
    make("inpay", "invoice_payment", {
      amount_paid: null,
      amount_requested: total,
      currency: invoice.currency,
      invoice: invoice.id,
      is_default: true,
      payment: { type: "payment_intent", payment_intent: intent.id },
      status: "open",
    });
    return invoice;
  }

  function settle(invoice, amount) {
    Object.assign(invoice, { status: "paid", amount_paid: amount });
    for (const payment of paymentsOf(invoice)) {
      Object.assign(payment, { status: "paid", amount_paid: amount });
      emit("invoice_payment.paid", payment);
    }
    emit("invoice.paid", invoice);
    emit("invoice.payment_succeeded", invoice);
    return invoice;
  }

  // Tries to have an open invoice paid; what went wrong, if anything did.
  function payInvoice(invoice, card, options) {
    const chosen = card ?? objects.get(invoice.customer)?.invoice_settings?.default_payment_method;
    if (!chosen)
      throw new Refused(400, { type: "invalid_request_error", message: "There is no `default_payment_method` set on this Customer or Invoice." });
    const [payment] = paymentsOf(invoice);
    invoice.attempt_count += 1;
    const intent = get(payment.payment.payment_intent);
    const failed = charge(intent, chosen, options);
    if (intent.status === "processing") return null;
    if (!failed) {
      settle(invoice, invoice.total);
      return null;
    }
    emit("invoice.payment_failed", invoice);
    if (failed.code === "authentication_required") emit("invoice.payment_action_required", invoice);
    return failed;
  }

  // --- subscriptions ---------------------------------------------------------------------------------------

  const MONTH = { month: 1, year: 12 };
  const later = (start, interval) => {
    const date = new Date(start * 1000);
    date.setUTCMonth(date.getUTCMonth() + (MONTH[interval] ?? 1));
    return Math.floor(date.getTime() / 1000);
  };
  const priceOf = (id) => prices.get(id) ?? { unit_amount: 1_900, currency: "usd", interval: "month" };
  const prices = new Map();
  // Differences that changes of plan have made, which the next invoice bills first.
  const differences = [];

  function billSubscription(subscription, reason) {
    const [item] = subscription.items.data;
    const price = priceOf(item.price.id);
    const invoice = invoiceOf(subscription.customer, price.currency, {
      billing_reason: reason,
      parent: {
        type: "subscription_details",
        subscription_details: { subscription: subscription.id, metadata: { ...subscription.metadata } },
      },
    });
    invoice.lines = list([
      ...differences.splice(0),
      {
        id: `il_test_${++made}`,
        object: "line_item",
        amount: price.unit_amount,
        currency: price.currency,
        metadata: {},
        parent: {
          type: "subscription_item_details",
          subscription_item_details: { proration: false, subscription: subscription.id, subscription_item: item.id },
        },
        period: { start: item.current_period_start, end: item.current_period_end },
        pricing: { type: "price_details", price_details: { price: item.price.id, product: "prod_test" } },
      },
    ]);
    subscription.latest_invoice = invoice.id;
    return finalize(invoice);
  }

  // What a change of plan takes off and adds, for the whole of the period: the tests do not wait.
  const difference = (item, price, sign) => ({
    id: `il_test_${++made}`,
    object: "line_item",
    amount: sign * priceOf(price).unit_amount,
    currency: priceOf(price).currency,
    metadata: {},
    parent: { type: "subscription_item_details", subscription_item_details: { proration: true, subscription_item: item.id } },
    period: { start: Math.max(seconds(), item.current_period_start), end: item.current_period_end },
    pricing: { type: "price_details", price_details: { price, product: "prod_test" } },
  });

  function billChange(subscription, before, price) {
    const [item] = subscription.items.data;
    const { currency } = priceOf(price);
    const invoice = invoiceOf(subscription.customer, currency, {
      billing_reason: "subscription_update",
      parent: {
        type: "subscription_details",
        subscription_details: { subscription: subscription.id, metadata: { ...subscription.metadata } },
      },
    });
    invoice.lines = list([difference(item, before, -1), difference(item, price, 1)]);
    subscription.latest_invoice = invoice.id;
    return invoice;
  }

  function subscribe(customer, price, metadata, card) {
    const start = seconds();
    const end = later(start, priceOf(price).interval);
    const subscription = make("sub", "subscription", {
      billing_cycle_anchor: start,
      cancel_at: null,
      cancel_at_period_end: false,
      canceled_at: null,
      customer,
      ended_at: null,
      items: list([
        { id: `si_test_${++made}`, object: "subscription_item", current_period_start: start, current_period_end: end, price: { id: price, object: "price" }, quantity: 1 },
      ]),
      latest_invoice: null,
      metadata,
      status: "incomplete",
    });
    emit("customer.subscription.created", subscription);
    const invoice = billSubscription(subscription, "subscription_create");
    const failed = invoice.status === "paid" ? null : payInvoice(invoice, card, { onSession: true });
    if (!failed) update(subscription, { status: "active" });
    return subscription;
  }

  function update(subscription, fields) {
    const previous = Object.fromEntries(Object.keys(fields).map((name) => [name, subscription[name]]));
    Object.assign(subscription, fields);
    emit("customer.subscription.updated", subscription, previous);
    return subscription;
  }

  // --- what is asked over HTTP -----------------------------------------------------------------------------

  const routes = {
    "POST /v1/customers": (form) => {
      const customer = make("cus", "customer", {
        email: form.email ?? null,
        name: form.name ?? null,
        metadata: form.metadata ?? {},
        invoice_settings: { default_payment_method: null },
      });
      emit("customer.created", customer);
      return customer;
    },
    "GET /v1/customers/{id}": (_, id) => get(id),
    "GET /v1/customers/{id}/payment_methods": (_, id) => list(all("payment_method").filter(({ customer }) => customer === id).reverse()),
    "POST /v1/customers/{id}": (form, id) => {
      const customer = customerOf({ customer: id });
      for (const name of ["email", "name"]) if (form[name] !== undefined) customer[name] = form[name];
      Object.assign(customer.invoice_settings, form.invoice_settings);
      emit("customer.updated", customer);
      return customer;
    },
    "POST /v1/checkout/sessions": (form) => {
      if (!form.success_url) throw new Refused(400, { type: "invalid_request_error", message: "Missing required param: success_url." });
      const [item] = Object.values(form.line_items ?? {});
      const isPayment = form.mode === "payment";
      const amount = isPayment ? Number(item.price_data.unit_amount) * Number(item.quantity) : priceOf(item.price).unit_amount;
      if (form.customer) customerOf(form);
      const session = make("cs", "checkout.session", {
        amount_subtotal: amount,
        amount_total: amount,
        cancel_url: form.cancel_url ?? null,
        client_reference_id: form.client_reference_id ?? null,
        currency: isPayment ? item.price_data.currency : priceOf(item.price).currency,
        customer: form.customer ?? null,
        expires_at: form.expires_at ? Number(form.expires_at) : seconds() + 86_400,
        invoice: null,
        metadata: form.metadata ?? {},
        mode: form.mode,
        payment_intent: null,
        payment_status: "unpaid",
        status: "open",
        subscription: null,
        success_url: form.success_url,
      });
      session.url = `https://checkout.stripe.test/c/pay/${session.id}`;
      asked.set(session.id, form);
      return session;
    },
    "GET /v1/checkout/sessions": (form) =>
      list(all("checkout.session").filter(({ customer, status }) => customer === form.customer && (!form.status || status === form.status))),
    "GET /v1/checkout/sessions/{id}": (_, id) => get(id),
    "POST /v1/checkout/sessions/{id}/expire": (_, id) => {
      const session = get(id);
      if (session.status !== "open") throw new Refused(400, { type: "invalid_request_error", message: "Only open sessions can be expired." });
      session.status = "expired";
      emit("checkout.session.expired", session);
      return session;
    },
    "POST /v1/billing_portal/sessions": (form) => {
      customerOf(form);
      const session = make("bps", "billing_portal.session", {
        customer: form.customer,
        return_url: form.return_url ?? null,
        flow: form.flow_data ?? null,
      });
      session.url = `https://billing.stripe.test/p/session/${session.id}`;
      return session;
    },
    "POST /v1/payment_intents": (form) => {
      const intent = intentOf({
        amount: Number(form.amount),
        currency: form.currency,
        customer: form.customer ?? null,
        metadata: form.metadata ?? {},
      });
      if (form.confirm === "true") {
        const failed = charge(intent, form.payment_method, { onSession: form.off_session !== "true" });
        if (failed) throw new Refused(402, { ...failed, payment_intent: intent });
      }
      return intent;
    },
    "GET /v1/payment_intents/{id}": (_, id) => get(id),
    "GET /v1/charges/{id}": (_, id) => get(id),
    "POST /v1/invoices": (form) =>
      invoiceOf(form.customer, form.currency ?? "usd", { metadata: form.metadata ?? {}, auto_advance: form.auto_advance === "true" }),
    "GET /v1/invoices/{id}": (_, id) => shown(get(id)),
    "GET /v1/invoices/{id}/lines": (_, id) => get(id).lines,
    "POST /v1/invoiceitems": (form) => {
      const invoice = get(form.invoice);
      const item = make("ii", "invoiceitem", { amount: Number(form.amount), currency: form.currency, invoice: invoice.id, customer: form.customer });
      invoice.lines.data.push({
        id: `il_test_${++made}`,
        object: "line_item",
        amount: item.amount,
        currency: item.currency,
        description: form.description ?? null,
        metadata: {},
        parent: { type: "invoice_item_details", invoice_item_details: { invoice_item: item.id, proration: false } },
        period: { start: seconds(), end: seconds() },
        pricing: null,
      });
      return item;
    },
    "POST /v1/invoices/{id}/finalize": (_, id) => {
      const invoice = get(id);
      if (invoice.status !== "draft") throw new Refused(400, { type: "invalid_request_error", message: "This invoice is already finalized." });
      return finalize(invoice);
    },
    "POST /v1/invoices/{id}/pay": (form, id) => {
      const invoice = get(id);
      if (invoice.status === "draft") finalize(invoice);
      if (invoice.status === "paid")
        throw new Refused(400, { type: "invalid_request_error", code: "invoice_already_paid", message: "Invoice is already paid" });
      if (invoice.status !== "open") throw new Refused(400, { type: "invalid_request_error", message: `The invoice is ${invoice.status}.` });
      const failed = payInvoice(invoice, form.payment_method, { onSession: form.off_session === "false" });
      if (failed?.code === "authentication_required")
        throw new Refused(402, { ...failed, code: "invoice_payment_intent_requires_action", decline_code: undefined });
      if (failed) throw new Refused(402, failed);
      return invoice;
    },
    "POST /v1/invoices/{id}/void": (_, id) => {
      const invoice = get(id);
      if (invoice.status !== "open") throw new Refused(400, { type: "invalid_request_error", message: "Only open invoices can be voided." });
      invoice.status = "void";
      emit("invoice.voided", invoice);
      return invoice;
    },
    "DELETE /v1/invoices/{id}": (_, id) => {
      get(id);
      objects.delete(id);
      return { id, object: "invoice", deleted: true };
    },
    "GET /v1/subscriptions/{id}": (_, id) => get(id),
    "DELETE /v1/subscriptions/{id}": (_, id) => stripe.cancels(get(id), { now: true }),
    "GET /v1/invoice_payments": (form) => {
      const intent = form.payment?.payment_intent;
      return list(all("invoice_payment").filter(({ invoice, payment }) => (intent ? payment.payment_intent === intent : invoice === form.invoice)));
    },
    "GET /v1/refunds": (form) => list(all("refund").filter(({ payment_intent }) => payment_intent === form.payment_intent).reverse()),
    "GET /v1/disputes": (form) => list(all("dispute").filter(({ payment_intent }) => payment_intent === form.payment_intent).reverse()),
  };
  // Of one that was deleted only that is left.
  function customerOf({ customer: id }) {
    const customer = objects.get(id);
    if (!customer || customer.deleted)
      throw new Refused(400, { type: "invalid_request_error", code: "resource_missing", param: "customer", message: `No such customer: '${id}'` });
    return customer;
  }

  // The form that a session was asked for with.
  const asked = new Map();

  function carryOut(method, path, form) {
    for (const [route, work] of Object.entries(routes)) {
      const [on, template] = route.split(" ");
      const match = on === method && new RegExp(`^${template.replace("{id}", "([^/]+)")}$`).exec(path);
      if (match) return structuredClone(expanded(work(form, match[1]), form.expand));
    }
    throw new Refused(404, { type: "invalid_request_error", message: `Unrecognized request URL (${method}: ${path}).` });
  }

  // `expand[]=customer` and `expand[]=data.invoice` put objects in the place of ids.
  function expanded(object, paths = {}) {
    let result = object;
    for (const path of Object.values(paths)) {
      result = structuredClone(result);
      put(result, path.split("."));
    }
    return result;

    function put(at, [name, ...rest]) {
      if (Array.isArray(at)) return at.forEach((each) => put(each, [name, ...rest]));
      if (at?.object === "invoice" && name === "payments") at.payments = structuredClone(list(paymentsOf(at)));
      if (typeof at?.[name] === "string") at[name] = structuredClone(get(at[name]));
      if (rest.length > 0 && at?.[name]) put(at[name], rest);
    }
  }

  async function answer(incoming, outgoing) {
    const [path, query = ""] = incoming.url.split("?");
    const { method } = incoming;
    let body = "";
    for await (const piece of incoming) body += piece;
    const form = nested(new URLSearchParams(method === "GET" ? query : body));
    const key = incoming.headers["idempotency-key"];
    requests.push({ method, path, form, key });
    told.emit("request");
    const index = planned.findIndex(({ route }) => route === `${method} ${path}` || route.test?.(`${method} ${path}`));
    const [{ fault } = {}] = index < 0 ? [] : planned.splice(index, 1);
    if (fault === "break") return outgoing.destroy();

    const respond = (status, json, headers = {}) => {
      outgoing.writeHead(status, { "content-type": "application/json", "request-id": `req_${++made}`, ...headers });
      outgoing.end(JSON.stringify(json));
    };
    const refuse = ({ status, error }) => respond(status, { error });
    if (incoming.headers.authorization !== `Bearer ${SECRET_KEY}`)
      return refuse(new Refused(401, { type: "invalid_request_error", message: "Invalid API Key provided" }));
    if (incoming.headers["stripe-version"] !== VERSION)
      return refuse(new Refused(400, { type: "invalid_request_error", message: `Invalid Stripe API version: ${incoming.headers["stripe-version"]}` }));
    if (fault === "busy")
      return refuse(new Refused(429, { type: "invalid_request_error", code: "rate_limit", message: "Too many requests" }));

    const request = JSON.stringify([method, path, form]);
    const earlier = key === undefined ? undefined : answers.get(key);
    if (earlier && earlier.request !== request)
      return refuse(new Refused(400, { type: "idempotency_error", message: "Keys for idempotent requests can only be used with the same parameters they were first used with." }));
    if (earlier?.answer) return respond(...earlier.answer, { "idempotent-replayed": "true" });
    if (earlier)
      return refuse(new Refused(409, { type: "idempotency_error", code: "idempotency_key_in_use", message: "There is currently another in-progress request using this Idempotent Key." }));

    let result;
    const kept = { request };
    if (key !== undefined) answers.set(key, kept);
    try {
      if (fault === "fail") throw new Refused(500, { type: "api_error", message: "An unknown error occurred" });
      result = [200, carryOut(method, path, form)];
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      result = [error.status, { error: structuredClone(error.error) }];
    }
    if (fault === "hold") await once(told, "release");
    // What fails before it begins is not kept under its key.
    if (result[0] === 400 || result[0] === 404) answers.delete(key);
    else kept.answer = result;
    if (fault === "lose") return outgoing.destroy();
    respond(...result);
  }

  const server = http.createServer((incoming, outgoing) => {
    answer(incoming, outgoing).catch((error) => outgoing.destroy(error));
  });
  server.keepAliveTimeout = 0;
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const url = `http://127.0.0.1:${server.address().port}`;

  const stripe = {
    url,
    vars: { STRIPE_SECRET_KEY: SECRET_KEY, STRIPE_WEBHOOK_SECRET: WEBHOOK_SECRET, STRIPE_API: url },
    requests,
    get pending() {
      return pending;
    },
    set pending(events) {
      pending = events;
    },
    // The prices of plans: { unit_amount, currency, interval }; by default 19.00 USD a month.
    prices,
    object: get,
    all,
    plan: (route, fault) => planned.push({ route, fault }),
    release: () => told.emit("release"),
    // The nth request that was asked, counted from 0.
    async request(n) {
      while (requests.length <= n) await once(told, "request");
      return requests[n];
    },
    tells(other) {
      gateway = other;
    },

    // --- events ---

    // Delivers one event, as Stripe does; the gateway's answer. `options`: secret, at (a Date), header, payload.
    async send(event, { secret = WEBHOOK_SECRET, at, header, payload = JSON.stringify(event) } = {}) {
      const timestamp = at ? Math.floor(at.getTime() / 1000) : Math.floor(gateway.clock.now().getTime() / 1000);
      const signature = header ?? Stripe.webhooks.generateTestHeaderString({ payload, secret, timestamp });
      return gateway.send("POST", "/_tollgate/v1/stripe/webhook", {
        headers: { "content-type": "application/json; charset=utf-8", "stripe-signature": signature },
        body: payload,
      });
    },
    // Delivers all that are pending, or `events`, one after the other; each must be taken.
    async deliver(events = pending.splice(0)) {
      for (const event of events) {
        const answered = await stripe.send(event);
        if (answered.status !== 200) throw new Error(`${event.type}: ${answered.status} ${answered.text()}`);
      }
    },

    // Something happened to `object`, of which `previous` was otherwise before.
    emit,

    // --- what a bank does ---

    // The debit that was to pay an invoice fails, days after it was begun.
    debitFails(invoice) {
      const [payment] = paymentsOf(invoice);
      const intent = get(payment.payment.payment_intent);
      intent.status = "requires_payment_method";
      intent.last_payment_error = { type: "card_error", code: "payment_intent_payment_attempt_failed", decline_code: "insufficient_funds" };
      emit("payment_intent.payment_failed", intent);
      emit("invoice.payment_failed", invoice);
    },

    // --- what a customer does ---

    // Pays on a Checkout page, given by its URL. `later`: by a method that takes days; the money comes with
    // `succeeds` or not with `fails`. Gives { session, intent } or { session, subscription }.
    pays(checkoutUrl, { card = "pm_card_visa", later: takesDays = false, amount } = {}) {
      const session = get(checkoutUrl.split("/").at(-1));
      if (session.status !== "open") throw new Error(`the page is ${session.status}`);
      const form = asked.get(session.id);
      session.status = "complete";
      if (session.mode === "subscription") {
        const [item] = Object.values(form.line_items);
        const metadata = form.subscription_data?.metadata ?? {};
        const subscription = subscribe(session.customer, item.price, { ...metadata }, card);
        Object.assign(session, { subscription: subscription.id, invoice: subscription.latest_invoice, payment_status: "paid" });
        stripe.changesCard(session.customer, card);
        emit("checkout.session.completed", session);
        return { session, subscription };
      }
      if (amount !== undefined) session.amount_total = amount;
      const intent = intentOf({
        amount: session.amount_total,
        currency: session.currency,
        customer: session.customer,
        metadata: { ...form.payment_intent_data?.metadata },
      });
      session.payment_intent = intent.id;
      if (takesDays) {
        intent.status = "processing";
        emit("checkout.session.completed", session);
        return { session, intent };
      }
      const failed = charge(intent, card, { onSession: true });
      if (failed) {
        session.status = "open";
        return { session, intent, failed };
      }
      // It is kept, and becomes nobody's default by that.
      if (form.payment_intent_data?.setup_future_usage) attach(session.customer, card);
      complete(session, form, "checkout.session.completed");
      return { session, intent };
    },
    succeeds({ session, intent }) {
      charge(intent, "pm_card_visa", { onSession: true });
      complete(session, asked.get(session.id), "checkout.session.async_payment_succeeded");
    },
    fails({ session, intent }) {
      intent.status = "requires_payment_method";
      emit("checkout.session.async_payment_failed", session);
    },
    // Another card becomes the customer's own, in the portal or by a purchase.
    changesCard(customer, card) {
      attach(customer, card);
      const found = get(customer);
      const before = { ...found.invoice_settings };
      found.invoice_settings.default_payment_method = card;
      emit("customer.updated", found, { invoice_settings: before });
    },
    // Pays an open invoice on its own page, where 3-D Secure can be answered.
    update,
    paysInvoice: (id, card) => payInvoice(get(id), card, { onSession: true }),
    changesPlan(subscription, price) {
      const [item] = subscription.items.data;
      return update(subscription, { items: list([{ ...item, price: { id: price, object: "price" } }]) });
    },
    // The same in the midst of a period, as the portal does with `always_invoice`: the difference is billed at once,
    // or credited.
    // To another plan and back again so many times: the next invoice bills the differences.
    changesToAndFro(subscription, price, times) {
      const [item] = subscription.items.data;
      for (let n = 0; n < times; n++) differences.push(difference(item, price, 1), difference(item, price, -1));
    },
    changesPlanAtOnce(subscription, price, { card } = {}) {
      const [item] = subscription.items.data;
      const before = item.price.id;
      stripe.changesPlan(subscription, price);
      const difference = priceOf(price).unit_amount - priceOf(before).unit_amount;
      const invoice = billChange(subscription, before, price);
      if (difference <= 0) return settle(Object.assign(invoice, { status: "open" }), 0);
      finalize(invoice);
      payInvoice(invoice, card);
      return invoice;
    },
    // The operator deletes a customer.
    deletesCustomer(id) {
      const { object } = get(id);
      objects.set(id, { id, object, deleted: true });
      emit("customer.deleted", get(id));
    },
    cancels(subscription, { now: atOnce = false } = {}) {
      if (!atOnce) return update(subscription, { cancel_at_period_end: true, canceled_at: seconds() });
      Object.assign(subscription, { status: "canceled", canceled_at: seconds(), ended_at: seconds() });
      emit("customer.subscription.deleted", subscription);
      return subscription;
    },

    // --- what Stripe and banks do ---

    // The subscription's next period begins: its invoice, and an attempt to have it paid.
    renews(subscription) {
      const [item] = subscription.items.data;
      if (subscription.cancel_at_period_end) return stripe.cancels(subscription, { now: true });
      const start = item.current_period_end;
      const end = later(start, priceOf(item.price.id).interval);
      update(subscription, { items: list([{ ...item, current_period_start: start, current_period_end: end }]) });
      const invoice = billSubscription(subscription, "subscription_cycle");
      const failed = payInvoice(invoice);
      if (failed) update(subscription, { status: "past_due" });
      else if (subscription.status !== "active") update(subscription, { status: "active" });
      return invoice;
    },
    // The operator gives money back; all of it, if not told how much.
    refunds(intent, amount, { status = "succeeded" } = {}) {
      const charged = get(get(intent.id ?? intent).latest_charge);
      const refund = make("re", "refund", {
        amount: amount ?? charged.amount - charged.amount_refunded,
        charge: charged.id,
        currency: charged.currency,
        payment_intent: charged.payment_intent,
        status,
      });
      charged.amount_refunded += refund.amount;
      charged.refunded = charged.amount_refunded === charged.amount;
      emit("refund.created", refund);
      emit("charge.refunded", charged);
      return refund;
    },
    // A refund that does not arrive: the money is the operator's again.
    refundFails(refund) {
      const charged = get(refund.charge);
      refund.status = "failed";
      charged.amount_refunded -= refund.amount;
      charged.refunded = false;
      emit("refund.updated", refund);
      emit("refund.failed", refund);
    },
    disputes(intent, { amount, status = "needs_response" } = {}) {
      const charged = get(get(intent.id ?? intent).latest_charge);
      charged.disputed = true;
      const dispute = make("du", "dispute", {
        amount: amount ?? charged.amount,
        charge: charged.id,
        currency: charged.currency,
        payment_intent: charged.payment_intent,
        reason: "fraudulent",
        status,
      });
      emit("charge.dispute.created", dispute);
      emit("charge.dispute.funds_withdrawn", dispute);
      return dispute;
    },
    decides(dispute, status) {
      dispute.status = status;
      if (status === "won") emit("charge.dispute.funds_reinstated", dispute);
      emit("charge.dispute.closed", dispute);
    },
  };

  function attach(customer, card) {
    objects.delete(card);
    objects.set(card, { id: card, object: "payment_method", type: "card", customer });
    emit("payment_method.attached", get(card));
  }

  function complete(session, form, event) {
    session.payment_status = "paid";
    if (form.invoice_creation?.enabled === "true") {
      const invoice = invoiceOf(session.customer, session.currency, {
        metadata: form.invoice_creation.invoice_data?.metadata ?? {},
      });
      invoice.lines.data.push({ id: `il_test_${++made}`, object: "line_item", amount: session.amount_total, currency: session.currency, metadata: {}, parent: null, period: { start: seconds(), end: seconds() }, pricing: null });
      Object.assign(invoice, {
        status: "open",
        subtotal: session.amount_total,
        total: session.amount_total,
        amount_due: session.amount_total,
        hosted_invoice_url: `https://invoice.stripe.test/i/${invoice.id}`,
        invoice_pdf: `https://invoice.stripe.test/i/${invoice.id}/pdf`,
      });
      make("inpay", "invoice_payment", {
        amount_paid: null,
        amount_requested: session.amount_total,
        currency: session.currency,
        invoice: invoice.id,
        is_default: true,
        payment: { type: "payment_intent", payment_intent: session.payment_intent },
        status: "open",
      });
      settle(invoice, session.amount_total);
      session.invoice = invoice.id;
    }
    emit(event, session);
  }

  return stripe;
}

class Refused extends Error {
  constructor(status, error) {
    super(error.message);
    Object.assign(this, { status, error });
  }
}

const list = (data) => ({ object: "list", data, has_more: false });

// `a[b][0]=c` as { a: { b: { 0: "c" } } }.
function nested(parameters) {
  const form = {};
  for (const [name, value] of parameters) {
    const path = name.replaceAll("]", "").split("[");
    let at = form;
    for (const part of path.slice(0, -1)) at = at[part] ??= {};
    const last = path.at(-1);
    at[last === "" ? Object.keys(at).length : last] = value;
  }
  return form;
}
