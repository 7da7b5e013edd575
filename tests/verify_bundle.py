#!/usr/bin/env python3
"""Verifies an evidence bundle: a second opinion, written from docs/formats.md alone.

    verify_bundle.py KEY-FINGERPRINT FILE...      prints, for each file, "sound" or the place of the first thing that is wrong

Needs `cryptography` (Ed25519) and `zstandard`.
"""

import base64, binascii, codecs, hashlib, io, json, re, struct, sys, zlib
from collections import Counter
from datetime import datetime

import zstandard
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

UNLISTED = ["checkpoint", "contents", "events.jsonl", "key", "proofs.jsonl"]


class Wrong(Exception):
    """Something is wrong; the argument is its place."""


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def canonical(value):
    def check(value):
        if isinstance(value, float) or (type(value) is int and not -(2**63) <= value < 2**64):
            raise ValueError("not an integer of 64 bits")
        for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else []:
            check(inner)

    check(value)
    order = lambda value: (
        {name: order(value[name]) for name in sorted(value, key=lambda name: name.encode("utf-16-be"))}
        if isinstance(value, dict)
        else [order(inner) for inner in value] if isinstance(value, list) else value
    )
    return json.dumps(order(value), separators=(",", ":"), ensure_ascii=False).encode()


def read_json(data, prefix=b""):
    """The value of canonical bytes."""
    if not data.startswith(prefix):
        raise ValueError("prefix")
    value = json.loads(data[len(prefix) :].decode())
    if canonical(value) != data[len(prefix) :]:
        raise ValueError("not canonical")
    return value


# The archive


def header(name, content):
    common = struct.pack("<HHHHHIIIHH", 10, 0, 0, 0, 0x21, zlib.crc32(content), len(content), len(content), len(name), 0)
    return common


def archive(files):
    """The one archive that these files make."""
    out, directory = io.BytesIO(), io.BytesIO()
    for name, content in files:
        offset, common = out.tell(), header(name.encode(), content)
        out.write(b"PK\x03\x04" + common + name.encode() + content)
        directory.write(b"PK\x01\x02" + struct.pack("<H", 10) + common + struct.pack("<HHHII", 0, 0, 0, 0, offset) + name.encode())
    offset, directory = out.tell(), directory.getvalue()
    out.write(directory + b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, len(files), len(files), len(directory), offset, 0))
    return out.getvalue()


def is_name(name):
    parts = name.split("/")
    return len(name) <= 200 and all(re.fullmatch(r"[a-z0-9._-]+", part) and part not in (".", "..") for part in parts)


def read_archive(data):
    try:
        end = len(data) - 22
        magic, _, _, _, count, _, start, _ = struct.unpack("<4sHHHHIIH", data[end:])
        files, at, offset = [], start, 0
        for _ in range(count):
            if at + 46 > end:
                raise ValueError
            length, name_length = struct.unpack("<IH", data[at + 24 : at + 30])
            name = data[at + 46 : at + 46 + name_length].decode("ascii")
            offset += 30 + name_length
            if not is_name(name) or (files and files[-1][0] >= name) or offset + length > start or at + 46 + name_length > end:
                raise ValueError
            files.append((name, data[offset : offset + length]))
            offset, at = offset + length, at + 46 + name_length
        if magic != b"PK\x05\x06" or offset != start or at != end or start > end:
            raise ValueError
        return files
    except (ValueError, struct.error):
        raise Wrong("archive") from None


# The ledger


def read_vkey(text):
    """Name, fingerprint and bytes of a public key."""
    name, key_id, encoded = text.split("+", 2)
    key = base64.b64decode(encoded, validate=True)
    found = sha256(name.encode(), b"\n", key)
    if not name or key[0] != 1 or len(key) != 33 or found[:4].hex() != key_id or base64.b64encode(key).decode() != encoded:
        raise ValueError
    return name, found, Ed25519PublicKey.from_public_bytes(key[1:])


def read_key_changes(data):
    """The fingerprints of the keys in a chain, in their order."""
    lines, chain, last = data.decode().split("\n"), [], 0
    if lines.pop() or not lines or len(lines) % 6 or len(lines) > 6000:
        raise ValueError
    for at in range(0, len(lines), 6):
        first, old, new, size, empty, signature = lines[at : at + 6]
        (name, old_print, old_key), (new_name, new_print, _) = read_vkey(old), read_vkey(new)
        dash, signer, signature = signature.split(" ")
        decoded = base64.b64decode(signature, validate=True)
        if first != "sallyport-key-change-v1" or empty or str(int(size)) != size or not last <= int(size) < 2**64:
            raise ValueError
        if dash != "\u2014" or not signer == name == new_name or decoded[:4] != old_print[:4] or base64.b64encode(decoded).decode() != signature:
            raise ValueError
        if (chain and chain[-1] != old_print) or new_print in chain or new_print == old_print:
            raise ValueError
        old_key.verify(decoded[4:], f"{first}\n{old}\n{new}\n{size}\n".encode())
        chain, last = chain + ([] if chain else [old_print]) + [new_print], int(size)
    return chain


