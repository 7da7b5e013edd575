// Which rows of a long list are seen. All rows are equally high, so this is a division.
import { useCallback, useLayoutEffect, useState, type RefObject } from "react";

/** Rows drawn beyond both edges, so that fast scrolling shows no blank. */
const MORE = 12;

export function visibleRows(scrolled: number, height: number, row: number, count: number): { first: number; end: number } {
  const first = Math.max(0, Math.floor(scrolled / row) - MORE);
  const end = Math.min(count, Math.ceil((scrolled + height) / row) + MORE);
  return { first: Math.min(first, end), end };
}

export function useRows(place: RefObject<HTMLElement | null>, row: number, count: number) {
  const [seen, setSeen] = useState({ scrolled: 0, height: 0 });
  useLayoutEffect(() => {
    const element = place.current;
    if (element === null) return;
    const look = () => setSeen({ scrolled: element.scrollTop, height: element.clientHeight });
    const observer = new ResizeObserver(look);
    observer.observe(element);
    element.addEventListener("scroll", look, { passive: true });
    look();
    return () => {
      observer.disconnect();
      element.removeEventListener("scroll", look);
    };
  }, [place]);
  /** Scrolls as little as it takes to see the row. */
  const show = useCallback(
    (index: number) => {
      const element = place.current;
      if (element === null) return;
      if (index * row < element.scrollTop) element.scrollTop = index * row;
      else if ((index + 1) * row > element.scrollTop + element.clientHeight) element.scrollTop = (index + 1) * row - element.clientHeight;
    },
    [place, row],
  );
  return { ...visibleRows(seen.scrolled, seen.height, row, count), show };
}
