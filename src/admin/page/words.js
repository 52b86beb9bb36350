"use strict";
// Words for figures, and the verdict: what an operator wants to know first, in one sentence. Nothing here touches the page.

const COUNT = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

/** A count of things: 12,345. */
const count = (number) => COUNT.format(number);

/** So many of them: 1 key, 2 keys. */
const many = (number, one, more = `${one}s`) => `${count(number)} ${number === 1 ? one : more}`;

/** A wait as people say it. */
function duration(seconds) {
  if (seconds < 0.095) return "under 0.1 s";
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  if (seconds < 119.5) return `${Math.round(seconds)} s`;
  return `${Math.round(seconds / 60)} min`;
}

/** How long it has been up, in its two largest units. */
function uptime(seconds) {
  const whole = Math.floor(seconds);
  const [days, hours, minutes] = [Math.floor(whole / 86400), Math.floor(whole / 3600) % 24, Math.floor(whole / 60) % 60];
  if (days > 0) return `${days} d ${hours} h`;
  if (hours > 0) return `${hours} h ${minutes} min`;
  return minutes > 0 ? `${minutes} min ${whole % 60} s` : `${whole} s`;
}

/** Bytes in the unit in which they are configured. */
function bytes(number) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const power = Math.min(units.length - 1, number < 1 ? 0 : Math.floor(Math.log2(number) / 10));
  const scaled = number / 1024 ** power;
  return `${scaled.toFixed(power > 0 && scaled < 100 ? 1 : 0)} ${units[power]}`;
}

/** A part of one. */
function percent(part) {
  if (part > 0.995 && part < 1) return `${(Math.floor(part * 1000) / 10).toFixed(1)} %`;
  return `${Math.round(part * 100)} %`;
}

const sum = (items, of) => items.reduce((total, item) => total + of(item), 0);

/** How many requests went in a slot. */
const requests = (slot) => slot.under_way + slot.answered + slot.refused + slot.failed;

/** What became of the slots of so many seconds, in sums. */
function tally(slots, seconds) {
  const seen = slots.filter((slot) => slot.seconds_ago <= seconds);
  const of = (name) => sum(seen, (slot) => slot[name]);
  const used = sum(seen, requests);
  return { used, idle: of("idle"), answered: of("answered"), refused: of("refused"), failed: of("failed"), keys: of("keys") };
}

/** What is to be said of one lookup path; of several, the one with the highest rank comes first. */
function judge({ slots, queue, upstream, gap_seconds: gap, learned_max_batch_keys: room }) {
  const wait = `a new caller waits ${about(queue.promised_wait_seconds)}`;
  const lately = tally(slots, 30);
  if (upstream.state === "down") {
    return { rank: 6, tone: "bad", state: "Down", verdict: "The upstream is down: what is cached is answered, a new caller is refused at once.",
      advice: "Several requests in a row failed. One key at a time finds out whether it is back." };
  }
  if (upstream.state === "failing") {
    return { rank: 5, tone: "bad", state: "Failing", verdict: `The upstream does not answer: ${wait}, if it is back by then.`,
      advice: "The last request failed. Keys stay queued and go again." };
  }
  if (lately.refused >= 3 && lately.refused > lately.used / 5) {
    return { rank: 4, tone: "bad", state: "Refusing", verdict: `The upstream refuses ${count(lately.refused)} of ${many(lately.used, "request")}: ${wait}.`,
      advice: "It says that it is asked too often, although the gap is kept: something else may be asking with the same credential." };
  }
  const behind = Math.ceil(queue.waiting / room);
  if (queue.waiting > room || queue.promised_wait_seconds > 3 * gap) {
    return { rank: 3, tone: "busy", state: "Up, the bottleneck", verdict: `The upstream is the bottleneck: ${many(queue.waiting, "key")} ${queue.waiting === 1 ? "waits" : "wait"}, ${wait}.`,
      advice: `The queue is ${many(behind, "request")} long, ${duration(behind * gap)} at the gap that is kept. Places are shared fairly: who asks for little waits less.` };
  }
  const slotsSeen = lately.used + lately.idle;
  if (slotsSeen >= 10 && lately.used >= 0.9 * slotsSeen) {
    return { rank: 2, tone: "good", state: "Up, every slot in use", verdict: `The upstream keeps up: ${wait}.`,
      advice: `Nearly every slot is used, with ${count(lately.keys / Math.max(1, lately.used))} of ${count(room)} keys in each: ${lately.keys > 0.8 * room * lately.used ? "there is little room left" : "there is room for more"}.` };
  }
  return { rank: 1, tone: "good", state: "Up", verdict: `The upstream keeps up: ${wait}.`,
    advice: queue.waiting > 0 ? `${many(queue.waiting, "key")} will ride in the next request.` : "Nobody waits." };
}

const about = (seconds) => (seconds < 0.095 ? duration(seconds) : `about ${duration(seconds)}`);

/** The verdict over the whole gateway. */
function overall(status) {
  if (status.phase !== "ready") {
    const draining = status.phase === "draining";
    return { tone: "busy", kind: status.phase, verdict: draining ? "The gateway is shutting down: it answers who waits and takes nobody new." : "The gateway is starting.", advice: "" };
  }
  const judged = status.lookups.map((lookup) => ({ path: lookup.path, ...judge(lookup) }));
  const worst = judged.reduce((one, other) => (other.rank > one.rank || (other.rank === one.rank && waitOf(status, other) > waitOf(status, one)) ? other : one));
  const several = judged.length > 1 && worst.rank > 2;
  const verdict = several ? worst.verdict.replace(/^The upstream/, `For ${worst.path} the upstream`) : worst.verdict;
  return { ...worst, verdict, kind: worst.state };
}

const waitOf = (status, judged) => status.lookups.find((lookup) => lookup.path === judged.path).queue.promised_wait_seconds;

