// What is drawn here and not by the server: the face as the photo has it, and the heat map.

/** The matrix by which canvas takes the unit square to a quad: corners top left, bottom left, bottom right, top right. */
function toQuad([topLeft, bottomLeft, , topRight]) {
  const across = [topRight[0] - topLeft[0], topRight[1] - topLeft[1]];
  const down = [bottomLeft[0] - topLeft[0], bottomLeft[1] - topLeft[1]];
  return new DOMMatrix([...across, ...down, ...topLeft]);
}

export const wholeQuad = (width, height) => [[0, 0], [0, height], [width, height], [width, 0]];

/** The face in the photo, cut out as the model sees it: a URL of a JPEG. */
export async function cutOut(bitmap, quad, width, height) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.setTransform(new DOMMatrix().scale(width, height).multiply(toQuad(quad).inverse()));
  context.drawImage(bitmap, 0, 0);
  return URL.createObjectURL(await canvas.convertToBlob({ type: "image/jpeg", quality: 0.92 }));
}

const RAMP = [
  [0, [255, 214, 92, 0]],
  [0.25, [255, 196, 60, 0.12]],
  [0.55, [255, 120, 40, 0.52]],
  [1, [226, 20, 96, 0.82]],
];

/** The colour of a level in [0, 1], RGB and opacity. */
export function heat(level) {
  const place = Math.max(1, RAMP.findIndex(([at]) => at >= level));
  const [[from, a], [to, b]] = [RAMP[place - 1], RAMP[place]];
  const share = (level - from) / (to - from);
  return a.map((value, i) => value + share * (b[i] - value));
}

/**
 * Draws grey levels as heat.
 *
 * @param canvas what is drawn to
 * @param blob the picture of the levels, of any size
 * @param size [width, height] of what lies below it
 * @param quad where the map lies in that
 */
export async function drawHeat(canvas, blob, [width, height], quad) {
  const levels = await createImageBitmap(blob);
  const small = new OffscreenCanvas(levels.width, levels.height);
  const context = small.getContext("2d");
  context.drawImage(levels, 0, 0);
  const image = context.getImageData(0, 0, small.width, small.height);
  // What an edit does everywhere says nothing of where it acts.
  const low = image.data.reduce((least, value, i) => (i % 4 ? least : Math.min(least, value)), 255);
  for (let i = 0; i < image.data.length; i += 4) {
    const [red, green, blue, opacity] = heat((image.data[i] - low) / Math.max(1, 255 - low));
    image.data.set([red, green, blue, 255 * opacity], i);
  }
  context.putImageData(image, 0, 0);
  const scale = Math.min(1, 1024 / Math.max(width, height));
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const paper = canvas.getContext("2d");
  paper.imageSmoothingQuality = "high";
  const matrix = new DOMMatrix().scale(scale).multiply(toQuad(quad));
  paper.setTransform(matrix.scale(1 / small.width, 1 / small.height));
  paper.drawImage(small, 0, 0);
}
