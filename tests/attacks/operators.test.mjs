// Guessing at the operators' tokens.
import assert from "node:assert/strict";
import test from "node:test";
import { policyFor } from "../e2e/harness/account.mjs";
import { secrets, startGateway } from "../e2e/harness/gateway.mjs";
import { startOrigin } from "../e2e/harness/origin.mjs";
import { scaled, show } from "../e2e/harness/scale.mjs";

const GUESSES = scaled(500, 20_000);
const PER_MINUTE = 10;
const origin = await startOrigin(test);
const gateway = await startGateway(test, {
  policy: policyFor(origin, `
[pools.credits]
[plans.free]
[[routes]]
match = "POST /search"
cost = 1
`),
});

const ask = (token, from, path = "/accounts/nobody") =>
  gateway.send("GET", `/_tollgate/v1${path}`, {
    headers: { "cf-connecting-ip": from, ...(token !== undefined && { authorization: `Bearer ${token}` }) },
  });

test("whoever guesses is slowed down by address, and the operator is not locked out", async (t) => {
  gateway.clock.stop("2031-03-31T20:00:00Z");
  const answers = [];
  for (let guess = 0; guess < GUESSES; guess++) answers.push(await ask(`guess-${guess}`, "2001:db8::1"));
  const told = answers.map(({ status }) => status);
  assert.deepEqual(told, told.map((_, guess) => (guess < PER_MINUTE ? 401 : 429)));
  const refused = answers.at(-1);
  assert.deepEqual([refused.headers["retry-after"], refused.json()["violated-policies"]], ["60", ["unknown_tokens"]]);
  // Not listened to: neither the same network nor the right token, which would tell that it is right.
  assert.equal((await ask("x", "2001:db8::ffff")).status, 429);
  assert.equal((await ask(secrets.ADMIN_TOKEN, "2001:db8::1")).status, 429);
  assert.equal((await ask(secrets.ORIGIN_TOKEN, "2001:db8::1")).status, 429);
  // What needs no token is answered, and whoever is elsewhere.
  assert.equal((await ask("x", "2001:db8::1", "/healthz")).status, 200);
  assert.equal((await ask(secrets.ADMIN_TOKEN, "192.0.2.7")).status, 404);
  gateway.clock.advance(60_000);
  assert.equal((await ask(secrets.ADMIN_TOKEN, "2001:db8::1")).status, 404);
  // Now that the operator was here, nobody at the same address can get the operator refused.
  for (let guess = 0; guess < 3 * PER_MINUTE; guess++) assert.equal((await ask(`guess-${guess}`, "2001:db8::1")).status, 401);
  assert.equal((await ask(secrets.ADMIN_TOKEN, "2001:db8::1")).status, 404);
  show(t, { guesses: GUESSES, "looked at, in a minute and isolate": PER_MINUTE });
});

test("what is no token of the operator's opens nothing", async () => {
  const { status: none } = await ask(undefined, "192.0.2.8");
  assert.equal(none, 401);
  let from = 0;
  const elsewhere = () => `198.51.100.${(from += 1)}`;
  for (const [token, statuses] of [
    ["", [401]],
    [" ", [401]],
    ["x".repeat(65_536), [401, 400, 413, 431, 0]],
    [`${secrets.ADMIN_TOKEN.slice(0, -1)}`, [401]],
    [`${secrets.ADMIN_TOKEN}, ${secrets.ADMIN_TOKEN}`, [401]],
    [secrets.ADMIN_TOKEN.toUpperCase(), [401]],
    [secrets.KEY_SECRET, [401]],
    [secrets.ORIGIN_SECRET, [401]],
    [secrets.ORIGIN_TOKEN, [403]],
    ["undefined", [401]],
    ["%00", [401]],
  ]) {
    const answer = await ask(token, elsewhere(), "/accounts").catch(() => ({ status: 0 }));
    assert.ok(statuses.includes(answer.status), `${token.slice(0, 40)}: ${answer.status}`);
  }
  for (const headers of [
    { authorization: `Basic ${secrets.ADMIN_TOKEN}` },
    { authorization: secrets.ADMIN_TOKEN },
    { "x-api-key": secrets.ADMIN_TOKEN },
    { "x-admin-token": secrets.ADMIN_TOKEN },
    { cookie: `token=${secrets.ADMIN_TOKEN}` },
  ]) {
    const answer = await gateway.send("GET", "/_tollgate/v1/accounts", { headers: { ...headers, "cf-connecting-ip": elsewhere() } });
    assert.equal(answer.status, 401, JSON.stringify(Object.keys(headers)));
  }
  const inQuery = await gateway.send("GET", `/_tollgate/v1/accounts?token=${secrets.ADMIN_TOKEN}`, { headers: { "cf-connecting-ip": elsewhere() } });
  assert.equal(inQuery.status, 401);
});
