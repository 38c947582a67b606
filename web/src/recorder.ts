/** Records from the microphone, uncompressed, as WAV. */

export class Recording {
  private blocks: Float32Array[][] = [];
  private constructor(
    private context: AudioContext,
    private stream: MediaStream,
    readonly level: { peak: number },
  ) {}

  /** Starts with an input device, or with the system's. */
  static async start(device: string): Promise<Recording> {
    const chosen = device ? { deviceId: { exact: device } } : {};
    const stream = await navigator.mediaDevices.getUserMedia({
      audio: { ...chosen, echoCancellation: false, noiseSuppression: false, autoGainControl: false },
    });
    const context = new AudioContext();
    await context.audioWorklet.addModule("/recorder.js");
    const node = new AudioWorkletNode(context, "recorder");
    const recording = new Recording(context, stream, { peak: 0 });
    node.port.onmessage = ({ data }: MessageEvent<Float32Array[]>) => {
      recording.blocks.push(data);
      const peak = data[0].reduce((most, value) => Math.max(most, Math.abs(value)), 0);
      recording.level.peak = Math.max(peak, recording.level.peak * 0.97);
    };
    context.createMediaStreamSource(stream).connect(node);
    return recording;
  }

  get seconds(): number {
    return this.blocks.reduce((sum, block) => sum + block[0].length, 0) / this.context.sampleRate;
  }

  async stop(): Promise<Blob> {
    for (const track of this.stream.getTracks()) track.stop();
    const rate = this.context.sampleRate;
    await this.context.close();
    return wav(this.blocks, rate);
  }
}

/** Returns a WAV file of 32-bit floats. */
function wav(blocks: Float32Array[][], rate: number): Blob {
  const channels = blocks[0]?.length ?? 1;
  const frames = blocks.reduce((sum, block) => sum + block[0].length, 0);
  const buffer = new ArrayBuffer(44 + frames * channels * 4);
  const view = new DataView(buffer);
  const text = (at: number, word: string) => [...word].forEach((c, n) => view.setUint8(at + n, c.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + frames * channels * 4, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 3, true);
  view.setUint16(22, channels, true);
  view.setUint32(24, rate, true);
  view.setUint32(28, rate * channels * 4, true);
  view.setUint16(32, channels * 4, true);
  view.setUint16(34, 32, true);
  text(36, "data");
  view.setUint32(40, frames * channels * 4, true);
  const samples = new Float32Array(buffer, 44);
  let at = 0;
  for (const block of blocks) {
    for (let n = 0; n < block[0].length; n++) {
      for (let channel = 0; channel < channels; channel++) samples[at++] = block[channel]?.[n] ?? 0;
    }
  }
  return new Blob([buffer], { type: "audio/wav" });
}
