// What an operator can say, what the gateway is asked for it, and how its answer reads.
import { exportLines } from "./export.mjs";
import { wrongUsage } from "./failure.mjs";
import { list, table } from "./table.mjs";

/**
 * @typedef {import("./client.mjs").Client} Client
 * @typedef {import("./client.mjs").Schemas} Schemas
 * @typedef {{ data?: any, error?: unknown, response: Response }} Answer
 *
 * @typedef {object} Command
 * @property {string} does one line of help
 * @property {readonly string[]} [takes] what stands behind its name
 * @property {Record<string, string>} [options] each with what it is; one that begins with "*" cannot be left out
 * @property {readonly string[]} [repeated] options that may come more than once
 * @property {readonly string[]} [switches] options that take no value
 * @property {(client: Client, given: Given) => Promise<Answer>} ask
 * @property {(data: any) => string} [show] a command without it has written its answer itself
 */

const V1 = "/_tollgate/v1";
const PAGE = { limit: "how many at most, 1 to 500 (50)", next: "the page after: the `next` of an earlier one" };
const PERIOD = { from: "not before this moment, as 2026-12-01T00:00:00Z", to: "before this moment" };
const LIMITS = {
  "requests-per-minute": 'its own limit in any 60 seconds: a number or "unlimited"',
  "requests-per-day": "… in a day",
  "requests-in-flight": "… at once",
  "jobs-open": "… of open jobs",
};
const KEY_SETTINGS = {
  name: "a name for people",
  scope: 'a route that it may call, as "POST /search" or "GET /tracks/*"; repeat it for more',
  ...LIMITS,
  "expires-at": "from this moment on it is dead, as 2026-12-01T00:00:00Z",
  budget: "credits that its calls may cost in a month",
};
const NEW_ACCOUNT = {
  "external-id": "your own name for it",
  name: "a name for people",
  email: "an e-mail address",
  "billing-day": "when its monthly grants renew, 1 to 31",
};
const IDEMPOTENCY = { "idempotency-key": "send this one, to repeat an earlier command" };

const ACCOUNT = ["id", "name", "plan", "status", "external_id", "email", "created_at"];
const KEY = ["id", "name", "status", "last_used_at", "expires_at", "budget", "budget_used", "refused_today"];
const LEDGER = ["timestamp", "kind", "pool", "credits", "balance", "request_id", "endpoint", "reference"];
const USAGE = [
  "timestamp",
  "method",
  "endpoint",
  "status_code",
  "credits_consumed",
  "response_time_ms",
  "key",
  "request_id",
  "mark",
];
const HOUR = ["hour", "admitted", "refused", "unavailable", "ended_unknown", "late_settles", "failed_audits"];
const EVENT = ["id", "timestamp", "type", "state", "attempts", "last_error"];
const LOT = ["pool", "id", "source", "amount", "spent", "held", "available", "expires_at"];

const PAYMENT = ["timestamp", "kind", "status", "paid", "refunded", "id", "receipt_url"];

