// The palette of every figure, as in tinybook.COLORS; a test compares the two.
const BLUE = "#0072B2", ORANGE = "#E69F00", GREEN = "#009E73", VERMILLION = "#D55E00";
const SKY = "#56B4E9", PURPLE = "#CC79A7", GREY = "#9AA1AD";

export const COLORS = {
  query: BLUE, key: ORANGE, value: GREEN,
  prefill: SKY, decode: VERMILLION,
  hbm: "#8C4A72", l2: PURPLE, sram: ORANGE,
  accepted: GREEN, rejected: VERMILLION,
  embedding: PURPLE, attention: BLUE, mlp: GREEN, norm: GREY, head: ORANGE,
  token: BLUE, chosen: VERMILLION, other: GREY,
  limit: GREY, measured: BLUE,
  ink: "#767d89", muted: GREY, free: "#C9CDD4",
  blue: BLUE, orange: ORANGE, green: GREEN, vermillion: VERMILLION,
  sky: SKY, purple: PURPLE, grey: GREY,
};
