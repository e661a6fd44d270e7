// Thousands of spellings of priced and unpriced paths: each is refused, or reaches the origin as what was priced,
// in a spelling that a careless origin reads as that too.
import assert from "node:assert/strict";
import test from "node:test";
import { openAccount } from "../e2e/harness/account.mjs";
import { startGateway } from "../e2e/harness/gateway.mjs";
import { startOrigin } from "../e2e/harness/origin.mjs";
import { each, sendLine } from "../e2e/harness/raw.mjs";
import { randomOf, scaled, seed, show } from "../e2e/harness/scale.mjs";

const RANDOM_SPELLINGS = scaled(1_000, 20_000);
const [TRIED, TRIED_PUBLIC] = scaled([2_000, 250], [Infinity, Infinity]);
const UNMATCHED = 3;
const PRICES = [
  [/^\/v1\/cheap\/[^/]+$/, 1],
  [/^\/v1\/dear\/[^/]+$/, 50],
  [/^\/v1\/files(\/.*)?$/, 7],
  [/^\/open(\/.*)?$/, 0],
];
// What a path costs, by its decoded text.
const priceOf = (path) => PRICES.find(([route]) => route.test(path))?.[1] ?? UNMATCHED;

const origin = await startOrigin(test);
const gateway = await startGateway(test, {
  policy: `
[gateway]
base_path = "/v1"
key_prefix = "tk_live"
unmatched = { cost = ${UNMATCHED} }
[origins]
default = "${origin.url}"
[pools.credits]
[plans.free]
grants = [{ pool = "credits", amount = 100000000, renews = "never" }]
[[routes]]
match = "GET /cheap/{id}"
cost = 1
[[routes]]
match = "GET /dear/{id}"
cost = 50
[[routes]]
match = "GET /files/*"
cost = 7
[[routes]]
match = "GET /open/*"
public = true
root = true
`,
});
const customer = await openAccount(gateway);
const authorization = `Bearer ${customer.key}`;

const BASES = ["/v1/cheap/1", "/v1/dear/1", "/v1/files/a/b", "/open/x", "/v1/else", "/v1/me", "/_tollgate/v1/plans"];

// What may stand where a slash, a dot or nothing stood, and be read as something else by somebody.
const SEPARATORS = [
  "//", "/./", "/../", "/x/../", "/%2e/", "/%2E%2e/", "/.%2e/", "/%2e./", "/..;/", "/.;/", "/;/", "/;x=1/", "%2f", "%2F", "/%2f", "%2f/",
  "\\", "%5c", "/\\", "\\/", "/%5c", "%252f", "%255c", "/%252e%252e/", "/%c0%ae%c0%ae/", "%c0%af", "%e0%80%af", "%f0%80%80%af", "%ef%bc%8f",
  "\uff0f", "/%u002e/", "%u2215", "/.../", "/%00/", "%00/", "/%20/", "/%09/", "/\t/", "/ /", "/%0d%0a/", "/%7f/", "/%ff/", "/%fe%ff/",
  "/%E3%80%82%E3%80%82/", "/..%00/", "/..%0d/", "/..\\", "\\..\\", "/%2e%2e%5c", "/%2e%2e%2f", "/..%2f", "/..%252f", "/*/", "/~/",
];
const ENDS = [
  "/", "//", "/.", "/..", "/%2e", "/%2e%2e", ".", "%2e", "..", " ", "%20", "%09", "%00", "%0a", "%0d%0a", ";", ";a=b", "%3b", "%3Ba", "?", "?x=/../dear/1",
  "#", "#x", "%23", "%3f", "%3fx=1", "%", "%1", "%zz", "%25", "%2541", "%2525", ".json", "%2ejson", "&", "&a=1", "+", ":80", "@x", "*", "~", "'", "%27", "%22", "\"", "<", "%3c", "|", "^",
  "\u00e9", "%e9", "%c3%a9", "%cc%81", "\u0130", "%c4%b0", "%e2%84%aa",
];
const hex = (character) => character.charCodeAt(0).toString(16).padStart(2, "0");

function corpus() {
  const spellings = new Set(BASES);
  const add = (path) => spellings.add(path);
  for (const base of BASES) {
    for (const end of ENDS) add(base + end);
    for (const [at, character] of [...base].entries()) {
      const [before, after] = [base.slice(0, at), base.slice(at + 1)];
      // The same letter otherwise: encoded, encoded twice, in another case, overlong, wide.
      const code = character.charCodeAt(0);
      for (const other of [
        `%${hex(character)}`,
        `%${hex(character).toUpperCase()}`,
        `%25${hex(character)}`,
        `%2525${hex(character)}`,
        `%u00${hex(character)}`,
        `%c${code >> 6 ? 1 : 0}%${(0x80 | (code & 0x3f)).toString(16)}`,
        character.toUpperCase(),
        String.fromCharCode(0xff00 + code - 0x20),
      ])
        add(before + other + after);
      if (character === "/") for (const separator of SEPARATORS) add(before + separator + after);
    }
  }
  // From one route into another.
  for (const from of ["/open", "/open/x", "/v1/cheap", "/v1/files", "/v1/files/a", ""])
    for (const step of SEPARATORS)
      for (const to of ["v1/dear/1", "dear/1", "_tollgate/v1/plans"]) {
        add(`${from}/x${step}..${step}${to}`);
        add(`${from}${step}${to}`);
      }
  const random = randomOf();
  const target = spellings.size + RANDOM_SPELLINGS;
  while (spellings.size < target) {
    let path = random.one(BASES);
    for (let change = random.between(1, 4); change > 0; change--) {
      const at = random.below(path.length + 1);
      const what = random.one([random.one(SEPARATORS), random.one(ENDS), `%${random.below(256).toString(16).padStart(2, "0")}`, String.fromCharCode(random.between(1, 255))]);
      path = path.slice(0, at) + what + path.slice(at + random.below(2));
    }
    add(path.startsWith("/") ? path : `/${path}`);
  }
  // A request has one line, and what does not begin with a slash is no path (wire.test.mjs sends those).
  return random.shuffled([...spellings].filter((path) => path.startsWith("/") && !/[\r\n]/.test(path)));
}

