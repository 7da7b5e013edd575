//! `request` and `extend`: asking, waiting for the answer with a line that lives, and going on from there.

use std::time::Duration;

use bytes::Bytes;
use sallyport_domain::channel::Program;
use sallyport_domain::grant::Capabilities;
use sallyport_domain::request::{Request, RequestState, Wish};
use tokio::time::Instant;

use super::answers::{self, Asked};
use super::browse::Scope;
use super::commands::{ExtendArgs, RequestArgs, WishArgs};
use super::console::{Gone, Incoming};
use super::keys::{ESCAPE_DELAY, Key, Keys};
use super::{Flow, FrontError, Visit};
use crate::app::requests::{self, NewRequest};
use crate::app::{access, grants};
use crate::ssh::notice;

/// Exit statuses: the answer is no; there is no answer; the person did not wait for it.
const DENIED: u32 = 1;
const UNANSWERED: u32 = 2;
const INTERRUPTED: u32 = 130;

/// How long the offer to start a session stands.
const OFFER: Duration = Duration::from_mins(10);

/// What interrupts the waiting on a terminal: Ctrl-C and Ctrl-D.
const INTERRUPTS: [u8; 2] = [0x03, 0x04];

impl Visit<'_> {
    pub(super) async fn request(&mut self, args: RequestArgs, json: bool) -> Result<Flow, FrontError> {
        let RequestArgs { targets, logins, wish, ticket } = args;
        let targets: Vec<_> = targets.into_iter().map(|selector| selector.0).collect();
        let scope = Scope::Asked { targets: targets.clone(), logins: logins.clone() };
        // What a plain request on the command line asks for.
        let capabilities = Capabilities { shell: true, exec: true, ..Capabilities::default() };
        let asked = Wish::Access { targets, logins, capabilities, lasting: wish.lasting };
        self.ask(asked, wish, ticket, json, Some(scope)).await
    }

    pub(super) async fn extend(&mut self, args: ExtendArgs, json: bool) -> Result<Flow, FrontError> {
        let ExtendArgs { grant, wish } = args;
        let grant = match grant {
            Some(grant) => grant,
            None => {
                let in_use = access::grants_in_use(&self.door.app, &self.front.arrival.principal).await?;
                match in_use.as_slice() {
                    [grant] => *grant,
                    [] => return Err(FrontError::Nothing(self.which_grant("you have no session now"))),
                    _ => return Err(FrontError::Nothing(self.which_grant("you have sessions under several grants"))),
                }
            }
        };
        self.ask(Wish::MoreTime { grant, lasting: wish.lasting }, wish, None, json, None).await
    }

    fn which_grant(&self, why: &str) -> Vec<String> {
        vec![
            format!("{why}: say which grant is meant"),
            format!("they are listed by: {}", self.line(" ls")),
            format!("then: {}", self.line(" extend GRANT --for 1h --reason WHY")),
        ]
    }

    /// Asks, waits for the answer unless told otherwise, and offers to go there if it is yes.
    async fn ask(
        &mut self,
        wish: Wish,
        args: WishArgs,
        ticket: Option<String>,
        json: bool,
        scope: Option<Scope>,
    ) -> Result<Flow, FrontError> {
        let new = NewRequest { wish, reason: args.reason.join(" "), ticket };
        let request = requests::ask(&self.door.app, &self.front.arrival.principal, new).await?;
        let look_later = format!("to look later: {}", self.line(" ls"));
        if args.no_wait {
            self.show(&request, json).await?;
            self.console.say(&[look_later]).await;
            return Ok(Flow::Exit(0));
        }
        let Some(answered) = self.wait(&request).await? else {
            self.console.say(&[format!("{} goes on waiting for its answer", request.id), look_later]).await;
            return Ok(Flow::Exit(INTERRUPTED));
        };
        self.show(&answered, json).await?;
        match (&answered.state, scope) {
            (RequestState::Approved { .. }, Some(scope)) if !json => self.offer(scope).await,
            (RequestState::Approved { .. }, _) => Ok(Flow::Exit(0)),
            (RequestState::Denied { .. }, _) => Ok(Flow::Exit(DENIED)),
            (RequestState::Open | RequestState::Withdrawn { .. } | RequestState::Expired { .. }, _) => {
                Ok(Flow::Exit(UNANSWERED))
            }
        }
    }

    async fn show(&self, request: &Request, json: bool) -> Result<(), FrontError> {
        let mut asked = Asked::from(request);
        if let RequestState::Approved { grant, .. } = &request.state {
            // Without the grant's end it is told all the same.
            let grant = grants::find(&self.door.app, *grant).await;
            asked.not_after = grant.ok().map(|grant| grant.window.not_after());
        }
        let text = if json { answers::json(&asked) } else { format!("{}\n", asked.text()) };
        Ok(self.console.print(&text).await?)
    }

    /// Waits for the answer; `None` if the person does not any more. Withdraws nothing.
    async fn wait(&mut self, request: &Request) -> Result<Option<Request>, FrontError> {
        let began = Instant::now();
        let has_pty = self.console.has_pty();
        if !has_pty {
            self.console.say(&[format!("{} waits for an answer", request.id)]).await;
        }
        let answer = requests::wait(&self.door.app, request.id);
        tokio::pin!(answer);
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                answer = &mut answer => {
                    self.clear_status(has_pty).await?;
                    return Ok(Some(answer?));
                }
                incoming = self.console.next() => match incoming? {
                    Incoming::Typed(bytes) if has_pty && bytes.iter().any(|byte| INTERRUPTS.contains(byte)) => break,
                    // Without a terminal nobody types, and many programs have no input at all.
                    Incoming::End if has_pty => break,
                    Incoming::Leave => break,
                    Incoming::Typed(_) | Incoming::End | Incoming::Resized(_) => {}
                },
                _ = ticks.tick(), if has_pty => {
                    let waited = notice::duration(chrono::TimeDelta::from_std(began.elapsed()).unwrap_or_default());
                    let text = format!("{} waits for an answer, {waited}. Ctrl-C: leave", request.id);
                    // One column is left free, or some terminals go to the next line.
                    let room = usize::from(self.console.size().cols).saturating_sub(1);
                    let text: String = text.chars().take(room).collect();
                    self.console.draw(format!("\r\x1b[K{text}").into_bytes()).await?;
                }
            }
        }
        self.clear_status(has_pty).await?;
        Ok(None)
    }

    async fn clear_status(&self, has_pty: bool) -> Result<(), Gone> {
        if has_pty { self.console.draw(b"\r\x1b[K".to_vec()).await } else { Ok(()) }
    }

    /// Starts a session to what was asked for, if somebody is there who wants it.
    async fn offer(&mut self, scope: Scope) -> Result<Flow, FrontError> {
        let choices = scope.choices(self.reach().await?);
        let Some(first) = choices.first() else {
            return Ok(Flow::Exit(0)); // the window opens later
        };
        if !self.console.has_pty() || self.front.is_decided() {
            let account = format!("+{}@{}", first.login, first.target);
            self.console.say(&[format!("to go there: {}", self.line(&account))]).await;
            return Ok(Flow::Exit(0));
        }
        if choices.len() > 1 {
            return self.pick(scope).await;
        }
        let choice = first.clone();
        let account = format!("{}@{}", choice.login, choice.target);
        self.console.print(&format!("Press Enter to go to {account} now, any other key to leave. ")).await?;
        let until = Instant::now() + OFFER;
        let mut keys = Keys::default();
        loop {
            let (mut key, mut ahead) = (None, Bytes::new());
            tokio::select! {
                incoming = self.console.next() => match incoming? {
                    Incoming::Typed(mut bytes) => {
                        while key.is_none() && !bytes.is_empty() {
                            key = bytes.split_to(1).first().and_then(|byte| keys.take(*byte));
                        }
                        ahead = bytes;
                    }
                    Incoming::Resized(_) => {}
                    Incoming::End | Incoming::Leave => break,
                },
                () = tokio::time::sleep(ESCAPE_DELAY), if keys.is_pending() => key = keys.settle(),
                () = tokio::time::sleep_until(until) => break,
            }
            match key {
                None => {}
                Some(Key::Enter) => {
                    self.console.print("\n").await?;
                    self.console.start.program = Program::Shell;
                    return Ok(Flow::Go { choice, ahead });
                }
                Some(_) => break,
            }
        }
        self.console.print("\n").await?;
        Ok(Flow::Exit(0))
    }
}
