// Whoever is told of events, the operator's receiver and the e-mail service, is slow, silent, broken or hostile: the
// account goes on, and everything arrives in the end, in order.
import assert from "node:assert/strict";
import test from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { inProject } from "../../scripts/project.mjs";
import { modulesOf } from "../../scripts/runtime.mjs";
import { openAccount, policyFor } from "../e2e/harness/account.mjs";
import { areSound } from "../e2e/harness/books.mjs";
import { PATIENT, WAYS, startBetween } from "../e2e/harness/between.mjs";
import { startGateway } from "../e2e/harness/gateway.mjs";
import { residentMegabytes } from "../e2e/harness/memory.mjs";
import { answer, startOrigin } from "../e2e/harness/origin.mjs";
import { isFull, percentile, show } from "../e2e/harness/scale.mjs";

const MINUTE_MS = 60_000;
// Whose status says that the event was taken, whatever body comes with it.
const TAKEN = Object.keys(WAYS).filter((way) => ["pass", "slow", "drips", "endless", "silent in its body"].includes(way) || way.startsWith("200"));
// Whether its status came before its connection broke.
const EITHER = "breaks in its body";

// The e-mail service does as the address says.
const ENTRY = `
import * as deployed from "./entry.js";
export * from "./entry.js";
export { default } from "./entry.js";

const ways = {
  throws() { throw new Error("no"); },
  rejects: () => Promise.reject(Object.assign(new Error("E_RATE_LIMIT_EXCEEDED"), { code: "E_RATE_LIMIT_EXCEEDED" })),
  odd: () => Promise.reject(null),
  nothing: async () => {},
  silent: () => new Promise(() => {}),
};
const send = ({ to }) => ways[to.split("@")[0]]();

export class Account extends deployed.Account {
  constructor(state, env) {
    super(state, { ...env, EMAIL: { send } });
  }
}
`;
const MAILBOXES = ["throws", "rejects", "odd", "nothing", ...(isFull ? ["silent"] : [])];

test("whatever becomes of what an account tells, its calls go on, and the operator hears everything in order", { timeout: 300_000 }, async (t) => {
  const origin = await startOrigin(t);
  origin.on("/search", answer({ body: "found" }));
  const between = await startBetween(t);
  const policy = policyFor(origin, `
[pools.credits]
[plans.free]
[[routes]]
match = "POST /search"
cost = 10
[notifications]
url = "${between.url}/hooks"
balance_low = { credits = [100, 50] }
[notifications.email]
from = "billing@example.com"
name = "Example"
events = ["balance.low"]
`);
  const gateway = await startGateway(t, {
    policy,
    vars: { WEBHOOK_SECRET: `whsec_${Buffer.alloc(32, 7).toString("base64")}` },
    more: { modules: [{ type: "ESModule", path: inProject("dist", "receiver-entry.js"), contents: ENTRY }, ...modulesOf(policy)] },
  });
  const ways = Object.keys(WAYS).filter((way) => isFull || !PATIENT.includes(way));
  const accounts = [];
  for (const [n, way] of ways.entries()) {
    const account = await openAccount(gateway, { id: `told-${n}`, email: `${MAILBOXES[n % MAILBOXES.length]}@example.com` });
    await account.grant(200);
    accounts.push(Object.assign(account, { way }));
  }
  const accountOf = ({ body }) => JSON.parse(body).data.account;
  const wayOf = new Map(accounts.map(({ id, way }) => [id, way]));
  between.chooses((request) => wayOf.get(accountOf(request)));
  const events = async ({ id }) => (await gateway.admin("GET", `/accounts/${id}/events`)).json().data;
  const memory = residentMegabytes();

  // Each falls below both of its thresholds, and goes on.
  const took = [];
  await Promise.all(
    accounts.map(async (account) => {
      for (let call = 0; call < 18; call++) {
        const started = performance.now();
        assert.equal((await account.call("POST", "/search")).status, 200, account.way);
        took.push(performance.now() - started);
      }
    }),
  );
  // Nobody waits for a receiver: its silence is fifteen seconds long.
  assert.ok(Math.max(...took) < 10_000, `${Math.max(...took)} ms`);
  const isTried = ([, first]) => first?.attempts > 0;
  for (const account of accounts) while (!isTried(await events(account))) await sleep(20);
  for (const account of accounts) {
    const [, first] = await events(account);
    if (TAKEN.includes(account.way)) assert.equal(first.state, "delivered", account.way);
    else if (account.way !== EITHER) assert.equal(first.state, "waiting", account.way);
  }
  const grown = residentMegabytes() - memory;
  const poured = Math.max(...between.requests.map(({ poured }) => poured));

  // The receiver is well again; nobody but the alarm comes back to it.
  between.chooses(() => "pass");
  for (let round = 0; ; round++) {
    const waiting = [];
    for (const account of accounts) if ((await events(account)).some(({ state }) => state !== "delivered")) waiting.push(account.way);
    if (waiting.length === 0) break;
    assert.ok(round < 100, `never delivered: ${waiting}`);
    gateway.clock.advance(MINUTE_MS);
    await sleep(50);
  }
  const heard = Map.groupBy(between.requests.map(({ body }) => JSON.parse(body)), ({ data }) => data.account);
  for (const { id, way } of accounts) {
    const thresholds = heard.get(id).map(({ data }) => data.threshold);
    assert.deepEqual([...new Set(thresholds)], [100, 50], way);
    assert.deepEqual(thresholds, thresholds.toSorted((a, b) => b - a), `${way}: in order`);
  }
  assert.ok(between.requests.every(({ path }) => path === "/hooks"), "a redirect was followed");
  gateway.clock.advance(400_000);
  for (const { id } of accounts) await areSound(gateway, id);
  assert.ok(grown < 100, `workerd grew by ${grown} MB`);
  show(t, {
    ways: ways.join(", "),
    "e-mail": MAILBOXES.join(", "),
    calls: took.length,
    "p99": `${percentile(took, 0.99).toFixed(0)} ms`,
    "of an endless answer, bytes sent": poured,
    "workerd grew by": `${grown.toFixed(0)} MB`,
  });
});
