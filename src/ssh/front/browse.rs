//! The picker on a terminal: keys, resizes, changes of what is open, and the time come in; screens go out.

use std::time::Duration;

use bytes::Bytes;
use sallyport_domain::grant::TargetSelector;
use sallyport_domain::name::Login;
use tokio::time::{Instant, MissedTickBehavior};

use super::console::Incoming;
use super::keys::{ESCAPE_DELAY, Key, Keys};
use super::picker::{self, Picker, Step};
use super::{EXIT_REFUSED, Flow, FrontError, Visit};
use crate::app::access::{Choice, Reach};

/// Whoever presses no key for so long has left.
const IDLE: Duration = Duration::from_mins(10);

/// How often it is looked whether the list is another one, or the times in it.
const LOOK: Duration = Duration::from_secs(1);

/// After how many looks the times are drawn anew.
const REDRAW: u32 = 20;

/// As many accounts as a picker holds.
const MOST_CHOICES: usize = 10_000;

/// Of which accounts the picker is.
pub(super) enum Scope {
    All,
    /// Of those that a request was for.
    Asked {
        targets: Vec<TargetSelector>,
        logins: Vec<Login>,
    },
}

impl Scope {
    pub(super) fn choices(&self, reach: Reach) -> Vec<Choice> {
        let Reach { mut choices, targets, .. } = reach;
        match self {
            Scope::All => {}
            Scope::Asked { targets: selectors, logins } => choices.retain(|choice| {
                let target = targets.iter().find(|target| target.name == choice.target);
                let meant = target.is_some_and(|target| selectors.iter().any(|selector| selector.matches(target)));
                meant && (logins.is_empty() || logins.contains(&choice.login))
            }),
        }
        choices.truncate(MOST_CHOICES);
        choices
    }
}

/// Why the picker was left without a choice.
enum Left {
    ByKey,
    Idle,
    Asked,
}

impl Visit<'_> {
    /// Lets the person choose, on the alternate screen, and puts the screen back whatever happens.
    pub(super) async fn pick(&mut self, scope: Scope) -> Result<Flow, FrontError> {
        let choices = scope.choices(self.reach().await?);
        let mut picker = Picker::new(choices, self.console.size());
        self.console.draw(picker::ENTER.to_vec()).await?;
        let chosen = self.browse(&mut picker, &scope).await;
        self.console.draw(picker::LEAVE.to_vec()).await?;
        match chosen? {
            Ok((choice, ahead)) => {
                // As if it had been in the user name.
                self.console.start.program = sallyport_domain::channel::Program::Shell;
                Ok(Flow::Go { choice, ahead })
            }
            Err(Left::ByKey) => Ok(Flow::Exit(0)),
            Err(Left::Idle) => {
                self.console.say(&["nothing was chosen for 10 minutes".to_owned()]).await;
                Ok(Flow::Exit(EXIT_REFUSED))
            }
            Err(Left::Asked) => {
                self.console.say(&["the bastion ends this connection".to_owned()]).await;
                Ok(Flow::Exit(EXIT_REFUSED))
            }
        }
    }

    async fn browse(
        &mut self,
        picker: &mut Picker,
        scope: &Scope,
    ) -> Result<Result<(Choice, Bytes), Left>, FrontError> {
        let app = &self.door.app;
        let mut changes = app.changes.subscribe();
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut keys, mut looked) = (Keys::default(), 0_u32);
        let mut last_key = Instant::now();
        self.console.draw(picker.draw(app.clock.now())).await?;
        loop {
            let pause = async {
                if keys.is_pending() { tokio::time::sleep(ESCAPE_DELAY).await } else { std::future::pending().await }
            };
            let step = tokio::select! {
                incoming = self.console.next() => match incoming? {
                    Incoming::Typed(bytes) => {
                        last_key = Instant::now();
                        type_all(picker, &mut keys, bytes)
                    }
                    Incoming::End => return Ok(Err(Left::ByKey)),
                    Incoming::Leave => return Ok(Err(Left::Asked)),
                    Incoming::Resized(size) => {
                        picker.resize(size);
                        self.console.draw(b"\x1b[2J".to_vec()).await?;
                        None
                    }
                },
                () = pause => keys.settle().and_then(|key| press(picker, key, Bytes::new())),
                _ = looks.tick() => {
                    looked += 1;
                    // Nobody can make this fail, and if: looking again is never wrong.
                    let has_changed = changes.has_changed().unwrap_or(true);
                    if has_changed {
                        changes.mark_unchanged();
                        // A list that cannot be had now stays as it is: the choice is asked anew anyway.
                        if let Ok(reach) = self.reach().await {
                            picker.replace(scope.choices(reach));
                        }
                    }
                    if !has_changed && looked % REDRAW != 0 {
                        continue;
                    }
                    None
                }
                () = tokio::time::sleep_until(last_key + IDLE) => return Ok(Err(Left::Idle)),
            };
            match step {
                Some(Chosen::Left) => return Ok(Err(Left::ByKey)),
                Some(Chosen::Account(choice, ahead)) => return Ok(Ok((choice, ahead))),
                None => self.console.draw(picker.draw(app.clock.now())).await?,
            }
        }
    }
}

enum Chosen {
    Left,
    Account(Choice, Bytes),
}

/// Presses what these bytes are, up to the choice; what is left then was typed for the target.
fn type_all(picker: &mut Picker, keys: &mut Keys, mut bytes: Bytes) -> Option<Chosen> {
    while !bytes.is_empty() {
        let byte = bytes.split_to(1);
        let key = byte.first().and_then(|byte| keys.take(*byte));
        if let Some(chosen) = key.and_then(|key| press(picker, key, bytes.clone())) {
            return Some(chosen);
        }
    }
    None
}

fn press(picker: &mut Picker, key: Key, rest: Bytes) -> Option<Chosen> {
    match picker.press(key) {
        Step::Stay => None,
        Step::Leave => Some(Chosen::Left),
        Step::Go(choice) => Some(Chosen::Account(choice, rest)),
    }
}
