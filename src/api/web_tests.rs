//! The web app's door as a browser meets it: the cookie, the headers, the files, live recordings.

use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Response, StatusCode};
use sallyport_domain::principal::Role;
use sallyport_domain::secret::PrincipalPassword;
use serde_json::{Value, json};

use super::tests::{OPERATOR, Served};
use crate::app::ledger::keys;
use crate::app::ledger::sequencer::Sequencer;
use crate::app::{invites, people};

const PASSWORD: &str = "correct horse battery";

/// A browser with our page open in it.
struct Browser {
    http: reqwest::Client,
    base: String,
}

impl Browser {
    fn at(served: &Served) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert("x-sallyport", HeaderValue::from_static("web"));
        headers.insert("sec-fetch-site", HeaderValue::from_static("same-origin"));
        let http = reqwest::Client::builder().no_proxy().default_headers(headers).build().unwrap();
        Self { http, base: format!("http://{}", served.tcp()) }
    }

    async fn post(&self, path: &str, cookie: Option<&str>, body: Value) -> Response {
        let mut request = self.http.post(format!("{}{path}", self.base)).json(&body);
        if let Some(cookie) = cookie {
            request = request.header("cookie", cookie);
        }
        request.send().await.unwrap()
    }

    async fn get(&self, path: &str, cookie: Option<&str>) -> Response {
        let mut request = self.http.get(format!("{}{path}", self.base));
        if let Some(cookie) = cookie {
            request = request.header("cookie", cookie);
        }
        request.send().await.unwrap()
    }

    async fn sign_in(&self, name: &str) -> String {
        let signed_in = self.post("/api/v1/sign-in", None, json!({"name": name, "password": PASSWORD})).await;
        assert_eq!(signed_in.status(), StatusCode::OK);
        let line = signed_in.headers()["set-cookie"].to_str().unwrap().to_owned();
        assert!(line.ends_with("; Path=/; Max-Age=43200; Secure; HttpOnly; SameSite=Strict"), "{line}");
        line.split(';').next().unwrap().to_owned()
    }
}

async fn with_password(served: &Served, name: &str, role: Role) {
    let new = people::NewPerson {
        name: name.parse().unwrap(),
        organisation: None,
        roles: vec![role],
        keys: vec![],
        password: Some(PrincipalPassword::new(PASSWORD)),
    };
    people::add(&served.app, &OPERATOR, new).await.unwrap();
}

#[tokio::test]
async fn a_browser_that_signed_in_is_its_person_until_it_signs_out() {
    let served = Served::start().await;
    with_password(&served, "adam", Role::Admin).await;
    let browser = Browser::at(&served);

    let cookie = browser.sign_in("adam").await;
    let me: Value = browser.get("/api/v1/me", Some(&cookie)).await.json().await.unwrap();
    let people = browser.get("/api/v1/people", Some(&cookie)).await.status();
    let open: Value = browser.get("/api/v1/me/web-sessions", Some(&cookie)).await.json().await.unwrap();
    let out = browser.post("/api/v1/sign-out", Some(&cookie), json!({"everywhere": false})).await;
    let after = browser.get("/api/v1/me", Some(&cookie)).await.status();

    assert_eq!((&me["name"], people), (&json!("adam"), StatusCode::OK));
    assert_eq!((&open[0]["is_this"], &open[0]["address"]), (&json!(true), &json!("127.0.0.1")));
    assert!(out.headers()["set-cookie"].to_str().unwrap().contains("Max-Age=0"));
    assert_eq!(after, StatusCode::UNAUTHORIZED);
}

/// What comes on a stream until `wanted` does; `None` if it ends before.
async fn read_until(stream: &mut Response, wanted: &str) -> Option<String> {
    let mut told = String::new();
    let read = async {
        while !told.contains(wanted) {
            let chunk = stream.chunk().await.ok()??;
            told.push_str(&String::from_utf8_lossy(&chunk));
        }
        Some(())
    };
    let came = tokio::time::timeout(Duration::from_secs(20), read).await.expect("something comes, or the end");
    came.map(|()| told)
}

async fn listen(browser: &Browser, cookie: &str, last: Option<u64>) -> Response {
    let mut request = browser.http.get(format!("{}/api/v1/live", browser.base));
    request = request.header("cookie", cookie).header("accept", "text/event-stream");
    if let Some(last) = last {
        request = request.header("last-event-id", last.to_string());
    }
    request.send().await.unwrap()
}

