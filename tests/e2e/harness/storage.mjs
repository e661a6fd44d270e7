// What the accounts' objects have stored, read from their databases: to ask an object would wake it.
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { setTimeout } from "node:timers/promises";

// The first answer of `look`, asked of each object's database again and again, that is not null.
export const untilStored = (gateway, look) => until(gateway, /[0-9a-f]{64}\.sqlite$/, look);

// When the only alarm that is set is to go off, as soon as that is at `moment`, a Date, or less than `spread`
// milliseconds later.
const alarmAt = (gateway, moment, spread) =>
  until(gateway, /-Account\/metadata\.sqlite$/, (database) => {
    const alarms = database.prepare("SELECT scheduled_time / 1000000 AS at FROM _cf_ALARM").all();
    const late = alarms.length === 1 ? alarms[0].at - moment.getTime() : -1;
    return late === 0 || (late > 0 && late < spread) ? new Date(alarms[0].at) : null;
  });

// Nobody asks any more, and the alarm goes off at `moment`, or less than `spread` milliseconds later: when. The runtime's own timers do not follow the moved
// clock, so each alarm goes off with a restart: that of the holds, which also tells what was counted and sets
// itself to that moment, and that one.
export async function leaveAloneUntil(gateway, moment, spread = 0) {
  await gateway.kill();
  gateway.clock.advance(7_200_000);
  await gateway.restart();
  const at = await alarmAt(gateway, moment, spread);
  await gateway.kill();
  gateway.clock.moveTo(at);
  await gateway.restart();
  return at;
}

// When each call of the account was admitted, in milliseconds, by the call's number: no page says more than seconds.
export function admissionsOf(gateway, id) {
  // A text of CBOR: its length, then its bytes.
  const named = Buffer.concat([Buffer.from([0x60 + id.length]), Buffer.from(id)]);
  for (const { database, tables } of accounts(gateway)) {
    if (!bodyOf(database, PROFILE_ROW).includes(named)) continue;
    const months = tables.filter((name) => name.startsWith("calls_"));
    const rows = months.flatMap((name) => database.prepare(`SELECT number, at FROM ${name}`).all());
    return new Map(rows.map(({ number, at }) => [number, at]));
  }
  throw new Error(`${id} is in no database`);
}

// What the only account has stored, in bytes (hexadecimal), and how many calls and entries.
export function storedAccount(gateway) {
  for (const { database, tables } of accounts(gateway)) {
    const count = (name) => database.prepare(`SELECT count(*) AS count FROM ${name}`).get().count;
    const keys = database.prepare("SELECT number, body FROM keys ORDER BY number").all();
    return {
      profile: bodyOf(database, PROFILE_ROW).toString("hex"),
      snapshot: bodyOf(database, SNAPSHOT_ROW).toString("hex"),
      keys: keys.map(({ number, body }) => [number, Buffer.from(body).toString("hex")]),
      calls: tables.filter((name) => name.startsWith("calls_")).reduce((sum, name) => sum + count(name), 0),
      entries: count("entries"),
    };
  }
  throw new Error("there is no account");
}

// The tables of the only account.
export function tablesOf(gateway) {
  for (const { tables } of accounts(gateway)) return tables;
  return [];
}

// Rows of the table `account`, as src/edge/sql.rs has them.
const [PROFILE_ROW, SNAPSHOT_ROW] = [2, 3];

const bodyOf = (database, row) => Buffer.from(database.prepare("SELECT body FROM account WHERE id = ?").get(row).body);

function* accounts(gateway) {
  for (const database of databases(gateway, /[0-9a-f]{64}\.sqlite$/, { readOnly: true })) {
    const tables = database.prepare("SELECT name FROM sqlite_master WHERE type = 'table'").all().map(({ name }) => name);
    if (tables.includes("account")) yield { database, tables };
  }
}

// Has `change` do what it wants with each object's database, while the gateway is killed.
export function changeStored(gateway, change) {
  for (const database of databases(gateway, /[0-9a-f]{64}\.sqlite$/, {})) change(database);
}

function* databases(gateway, files, options) {
  for (const file of readdirSync(gateway.state, { recursive: true }).filter((name) => files.test(name))) {
    const database = new DatabaseSync(join(gateway.state, file), options);
    try {
      yield database;
    } finally {
      database.close();
    }
  }
}

async function until(gateway, files, look) {
  for (;;) {
    for (const database of databases(gateway, files, { readOnly: true })) {
      const found = look(database);
      if (found != null) return found;
    }
    await setTimeout(20);
  }
}
