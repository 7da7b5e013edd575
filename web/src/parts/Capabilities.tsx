// What a grant allows.
import type { Schema } from "../api/client";
import { useWords } from "../i18n";

type Grant = Schema<"Grant">;

/** Whether its end may still be moved. */
export const canChange = (grant: Grant): boolean => grant.state === "active" || grant.state === "upcoming";

export function Capabilities({ grant }: { grant: Pick<Grant, "allow"> }) {
  const { t } = useWords();
  const { shell, exec, upload, download, forwards } = grant.allow;
  const given = [shell && t.grant.caps.shell, exec && t.grant.caps.exec, upload && `↑ ${t.grant.caps.upload}`, download && `↓ ${t.grant.caps.download}`, forwards.length > 0 && t.grant.caps.forwarding];
  return (
    <span className="row wrap">
      {given.filter((word) => word !== false).map((word) => (
        <span key={word} className="tag">
          {word}
        </span>
      ))}
    </span>
  );
}
