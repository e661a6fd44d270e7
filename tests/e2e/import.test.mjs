// `npm run import`: accounts and their keys out of a CSV file, as often as one likes.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { inProject } from "../../scripts/project.mjs";
import { Unreadable, readRows, records } from "../../scripts/import/rows.mjs";
import { policyFor } from "./harness/account.mjs";
import { secrets, startGateway } from "./harness/gateway.mjs";
import { startOrigin } from "./harness/origin.mjs";

const TABLES = `
[imported_keys]
pattern = "sk_[0-9a-f]{32}"
[pools.credits]
[plans.free]
grants = [{ pool = "credits", amount = 50, renews = "never" }]
[plans.starter]
[[routes]]
match = "POST /search"
cost = 5
`;

// As many as a test may take; CONTRIBUTING.md says how 10,000 are imported.
const ACCOUNTS = Number(process.env.TOLLGATE_IMPORTED ?? 120);

const secretOf = (number) => `sk_${number.toString(16).padStart(32, "0")}`;

test("CSV is read as RFC 4180 has it, with the line of each record", () => {
  const read = (text) => [...records(text)].map(({ line, fields }) => [line, ...fields]);
  assert.deepEqual(read("\uFEFFa,b\r\n1,2\r\n"), [[1, "a", "b"], [2, "1", "2"]]);
  assert.deepEqual(read('a,b\n\n"x, ""y""\nz",\n,"",3'), [[1, "a", "b"], [3, 'x, "y"\nz', ""], [5, "", "", "3"]]);
  assert.deepEqual(read("a,\n"), [[1, "a", ""]]);
  assert.deepEqual(read("a,b,"), [[1, "a", "b", ""]]);
  assert.deepEqual(read(""), []);
  for (const [text, line] of [
    ['a\n"b', 2],
    ['a\nb"c"', 2],
    ['"a"b', 1],
    ['"a\nb" ,c', 2],
    ["a\rb", 1],
  ]) {
    assert.throws(() => read(text), new RegExp(`^Error: line ${line}: `), JSON.stringify(text));
  }
});

test("what is wrong in a file is told by its line, and never shown", () => {
  const header = "external_id,plan,key,credits\n";
  for (const text of ["", "u1,free,sk_1\n", "external_id,plan\n", `${header.trim()},sk_1\n`, "key,key,plan,external_id\n"]) {
    assert.throws(() => readRows(text), (error) => error instanceof Unreadable && !/sk_1/.test(error.message));
  }
  const { accounts, refused } = readRows(
    "credits,key,plan,external_id\n" +
      ["7,sk_1,free,u1", ",sk_2,free,u1", "9,sk_3,free,u1", ",sk_4,paid,u1", ",sk_1,free,u2", "0,sk_5,free,u2"].join("\n") +
      "\n" +
      ["1.5,sk_6,free,u3", "-1,sk_6,free,u3", "9007199254740992,sk_6,free,u3", ",,free,u3", ",sk_6,,u3", ",sk_6,free,"].join("\n") +
      "\n1,sk_6,free\n\n3,sk_7,free,u2",
  );
  assert.deepEqual(accounts, [
    { external_id: "u1", plan: "free", line: 2, rows: [{ line: 2, key: "sk_1", credits: 7 }, { line: 3, key: "sk_2" }] },
    { external_id: "u2", plan: "free", line: 7, rows: [{ line: 7, key: "sk_5" }, { line: 16, key: "sk_7", credits: 3 }] },
  ]);
  assert.deepEqual(
    refused.map(({ line, why }) => `${line} ${why.split(":")[0]}`),
    ["4 credits", "5 plan", "6 key", "8 credits", "9 credits", "10 credits", "11 key", "12 plan", "13 external_id", "14 it has 3 fields, and the header 4"],
  );
});

