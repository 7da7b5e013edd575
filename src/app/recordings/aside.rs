//! Threads for what must be done soon but not before the bytes on the wire: reading journals back, sealing, compressing.
//! They give way to everything else on a busy machine.

use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::{io, thread};

use tokio::sync::oneshot;
use tracing::debug;

/// How much the threads give way (nice value). At 10 a thread gets a tenth of what one of those who carry bytes gets when
/// both want the same core, and everything when nobody else wants it.
const NICENESS: i32 = 10;

type Job = Box<dyn FnOnce() + Send>;

/// The threads. They end with the last clone.
#[derive(Clone)]
pub(super) struct Aside(mpsc::Sender<Job>);

/// The thread died of the work.
#[derive(Debug, thiserror::Error)]
#[error("the thread that worked on the recording died")]
pub(super) struct Died;

impl Aside {
    /// Starts `count` threads. The queue in front of them holds at most one job for each recording, whose keeper waits.
    pub(super) fn start(count: usize) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        for number in 0..count {
            let queue = queue.clone();
            thread::Builder::new().name(format!("sealing-{number}")).spawn(move || {
                if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
                    debug!(%error, "Sealing cannot give way; it competes with the wire.");
                }
                loop {
                    let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    match job {
                        // A panic must cost its recording, and not the thread that serves all.
                        Ok(job) => drop(std::panic::catch_unwind(std::panic::AssertUnwindSafe(job))),
                        Err(mpsc::RecvError) => return,
                    }
                }
            })?;
        }
        Ok(Self(jobs))
    }

    /// Runs `work` on one of the threads, in its turn.
    pub(super) async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Died> {
        let (done, answer) = oneshot::channel();
        let job = Box::new(move || drop(done.send(work()))); // whoever no longer waits has ended
        self.0.send(job).map_err(|_| Died)?;
        answer.await.map_err(|_| Died)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_that_panics_is_an_error_and_the_thread_goes_on() {
        let aside = Aside::start(1).unwrap();

        let died = aside.run(|| panic!("of the work")).await;

        assert!(died.is_err());
        assert_eq!(aside.run(|| 2 + 2).await.unwrap(), 4);
    }
}
