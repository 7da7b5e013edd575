// A text field that suggests (WAI-ARIA combobox with a list box). With `many` what is chosen becomes chips.
import { useEffect, useId, useRef, useState, type KeyboardEvent } from "react";
import css from "./parts.module.css";

export interface Option {
  value: string;
  note?: string;
}

export function Suggest({ label, options, value, onChange, many = false, free = false, mono = true, hint, remove }: {
  label: string;
  /** None while they are on their way. */
  options: readonly Option[] | undefined;
  value: readonly string[];
  onChange: (value: string[]) => void;
  many?: boolean;
  /** Whether what is not suggested may be given too. */
  free?: boolean;
  mono?: boolean;
  hint?: string;
  /** How removing a chip is called. */
  remove?: string;
}) {
  const id = useId();
  const input = useRef<HTMLInputElement>(null);
  const [text, setText] = useState(many ? "" : (value[0] ?? ""));
  const [open, setOpen] = useState(false);
  const [at, setAt] = useState(0);

  const wanted = text.trim().toLowerCase();
  const shown = (options ?? [])
    .filter((option) => !(many && value.includes(option.value)))
    .filter((option) => option.value.toLowerCase().includes(wanted) || (option.note ?? "").toLowerCase().includes(wanted))
    .sort((a, b) => Number(b.value.toLowerCase().startsWith(wanted)) - Number(a.value.toLowerCase().startsWith(wanted)))
    .slice(0, 50);
  const active = shown[Math.min(at, shown.length - 1)];

  const choose = (chosen: string) => {
    if (many) {
      onChange([...value, chosen]);
      setText("");
    } else {
      onChange([chosen]);
      setText(chosen);
    }
    setOpen(false);
    setAt(0);
  };
  /** What is typed counts when the field is left: as the only one that it can mean, or as it is. */
  const settle = () => {
    setOpen(false);
    const typed = text.trim();
    if (typed === "") {
      if (!many && value.length > 0) onChange([]);
      return;
    }
    // Who types faster than the options come has not mistyped: what is meant shows when they are there.
    if (options === undefined && !free) return;
    const exact = options?.find((option) => option.value === typed);
    const only = shown.length === 1 ? shown[0] : undefined;
    const meant = exact?.value ?? (free ? typed : (only?.value ?? (many ? undefined : active?.value)));
    if (meant !== undefined && !(many && value.includes(meant))) choose(meant);
    else if (many) setText("");
  };
  const isThere = options !== undefined;
  useEffect(() => {
    if (isThere && document.activeElement !== input.current) settle();
  }, [isThere]); // their coming alone: what is typed later is settled when the field is left
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.nativeEvent.isComposing) return; // the key belongs to the input method
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      setOpen(true);
      if (shown.length > 0) setAt((Math.min(at, shown.length - 1) + (open ? (event.key === "ArrowDown" ? 1 : shown.length - 1) : 0)) % shown.length);
    } else if (event.key === "Enter" && !event.metaKey && !event.ctrlKey && open && text !== "") {
      // The form is sent by the next one.
      event.preventDefault();
      if (active && !(free && wanted !== "" && /[*=]/.test(wanted))) choose(active.value);
      else settle();
    } else if (event.key === "Escape" && open) {
      event.preventDefault();
      event.stopPropagation();
      setOpen(false);
    } else if (event.key === "Backspace" && many && text === "" && value.length > 0) {
      onChange(value.slice(0, -1));
    } else if (many && (event.key === "," || event.key === " ") && wanted !== "") {
      event.preventDefault();
      settle();
    }
  };
  return (
    <div className={`field ${css.suggest}`}>
      <label htmlFor={id}>{label}</label>
      <div className={css.box} onPointerDown={(event) => event.target === event.currentTarget && setTimeout(() => input.current?.focus())}>
        {many
          ? value.map((chosen) => (
              <span key={chosen} className={css.chip}>
                {chosen}
                <button type="button" aria-label={`${remove ?? "×"} ${chosen}`} onClick={() => onChange(value.filter((other) => other !== chosen))}>
                  ×
                </button>
              </span>
            ))
          : null}
        <input
          id={id}
          ref={input}
          className={mono ? "mono" : ""}
          role="combobox"
          aria-expanded={open && shown.length > 0}
          aria-controls={`${id}-list`}
          aria-autocomplete="list"
          aria-activedescendant={open && active ? `${id}-${shown.indexOf(active)}` : undefined}
          aria-describedby={hint ? `${id}-hint` : undefined}
          autoComplete="off"
          autoCapitalize="off"
          spellCheck={false}
          value={text}
          onChange={(event) => {
            setText(event.target.value);
            setOpen(true);
            setAt(0);
            if (!many && value.length > 0) onChange([]);
          }}
          onClick={() => setOpen(true)}
          onBlur={settle}
          onKeyDown={onKeyDown}
        />
      </div>
      {open && shown.length > 0 ? (
        <ul className={css.options} role="listbox" id={`${id}-list`} aria-label={label}>
          {shown.map((option, index) => (
            <li
              key={option.value}
              id={`${id}-${index}`}
              role="option"
              aria-selected={option === active}
              onPointerDown={(event) => {
                event.preventDefault();
                choose(option.value);
              }}
            >
              <span className={mono ? "mono" : ""}>{option.value}</span>
              {option.note ? <small>{option.note}</small> : null}
            </li>
          ))}
        </ul>
      ) : null}
      {hint ? (
        <span className="hint" id={`${id}-hint`}>
          {hint}
        </span>
      ) : null}
    </div>
  );
}
