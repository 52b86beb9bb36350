// Asks for the figures every second while somebody looks, and puts them where they belong: always as text.

const EVERY = 1000;
const PATIENCE = 4000;
const ROWS = 30;

const find = (selector, within = document) => within.querySelector(selector);
let paused = false;
let asking = false;
let timer = 0;
let answeredAt = null;
let kind = "";

/** Writes only what has changed: a reader's place and a selection stay where they are. */
function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const figure = (within, name, text) => write(find(`[data-figure="${name}"]`, within), text);

const clock = (moment) => moment.toLocaleTimeString("en-GB");

function showLookup(card, lookup) {
  const { queue, upstream, slots } = lookup;
  const judged = judge(lookup);
  const lately = tally(slots, 120);
  const opened = lately.used + lately.idle;
  figure(card, "path", lookup.path);
  figure(card, "state", judged.state);
  find(".state", card).dataset.tone = judged.tone;
  figure(card, "wait", upstream.state === "down" ? "refused" : duration(queue.promised_wait_seconds));
  figure(card, "wait-note", "for a key that is not cached");
  figure(card, "used", opened > 0 ? percent(lately.used / opened) : "–");
  figure(card, "used-note", opened > 0 ? `${count(lately.used)} of ${count(opened)} in two minutes` : "none has opened yet");
  figure(card, "batch", lately.used > 0 ? count(lately.keys / lately.used) : "–");
  figure(card, "batch-note", lookup.learned_max_batch_keys < lookup.max_batch_keys
    ? `of ${count(lookup.learned_max_batch_keys)} at most, as learned` : `of ${count(lookup.max_batch_keys)} at most`);
  figure(card, "gap", `${lookup.gap_seconds.toFixed(3)} s`);
  const margin = Math.max(0, Math.round((lookup.gap_seconds - lookup.interval_seconds) * 1000));
  figure(card, "gap-note", `interval ${Number(lookup.interval_seconds.toFixed(3))} s + ${count(margin)} ms learned margin`);
  figure(card, "top", many(lookup.max_batch_keys, "key"));
  drawSlots(find('[data-chart="slots"]', card), lookup);
  write(find('[data-name="slots-text"]', card),
    `${many(lately.used, "slot")} used with ${many(lately.keys, "key")}, ${count(lately.idle)} idle, ${count(lately.refused)} refused, ${count(lately.failed)} failed.`);
  if (find("details", card).open) showTable(find("tbody", card), slots);
  const most = Math.max(lookup.learned_max_batch_keys, queue.waiting, queue.refresh, queue.abandoned);
  for (const name of ["waiting", "refresh", "abandoned"]) {
    figure(card, name, count(queue[name]));
    drawBar(find(`[data-bar="${name}"]`, card), queue[name], most);
  }
  figure(card, "oldest", queue.waiting > 0 ? `The oldest has waited ${duration(queue.oldest_seconds)}.` : "No caller waits.");
  const { success, throttled, ...others } = upstream.requests;
  figure(card, "requests", `Since the start: ${many(success, "request")} answered, ${count(throttled)} refused by the limit, `
    + `${count(sum(Object.values(others), (number) => number))} failed; ${count(upstream.in_flight)} under way.`);
}

function showTable(body, slots) {
  const rows = slots.slice(-ROWS).reverse().map((slot) => {
    const row = document.createElement("tr");
    const became = { idle: "idle", "under-way": "under way", answered: "answered", refused: "refused", failed: "failed" };
    for (const text of [`${duration(slot.seconds_ago)} ago`, became[worstOf(slot)], count(slot.keys)]) {
      row.appendChild(document.createElement("td")).textContent = text;
    }
    return row;
  });
  body.replaceChildren(...rows);
}

