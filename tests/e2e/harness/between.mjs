// A server between the gateway and another one, Stripe or a receiver of webhooks: it hands on what it is asked, until
// the test has it misbehave.
//
//   const between = await startBetween(t, stripe.url);     // without an address it answers 200 itself
//   between.chooses(({ method, path, body }) => "pass");   // in which of WAYS the next request is answered
import http from "node:http";
import { once } from "node:events";

const JSON_TYPE = { "content-type": "application/json" };
const PIECE = Buffer.alloc(65_536, " ");
// An answer without end is silent after so much: whoever keeps it should not take the machine along.
const ENDLESS_MAX = 400_000_000;
const says = (status, body, headers = JSON_TYPE) => ({ outgoing }) => outgoing.writeHead(status, headers).end(body);

// What may become of a request. Those that carry it out hand it on; the others do not.
export const WAYS = {
  pass: async ({ carryOut, respond }) => respond(await carryOut()),
  slow: async ({ carryOut, respond }) => setTimeout(respond, 1_500, await carryOut()),
  "breaks before": ({ outgoing }) => outgoing.socket.resetAndDestroy(),
  "breaks after": async ({ carryOut, outgoing }) => {
    await carryOut();
    outgoing.socket.resetAndDestroy();
  },
  "breaks in its body": async ({ carryOut, outgoing }) => {
    const { status, body } = await carryOut();
    outgoing.writeHead(status, { ...JSON_TYPE, "content-length": body.length + 9 });
    outgoing.write(body, () => outgoing.socket.resetAndDestroy());
  },
  "no HTTP": ({ outgoing }) => outgoing.socket.end("SSH-2.0-OpenSSH_9.2\r\n"),
  500: says(500, '{"error":{"type":"api_error","message":"An unknown error occurred"}}'),
  "502 in HTML": says(502, "<html>Bad gateway</html>", { "content-type": "text/html" }),
  503: says(503, ""),
  429: says(429, '{"error":{"type":"invalid_request_error","code":"rate_limit"}}'),
  redirect: says(307, "", { location: "/elsewhere" }),
  "200 in HTML": says(200, "<html>Back soon</html>", { "content-type": "text/html" }),
  "200 and nothing": says(200, ""),
  "200 with bytes that are no text": says(200, Buffer.from([0xff, 0xfe, 0, 0xc3])),
  "200 and deep": says(200, "[".repeat(500_000)),
  // Nothing more comes; each takes as long as the gateway is patient.
  silent: () => {},
  "silent in its body": ({ outgoing }) => {
    outgoing.writeHead(200, JSON_TYPE);
    outgoing.write('{"id":');
  },
  drips: ({ outgoing }) => {
    outgoing.writeHead(200, JSON_TYPE);
    const drip = setInterval(() => outgoing.write(" "), 100);
    outgoing.on("close", () => clearInterval(drip));
  },
  // As fast as it is taken.
  endless: ({ request, outgoing }) => {
    outgoing.writeHead(200, JSON_TYPE);
    const pour = () => {
      if (outgoing.destroyed || request.poured > ENDLESS_MAX) return;
      request.poured += PIECE.length;
      if (outgoing.write(PIECE)) setImmediate(pour);
      else outgoing.once("drain", pour);
    };
    pour();
  },
};
export const PATIENT = ["silent", "silent in its body", "drips", "endless"];

export async function startBetween(t, url) {
  let choose = () => "pass";
  const requests = [];
  const server = http.createServer(async (incoming, outgoing) => {
    const pieces = [];
    for await (const piece of incoming) pieces.push(piece);
    const request = { method: incoming.method, path: incoming.url, headers: incoming.headers, body: Buffer.concat(pieces), poured: 0 };
    requests.push(request);
    outgoing.on("error", () => {});
    request.way = choose(request);
    await WAYS[request.way]({
      request,
      outgoing,
      carryOut: () => (url ? handOn(url, request) : { status: 200, headers: {}, body: Buffer.alloc(0) }),
      respond: ({ status, headers, body }) => outgoing.writeHead(status, headers).end(body),
    });
  });
  server.keepAliveTimeout = 0;
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    requests,
    chooses: (chooser) => (choose = chooser),
  };
}

async function handOn(url, { method, path, headers, body }) {
  const request = http.request(new URL(path, url), { method, headers, agent: false }).end(body);
  const [response] = await once(request, "response");
  const pieces = [];
  for await (const piece of response) pieces.push(piece);
  return { status: response.statusCode, headers: response.headers, body: Buffer.concat(pieces) };
}
