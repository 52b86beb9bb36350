// Takes the picture of the status page that the README shows, and with `all` as third argument those of the other schemes
// beside it: after two minutes of load that has something of everything.

import { resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

import { browser, desk, gateway, lookup, range } from "./running.mjs";

const [program, picture, all] = process.argv.slice(2);

/** Seconds of load: what the page shows, and a little more. */
const SECONDS = 125;
const LOOKUPS = "[[lookup]]\nmax_batch_keys = 100\n[cache]\ncapacity = \"16MiB\"\nttl = \"20s\"\nstale_while_revalidate = \"1m\"\n";

/** A customer that is popular more often than not: the same ones each time, so that pictures are alike. */
function popularity(seed) {
  let state = seed;
  const random = () => (state = (state * 48271) % 2147483647) / 2147483647;
  return () => Math.floor(9000 * random() ** 5);
}

/** How many lookups of how many keys, in each second: quiet, a working day, then a campaign. */
function demand(second) {
  if (second < 12) return second % 5 === 0 ? [2, 2] : [0, 0];
  if (second < 75) return [Math.round(16 + 10 * Math.sin(second / 6)), 3];
  return [20, 3];
}

async function load({ callers, upstream }) {
  const [next, under] = [popularity(7), []];
  for (const second of range(0, SECONDS)) {
    const [callersNow, keys] = demand(second);
    for (const caller of range(0, callersNow)) {
      under.push(sleep((1000 * caller) / callersNow).then(() => lookup(callers, { indices: range(0, keys).map(next) })));
    }
    // Somebody else asks with the same credential, for a while.
    if (second >= 50 && second < 54) under.push(sleep(500).then(() => lookup(upstream, { indices: [1] })));
    if (second === 108) under.push(...range(0, 4).map((part) => lookup(callers, { indices: range(9000 + part * 250, 9250 + part * 250) })));
    await sleep(1000);
  }
  return under;
}

async function take(page, path, colorScheme, width) {
  await page.emulateMedia({ colorScheme });
  await page.setViewportSize({ width, height: 800 });
  await sleep(200);
  await page.screenshot({ path, fullPage: true });
}

await desk(resolve(program), (tools) => browser(async (opened) => {
  const running = await gateway(tools, LOOKUPS);
  const page = await (await opened.newContext({ viewport: { width: 1100, height: 800 } })).newPage();
  await page.goto(running.operators);
  const loading = load(running);
  // While the campaign's queue is long.
  await sleep(1000 * (SECONDS - 11));
  await take(page, picture, "light", 1100);
  if (all) {
    const beside = (name) => picture.replace(/\.png$/, `-${name}.png`);
    await take(page, beside("dark"), "dark", 1100);
    await take(page, beside("phone"), "light", 360);
    await take(page, beside("phone-dark"), "dark", 360);
  }
  await running.stop();
  await Promise.all(await loading);
}));
