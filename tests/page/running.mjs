// The program and the browser, started for a script and ended with it, and load to look at.

import { spawn } from "node:child_process";
import { createWriteStream } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

const require = createRequire(join(process.env.TOOLS, "package.json"));
const { chromium } = require("playwright-core");

export const AXE = require.resolve("axe-core/axe.min.js");
export const DETAIL = "/api/audience/detail";
export const TAGS = "/api/audience/user/tag/batchlist";

/** Milliseconds for which anything is waited. */
const PATIENCE = 20_000;

/** The ids of customers that the simulated upstream has: beyond what a number can hold, so that they are text here. */
const id = (index) => String(9_007_199_254_740_993n + 7n * BigInt(index));

/** Asks until there is something, and fails with what was waited for. */
export async function until(what, look) {
  const deadline = Date.now() + PATIENCE;
  let seen;
  while (Date.now() < deadline) {
    const { done, value, instead } = await look();
    if (done) return value;
    seen = instead;
    await sleep(50);
  }
  throw new Error(`waited for ${what}, and saw ${JSON.stringify(seen)}`);
}

/** A folder and processes that are gone when `work` is over, however it ends. */
export async function desk(program, work) {
  const folder = await mkdtemp(join(tmpdir(), "page-"));
  const running = [];
  const start = async (name, args, pattern) => {
    const output = join(folder, `${name}-${running.length}.log`);
    const clean = Object.fromEntries(Object.entries(process.env).filter(([key]) => !key.startsWith("GATEWAY_")));
    const child = spawn(program, args, { cwd: folder, env: clean, stdio: ["ignore", "pipe", "pipe"] });
    const log = createWriteStream(output);
    child.stdout.pipe(log, { end: false });
    child.stderr.pipe(log, { end: false });
    const exit = new Promise((resolve) => child.on("close", resolve));
    running.push({ child, exit });
    const found = await until(`${name} to start`, async () => {
      const text = await readFile(output, "utf8").catch(() => "");
      const match = text.match(pattern);
      return { done: match, value: match, instead: text };
    });
    const stop = async () => {
      child.kill("SIGKILL");
      await exit;
    };
    return { found: found.slice(1), stop };
  };
  const write = async (name, text) => {
    await writeFile(join(folder, name), text);
    return join(folder, name);
  };
  try {
    return await work({ start, write });
  } finally {
    for (const { child, exit } of running) {
      child.kill("SIGKILL");
      await exit;
    }
    await rm(folder, { recursive: true, force: true });
  }
}

/** A simulated upstream that allows one request a second, and a gateway in front of it on ports that are free. */
export async function gateway({ start, write }, lookups, admin = "127.0.0.1:0") {
  const simulator = await start("simulator", ["simulate", "--listen", "127.0.0.1:0"], /http:\/\/(\S+?)\//);
  const [upstream] = simulator.found;
  const config = async (operators) =>
    write("gateway.toml", `upstream.base_url = "http://${upstream}/api/open"\nserver.listen = "127.0.0.1:0"\nserver.admin_listen = "${operators}"\n${lookups}`);
  const serve = async (operators) =>
    start("gateway", ["serve", "--config", await config(operators)], /"listen":"([^"]+)","admin_listen":"([^"]+)"/);
  const first = await serve(admin);
  const [callers, operators] = first.found;
  return { callers: `http://${callers}`, operators: `http://${operators}`, upstream: `http://${upstream}/api/open`, stop: first.stop, again: () => serve(operators) };
}

/** The machine's browser, with nothing of its own to say to the network. */
export async function browser(work) {
  const quiet = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
  const opened = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", headless: true, args: quiet });
  try {
    return await work(opened);
  } finally {
    await opened.close();
  }
}

/** One lookup by ids or phones; whatever it is answered, load is load. */
export async function lookup(base, keys, path = DETAIL) {
  const list = keys.phones ? `"phoneList":${JSON.stringify(keys.phones)}` : `"audienceUserIdList":[${keys.indices.map(id)}]`;
  const request = { method: "POST", headers: { "content-type": "application/json" }, body: `{${list}}` };
  // Whose gateway is gone hears nothing.
  await fetch(base + path, request).then((answer) => answer.arrayBuffer()).catch(() => {});
}

/** The numbers from one to another. */
export const range = (from, to) => Array.from({ length: to - from }, (_, index) => from + index);

/** Metrics by their names with labels. */
export async function metrics(operators) {
  const text = await (await fetch(`${operators}/metrics`)).text();
  const samples = text.split("\n").filter((line) => line && !line.startsWith("#"));
  return new Map(samples.map((line) => [line.slice(0, line.lastIndexOf(" ")), Number(line.slice(line.lastIndexOf(" ") + 1))]));
}
