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

/** Handles keys by their names (`j`, `?`, `ArrowLeft`, `Shift+ArrowLeft`, `g n`) while the page is shown and no dialog is open. */
export function useKeys(keys: Keys): void {
  const current = useRef(keys);
  useEffect(() => {
    current.current = keys;
  });
  useEffect(() => {
    let prefix = "";
    let timer: ReturnType<typeof setTimeout> | undefined;
    const onKey = (event: KeyboardEvent) => {
      if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
      if (isText(event.target) || document.querySelector("dialog[open]")) return;
      // Enter and space belong to the button or link that has the focus.
      const on = event.target instanceof HTMLElement && event.target.closest("button, a, [role=slider], summary");
      if (on && (event.key === "Enter" || event.key === " ") && !on.matches("[role=slider]")) return;
      const name = event.shiftKey && event.key.length > 1 ? `Shift+${event.key}` : event.key;
      const handler = current.current[prefix === "" ? name : `${prefix} ${name}`];
      clearTimeout(timer);
      const waits = prefix === "" && Object.keys(current.current).some((key) => key.startsWith(`${name} `));
      prefix = waits ? name : "";
      if (waits) timer = setTimeout(() => (prefix = ""), 1200);
      if (handler) {
        event.preventDefault();
        handler(event);
      }
    };
    addEventListener("keydown", onKey);
    return () => {
      clearTimeout(timer);
      removeEventListener("keydown", onKey);
    };
  }, []);
}
