// Node's Socket.IO server with the events of the workloads, on ws or on µWebSockets: `node server.mjs ws|uws`.
//
// REDIS_URL makes it an instance of several, over @socket.io/redis-adapter. No token is checked, which is in its favour. All else is
// at its defaults.

import { createServer } from "node:http";
import { createRequire } from "node:module";
import { Server } from "socket.io";

const options = {};
if (process.env.REDIS_URL) {
  const { createAdapter } = await import("@socket.io/redis-adapter");
  const { createClient } = await import("redis");
  const publisher = createClient({ url: process.env.REDIS_URL });
  const subscriber = publisher.duplicate();
  await Promise.all([publisher.connect(), subscriber.connect()]);
  options.adapter = createAdapter(publisher, subscriber);
}

let io;
const engine = process.argv[2];
if (engine === "ws") {
  const http = createServer();
  io = new Server(http, options);
  http.listen(0, "127.0.0.1", () => console.log(`listening on http://127.0.0.1:${http.address().port}`));
} else if (engine === "uws") {
  const uws = createRequire(import.meta.url)("@trufflesuite/uws-js-unofficial");
  const app = uws.App();
  io = new Server(options);
  io.attachApp(app);
  app.listen("127.0.0.1", 0, (listener) => {
    if (!listener) throw new Error("cannot listen");
    console.log(`listening on http://127.0.0.1:${uws.us_socket_local_port(listener)}`);
  });
} else {
  throw new Error(`server.mjs ws|uws, not ${engine}`);
}

const events = io.of("/events");
events.on("connection", (socket) => {
  socket.on("test-event", (payload) => events.emit("test-event", payload));
  socket.on("echo", (payload, ack) => ack(payload));
  socket.on("join", (room, ack) => {
    socket.join(room);
    ack();
  });
  socket.on("leave", (room, ack) => {
    socket.leave(room);
    ack();
  });
  socket.on("say", (room, payload) => events.to(room).emit("said", payload));
});
