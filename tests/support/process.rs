//! Servers of the tests that never outlive them. `Drop` does not run when a test process is killed or for a `static`, so each
//! server has a guard: a shell that waits for the end of its standard input. That pipe closes when the fixture is dropped,
//! and when the test process dies, however it dies; then the guard ends the server and removes its folder, if it has one of its own.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Starts the server, tells its process id, waits for the end of input, ends the server: by the wanted signal, and after
/// ten seconds by SIGKILL. Its own process group keeps it from a Ctrl-C that is meant for the tests.
const GUARD: &str = r#"
signal=$1 folder=$2; shift 2
"$@" </dev/null >&2 &
server=$!
echo "$server"
exec >/dev/null
how=; read -r how
kill -s "$signal" "$server" 2>/dev/null
( n=0; while kill -0 "$server" 2>/dev/null && [ "$n" -lt 1000 ]; do sleep 0.01; n=$((n + 1)); done
  kill -s KILL "$server" 2>/dev/null ) &
wait "$server"
[ -z "$folder" ] || [ "$how" = keep ] || rm -rf -- "$folder"
"#;

/// A server under guard.
pub struct Guarded {
    guard: Child,
    pid: u32,
}

/// How a server is to be ended.
pub struct Ending<'a> {
    /// The signal that asks it to end, without "SIG".
    pub signal: &'a str,
    /// A folder that is removed after its end.
    pub remove: Option<&'a Path>,
}

impl Guarded {
    /// Starts `program` with its output going to the end of `log`.
    pub fn spawn<A: AsRef<OsStr>>(program: &OsStr, arguments: &[A], log: &Path, ending: &Ending<'_>) -> Self {
        let log = File::options().create(true).append(true).open(log).expect("a log file");
        let mut guard = Command::new("/bin/sh")
            .args(["-c", GUARD, "guard", ending.signal])
            .arg(ending.remove.map_or(OsStr::new(""), Path::as_os_str))
            .arg(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .process_group(0)
            .spawn()
            .expect("a shell");
        let mut line = String::new();
        BufReader::new(guard.stdout.take().expect("the guard's output"))
            .read_line(&mut line)
            .expect("the guard's first line");
        let pid = line.trim().parse().expect("a process id");
        Self { guard, pid }
    }

    /// The server's process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether the server still runs.
    pub fn is_running(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid));
        stat.is_ok_and(|stat| !stat.contains(") Z "))
    }
}

impl Guarded {
    /// Ends the server, and keeps the folder that would else be removed.
    pub fn stop_and_keep(mut self) {
        let mut input = self.guard.stdin.take().expect("the guard's input");
        input.write_all(b"keep\n").expect("a word to the guard");
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        self.guard.wait().expect("the guard's end");
    }
}
