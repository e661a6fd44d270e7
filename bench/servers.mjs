// The servers of a run: the origin, the contenders in a workerd each, nginx. All listen on 127.0.0.1, on
// free ports, and end with this process.
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import net from "node:net";
import { basename, join } from "node:path";
import { createInterface } from "node:readline";
import { parse } from "smol-toml";
import { inProject, npmProgram } from "../scripts/project.mjs";
import { modulesOf } from "../scripts/runtime.mjs";
import { ENDING_SIGNALS } from "../scripts/step.mjs";
import { secrets } from "../tests/e2e/harness/gateway.mjs";

export { secrets };

// Each server and folder is cleared away when this process ends.
process.setMaxListeners(0);
for (const signal of ENDING_SIGNALS) process.on(signal, () => process.exit(1));

// What a run makes and need not keep; `.bench/` is on the disk of the checkout.
const KINDS = { disk: inProject(".bench"), tmpfs: "/dev/shm" };

export function folder(kind) {
  mkdirSync(KINDS[kind], { recursive: true });
  const made = mkdtempSync(join(KINDS[kind], "tollgate-bench-"));
  process.on("exit", () => rmSync(made, { recursive: true, force: true }));
  return made;
}

// Compiles one of bench/native/, a file that needs nothing but std.
export function native(name) {
  const program = inProject(".bench", name);
  mkdirSync(inProject(".bench"), { recursive: true });
  const source = inProject("bench", "native", `${name}.rs`);
  const { status } = spawnSync("rustc", ["--edition", "2024", "-O", "-o", program, source], { stdio: "inherit" });
  if (status !== 0) throw new Error(`rustc cannot compile ${source}`);
  return program;
}

function run(command, args, options = {}) {
  const child = spawn(command, args, options);
  const kill = () => child.kill("SIGKILL");
  process.on("exit", kill);
  child.on("exit", () => process.off("exit", kill));
  return {
    child,
    pid: child.pid,
    async stop() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const ended = once(child, "exit");
      child.kill("SIGKILL");
      await ended;
    },
  };
}

export async function startOrigin() {
  const origin = run(native("origin"), [], { stdio: ["pipe", "pipe", "inherit"] });
  const [port] = await once(createInterface({ input: origin.child.stdout }), "line");
  return { ...origin, port: Number(port), url: `http://127.0.0.1:${port}` };
}

// Where nothing listens.
async function freePort() {
  const server = net.createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  await new Promise((closed) => server.close(closed));
  return port;
}

// nginx as it would stand before the same origin, or null where it is not installed.
export async function startNginx(origin) {
  const program = ["/usr/sbin/nginx", "/usr/local/sbin/nginx"].find((path) => spawnSync(path, ["-v"]).status === 0);
  if (!program) return null;
  const home = folder("tmpfs");
  const port = await freePort();
  const config = `
    daemon off; master_process off; pid ${home}/pid; error_log stderr crit;
    events { worker_connections 1024; }
    http {
      access_log off; client_body_temp_path ${home}/body; proxy_temp_path ${home}/proxy;
      fastcgi_temp_path ${home}/f; uwsgi_temp_path ${home}/u; scgi_temp_path ${home}/s;
      limit_req_zone $http_authorization zone=keys:10m rate=1000000r/m;
      upstream origin { server 127.0.0.1:${origin.port}; keepalive 128; }
      server {
        listen 127.0.0.1:${port}; keepalive_requests 100000000;
        location / {
          limit_req zone=keys burst=1000000 nodelay;
          proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection "";
        }
      }
    }`;
  writeFileSync(join(home, "nginx.conf"), config);
  const nginx = run(program, ["-c", join(home, "nginx.conf"), "-p", home], { stdio: "ignore" });
  await listening(port);
  return { ...nginx, port };
}

async function listening(port) {
  for (let tries = 0; tries < 200; tries++) {
    const socket = net.connect(port, "127.0.0.1");
    const is = await new Promise((tell) => socket.once("connect", () => tell(true)).once("error", () => tell(false)));
    socket.destroy();
    if (is) return;
    await new Promise((later) => setTimeout(later, 10));
  }
  throw new Error(`nothing listens on ${port}`);
}

const DEPLOYED = () => parse(readFileSync(inProject("wrangler.toml"), "utf8"));

