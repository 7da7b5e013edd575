// The reader's language and time zone, and how instants, spans and sizes are written in them.
import { createContext, useContext, useEffect, useMemo, useState, type ReactNode } from "react";
import { en, type Dictionary } from "./en";

export type Language = "en" | "zh-CN";
export type Zone = "local" | "utc";

export interface Words {
  t: Dictionary;
  language: Language;
  setLanguage: (language: Language) => void;
  zone: Zone;
  setZone: (zone: Zone) => void;
  /** `22 Nov 14:04`, with the year where it is another one. */
  instant: (at: string | Date) => string;
  /** The same with seconds and the zone's name. */
  exact: (at: string | Date) => string;
  clock: (at: string | Date) => string;
  /** `2 h 19 min` */
  span: (milliseconds: number) => string;
  number: (value: number) => string;
  bytes: (value: number) => string;
  list: (words: readonly string[]) => string;
}

const Context = createContext<Words | null>(null);

export function useWords(): Words {
  const words = useContext(Context);
  if (words === null) throw new Error("no words outside of <Speaking>");
  return words;
}

export function remember(key: string, value: string | null): void {
  try {
    if (value === null) localStorage.removeItem(`sallyport.${key}`);
    else localStorage.setItem(`sallyport.${key}`, value);
  } catch {
    // Without storage the choice lasts as long as the page.
  }
}

export function recall(key: string): string | null {
  try {
    return localStorage.getItem(`sallyport.${key}`);
  } catch {
    return null;
  }
}

/** Gives the pages their words. Chinese is fetched when it is wanted. */
export function Speaking({ children }: { children: ReactNode }) {
  const [language, setLanguage] = useState<Language>(document.documentElement.lang === "zh-CN" ? "zh-CN" : "en");
  const [zone, setZone] = useState<Zone>(recall("zone") === "utc" ? "utc" : "local");
  const [zh, setZh] = useState<Dictionary | null>(null);

  useEffect(() => {
    document.documentElement.lang = language;
    if (language !== "zh-CN") return;
    let wanted = true;
    void import("./zh").then((module) => wanted && setZh(module.zh));
    return () => {
      wanted = false;
    };
  }, [language]);

  const words = useMemo(
    (): Words => ({
      t: language === "zh-CN" && zh ? zh : en,
      language,
      setLanguage: (chosen) => {
        remember("language", chosen);
        setLanguage(chosen);
      },
      zone,
      setZone: (chosen) => {
        remember("zone", chosen);
        setZone(chosen);
      },
      ...writing(language, zone, language === "zh-CN" && zh ? zh : en),
    }),
    [language, zone, zh],
  );
  if (language === "zh-CN" && zh === null) return null;
  return <Context value={words}>{children}</Context>;
}

type Writing = Pick<Words, "instant" | "exact" | "clock" | "span" | "number" | "bytes" | "list">;

export function writing(language: Language, zone: Zone, t: Dictionary): Writing {
  const timeZone = zone === "utc" ? { timeZone: "UTC" } : {};
  const locale = language === "en" ? "en-GB" : language;
  const day = new Intl.DateTimeFormat(locale, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", hourCycle: "h23", ...timeZone });
  const withYear = new Intl.DateTimeFormat(locale, { year: "numeric", day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", hourCycle: "h23", ...timeZone });
  const exact = new Intl.DateTimeFormat(locale, {
    year: "numeric", day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23", timeZoneName: "short", ...timeZone,
  });
  const clock = new Intl.DateTimeFormat(locale, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23", ...timeZone });
  const number = new Intl.NumberFormat(locale);
  const tenths = new Intl.NumberFormat(locale, { maximumFractionDigits: 1 });
  const list = new Intl.ListFormat(locale, { type: "conjunction" });
  const date = (at: string | Date) => (typeof at === "string" ? new Date(at) : at);
  const unit = (n: number, name: keyof Dictionary["units"]) => (language === "en" ? `${n} ${t.units[name]}` : `${n}${t.units[name]}`);
  return {
    instant: (at) => (date(at).getFullYear() === new Date().getFullYear() ? day : withYear).format(date(at)),
    exact: (at) => exact.format(date(at)),
    clock: (at) => clock.format(date(at)),
    span: (milliseconds) => {
      const seconds = Math.max(0, Math.round(milliseconds / 1000));
      if (seconds < 60) return unit(seconds, "s");
      const minutes = Math.floor(seconds / 60);
      if (minutes < 60) return unit(minutes, "min");
      const hours = Math.floor(minutes / 60);
      if (hours < 48) return minutes % 60 === 0 ? unit(hours, "h") : `${unit(hours, "h")} ${unit(minutes % 60, "min")}`;
      const days = Math.floor(hours / 24);
      return hours % 24 === 0 ? unit(days, "d") : `${unit(days, "d")} ${unit(hours % 24, "h")}`;
    },
    number: (value) => number.format(value),
    bytes: (value) => {
      const units = ["B", "KB", "MB", "GB", "TB"];
      let step = 0;
      while (value >= 1000 && step < units.length - 1) {
        value /= 1000;
        step += 1;
      }
      return `${tenths.format(value)} ${units[step]}`;
    },
    list: (words) => list.format(words),
  };
}
