// Starts the bundle of dist/ in a workerd of its own, on a free port of 127.0.0.1, with the policy,
// secrets and state that the test wants.
import assert from "node:assert/strict";
import { once, EventEmitter } from "node:events";
import { mkdtemp, readFile, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { runBundle } from "../../../scripts/runtime.mjs";
import { open, send } from "./client.mjs";
import { openClock } from "./clock.mjs";

export const secrets = {
  KEY_SECRET: "test-key-secret-0123456789abcdef0123456789",
  ADMIN_TOKEN: "test-admin-token-0123456789abcdef012345",
  ORIGIN_TOKEN: "test-origin-token-0123456789abcdef01234",
  ORIGIN_SECRET: "test-origin-secret-0123456789abcdef0123",
};

// Production's edge always says who the client is; the address is from a range reserved for examples.
const FROM_EDGE = { "cf-connecting-ip": "192.0.2.1" };

// `t` is the test's context, or the module "node:test" itself in a file that shares one gateway: the
// gateway ends with it. `policy` is the policy's text, `vars` are bindings beside the secrets (undefined
// takes one away), `more` goes to miniflare as it is, but for `environment`: workerd's own.
export async function startGateway(t, { policy, vars = {}, more = {} } = {}) {
  const folder = await mkdtemp(join(tmpdir(), "tollgate-test-"));
  const clock = openClock(folder);
  const lines = [];
  const told = new EventEmitter().setMaxListeners(0);
  // The deployment's secrets, those that the test brought along, and the keys that were issued over `admin`.
  const hidden = new Set(Object.values(secrets));
  for (const [name, value] of Object.entries(vars)) if (/SECRET|TOKEN/.test(name) && value?.length >= 20) hidden.add(value);
  let running = null;

  async function start(changed = {}) {
    ({ policy, vars, more } = { policy, vars, more, ...changed });
    const { environment = {}, ...others } = more;
    running = await runBundle({
      port: 0,
      policy,
      bindings: withoutUndefined({ ...secrets, ...vars }),
      state: join(folder, "state"),
      environment: withPreloaded(clock.environment, environment),
      onLog: (line) => {
        lines.push(parsed(line));
        told.emit("line", line);
      },
      ...others,
    });
  }

  // Miniflare ends workerd with SIGKILL: nothing is flushed, no handler runs.
  async function kill() {
    const killed = running;
    running = null;
    await killed?.miniflare.dispose();
  }

  const gateway = {
    clock,
    kill,
    // The folder of the objects' databases.
    state: join(folder, "state"),
    get url() {
      return running.url;
    },

    // Kills workerd and starts it anew on the same state, at another address; `changed` may bring another
    // policy or other vars, as a deploy would.
    async restart(changed) {
      await kill();
      await start(changed);
    },

    // One request, as it is: see client.mjs.
    send: (method, path, { headers, ...options } = {}) =>
      send(running.url, { method, path, headers: { ...FROM_EDGE, ...headers }, ...options }),

    // One request, left open.
    open: (method, path, { headers, ...options } = {}) =>
      open(running.url, { method, path, headers: { ...FROM_EDGE, ...headers }, ...options }),

    // A request with a caller's key. An object as body is sent as JSON.
    call: (key, method, path, options = {}) =>
      gateway.send(method, path, asJson(options, { authorization: `Bearer ${key}` })),

    // A request to the operating API; `path` is what follows /_tollgate/v1.
    async admin(method, path, body, headers = {}) {
      const answer = await gateway.send(
        method,
        `/_tollgate/v1${path}`,
        asJson({ body, headers }, { authorization: `Bearer ${vars.ADMIN_TOKEN ?? secrets.ADMIN_TOKEN}` }),
      );
      for (const key of [body?.secret, /"key":"([^"]*)"/.exec(answer.text())?.[1]]) if (key?.length >= 20) hidden.add(key);
      return answer;
    },

    // Every line that the Worker and its objects logged so far; the structured ones parsed.
    logs: () => [...lines],

    // The first structured line, past or to come, for which `matches` holds.
    async log(matches) {
      for (let at = 0; ; at++) {
        while (at >= lines.length) await once(told, "line");
        if (matches(lines[at])) return lines[at];
      }
    },
  };

  // What any test has had logged and stored.
  async function tellsNoSecret() {
    const files = await readdir(folder, { recursive: true, withFileTypes: true });
    const stored = files.filter((file) => file.isFile()).map(async ({ parentPath, name }) => [name, await readFile(join(parentPath, name))]);
    for (const [place, bytes] of [["the log", Buffer.from(JSON.stringify(lines))], ...(await Promise.all(stored))])
      for (const secret of hidden) assert.ok(!bytes.includes(secret), `${secret} is in ${place}`);
  }

  t.after(async () => {
    await kill();
    clock.close();
    await tellsNoSecret();
    await rm(folder, { recursive: true, force: true });
  });
  await start();
  return gateway;
}

// Each brings a library of its own.
const withPreloaded = (...environments) => {
  const libraries = environments.flatMap(({ LD_PRELOAD }) => LD_PRELOAD ?? []);
  return Object.assign({}, ...environments, { LD_PRELOAD: libraries.join(":") });
};

const withoutUndefined = (object) =>
  Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined));

function parsed({ level, message }) {
  try {
    return JSON.parse(message);
  } catch {
    return { level, message };
  }
}

function asJson({ body, headers, ...options }, own) {
  const isObject = typeof body === "object" && body !== null && !Buffer.isBuffer(body);
  return {
    ...options,
    body: isObject ? JSON.stringify(body) : body,
    headers: { ...own, ...(isObject && { "content-type": "application/json" }), ...headers },
  };
}
