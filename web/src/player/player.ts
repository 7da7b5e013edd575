// asciinema-player, as we use it: one place that makes it, since its types do not know of segmented sources and live drivers.
import "asciinema-player/dist/bundle/asciinema-player.css";
import { create, type Player } from "asciinema-player";

const FONT = '"JetBrains Mono Variable"';

const LOOK = {
  controls: false,
  fit: "both",
  cursorMode: "steady",
  terminalFontFamily: `${FONT}, "Noto Sans Mono CJK SC", monospace`,
  terminalLineHeight: 1.3,
} as const;

/** Without its font the terminal would be measured with another one, and the last columns cut off. */
async function fontIsThere(): Promise<void> {
  try {
    await Promise.all([document.fonts.load(`400 12px ${FONT}`), document.fonts.load(`700 12px ${FONT}`)]);
  } catch {
    // The next font of the list is used.
  }
}


/** Shows a recording from `at` seconds on, at `speed`. Speed is fixed when the player is made. */
export async function showRecorded(url: string, place: HTMLElement, at: number, speed: number): Promise<Player> {
  await fontIsThere();
  const source = { url, format: "segmented" } as unknown as string;
  return create(source, place, { ...LOOK, preload: true, poster: `npt:${at}`, startAt: at, speed });
}

/** Shows a live recording as it goes on. */
export async function showLive(path: string, place: HTMLElement): Promise<Player> {
  await fontIsThere();
  const url = new URL(path, location.href);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  const source = { driver: "websocket", url: url.href } as unknown as string;
  return create(source, place, { ...LOOK, autoPlay: true });
}
