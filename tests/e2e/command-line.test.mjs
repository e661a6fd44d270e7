// `npx tollgate`, as an operator types it.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import * as suite from "node:test";
import { test } from "node:test";
import { COMMANDS } from "../../cli/commands.mjs";
import { inProject } from "../../scripts/project.mjs";
import { lineOf, policyFor } from "./harness/account.mjs";
import { secrets, startGateway } from "./harness/gateway.mjs";
import { answer, startOrigin } from "./harness/origin.mjs";

const TABLES = `
[imported_keys]
pattern = "sk_[0-9a-f]{32}"
[pools.credits]
[plans.free]
requests_per_minute = 1000
grants = [{ pool = "credits", amount = 2, renews = "never" }]
[plans.starter]
grants = []
[[routes]]
match = "POST /search"
cost  = 1
`;
const SECOND = 1_000;

const origin = await startOrigin(suite);
const receiver = await startOrigin(suite);
const gateway = await startGateway(suite, {
  policy: policyFor(origin, `${TABLES}\n[notifications]\nurl = "${receiver.url}/hooks"`),
  vars: { WEBHOOK_SECRET: `whsec_${"A".repeat(32)}` },
});
const { clock } = gateway;
clock.stop("2031-03-10T12:00:00Z");

// Everything that any command printed: no token may be in it.
let printed = "";

// Runs the program with these words and this input: { code, out, err, json() }.
async function tollgate(words, environment = {}, input = "") {
  const child = spawn(process.execPath, [inProject("cli", "tollgate.mjs"), ...words], {
    env: { TOLLGATE_URL: gateway.url, TOLLGATE_ADMIN_TOKEN: secrets.ADMIN_TOKEN, ...environment },
    stdio: ["pipe", "pipe", "pipe"],
  });
  // Most commands end without having read it.
  child.stdin.on("error", () => {}).end(input);
  const texts = await Promise.all([child.stdout, child.stderr].map((stream) => stream.setEncoding("utf8").toArray()));
  const [out, err] = texts.map((pieces) => pieces.join(""));
  const code = child.exitCode ?? (await new Promise((resolve) => child.once("exit", resolve)));
  printed += out + err;
  return { code, out, err, json: () => JSON.parse(out) };
}

// A command that succeeds, and its answer.
async function done(...words) {
  const ran = await tollgate(words);
  assert.equal(ran.code, 0, ran.err);
  return ran.out === "" ? null : ran.json();
}

const search = async (key) => {
  // An isolate may repeat a refusal for 5 s.
  clock.advance(6 * SECOND);
  const answer = await gateway.call(key, "POST", "/search");
  if (answer.status !== 200) return answer.json().code;
  await lineOf(gateway, answer);
  return 200;
};

test("an operator's day", async () => {
  const opened = await done("accounts", "create", "--id", "acme", "--plan", "free", "--name", "Acme Ltd");
  assert.deepEqual([opened.id, opened.status], ["acme", "active"]);
  const issued = await done("keys", "create", "acme", "--name", "shop", "--scope", "POST /search", "--budget", "100");
  assert.match(issued.key, /^tk_live_/);
  assert.deepEqual([issued.scope, issued.budget], [["POST /search"], 100]);

  assert.deepEqual([await search(issued.key), await search(issued.key)], [200, 200]);
  assert.equal(await search(issued.key), "insufficient_credits");
  const lot = await done("grants", "add", "acme", "--amount", "10", "--reference", "order 77");
  assert.equal(lot.available, 10);
  assert.equal(await search(issued.key), 200);

  const rotated = await done("keys", "rotate", issued.id, "--overlap-seconds", "60");
  assert.deepEqual([rotated.id, rotated.status], [issued.id, "rotating"]);
  assert.notEqual(rotated.key, issued.key);
  assert.deepEqual([await search(issued.key), await search(rotated.key)], [200, 200]);
  clock.advance(60 * SECOND);
  assert.deepEqual([await search(issued.key), await search(rotated.key)], ["invalid_key", 200]);

  await done("accounts", "suspend", "acme", "--reason", "invoice 7 is open");
  assert.equal(await search(rotated.key), "account_suspended");
  assert.deepEqual(
    (await done("accounts", "list", "--status", "suspended")).data.map(({ id, reason }) => [id, reason]),
    [["acme", "invoice 7 is open"]],
  );
  await done("accounts", "resume", "acme");
  assert.equal(await search(rotated.key), 200);

  const { usage, total_count } = await done("usage", "acme", "--limit", "2");
  assert.deepEqual([usage.length, total_count], [2, 7]);
  assert.equal((await done("usage", "acme", "--by", "key")).summary[0].credits_consumed, 7);
  const { data } = await done("ledger", "acme");
  assert.deepEqual([data[0].kind, data[0].balance, data.at(-1).kind], ["charged", 5, "granted"]);
  assert.equal((await done("balance", "acme")).pools.credits.available, 5);
  assert.equal((await done("audit", "acme")).ok, true);
  const events = (await done("events", "list", "acme", "--limit", "5")).data;
  assert.deepEqual(events.map(({ type }) => type), ["account.suspended", "balance.exhausted"]);
  assert.equal((await done("events", "replay", events[1].id)).id, events[1].id);

  await done("keys", "revoke", issued.id);
  assert.equal(await search(rotated.key), "invalid_key");
});

