import { describe, expect, it } from "vitest";
import { commandAt, find, marksOf, momentOf, type Command, type File, type Recording } from "./moments";

const START = Date.parse("2026-03-01T12:00:00Z");
const at = (seconds: number) => new Date(START + seconds * 1000).toISOString();
const recording = (id: string, channel: number, cols: number | null = 80) => ({ id, channel, cols, started_at: at(0) }) as Recording;
const command = (seconds: number, text: string, more: Partial<Command> = {}) => ({ at: at(seconds), recording: "r-1", number: seconds, text, is_cut: false, certainty: "screen", ...more }) as Command;
const file = (seconds: number, path: string, more: Partial<File> = {}) => ({ seq: 1, at: at(seconds), recording: "r-1", what: "transfer", path, partial: false, result: "done", ...more }) as File;

const shell = recording("r-1", 1);
const commands = [command(2, "ls"), command(5, "false", { exit_status: 1 }), command(9, "rm -rf /", { flag: "*rm*" })];
const files = [file(3, "/etc/motd", { direction: "upload" }), file(4, "/etc/shadow", { direction: "download", result: "denied" }), file(6, "/tmp", { what: "look" })];

describe("a session's moments", () => {
  it("are marked on the timeline of their recording, each by what it means", () => {
    expect(marksOf(shell, commands, files).map((mark) => `${mark.at} ${mark.what}`)).toEqual(["2 command", "3 upload", "4 denied", "5 failed", "9 flagged"]);
    expect(marksOf(recording("r-2", 2), commands, files)).toEqual([]);
  });

  it("are never before the recording's start, and none where the recording is not there", () => {
    expect(momentOf([shell], command(-3, "early"))).toEqual({ recording: shell, at: 0 });
    expect(momentOf([], command(1, "x"))).toBeNull();
  });

  it("say which command ran", () => {
    expect([0, 2, 4, 5, 99].map((second) => commandAt(commands, { recording: shell, at: second }))).toEqual([-1, 0, 0, 1, 2]);
    const exec = recording("r-2", 2, null);
    expect(commandAt([...commands, command(1, "uptime", { recording: "r-2" })], { recording: exec, at: 0 })).toBe(3);
  });

  it("are found in commands, files and text, in the order of time", () => {
    const lines = [{ at: 2.5, text: "ETC and more" }, { at: 8, text: "nothing" }];
    const found = find("etc", [shell], [...commands, command(7, "cat /etc/passwd")], files, shell, lines);
    expect(found.map((hit) => `${hit.at} ${hit.what}`)).toEqual(["2.5 text", "3 file", "4 file", "7 command"]);
  });
});
