// What surrounds a page for whoever is not signed in: one box in the middle, and the other language under it.
import type { ReactNode } from "react";
import { useWords } from "../i18n";
import css from "./SignIn.module.css";

export function Door({ children }: { children: ReactNode }) {
  const { language, setLanguage } = useWords();
  const other = language === "en" ? "zh-CN" : "en";
  return (
    <main className={css.page}>
      {children}
      <p className={css.languages}>
        <button type="button" className="quiet" lang={other} onClick={() => setLanguage(other)}>
          {language === "en" ? "简体中文" : "English"}
        </button>
      </p>
    </main>
  );
}

export function Mark({ size, className = "" }: { size: number; className?: string | undefined }) {
  return (
    <svg viewBox="0 0 32 32" width={size} height={size} aria-hidden="true" className={className}>
      <path fill="currentColor" d="M16 2 4 6.500v8.200c0 7.600 5 13 12 15.300 7-2.300 12-7.700 12-15.300V6.500z" />
      <path fill="var(--panel)" d="M11 24V14a5 5 0 0 1 10 0v10h-3V14a2 2 0 0 0-4 0v10z" />
    </svg>
  );
}
