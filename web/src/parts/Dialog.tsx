// A dialog: the browser's own, which keeps the focus inside, closes with Escape, and gives the focus back.
import { X } from "lucide-react";
import { useEffect, useId, useRef, type FormEvent, type ReactNode } from "react";
import { useWords } from "../i18n";
import css from "./parts.module.css";

export function Dialog({ title, onClose, onSubmit, children, actions }: {
  title: string;
  onClose: () => void;
  onSubmit: () => void;
  children: ReactNode;
  actions: ReactNode;
}) {
  const { t } = useWords();
  const dialog = useRef<HTMLDialogElement>(null);
  const name = useId();
  useEffect(() => {
    const shown = dialog.current;
    if (shown === null) return;
    const before = document.activeElement;
    shown.showModal();
    // The browser would begin with the button that closes it.
    const first = shown.querySelector<HTMLElement>("form input:not([type=checkbox]), form textarea") ?? shown.querySelector<HTMLElement>("footer button");
    first?.focus();
    return () => {
      shown.close();
      if (before instanceof HTMLElement && before.isConnected) before.focus();
    };
  }, []);
  const submit = (event: FormEvent) => {
    event.preventDefault();
    onSubmit();
  };
  return (
    <dialog
      ref={dialog}
      className={css.dialog}
      aria-labelledby={name}
      onCancel={(event) => {
        event.preventDefault();
        onClose();
      }}
      onKeyDown={(event) => {
        if (event.key === "Enter" && (event.metaKey || event.ctrlKey)) onSubmit();
      }}
    >
      <header>
        <h1 id={name}>{title}</h1>
        <button type="button" className="quiet icon" aria-label={t.close} onClick={onClose}>
          <X size={16} aria-hidden />
        </button>
      </header>
      <form onSubmit={submit} noValidate>
        {children}
        <footer>{actions}</footer>
      </form>
    </dialog>
  );
}

/** A dialog that asks for a reason before something ends. */
export function ReasonDialog({ title, hint, action, presets = [], busy, problem, onClose, onReason }: {
  title: string;
  hint: ReactNode;
  action: string;
  presets?: readonly string[];
  busy: boolean;
  problem: ReactNode;
  onClose: () => void;
  onReason: (reason: string) => void;
}) {
  const { t } = useWords();
  const field = useRef<HTMLInputElement>(null);
  const id = useId();
  const send = () => {
    const reason = field.current?.value.trim() ?? "";
    if (reason === "") field.current?.focus();
    else if (!busy) onReason(reason);
  };
  return (
    <Dialog
      title={title}
      onClose={onClose}
      onSubmit={send}
      actions={
        <>
          <button type="button" onClick={onClose}>
            {t.cancel}
          </button>
          <button type="submit" className="danger primary" disabled={busy}>
            {action}
          </button>
        </>
      }
    >
      <p>{hint}</p>
      <div className="field">
        <label htmlFor={id}>{t.reason}</label>
        <input id={id} ref={field} required maxLength={1000} autoComplete="off" aria-describedby={`${id}-hint`} />
        <span className="hint" id={`${id}-hint`}>
          {t.reasonHint}
        </span>
      </div>
      {presets.length > 0 ? (
        <div className="row wrap">
          {presets.map((preset) => (
            <button
              key={preset}
              type="button"
              className="quiet"
              onClick={() => {
                if (field.current) field.current.value = preset;
                field.current?.focus();
              }}
            >
              {preset}
            </button>
          ))}
        </div>
      ) : null}
      {problem}
    </Dialog>
  );
}
