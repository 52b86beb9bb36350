// Looks at the status page as a person does, in a browser, with load on: what it shows is what /metrics says, it refreshes
// itself, it is usable by everybody, it asks nobody else, and it says so when the gateway is gone.

import assert from "node:assert/strict";
import { resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

import { AXE, DETAIL, TAGS, browser, desk, gateway, lookup, metrics, range, until } from "./running.mjs";

/** Small batches: a few hundred keys are a queue. */
const LOOKUPS = `[[lookup]]\npath = "${DETAIL}"\nmax_batch_keys = 20\n[[lookup]]\npath = "${TAGS}"\n`;
const [program] = process.argv.slice(2).map((path) => resolve(path));
const verdict = (page) => page.textContent("h1");

/** Every figure on the page: those of the first lookup path, of the cache and of the foot. */
const figures = (page) => page.evaluate(() => {
  const all = {};
  for (const element of document.querySelectorAll("[data-figure]")) all[element.dataset.figure] ??= element.textContent;
  for (const [index, text] of document.querySelectorAll('[id^="slots-text"]').entries()) all[`slots-${index}`] = text.textContent;
  return all;
});

const number = (text) => Number(text.replaceAll(",", ""));

async function reads(page, pattern) {
  await until(`the verdict to be ${pattern}`, async () => {
    const text = await verdict(page);
    return { done: pattern.test(text), instead: text };
  });
}

/** Reads the page and the metrics until the page stood still around the scrape; then they must agree. */
async function agrees(page, operators, figuresOf) {
  await until("the page to agree with /metrics", async () => {
    const [before, scraped, shown] = [await figures(page), await metrics(operators), await figures(page)];
    const wrong = figuresOf(shown, scraped).filter(([, one, other]) => one !== other);
    return { done: wrong.length === 0 && JSON.stringify(before) === JSON.stringify(shown), instead: wrong };
  });
}

const inQueue = (shown, scraped) => ["waiting", "refresh", "abandoned"].map((name) =>
  [name, number(shown[name]), scraped.get(`gateway_queue_keys{class="${name}"}`)]);

function everything(shown, scraped) {
  const of = (lookup, outcome) => scraped.get(`gateway_upstream_requests_total{lookup="${lookup}",outcome="${outcome}"}`);
  const [, answered, refused] = shown.requests.match(/([\d,]+) requests? answered, ([\d,]+) refused/);
  const used = [0, 1].map((index) => number(shown[`slots-${index}`].match(/^([\d,]+) slots? used/)[1]));
  return [
    ...inQueue(shown, scraped),
    ["cache keys", number(shown["cache-keys"]), scraped.get("gateway_cache_entries")],
    ["gap", shown.gap, `${scraped.get(`gateway_upstream_interval_seconds{lookup="${DETAIL}"}`).toFixed(3)} s`],
    ["answered", number(answered), of(DETAIL, "success")],
    ["refused", number(refused), of(DETAIL, "throttled")],
    // The test is younger than two minutes, so that no slot is forgotten.
    ["slots", used[0] + used[1], scraped.get('gateway_upstream_slots_total{used="true"}')],
    ["build", 1, scraped.get(`gateway_build_info{revision="${shown.revision}",version="${shown.version}"}`)],
  ];
}

async function accessible(page, what) {
  const violations = await page.evaluate(async () => (await axe.run(document, { resultTypes: ["violations"] })).violations);
  const told = violations.flatMap(({ id, nodes }) => nodes.map((node) => `${id}: ${node.html} ${node.failureSummary}`));
  assert.deepEqual(told, [], `axe-core, ${what}`);
}

async function looksRight(page) {
  for (const colorScheme of ["light", "dark"]) {
    for (const width of [360, 1280]) {
      await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
      await page.setViewportSize({ width, height: 800 });
      await accessible(page, `${colorScheme}, ${width} px`);
      const wide = await page.evaluate(() => document.documentElement.scrollWidth);
      assert.ok(wide <= width, `${wide} px wide at ${width} px`);
    }
    const ground = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    const light = ground.match(/\d+/g).reduce((total, part) => total + Number(part), 0) > 3 * 128;
    assert.equal(light, colorScheme === "light", ground);
  }
  const moves = await page.evaluate(() => document.getAnimations().length);
  assert.equal(moves, 0, "nothing moves for whoever wants it so");
}

/** Under load: a queue that is longer than a batch, and an upstream that somebody else asks as well. */
async function underLoad(page, { callers, operators, upstream }) {
  const load = [range(0, 240).map((index) => lookup(callers, { phones: [`1390${1_000_000 + index}`] }))];
  await reads(page, /^For \/api\/audience\/detail the upstream is the bottleneck: \d+ keys wait, a new caller waits about [\d.]+ s\.$/);
  await agrees(page, operators, inQueue);
  assert.match((await figures(page)).wait, /^[\d.]+ s$/);
  assert.equal(await page.title(), `${(await verdict(page)).split(":")[0]} · audience-gateway`);
  await page.click("details summary");
  await until("the table to have a full request", async () => {
    const text = await page.textContent("tbody");
    return { done: /answered20/.test(text), instead: text };
  });
  await looksRight(page);
  // A rival takes the upstream's slots, until the page says so.
  const rival = async () => {
    await lookup(upstream, { indices: [1] });
    return page.textContent('[id="slots-text-0"]');
  };
  await until("a refused slot to be seen", async () => {
    const text = await rival();
    return { done: !/ 0 refused/.test(text) && (await page.locator("svg .refused").count()) > 0, instead: text };
  });
  await Promise.all(load.flat());
}

async function pauses(page) {
  const asked = [];
  const count = (request) => asked.push(request.url());
  page.on("request", count);
  const asksIn = async (milliseconds) => {
    asked.length = 0;
    await sleep(milliseconds);
    return asked.length;
  };
  assert.ok((await asksIn(3500)) >= 2, "it refreshes itself");
  const hide = (hidden) => page.evaluate((hidden) => {
    Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
  }, hidden);
  await hide(true);
  await sleep(300);
  assert.equal(await asksIn(2000), 0, "nobody looks");
  await hide(false);
  assert.ok((await asksIn(2500)) >= 1, "somebody looks again");
  await page.focus("#pause");
  await page.keyboard.press("Enter");
  await sleep(300);
  assert.equal(await asksIn(2000), 0, "it is paused");
  assert.match(await page.textContent("#freshness"), /^Paused at /);
  await page.keyboard.press("Enter");
  await until("it to go on", async () => ({ done: /^Live/.test(await page.textContent("#freshness")) }));
  page.off("request", count);
}

async function withoutJavaScript(opened, operators) {
  const context = await opened.newContext({ javaScriptEnabled: false });
  const page = await context.newPage();
  await page.goto(operators);
  assert.match(await page.innerText("noscript"), /needs JavaScript.*\/status\.json.*\/metrics/s);
  await context.close();
}

/** What went wrong in the page: errors, and what its policy forbade. */
function complaints(page) {
  const heard = [];
  page.on("pageerror", (error) => heard.push(String(error)));
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && heard.push(message.text()));
  return heard;
}