def read_key(files, fingerprint):
    try:
        text = files["key"].decode()
        if not text.endswith("\n"):
            raise ValueError
        name, found, key = read_vkey(text[:-1])
    except (ValueError, IndexError, binascii.Error):
        raise Wrong("key") from None
    chain = None
    if "key-changes" in files:
        try:
            chain = read_key_changes(files["key-changes"])
        except (ValueError, IndexError, binascii.Error, InvalidSignature):
            raise Wrong("key-changes") from None
    leads_here = chain is not None and chain[-1] == found
    if found.hex() != fingerprint and not (leads_here and bytes.fromhex(fingerprint) in chain):
        raise Wrong("key")
    if chain is not None and not leads_here:
        raise Wrong("key-changes")
    return name, found[:4], key


def read_checkpoint(data, name, key_id, key):
    """Size and root."""
    try:
        text, signature = data.decode().rsplit("\n\n", 1)
        text += "\n"
        dash, signer, signature = signature.split(" ")
        origin, size, root, *extensions = text[:-1].split("\n")
        decoded, root_bytes = base64.b64decode(signature[:-1], validate=True), base64.b64decode(root, validate=True)
        if dash != "\u2014" or signer != name or origin != name or not signature.endswith("\n") or decoded[:4] != key_id:
            raise Wrong("checkpoint")
        if str(int(size)) != size or len(root_bytes) != 32 or "" in extensions:
            raise Wrong("checkpoint")
        if (base64.b64encode(decoded) + b"\n").decode() != signature or base64.b64encode(root_bytes).decode() != root:
            raise Wrong("checkpoint")
        key.verify(decoded[4:], text.encode())
        return int(size), root_bytes
    except (ValueError, binascii.Error, InvalidSignature):
        raise Wrong("checkpoint") from None


def is_included(leaf, number, size, root, path):
    """RFC 9162, 2.1.3.2."""
    if number >= size:
        return False
    fn, sn, found = number, size - 1, leaf
    for step in path:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            found = sha256(b"\x01", step, found)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            found = sha256(b"\x01", found, step)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and found == root


def read_events(files, size, root, contents):
    for name in ("events.jsonl", "proofs.jsonl"):
        if not files[name].endswith(b"\n"):
            raise Wrong(name)
    lines, proofs = (files[name][:-1].split(b"\n") for name in ("events.jsonl", "proofs.jsonl"))
    if len(lines) != len(proofs):
        raise Wrong("events.jsonl")
    listed = {event["number"]: event["leaf"] for event in contents["events"]}
    events, last = [], -1
    for place, (line, proof) in enumerate(zip(lines, proofs), 1):
        try:
            proof = read_json(proof)
            number, path = proof.pop("number"), [bytes.fromhex(step) for step in proof.pop("path")]
            if proof or type(number) is not int or number <= last or len(path) > 64 or any(len(step) != 32 for step in path):
                raise ValueError
        except (ValueError, KeyError, AttributeError, TypeError):
            raise Wrong(f"proofs.jsonl:{place}") from None
        last, leaf = number, sha256(b"\x00", b"sallyport-event-v1\n", line)
        if not is_included(leaf, number, size, root, path):
            raise Wrong(f"{'proofs' if listed.get(number) == leaf.hex() else 'events'}.jsonl:{place}")
        try:
            event = read_json(line)
            event["act"]["act"], event["actor"]["kind"], event["at"], event["id"]
        except (ValueError, KeyError, TypeError):
            raise Wrong(f"events.jsonl:{place}") from None
        events.append((number, event))
    return events


# Recordings


def read_frames(segment):
    if segment[:4] != b"SPS1":
        raise ValueError
    (length,) = struct.unpack(">I", segment[4:8])
    snapshot, at, frames = json.loads(segment[8 : 8 + length]), 8 + length, []
    while at < len(segment):
        length, when, kind = struct.unpack(">IQc", segment[at : at + 13])
        if not 9 <= length <= 1 << 20 or at + 4 + length > len(segment):
            raise ValueError
        frames.append((when, kind.decode(), segment[at + 13 : at + 4 + length]))
        at += 4 + length
    return snapshot, frames