test("a key and an account are changed as told, and nothing told is no success", async () => {
  await done("accounts", "create", "--id", "changed", "--plan", "free", "--name", "Changed Ltd", "--email", "a@example.com");
  const { id } = await done("keys", "create", "changed", "--name", "shop", "--budget", "100", "--requests-per-day", "7");
  const set = ["--name", "till", "--scope", "POST /search", "--requests-per-minute", "unlimited", "--budget", "5"];
  const changed = await done("keys", "change", id, ...set, "--expires-at", "2031-12-01T00:00:00Z");
  const { name, scope, limits, budget, expires_at } = changed;
  assert.deepEqual([name, scope, budget, expires_at], ["till", ["POST /search"], 5, "2031-12-01T00:00:00Z"]);
  assert.deepEqual([limits.requests_per_minute, limits.requests_per_day], ["unlimited", null]);
  const removed = ["scope", "limits", "expires-at", "budget"].flatMap((what) => ["--remove", what]);
  const bare = await done("keys", "change", id, ...removed);
  assert.deepEqual([bare.name, bare.scope, bare.limits, bare.expires_at, bare.budget], ["till", null, null, null, null]);
  assert.equal((await done("accounts", "change", "changed", "--remove", "email", "--name", "Changed")).email, null);

  for (const words of [
    ["accounts", "change", "changed"],
    ["keys", "change", id],
    ["keys", "change", id, "--remove", "secret"],
    ["keys", "change", id, "--remove", "name", "--name", "x"],
  ]) {
    const { code, out } = await tollgate(words);
    assert.deepEqual([code, out], [2, ""], words.join(" "));
  }
});

test("the help names every command and what one takes, without a gateway or a token", async () => {
  const nothing = { TOLLGATE_URL: "", TOLLGATE_ADMIN_TOKEN: "" };
  const { code, out } = await tollgate(["--help"], nothing);
  assert.equal(code, 0);
  for (const name of Object.keys(COMMANDS)) assert.match(out, new RegExp(`^  ${name} `, "m"));
  const help = await tollgate(["keys", "change", "--help"], nothing);
  const { options, takes } = COMMANDS["keys change"];
  assert.deepEqual([help.code, help.err], [0, ""]);
  for (const told of [...Object.keys(options).map((option) => `--${option} `), ...takes]) assert.ok(help.out.includes(told), told);
});

test("the same Idempotency-Key makes the same credits once, another command others", async () => {
  await done("accounts", "create", "--id", "again", "--plan", "starter");
  const grant = ["grants", "add", "again", "--amount", "5"];
  const first = await done(...grant, "--idempotency-key", "order-1");
  assert.deepEqual(await done(...grant, "--idempotency-key", "order-1"), first);
  await done(...grant);
  await done(...grant);
  assert.equal((await done("balance", "again")).pools.credits.available, 15);
  const adjusted = await done("adjustments", "add", "again", "--amount=-3", "--reason", "booked twice");
  assert.equal(adjusted.pools.credits.available, 12);
});

test("an older key is imported without an argument that shows it, and an account exported and closed", async () => {
  await done("accounts", "create", "--id", "older", "--plan", "free");
  const secret = `sk_${"0f".repeat(16)}`;
  const create = (input) => tollgate(["keys", "create", "older", "--secret", "--name", "shop"], {}, input);
  const imported = (await create(`${secret}\n`)).json();
  assert.deepEqual([imported.id, imported.name, imported.key], ["key_older_1", "shop", null]);
  assert.equal(await search(secret), 200);
  const refused = await create("");
  assert.deepEqual([refused.code, /expected the key on standard input, found nothing/.test(refused.err)], [2, true]);
  assert.equal((await create("sk_short")).code, 1);

  const { code, out } = await tollgate(["accounts", "export", "older"]);
  const lines = out.trimEnd().split("\n").map((line) => JSON.parse(line));
  assert.deepEqual([code, lines[0].type, lines.at(-1)], [0, "export", { type: "end", lines: lines.length - 1 }]);
  assert.equal((await tollgate(["accounts", "export", "nobody"])).code, 1);
  assert.ok(!printed.includes(secret));

  assert.equal(await done("accounts", "close", "older"), null);
  assert.equal((await done("accounts", "show", "older")).status, "closed");
  assert.equal(await search(secret), "invalid_key");
});