#[tokio::test]
async fn a_page_is_told_what_changed_goes_on_where_it_was_and_hears_no_more_once_it_is_signed_out() {
    let served = Served::start().await;
    keys::ensure(&served.app, &"bastion.example/ledger".parse().unwrap()).await.unwrap();
    let mut sequencer = Sequencer::new(served.app.clone());
    with_password(&served, "adam", Role::Admin).await;
    let browser = Browser::at(&served);
    let cookie = browser.sign_in("adam").await;
    sequencer.catch_up().await.unwrap();

    let mut stream = listen(&browser, &cookie, None).await;
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let begun = read_until(&mut stream, "event: reset").await.unwrap();
    let place: u64 = begun.lines().find_map(|line| line.strip_prefix("id: ")?.parse().ok()).unwrap();
    browser.post("/api/v1/people", Some(&cookie), json!({"name": "li.wei"})).await;
    sequencer.catch_up().await.unwrap();
    let told = read_until(&mut stream, "person_added").await.unwrap();
    assert!(told.contains("event: people\ndata: {\"kind\":\"person_added\",\"person\":\"p-"), "{told}");
    assert!(!told.contains("li.wei"), "whoever hears it asks for the rest: {told}");

    let mut later = listen(&browser, &cookie, Some(place)).await;
    let told = read_until(&mut later, "person_added").await.unwrap();
    assert!(told.contains("event: ready"), "{told}");
    browser.post("/api/v1/sign-out", Some(&cookie), json!({"everywhere": true})).await;
    sequencer.catch_up().await.unwrap();
    assert_eq!(read_until(&mut stream, "never").await, None);
    assert_eq!(read_until(&mut later, "never").await, None);
}

#[tokio::test]
async fn what_changes_is_told_to_those_who_may_look_to_each_a_few_times_and_as_a_stream() {
    let served = Served::start().await;
    with_password(&served, "adam", Role::Admin).await;
    with_password(&served, "eng", Role::Engineer).await;
    let browser = Browser::at(&served);
    let (admin, engineer) = (browser.sign_in("adam").await, browser.sign_in("eng").await);

    assert_eq!(browser.get("/api/v1/live", Some(&admin)).await.status(), StatusCode::BAD_REQUEST);
    assert_eq!(listen(&browser, &engineer, None).await.status(), StatusCode::FORBIDDEN);
    let mut open = Vec::new();
    for _ in 0..10 {
        open.push(listen(&browser, &admin, None).await);
    }
    assert!(open.iter().all(|stream| stream.status() == StatusCode::OK));
    assert_eq!(listen(&browser, &admin, None).await.status(), StatusCode::TOO_MANY_REQUESTS);
    drop(open);
    crate::support::eventually("there is room again", async || {
        listen(&browser, &admin, None).await.status() == StatusCode::OK
    })
    .await;
}

#[tokio::test]
async fn another_site_does_nothing_with_the_cookie() {
    let served = Served::start().await;
    with_password(&served, "adam", Role::Admin).await;
    let browser = Browser::at(&served);
    let cookie = browser.sign_in("adam").await;
    let url = format!("{}/api/v1/people", browser.base);
    let plain = reqwest::Client::builder().no_proxy().build().unwrap();

    let without_header = plain.post(&url).header("cookie", &cookie).json(&json!({"name": "eve"})).send();
    let other_origin = browser.http.post(&url).header("cookie", &cookie).header("origin", "https://evil.example");
    let looking = plain.get(&url).header("cookie", &cookie).header("sec-fetch-site", "cross-site").send();
    let signing_in =
        plain.post(format!("{}/api/v1/sign-in", browser.base)).json(&json!({"name": "adam", "password": PASSWORD}));

    assert_eq!(without_header.await.unwrap().status(), StatusCode::FORBIDDEN);
    assert_eq!(other_origin.json(&json!({"name": "eve"})).send().await.unwrap().status(), StatusCode::FORBIDDEN);
    assert_eq!(looking.await.unwrap().status(), StatusCode::FORBIDDEN);
    assert_eq!(signing_in.send().await.unwrap().status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_wrong_name_and_a_wrong_password_are_answered_alike_and_limited_alike() {
    let served = Served::start().await;
    with_password(&served, "adam", Role::Admin).await;
    let browser = Browser::at(&served);

    let mut answers = Vec::new();
    for name in ["adam", "nobody"] {
        let mut of_name = Vec::new();
        for _ in 0..11 {
            let refused = browser.post("/api/v1/sign-in", None, json!({"name": name, "password": "wrong"})).await;
            let (status, waits) = (refused.status(), refused.headers().contains_key("retry-after"));
            let problem: Value = refused.json().await.unwrap();
            of_name.push((status, waits, problem["type"].clone(), problem["detail"].clone()));
        }
        answers.push(of_name);
    }

    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0][9].0, StatusCode::UNAUTHORIZED);
    assert_eq!((answers[0][10].0, answers[0][10].1), (StatusCode::TOO_MANY_REQUESTS, true));
}

