// An account with a million calls behind it, against an empty one.
import { cpSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { openAccount, operate } from "./accounts.mjs";
import { startCounting } from "./counts.mjs";
import { request } from "./load.mjs";
import { databaseOf } from "./objects.mjs";
import { median, medianOf, ratio, rounds } from "./rounds.mjs";
import { folder, startWorker, tollgate } from "./servers.mjs";
import { digits, table } from "./table.mjs";

const CALLS = 1_000_000;
const WAKE_UPS = 7;
const MILLIS_BETWEEN = 1_000;

const track = (key) => request("GET", "/api/external/v1/tracks/42", { authorization: `Bearer ${key}` });

export async function history(origin, { count, seconds }) {
  const state = folder("disk");
  const server = await startWorker(tollgate(), { origin, state });
  const keys = { long: await openAccount(server.port, "long"), empty: await openAccount(server.port, "empty") };
  // The month's first call brings a snapshot with it: what comes after is made up in the tables.
  for (const key of Object.values(keys)) await get(server.port, "/tracks/1", key);
  await pause(200);
  await server.stop();
  prolong(databaseOf(state, "long"));

  console.log(`\nAn account with ${digits(CALLS)} calls behind it, state on disk`);
  await countWakeUp(origin, state, keys.long);
  await timeWakeUps(origin, state, keys);
  await timeAudit(origin, state, keys);
  await timeCalls(origin, state, keys, { count, seconds });
}

// Copies the one call, which cost nothing, a million times, and has the snapshot know of them. So the books
// stand as they would had the calls been made, but for the counts of single days.
function prolong(path) {
  const database = new DatabaseSync(path);
  const [{ name }] = database.prepare("SELECT name FROM sqlite_master WHERE name LIKE 'calls_%'").all();
  const columns = database.prepare(`PRAGMA table_info(${name})`).all().map((column) => column.name);
  const copied = columns.map((column) => (column === "number" ? "n" : column === "at" ? `at - (${CALLS} - n) * ${MILLIS_BETWEEN}` : column));
  database.exec("PRAGMA synchronous = OFF");
  database.exec(`
    WITH RECURSIVE numbers (n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM numbers WHERE n < ${CALLS})
    INSERT INTO ${name} (${columns.join(", ")}) SELECT ${copied.join(", ")} FROM numbers, ${name} WHERE number = 1`);
  const { body } = database.prepare("SELECT body FROM account WHERE id = 3").get();
  database.prepare("UPDATE account SET body = ? WHERE id = 3").run(withCalls(Buffer.from(body)));
  database.exec("PRAGMA wal_checkpoint(TRUNCATE)");
  database.close();
}

// A snapshot is a CBOR array whose first place is the state: an array that begins with the latest time seen
// and the number of calls admitted, 1 here.
function withCalls(snapshot) {
  // An array of more than 23 places tells their number in a byte of its own.
  const timeAt = snapshot[1] === 0x98 ? 3 : 2;
  const callsAt = timeAt + 1 + { 0x1a: 4, 0x1b: 8 }[snapshot[timeAt]];
  if (snapshot[0] >> 5 !== 4 || snapshot[1] >> 5 !== 4 || snapshot[callsAt] !== 1) throw new Error("the snapshot has another shape");
  const calls = Buffer.alloc(5);
  calls[0] = 0x1a;
  calls.writeUInt32BE(CALLS, 1);
  return Buffer.concat([snapshot.subarray(0, callsAt), calls, snapshot.subarray(callsAt + 1)]);
}

async function get(port, path, key) {
  const started = performance.now();
  const answer = await fetch(`http://127.0.0.1:${port}/api/external/v1${path}`, { headers: { authorization: `Bearer ${key}` } });
  const body = await answer.text();
  if (!answer.ok) throw new Error(`${path}: ${answer.status} ${body}`);
  return { millis: performance.now() - started, body };
}

async function countWakeUp(origin, state, key) {
  const server = await startCounting({ origin, state });
  const wakeUp = await server.counted(() => server.ask("GET", "/tracks/1", key));
  const pages = {};
  for (const page of ["/usage?limit=50", "/usage?limit=50&endpoint=/search", "/usage/summary"]) {
    pages[page] = (await server.counted(() => get(server.port, page, key))).rowsRead;
  }
  await server.stop();
  console.log(`\nRows read: the first call after sleep ${digits(wakeUp.rowsRead)}` + Object.entries(pages).map(([page, rows]) => `, ${page} ${digits(rows)}`).join("") + ".");
}

// Each in a workerd of its own, where another account has called before, so that only the object is asleep.
async function timeWakeUps(origin, state, keys) {
  const told = { first: [], warm: [], page: [], filtered: [] };
  for (let round = 0; round < WAKE_UPS; round++) {
    const server = await startWorker(tollgate(), { origin, state });
    for (let call = 0; call < 20; call++) await get(server.port, "/tracks/1", keys.empty);
    told.first.push((await get(server.port, "/tracks/1", keys.long)).millis);
    const warm = [];
    for (let call = 0; call < 9; call++) warm.push((await get(server.port, "/tracks/1", keys.long)).millis);
    told.warm.push(median(warm));
    const { millis, body } = await get(server.port, "/usage?limit=50", keys.long);
    if (JSON.parse(body).usage.length !== 50) throw new Error(body);
    told.page.push(millis);
    told.filtered.push((await get(server.port, "/usage?limit=50&endpoint=/search", keys.long)).millis);
    await server.stop();
  }
  const rows = [
    ["the first call after sleep", told.first],
    ["a warm call", told.warm],
    ["/usage?limit=50", told.page],
    ["/usage?limit=50&endpoint=/search, which nothing matches", told.filtered],
  ];
  console.log(`\n${table(["one caller, new connections, median", "ms"], rows.map(([name, millis]) => [name, digits(median(millis), 1)]))}`);
}

// Calls of one caller, one after the other, before an audit of all of the history and while it goes on. What
// the audit answers is not looked at: the history is made up.
async function timeAudit(origin, state, keys) {
  const server = await startWorker(tollgate(), { origin, state });
  const call = async () => (await get(server.port, "/tracks/1", keys.long)).millis;
  const alone = [];
  for (let calls = 0; calls < 50; calls++) alone.push(await call());
  const started = performance.now();
  let isDone = false;
  const audit = (async () => {
    // Each answers after a while, and the next one goes on where it was.
    while ((await operate(server.port, "GET", "/accounts/long/audit")).ok === null);
    isDone = true;
  })();
  const during = [];
  while (!isDone) during.push(await call());
  await audit;
  const seconds = (performance.now() - started) / 1000;
  await server.stop();
  const ms = (value) => `${digits(value, 1)} ms`;
  console.log(
    `\nAn audit of all of it took ${digits(seconds, 1)} s. Meanwhile ${digits(during.length)} calls of one caller were admitted: ` +
      `${ms(median(during))} each, the slowest ${ms(Math.max(...during))}; before it ${ms(median(alone))}.`,
  );
}

// On tmpfs, where the disk's own moods do not hide a difference.
async function timeCalls(origin, onDisk, keys, { count, seconds }) {
  const state = folder("tmpfs");
  cpSync(join(onDisk, "objects"), join(state, "objects"), { recursive: true });
  const server = await startWorker(tollgate(), { origin, state });
  const contenders = Object.entries(keys).map(([name, key]) => ({ name, ...server, requests: [track(key)] }));
  const told = await rounds(contenders, { callers: 16, seconds: seconds / 2, count });
  await server.stop();
  const of = (what) => `${digits(ratio(told.get("long"), told.get("empty"), what), 3)} ×`;
  console.log(
    `\nPer call, one account, 16 callers, state on tmpfs: ${digits(medianOf(told.get("long"), "rate"))} a second with the history, ` +
      `${digits(medianOf(told.get("empty"), "rate"))} without: ${of("rate")} the rate, ${of("cpuMicros")} the CPU.`,
  );
}
