// The echo of the npm package ws, for wspoll bench compare. Argument: the port,
// 0 for a free one; and "deflate" for compression. Prints the URL; ends on SIGTERM. The package is the one of
// bench/peers/npm.
import { createRequire } from "node:module";
import process from "node:process";

const { WebSocketServer } = createRequire(new URL("../npm/", import.meta.url))("ws");
const server = new WebSocketServer({
  host: "127.0.0.1",
  port: Number(process.argv[2] ?? 0),
  backlog: 4096,
  perMessageDeflate: process.argv[3] === "deflate",
});
server.on("connection", (socket) => {
  socket.on("error", () => {}); // a reset
  socket.on("message", (data, isBinary) => socket.send(data, { binary: isBinary }));
});
server.on("listening", () => console.log(`ws://127.0.0.1:${server.address().port}/`));
process.on("SIGTERM", () => process.exit(0));
