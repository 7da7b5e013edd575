// Small parts that every page uses.
import { Check, Copy } from "lucide-react";
import { createContext, useCallback, useContext, useEffect, useRef, useState, type ReactNode } from "react";
import { useWords } from "../i18n";
import css from "./parts.module.css";

type StatusWord = keyof ReturnType<typeof useWords>["t"]["states"];

const TONES: Record<StatusWord, string> = {
  live: "ok", ending: "warn", ended: "muted", active: "ok", upcoming: "muted", revoked: "bad", open: "warn", approved: "ok",
  denied: "bad", withdrawn: "muted", expired: "muted", disabled: "bad", enabled: "ok", ok: "ok", away: "bad", late: "warn", draining: "warn",
};

/** A state: a dot and a word, never colour alone. */
export function Status({ is, pulse = false }: { is: StatusWord; pulse?: boolean }) {
  const { t } = useWords();
  const hollow = TONES[is] === "muted";
  return (
    <span className={`${css.status} ${TONES[is]}`}>
      <span className={`${css.dot} ${hollow ? css.hollow : ""} ${pulse ? css.pulse : ""}`} aria-hidden="true" />
      {t.states[is]}
    </span>
  );
}

/** An instant, with UTC when the pointer rests on it. */
export function When({ at, exact = false }: { at: string; exact?: boolean }) {
  const words = useWords();
  return (
    <time dateTime={at} title={at.replace("T", " ").replace(/\.\d+/, "")}>
      {exact ? words.exact(at) : words.instant(at)}
    </time>
  );
}

/** The present, again every so many milliseconds. */
export function useNow(every = 1000): number {
  const [now, setNow] = useState(() => Date.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), every);
    return () => clearInterval(timer);
  }, [every]);
  return now;
}

/** `8 min ago` */
export function Ago({ at }: { at: string }) {
  const { t, span } = useWords();
  const now = useNow(10_000);
  return (
    <time dateTime={at} title={at.replace("T", " ").replace(/\.\d+/, "")}>
      {t.ago(span(now - Date.parse(at)))}
    </time>
  );
}

/** How much of a window is left. */
export function Remaining({ from, until }: { from: string; until: string }) {
  const { t, span } = useWords();
  const now = useNow(10_000);
  const [start, end] = [Date.parse(from), Date.parse(until)];
  if (now < start) return <span className="muted">{t.starts(span(start - now))}</span>;
  if (now >= end) return <When at={until} />;
  const low = end - now < 30 * 60_000;
  return (
    <span className={css.rest}>
      <Meter share={(end - now) / (end - start)} low={low} />
      <span className={low ? "warn" : ""}>
        {t.left(span(end - now))}
        {low ? " !" : ""}
      </span>
    </span>
  );
}

function Meter({ share, low }: { share: number; low: boolean }) {
  // The content security policy takes styles from scripts, not from markup; React sets them by script.
  return (
    <span className={css.remaining} aria-hidden="true">
      <span className={low ? css.low : ""} style={{ width: `${Math.max(3, Math.min(100, share * 100))}%` }} />
    </span>
  );
}

export function CopyButton({ text, label, className }: { text: string | (() => string); label?: string; className?: string }) {
  const { t } = useWords();
  const [copied, setCopied] = useState(false);
  const copy = async () => {
    await putOnClipboard(typeof text === "function" ? text() : text);
    setCopied(true);
    setTimeout(() => setCopied(false), 1500);
  };
  return (
    <button type="button" className={className ?? (label ? "" : "quiet icon")} onClick={() => void copy()} {...(label ? {} : { "aria-label": t.copy, title: t.copy })}>
      {copied ? <Check size={14} aria-hidden /> : <Copy size={14} aria-hidden />}
      {label ? (copied ? t.copied : label) : null}
      <span className="hidden-text" role="status">
        {copied ? t.copied : ""}
      </span>
    </button>
  );
}

export async function putOnClipboard(text: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without leave, or without encryption on the way, the old way may still do.
    const area = document.createElement("textarea");
    area.value = text;
    (document.querySelector("dialog[open]") ?? document.body).append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}

/** Something to type elsewhere, with a button that copies it. */
export function Command({ text }: { text: string }) {
  return (
    <div className={css.command}>
      <pre>{text}</pre>
      <CopyButton text={text} />
    </div>
  );
}

const Toast = createContext<(text: string) => void>(() => {});

/** Says that something was done. */
export const useToast = () => useContext(Toast);

export function Toasts({ children }: { children: ReactNode }) {
  const [text, setText] = useState("");
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined);
  const show = useCallback((said: string) => {
    clearTimeout(timer.current);
    setText(said);
    timer.current = setTimeout(() => setText(""), 5000);
  }, []);
  return (
    <Toast value={show}>
      {children}
      <div className={css.toast} role="status" aria-live="polite">
        {text}
      </div>
    </Toast>
  );
}
