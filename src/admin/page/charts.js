// Pictures: two minutes from left to right, ten units of the drawing to a second.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 1200;
const PER_SECOND = 10;
const TIMELINE = 120;
const RATIO = 80;

function rectangle(kind, x, y, width, height) {
  const made = document.createElementNS(SVG, "rect");
  made.setAttribute("class", kind);
  for (const [name, value] of Object.entries({ x, y, width, height })) made.setAttribute(name, Math.max(0, value).toFixed(1));
  return made;
}

/** The worst that became of the requests of a slot, which is what its colour says. */
function worstOf(slot) {
  if (slot.refused > 0) return "refused";
  if (slot.failed > 0) return "failed";
  if (slot.under_way > 0) return "under-way";
  return slot.answered > 0 ? "answered" : "idle";
}

/** One bar for each slot, as high as it carried keys; a slot that nobody wanted is a low mark. */
function drawSlots(svg, { slots, gap_seconds: gap, max_batch_keys: room }) {
  const drawn = [];
  slots.forEach((slot, index) => {
    const next = slots[index + 1];
    const seconds = next ? Math.min(gap, slot.seconds_ago - next.seconds_ago) : gap;
    const x = WIDTH - slot.seconds_ago * PER_SECOND;
    const width = Math.max(1.5, Math.min(seconds * PER_SECOND, WIDTH - x) - 2);
    const kind = worstOf(slot);
    if (kind === "idle") {
      drawn.push(rectangle(kind, x, TIMELINE - 5, width, 5));
      return;
    }
    const height = Math.max(9, (TIMELINE - 4) * Math.min(1, slot.keys / requests(slot) / room));
    if (kind === "refused" || kind === "failed") drawn.push(rectangle(`${kind} cap`, x, 2, width, TIMELINE - 2));
    drawn.push(rectangle(kind, x, TIMELINE - height, width, height));
  });
  svg.replaceChildren(...drawn);
}

/** How the keys of one span were answered: from the cache while fresh, from the cache though stale, or fetched. */
function shares(keys) {
  const fresh = keys.hit + keys.negative;
  const fetched = keys.miss + keys.bypass;
  return { fresh, stale: keys.stale, fetched, all: fresh + keys.stale + fetched };
}

/** One column for each span, divided as its keys were. A span in which nobody asked is empty. */
function drawRatio(svg, { sample_seconds: span, keys: samples }) {
  const drawn = [];
  for (const sample of samples) {
    const { fresh, stale, fetched, all } = shares(sample);
    if (all === 0) continue;
    const [x, width] = [WIDTH - (sample.seconds_ago + span) * PER_SECOND, span * PER_SECOND - 2];
    let y = RATIO;
    for (const [kind, number] of [["fresh", fresh], ["stale", stale], ["miss", fetched]]) {
      const height = (RATIO * number) / all;
      y -= height;
      if (number > 0) drawn.push(rectangle(kind, x, y, width, height));
    }
  }
  svg.replaceChildren(...drawn);
}

/** A bar as long as this is of the most. */
function drawBar(svg, number, most) {
  const bar = svg.firstElementChild ?? svg.appendChild(rectangle("answered", 0, 0, 0, 8));
  bar.setAttribute("width", (100 * Math.min(1, number / most)).toFixed(1));
}

