// Opens wspoll's page in headless Chromium and uses it as a person would: every
// lesson, every button, every experiment of the lab.
// Arguments: the page's URL, the path of Chromium, a directory for screenshots.
// Prints a line for each check; the exit status is 1 if one failed.
import { chromium } from "playwright-core";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";

const [page_url, executablePath, shots] = process.argv.slice(2);
const host = new URL(page_url).host;
const axe = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
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
  reducedMotion: "reduce",
  ignoreHTTPSErrors: true, // the server has made its certificate itself
  args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});

try {
  browser.setDefaultTimeout(60_000);
  const page = await browser.newPage();
  await page.setViewportSize({ width: 1280, height: 900 });
  const complaints = [];
  const strangers = [];
  page.on("console", (m) => complaints.push(`${m.type()}: ${m.text()}`));
  page.on("pageerror", (e) => complaints.push("error: " + e.message));
  page.on("requestfailed", (r) => complaints.push(`request failed: ${r.url()} ${r.failure()?.errorText}`));
  const seen = (url) => { if (/^(https?|wss?):/.test(url) && new URL(url).host !== host) strangers.push(url); };
  page.on("request", (r) => seen(r.url()));
  page.on("websocket", (s) => seen(s.url()));

  // What the policy forbids is told by the browser.
  await page.addInitScript(() => {
    window.violated = [];
    document.addEventListener("securitypolicyviolation", (e) => window.violated.push(e.violatedDirective + " " + e.blockedURI));
  });
  const response = await page.goto(page_url);
  want(response.status(), 200, "the page is there");
  const policy = response.headers()["content-security-policy"];
  want([policy?.startsWith("default-src 'none'"), policy?.includes("unsafe")], [true, false], "it has a strict policy");

  // visible is a locator of the one that can be seen.
  const visible = (selector) => page.locator(`${selector}:visible`).first();
  const verdict = () => page.waitForFunction(() => document.getElementById("verdict").classList.contains("done"));

  // Another way to look at a page: what a screen reader and a color blind person find.
  async function accessible(what) {
    // By the debugger, which the policy of the page does not concern.
    await page.evaluate(axe + "; undefined");
    const found = await page.evaluate(async () => (await window.axe.run(document, {
      runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    })).violations.map((v) => `${v.impact} ${v.id}: ${v.nodes.slice(0, 3).map((n) => n.target.join(" ") + " " + (n.any[0]?.message ?? "")).join(" | ")}`));
    want(found, [], what);
  }

  async function picture(name) {
    for (const [width, height] of [[390, 844], [1280, 900]]) {
      await page.setViewportSize({ width, height });
      await page.screenshot({ path: join(shots, `${name}-${width}.png`), fullPage: width === 390 });
      want(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), true, `${name}: nothing is cut off at ${width} pixels`);
    }
  }

  async function everywhere(name) {
    for (const colorScheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
      await accessible(`${name}, ${colorScheme}: accessible`);
      await picture(`${name}-${colorScheme}`);
    }
  }

  await everywhere("first");

  // The lessons, each done by its own buttons, and checked by the page from the bytes.
  const lessons = await page.locator("[data-lesson]").evaluateAll((all) => all.map((a) => a.dataset.lesson));
  want(lessons.length, 11, "eleven lessons");
  for (const [i, name] of lessons.entries()) {
    if (i > 0) await page.click("#next");
    const article = page.locator(`[data-lesson="${name}"]`);
    want(await article.isVisible(), true, `lesson ${name} is open`);
    want(await page.locator("#verdict").evaluate((v) => v.classList.contains("done")), false, `lesson ${name} is not done before it is`);
    const buttons = article.locator("button");
    const n = await buttons.count();
    for (let k = 0; k < n; k++) await buttons.nth(k).click();
    if (name === "mask") await buttons.first().click();
    await verdict();
    console.log(`ok    lesson ${name}: ${await page.textContent("#verdict")}`);
    if (name === "polling") {
      const [poll, push] = [await page.textContent("#poll-bytes"), await page.textContent("#push-bytes")].map((s) => Number(s.replace(/,/g, "")));
      want([poll > 200, push === 23], [true, true], `a value costs ${poll} bytes polled and ${push} pushed`);
      await page.click("#race");
    }
    if (name === "frame" || name === "fragments") await everywhere("lesson-" + name);
    if (name === "compression") want((await page.textContent("#compressed")).length > 20, true, await page.textContent("#compressed"));
  }
  want((await page.textContent("#verdict")).includes("That was the last one"), true, "all lessons are done");
  await page.waitForFunction(() => document.getElementById("state").textContent.startsWith("closed"));
  want(await page.textContent("#state"), "closed with 4711", "the last lesson has closed the connection");

  // Every button of the tab Talk, seen in the records that come back.
  await page.click("#tab-talk");
  await page.click("#clear");
  await page.click("#connect");
  const latest = (what, of = "") => page.waitForFunction(([w, o]) => [...document.querySelectorAll("#events .card")]
    .some((c) => c.querySelector(".what").textContent.startsWith(w) && c.textContent.includes(o)), [what, of]);
  const fresh = () => page.click("#clear");
  await latest("HTTP answer", "101");
  for (const [what, act, wanted] of [
    ["a text", async () => { await page.fill("#text", "grüße 𝄞"); await page.click("#say button"); }, [["text, FIN", "grüße 𝄞"]]],
    ["binary of a size", async () => { await page.fill("#size", "300"); await page.selectOption("#kind", "binary"); await page.click("#bulk button"); }, [["binary, FIN", "308 bytes"], ["binary, FIN", "304 bytes"]]],
    ["text of a size", async () => { await page.fill("#size", "5"); await page.selectOption("#kind", "text"); await page.click("#bulk button"); }, [["text, FIN", "All w"]]],
    ["a ping", () => visible("[data-act=ping]").click(), [["ping, FIN", "are you there?"], ["pong, FIN", "are you there?"]]],
    ["a pong", () => visible("[data-act=pong]").click(), [["pong, FIN", "I am here"]]],
    ["fragments", () => visible("[data-act=fragments]").click(), [["text", "one message"], ["continuation, FIN", "fragments"]]],
    ["fragments with more between", () => visible("[data-act=interleave]").click(), [["ping, FIN", "between fragments"], ["pong, FIN", "and again"], ["pong, FIN", "between fragments"]]],
    ["a message of a size from the server", async () => { await page.fill("#ask-size", "126"); await page.selectOption("#ask-kind", "binary"); await page.click("#ask button"); }, [["binary, FIN", "130 bytes"]]],
    ["a compressible text, on a connection of its own", () => visible("[data-act=compress]").click(), [["HTTP answer", "101"], ["text", ""]]],
    ["a heart beat", () => visible("#beat").click(), [["text, FIN", "heart beat"]]],
  ]) {
    await fresh();
    await act();
    for (const [name, has] of wanted) await latest(name, has);
    console.log(`ok    ${what}`);
  }
  want(await page.getAttribute("#beat", "aria-pressed"), "true", "the heart beat is on");
  await page.click("#beat");
  want(await page.getAttribute("#beat", "aria-pressed"), "false", "and off");
  await page.check("#show-reads");
  await visible("[data-act=ping]").click();
  await page.waitForFunction(() => [...document.querySelectorAll("#events .read")].some((r) => r.offsetHeight > 0));
  console.log("ok    what each read brought");

  // The fields of a frame by keyboard, with what a screen reader says of them.
  await fresh();
  await page.fill("#text", "Hello");
  await page.click("#say button");
  await latest("text, FIN", "7 bytes");
  const grid = page.locator("#events .card[open] .bits").last();
  await grid.locator("button").first().focus();
  const heard = () => page.evaluate(() => document.activeElement.textContent);
  want(await heard(), "FIN1: FIN 1, the only frame of its message, RFC 6455 §5.4", "the first field says what it is");
  await page.keyboard.press("End");
  want((await heard()).includes(": payload"), true, "End goes to the last");
  await page.keyboard.press("Home");
  await page.keyboard.press("ArrowRight");
  want((await heard()).startsWith("RSV10: RSV1 0, as it must be"), true, "an arrow goes to the next");
  want((await page.locator("#events .card[open] .why").last().textContent()).startsWith("RSV1 0: "), true, "and explains it");
  await everywhere("talk");

  // Closing, by both sides, and what a script may not.
  await page.fill("#code", "1002");
  await page.click("#close button");
  await page.waitForFunction(() => document.getElementById("trouble").textContent.includes("not with 1002"));
  console.log("ok    a script may not close with 1002");
  for (const [by, code] of [["server", "1012"], ["me", "4000"]]) {
    await page.selectOption("#close-by", by);
    await page.fill("#code", code);
    await page.fill("#reason", "so it is");
    await page.click("#close button");
    await page.waitForFunction((c) => document.getElementById("state").textContent === (c === "1012" ? "closed with 1012: so it is" : `closed with ${c}`), code);
    console.log(`ok    closed with ${code} by ${by}`);
  }

  // Each experiment of the lab, with the code or status that it demands.
  await page.focus("#tab-talk");
  await page.keyboard.press("ArrowRight");
  await page.waitForFunction(() => document.getElementById("preset").options.length > 0);
  const presets = await page.evaluate(async () => (await (await fetch("lab/presets")).json()).presets);
  const kinds = new Set();
  for (const [i, p] of presets.entries()) {
    await page.selectOption("#preset", String(i));
    // The explanation of the bytes comes before they are sent.
    await page.waitForFunction(() => document.getElementById("said").textContent !== "");
    const outcome = async () => {
      await page.click("#run");
      await page.waitForFunction(() => document.querySelector("#result .verdict, #result .violation"));
      return page.locator("#result > *").first().evaluate((v) => ({ ...v.dataset, text: v.textContent }));
    };
    let got = await outcome();
    while (got.text.includes("try again in a moment")) got = await outcome();
    if (got.status === undefined) throw new Error(`lab, ${p.name}: ${got.text}`);
    const status = String(p.status || 101);
    want([got.code, got.status.slice(0, 3), got.violation, p.kind ? got.agrees : "false"],
      [String(p.code || ""), status, p.kind || "", p.kind ? "true" : "false"], `lab, ${p.name}: ${p.code || p.status || "nothing wrong"}`);
    if (p.kind) kinds.add(p.kind);
  }
  want(kinds.size >= 30, true, `${kinds.size} kinds of violations`);

  // Clicks that come too fast leave no connection behind that nobody closes: at most four are mirrored.
  await page.click("#tab-talk");
  await page.click("#connect");
  await page.waitForFunction(() => document.querySelector(".status").dataset.state === "open");
  await page.evaluate(() => { for (let i = 0; i < 6; i++) document.getElementById("connect").click(); });
  await page.click("#clear");
  await page.fill("#text", "after many clicks");
  await page.click("#say button");
  await page.waitForFunction(() => document.getElementById("events").textContent.includes("after many clicks"));
  want(await page.textContent("#trouble"), "", "double clicks open connections one after the other");
  await page.click("#tab-lab");

  // Bits turned over by hand: the mask of a good frame.
  await page.selectOption("#preset", { label: "a text, masked" });
  await page.waitForFunction(() => document.getElementById("said").textContent.includes("legal"));
  await page.click('[data-bit="8"]');
  await page.waitForFunction(() => document.getElementById("said").textContent.includes("not masked"));
  want(await page.inputValue("#hex"), "81 05 37 fa 21 3d 7f 9f 4d 51 58", "a bit turned over");
  await page.fill("#hex", "0x81, 0x85, 0x37FA213D\n00000006: 7f9f 4d51 58  ..MQX");
  await page.waitForFunction(() => document.getElementById("said").textContent.includes("legal"));
  await page.click('[data-bit="8"]');
  await page.waitForFunction(() => document.getElementById("said").textContent.includes("not masked"));
  want(await page.inputValue("#hex"), "81 05 37 fa 21 3d 7f 9f 4d 51 58", "and in digits that are written in another way");
  await page.selectOption("#preset", { label: "RSV1, and no compression was agreed on" });
  await page.waitForFunction(() => document.getElementById("said").textContent.includes("close with 1002"));
  console.log("ok    RSV1 without an offer is no compression");
  await page.selectOption("#preset", { label: "a text, masked" });
  await page.waitForFunction(() => document.getElementById("said").textContent.includes("legal"));
  await page.click('[data-bit="8"]');
  await page.waitForFunction(() => document.getElementById("said").textContent.includes("not masked"));
  await page.check("#chop");
  await page.click("#run");
  await page.waitForFunction(() => document.querySelector("#result .verdict")?.dataset.code === "1002");
  console.log("ok    and sent byte by byte: 1002");
  await page.fill("#hex", "xyz");
  await page.waitForFunction(() => document.getElementById("said").classList.contains("broken") && document.getElementById("said").textContent.includes("hexadecimal"));
  console.log("ok    what are no digits");
  // The browser itself says on the console that this request was answered with 400.
  want(complaints.splice(0).filter((c) => !/status of (400|429)/.test(c)), [], "the console is empty until here, but for what was refused on purpose");
  await page.selectOption("#preset", { label: "no mask" });
  await page.click("#run");
  await page.waitForFunction(() => document.querySelector("#result .verdict"));
  await everywhere("lab");

  await page.click("#tab-server");
  const served = await page.locator("#endpoints").textContent();
  want(["/wshandler", "/push", "/topics/NAME", "/healthz"].every((p) => served.includes(p)), true, "the endpoints are named");
  await everywhere("server");

  // The server's other endpoints, from a page.
  const outcome = await page.evaluate(async () => {
    const socket = new WebSocket(location.origin.replace(/^http/, "ws") + "/wshandler");
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
    const socket = new WebSocket(location.origin.replace(/^http/, "ws") + "/wshandler");
    await new Promise((resolve) => { socket.onopen = resolve; });
    const closed = new Promise((resolve) => { socket.onclose = resolve; });
    socket.send(new Uint8Array(17 << 20));
    return (await closed).code;
  });
  want(tooLarge, 1009, "17 MiB are over the limit: 1009");

  want(complaints, [], "the console is empty");
  want(strangers, [], "no other host is asked");
  want(await page.evaluate(() => window.violated), [], "the policy is kept");
} catch (e) {
  failed++;
  console.log("FAIL  " + e.message);
} finally {
  await browser.close();
  await rm(profile, { recursive: true, force: true, maxRetries: 5 });
}
process.exit(failed ? 1 : 0);
