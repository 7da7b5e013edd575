// Keys, never taken from text fields. `g` and a letter go to a page; every other key belongs to the page.
import { useEffect, useRef } from "react";

export type Keys = Record<string, (event: KeyboardEvent) => void>;

/** Whether somebody types there. */
function isText(target: EventTarget | null): boolean {
  if (!(target instanceof HTMLElement)) return false;
  if (target.isContentEditable) return true;
  if (target instanceof HTMLInputElement) return !["checkbox", "radio", "button", "submit"].includes(target.type);
  return target instanceof HTMLTextAreaElement || target instanceof HTMLSelectElement;
}

/** The key before, if it begins a pair, for every page that listens: the second key of a pair is no key of its own anywhere. */
let before = "";
let begun = "";
let seen: KeyboardEvent | null = null;
let timer: ReturnType<typeof setTimeout> | undefined;

/** Handles keys by their names (`j`, `?`, `ArrowLeft`, `Shift+ArrowLeft`, `g n`) while the page is shown and no dialog is open. */
export function useKeys(keys: Keys): void {
  const current = useRef(keys);
  useEffect(() => {
    current.current = keys;
  });
  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
      if (isText(event.target) || document.querySelector("dialog[open]")) return;
      if (event !== seen) {
        [seen, before, begun] = [event, begun, ""];
        clearTimeout(timer);
      }
      if (event.defaultPrevented) return;
      // Enter and space belong to the button or link that has the focus.
      const on = event.target instanceof HTMLElement && event.target.closest("button, a, [role=slider], summary");
      if (on && (event.key === "Enter" || event.key === " ") && !on.matches("[role=slider]")) return;
      const name = event.shiftKey && event.key.length > 1 ? `Shift+${event.key}` : event.key;
      const handler = current.current[before === "" ? name : `${before} ${name}`];
      if (before === "" && Object.keys(current.current).some((key) => key.startsWith(`${name} `))) {
        begun = name;
        timer = setTimeout(() => (begun = ""), 1200);
      }
      if (handler) {
        event.preventDefault();
        handler(event);
      }
    };
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, []);
}
