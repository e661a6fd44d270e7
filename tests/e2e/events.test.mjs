// What an account tells of by itself: by webhook to the operator, by e-mail to the customer.
import assert from "node:assert/strict";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout } from "node:timers/promises";
import { Webhook, WebhookVerificationError } from "standardwebhooks";
import { openAccount, policyFor } from "./harness/account.mjs";
import { startGateway } from "./harness/gateway.mjs";
import { answer, large, neverAnswer, startOrigin } from "./harness/origin.mjs";

const SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const PREVIOUS = `whsec_${Buffer.alloc(32, 7).toString("base64")}`;

const tables = (receiver) => `
[pools.credits]
[plans.free]
[[routes]]
match = "POST /search"
cost  = 60
[notifications]
url = "${receiver.url}/hooks?from=tollgate"
balance_low = { credits = [100, 20] }
[notifications.email]
from = "billing@example.com"
name = "Example"
events = ["balance.exhausted", "account.suspended"]
`;

async function start(t) {
  const origin = await startOrigin(t);
  const receiver = await startOrigin(t);
  const vars = { WEBHOOK_SECRET: SECRET, WEBHOOK_SECRET_PREVIOUS: PREVIOUS };
  const policy = policyFor(origin, tables(receiver));
  // Where miniflare puts the e-mails that are sent.
  const mailbox = await mkdtemp(join(tmpdir(), "tollgate-mail-"));
  t.after(() => rm(mailbox, { recursive: true, force: true }));
  const more = { email: { send_email: [{ name: "EMAIL" }] }, defaultProjectTmpPath: mailbox };
  const gateway = await startGateway(t, { policy, vars, more });
  const events = async (query = "") => {
    const answer = await gateway.admin("GET", `/accounts/acme/events${query}`);
    assert.equal(answer.status, 200, answer.text());
    return answer.json().data;
  };
  // The events as soon as they are as they should be: what is sent in the background takes a moment.
  const eventually = async (matches) => {
    for (;;) {
      const found = await events();
      if (matches(found)) return found;
      await setTimeout(20);
    }
  };
  return { receiver, gateway, events, eventually, mailbox };
}

// What arrived, verified as receivers do it.
async function verified(exchange, secret = SECRET) {
  const body = (await exchange.body).toString();
  assert.equal(`${exchange.method} ${exchange.path}`, "POST /hooks?from=tollgate");
  assert.equal(exchange.headers["content-type"], "application/json");
  return { id: exchange.headers["webhook-id"], body, ...new Webhook(secret).verify(body, exchange.headers) };
}

test("a webhook arrives signed, again after a failure and a kill, in order, and can be replayed", async (t) => {
  const { receiver, gateway, events, eventually } = await start(t);
  receiver.on("/hooks", answer({ status: 503 }));
  const account = await openAccount(gateway, { id: "acme", external_id: "cus 7" });
  await account.grant(130);
  await account.finished("POST", "/search");
  await account.finished("POST", "/search");

  const first = await verified(await receiver.request(0));
  assert.deepEqual(
    { id: first.id, type: first.type, data: first.data },
    {
      id: "event_acme_1",
      type: "balance.low",
      data: { account: "acme", external_id: "cus 7", pool: "credits", threshold: 100, balance: 70 },
    },
  );
  assert.ok(Math.abs(Date.parse(first.timestamp) - Date.now()) < 60_000, first.timestamp);
  // Both secrets are good while the new one rolls in; another is not.
  assert.equal((await verified(await receiver.request(0), PREVIOUS)).body, first.body);
  const stranger = `whsec_${Buffer.alloc(32, 8).toString("base64")}`;
  await assert.rejects(verified(await receiver.request(0), stranger), WebhookVerificationError);

  // The next one waits, whatever else happens.
  const failed = await eventually(([, head]) => head.attempts === 1);
  assert.deepEqual(failed.map(({ state }) => state), ["waiting", "waiting"]);
  assert.equal(failed[1].last_error, "HTTP 503");
  assert.equal(receiver.requests.length, 1);

  // Receivers take what is at most five minutes old or ahead of them. Nobody asks any more: the alarm comes back to it. What the receiver says is not read, however much.
  receiver.on("/hooks", async (exchange) => {
    await exchange.body;
    await large(5_000_000)(exchange);
  });
  await gateway.kill();
  gateway.clock.advance(70_000);
  await gateway.restart();
  const again = await verified(await receiver.request(1));
  assert.deepEqual([again.id, again.body], [first.id, first.body]);
  const second = await verified(await receiver.request(2));
  assert.deepEqual([second.id, second.data.balance], ["event_acme_2", 10]);
  const told = await eventually(([last]) => last.state === "delivered");
  assert.deepEqual(told.map(({ attempts }) => attempts), [1, 2]);

  const replayed = await gateway.admin("POST", "/events/event_acme_1/replay");
  assert.deepEqual([replayed.status, replayed.json().state], [200, "waiting"]);
  const third = await verified(await receiver.request(3));
  assert.deepEqual([third.id, third.body], [first.id, first.body]);
  await eventually(([, head]) => head.state === "delivered");

  // A redirect is not followed, and 410 parks at once.
  receiver.on("/hooks", answer({ status: 302, headers: { location: `${receiver.url}/elsewhere` } }));
  await account.patch({ status: "suspended", reason: "unpaid" });
  await eventually(([last]) => last.last_error === "HTTP 302");
  receiver.on("/hooks", answer({ status: 410 }));
  gateway.clock.advance(60_000);
  await eventually(([last]) => last.state === "parked");
  assert.ok(receiver.requests.every(({ path }) => path.startsWith("/hooks")));
  assert.deepEqual((await events("?state=parked")).map(({ type }) => type), ["account.suspended"]);
  const logged = gateway.logs().filter(({ event }) => event === "webhook_failed");
  assert.deepEqual(logged.map(({ account, detail }) => `${account} ${detail}`), [
    "acme HTTP 503",
    "acme HTTP 302",
    "acme HTTP 410",
  ]);
});

test("the customer gets an e-mail, also while the webhook's receiver is silent", async (t) => {
  const { receiver, gateway, eventually, mailbox } = await start(t);
  receiver.on("/hooks", neverAnswer());
  const account = await openAccount(gateway, { id: "acme", email: "ada@example.com" });
  await account.grant(60);
  await account.finished("POST", "/search");
  await receiver.request(0);
  const [exhausted] = await eventually(([last]) => last.email.state === "delivered");
  assert.deepEqual([exhausted.type, exhausted.email.attempts], ["balance.exhausted", 1]);
  const [letter, ...others] = (await readdir(mailbox, { recursive: true })).filter((name) => name.endsWith(".txt"));
  assert.match(await readFile(join(mailbox, letter), "utf8"), /^0 credits left\. .*\n$/);
  assert.deepEqual(others, []);
});

test("a deployment that has webhooks sent and no secret for them does not serve, and its log says why", async (t) => {
  const origin = await startOrigin(t);
  const gateway = await startGateway(t, { policy: policyFor(origin, tables(origin)) });
  assert.equal((await gateway.send("GET", "/_tollgate/v1/healthz")).status, 503);
  await gateway.log((line) => JSON.stringify(line).includes("WEBHOOK_SECRET is missing"));
});
