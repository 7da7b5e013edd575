// The session that a reviewer has chosen in the queue: its recording, or what it ran and carried, and the verdict.
import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { lazy, Suspense, useCallback, useMemo, useState } from "react";
import { commandsQuery, filesQuery, sessionQuery } from "../api/queries";
import { useWords } from "../i18n";
import { Empty, Loading, ProblemView } from "../parts/states";
import { shownAt } from "../player/transcript";
import { useSource } from "../player/useRecording";
import { useSeen } from "../player/useSeen";
import css from "./Review.module.css";
import { Commands } from "./session/Commands";
import { FileTable } from "./session/Files";
import { commandAt, marksOf, type Moment } from "./session/moments";
import { ReviewPanel } from "./session/ReviewPanel";
import { has, useMe } from "./Shell";

const Replay = lazy(() => import("../player/Replay"));
const Output = lazy(() => import("../player/Output"));

export default function Reviewed({ id }: { id: string }) {
  const { t } = useWords();
  const me = useMe();
  const session = useQuery(sessionQuery(id));
  const [channel, setChannel] = useState<number>();
  const [place, setPlace] = useState<number | undefined>();
  const [now, setNow] = useState(0);
  const mayLook = has(me, "reviewer", "auditor");
  const recordings = session.data?.recordings ?? [];
  const recording = recordings.find((one) => one.channel === channel) ?? recordings.find((one) => one.term) ?? recordings[0];
  const hasTerminal = Boolean(recording?.cols);
  const carriesFiles = !hasTerminal && recording?.kind === "subsystem";
  const source = useSource(mayLook && !carriesFiles ? recording : undefined, hasTerminal ? 24 : 1);
  const seen = useSeen(id, recording?.id, has(me, "reviewer"));
  const commandPages = useInfiniteQuery(commandsQuery(id, false));
  const filePages = useInfiniteQuery(filesQuery(id, false));
  const commands = useMemo(() => commandPages.data?.pages.flatMap((page) => page.items) ?? [], [commandPages.data]);
  const files = useMemo(() => filePages.data?.pages.flatMap((page) => page.items) ?? [], [filePages.data]);
  const marks = useMemo(() => (recording ? marksOf(recording, commands, files) : []), [recording, commands, files]);
  const see = useCallback((moment: Moment) => {
    const at = moment.recording.cols ? shownAt(moment.at) : 0;
    setChannel(moment.recording.channel);
    setPlace(at);
    setNow(at);
  }, []);
  const onMoment = useCallback((at: number) => setPlace(at), []);
  if (session.error && !session.data) return <ProblemView error={session.error} retry={() => void session.refetch()} />;
  if (!session.data) return <Loading />;
  return (
    <div className={css.opened}>
      <p className={`row wrap ${css.head}`}>
        <Link to="/sessions/$id" params={{ id }} className="mono">
          {session.data.login}@{session.data.target.name}
        </Link>
        <span>{session.data.person.name}</span>
        {recordings.length > 1 && recording ? (
          <select aria-label={t.session.channel} value={recording.channel} onChange={(event) => setChannel(Number(event.target.value))}>
            {recordings.map((one) => (
              <option key={one.id} value={one.channel}>
                {one.channel} · {one.program_text.slice(0, 60)}
              </option>
            ))}
          </select>
        ) : null}
      </p>
      <div className={css.stage}>
        {recording === undefined ? (
          <Empty title={t.session.noChannels} />
        ) : carriesFiles ? (
          <FileTable files={files.filter((file) => file.recording === recording.id)} />
        ) : !mayLook ? (
          <Empty title={t.session.notYou}>
            <p className="muted">{t.session.notYouHint}</p>
          </Empty>
        ) : (
          <Suspense fallback={<Loading />}>
            {hasTerminal ? (
              <Replay key={recording.id} recording={recording} source={source} marks={marks} who={session.data.person.name} at={place} isLive={false} onMoment={onMoment} onTime={setNow} onLive={() => {}} onShown={seen.shown} />
            ) : (
              <Output key={recording.id} recording={recording} source={source} onRead={seen.read} />
            )}
          </Suspense>
        )}
        {!hasTerminal && commands.length > 0 ? <Commands commands={commands} counts={session.data.commands} recordings={recordings} current={recording ? commandAt(commands, { recording, at: now }) : -1} onMoment={see} /> : null}
      </div>
      <ReviewPanel session={id} recordings={recordings} recording={recording} at={now} onMoment={see} />
    </div>
  );
}
