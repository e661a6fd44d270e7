// Runs the bundle of dist/ in miniflare, the local Workers runtime: for `npm run dev` and for the tests.
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { parse } from "smol-toml";
import { Log, LogLevel, Miniflare } from "miniflare";
import { compilePolicy } from "./check.mjs";
import { inProject } from "./project.mjs";

const DIST = inProject("dist");

// Resolves when the gateway listens on 127.0.0.1:`port` (0: any free one), with the Miniflare instance and
// the gateway's URL. `state` is the folder of the objects' databases, `environment` workerd's own,
// `more` goes to Miniflare as it is.
export async function runBundle({ port, policy, bindings, state, onLog, environment = {}, ...more }) {
  const deployed = parse(readFileSync(inProject("wrangler.toml"), "utf8"));
  const miniflare = new Miniflare({
    name: deployed.name,
    modules: modulesOf(policy),
    modulesRoot: DIST,
    compatibilityDate: deployed.compatibility_date,
    compatibilityFlags: deployed.compatibility_flags,
    bindings,
    durableObjects: Object.fromEntries(
      deployed.durable_objects.bindings.map(({ name, class_name }) => [
        name,
        { className: class_name, useSQLite: true },
      ]),
    ),
    durableObjectsPersist: state,
    ratelimits: Object.fromEntries(
      (deployed.ratelimits ?? []).map(({ name, ...ratelimit }) => [name, ratelimit]),
    ),
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
    throw new Error(workerdsWords(error.message));
  }
}

// The policy is a module of its own in the bundle, so another one can take its place: a text, or what was
// compiled already.
export function modulesOf(policy) {
  const compiled = typeof policy === "string" ? compilePolicy(policy) : policy;
  const kinds = { ".wasm": "CompiledWasm", ".cbor": "Data", ".json": "Text" };
  const modules = readdirSync(DIST).flatMap((name) => {
    const type = kinds[name.slice(name.lastIndexOf("."))];
    if (!type) return [];
    const isPolicy = name.endsWith("-policy.cbor");
    return [
      {
        type,
        path: join(DIST, name),
        contents: isPolicy && compiled !== undefined ? compiled : readFileSync(join(DIST, name)),
      },
    ];
  });
  // The first module is the entry.
  return [
    { type: "ESModule", path: join(DIST, "entry.js"), contents: readFileSync(join(DIST, "entry.js")) },
    ...modules,
  ];
}

// What workerd said when it did not start, out of the structured lines that miniflare hands on.
function workerdsWords(text) {
  const words = text.split("\n").flatMap((line) => (line.startsWith("{") ? [JSON.parse(line).message] : []));
  return words.length > 0 ? words.join("\n") : text;
}
