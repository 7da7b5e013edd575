// How long a session took, or takes.
import type { Schema } from "../api/client";
import { useNow } from "./small";

type Session = Schema<"Session">;

/** `0:08:12`, and going on while the session does. */
export function Duration({ session }: { session: Pick<Session, "started_at" | "ended_at"> }) {
  return session.ended_at ? <>{long(Date.parse(session.ended_at) - Date.parse(session.started_at))}</> : <Running from={session.started_at} />;
}

function Running({ from }: { from: string }) {
  return <>{long(useNow(1000) - Date.parse(from))}</>;
}

function long(milliseconds: number): string {
  const whole = Math.max(0, Math.floor(milliseconds / 1000));
  const two = (n: number) => String(n).padStart(2, "0");
  return `${Math.floor(whole / 3600)}:${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}`;
}
