// What was found when the ledger was checked in this browser, for every page until it is closed.
import { queryOptions } from "@tanstack/react-query";

export type Checked =
  | { is: "intact"; size: number; since: number | null; finished: Date; by: string }
  /** `at` is the number of the event that does not fit, where it is known. */
  | { is: "broken"; what: string; detail: string; at: number | null; finished: Date };

export const checkedQuery = queryOptions({
  queryKey: ["checked"],
  queryFn: (): Checked | null => null,
  enabled: false,
  initialData: null,
  staleTime: Infinity,
  gcTime: Infinity,
});
