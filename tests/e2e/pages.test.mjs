// Where a list goes on: with the cursor that its last page handed out, and with no other.
import assert from "node:assert/strict";
import { test } from "node:test";
import { openAccount, policyFor } from "./harness/account.mjs";
import { startGateway } from "./harness/gateway.mjs";
import { startOrigin } from "./harness/origin.mjs";

const TABLES = `
[pools.credits]
[plans.free]
grants = [{ pool = "credits", amount = 50, renews = "never" }]
[notifications]
url = "http://127.0.0.1:9/hooks"
balance_low = { credits = [40, 10] }
[[routes]]
match = "POST /search"
cost  = 15
`;

const MANY = "A".repeat(10_000);

// One character changed, truncated, empty, what was handed out once as a plain number, and far too long.
const forged = (cursor) => [
  cursor.replace(/^./, (first) => (first === "A" ? "B" : "A")),
  cursor.replace(/.$/, (last) => (last === "A" ? "B" : "A")),
  cursor.slice(0, -2),
  cursor.slice(1),
  "",
  "1",
  MANY,
];

test("a list goes on only with a cursor of its own, of its own account, as it was handed out", async (t) => {
  const origin = await startOrigin(t);
  const vars = { WEBHOOK_SECRET: `whsec_${"A".repeat(32)}` };
  const gateway = await startGateway(t, { policy: policyFor(origin, TABLES), vars });
  const accounts = [await openAccount(gateway), await openAccount(gateway)];
  for (const account of accounts) {
    await account.anotherKey();
    for (let call = 0; call < 3; call++) await account.finished("POST", "/search");
  }
  const [{ id, key }, other] = accounts;
  // Each with its first page's query, what it takes a cursor as, and who asks.
  const lists = [
    { path: "/usage?limit=1", asker: "customer" },
    { path: "/ledger?limit=1", asker: "customer" },
    { path: "/accounts/{id}/usage?limit=1" },
    { path: "/accounts/{id}/ledger?limit=1" },
    { path: "/accounts/{id}/keys?limit=1" },
    { path: "/accounts/{id}/events?limit=1" },
    { path: "/accounts?limit=1&plan=free", name: "cursor" },
  ];
  const ask = (list, account, more = "") => {
    const path = list.path.replace("{id}", account.id) + more;
    return list.asker ? gateway.call(account.key, "GET", path) : gateway.admin("GET", path);
  };
  for (const list of lists) {
    const page = await ask(list, { id, key });
    assert.equal(page.status, 200, page.text());
    list.next = page.json().next;
    assert.equal(typeof list.next, "string", list.path);
  }
  let tried = 0;
  for (const list of lists) {
    const name = list.name ?? "next";
    const theirs = (await ask(list, other)).json().next;
    const kind = ({ path }) => /usage|ledger|keys|events|accounts$/.exec(path.split("?")[0])[0];
    const ofOthers = lists.filter((another) => kind(another) !== kind(list)).map(({ next }) => next);
    const ofAnotherAccount = list.name ? [] : [theirs];
    for (const cursor of [...forged(list.next), ...ofOthers, ...ofAnotherAccount]) {
      const answer = await ask(list, { id, key }, `&${name}=${cursor}`);
      const what = `${list.path} with ${cursor.slice(0, 80)}`;
      assert.equal(answer.status, 400, `${what}: ${answer.text()}`);
      assert.deepEqual([answer.json().code, answer.json().field], ["bad_request", name], what);
      tried += 1;
    }
    const second = await ask(list, { id, key }, `&${name}=${list.next}`);
    assert.equal(second.status, 200, second.text());
    assert.notDeepEqual(second.json(), (await ask(list, { id, key })).json());
  }
  // The list of accounts binds what it was filtered by.
  const filtered = await gateway.admin("GET", `/accounts?limit=1&cursor=${lists.at(-1).next}`);
  assert.deepEqual([filtered.status, filtered.json().field], [400, "cursor"]);
  t.diagnostic(`${tried} cursors refused`);
});
