// How far a review has come, and why it may be worth a look, in the reader's words.
import type { Schema } from "../../api/client";
import { useWords } from "../../i18n";

export type Verdict = "as_planned" | "deviation" | "incident";

/** In words of the reader's language. */
export function useReason(): (reason: Schema<"RiskReason">) => string {
  const { t, bytes, number } = useWords();
  return (reason) => {
    const word = t.review.signs[reason.sign as keyof typeof t.review.signs];
    if (reason.sign === "data_out" || reason.sign === "large_output") return `${word} ${bytes(reason.amount)}`;
    return reason.amount > 1 ? `${word} ×${number(reason.amount)}` : word;
  };
}

export function ReviewState({ review }: { review: { state: string; verdict?: string | null } }) {
  const { t } = useWords();
  const tone = review.state === "overdue" ? "warn" : review.state === "done" ? (review.verdict === "incident" ? "bad" : "ok") : "muted";
  const sign = { due: "○", overdue: "!", done: "✓", not_asked: "–" }[review.state] ?? "";
  return (
    <span className={tone}>
      <span aria-hidden="true">{sign} </span>
      {review.state === "done" && review.verdict ? t.review.verdicts[review.verdict as Verdict] : t.review.states[review.state as keyof typeof t.review.states]}
    </span>
  );
}