class Cast:
    """asciicast v3, as docs/formats.md derives it from frames."""

    def __init__(self, manifest, seal, snapshot):
        self.terminal, self.last, self.lines = seal["terminal"], 0, []
        self.held = {kind: b"" for kind in "oeni"}
        size = (snapshot or {}).get("size") if self.terminal else None
        size = size or {"cols": 0, "rows": 0}
        head = {
            "version": 3,
            "term": {"cols": drawable(size["cols"], 80), "rows": drawable(size["rows"], 24)},
            "timestamp": int(datetime.fromisoformat(seal["started_at"].split(".")[0].rstrip("Z") + "+00:00").timestamp()),
            "title": f"{manifest['person']['name']} \u2192 {manifest['login']}@{manifest['target']['name']}",
        }
        if seal["program"]["program"] == "exec":
            head["command"] = bytes(seal["program"]["command"]).decode(errors="replace")
        if not self.terminal:
            head["sallyport"] = {"terminal": False}
        self.lines.append(canonical(head) + b"\n")

    def emit(self, code, data):
        text = json.dumps(data, ensure_ascii=False)
        step, self.last = self.at - min(self.last, self.at), max(self.last, self.at)
        self.lines.append(f'[{step // 10**6}.{step % 10**6:06d}, "{code}", {text}]\n'.encode())

    def exact(self, kind, body):
        self.emit("f", kind + (" " + base64.b64encode(body).decode() if body else ""))

    def show(self, kind, data):
        if not data:
            return
        text, code = data.decode(errors="replace"), "i" if kind == "i" else "o"
        is_exact = text.encode() == data
        self.emit(code, text.replace("\n", "\r\n") if code == "o" and not self.terminal else text)
        if not is_exact:
            self.exact(kind, data)
        elif kind != code:
            self.emit("f", kind)

    def stream(self, kind, data):
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        data = self.held[kind] + data
        decoder.decode(data)
        self.held[kind] = decoder.getstate()[0]
        self.show(kind, data[: len(data) - len(self.held[kind])])

    def release(self, kinds):
        for kind in kinds:
            held, self.held[kind] = self.held[kind], b""
            self.show(kind, held)

    def frame(self, when, kind, body):
        self.at = max(getattr(self, "at", 0), when)
        number = lambda: struct.unpack(">I", body)[0]
        words = None
        if kind in "oeni":
            self.stream(kind, body)
        elif kind == "m":
            self.emit("i", "\u2022" * min(number(), 64))
            self.exact(kind, body)
        elif kind == "w":
            self.emit("m", f"{number()} bytes out, not kept")
            self.exact(kind, body)
        elif kind == "r":
            cols, rows = struct.unpack(">HH", body)
            drawn = drawable(cols, 80), drawable(rows, 24)
            self.emit("r", f"{drawn[0]}x{drawn[1]}")
            if drawn != (cols, rows):
                self.exact(kind, body)
        elif kind == "x":
            self.emit("x", str(number()))
        elif kind == "s":
            words = "signal " + body.decode()
        elif kind == "b":
            words = f"break, {number()} ms"
        elif kind == "k":
            name, message = body[1:].split(b"\0", 1)
            words = "killed by signal " + name.decode() + (", core dumped" if body[0] else "")
            words += ": " + message.decode() if message else ""
        elif kind == "g":
            words = "something is missing here: " + body.decode()
        elif kind == "q":
            self.release("oeni")
            words = "the recording ends"
        elif kind in "zyhf":
            self.release({"z": "i", "y": "oen"}.get(kind, ""))
            self.exact(kind, body)
        else:
            raise ValueError
        if words is not None:
            self.emit("m", words)
            self.exact(kind, body)


def drawable(side, usual):
    return usual if side == 0 else min(side, 1000)


