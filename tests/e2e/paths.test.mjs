// One spelling of a path: what is priced is what the origin receives, and nothing else gets there.
import assert from "node:assert/strict";
import net from "node:net";
import { once } from "node:events";
import test from "node:test";
import { openAccount } from "./harness/account.mjs";
import { startGateway } from "./harness/gateway.mjs";
import { startOrigin } from "./harness/origin.mjs";

const origin = await startOrigin(test);
const policy = (unmatched) => `
[gateway]
base_path = "/v1"
key_prefix = "tk_live"
unmatched = ${unmatched}
[origins]
default = "${origin.url}"
[pools.credits]
[plans.free]
grants = [{ pool = "credits", amount = 1000, renews = "never" }]
[[routes]]
match = "POST /search"
cost = 1
[[routes]]
match = "GET /tracks/{id}"
cost = 2
[[routes]]
match = "GET /files/*"
cost = 3
[[routes]]
match = "POST /hooks/*"
public = true
root = true
[[routes]]
match = "GET /beta"
cost = 9
host = "beta.example.com"
`;
const gateway = await startGateway(test, { policy: policy('"reject"') });
const priced = await startGateway(test, { policy: policy("{ cost = 5 }") });
const customer = await openAccount(gateway);
const other = await openAccount(priced);

// A path that clients tidy up, or that no client library would send, goes over a socket of its own.
async function sendRaw(to, target, headers = {}) {
  const socket = net.connect(new URL(to.url).port, "127.0.0.1");
  const head = Object.entries({ host: "api.example.com", connection: "close", "content-length": "0", ...headers });
  socket.end(`POST ${target} HTTP/1.1\r\n${head.map(([name, value]) => `${name}: ${value}\r\n`).join("")}\r\n`, "latin1");
  const pieces = [];
  socket.on("data", (piece) => pieces.push(piece));
  socket.on("error", () => {});
  await once(socket, "close");
  const [top, body = ""] = String(Buffer.concat(pieces)).split("\r\n\r\n");
  return { status: Number(top.split(" ")[1]), top, body };
}

const ambiguous = [
  "/v1//search",
  "//v1/search",
  "/v1/search//",
  "/v1/%2e%2e/v1/search",
  "/v1/%2E/search",
  "/v1/x/.%2e/search",
  "/v1/search%2f",
  "/v1%2Fsearch",
  "/v1/search%5c",
  "/v1/search;a=1",
  "/v1;/search",
  "/v1/search%00",
  "/v1/search%0a",
  "/v1/search%7F",
  "/v1/search%zz",
  "/v1/search%",
  "/v1/search%4",
  "/v1/search%ff",
  "/v1/%c0%ae%c0%ae/search",
  "/v1/%2573earch",
  "/v1/search%252f",
  "/hooks//x",
  "/hooks/%2e%2e/v1/search",
  "/hooks/..%2fv1/search",
  "/hooks/x;/y",
];

for (const [name, to] of [
  ["where unknown paths are refused", gateway],
  ["where they have a price", priced],
]) {
  test(`a path that servers read in two ways is 400 bad_path, ${name}`, async () => {
    const at = origin.requests.length;
    const { key } = to === gateway ? customer : other;
    for (const path of ambiguous) {
      for (const headers of [{}, { authorization: `Bearer ${key}` }]) {
        const { status, body, top } = await sendRaw(to, path, headers);
        assert.equal(status, 400, `${path} ${top}`);
        assert.equal(JSON.parse(body).code, "bad_path", path);
      }
    }
    assert.equal(origin.requests.length, at);
  });
}

test("dot segments and backslashes never reach the origin as they were sent, nor unpriced", async () => {
  // The runtime may resolve these before Tollgate sees them; then what it resolved them to counts.
  for (const path of [
    "/hooks/../v1/search",
    "/v1/files/../search",
    "/hooks/./x",
    "/hooks\\..\\v1\\search",
    "/v1/search#fragment",
    "/hooks/\u0001x",
    "/hooks/a b",
  ]) {
    const at = origin.requests.length;
    const { status } = await sendRaw(gateway, path);
    for (const received of origin.requests.slice(at)) {
      assert.match(received.path, /^\/hooks\/(?!.*(\.\.|\\|\/\/))/, path);
    }
    // Without a key only the public route answers.
    assert.ok([200, 400, 401, 404].includes(status), `${path} ${status}`);
    if (status !== 200) assert.equal(origin.requests.length, at, path);
  }
});