// What the most careless origin makes of a path: parameters cut, decoded, backslashes turned, empty and dot
// segments resolved, without case and closing slash.
function readCarelessly(path) {
  const cut = path.replace(/;[^/]*/g, "");
  const decoded = Buffer.from(cut.replace(/%([0-9a-f]{2})/gi, (_, pair) => String.fromCharCode(parseInt(pair, 16))), "latin1").toString("utf8");
  const segments = [];
  for (const segment of decoded.split("\0")[0].replaceAll("\\", "/").split("/")) {
    if (segment === "..") segments.pop();
    else if (segment !== "" && segment !== ".") segments.push(segment);
  }
  return `/${segments.join("/")}`.toLowerCase();
}

test("each of thousands of spellings is refused, or forwarded as exactly what was priced", { timeout: 600_000 }, async (t) => {
  t.diagnostic(`seed: ${seed}`);
  const all = corpus();
  const spellings = all.slice(0, TRIED);
  assert.ok(spellings.length >= 2_000, `${spellings.length}`);
  const arrived = new Map();
  const statuses = new Map();
  const forms = new Set();
  await each(spellings.entries(), 16, async ([n, path]) => {
    const wire = Buffer.from(path, "utf8").toString("latin1");
    const answer = await sendLine(gateway.url, `GET ${wire} HTTP/1.1`, { authorization, "x-probe": n });
    statuses.set(answer.status, (statuses.get(answer.status) ?? 0) + 1);
    const received = origin.requests.filter(({ headers }) => headers["x-probe"] === String(n));
    for (const request of received) origin.requests.splice(origin.requests.indexOf(request), 1);
    if (answer.status !== 200 || received.length === 0) {
      // A page of the gateway's own is 200, too.
      assert.equal(received.length, 0, `${path} was answered ${answer.status} and reached the origin`);
      assert.ok([200, 400, 401, 404, 405, 429].includes(answer.status), `${path}: ${answer.status}`);
      // Tokens that are none are counted; nothing else here is limited.
      // The runtime has resolved plain dot segments before, as the URL standard has it.
      const { pathname } = new URL(`http://gateway.test${path}`);
      if (answer.status === 200 || answer.status === 429) assert.match(readCarelessly(pathname), /^\/(v1\/me|_tollgate)/, path);
      return;
    }
    assert.equal(received.length, 1, path);
    const [target] = received[0].path.split("?");
    const charged = Number(answer.headers["x-credits-charged"] ?? 0);
    forms.add(target);
    assert.equal(charged, priceOf(decodeURIComponent(target)), `${path} was charged ${charged} and arrived as ${target}`);
    const careless = readCarelessly(target);
    assert.equal(charged, priceOf(careless), `${path} was charged ${charged}, and ${target} may be read as ${careless}`);
    assert.doesNotMatch(careless, /^\/_tollgate(\/|$)/, path);
    arrived.set(n, target);
  });
  show(t, {
    spellings: `${spellings.length} of ${all.length}`,
    refused: spellings.length - arrived.size,
    "forwarded as priced": arrived.size,
    "as so many paths": forms.size,
    statuses: [...statuses].sort().map(([status, count]) => `${status} × ${count}`).join(", "),
  });
});

test("no spelling of a public path leads anywhere else without a key", { timeout: 600_000 }, async (t) => {
  const spellings = corpus().filter((path) => path.startsWith("/open")).slice(0, TRIED_PUBLIC);
  let reached = 0;
  await each(spellings, 16, async (path) => {
    const { status } = await sendLine(gateway.url, `GET ${Buffer.from(path, "utf8").toString("latin1")} HTTP/1.1`);
    assert.ok([200, 400, 401, 404, 429].includes(status), `${path}: ${status}`);
  });
  for (const { path, headers } of origin.requests.splice(0)) {
    reached += 1;
    assert.match(readCarelessly(path.split("?")[0]), /^\/open(\/|$)/, path);
    assert.equal(headers["x-tollgate-account"], undefined);
  }
  show(t, { spellings: spellings.length, "reached the origin, all under /open": reached });
});