def check_recording(manifest, seal, files, told):
    folder = f"recordings/{seal['recording']}/"
    stored, cast_place = files.get(folder + "segments"), folder + "recording.cast"
    if stored is None:
        raise Wrong(folder + "segments")
    cast, tally, operations, runs = None, Counter(), Counter(), []
    for segment in seal["segments"]:
        part, stored = stored[: segment["stored_bytes"]], stored[segment["stored_bytes"] :]
        if sha256(part).hex() != segment["sha256"]:
            raise Wrong(folder + "segments")
        runs.append((segment, part))
    if stored:
        raise Wrong(folder + "segments")
    try:
        for segment, part in runs:
            data = zstandard.ZstdDecompressor().stream_reader(part).read(segment["bytes"] + 1)
            snapshot, frames = read_frames(data)
            times = [when for when, _, _ in frames]
            if len(data) != segment["bytes"] or times != sorted(times) or (times[0], times[-1]) != (segment["start_us"], segment["end_us"]):
                raise ValueError
            cast = cast or Cast(manifest, seal, snapshot)
            for when, kind, body in frames:
                if kind == "m":
                    tally["i"] += struct.unpack(">I", body)[0]
                    tally["m"] += struct.unpack(">I", body)[0]
                elif kind == "w":
                    tally["o"] += struct.unpack(">I", body)[0]
                else:
                    tally[kind] += 1 if kind == "g" else len(body)
                if kind == "f" and "file_act" in (told_here := json.loads(body)):
                    told_here.pop("event", None)
                    operations[canonical(told_here)] += 1
                cast.frame(when, kind, body)
        counters = seal["counters"]
        expected = [counters[name]["recorded"] for name in ("input", "output", "error_output")]
        found = [tally["i"], tally["o"], tally["e"]]
        if found != expected or tally["m"] != counters["masked"] or tally["g"] != len(seal["gaps"]):
            raise ValueError
    except (ValueError, IndexError, struct.error, zstandard.ZstdError):
        raise Wrong(folder + "segments") from None
    cast = cast or Cast(manifest, seal, None)
    cast.release("oeni")
    if b"".join(cast.lines) != files.get(cast_place):
        raise Wrong(cast_place)
    crashed = manifest["end"]["how"] == "crashed"
    if told - operations or (operations - told and not crashed):
        raise Wrong("events.jsonl")


# The sessions, the grant, the lists


def check_manifest(manifest, place):
    last = 0
    for seal in manifest["recordings"]:
        chain, end = bytes(32), -1
        for segment in seal["segments"]:
            chain = sha256(chain, bytes.fromhex(segment["sha256"]))
            if segment["start_us"] <= end or segment["end_us"] < segment["start_us"]:
                raise Wrong(place)
            end = segment["end_us"]
        counters = [seal["counters"][name] for name in ("input", "output", "error_output")]
        lossy = any(counter["recorded"] < counter["seen"] for counter in counters)
        if seal["channel"] <= last or chain.hex() != seal["chain"] or (lossy and not seal["gaps"]):
            raise Wrong(place)
        if any(counter["recorded"] > counter["seen"] for counter in counters) or seal["counters"]["masked"] > counters[0]["recorded"]:
            raise Wrong(place)
        last = seal["channel"]


def deletions(events):
    """The sessions, with the hashes of their manifests, whose recordings were deleted by the hands that it takes."""
    asked, found = {}, set()
    for _, event in events:
        act, actor = event["act"], event["actor"]
        if act["act"] == "deletion_asked":
            asked.setdefault((act["deletion"], act["session"]), (actor, act.get("rule")))
        elif act["act"] == "recordings_deleted":
            by, rule = asked.get((act["deletion"], act["session"]), (None, None))
            if by is None or by != act["asked_by"] or rule != act.get("rule"):
                continue
            hands = by["kind"], actor["kind"]
            two = hands == ("principal", "principal") and by["id"] != actor["id"] and rule is None
            if two or (hands in [("bastion", "principal"), ("bastion", "bastion")] and rule is not None):
                found.add((act["session"], act["manifest"]))
    return found


def check_session(sealed, acts, files, told, deleted):
    session, place = sealed["session"], f"sessions/{sealed['session']}/manifest"
    data = files.get(place)
    if data is None or sha256(data).hex() != sealed["manifest"]:
        raise Wrong(place)
    try:
        manifest = read_json(data, b"sallyport-manifest-v1\n")
    except ValueError:
        raise Wrong(place) from None
    check_manifest(manifest, place)
    of = lambda act, member, value: ([a for a in acts if a["act"] == act and a.get(member) == value] or [None])[-1]

    def agree(act, member, value, *pairs):
        if (event := of(act, member, value)) is None:
            raise Wrong("events.jsonl")
        if any(event.get(name) != expected for name, expected in pairs):
            raise Wrong(place)

    agree("session_opened", "session", session, ("grant", manifest["grant"]["id"]))
    agree("session_ended", "session", session, ("end", manifest["end"]))
    for seal in manifest["recordings"]:
        agree("recording_started", "recording", seal["recording"])
        agree("recording_ended", "recording", seal["recording"], ("chain", seal["chain"]), ("segments", len(seal["segments"])))
    listed = {seal["recording"] for seal in manifest["recordings"]}
    if any(a["act"] == "recording_started" and a["session"] == session and a["recording"] not in listed for a in acts):
        raise Wrong(place)
    for seal in manifest["recordings"]:
        names = [f"recordings/{seal['recording']}/{name}" for name in ("segments", "recording.cast")]
        if (session, sealed["manifest"]) in deleted and not any(name in files for name in names):
            continue
        check_recording(manifest, seal, files, told[seal["recording"]])


