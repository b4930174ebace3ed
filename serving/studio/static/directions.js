// Directions as people read them. Bundles say no more of a direction than its name, range and description.

const GROUPS = [
  ["Expression", /smil|happ|laugh|ang(er|ry)|surpris|sad|fear|disgust|frown|mouth|lip|teeth|eye|gaze|brow|expression/],
  ["Person", /\bage|old|young|male|gender|femin|mascul|chubby|weight|skin/],
  ["Pose", /yaw|pitch|roll|pose|rotat|turn|head/],
  ["Looks", /glass|beard|hair|bald|bang|makeup|lipstick|mustache|moustache|hat|earring/],
];
const OTHER = "More";

/** The group of a direction, by its name and else by its description. */
export function groupOf({ name, description }) {
  for (const text of [name, description]) {
    const hit = GROUPS.find(([, pattern]) => pattern.test(text.toLowerCase()));
    if (hit) return hit[0];
  }
  return OTHER;
}

/** [group, directions] in the order in which groups are shown. */
export function grouped(directions) {
  const order = [...GROUPS.map(([name]) => name), OTHER];
  return order.map((name) => [name, directions.filter((one) => groupOf(one) === name)]).filter(([, all]) => all.length);
}

/** "smile_2" as "Smile 2". */
export const title = (name) => name.charAt(0).toUpperCase() + name.slice(1).replaceAll(/[_.-]+/g, " ");

/** What the ends of a slider mean, from "neutral to smiling"; the whole description where it is no such pair. */
export function ends(description) {
  const pair = description.split(" to ");
  const short = pair.length === 2 && pair.every((end) => end && end.split(" ").length <= 3);
  return short ? pair : [description];
}

/** Steps of a slider: about eighty over the range, of a round size, so that zero is one of them. */
export function stepOf({ min_strength: low, max_strength: high }) {
  const rough = (high - low) / 80;
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].map((one) => one * power).find((one) => one >= rough * 0.999);
}

/** A strength as text: "+1.5", "−2", "0". */
export function signed(value) {
  const text = String(Number(Math.abs(value).toPrecision(4)));
  return value > 0 ? `+${text}` : value < 0 ? `−${text}` : "0";
}

/** Seven strengths over the range, zero among them. */
export function stripOf({ min_strength: low, max_strength: high }) {
  const places = low < 0 && high > 0 ? [1, 2 / 3, 1 / 3].map((x) => x * low).concat(0, [1 / 3, 2 / 3, 1].map((x) => x * high)) : Array.from({ length: 7 }, (_, i) => low + (i * (high - low)) / 6);
  return places.map((value) => Number(value.toFixed(2)));
}
