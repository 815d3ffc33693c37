// Runs the client of the npm package ws against wspoll. Arguments: the URL of
// the echo, with the subprotocol "chat" on offer there, and what it agrees to of
// the compression that ws offers by default. Prints a line for each
// check; the exit status is 1 if one failed.
import WebSocket from "ws";
import { randomBytes } from "node:crypto";
import { once } from "node:events";

const url = process.argv[2];
const agreed = process.argv[3] ?? "";
let failed = 0;

async function check(name, f) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error("nothing happens")), 60_000);
  });
  try {
    await Promise.race([f(), late]);
    console.log("ok    " + name);
  } catch (e) {
    failed++;
    console.log("FAIL  " + name + ": " + (e.message ?? e));
  } finally {
    clearTimeout(timer);
  }
}

function want(got, wanted, what) {
  if (got !== wanted) throw new Error(`${what} is ${got}, want ${wanted}`);
}

let answer; // the server's, on extensions

async function open(protocols = [], options = {}) {
  const socket = new WebSocket(url, protocols, options);
  socket.on("upgrade", (response) => (answer = response.headers["sec-websocket-extensions"] ?? ""));
  await once(socket, "open");
  return socket;
}

async function wantEcho(socket, data, binary) {
  const [got, isBinary] = await once(socket, "message");
  want(isBinary, binary, "binary");
  want(got.length, data.length, "the length");
  want(got.equals(data), true, "the echo equal to what was sent");
}

// closing resolves to the code and reason of the end.
async function closing(socket) {
  socket.on("error", () => {}); // a reset while much is being written
  const [code, reason] = await once(socket, "close");
  return { code, reason: reason.toString() };
}

function text(size) {
  return Buffer.from("grüße 𝄞 ".repeat(Math.ceil(size / 14)).slice(0, size)).subarray(0, size).toString("latin1").replace(/[^ -~]/g, "?");
}

// Both with an offer of compression, the default of ws, and without.
for (const perMessageDeflate of [{ threshold: 0 }, true, false]) {
  const socket = await open([], { perMessageDeflate });
  await check(`extensions, deflate offered: ${JSON.stringify(perMessageDeflate)}`, async () => {
    want(socket.extensions, perMessageDeflate && agreed ? "permessage-deflate" : "", "what is in use");
    if (perMessageDeflate) want(answer, agreed, "the answer");
  });
  for (const size of [0, 1, 125, 126, 127, 65535, 65536, 1 << 20]) {
    await check(`binary ${size}, deflate offered: ${JSON.stringify(perMessageDeflate)}`, async () => {
      const data = randomBytes(size);
      socket.send(data);
      await wantEcho(socket, data, true);
    });
    await check(`text ${size}, deflate offered: ${JSON.stringify(perMessageDeflate)}`, async () => {
      const s = text(size);
      socket.send(s);
      await wantEcho(socket, Buffer.from(s), false);
    });
  }
  socket.close();
  want((await closing(socket)).code, 1005, "the code");
}

await check("fragments, a rune cut between them", async () => {
  const socket = await open();
  const whole = Buffer.from("in three frames: 𝄞!");
  const at = whole.length - 3; // within the four bytes of the rune
  socket.send(whole.subarray(0, 5), { fin: false, binary: false });
  socket.send(whole.subarray(5, at), { fin: false });
  socket.ping("between them");
  socket.send(whole.subarray(at), { fin: true });
  await wantEcho(socket, whole, false);
  socket.close(1000);
  want((await closing(socket)).code, 1000, "the code");
});

for (const size of [0, 1, 125]) {
  await check(`ping with ${size} bytes`, async () => {
    const socket = await open();
    const data = randomBytes(size);
    socket.ping(data);
    const [got] = await once(socket, "pong");
    want(got.equals(data), true, "the pong equal to the ping");
    socket.terminate();
  });
}

for (const code of [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999]) {
  await check(`close ${code}`, async () => {
    const socket = await open();
    socket.close(code, "grüße");
    want((await closing(socket)).code, code, "the code");
  });
}

await check("32 MiB are over the limit: 1009", async () => {
  const socket = await open();
  socket.send(Buffer.alloc(32 << 20));
  want((await closing(socket)).code, 1009, "the code");
});

await check("text that is not UTF-8: 1007", async () => {
  const socket = await open();
  socket.send(Buffer.from([0x6f, 0x6b, 0xff]), { binary: false });
  want((await closing(socket)).code, 1007, "the code");
});

await check("subprotocol", async () => {
  const socket = await open(["other", "chat"]);
  want(socket.protocol, "chat", "the subprotocol");
  socket.terminate();
});

for (const [origin, status] of [["http://evil.example", 403], ["http://" + new URL(url).host, 101]]) {
  await check(`origin ${origin}: ${status}`, async () => {
    const socket = new WebSocket(url, [], { origin });
    const got = await new Promise((resolve) => {
      socket.on("unexpected-response", (_, response) => resolve(response.statusCode));
      socket.on("open", () => resolve(101));
      socket.on("error", resolve);
    });
    want(got, status, "the status");
    socket.terminate();
  });
}

await check("100 connections with 100 messages each", async () => {
  await Promise.all(Array.from({ length: 100 }, async (_, i) => {
    const socket = await open();
    let next = 0;
    const done = new Promise((resolve, reject) => {
      socket.on("message", (data) => {
        if (data.toString() !== `${i}: ${next}`) reject(new Error(`connection ${i}: message ${next} comes back as ${data}`));
        if (++next === 100) resolve();
      });
      socket.on("close", () => reject(new Error(`connection ${i} ended`)));
    });
    for (let j = 0; j < 100; j++) socket.send(`${i}: ${j}`);
    await done;
    socket.terminate();
  }));
});

process.exit(failed ? 1 : 0);