async function check(opened, tools) {
  const running = await gateway(tools, LOOKUPS);
  const { operators } = running;
  const page = await (await opened.newContext({ viewport: { width: 1280, height: 800 } })).newPage();
  const [asked, heard] = [new Set(), complaints(page)];
  page.on("request", (request) => asked.add(request.url()));
  const answer = await page.goto(operators);
  assert.match(answer.headers()["content-security-policy"], /^default-src 'none'/);
  await reads(page, /^The upstream keeps up: a new caller waits (about [\d.]+|under 0.1) s\.$/);
  await agrees(page, operators, everything);
  await page.addScriptTag({ path: AXE }).then(() => assert.fail("the policy lets a script in"), () => {});
  heard.length = 0;
  await page.evaluate(await import("node:fs/promises").then((fs) => fs.readFile(AXE, "utf8")));
  await underLoad(page, running);
  await agrees(page, operators, everything);
  await pauses(page);
  await withoutJavaScript(opened, operators);
  assert.deepEqual(heard, [], "the page complains");

  await running.stop();
  await reads(page, /^The gateway does not answer\.$/);
  assert.match(await page.textContent("#advice"), /^What is shown below is from \d\d:\d\d:\d\d\./);
  await accessible(page, "when the gateway is gone");
  await running.again();
  await reads(page, /^The upstream keeps up/);
  const origins = new Set([...asked].map((url) => new URL(url)).filter(({ protocol }) => protocol !== "data:").map(({ origin }) => origin));
  assert.deepEqual([...origins], [operators], "it asks nobody else");
}

const began = Date.now();
await desk(program, (tools) => browser((opened) => check(opened, tools)));
console.log(`the status page is as it should be, ${((Date.now() - began) / 1000).toFixed(0)} s`);
