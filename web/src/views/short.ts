/** An id for places where it is only to be told from others: `g-…1ydh9k`. */
export const short = (id: string): string => `${id.slice(0, 2)}…${id.slice(-6)}`;