/** @type {Record<string, Command>} */
export const COMMANDS = {
  "accounts list": {
    does: "lists and finds accounts, newest first",
    options: {
      query: "where a word of id, name, e-mail or external id begins so",
      "external-id": "with exactly this one",
      plan: "on this plan",
      status: "active, suspended or closed",
      keys: "previous: with a key under an older KEY_SECRET",
      flagged: "whose consumption is unusual",
      ...PAGE,
    },
    switches: ["flagged"],
    ask(client, given) {
      const { next, ...query } = given.named("query", "external-id", "plan", "status", "keys", "flagged", "limit", "next");
      return client.GET(`${V1}/accounts`, { params: { query: { ...query, cursor: next } } });
    },
    show({ data }) {
      const isFlagged = data.some((/** @type {Schemas["Account"]} */ account) => account.flags);
      return table(data, isFlagged ? [...ACCOUNT, "flags"] : ACCOUNT);
    },
  },
  "accounts show": {
    does: "an account",
    takes: ["ACCOUNT"],
    ask: (client, given) => client.GET(`${V1}/accounts/{id}`, { params: { path: given.account } }),
    show: list,
  },
  "accounts create": {
    does: "opens an account",
    options: {
      plan: "*a plan of the policy",
      id: "1 to 64 of A-Z a-z 0-9 _ - (else one is made)",
      ...NEW_ACCOUNT,
      region: "where it is placed: wnam enam sam weur eeur apac oc afr me",
      ...IDEMPOTENCY,
    },
    ask(client, given) {
      const body = { ...given.named("id", "external-id", "name", "email", "plan", "region"), ...given.subscription };
      return client.POST(`${V1}/accounts`, { params: given.idempotency, body });
    },
    show: list,
  },
  "accounts change": {
    does: "changes plan, names or billing day",
    takes: ["ACCOUNT"],
    options: {
      plan: "a plan of the policy",
      name: NEW_ACCOUNT.name,
      email: NEW_ACCOUNT.email,
      "billing-day": NEW_ACCOUNT["billing-day"],
      subscription: "active, cancelled or lapsed",
      remove: "take this away: name or email; repeat it for more",
    },
    repeated: ["remove"],
    ask(client, given) {
      const told = { ...given.named("plan", "name", "email"), ...given.subscription };
      return changeAccount(client, given, given.change(told, "name", "email"));
    },
    show: list,
  },
  "accounts suspend": {
    does: "stops all keys of an account with their next call",
    takes: ["ACCOUNT"],
    options: { reason: "why; the customer reads it" },
    ask: (client, given) => changeAccount(client, given, { status: "suspended", ...given.named("reason") }),
    show: list,
  },
  "accounts resume": {
    does: "ends a suspension",
    takes: ["ACCOUNT"],
    ask: (client, given) => changeAccount(client, given, { status: "active" }),
    show: list,
  },
  "accounts unflag": {
    does: "takes the flags for unusual consumption away, and ends what they restrict",
    takes: ["ACCOUNT"],
    ask: (client, given) => changeAccount(client, given, { flags: null }),
    show: list,
  },
  "accounts close": {
    does: "closes an account, for good: its keys are dead at once",
    takes: ["ACCOUNT"],
    ask: (client, given) => client.DELETE(`${V1}/accounts/{id}`, { params: { path: given.account } }),
    show: () => "closed",
  },
  "accounts export": {
    does: "everything about an account, never a secret, as JSON lines",
    takes: ["ACCOUNT"],
    ask: (client, given) =>
      exportLines((next) =>
        client.GET(`${V1}/accounts/{id}/export`, {
          params: { path: given.account, query: next === undefined ? {} : { next } },
          parseAs: "stream",
        }),
      ),
  },
  "keys list": {
    does: "the keys of an account, the oldest first",
    takes: ["ACCOUNT"],
    options: PAGE,
    ask: (client, given) =>
      client.GET(`${V1}/accounts/{id}/keys`, {
        params: { path: given.account, query: given.named("limit", "next") },
      }),
    show: ({ data }) => table(data, KEY),
  },
  "keys show": {
    does: "a key",
    takes: ["KEY_ID"],
    ask: (client, given) => client.GET(`${V1}/accounts/{id}/keys/{key}`, { params: { path: given.key } }),
    show: list,
  },
  "keys create": {
    does: "issues a key, and shows it this once; or imports an older one",
    takes: ["ACCOUNT"],
    options: {
      ...KEY_SETTINGS,
      secret: "import the key that comes on standard input, where no list of processes shows it",
      ...IDEMPOTENCY,
    },
    repeated: ["scope"],
    switches: ["secret"],
    async ask(client, given) {
      const told = given.keySettings;
      const body = given.has("secret") ? { ...told, secret: await secretFromInput() } : told;
      const params = { path: given.account, ...given.idempotency };
      return client.POST(`${V1}/accounts/{id}/keys`, { params, body });
    },
    show: list,
  },
  "keys change": {
    does: "changes a key's name, scope, limits, expiry or budget",
    takes: ["KEY_ID"],
    options: {
      ...KEY_SETTINGS,
      remove: "take this away: name, scope, limits (all: those of the plan hold), expires-at or budget; repeat it for more",
    },
    repeated: ["scope", "remove"],
    ask(client, given) {
      const body = given.change(given.keySettings, "name", "scope", "limits", "expires-at", "budget");
      return client.PATCH(`${V1}/accounts/{id}/keys/{key}`, { params: { path: given.key }, body });
    },
    show: list,
  },
  "keys rotate": {
    does: "gives a key another secret, and shows it this once",
    takes: ["KEY_ID"],
    options: { "overlap-seconds": "*how long the old one stays good, 0 to 2592000", ...IDEMPOTENCY },
    ask(client, given) {
      const params = { path: given.key, ...given.idempotency };
      const body = given.named("overlap-seconds");
      return client.POST(`${V1}/accounts/{id}/keys/{key}/rotate`, { params, body });
    },
    show: list,
  },
  "keys revoke": {
    does: "kills a key, for good",
    takes: ["KEY_ID"],
    ask: (client, given) => client.DELETE(`${V1}/accounts/{id}/keys/{key}`, { params: { path: given.key } }),
    show: () => "revoked",
  },
  "grants add": {
    does: "adds credits",
    takes: ["ACCOUNT"],
    options: {
      amount: "*how many",
      pool: "of which kind (credits)",
      source: "extra (bought), promo (given) or subscription (extra)",
      "expires-at": "when what is left of them expires",
      reference: "what it is for; kept in the ledger",
      ...IDEMPOTENCY,
    },
    ask(client, given) {
      const defaults = { pool: "credits", source: "extra" };
      const body = { ...defaults, ...given.named("amount", "pool", "source", "expires-at", "reference") };
      const params = { path: given.account, ...given.idempotency };
      return client.POST(`${V1}/accounts/{id}/grants`, { params, body });
    },
    show: list,
  },
  "adjustments add": {
    does: "corrects a balance by an entry",
    takes: ["ACCOUNT"],
    options: {
      amount: "*how many to add; --amount=-20 takes away",
      reason: "*why; kept in the ledger",
      pool: "of which kind (credits)",
      ...IDEMPOTENCY,
    },
    ask(client, given) {
      const body = { pool: "credits", ...given.named("amount", "pool", "reason") };
      const params = { path: given.account, ...given.idempotency };
      return client.POST(`${V1}/accounts/{id}/adjustments`, { params, body });
    },
    show: lots,
  },
  balance: {
    does: "what an account can spend, lot by lot",
    takes: ["ACCOUNT"],
    ask: (client, given) => client.GET(`${V1}/accounts/{id}/balance`, { params: { path: given.account } }),
    show: lots,
  },
  usage: {
    does: "calls of an account, newest first; or with --by their totals",
    takes: ["ACCOUNT"],
    options: {
      by: "day, hour, endpoint or key: totals",
      ...PERIOD,
      endpoint: "only calls of this route's template",
      status: "only calls that were answered with this status",
      marked: "true: only calls that you should look at",
      ...PAGE,
    },
    ask(client, given) {
      const path = given.account;
      if (given.named("by").by === undefined) {
        const query = given.named("limit", "next", "from", "to", "endpoint", "status", "marked");
        return client.GET(`${V1}/accounts/{id}/usage`, { params: { path, query } });
      }
      given.forbid("with --by", "endpoint", "status", "marked", "limit");
      const query = given.named("by", "from", "to", "next");
      return client.GET(`${V1}/accounts/{id}/usage/summary`, { params: { path, query } });
    },
    show: ({ usage, by, summary }) =>
      summary
        ? table(
            summary.map((/** @type {Schemas["SummaryLine"]} */ line) => ({ [by]: line.day ?? line.hour, ...line })),
            [by, "calls", "failed", "credits_consumed", "pools"],
          )
        : table(usage, USAGE),
  },
  ledger: {
    does: "what came and went, newest first, with the balance after each line",
    takes: ["ACCOUNT"],
    options: PAGE,
    ask: (client, given) =>
      client.GET(`${V1}/accounts/{id}/ledger`, {
        params: { path: given.account, query: given.named("limit", "next") },
      }),
    show: ({ data }) => table(data, LEDGER),
  },
  payments: {
    does: "what was paid, newest first, and what became of it",
    takes: ["ACCOUNT"],
    options: PAGE,
    ask: (client, given) =>
      client.GET(`${V1}/accounts/{id}/billing/history`, {
        params: { path: given.account, query: given.named("limit", "next") },
      }),
    show: ({ data }) => table(data, PAYMENT),
  },
  "top-up": {
    does: "how automatic top-up stands, and why it runs or does not",
    takes: ["ACCOUNT"],
    ask: (client, given) => client.GET(`${V1}/accounts/{id}/top-up`, { params: { path: given.account } }),
    show: list,
  },
  "top-up retry": {
    does: "tries a top-up that is due, at once",
    takes: ["ACCOUNT"],
    options: IDEMPOTENCY,
    ask: (client, given) =>
      client.POST(`${V1}/accounts/{id}/top-up/retry`, {
        params: { path: given.account, ...given.idempotency },
        body: {},
      }),
    show: list,
  },
  audit: {
    does: "works all balances out anew; exit code 1 where they differ",
    takes: ["ACCOUNT"],
    ask: (client, given) => client.GET(`${V1}/accounts/{id}/audit`, { params: { path: given.account } }),
    show({ differences, ...findings }) {
      if (!differences?.length) return list(findings);
      return `${list(findings)}\n\n${table(differences, ["pool", "lot", "figure", "books", "history"])}`;
    },
  },
  "events list": {
    does: "what an account told of, newest first, and what became of it",
    takes: ["ACCOUNT"],
    options: { state: "only those that are waiting, delivered or parked", ...PAGE },
    ask: (client, given) =>
      client.GET(`${V1}/accounts/{id}/events`, {
        params: { path: given.account, query: given.named("state", "limit", "next") },
      }),
    show: ({ data }) => table(data, EVENT),
  },
  "events replay": {
    does: "sends an event's webhook once more",
    takes: ["EVENT_ID"],
    options: IDEMPOTENCY,
    ask: (client, given) =>
      client.POST(`${V1}/events/{event}/replay`, { params: { path: given.event, ...given.idempotency } }),
    show: list,
  },
  "calls show": {
    does: "a call",
    takes: ["CALL_ID"],
    ask: (client, given) => client.GET(`${V1}/calls/{call}`, { params: { path: given.call } }),
    show: list,
  },
  "calls settle": {
    does: "charges a call: what it holds, or what is told",
    takes: ["CALL_ID"],
    options: { credits: "what it costs", value: "or the quantity that its price counts", ...IDEMPOTENCY },
    ask(client, given) {
      const params = { path: given.call, ...given.idempotency };
      const body = given.named("credits", "value");
      return client.POST(`${V1}/calls/{call}/settle`, { params, body });
    },
    show: list,
  },
  "calls release": {
    does: "gives a call's credits back",
    takes: ["CALL_ID"],
    options: { reason: "why; kept in the ledger", ...IDEMPOTENCY },
    ask(client, given) {
      const params = { path: given.call, ...given.idempotency };
      return client.POST(`${V1}/calls/{call}/release`, { params, body: given.named("reason") });
    },
    show: list,
  },
  status: {
    does: "what requests came to, hour by hour; a day of them if not told otherwise",
    options: PERIOD,
    ask: (client, given) => client.GET(`${V1}/status`, { params: { query: given.named("from", "to") } }),
    show: ({ as_of, data }) => `${table(data, HOUR)}\n\nall told until ${as_of}`,
  },
  plans: {
    does: "the plans, and how many accounts have them",
    ask: (client) => client.GET(`${V1}/plans`),
    show: ({ data }) => table(data, ["name", "in_policy", "accounts", "paid", "limits", "max_keys"]),
  },
};

