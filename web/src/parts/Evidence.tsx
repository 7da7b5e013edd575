// The button that makes an evidence bundle and saves it. Making one is an event.
import { useMutation } from "@tanstack/react-query";
import { Download } from "lucide-react";
import { useWords } from "../i18n";
import { fetchBundle } from "./evidence";
import { useToast } from "./small";
import { ProblemLine } from "./states";

export function Evidence({ of, id }: { of: "grants" | "sessions"; id: string }) {
  const { t } = useWords();
  const toast = useToast();
  const make = useMutation({
    mutationFn: () => fetchBundle(of, id),
    onSuccess: (bundle) => {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(bundle);
      link.download = `evidence-${id}.zip`;
      link.click();
      // The browser has begun to save it by then.
      setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
      toast(t.evidence.saved(link.download));
    },
  });
  return (
    <>
      <button type="button" onClick={() => make.mutate()} disabled={make.isPending} title={t.evidence.hint}>
        <Download size={14} aria-hidden />
        {make.isPending ? `${t.evidence.making} …` : t.evidence.button}
      </button>
      {make.error ? <ProblemLine error={make.error} /> : null}
    </>
  );
}
