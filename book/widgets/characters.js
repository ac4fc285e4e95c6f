// Characters, bytes and tokens: which belongs to which, and how each is shown so that it can be seen.
const encoder = new TextEncoder();
const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

const SHOWN = new Map([[" ", "\u00b7"], ["\n", "\u21b5"], ["\t", "\u21e5"], ["\r", "\u240d"], ["\x7f", "\u2421"]]);
const SPOKEN = new Map([[" ", "space"], ["\n", "new line"], ["\t", "tab"], ["\r", "carriage return"]]);
const HIDDEN = /[\p{C}\p{Z}\p{Default_Ignorable_Code_Point}]/u; // draws nothing, or turns its neighbours around
const MARK = /\p{M}/u; // stands on the character before it

const point = (char) => `U+${char.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
export const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).toUpperCase().padStart(2, "0")).join(" ");

/** A character as it is shown; `alone` when nothing stands before it that a mark could stand on. */
function visible(char, alone) {
  if (SHOWN.has(char)) return SHOWN.get(char);
  if (char < " ") return String.fromCodePoint(0x2400 + char.codePointAt(0));
  if (HIDDEN.test(char)) return point(char);
  return alone && MARK.test(char) ? `\u25cc${char}` : char;
}

function spoken(char) {
  return SPOKEN.get(char) ?? (char < " " || HIDDEN.test(char) || MARK.test(char) ? point(char) : char);
}

/** The characters of a text over its bytes. */
export class Bytes {
  constructor(text) {
    this.bytes = encoder.encode(text);
    this.owner = []; // of each byte: [character, its first byte, the byte after it]
    for (const char of text) {
      const start = this.owner.length, length = encoder.encode(char).length;
      const entry = [char, start, start + length];
      for (let i = 0; i < length; i++) this.owner.push(entry);
    }
  }

  /** The bytes from `start` to `end` as parts: {text, said}, or {hex, char} for a piece of a character. */
  parts(start, end) {
    const parts = [];
    for (let at = start; at < end;) {
      const [char, first, after] = this.owner[at];
      const stop = Math.min(after, end), last = parts[parts.length - 1];
      if (at > first || stop < after) parts.push({ hex: hex(this.bytes.subarray(at, stop)), char });
      else if (last?.said) {
        last.text += visible(char, false);
        last.said.push(spoken(char));
      } else parts.push({ text: visible(char, true), said: [spoken(char)] });
      at = stop;
    }
    return parts;
  }

  /** Whether a cut at `at` would go through a character. */
  isInside(at) { return at < this.owner.length && this.owner[at][1] < at; }
}

/** Parts in words, for a screen reader. */
export function say(parts) {
  return parts.map((part) => {
    if (part.hex) return `byte ${part.hex}`;
    let text = "";
    part.said.forEach((word, i) => {
      const joined = word.length === 1 && (part.said[i - 1]?.length ?? 0) === 1;
      text += joined ? word : ` ${word}`;
    });
    return text.trim();
  }).join(", ");
}

/** Bytes on their own: text where they are whole characters, else hexadecimal. */
export function nameOf(bytes) {
  try {
    return Array.from(strict.decode(bytes), (char, i) => visible(char, i === 0)).join("");
  } catch {
    return hex(bytes);
  }
}