/** @param {Client} client @param {Given} given @param {Record<string, any>} change */
function changeAccount(client, given, change) {
  return client.PATCH(`${V1}/accounts/{id}`, { params: { path: given.account }, body: change });
}

/** A key that was issued before Tollgate. An argument would be in the shell's history and in every list of processes. */
async function secretFromInput() {
  if (process.stdin.isTTY) throw wrongUsage("--secret: expected the key on standard input, as from a file or a pipe");
  let text = "";
  for await (const piece of process.stdin.setEncoding("utf8")) text += piece;
  const secret = text.replace(/\r?\n$/, "");
  if (secret === "") throw wrongUsage("--secret: expected the key on standard input, found nothing");
  return secret;
}

/** @param {Schemas["Balance"]} balance */
function lots({ pools }) {
  const each = Object.entries(pools);
  const sums = each.map(([pool, { available, held, spent, renews_at }]) => ({
    pool,
    available,
    held,
    spent,
    renews_at,
  }));
  const rows = each.flatMap(([pool, { lots }]) => lots.map((lot) => ({ pool, ...lot })));
  return `${table(sums, ["pool", "available", "held", "spent", "renews_at"])}\n\n${table(rows, LOT)}`;
}

/** Options that are numbers in a body. */
const NUMBERS = new Set(["billing-day", "budget", "overlap-seconds", "amount", "credits", "value"]);

