//! Builds the web app into the program. `SALLYPORT_WEB` says how: `auto` (as usual) builds it where npm is, and otherwise
//! leaves a page in its place that says so; `require` fails without it; `off` leaves it out.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

type Failure = Box<dyn std::error::Error>;

/// What the web app is made from, below `web/`.
const SOURCES: [&str; 8] =
    ["src", "public", "index.html", "scripts", "package.json", "package-lock.json", "tsconfig.json", "vite.config.ts"];

const PLACEHOLDER: &str = "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>Sallyport</title>\n\
    <h1>The web app is not in this build</h1>\n\
    <p>This program was built without it. Build it again with Node.js 20.19 or later and npm installed:</p>\n\
    <pre>SALLYPORT_WEB=require cargo build --release</pre>\n\
    <p>Everything else works: SSH, the API under /api/v1, and the command line (<code>sallyport --help</code>).</p>\n";

fn main() -> Result<(), Failure> {
    println!("cargo::rerun-if-env-changed=SALLYPORT_WEB");
    println!("cargo::rerun-if-changed=migrations");
    for source in SOURCES {
        println!("cargo::rerun-if-changed=web/{source}");
    }
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let folder = out.join("web");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    let wanted = env::var("SALLYPORT_WEB").unwrap_or_else(|_| "auto".to_owned());
    match wanted.as_str() {
        "off" => leave_out(&folder)?,
        "require" => build(&folder)?,
        "auto" => {
            if let Err(reason) = build(&folder) {
                println!(
                    "cargo::warning=the web app is not built in: {reason} (SALLYPORT_WEB=off says that this is meant)"
                );
                leave_out(&folder)?;
            }
        }
        other => return Err(format!("SALLYPORT_WEB is `{other}`: it must be auto, require or off").into()),
    }
    fs::write(out.join("assets.rs"), list(&folder)?)?;
    Ok(())
}

fn leave_out(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join("index.html"), PLACEHOLDER)
}

fn build(folder: &Path) -> Result<(), Failure> {
    let web = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("web");
    if !is_installed(&web) {
        run(&web, &["ci", "--no-audit", "--no-fund", "--loglevel=error"])?;
    }
    let folder = folder.to_str().ok_or("the output folder's name is not UTF-8")?;
    run(&web, &["run", "--silent", "build", "--", folder])
}

/// Whether what the lock file asks for is there: npm leaves a copy of it behind.
fn is_installed(web: &Path) -> bool {
    let changed = |path: &str| fs::metadata(web.join(path)).and_then(|metadata| metadata.modified()).ok();
    changed("node_modules/.package-lock.json").is_some_and(|installed| Some(installed) >= changed("package-lock.json"))
}

fn run(web: &Path, arguments: &[&str]) -> Result<(), Failure> {
    let done =
        Command::new("npm").args(arguments).current_dir(web).output().map_err(|error| format!("npm: {error}"))?;
    if done.status.success() {
        return Ok(());
    }
    let said = [done.stderr, done.stdout].concat();
    let said = String::from_utf8_lossy(&said);
    let shown: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).take(12).collect();
    Err(format!("`npm {}` failed: {}", arguments.join(" "), shown.join(" | ")).into())
}

/// The files as Rust: a table that includes their bytes.
fn list(folder: &Path) -> Result<String, Failure> {
    let mut files = Vec::new();
    walk(folder, &mut files)?;
    files.sort();
    let mut text = String::from("static ASSETS: &[Asset] = &[\n");
    for file in &files {
        let path = file.strip_prefix(folder)?.to_str().ok_or("a file's name is not UTF-8")?;
        let Some(kind) = kind(path) else { continue };
        let form = |ending: &str| {
            let compressed = PathBuf::from(format!("{}.{ending}", file.display()));
            if compressed.exists() { format!("Some(include_bytes!({compressed:?}))") } else { "None".to_owned() }
        };
        let (brotli, gzip) = (form("br"), form("gz"));
        let is_hashed = path.starts_with("assets/");
        writeln!(
            text,
            "    Asset {{ path: {path:?}, kind: {kind:?}, is_hashed: {is_hashed}, plain: include_bytes!({file:?}), brotli: {brotli}, gzip: {gzip} }},"
        )?;
    }
    text.push_str("];\n");
    Ok(text)
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { walk(&path, files)? } else { files.push(path) }
    }
    Ok(())
}

/// The media type by the name's ending; `None` for what is not served under its own name.
fn kind(path: &str) -> Option<&'static str> {
    Some(match path.rsplit_once('.')?.1 {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "woff2" => "font/woff2",
        "wasm" => "application/wasm",
        "txt" => "text/plain; charset=utf-8",
        _ => return None,
    })
}
