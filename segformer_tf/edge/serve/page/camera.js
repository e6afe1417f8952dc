// Frames of a camera, one after another.
import { InputError } from "./errors.js";

const REASONS = {
  NotAllowedError: "the browser was not allowed to use a camera",
  NotFoundError: "this computer has no camera",
  NotReadableError: "another program uses the camera",
};

export class Camera {
  static async open() {
    if (!navigator.mediaDevices) throw new InputError("no camera: a browser gives one to pages on localhost or https only");
    const camera = new Camera();
    try {
      const wanted = { facingMode: "environment", width: { ideal: 1280 }, height: { ideal: 720 } };
      camera.stream = await navigator.mediaDevices.getUserMedia({ video: wanted });
    } catch (error) {
      throw new InputError(`no camera: ${REASONS[error.name] ?? error.message}`);
    }
    camera.video = Object.assign(document.createElement("video"), { muted: true, playsInline: true });
    camera.video.srcObject = camera.stream;
    await camera.video.play();
    return camera;
  }

  /** The newest frame. */
  frame() {
    if (this.stream.getVideoTracks()[0].readyState === "ended") throw new InputError("the camera is gone");
    return createImageBitmap(this.video);
  }

  close() {
    for (const track of this.stream.getTracks()) track.stop();
    this.video.srcObject = null;
  }
}
