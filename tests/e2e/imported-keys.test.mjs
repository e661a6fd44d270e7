// Keys that were issued before Tollgate: they work as they are, an unknown one costs nothing, and they
// are revoked, rotated and moved like others.
import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import { openAccount, policyFor } from "./harness/account.mjs";
import { objectFaults } from "./harness/faults.mjs";
import { startGateway } from "./harness/gateway.mjs";
import { startOrigin } from "./harness/origin.mjs";

const TABLES = `
[imported_keys]
pattern = "sk_[0-9a-f]{32}"
[pools.credits]
[plans.free]
requests_per_minute = 100
grants = [{ pool = "credits", amount = 500, renews = "never" }]
[[routes]]
match = "POST /search"
cost = 5
`;

// The secret of this number, as the company issued it.
const secretOf = (number) => `sk_${number.toString(16).padStart(32, "0")}`;

async function expect(status, answering) {
  const answer = await answering;
  assert.equal(answer.status, status, answer.text());
  return status === 204 ? answer : answer.json();
}

const importKey = (gateway, account, secret, more = {}, headers = {}) =>
  gateway.admin("POST", `/accounts/${account}/keys`, { secret, ...more }, headers);

// What a call with this key is answered: its status, and a refusal's code.
async function told(gateway, key, headers = {}) {
  const answer = await gateway.call(key, "POST", "/search", { headers });
  return answer.status === 200 ? 200 : [answer.status, answer.json().code];
}

// Asks again and again, for what goes on in the background, until the answer is the one.
async function until(ask, isIt) {
  for (let asked = 0; asked < 500; asked++) {
    const answer = await ask();
    if (isIt(answer)) return answer;
  }
  assert.fail("it did not come about");
}

const INVALID = [401, "invalid_key"];
// A key that nobody has is remembered as such for 5 s.
const REMEMBERED = 5_000;

// The databases of the objects of a class that have been woken.
const objectsOf = (gateway, name) =>
  readdirSync(gateway.state, { recursive: true }).filter((file) =>
    new RegExp(`-${name}/[0-9a-f]{64}\\.sqlite$`).test(file),
  );

// The tables that an object has made.
function tablesOf(gateway, file) {
  const database = new DatabaseSync(join(gateway.state, file), { readOnly: true });
  try {
    const names = database.prepare("SELECT name FROM sqlite_master WHERE name NOT LIKE '\\_cf%' ESCAPE '\\'").all();
    return names.map(({ name }) => name);
  } finally {
    database.close();
  }
}

test("a key issued before Tollgate works as it is", async (t) => {
  const origin = await startOrigin(t);
  const gateway = await startGateway(t, { policy: policyFor(origin, TABLES) });
  const { clock } = gateway;
  clock.stop("2031-03-31T20:00:00Z");
  await openAccount(gateway, { id: "acme" });
  const secret = secretOf(1);

  // Before it is imported: nobody's, and nothing was asked of an account or written.
  assert.deepEqual(await told(gateway, secret), INVALID);
  const [asked, ...others] = objectsOf(gateway, "ImportedKeys");
  assert.deepEqual([tablesOf(gateway, asked), others], [[], []], "a miss writes nothing");
  assert.deepEqual(await told(gateway, "sk_0123"), [401, "missing_key"], "what does not match is no key");
  clock.advance(REMEMBERED);

  const made = await expect(201, importKey(gateway, "acme", secret, { name: "old" }));
  assert.deepEqual([made.id, made.key, made.imported, made.name], ["key_acme_2", null, true, "old"]);
  const answer = await gateway.call(secret, "POST", "/search");
  assert.equal(answer.status, 200);
  const forwarded = answer.json().headers;
  assert.deepEqual([forwarded["x-tollgate-key"], forwarded.authorization], ["key_acme_2", undefined]);
  assert.equal(answer.headers["x-credits-remaining"], "495");
  const byHeader = await gateway.send("POST", "/search", { headers: { "x-api-key": secret } });
  assert.equal(byHeader.json().headers["x-api-key"], undefined);
  assert.equal((await expect(200, gateway.call(secret, "GET", "/me"))).key.id, "key_acme_2");

  // Imported again it is that key, whatever Idempotency-Key comes with it.
  for (const headers of [{}, { "idempotency-key": "a" }, { "idempotency-key": "a" }]) {
    const again = await expect(201, importKey(gateway, "acme", secret, {}, headers));
    assert.deepEqual([again.id, again.key, again.created_at], [made.id, null, made.created_at]);
  }
  // What is no key of the pattern is refused by its field, and not repeated.
  for (const wrong of ["sk_123", secret.toUpperCase(), 7]) {
    const refused = await importKey(gateway, "acme", wrong);
    assert.deepEqual([refused.status, refused.json().field], [400, "secret"]);
    if (wrong !== 7) assert.ok(!refused.text().includes(wrong));
  }

  // Another account cannot have it while its key stands.
  await openAccount(gateway, { id: "other" });
  const conflict = await expect(409, importKey(gateway, "other", secret));
  assert.deepEqual([conflict.code, conflict.field], ["conflict", "secret"]);
  assert.match(conflict.detail, /key_acme_2/);
  const keys = async (account) => (await expect(200, gateway.admin("GET", `/accounts/${account}/keys`))).data.length;
  assert.equal(await keys("other"), 1);

  // After a restart it is looked up anew.
  await gateway.restart();
  assert.equal(await told(gateway, secret), 200);

  // Rotated it becomes a key of Tollgate's, and the old one dies with the overlap.
  const rotated = await expect(
    200,
    gateway.admin("POST", "/accounts/acme/keys/key_acme_2/rotate", { overlap_seconds: 60 }),
  );
  assert.match(rotated.key, /^tk_live_/);
  assert.deepEqual([await told(gateway, rotated.key), await told(gateway, secret)], [200, 200]);
  clock.advance(60_000);
  assert.deepEqual([await told(gateway, rotated.key), await told(gateway, secret)], [200, INVALID]);

  // Revoked it is dead at once, here for good; another account can have the secret.
  await expect(204, gateway.admin("DELETE", "/accounts/acme/keys/key_acme_2"));
  assert.deepEqual(await told(gateway, rotated.key), INVALID);
  assert.match((await expect(409, importKey(gateway, "acme", secret))).detail, /revoked for good/);
  clock.advance(REMEMBERED);
  const moved = await until(
    () => importKey(gateway, "other", secret),
    ({ status }) => status === 201,
  );
  assert.match(moved.json().id, /^key_other_/);
  assert.equal(await told(gateway, secret), 200);

  // Nothing of it was logged.
  assert.ok(!JSON.stringify(gateway.logs()).includes(secret.slice(3)));
});