test(`${ACCOUNTS} accounts are imported twice, with nothing doubled`, async (t) => {
  const origin = await startOrigin(t);
  const gateway = await startGateway(t, { policy: policyFor(origin, TABLES) });
  const run = await runnerOf(t, gateway);
  const rows = Array.from({ length: ACCOUNTS }, (_, n) => `"user ${n}",${n % 2 ? "free" : "starter"},${secretOf(n)},${n}`);
  const wrong = [
    `user 1,free,${secretOf(0)},`,
    `user x,gold,${secretOf(70_001)},`,
    `user y,free,sk_not_one_of_them,`,
    `user z,starter,${secretOf(70_002)},`,
  ];
  // An account that is there already, on another plan, opened by hand.
  const byHand = { external_id: "user z", plan: "free" };
  assert.equal((await gateway.admin("POST", "/accounts", byHand, { "idempotency-key": "by-hand" })).status, 201);
  const file = `external_id,plan,key,credits\n${[...rows, ...wrong].join("\n")}\n`;

  // Broken off in the middle, then run to the end, then once more.
  let answered = 0;
  const first = await run(file, { endWhen: gateway.log(({ status }) => status === 201 && ++answered > ACCOUNTS) });
  assert.equal(first.code, 2, first.output);
  assert.match(first.output, /Run the same again/);
  for (let again = 0; again < 2; again++) {
    const { code, output } = await run(file);
    assert.equal(code, 1, output);
    const refused = output.split("\n").filter((line) => line.startsWith("line "));
    assert.deepEqual(refused, [
      `line ${ACCOUNTS + 2}: key: it is that of line 2`,
      `line ${ACCOUNTS + 3}: plan: the policy has no such plan`,
      `line ${ACCOUNTS + 4}: key: expected a key of the pattern that the policy has in [imported_keys]`,
      `line ${ACCOUNTS + 5}: external_id: there is an account with it, on another plan`,
    ]);
    assert.match(output, new RegExp(`^${ACCOUNTS} keys of ${ACCOUNTS + 1} accounts are imported`, "m"));
    assert.ok(!output.includes("sk_"), "no key is shown");
    assert.ok(!output.includes(secrets.ADMIN_TOKEN));
  }

  // Every account is there once, and some of them are looked at closely.
  const ids = [];
  for (let next = ""; next !== null; ) {
    const page = (await gateway.admin("GET", `/accounts?limit=500${next && `&cursor=${encodeURIComponent(next)}`}`)).json();
    ids.push(...page.data.map(({ external_id, id }) => [external_id, id]));
    next = page.next;
  }
  // Those of the file, user y without a key, user z by hand.
  assert.equal(ids.length, ACCOUNTS + 2);
  assert.equal(new Set(ids.map(([external_id]) => external_id)).size, ACCOUNTS + 2);
  const byName = new Map(ids);
  for (const number of [0, 1, 2, Math.floor(ACCOUNTS / 2), ACCOUNTS - 1]) {
    const id = byName.get(`user ${number}`);
    const of = async (what) => (await gateway.admin("GET", `/accounts/${id}${what}`)).json();
    assert.equal((await of("")).plan, number % 2 ? "free" : "starter");
    assert.equal((await of("/keys")).data.length, 1, `one key of user ${number}`);
    assert.equal((await of("/balance")).pools.credits.available, number + (number % 2 ? 50 : 0));
    const called = await gateway.call(secretOf(number), "POST", "/search");
    assert.equal(called.status, number === 0 || number === 2 ? 402 : 200, `user ${number}`);
  }
});

test("what was mended at the gateway is imported by the next run, and what is dead is not said to be", async (t) => {
  const origin = await startOrigin(t);
  const gateway = await startGateway(t, { policy: policyFor(origin, TABLES.replace("[plans.free]", "[plans.free]\nmax_keys = 2")) });
  const run = await runnerOf(t, gateway);
  const admin = async (method, path, body, headers) => {
    const answer = await gateway.admin(method, path, body, headers);
    assert.ok(answer.status < 300, answer.text());
    return answer.status === 204 ? null : answer.json();
  };
  await admin("POST", "/accounts", { id: "holder", plan: "starter" }, { "idempotency-key": "holder" });
  const held = await admin("POST", "/accounts/holder/keys", { secret: secretOf(1) });
  const file = `external_id,plan,key\n${[1, 2, 3, 4].map((n) => `u1,free,${secretOf(n)}`).join("\n")}\n`;
  const refused = async () => (await run(file)).output.split("\n").filter((line) => line.startsWith("line "));

  assert.deepEqual(await refused(), [
    "line 2: key: it is that of key_holder_1; another account can have it when that key is revoked",
    "line 5: key: the account has 2 keys, as many as it may have; revoke one first",
  ]);
  await admin("DELETE", `/accounts/holder/keys/${held.id}`);
  const [{ id }] = (await admin("GET", "/accounts?external_id=u1")).data;
  await admin("PATCH", `/accounts/${id}`, { plan: "starter" });
  // The holder's lookup object hears of the revocation in the background.
  let lines;
  for (const until = Date.now() + 5_000; (lines = await refused()).length > 0 && Date.now() < until; );
  assert.deepEqual(lines, []);
  await admin("DELETE", `/accounts/${id}`);
  for (const line of await refused()) assert.match(line, /: key: this account was closed at /);
  assert.equal((await refused()).length, 4);
});

test("an import that cannot begin says why", async (t) => {
  const run = await runnerOf(t, { url: "http://127.0.0.1:9" });
  const header = "external_id,plan,key\n";
  for (const [file, options, words] of [
    [header, { url: "http://api.example.com" }, /--url: expected https/],
    [header, { token: "" }, /TOLLGATE_ADMIN_TOKEN/],
    [header, { more: ["--concurrency", "0"] }, /--concurrency/],
    [header, { more: ["--force"] }, /--force/],
    [header, { more: ["another"] }, /one FILE/],
    ["u1,free,sk_1\n", {}, /line 1: expected a header/],
  ]) {
    const { code, output } = await run(file, options);
    assert.equal(code, 2, output);
    assert.match(output, words);
    assert.ok(!output.includes("sk_1"));
  }
});

// Runs the command on a file with this text; it is told to end when `endWhen` resolves.
async function runnerOf(t, gateway) {
  const folder = await mkdtemp(join(tmpdir(), "tollgate-import-"));
  t.after(() => rm(folder, { recursive: true, force: true }));
  const path = join(folder, "accounts.csv");
  return async (text, { url = gateway.url, token = secrets.ADMIN_TOKEN, more = [], endWhen } = {}) => {
    await writeFile(path, text);
    const args = [inProject("scripts", "import.mjs"), path, "--url", url, ...more];
    const child = spawn(process.execPath, args, { env: { ...process.env, TOLLGATE_ADMIN_TOKEN: token } });
    t.after(() => child.kill());
    let output = "";
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8").on("data", (text) => (output += text));
    }
    endWhen?.then(() => child.kill("SIGTERM"));
    const [code] = await once(child, "close");
    return { code, output };
  };
}