test("the status says what requests came to, and until when all is told", async () => {
  const { data, as_of } = await done("status", "--from", "2031-03-10T00:00:00Z");
  assert.ok(Array.isArray(data) && Date.parse(as_of) < clock.now().getTime());
  const { out } = await tollgate(["status", "--table"]);
  assert.match(out, /all told until 2031-03-10T1\d:00:00Z\n$/);
});

test("people get tables", async () => {
  await done("accounts", "create", "--id", "people", "--plan", "free", "--name", "Müller & Söhne");
  const { out } = await tollgate(["accounts", "list", "--query", "people", "--table"]);
  const [names, people] = out.split("\n");
  assert.match(names, /^ID +NAME +PLAN +STATUS +EXTERNAL_ID +EMAIL +CREATED_AT$/);
  assert.match(people, /^people +Müller & Söhne +free +active +- +- +2031-/);
  const balance = await tollgate(["balance", "people", "--table"]);
  assert.match(balance.out, /POOL +AVAILABLE +HELD +SPENT +RENEWS_AT\ncredits +2 +0 +0 +-\n\nPOOL +ID +SOURCE/);
  const audit = await tollgate(["audit", "people", "--table"]);
  assert.match(audit.out, /^ok +true\nentries +1\n/);
});

test("what goes wrong is a sentence and an exit code", async () => {
  const told = async (words, environment) => {
    const { code, out, err } = await tollgate(words, environment);
    assert.equal(out, "");
    return [code, err];
  };
  const [refused, why] = await told(["keys", "create", "nobody"]);
  assert.equal(refused, 1);
  assert.match(why, /^tollgate: there is no such account \(not_found, 404, req_[0-9a-f]+\)\n$/);
  assert.match((await told(["accounts", "create", "--plan", "gold"]))[1], /plan: the policy has no plan "gold"/);

  assert.deepEqual(await told(["accounts", "create"]), [2, "tollgate: --plan is missing: a plan of the policy\n"]);
  assert.deepEqual(await told(["keys", "rotate", "acme", "--overlap-seconds", "0"]), [
    2,
    "tollgate: acme is no id of a key, which is like key_acme_1\n",
  ]);
  for (const words of [["no", "such"], ["balance"], ["balance", "a", "b"], ["balance", "acme", "--tier", "x"]]) {
    assert.equal((await told(words))[0], 2, words.join(" "));
  }
  assert.equal((await told(["grants", "add", "acme", "--amount", "ten"]))[0], 2);
  assert.equal((await told(["plans"], { TOLLGATE_URL: "http://example.com" }))[0], 2, "in the clear");

  const nobody = { TOLLGATE_URL: "http://127.0.0.1:9" };
  const [code, sentence] = await told(["grants", "add", "acme", "--amount", "5"], nobody);
  assert.equal(code, 3);
  assert.match(sentence, /no answer from http:\/\/127\.0\.0\.1:9: .+\n/);
  assert.match(sentence, /\nthe same again is safe with --idempotency-key tollgate-/);
});

test("the token is never printed, and goes nowhere but to the gateway", async () => {
  const wrong = "a-token-that-is-not-one-of-this-gateway";
  const refused = await tollgate(["plans"], { TOLLGATE_ADMIN_TOKEN: wrong });
  assert.deepEqual([refused.code, /invalid_key/.test(refused.err)], [1, true]);
  const unreadable = await tollgate(["plans"], { TOLLGATE_ADMIN_TOKEN: `${wrong}\n` });
  assert.equal(unreadable.code, 2);
  // Somebody who answers with what was sent, and one who sends elsewhere.
  origin.on("/_tollgate/v1/plans", ({ headers, outgoing }) => outgoing.writeHead(418).end(headers.authorization));
  const echoed = await tollgate(["plans"], { TOLLGATE_URL: origin.url });
  assert.deepEqual([echoed.code, /answered 418, and not as Tollgate does/.test(echoed.err)], [3, true]);
  for (const misplaced of [["balance", secrets.ADMIN_TOKEN], ["plans", `--${secrets.ADMIN_TOKEN}`]]) {
    const { code, err } = await tollgate(misplaced);
    assert.deepEqual([code, /the token is not an argument/.test(err)], [2, true]);
  }
  const asked = origin.requests.length;
  const plans = "/_tollgate/v1/plans";
  origin.on(plans, answer({ status: 307, headers: { location: gateway.url + plans } }));
  assert.equal((await tollgate(["plans"], { TOLLGATE_URL: origin.url })).code, 3);
  assert.equal(origin.requests.length, asked + 1);
  for (const token of [secrets.ADMIN_TOKEN, wrong]) assert.ok(!printed.includes(token));
});
