// Opens wspoll's page in headless Chromium and uses it as a person would.
// Arguments: the page's URL, the path of Chromium, a directory for screenshots.
// Prints a line for each check; the exit status is 1 if one failed.
import { chromium } from "playwright-core";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

const [page_url, executablePath, shots] = process.argv.slice(2);
const host = new URL(page_url).host;
let failed = 0;

function want(got, wanted, what) {
  if (JSON.stringify(got) === JSON.stringify(wanted)) {
    console.log("ok    " + what);
    return;
  }
  failed++;
  console.log(`FAIL  ${what}: ${JSON.stringify(got)}, want ${JSON.stringify(wanted)}`);
}

const profile = await mkdtemp(join(tmpdir(), "wspoll-chromium-"));
const browser = await chromium.launchPersistentContext(profile, {
  executablePath,
  headless: true,
  timeout: 60_000,
  args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});

try {
  browser.setDefaultTimeout(30_000);
  const page = await browser.newPage();
  const complaints = [];
  const strangers = [];
  page.on("console", (m) => complaints.push(`${m.type()}: ${m.text()}`));
  page.on("pageerror", (e) => complaints.push("error: " + e.message));
  page.on("requestfailed", (r) => complaints.push(`request failed: ${r.url()} ${r.failure()?.errorText}`));
  const seen = (url) => { if (/^(https?|wss?):/.test(url) && new URL(url).host !== host) strangers.push(url); };
  page.on("request", (r) => seen(r.url()));
  page.on("websocket", (s) => seen(s.url()));

  const response = await page.goto(page_url);
  want(response.status(), 200, "the page is there");
  want(response.headers()["content-security-policy"]?.startsWith("default-src 'none'"), true, "it has a strict policy");
  await page.waitForFunction(() => document.getElementById("state").textContent === "open");
  want(await page.textContent("#state"), "open", "its WebSocket opens");

  await page.fill("#text", "grüße from chromium 𝄞");
  await page.click("button");
  await page.waitForFunction(() => document.getElementById("log").textContent.includes("echo: "));
  want(await page.locator("#log li").allTextContents(),
    ["sent: grüße from chromium 𝄞", "echo: grüße from chromium 𝄞"], "a message that the form sends comes back");

  const long = "long".repeat(200);
  await page.fill("#text", long);
  await page.press("#text", "Enter");
  await page.waitForFunction((m) => document.getElementById("log").lastChild.textContent === "echo: " + m, long);

  for (const [width, height] of [[390, 844], [1280, 800]]) {
    await page.setViewportSize({ width, height });
    await page.screenshot({ path: join(shots, `page-${width}x${height}.png`) });
    want(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), true, `nothing is cut off at ${width} pixels`);
  }

  const outcome = await page.evaluate(async () => {
    const socket = new WebSocket(location.origin.replace(/^http/, "ws") + document.getElementById("try").dataset.path);
    socket.binaryType = "arraybuffer";
    await new Promise((resolve, reject) => { socket.onopen = resolve; socket.onerror = () => reject(new Error("no connection")); });
    const sent = new Uint8Array(100 * 1024);
    for (let i = 0; i < sent.length; i++) sent[i] = (i * 2654435761) >>> 13;
    socket.send(sent);
    const got = new Uint8Array(await new Promise((resolve) => { socket.onmessage = (e) => resolve(e.data); }));
    const equal = got.length === sent.length && got.every((b, i) => b === sent[i]);
    const closed = new Promise((resolve) => { socket.onclose = resolve; });
    socket.close(3001, "enough of it");
    const { code, wasClean } = await closed;
    return { equal, code, wasClean };
  });
  want(outcome, { equal: true, code: 3001, wasClean: true }, "100 KiB of binary come back, and close 3001 is answered cleanly");

  const tooLarge = await page.evaluate(async () => {
    const socket = new WebSocket(location.origin.replace(/^http/, "ws") + document.getElementById("try").dataset.path);
    await new Promise((resolve) => { socket.onopen = resolve; });
    const closed = new Promise((resolve) => { socket.onclose = resolve; });
    socket.send(new Uint8Array(17 << 20));
    return (await closed).code;
  });
  want(tooLarge, 1009, "17 MiB are over the limit: 1009");

  want(complaints, [], "the console is empty");
  want(strangers, [], "no other host is asked");
} finally {
  await browser.close();
  await rm(profile, { recursive: true, force: true, maxRetries: 5 });
}
process.exit(failed ? 1 : 0);
