//! `sallyport session search`: what was run, shown and done to files, over every session.

use sallyport_domain::id::SessionId;

use super::Global;
use super::client::Client;
use super::failure::Failure;
use super::output::{self, Format};
use super::when;
use crate::api::search::{HitKind, SearchHit, SearchPage, SearchQuery, SearchSession};

#[derive(Debug, clap::Args)]
pub(crate) struct SearchArgs {
    /// Words that are all in one line; `cmd:`, `text:` or `file:` before a word looks in commands, screens or paths alone
    #[arg(required = true)]
    words: Vec<String>,
    /// At most this many hits
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
}

/// The most that one request asks for.
const MOST_AT_ONCE: usize = 200;

pub(super) async fn run(args: SearchArgs, global: &Global) -> Result<(), Failure> {
    let client = global.client()?;
    let asked = SearchQuery { q: query(&args.words) };
    let mut all = SearchPage { items: Vec::new(), next: None, is_partial: false };
    loop {
        let left = args.limit.saturating_sub(hits(&all.items).count());
        if left == 0 {
            break;
        }
        let mut query = vec![("q", asked.q.clone()), ("limit", left.min(MOST_AT_ONCE).to_string())];
        query.extend(all.next.take().map(|next| ("cursor", next)));
        let page: SearchPage = client.get(&["search"], &query).await?;
        all.items.extend(page.items);
        all.next = page.next;
        all.is_partial = page.is_partial;
        if all.next.is_none() {
            break;
        }
    }
    if global.format() != Format::Table {
        return output::one(global.format(), &all, &[]);
    }
    if all.items.is_empty() {
        output::note("nothing was found");
    }
    for found in &all.items {
        print(found, &client)?;
    }
    if all.items.iter().any(|found| found.is_cut) {
        output::note("of sessions marked with `*` only a part can be searched for: the first lines, or what was text");
    }
    if all.next.is_some() {
        output::note("there is more, further back; more with `--limit`");
    }
    Ok(())
}

/// Arguments that hold white space were quoted for the shell, and stay together here.
fn query(words: &[String]) -> String {
    let word = |word: &String| {
        if !word.contains(char::is_whitespace) || word.contains('"') {
            return word.clone();
        }
        match word.split_once(':').filter(|(kind, _)| matches!(*kind, "cmd" | "text" | "file")) {
            Some((kind, rest)) => format!("{kind}:\"{rest}\""),
            None => format!("\"{word}\""),
        }
    };
    words.iter().map(word).collect::<Vec<_>>().join(" ")
}

fn hits(found: &[SearchSession]) -> impl Iterator<Item = &SearchHit> {
    found.iter().flat_map(|found| &found.hits)
}

/// A session's line, and under it a line for each hit with its moment and where the web app shows it.
fn print(found: &SearchSession, client: &Client) -> Result<(), Failure> {
    let session = &found.session;
    let mark = if found.is_cut { " *" } else { "" };
    let (id, person, started) = (session.id, &session.person.name, when::local(session.started_at));
    output::line(&format!("{id}  {person} → {}@{}  {started}{mark}", session.login, session.target.name))?;
    for hit in &found.hits {
        output::line(&format!("  {:>9}  {} {}", moment(hit.t), sign(hit.kind), hit.line))?;
        output::line(&format!("             {}", link(client, id, hit)))?;
    }
    if found.has_more {
        output::line("  there is more in this session")?;
    }
    Ok(())
}

const fn sign(kind: HitKind) -> &'static str {
    match kind {
        HitKind::Command => "$",
        HitKind::Screen => "≡",
        HitKind::File => "⇅",
    }
}

/// `1:07:12`, or `0:42`
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a length of time in whole seconds")]
fn moment(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, whole % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

/// Where the web app shows the hit.
fn link(client: &Client, session: SessionId, hit: &SearchHit) -> String {
    let (channel, t) = (hit.channel.to_string(), hit.t.to_string());
    let query = [("ch", channel.as_str()), ("t", &t), ("find", &hit.found)];
    client.web_link(&["sessions", &session.to_string()], &query)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_shell_kept_together_stays_together() {
        let words = |words: &[&str]| query(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert_eq!(words(&["nginx", "permission denied"]), "nginx \"permission denied\"");
        assert_eq!(words(&["cmd:rm -rf"]), "cmd:\"rm -rf\"");
        assert_eq!(words(&["\"a b\" c"]), "\"a b\" c");
    }

    #[test]
    fn a_moment_is_told_as_the_player_tells_it() {
        assert_eq!((moment(42.7), moment(4032.0)), ("0:42".to_owned(), "1:07:12".to_owned()));
    }
}
