// Events for many clients by Node's own http server: the same bytes to each response.
"use strict";

const http = require("node:http");

const responses = new Set();

function written(response) {
  return new Promise((resolve) => (response.writableLength ? response.once("drain", resolve) : resolve()));
}

async function measure(events, bytes) {
  const data = Buffer.from(`event: change\nid: 1\ndata: ${"x".repeat(bytes)}\n\n`);
  let spent = 0;
  for (let number = 0; number < events; number++) {
    const before = process.cpuUsage();
    for (const response of responses) response.write(data);
    await new Promise(setImmediate);
    await Promise.all([...responses].map(written));
    const used = process.cpuUsage(before);
    spent += (used.user + used.system) / 1e6;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return spent;
}

const server = http.createServer(async (request, response) => {
  const url = new URL(request.url, "http://localhost");
  if (url.pathname === "/measure") {
    const asked = (name) => Number(url.searchParams.get(name));
    response.end(JSON.stringify(await measure(asked("events"), asked("bytes"))));
    return;
  }
  response.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-cache" });
  response.write("event: open\ndata: {}\n\n");
  responses.add(response);
  request.socket.on("close", () => responses.delete(response));
});

server.listen({ fd: Number(process.argv[2]) });