def check_grant(data, grant_id, acts):
    try:
        grant = read_json(data[:-1])
        made = next((act for act in acts if act["act"] == "grant_made" and act["grant"] == grant_id), None)
        if not data.endswith(b"\n"):
            raise ValueError
        if made is None:
            raise Wrong("events.jsonl")
        extended = [act["not_after"] for act in acts if act["act"] == "grant_extended" and act["grant"] == grant_id]
        revoked = any(act["act"] == "grant_revoked" and act["grant"] == grant_id for act in acts)
        window = {"not_before": made["window"]["not_before"], "not_after": (extended or [made["window"]["not_after"]])[-1]}
        same = all(grant[name] == made[name] for name in ("people", "terms", "reason"))
        if not same or grant["id"] != grant_id or grant["window"] != window or (grant["revoked"] is not None) != revoked:
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise Wrong("grant.json") from None


def verify(data, fingerprint):
    listing = read_archive(data)
    files = dict(listing)
    for name in UNLISTED:
        if name not in files:
            raise Wrong(name)
    size, root = read_checkpoint(files["checkpoint"], *read_key(files, fingerprint))
    try:
        contents = read_json(files["contents"], b"sallyport-evidence-v1\n")
        shapes = [contents, *contents["events"], *contents["files"]]
        members = [{"grant", "session", "made_at", "software", "events", "files"}]
        members += [{"leaf", "number"}] * len(contents["events"]) + [{"bytes", "name", "sha256"}] * len(contents["files"])
        if any(set(shape) != expected for shape, expected in zip(shapes, members)):
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise Wrong("contents") from None
    events = read_events(files, size, root, contents)
    last = events[-1][1]["act"]
    if last["act"] != "evidence_made":
        raise Wrong("events.jsonl")
    bound = last["contents"], last["grant"], last.get("session")
    if bound != (sha256(files["contents"]).hex(), contents["grant"], contents["session"]):
        raise Wrong("contents")
    if {event["number"] for event in contents["events"]} != {number for number, _ in events[:-1]}:
        raise Wrong("events.jsonl")
    acts, told, lines = [event["act"] for _, event in events], {}, b""
    for _, event in events:
        if (act := event["act"])["act"] == "file_operation":
            told.setdefault(act["recording"], Counter())[canonical(act["operation"])] += 1
            line = {"at": event["at"], **{name: act[name] for name in ("operation", "recording", "session")}}
            lines += canonical(line) + b"\n"
    told = {**{a["recording"]: Counter() for a in acts if a["act"] == "recording_started"}, **told}
    sealed = {}
    for act in acts:
        if act["act"] == "session_sealed":
            before = sealed.pop(act["session"], {})
            if before.get("manifest") != act.get("supersedes"):
                raise Wrong("events.jsonl")
            sealed[act["session"]] = act
    for act in sealed.values():
        check_session(act, acts, files, told, deletions(events))
    if "grant.json" in files:
        check_grant(files["grant.json"], contents["grant"], acts)
    if (found := files.get("files.jsonl", b"")) != lines:
        same = next((i for i, (a, b) in enumerate(zip(found, lines)) if a != b), min(len(found), len(lines)))
        raise Wrong(f"files.jsonl:{1 + found[:same].count(10)}")
    for entry in contents["files"]:
        if entry["name"] not in files or sha256(files[entry["name"]]).hex() != entry["sha256"]:
            raise Wrong(entry["name"])
    known = {entry["name"] for entry in contents["files"]} | set(UNLISTED)
    for name, _ in listing:
        if name not in known:
            raise Wrong(name)
    if archive(listing) != data:
        raise Wrong("archive")


def main():
    fingerprint, *paths = sys.argv[1:]
    for path in paths:
        with open(path, "rb") as file:
            data = file.read()
        try:
            verify(data, fingerprint)
            print("sound")
        except Wrong as wrong:
            print(wrong)


if __name__ == "__main__":
    main()
