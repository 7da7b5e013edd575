import { describe, expect, it } from "vitest";
import { readDestination, readLimits, readSize, UNLIMITED, writeLimits, writeSize, type Limits, type Written } from "./limits";

const FULL: Written = {
  exec: "systemctl restart app-*\nuptime", flag: "*rm -rf*", forwards: "db-1:5432\n[fe80::1]:80\n/run/db.sock", from: "bastion", metadataOnly: true,
  uploadPaths: "/srv/app/**\n~/in/*", uploadFile: "500 MB", uploadTotal: "2 GiB", uploadHashes: "ab".repeat(32), downloadPaths: "none", downloadFile: "1 B", downloadTotal: "1500 KB",
  terminal: "10 MB", networks: "203.0.113.0/24", sessions: "2", approval: "watcher",
};

describe("a grant's limits", () => {
  it("are none where nothing is written", () => {
    expect(readLimits(UNLIMITED)).toEqual({
      commands: { exec: [], flag: [] }, forwards: [], forwarding: { from: "target", metadata_only: false },
      files: { upload: { paths: null, file_bytes: null, total_bytes: null }, download: { paths: null, file_bytes: null, total_bytes: null }, upload_sha256: null, terminal_bytes: null },
      source_networks: [], max_sessions: null, approval: "none",
    });
  });

  it("are written as they are read, so that a grant like another is never a wider one", () => {
    const limits = readLimits(FULL) as Limits;
    const again = writeLimits({ ...limits, allow: { shell: false, exec: true, upload: true, download: true, forwards: limits.forwards } } as unknown as Parameters<typeof writeLimits>[0]);
    expect(readLimits(again)).toEqual(limits);
    expect(limits.files?.download?.paths).toEqual([]);
    expect(limits.forwards).toEqual([{ host: "db-1", port: 5432 }, { host: "fe80::1", port: 80 }, { host: "/run/db.sock", port: 0 }]);
  });

  it("name what cannot be read, and limit nothing by mistake", () => {
    const bad: Partial<Written> = { forwards: "db", uploadFile: "much", downloadTotal: "0", uploadHashes: "abc", sessions: "0", terminal: "-1" };
    expect((readLimits({ ...UNLIMITED, ...bad }) as { wrong: string[] }).wrong.toSorted()).toEqual(Object.keys(bad).toSorted());
  });

  it("read sizes with units", () => {
    expect(["4096", "1.5 GiB", "2gb", "500 KB", "1 b"].map(readSize)).toEqual([4096, 1.5 * 2 ** 30, 2e9, 500_000, 1]);
    expect(["", "0", "GB", "1 XB", "1e3", "99999999 TB"].map(readSize)).toEqual(Array.from({ length: 6 }));
    expect([2e9, 2 ** 31, 1500, 1001].map(writeSize)).toEqual(["2 GB", "2 GiB", "1500 B", "1001 B"]);
    for (const bytes of [1, 1000, 1024, 123_456, 2 ** 40, 5e12]) expect(readSize(writeSize(bytes))).toBe(bytes);
  });

  it("read destinations as the command line does", () => {
    expect(["db:0", ":80", "db:", "db:70000", "[]:1", "db"].map(readDestination)).toEqual(Array.from({ length: 6 }));
  });
});
