// `npm run import -- FILE --url URL`: brings accounts and the keys that their customers have into a
// running gateway. Run it as often as needed: nothing is doubled, and what was refused can be mended.
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { Refused, Unavailable, gatewayAt } from "./import/gateway.mjs";
import { Unreadable, readRows } from "./import/rows.mjs";
import { ENDING_SIGNALS } from "./step.mjs";

const HELP = `npm run import -- FILE --url URL [--concurrency N]

Opens an account for each external_id of a CSV file, gives it its credits and imports its keys.

  FILE             CSV (RFC 4180) with a header: external_id,plan,key[,credits]
                   several keys of one account: a row each, with credits in one of them
  --url URL        where the gateway answers, https://api.example.com
  --concurrency N  accounts at a time, 1 to 64 (8)

The admin token is read from TOLLGATE_ADMIN_TOKEN. Exit code 0: all is imported. 1: some rows were refused,
each told with its line. 2: it could not go on; run it again.
`;

// Why there is nothing to import, or no gateway to import it to.
class Misused extends Error {}

function wanted() {
  const options = { url: { type: "string" }, concurrency: { type: "string", default: "8" }, help: { type: "boolean" } };
  const { values, positionals } = parsed(options);
  if (values.help) return null;
  const token = process.env.TOLLGATE_ADMIN_TOKEN;
  if (positionals.length !== 1) throw new Misused("expected one FILE (--help tells more)");
  if (!values.url) throw new Misused("--url: expected where the gateway answers, https://api.example.com");
  const concurrency = Number(/^\d{1,2}$/.exec(values.concurrency)?.[0]);
  if (!(concurrency >= 1 && concurrency <= 64)) throw new Misused("--concurrency: expected 1 to 64");
  if (!token) throw new Misused("TOLLGATE_ADMIN_TOKEN: expected the admin token in the environment");
  return { file: positionals[0], url: address(values.url), concurrency, token };
}

function parsed(options) {
  try {
    return parseArgs({ options, allowPositionals: true });
  } catch (error) {
    throw new Misused(error.message);
  }
}

// Token and keys travel in it, so it has to be secret on its way.
function address(text) {
  const url = URL.canParse(text) ? new URL(text) : null;
  const isHere = ["localhost", "127.0.0.1", "[::1]"].includes(url?.hostname);
  if (url?.protocol !== "https:" && !(isHere && url.protocol === "http:")) {
    throw new Misused("--url: expected https:// (http:// for this machine alone)");
  }
  return url.origin;
}

async function importFile({ file, url, concurrency, token }) {
  const { accounts, refused } = readRows(readFileSync(file, "utf8"));
  const gateway = gatewayAt(url, token);
  const done = { accounts: 0, keys: 0, credits: 0 };
  let looked = 0;
  const waiting = accounts.values();
  let stopped = null;
  const stop = (why) => (stopped ??= why);
  for (const signal of ENDING_SIGNALS) process.on(signal, () => stop(`ended by ${signal}`));

  const progress = progressOf(() => [looked, accounts.length, refused.length]);
  await Promise.all(Array.from({ length: concurrency }, worker));
  progress.end();
  return { done, refused: refused.sort((one, other) => one.line - other.line), stopped };

  async function worker() {
    for (const account of waiting) {
      if (stopped) return;
      try {
        await importAccount(account);
      } catch (error) {
        if (!(error instanceof Unavailable)) throw error;
        return stop(error.message);
      }
    }
  }

  async function importAccount({ external_id, plan, rows }) {
    let id;
    await unlessRefused(rows, async () => {
      id = await gateway.openAccount({ external_id, plan });
      done.accounts += 1;
    });
    for (const row of id === undefined ? [] : rows) {
      await unlessRefused([row], async () => {
        if (row.credits) await gateway.grantCredits(id, external_id, row.credits);
        done.credits += row.credits ?? 0;
        await gateway.importKey(id, row.key);
        done.keys += 1;
      });
    }
    looked += 1;
  }

  async function unlessRefused(rows, work) {
    try {
      await work();
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      refused.push(...rows.map(({ line }) => ({ line, why: error.message })));
    }
  }
}

// How far it is: at once on a terminal, a line now and then elsewhere.
function progressOf(state) {
  const started = performance.now();
  const isTerminal = process.stdout.isTTY;
  const tell = () => {
    const [done, all, refused] = state();
    const rate = Math.round(done / ((performance.now() - started) / 1000));
    const line = `  ${done} of ${all} accounts, ${rate} a second${refused ? `, ${refused} rows refused` : ""}`;
    process.stdout.write(isTerminal ? `\r\x1b[K${line}` : `${line}\n`);
  };
  const timer = setInterval(tell, isTerminal ? 200 : 5_000);
  return {
    end() {
      clearInterval(timer);
      tell();
      if (isTerminal) process.stdout.write("\n");
    },
  };
}

try {
  const asked = wanted();
  if (!asked) {
    console.log(HELP);
  } else {
    const { done, refused, stopped } = await importFile(asked);
    for (const { line, why } of refused) console.error(`line ${line}: ${why}`);
    console.log(`${done.keys} keys of ${done.accounts} accounts are imported, with ${done.credits} credits; ${refused.length} rows were refused.`);
    if (stopped) console.error(`\n✗ It could not go on: ${stopped}. Run the same again: what is done stays done once.`);
    process.exitCode = stopped ? 2 : refused.length > 0 ? 1 : 0;
  }
} catch (error) {
  const isExpected = error instanceof Misused || error instanceof Unreadable || error.code === "ENOENT";
  console.error(isExpected ? `✗ ${error.message}` : error);
  process.exitCode = 2;
}
