
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const page = document.getElementById("page");

  // Everything that is shown goes through here, and is text.
  const make = (tag, text, ...children) => {
    const element = document.createElement(tag);
    if (text !== undefined && text !== null) element.textContent = text;
    element.append(...children);
    return element;
  };
  const table = (heads, rows) => make("table", null,
    make("thead", null, make("tr", null, ...heads.map((head) => make("th", head)))),
    make("tbody", null, ...rows.map((row) => make("tr", null, ...row.map((cell) => make("td", cell))))));
  const note = (text) => { const element = make("p", text); element.className = "note"; return element; };
  const fold = (title, ...inside) => make("details", null, make("summary", title), ...inside);
  const clock = (ms) => {
    const s = Math.floor(ms / 1000), two = (n) => String(n).padStart(2, "0");
    return (s >= 3600 ? Math.floor(s / 3600) + ":" + two(Math.floor(s / 60) % 60) : Math.floor(s / 60)) + ":" + two(s % 60);
  };

  const base = ["#1d1f21", "#cc6666", "#8fb573", "#d7b56d", "#6f9fd8", "#b294bb", "#6fb3b8", "#c5c8c6",
    "#707880", "#e06c75", "#a5d18a", "#f0cf7f", "#8bb9f0", "#cfaedb", "#86d0d5", "#ffffff"];
  const colour = (value) => {
    if (value === "front") return "var(--front)";
    if (value === "back") return "var(--back)";
    if (typeof value === "string") return /^#[0-9a-f]{6}$/.test(value) ? value : "";
    if (typeof value !== "number") return "";
    if (value < 16) return base[value];
    if (value > 231) { const grey = 8 + 10 * (value - 232); return "rgb(" + [grey, grey, grey] + ")"; }
    const step = (n) => (n ? 55 + 40 * n : 0), n = value - 16;
    return "rgb(" + [step(Math.floor(n / 36)), step(Math.floor(n / 6) % 6), step(n % 6)] + ")";
  };

  // Plays a film: what the screen showed at a time is the last key step before it and the changes since.
  const player = (film) => {
    const screen = make("div"), bar = make("div"), box = make("div", null, screen, bar);
    box.className = "player"; screen.className = "screen"; bar.className = "bar";
    const play = make("button", "Play"), seek = make("input"), time = make("span"), speed = make("select");
    const idle = make("input"), label = make("label", null, idle, " skip idle");
    [1, 2, 4, 8, 16].forEach((n) => speed.append(new Option(n + "×", n)));
    idle.type = "checkbox"; idle.checked = true;
    seek.type = "range"; seek.min = 0; seek.max = film.end; seek.value = 0; seek.setAttribute("aria-label", "Position");
    speed.setAttribute("aria-label", "Speed");
    bar.append(play, seek, time, speed, label);
    let at = 0, shown = -1, rows = [], size = [film.cols, film.rows], cursor = null, playing = false, last = 0;

    const paint = (row, runs, col) => {
      row.replaceChildren();
      let place = 0;
      for (let i = 0; i < runs.length; i += 2) {
        const [front, back, flags] = film.styles[runs[i + 1]], run = make("span", runs[i]);
        run.style.color = colour(front); run.style.backgroundColor = colour(back);
        if (flags & 1) run.style.fontWeight = "bold";
        if (flags & 2) run.style.opacity = "0.6";
        if (flags & 4) run.style.fontStyle = "italic";
        if (flags & 24) run.style.textDecoration = (flags & 8 ? "underline " : "") + (flags & 16 ? "line-through" : "");
        const signs = Array.from(runs[i]), here = col - place;
        if (col !== null && here >= 0 && here < signs.length) {
          const mark = make("span", signs[here]); mark.className = "cursor";
          run.replaceChildren(signs.slice(0, here).join(""), mark, signs.slice(here + 1).join(""));
        }
        place += signs.length;
        row.append(run);
      }
      if (col !== null && col >= place) {
        const mark = make("span", " "); mark.className = "cursor";
        row.append(" ".repeat(col - place), mark);
      }
    };
    const draw = () => {
      while (screen.children.length < size[1]) screen.append(make("div"));
      while (screen.children.length > size[1]) screen.lastChild.remove();
      for (let n = 0; n < size[1]; n++) paint(screen.children[n], rows[n] || [], cursor && cursor[1] === n ? cursor[0] : null);
    };
    const find = (ms) => {
      let low = 0, high = film.steps.length;
      while (low < high) { const middle = (low + high) >> 1; film.steps[middle][0] <= ms ? (low = middle + 1) : (high = middle); }
      return low - 1;
    };
    const show = (ms) => {
      at = Math.max(0, Math.min(ms, film.end));
      const wanted = find(at);
      if (wanted !== shown) {
        let from = shown < wanted ? shown + 1 : 0;
        for (let n = wanted; n >= from; n--) if (film.steps[n][1]) { from = n; break; }
        if (wanted < shown && wanted < 0) { rows = []; cursor = null; }
        for (let n = from; n <= wanted; n++) {
          const [, key, changes, place, resized] = film.steps[n];
          if (key) rows = [];
          if (resized) size = resized;
          for (const row of Object.keys(changes)) rows[Number(row)] = changes[row];
          cursor = place;
        }
        shown = wanted;
        draw();
      }
      seek.value = at;
      time.textContent = clock(at) + " / " + clock(film.end);
    };
    const tick = () => {
      if (!playing) return;
      const now = performance.now();
      let next = at + (now - last) * Number(speed.value);
      last = now;
      const coming = film.steps[find(at) + 1];
      if (idle.checked && coming && coming[0] - at > 1000 && coming[0] > next) next = Math.max(next, coming[0] - 300);
      show(next);
      if (at >= film.end) { playing = false; play.textContent = "Play"; return; }
      setTimeout(tick, 33);
    };
    play.addEventListener("click", () => {
      playing = !playing;
      play.textContent = playing ? "Pause" : "Play";
      if (playing) { if (at >= film.end) show(0); last = performance.now(); tick(); }
    });
    seek.addEventListener("input", () => show(Number(seek.value)));
    draw();
    show(0);
    return box;
  };

  const plain = (value) => (typeof value === "object" && value !== null ? JSON.stringify(value) : String(value));
  const words = (act) => Object.keys(act).filter((name) => name !== "act").map((name) => name + ": " + plain(act[name])).join(", ");
  const actor = (who) => who.name || (who.kind === "operator" ? "operator (uid " + who.uid + ")" : who.address || who.kind);

  document.title = data.title;
  page.replaceChildren(make("h1", data.title));
  data.summary.forEach((text) => page.append(make("p", text)));
  page.append(note("What this page shows was put together by the bastion. It is proved by the files beside it in the archive; "
    + "sallyport-verify checks them with nothing but the archive and the fingerprint of the ledger's public key."));
  page.append(table(["", ""], data.facts));
  data.sessions.forEach((session) => {
    page.append(make("h2", session.title), table(["", ""], session.facts));
    if (session.reviews.length) page.append(make("h3", "Review"), table(["At", "By", "What", "Words"], session.reviews));
    if (session.commands.length) page.append(make("h3", "Commands"), table(["At", "What", "Status", "Known by", ""], session.commands));
    session.recordings.forEach((recording) => {
      page.append(make("h3", recording.title));
      if (recording.film) {
        page.append(player(recording.film));
        if (recording.film.cut) page.append(note("This is its beginning; the whole is in " + recording.cast + "."));
      } else if (recording.cast) page.append(note("To play it: " + recording.cast + ", with asciinema."));
      page.append(fold("Transcript", make("pre", recording.transcript)));
      if (recording.transcript_cut) page.append(note("The whole transcript is in " + recording.transcript_file + "."));
    });
    if (session.files.length) page.append(make("h3", "Files"), table(["At", "What", "Result"], session.files));
  });
  page.append(make("h2", "Events"), note("Everything that happened, in the order of the ledger."), table(["At", "By", "What", ""],
    data.events.map((event) => [event.at, actor(event.actor), event.act.act.replace(/_/g, " "), words(event.act)])));
})();