// The bundle of dist/ as workerd's configuration has modules, with the bench's policy. `around` is an entry
// that stands in place of the bundle's own.
export function tollgate({ policy = readFileSync(inProject("bench", "policy.toml"), "utf8"), around = [] } = {}) {
  const modules = modulesOf(policy).map(({ type, path, contents }) => {
    const name = basename(path);
    if (type === "ESModule") return { name, path };
    if (type === "CompiledWasm") return { name, wasm: path };
    return type === "Text" ? { name, text: String(contents) } : { name, data: kept(name, contents) };
  });
  return {
    modules: [...around, ...modules],
    classes: DEPLOYED().durable_objects.bindings.map(({ name, class_name }) => [name, class_name]),
    bindings: { ...secrets, DEVELOPMENT: "true" },
  };
}

function kept(name, contents) {
  const path = inProject(".bench", name);
  writeFileSync(path, contents);
  return path;
}

// A Worker of bench/workers/, in one file.
export function worker(name, classes = []) {
  const out = inProject(".bench", `${name}.js`);
  const source = inProject("bench", "workers", `${name}.mjs`);
  const args = [source, "--bundle", "--format=esm", "--external:cloudflare:workers", `--outfile=${out}`, "--log-level=error"];
  const { status } = spawnSync(npmProgram("esbuild"), args, { stdio: "inherit" });
  if (status !== 0) throw new Error(`esbuild cannot bundle ${source}`);
  return { modules: [{ name: `${name}.js`, path: out }], classes, bindings: secrets };
}

// Starts a Worker in a workerd of its own, with its objects' databases under `state`.
export async function startWorker({ modules, classes, bindings }, { origin, state, flags = [], environment = {} }) {
  const objects = join(state, "objects");
  mkdirSync(objects, { recursive: true });
  const config = join(state, "config.capnp");
  writeFileSync(config, configOf({ modules, classes, bindings: { ...bindings, ORIGIN: origin, ORIGIN_OVERRIDE: origin } }, objects));
  const workerd = run(workerdProgram, ["serve", "--import-path=/", ...flags, "--control-fd=3", config], {
    env: { ...process.env, ...environment },
    // What a Worker logs is written, and goes nowhere.
    stdio: ["ignore", "ignore", "inherit", "pipe"],
  });
  const told = createInterface({ input: workerd.child.stdio[3] });
  const ports = {};
  for await (const line of told) {
    const { event, socket, port } = JSON.parse(line);
    if (event === "listen-inspector") ports.inspector = port;
    if (event === "listen" && socket === "main") {
      ports.port = port;
      break;
    }
  }
  if (!ports.port) throw new Error("workerd did not start: its words are above");
  return { ...workerd, ...ports, state };
}

// The very binary, not the package's launcher, which would be a process around it.
const workerdProgram = createRequire(import.meta.url)("workerd").default;

function configOf({ modules, classes, bindings }, objects) {
  const string = (value) => JSON.stringify(value);
  const kindOf = ({ path, wasm, text, data }) => {
    if (wasm) return `wasm = embed ${string(wasm)}`;
    if (data) return `data = embed ${string(data)}`;
    return text === undefined ? `esModule = embed ${string(path)}` : `text = ${string(text)}`;
  };
  return `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [
    (name = "main", worker = .worker),
    (name = "internet", network = (allow = ["public", "private"])),
    (name = "objects", disk = (path = ${string(objects)}, writable = true)),
  ],
  sockets = [(name = "main", address = "127.0.0.1:0", http = (), service = "main")],
);
const worker :Workerd.Worker = (
  compatibilityDate = ${string(DEPLOYED().compatibility_date)},
  modules = [${modules.map((module) => `(name = ${string(module.name)}, ${kindOf(module)})`).join(", ")}],
  bindings = [
    ${Object.entries(bindings)
      .map(([name, value]) => `(name = ${string(name)}, text = ${string(value)}),`)
      .join("\n    ")}
    ${classes.map(([name, className]) => `(name = ${string(name)}, durableObjectNamespace = ${string(className)}),`).join("\n    ")}
  ],
  durableObjectNamespaces = [
    ${classes.map(([, className]) => `(className = ${string(className)}, uniqueKey = ${string(className)}, enableSql = true),`).join("\n    ")}
  ],
  durableObjectStorage = (localDisk = "objects"),
);
`;
}

// Seconds of processor that a process has used so far.
export function cpuSeconds(pid) {
  const [user, system] = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1].split(" ").slice(11, 13);
  return (Number(user) + Number(system)) / 100;
}
