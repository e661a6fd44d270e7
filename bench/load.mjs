// Callers: bench/native/load.rs, and requests for it.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { text } from "node:stream/consumers";
import { native } from "./servers.mjs";

let program = null;

// What comes of `callers` callers that send `requests` to `port` for so long, and before that for `uncounted` seconds.
export async function load({ port, callers, seconds, uncounted = 0, requests }) {
  program ??= native("load");
  const millis = [seconds, uncounted].map((seconds) => Math.round(seconds * 1000));
  const child = spawn(program, [port, callers, ...millis].map(String), { stdio: ["pipe", "pipe", "inherit"] });
  child.stdin.end(requests.join("\0"));
  const told = text(child.stdout);
  const [code] = await once(child, "close");
  if (code !== 0) throw new Error(`the load generator ended with ${code}`);
  return JSON.parse(await told);
}

// A request as it goes over the wire.
export function request(method, path, headers = {}, body = "") {
  const lines = Object.entries({
    host: "api.example.com",
    "cf-connecting-ip": "192.0.2.1",
    "user-agent": "acme-sync/2.3",
    accept: "application/json",
    ...headers,
    ...(body && { "content-type": "application/json", "content-length": body.length }),
  }).map(([name, value]) => `${name}: ${value}\r\n`);
  return `${method} ${path} HTTP/1.1\r\n${lines.join("")}\r\n${body}`;
}

export const search = (key) =>
  request("POST", "/api/external/v1/search", { authorization: `Bearer ${key}` }, '{"query":"so what","limit":10}');
