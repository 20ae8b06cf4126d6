// The alarm: two tones and a vibration, repeated while there is an unanswered call.

const [EVERY_MS, TONE_S] = [1200, 0.25];
const TONES_HZ = [880, 660];

export class Alarm {
  #context = null;
  #timer = null;

  /** Call this when a person touches the page: browsers allow sound only after that. */
  allow() {
    this.#context ??= globalThis.AudioContext ? new AudioContext() : null;
    this.#context?.resume();
  }

  /** Start or stop the alarm. */
  ring(isOn) {
    if (isOn === Boolean(this.#timer)) {
      return;
    }
    clearInterval(this.#timer);
    this.#timer = isOn ? setInterval(() => this.#once(), EVERY_MS) : null;
    if (isOn) {
      this.#once();
    } else if (navigator.userActivation?.hasBeenActive) {
      navigator.vibrate?.(0);
    }
  }

  #once() {
    if (navigator.userActivation?.hasBeenActive) {
      navigator.vibrate?.([300, 150, 300]);
    }
    if (this.#context?.state !== "running") {
      return;
    }
    TONES_HZ.forEach((hz, at) => {
      const from = this.#context.currentTime + at * TONE_S;
      const [tone, volume] = [this.#context.createOscillator(), this.#context.createGain()];
      tone.frequency.value = hz;
      volume.gain.setValueAtTime(0.2, from);
      volume.gain.exponentialRampToValueAtTime(0.001, from + TONE_S);
      tone.connect(volume).connect(this.#context.destination);
      tone.start(from);
      tone.stop(from + TONE_S);
    });
  }
}
