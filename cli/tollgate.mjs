#!/usr/bin/env node
// `npx tollgate`: what operators do every day, from a terminal or a script.
import { randomUUID } from "node:crypto";
import { parseArgs } from "node:util";
import { clientOf } from "./client.mjs";
import { COMMANDS, Given } from "./commands.mjs";
import { EXIT, Failure, refusalOf, wrongUsage } from "./failure.mjs";

const TOKEN = process.env.TOLLGATE_ADMIN_TOKEN ?? "";
const LOCAL = ["localhost", "127.0.0.1", "[::1]"];
const EVERYWHERE = {
  url: "the gateway, as https://api.example.com (or TOLLGATE_URL)",
  json: "the answer as JSON, as where it is no terminal",
  table: "the answer for people, also where it is no terminal",
  help: "what a command takes",
};

/** The token is in no sentence of ours; this is for those of others. @param {string} text */
const withoutToken = (text) => (TOKEN ? text.replaceAll(TOKEN, "(token)") : text);

/** @param {string} text */
const tell = (text) => process.stdout.write(`${withoutToken(text)}\n`);

/** @param {string} text */
const complain = (text) => process.stderr.write(`${withoutToken(text)}\n`);

/** @param {readonly string[]} words */
async function run(words) {
  // It would be in a URL, and so in the log of whoever stands between.
  if (TOKEN && words.some((word) => word.includes(TOKEN))) {
    throw wrongUsage("the token is not an argument: it comes from TOLLGATE_ADMIN_TOKEN alone");
  }
  const name = nameOf(words);
  const command = name === undefined ? undefined : COMMANDS[name];
  if (name === undefined || command === undefined) {
    if (words.some((word) => !["help", "--help", "-h"].includes(word))) {
      throw wrongUsage(`there is no such command; tollgate --help lists them`);
    }
    return tell(help());
  }
  const { values, positionals } = parsed(command, words.slice(name.split(" ").length));
  if (values.help) return tell(helpOn(name));
  const missing = Object.entries(command.options ?? {}).find(
    ([option, what]) => what.startsWith("*") && values[option] === undefined,
  );
  if (missing) throw wrongUsage(`--${missing[0]} is missing: ${missing[1].slice(1)}`);
  const takes = command.takes ?? [];
  if (positionals.length !== takes.length || positionals.includes("")) {
    throw wrongUsage(`tollgate ${[name, ...takes].join(" ")} is expected`);
  }

  const { url: _url, json: _json, table: _table, help: _help, ...options } = values;
  const idempotencyKey = String(options["idempotency-key"] ?? `tollgate-${randomUUID()}`);
  const given = new Given(positionals, /** @type {Record<string, string | boolean | string[]>} */ (options), idempotencyKey);
  const data = await ask(command, given, urlOf(values.url)).catch((error) => {
    const isRepeatable = error.exitCode === EXIT.unanswered && "idempotency-key" in (command.options ?? {});
    if (isRepeatable) error.message += `\nthe same again is safe with --idempotency-key ${idempotencyKey}`;
    throw error;
  });
  if (!command.show) return;
  const isForPeople = !values.json && (values.table || process.stdout.isTTY);
  if (isForPeople) {
    tell(command.show(data));
    if (data?.next) complain(`there is more: --next ${data.next}`);
  } else if (data !== undefined) {
    tell(JSON.stringify(data));
  }
  if (name === "audit" && data.ok !== true) process.exitCode = EXIT.refused;
}

/** @param {import("./commands.mjs").Command} command @param {Given} given @param {string} url */
async function ask(command, given, url) {
  // A header's value could be refused with its text: what is no token is not tried.
  if (!/^[!-~]+$/.test(TOKEN)) {
    throw wrongUsage("TOLLGATE_ADMIN_TOKEN must hold the gateway's ADMIN_TOKEN (ADMIN_READ_TOKEN is enough to read)");
  }
  /** @type {import("./commands.mjs").Answer} */
  let answer;
  try {
    answer = await command.ask(clientOf(url, TOKEN), given);
  } catch (error) {
    if (error instanceof Failure) throw error;
    const { cause, message } = /** @type {Error} */ (error);
    const why = cause instanceof Error && cause.message ? cause.message : message;
    throw new Failure(`no answer from ${url}: ${why}`, EXIT.unanswered);
  }
  if (!answer.response.ok) throw refusalOf(answer.response, answer.error);
  return answer.data;
}

/** @param {readonly string[]} words */
function nameOf(words) {
  const [first = "", second = ""] = words;
  return [`${first} ${second}`, first].find((name) => Object.hasOwn(COMMANDS, name));
}

/**
 * @param {import("./commands.mjs").Command} command
 * @param {readonly string[]} words
 * @returns {{ values: Record<string, string | boolean | (string | boolean)[] | undefined>, positionals: string[] }}
 */
function parsed(command, words) {
  const own = { ...command.options, url: "" };
  const ownOption = (/** @type {string} */ option) => ({
    type: /** @type {"string" | "boolean"} */ (command.switches?.includes(option) ? "boolean" : "string"),
    multiple: command.repeated?.includes(option) ?? false,
  });
  try {
    return parseArgs({
      args: [...words],
      allowPositionals: true,
      options: {
        ...Object.fromEntries(Object.keys(own).map((option) => [option, ownOption(option)])),
        json: { type: "boolean" },
        table: { type: "boolean" },
        help: { type: "boolean", short: "h" },
      },
    });
  } catch (error) {
    throw wrongUsage(/** @type {Error} */ (error).message);
  }
}

/** The gateway's origin. A token is not sent over a network in the clear. @param {unknown} told */
function urlOf(told) {
  const text = String(told ?? process.env.TOLLGATE_URL ?? "");
  if (text === "") throw wrongUsage("--url or TOLLGATE_URL must say where the gateway is");
  const url = URL.canParse(text) ? new URL(text) : null;
  if (url?.protocol === "https:" || (url?.protocol === "http:" && LOCAL.includes(url.hostname))) return url.origin;
  throw wrongUsage("the URL must be like https://api.example.com; http:// is for this machine alone");
}

function help() {
  const width = Math.max(...Object.keys(COMMANDS).map((name) => name.length));
  const commands = Object.entries(COMMANDS).map(([name, { does }]) => `  ${name.padEnd(width)}  ${does}`);
  return [
    "tollgate COMMAND [options], with the gateway's ADMIN_TOKEN in TOLLGATE_ADMIN_TOKEN",
    "",
    ...commands,
    "",
    ...options(EVERYWHERE),
    "",
    `Exit codes: 0 done, ${EXIT.refused} refused, ${EXIT.usage} the command line is wrong,`,
    `${EXIT.unanswered} no answer to rely on`,
  ].join("\n");
}

/** @param {string} name */
function helpOn(name) {
  const { does = "", takes = [], options: own = {} } = COMMANDS[name] ?? {};
  return [`tollgate ${[name, ...takes].join(" ")}: ${does}`, "", ...options({ ...own, ...EVERYWHERE })].join("\n");
}

/** @param {Record<string, string>} options */
function options(options) {
  const width = Math.max(...Object.keys(options).map((option) => option.length));
  return Object.entries(options).map(([option, what]) => {
    const told = what.startsWith("*") ? `${what.slice(1)} (needed)` : what;
    return `  --${option.padEnd(width)}  ${told}`;
  });
}

try {
  await run(process.argv.slice(2));
} catch (error) {
  if (!(error instanceof Failure)) throw error;
  complain(`tollgate: ${error.message}`);
  process.exitCode = error.exitCode;
}