test("each spelling of a path is priced and forwarded as the same one", async () => {
  const { key } = customer;
  for (const [method, sent, received, charged] of [
    ["POST", "/v1/%73earch", "/v1/search", 1],
    ["GET", "/v1/tracks/%41%62", "/v1/tracks/Ab", 2],
    ["GET", "/v1/tracks/a%3bb", "/v1/tracks/a%3Bb", 2],
    ["GET", "/v1/tracks/a%3Fb", "/v1/tracks/a%3Fb", 2],
    ["GET", "/v1/tracks/a%23b", "/v1/tracks/a%23b", 2],
    ["GET", "/v1/tracks/a:b@c,d=e+f~g", "/v1/tracks/a:b@c,d=e+f~g", 2],
    ["GET", "/v1/tracks/caf%C3%A9", "/v1/tracks/caf%C3%A9", 2],
    ["GET", "/v1/tracks/100%25", "/v1/tracks/100%25", 2],
    ["GET", "/v1/files/a/b/c.txt", "/v1/files/a/b/c.txt", 3],
    ["GET", "/v1/files/a/...", "/v1/files/a/...", 3],
  ]) {
    const at = origin.requests.length;
    const answered = await gateway.call(key, method, `${sent}?x=%2e%2e/..//;%zz`);
    assert.equal(answered.status, 200, sent);
    assert.equal(answered.headers["x-credits-charged"], String(charged), sent);
    assert.equal((await origin.request(at)).path, `${received}?x=%2e%2e/..//;%zz`);
  }
});

test("a path that differs by case or a closing slash is 404, also where unknown paths have a price", async () => {
  const at = origin.requests.length;
  for (const [to, { key }] of [
    [gateway, customer],
    [priced, other],
  ]) {
    for (const [method, path] of [
      ["POST", "/v1/Search"],
      ["POST", "/v1/search/"],
      ["POST", "/V1/search"],
      ["POST", "/v1/SEARCH/"],
      ["GET", "/v1/tracks/1/"],
      ["GET", "/v1/Tracks/1"],
      ["POST", "/Hooks/x"],
      ["GET", "/v1/me/"],
      ["GET", "/v1/ME"],
      ["GET", "/_Tollgate/v1/plans"],
    ]) {
      const answered = await to.call(key, method, path);
      assert.deepEqual([answered.status, answered.json().code], [404, "no_route"], path);
    }
  }
  assert.equal(origin.requests.length, at);
});

test("a path that no route names is 404, or has its price", async () => {
  const refused = await gateway.call(customer.key, "GET", "/anything");
  assert.deepEqual([refused.status, refused.json().code], [404, "no_route"]);
  for (const path of ["/anything", "/v1/anything", "/", "/v1/tracks/1/2", "/v1/beta"]) {
    const at = origin.requests.length;
    const answered = await priced.call(other.key, "PATCH", path, { body: "x" });
    assert.deepEqual([answered.status, answered.headers["x-credits-charged"]], [200, "5"], path);
    assert.equal((await origin.request(at)).path, path);
  }
  const unnamed = await priced.send("GET", "/anything");
  assert.deepEqual([unnamed.status, unnamed.json().code], [401, "missing_key"]);
});

test("a route of one host is no route of another", async () => {
  const call = (host) => gateway.call(customer.key, "GET", "/v1/beta", { headers: { host } });
  assert.equal((await call("beta.example.com")).headers["x-credits-charged"], "9");
  assert.equal((await call("BETA.example.com:8080")).headers["x-credits-charged"], "9");
  assert.equal((await call("api.example.com")).status, 404);
});

test("a known path with another method is 405 and names the methods, also where unknown paths have a price", async () => {
  const at = origin.requests.length;
  for (const [to, { key }] of [
    [gateway, customer],
    [priced, other],
  ]) {
    for (const [method, path, allow] of [
      ["DELETE", "/v1/search", "POST"],
      ["GET", "/v1/search", "POST"],
      ["POST", "/v1/tracks/1", "GET, HEAD"],
      ["OPTIONS", "/v1/files/a", "GET, HEAD"],
      ["POST", "/v1/me", "GET, HEAD"],
    ]) {
      const answered = await to.call(key, method, path);
      assert.deepEqual([answered.status, answered.json().code], [405, "method_not_allowed"], `${method} ${path}`);
      assert.equal(answered.headers.allow, allow);
    }
  }
  assert.equal(origin.requests.length, at);
});

test("TRACE is 405 everywhere, key or none", async () => {
  const at = origin.requests.length;
  for (const path of ["/v1/search", "/hooks/x", "/v1/me", "/nowhere"]) {
    for (const headers of [{}, { authorization: `Bearer ${other.key}` }]) {
      const answered = await priced.send("TRACE", path, { headers });
      assert.equal(answered.status, 405, path);
      assert.ok(answered.headers.allow.length > 0);
    }
  }
  assert.equal(origin.requests.length, at);
});
