// A small API for the gateway to stand before: it answers every call with what it was told about it.
import http from "node:http";
import { once } from "node:events";

export async function startDemoOrigin() {
  const server = http.createServer((request, response) => {
    const told = Object.entries(request.headers).filter(([name]) => name.startsWith("x-tollgate-"));
    const body = JSON.stringify({
      message: "The demo origin answers.",
      method: request.method,
      path: request.url,
      tollgate: Object.fromEntries(told),
    });
    // The body is not looked at, but must be taken for the connection to be used again.
    request.resume();
    response.writeHead(200, { "content-type": "application/json" });
    response.end(`${body}\n`);
  });
  // workerd keeps its connections: one closed for idleness just as a call comes would be a 502.
  server.keepAliveTimeout = 0;
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    close() {
      server.close();
      server.closeAllConnections();
    },
  };
}
