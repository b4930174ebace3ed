// Ways in for a photo: drop, paste, choose, camera, the sample.

import { $ } from "./dom.js";

export const TYPES = ["image/jpeg", "image/png", "image/webp"];

/** @param take (File | Blob, name) => void, called with what was given, whatever it is. */
export function intake(take) {
  const first = (files) => [...(files ?? [])][0];
  const offer = (file) => file && take(file, file.name || "photo.png");

  for (const id of ["file", "capture"]) {
    $(id).addEventListener("change", () => {
      offer(first($(id).files));
      $(id).value = "";
    });
  }
  $("choose").addEventListener("click", () => $("file").click());
  addEventListener("paste", (event) => offer(first(event.clipboardData?.files)));

  let depth = 0;
  const dragging = (change) => {
    depth = Math.max(0, depth + change);
    document.body.classList.toggle("dragging", depth > 0);
  };
  addEventListener("dragenter", (event) => event.dataTransfer?.types.includes("Files") && dragging(1));
  addEventListener("dragleave", () => dragging(-1));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    dragging(-depth);
    offer(first(event.dataTransfer?.files));
  });

  $("sample").addEventListener("click", async () => {
    const answer = await fetch("/studio/sample.jpg").catch(() => null);
    if (answer?.ok) take(await answer.blob(), "astronaut.jpg");
  });

  $("camera").addEventListener("click", () => camera(take));
}

/** Takes a picture with the camera; where the page may not, the system's own camera does. */
async function camera(take) {
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user", width: 1920, height: 1440 } });
  } catch {
    $("capture").click();
    return;
  }
  const [dialog, video] = [$("camera-dialog"), $("video")];
  const shoot = async () => {
    const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
    canvas.getContext("2d").drawImage(video, 0, 0);
    const photo = await canvas.convertToBlob({ type: "image/jpeg", quality: 0.95 });
    dialog.close();
    take(photo, "camera.jpg");
  };
  $("shoot").addEventListener("click", shoot);
  dialog.addEventListener(
    "close",
    () => {
      stream.getTracks().forEach((track) => track.stop());
      video.srcObject = null;
      $("shoot").removeEventListener("click", shoot);
    },
    { once: true },
  );
  video.srcObject = stream;
  dialog.showModal();
  await video.play();
}
