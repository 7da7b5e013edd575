// What a session did to files: beside a recording as a list, and in its place as a table where the session carried nothing else.
import { useWords } from "../../i18n";
import { clockTime } from "../../player/recording";
import { CopyButton, When } from "../../parts/small";
import css from "../Session.module.css";
import { momentOf, type File, type Moment, type Recording } from "./moments";

const ARROWS = { upload: "↑", download: "↓" } as const;

function None() {
  const { t } = useWords();
  return (
    <div className={css.none}>
      <h2>{t.session.noFiles}</h2>
      <p className="muted">{t.session.noFilesHint}</p>
    </div>
  );
}

function Act({ file }: { file: File }) {
  const { t } = useWords();
  return (
    <span className="tag">
      <span aria-hidden="true">{file.direction ? ARROWS[file.direction] : "·"}</span>
      {t.session.acts[file.direction ?? file.what]}
    </span>
  );
}

function Path({ file }: { file: File }) {
  return (
    <code className="break">
      {file.path}
      {file.other_path ? ` → ${file.other_path}` : ""}
    </code>
  );
}

function Result({ file }: { file: File }) {
  const { t } = useWords();
  return <span className={file.result === "done" ? "ok" : "bad"}>{t.session.outcomes[file.result]}</span>;
}

export function Files({ files, recordings, onMoment }: { files: readonly File[]; recordings: readonly Recording[]; onMoment: (moment: Moment) => void }) {
  const { t, bytes } = useWords();
  if (files.length === 0) return <None />;
  return (
    <ul className={css.files}>
      {files.map((file, number) => {
        const moment = momentOf(recordings, file);
        return (
          <li key={number}>
            <span className="row wrap">
              <Act file={file} />
              <Result file={file} />
              {file.partial ? <span className="muted">{t.session.partial}</span> : null}
              <span className="grow" />
              {file.bytes != null ? <span className="muted">{bytes(file.bytes)}</span> : null}
            </span>
            <Path file={file} />
            {file.reason ? <span className="bad break">{file.reason}</span> : null}
            {file.sha256 ? <Hash sha256={file.sha256} /> : null}
            <span className="row">
              <When at={file.at} exact />
              {moment?.recording.cols ? (
                <button type="button" className="quiet mono" onClick={() => onMoment(moment)}>
                  {clockTime(moment.at)}
                </button>
              ) : null}
            </span>
          </li>
        );
      })}
    </ul>
  );
}

/** All of it is there to be selected; what is seen at once tells files apart. */
function Hash({ sha256 }: { sha256: string }) {
  return (
    <span className="row">
      <code className={`faint ${css.hash}`} title={`SHA-256 ${sha256}`}>
        {sha256}
      </code>
      <CopyButton text={sha256} />
    </span>
  );
}

export function FileTable({ files }: { files: readonly File[] }) {
  const { t, bytes } = useWords();
  if (files.length === 0) return <None />;
  return (
    <div className="scroll-x">
      <table className={css.fileTable}>
        <thead>
          <tr>
            <th>{t.session.file.what}</th>
            <th>{t.session.file.path}</th>
            <th>{t.session.file.size}</th>
            <th>{t.session.file.result}</th>
            <th className="wide">{t.session.file.at}</th>
            <th className="wide">{t.session.file.sha}</th>
          </tr>
        </thead>
        <tbody>
          {files.map((file, number) => (
            <tr key={number}>
              <td>
                <Act file={file} />
              </td>
              <td>
                <Path file={file} />
                {file.reason ? <p className="bad break">{file.reason}</p> : null}
              </td>
              <td className="muted">{file.bytes != null ? bytes(file.bytes) : "–"}</td>
              <td>
                <Result file={file} /> {file.partial ? <span className="muted">{t.session.partial}</span> : null}
              </td>
              <td className="wide muted">
                <When at={file.at} exact />
              </td>
              <td className="wide">{file.sha256 ? <Hash sha256={file.sha256} /> : <span className="muted">–</span>}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