#[tokio::test]
async fn every_answer_carries_the_content_security_policy_and_pages_are_not_kept() {
    let served = Served::start().await;
    let browser = Browser::at(&served);

    for (path, status, kind) in [
        ("/", StatusCode::OK, "text/html; charset=utf-8"),
        ("/sessions/s-1?t=3", StatusCode::OK, "text/html; charset=utf-8"),
        ("/people/li.wei", StatusCode::OK, "text/html; charset=utf-8"),
        ("/assets/nothing.js", StatusCode::NOT_FOUND, "application/problem+json"),
        ("/api/v1/nothing", StatusCode::NOT_FOUND, "application/problem+json"),
        ("/api/v1/health", StatusCode::OK, "application/json"),
    ] {
        let answer = browser.get(path, None).await;
        let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
        assert_eq!((answer.status(), header("content-type").as_str()), (status, kind), "{path}");
        assert_eq!(header("cache-control"), "no-store", "{path}");
        assert_eq!(
            header("content-security-policy"),
            "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' data:; \
             font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
            "{path}"
        );
        assert_eq!(header("x-content-type-options"), "nosniff", "{path}");
    }
}

#[tokio::test]
async fn whoever_has_an_invites_link_gives_a_key_once_and_is_told_where_to_connect() {
    let served = Served::start().await;
    with_password(&served, "adam", Role::Admin).await;
    with_password(&served, "alice", Role::Engineer).await;
    let browser = Browser::at(&served);
    let cookie = browser.sign_in("adam").await;
    let invites = "/api/v1/people/alice/invites";
    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJoL8X+PsKU1yphZolH6hK2BDKbcxvNjqqXWI6MsLih8 alice@desk";
    let by_link = async |path: &str, body: Value| {
        let answer = browser.post(&format!("/api/v1/invite{path}"), None, body).await;
        assert_eq!(answer.headers()["cache-control"], "no-store");
        assert!(answer.headers().get("set-cookie").is_none(), "nobody is signed in by it");
        (answer.status(), answer.json::<Value>().await.unwrap())
    };

    let made: Value = browser.post(invites, Some(&cookie), json!({})).await.json().await.unwrap();
    let token = made["token"].as_str().unwrap();
    assert_eq!(made["link"], format!("https://bastion.example:8443/invite#{token}"));
    assert_eq!((&made["state"], &made["person"]["name"]), (&json!("open"), &json!("alice")));
    let (_, looked) = by_link("", json!({"token": token})).await;
    let (private, _) =
        by_link("/key", json!({"token": token, "public_key": "-----BEGIN OPENSSH PRIVATE KEY-----"})).await;
    let (status, taken) = by_link("/key", json!({"token": token, "public_key": KEY})).await;
    let (used, told) = by_link("", json!({"token": token})).await;
    let (unknown, said) = by_link("/key", json!({"token": format!("spi_{}", "A".repeat(43)), "public_key": KEY})).await;
    let (passkey, _) = by_link("/passkey/begin", json!({"token": token})).await;
    let person: Value = browser.get("/api/v1/people/alice", Some(&cookie)).await.json().await.unwrap();
    let listed = browser.get(invites, Some(&cookie)).await.text().await.unwrap();
    let events = browser.get("/api/v1/events?newest=true&limit=100", Some(&cookie)).await.text().await.unwrap();

    assert_eq!((status, private), (StatusCode::OK, StatusCode::BAD_REQUEST));
    assert_eq!((&looked["person"], &looked["ssh_host"]), (&json!("alice"), &json!("bastion.example")));
    assert!(looked["known_host"].as_str().unwrap().starts_with("[bastion.example]:2222 ssh-ed25519 "), "{looked}");
    assert_eq!(looked, taken);
    assert_eq!([used, unknown, passkey], [StatusCode::NOT_FOUND; 3]);
    assert_eq!((&told["type"], &told["detail"]), (&said["type"], &said["detail"]), "one answer for all");
    assert_eq!(person["keys"][0]["comment"], "alice@desk");
    assert!(listed.contains(person["keys"][0]["fingerprint"].as_str().unwrap()), "{listed}");
    assert!(events.contains("invite_used") && !events.contains("spi_") && !listed.contains("spi_"));
}

#[tokio::test]
async fn another_site_uses_no_invite_and_neither_does_a_token_in_an_address() {
    let served = Served::start().await;
    with_password(&served, "alice", Role::Engineer).await;
    let (_, token) = invites::make(&served.app, &OPERATOR, &"alice".parse().unwrap(), None).await.unwrap();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let look = || {
        let body = json!({"token": token.expose()});
        http.post(format!("http://{}/api/v1/invite", served.tcp())).json(&body)
    };

    let elsewhere = look().header("x-sallyport", "web").header("sec-fetch-site", "cross-site").send().await.unwrap();
    let without = look().send().await.unwrap();
    let ours = look().header("x-sallyport", "curl").send().await.unwrap();
    let at = format!("http://{}/api/v1/invite?token={}", served.tcp(), token.expose());
    let in_address = http.post(at).header("x-sallyport", "curl").json(&json!({})).send().await.unwrap();

    assert_eq!([elsewhere.status(), without.status()], [StatusCode::FORBIDDEN; 2]);
    assert_eq!((ours.status(), in_address.status()), (StatusCode::OK, StatusCode::BAD_REQUEST));
}
