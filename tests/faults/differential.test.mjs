// One random history of commands through the native core and through the wasm in workerd: the same answers, the same
// rows written, and the same bytes stored. `tests/core/differential.rs` has written the histories down;
// `scripts/test.mjs` has it do so before.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import { histories, inProject } from "../../scripts/project.mjs";
import { modulesOf } from "../../scripts/runtime.mjs";
import { startGateway } from "../e2e/harness/gateway.mjs";
import { show } from "../e2e/harness/scale.mjs";
import { storedAccount, tablesOf } from "../e2e/harness/storage.mjs";

// The objects as they are deployed, asked by the test directly. No alarm goes off and the directory hears of the opening
// alone, since nothing of that is in a history.
const ENTRY = `
import * as deployed from "./entry.js";
export * from "./entry.js";

export class Account extends deployed.Account {
  alarm() {}
  evict() { this.ctx.abort("evicted by the test"); }
}

export class Directory extends deployed.Directory {
  #told = 0;
  tell(message) {
    this.#told += 1;
    if (this.#told > 1) throw new Error("the test's directory hears of the opening alone");
    return super.tell(message);
  }
}

export default {
  async fetch(request, env) {
    const account = env.ACCOUNTS.getByName("acc");
    if (request.method === "DELETE") return new Response(await account.evict().catch(({ message }) => message));
    return new Response(await account.tell(new Uint8Array(await request.arrayBuffer())));
  },
};
`;

test("native core and wasm do the same with the same history", { timeout: 600_000 }, async (t) => {
  const lines = readFileSync(histories, "utf8").trimEnd().split("\n").map((line) => JSON.parse(line));
  const figures = { histories: 0, messages: 0, evictions: 0, rows: 0, "bytes compared": 0 };
  let gateway = null;
  let seed = null;
  const tables = new Set();
  for (const line of lines) {
    if (line.policy) {
      seed = line.seed;
      tables.clear();
      figures.histories += 1;
      const modules = [{ type: "ESModule", path: inProject("dist", "differential-entry.js"), contents: ENTRY }, ...modulesOf(line.policy)];
      gateway = await startGateway(t, { policy: line.policy, more: { modules } });
      gateway.clock.stop();
    } else if (line.evict) {
      figures.evictions += 1;
      const answer = await gateway.send("DELETE", "/");
      assert.equal(answer.text(), "evicted by the test");
    } else if (line.message) {
      await tell(line);
    } else {
      await gateway.kill();
      const { profile, snapshot, keys, calls, entries } = storedAccount(gateway);
      assert.equal(profile, line.stored.profile, `history ${seed}: the profile`);
      assert.deepEqual(keys, line.stored.keys, `history ${seed}: the keys`);
      assert.deepEqual([calls, entries], [line.stored.calls, line.stored.entries], `history ${seed}: rows`);
      assert.equal(snapshot, line.stored.snapshot, `history ${seed}: the snapshot`);
      figures["bytes compared"] += (profile.length + snapshot.length) / 2;
    }
  }
  show(t, figures);

  // Whether there is a table that was not there when this was asked last.
  function aTableIsNew() {
    const before = tables.size;
    for (const name of tablesOf(gateway)) tables.add(name);
    return tables.size > before;
  }

  async function tell({ clock, message, reply, rows }) {
    gateway.clock.moveTo(clock);
    const answer = await gateway.send("POST", "/", { body: Buffer.from(message, "hex") });
    assert.equal(answer.status, 200, answer.text());
    // A version byte, and then the reply: what the object adds is how many rows it took, and of how many ends it
    // heard beside the message.
    const wanted = Buffer.from(reply, "hex");
    const [version, list] = answer.body;
    assert.deepEqual([version, list], [wanted[0], 0x83]);
    const told = answer.body.subarray(2, 1 + wanted.length);
    const where = `history ${seed}, message ${figures.messages}`;
    if (!told.equals(wanted.subarray(1)))
      assert.fail(`${where}:\nnative ${printable(wanted.subarray(1))}\nwasm   ${printable(answer.body.subarray(2))}\nasked  ${message}`);
    const took = numberIn(answer.body.subarray(1 + wanted.length));
    // A table that is made counts, too: its line in SQLite's own.
    if (rows !== null && took !== rows) assert.ok(took > rows && aTableIsNew(), `${where}: ${took} rows, and ${rows} natively`);
    figures.messages += 1;
    figures.rows += rows ?? 0;
    figures["bytes compared"] += told.length;
  }
});

const printable = (bytes) => bytes.toString("latin1").replace(/[^ -~]/g, ".");

// An unsigned number of CBOR.
function numberIn(bytes) {
  if (bytes[0] < 24) return bytes[0];
  return bytes[0] === 24 ? bytes[1] : bytes.readUInt16BE(1);
}
