// Runs the bundle of dist/ in miniflare, the local Workers runtime: for `npm run dev` and for the tests.
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { Log, LogLevel, Miniflare } from "miniflare";
import { inProject } from "./project.mjs";

const DIST = inProject("dist");

// Resolves when the gateway listens on 127.0.0.1:`port` (0: any free one) and returns the Miniflare
// instance with its URL.
export async function runBundle({ port, policy, bindings, state, onLog, environment = {}, ...more }) {
  const miniflare = new Miniflare({
    name: "tollgate",
    modules: modulesOf(policy),
    modulesRoot: DIST,
    compatibilityDate: compatibilityDate(),
    bindings,
    durableObjects: {
      ACCOUNTS: { className: "Account", useSQLite: true },
      DIRECTORY: { className: "Directory", useSQLite: true },
      IMPORTED_KEYS: { className: "ImportedKeys", useSQLite: true },
    },
    durableObjectsPersist: state,
    // Straight to the Worker: miniflare's own front worker would take part in every request and stream.
    unsafeDirectSockets: [{ host: "127.0.0.1", port }],
    host: "127.0.0.1",
    port: 0,
    // Miniflare would fetch a sample of Cloudflare's data about a request from the network.
    cf: false,
    handleStructuredLogs: onLog,
    unsafeRuntimeEnv: environment,
    log: new Log(LogLevel.NONE),
    ...more,
  });
  try {
    return { miniflare, url: (await miniflare.unsafeGetDirectURL()).origin };
  } catch (error) {
    await miniflare.dispose().catch(() => {});
    throw error;
  }
}

// The policy is a module of its own in the bundle, so another one can take its place.
function modulesOf(policy) {
  const kinds = { ".wasm": "CompiledWasm", ".toml": "Text" };
  const modules = readdirSync(DIST).flatMap((name) => {
    const type = kinds[name.slice(name.lastIndexOf("."))];
    if (!type) return [];
    const isPolicy = name.endsWith("-policy.toml");
    return [{ type, path: join(DIST, name), contents: isPolicy && policy !== undefined ? policy : readFileSync(join(DIST, name)) }];
  });
  // The first module is the entry.
  return [{ type: "ESModule", path: join(DIST, "entry.js"), contents: readFileSync(join(DIST, "entry.js")) }, ...modules];
}

function compatibilityDate() {
  return /^compatibility_date\s*=\s*"(.+)"/m.exec(readFileSync(inProject("wrangler.toml"), "utf8"))[1];
}
