// The edit at hand as something to run elsewhere.

// A name that means nothing to a shell, to curl's -F or to Python; any other is replaced.
const PLAIN = /^[A-Za-z0-9_][A-Za-z0-9_.-]*$/;

/**
 * @param kind "command", "python" or "curl"
 * @param edit {edits, name, face, aligned, paste, format, origin, secured, bundle}: `name` is the photo's file name,
 *   `bundle` the bundle's where it is not the default.
 */
export function recipe(kind, { edits, name, face, aligned, paste, format, origin, secured, bundle }) {
  const photo = PLAIN.test(name) ? name : "photo.jpg";
  const suffix = format === "jpeg" ? "jpg" : format;
  const which = aligned ? "aligned" : face ? "face" : "";
  if (kind === "command") {
    const words = [`edgedit edit ${photo}`, ...Object.entries(edits).map(([name, value]) => `-d ${name}:${value}`)];
    if (which) words.push(which === "face" ? `--face ${face}` : "--aligned");
    if (bundle) words.push("-b BUNDLE");
    return `${[...words, `-o edited.${suffix}`].join(" ")}\n`;
  }
  const dictionary = JSON.stringify(edits).replaceAll(":", ": ").replaceAll(",", ", ");
  if (kind === "python") {
    const options = which === "face" ? `, face=${face}` : which ? ", aligned=True" : "";
    const load = bundle ? `edgedit.Editor.load("BUNDLE")` : "edgedit.Editor.load()";
    const lines = ["from PIL import Image", "", "import edgedit", "", `editor = ${load}`];
    if (paste) {
      lines.push(`picture = editor.edit_photo("${photo}", ${dictionary}${options})`);
    } else {
      lines.push(`portrait = editor.portrait("${photo}"${options})`, `picture = portrait.edit_face(${dictionary})`);
    }
    return `${[...lines, `Image.fromarray(picture).save("edited.${suffix}")`].join("\n")}\n`;
  }
  const words = [`curl -F photo=@${photo}`, `-F 'edits=${dictionary}'`, `-F format=${format}`];
  if (which) words.push(which === "face" ? `-F face=${face}` : "-F aligned=true");
  if (!paste) words.push("-F paste_back=false");
  if (secured) words.push(`-H "Authorization: Bearer $KEY"`);
  return `${[...words, `${origin}/v1/edits -o edited.${suffix}`].join(" \\\n  ")}\n`;
}