test("who tries unknown keys is refused for a minute, and nobody else is", async (t) => {
  const origin = await startOrigin(t);
  for (const more of [{}, { ratelimits: {} }]) {
    const gateway = await startGateway(t, { policy: policyFor(origin, TABLES), more });
    const { clock } = gateway;
    clock.stop("2031-03-31T20:00:00Z");
    await openAccount(gateway, { id: "acme" });
    await expect(201, importKey(gateway, "acme", secretOf(1)));
    await expect(201, importKey(gateway, "acme", secretOf(2)));
    assert.equal(await told(gateway, secretOf(1)), 200);

    const stranger = { "cf-connecting-ip": "2001:db8::1" };
    for (let number = 100; number < 131; number++) {
      assert.deepEqual(await told(gateway, secretOf(number), stranger), INVALID, `${number}`);
    }
    const neighbour = { "cf-connecting-ip": "2001:db8::2" };
    const refused = await gateway.call(secretOf(131), "POST", "/search", { headers: neighbour });
    const problem = refused.json();
    assert.deepEqual([refused.status, problem.code], [429, "rate_limited"]);
    assert.deepEqual(problem["violated-policies"], ["unknown_keys"]);
    assert.equal(refused.headers["retry-after"], "60");
    // A key that is known here passes from there too; one that is not has to wait.
    assert.equal(await told(gateway, secretOf(1), stranger), 200);
    assert.deepEqual(await told(gateway, secretOf(2), stranger), [429, "rate_limited"]);
    // From elsewhere all is as ever.
    assert.deepEqual(await told(gateway, secretOf(132)), INVALID);
    assert.equal(await told(gateway, secretOf(2)), 200);
    clock.advance(60_000);
    assert.deepEqual(await told(gateway, secretOf(133), stranger), INVALID);
    assert.equal(objectsOf(gateway, "Account").length, 1, "no other account's object was woken");
  }
});

test("an import that is broken off between account and lookup object is finished, once", async (t) => {
  const origin = await startOrigin(t);
  const policy = policyFor(origin, TABLES);
  const faults = objectFaults(policy);
  const { lookups } = faults;
  const gateway = await startGateway(t, { policy, more: faults.more });
  const { clock } = gateway;
  await openAccount(gateway, { id: "acme" });

  // The lookup object cannot be asked, or its answers are lost, however often the account asks in the background: nothing
  // is there, and the same request goes on with it.
  const headers = { "idempotency-key": "import-1" };
  for (const fault of ["break", "lose"]) {
    lookups.choose(() => fault);
    assert.equal((await importKey(gateway, "acme", secretOf(1), {}, headers)).status, 503, fault);
    assert.deepEqual(await told(gateway, secretOf(1)), [503, "unavailable"], fault);
  }
  lookups.choose(() => "pass");
  const made = await expect(201, importKey(gateway, "acme", secretOf(1), {}, headers));
  assert.equal(made.id, "key_acme_2");
  assert.equal(await told(gateway, secretOf(1)), 200);

  // Killed while the lookup object is answering, and nobody asks again: the alarm does.
  lookups.plan("delay");
  const asked = importKey(gateway, "acme", secretOf(2)).catch(() => {});
  await lookups.held();
  lookups.plan();
  await gateway.kill();
  await asked;
  clock.advance(60_000);
  await gateway.restart();
  await until(
    () => (clock.advance(REMEMBERED), told(gateway, secretOf(2))),
    (answer) => answer === 200,
  );
  const { data } = await expect(200, gateway.admin("GET", "/accounts/acme/keys"));
  assert.deepEqual(
    data.map(({ id }) => id),
    ["key_acme_1", "key_acme_2", "key_acme_3"],
  );
});
