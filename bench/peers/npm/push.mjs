// A page in headless Chromium listens to /push and to a topic, and publishes
// with POST; a page of another origin may do neither.
// Arguments: the URL of wspoll's page, the URL of a page elsewhere, the path of
// Chromium, the token for publishing.
// Prints a line for each check; the exit status is 1 if one failed.
import { chromium } from "playwright-core";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

const [own, elsewhere, executablePath, token] = process.argv.slice(2);
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

// first is run in a page: the first message of a WebSocket, or how it failed.
const first = (url) => new Promise((resolve) => {
  const socket = new WebSocket(url);
  socket.onmessage = (e) => { resolve("message " + e.data); socket.close(); };
  socket.onclose = (e) => resolve("closed " + e.code);
});
const ws = own.replace(/^http/, "ws");

try {
  browser.setDefaultTimeout(30_000);
  const page = await browser.newPage();
  await page.goto(own);
  want(await page.evaluate(first, ws + "push"), "message tick", "the heart beat comes");

  await page.evaluate((url) => new Promise((resolve, reject) => {
    window.heard = new Promise((heard) => {
      const socket = new WebSocket(url);
      socket.onopen = resolve;
      socket.onerror = () => reject(new Error("no connection"));
      socket.onmessage = (e) => heard(e.data);
    });
  }), ws + "topics/news");
  const status = await page.evaluate(async ([url, token]) => {
    const answer = await fetch(url, { method: "POST", body: "grüße 𝄞", headers: { Authorization: "Bearer " + token } });
    return [answer.status, (await answer.json()).queued];
  }, [own + "topics/news", token]);
  want(status, [200, 1], "the page publishes to one subscriber");
  want(await page.evaluate(() => window.heard), "grüße 𝄞", "what was published comes");

  const stranger = await browser.newPage();
  await stranger.goto(elsewhere);
  want(await stranger.evaluate(first, ws + "topics/news"), "closed 1006", "a page elsewhere cannot subscribe");
  want(await stranger.evaluate(first, ws + "push"), "closed 1006", "nor have heart beats");
  const post = async ([url, headers]) => {
    try {
      // no-cors and text/plain: the browser asks nobody before it sends this.
      return (await fetch(url, { method: "POST", body: "evil", mode: "no-cors", headers })).type;
    } catch (e) {
      return e.name;
    }
  };
  const answers = [];
  stranger.on("response", (r) => answers.push(r.status()));
  await stranger.evaluate(post, [own + "topics/news", {}]);
  want(answers, [403], "nor publish, without being asked");
  const asked = await stranger.evaluate(async ([url, token]) => {
    try {
      return (await fetch(url, { method: "POST", body: "evil", headers: { Authorization: "Bearer " + token } })).status;
    } catch (e) {
      return e.name;
    }
  }, [own + "topics/news", token]);
  want(asked, "TypeError", "nor with the token, which the browser does not send");
} finally {
  await browser.close();
  await rm(profile, { recursive: true, force: true, maxRetries: 5 });
}
process.exit(failed ? 1 : 0);
