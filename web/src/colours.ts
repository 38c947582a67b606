/** Colours of levels and gains, in perceptually even steps. */

type Stop = [number, number, number, number]; // position, red, green, blue

// From the page's background to bright: lightness changes evenly, so equal steps look equal.
const DARK: Stop[] = [
  [0, 20, 17, 15],
  [0.25, 49, 30, 36],
  [0.45, 99, 41, 46],
  [0.65, 168, 76, 42],
  [0.82, 224, 140, 62],
  [0.94, 246, 206, 132],
  [1, 255, 243, 214],
];
const LIGHT: Stop[] = [
  [0, 252, 249, 244],
  [0.25, 240, 225, 203],
  [0.45, 222, 184, 140],
  [0.65, 186, 120, 74],
  [0.82, 131, 66, 43],
  [0.94, 78, 34, 30],
  [1, 40, 18, 20],
];
// Under an overlay the picture loses its colour, and stays between ground and a middle grey, so that
// gains are seen where the energy is.
const DARK_GREY: Stop[] = [
  [0, 20, 17, 15],
  [0.5, 66, 62, 58],
  [1, 150, 145, 138],
];
const LIGHT_GREY: Stop[] = [
  [0, 252, 249, 244],
  [0.5, 214, 209, 202],
  [1, 128, 122, 116],
];
// Cut and boost: people with any colour blindness but total can tell blue from orange-red.
const CUT: Stop[] = [
  [0, 74, 144, 217],
  [1, 30, 84, 190],
];
const CUT_DARK: Stop[] = [
  [0, 96, 165, 240],
  [1, 130, 200, 255],
];
const BOOST: Stop[] = [
  [0, 238, 120, 50],
  [1, 196, 40, 24],
];
const BOOST_DARK: Stop[] = [
  [0, 255, 140, 70],
  [1, 255, 92, 56],
];

const MOST_OPAQUE = 0.88;

export function isDark(): boolean {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function mixed(stops: Stop[], at: number): [number, number, number] {
  let upper = stops.findIndex((stop) => stop[0] >= at);
  if (upper < 0) upper = stops.length - 1;
  if (upper === 0) return [stops[0][1], stops[0][2], stops[0][3]];
  const [a, b] = [stops[upper - 1], stops[upper]];
  const share = (at - a[0]) / (b[0] - a[0] || 1);
  return [1, 2, 3].map((n) => a[n] + (b[n] - a[n]) * share) as [number, number, number];
}

const packed = (r: number, g: number, b: number, a: number) => ((a << 24) | (b << 16) | (g << 8) | r) >>> 0;

/** Returns the share of a level byte (half-decibels) above the background, which is 75 dB below `top`. */
export function levelShare(byte: number, top: number): number {
  return Math.min(1, Math.max(0, (byte - (top - 150)) / 150));
}

/** Returns the colours of level bytes, brightest at `top`; grey under an overlay. */
export function levelColours(top: number, grey: boolean): Uint32Array {
  const stops = isDark() ? (grey ? DARK_GREY : DARK) : grey ? LIGHT_GREY : LIGHT;
  return Uint32Array.from({ length: 256 }, (_, byte) => {
    const [r, g, b] = mixed(stops, levelShare(byte, top));
    return packed(r, g, b, 255);
  });
}

/** Returns the colour of a gain as a share of the full scale; transparent at 0 dB. */
export function gainColour(db: number, reach: number): [number, number, number, number] {
  const share = Math.min(1, Math.abs(db) / reach);
  const dark = isDark();
  const stops = db < 0 ? (dark ? CUT_DARK : CUT) : dark ? BOOST_DARK : BOOST;
  const [r, g, b] = mixed(stops, share);
  return [r, g, b, Math.round(255 * MOST_OPAQUE * share ** 0.8)];
}

/** Returns the colours of gain bytes (quarter-decibels around 128) at an amount; full at `reach` dB. */
export function gainColours(amount: number, reach: number, flat: boolean): Uint32Array {
  return Uint32Array.from({ length: 256 }, (_, byte) => {
    const [r, g, b, a] = gainColour(((byte - 128) / 4) * amount, reach);
    if (!flat) return packed(r, g, b, a);
    const share = a / 255 / MOST_OPAQUE;
    const mix = plain().map((ground, n) => ground + ([r, g, b][n] - ground) * Math.min(1, share));
    return packed(mix[0], mix[1], mix[2], 255);
  });
}

const plain = () => (isDark() ? [38, 34, 31] : [245, 241, 234]);

/** Returns the colour of no gain, and that of the hatching where nothing sounds. */
export function neutral(): { ground: number; line: number } {
  const [r, g, b] = plain();
  const [x, y, z] = isDark() ? [70, 64, 58] : [216, 208, 196];
  return { ground: packed(r, g, b, 255), line: packed(x, y, z, 255) };
}