function showCache({ cache, history, keys, connections, warmup }) {
  const card = find("#cache");
  const lately = shares(Object.fromEntries(Object.keys(keys).map((name) => [name, sum(history.keys, (sample) => sample[name])])));
  const cached = lately.fresh + lately.stale;
  figure(card, "ratio", lately.all > 0 ? percent(cached / lately.all) : "–");
  figure(card, "ratio-note", lately.all > 0 ? "of keys, in two minutes" : "nobody has asked for two minutes");
  figure(card, "cache-keys", count(cache.keys));
  figure(card, "connections", `${many(connections.open, "caller")} connected`);
  const fill = cache.bytes / Math.max(1, cache.capacity_bytes);
  figure(card, "cache-bytes", `${bytes(cache.bytes)} of ${bytes(cache.capacity_bytes)}`);
  find("#fill").setAttribute("aria-valuenow", Math.round(100 * Math.min(1, fill)));
  drawBar(find("#fill svg"), fill, 1);
  drawRatio(find("#ratio"), history);
  write(find("#ratio-text"), `${many(lately.fresh, "key")} answered fresh from the cache, ${count(lately.stale)} stale, ${count(lately.fetched)} had to be fetched.`);
  find("#warmup").hidden = warmup.state === "off";
  write(find("#warmup"), `Warm-up: ${warmup.state.replaceAll("_", " ")}, ${many(warmup.keys_fetched, "key")} fetched, ${count(warmup.keys_queued)} queued.`);
  card.hidden = false;
}

function cards(lookups) {
  const room = find("#lookups");
  while (room.children.length > lookups.length) room.lastElementChild.remove();
  while (room.children.length < lookups.length) {
    const number = room.children.length;
    const card = find("#lookup").content.cloneNode(true).firstElementChild;
    const named = (selector, name) => (find(selector, card).id = `${name}-${number}`);
    card.setAttribute("aria-labelledby", named("h2 span", "path"));
    const labels = [named('[data-name="slots-title"]', "slots-title"), named('[data-name="slots-text"]', "slots-text")];
    find('[data-chart="slots"]', card).setAttribute("aria-labelledby", labels.join(" "));
    find("details", card).addEventListener("toggle", look);
    room.appendChild(card);
  }
  return lookups.map((lookup, index) => [room.children[index], lookup]);
}

function say(judged) {
  write(find("#verdict"), judged.verdict);
  write(find("#advice"), judged.advice);
  find("#summary").dataset.tone = judged.tone;
  document.title = `${judged.verdict.split(":")[0]} · audience-gateway`;
  // Read out when it becomes another one, and not each time that a number in it changes.
  if (judged.kind !== kind) write(find("#announce"), judged.verdict);
  kind = judged.kind;
}

function show(status) {
  answeredAt = new Date();
  document.body.classList.remove("gone");
  say(overall(status));
  for (const [card, lookup] of cards(status.lookups)) showLookup(card, lookup);
  showCache(status);
  const footer = find("footer");
  figure(footer, "version", status.version);
  figure(footer, "revision", status.revision);
  figure(footer, "uptime", uptime(status.uptime_seconds));
  footer.hidden = false;
  live("live", `Live, ${clock(answeredAt)}`);
}

function showGone() {
  document.body.classList.add("gone");
  const since = answeredAt ? `What is shown below is from ${clock(answeredAt)}.` : "It has not answered since this page was opened.";
  say({ verdict: "The gateway does not answer.", advice: `${since} This page goes on asking.`, tone: "bad", kind: "gone" });
  live("gone", "No answer");
}

function live(state, text) {
  find("#pulse").dataset.state = state;
  write(find("#freshness"), text);
}

/** The figures; none when the gateway does not answer. */
async function ask() {
  try {
    const answer = await fetch("/status.json", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
    return answer.ok ? await answer.json() : null;
  } catch {
    return null;
  }
}

async function look() {
  if (asking) return;
  asking = true;
  clearTimeout(timer);
  const status = await ask();
  asking = false;
  goOn();
  if (paused) return;
  if (status) show(status);
  else showGone();
}

function goOn() {
  clearTimeout(timer);
  if (!paused && !document.hidden) timer = setTimeout(look, EVERY);
}

find("#pause").addEventListener("click", ({ currentTarget }) => {
  paused = !paused;
  currentTarget.setAttribute("aria-pressed", String(paused));
  if (!paused) {
    look();
    return;
  }
  clearTimeout(timer);
  live("paused", answeredAt ? `Paused at ${clock(answeredAt)}` : "Paused");
});
document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : look()));
look();