/** What was given on the command line, as the client wants it. */
export class Given {
  #names;
  #options;
  #idempotencyKey;

  /**
   * @param {readonly string[]} names what stands behind the command
   * @param {Record<string, string | boolean | string[] | undefined>} options
   * @param {string} idempotencyKey
   */
  constructor(names, options, idempotencyKey) {
    this.#names = names;
    this.#options = options;
    this.#idempotencyKey = idempotencyKey;
  }

  get account() {
    return { id: this.#names[0] ?? "" };
  }

  /** The id of a key names its account. */
  get key() {
    const key = this.#names[0] ?? "";
    const [, id] = /^key_(.+)_\d+$/.exec(key) ?? [];
    if (id === undefined) throw wrongUsage(`${key} is no id of a key, which is like key_acme_1`);
    return { id, key };
  }

  get call() {
    return { call: this.#names[0] ?? "" };
  }

  get event() {
    return { event: this.#names[0] ?? "" };
  }

  get idempotency() {
    return { header: { "Idempotency-Key": this.#idempotencyKey } };
  }

  get subscription() {
    const billing_day = this.#value("billing-day");
    const status = this.#options.subscription;
    return billing_day ?? status ? { subscription: { billing_day, status } } : {};
  }

  /** What was given of a key's settings. The limits are told together: those left out are the plan's. */
  get keySettings() {
    return { ...this.named("name", "scope", "expires-at", "budget"), ...this.#limits };
  }

  get #limits() {
    const limits = Object.keys(LIMITS).flatMap((name) => {
      const limit = this.#options[name];
      if (limit === undefined) return [];
      return [[name.replaceAll("-", "_"), limit === "unlimited" ? limit : number(name, String(limit))]];
    });
    return limits.length > 0 ? { limits: Object.fromEntries(limits) } : {};
  }

  /**
   * Those of these options that were given, spelled as the API does. Whether they are right the gateway says.
   * @param {...string} names
   * @returns {any}
   */
  named(...names) {
    const given = names.filter((name) => this.#options[name] !== undefined);
    return Object.fromEntries(given.map((name) => [name.replaceAll("-", "_"), this.#value(name)]));
  }

  /**
   * A change: what was told, and what is taken away with --remove.
   * @param {Record<string, any>} told
   * @param {...string} removable
   * @returns {any}
   */
  change(told, ...removable) {
    const body = { ...told };
    for (const name of [this.#options.remove ?? []].flat().map(String)) {
      const field = name.replaceAll("-", "_");
      if (!removable.includes(name)) throw wrongUsage(`--remove: expected ${removable.join(", ")}, found ${name}`);
      if (told[field] !== undefined) throw wrongUsage(`--remove ${name} contradicts what else is told of it`);
      body[field] = null;
    }
    if (Object.keys(body).length === 0) throw wrongUsage("nothing to change was told; --help lists what can be");
    return body;
  }

  /** Whether this option was given. @param {string} name */
  has(name) {
    return this.#options[name] !== undefined;
  }

  /** @param {string} where @param {...string} names */
  forbid(where, ...names) {
    const given = names.find((name) => this.#options[name] !== undefined);
    if (given) throw wrongUsage(`--${given} has no meaning ${where}`);
  }

  /** @param {string} name */
  #value(name) {
    const text = this.#options[name];
    return typeof text === "string" && NUMBERS.has(name) ? number(name, text) : text;
  }
}

/** @param {string} name @param {string} text */
function number(name, text) {
  if (!/^-?\d+(\.\d+)?$/.test(text)) throw wrongUsage(`--${name}: expected a number, found ${text}`);
  if (Math.abs(Number(text)) > Number.MAX_SAFE_INTEGER) {
    throw wrongUsage(`--${name}: expected at most ${Number.MAX_SAFE_INTEGER}, found ${text}`);
  }
  return Number(text);
}
