// Requests without end, from a thread of their own: who measures something beside them does not wait for them as well.
//
//   const flood = startFlood({ url, method, path, headers, atOnce: 8, pause: 20 });   // pause: after each, in ms
//   const statuses = await flood.stop();                                              // { 200: 5, 429: 300 }
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { Worker, isMainThread, parentPort, workerData } from "node:worker_threads";
import { send } from "./client.mjs";

export function startFlood(request) {
  const worker = new Worker(new URL(import.meta.url), { workerData: { flood: request } });
  return {
    async stop() {
      worker.postMessage("stop");
      const [statuses] = await once(worker, "message");
      return statuses;
    },
  };
}

async function flood({ url, atOnce, pause, ...request }) {
  const statuses = {};
  let isOver = false;
  const stopped = once(parentPort, "message").then(() => (isOver = true));
  await Promise.all(
    Array.from({ length: atOnce }, async () => {
      while (!isOver) {
        const { status } = await send(url, request);
        statuses[status] = (statuses[status] ?? 0) + 1;
        await sleep(pause);
      }
    }),
  );
  await stopped;
  parentPort.postMessage(statuses);
}

if (!isMainThread && workerData?.flood) await flood(workerData.flood);
