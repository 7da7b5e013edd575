//! Requests that are sent again, and changes that are bound to what was read: through the router, as clients meet them.

use reqwest::StatusCode;
use sallyport_domain::principal::Role;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use super::idempotency::{KEYED, NOT_KEYED};
use super::openapi;
use super::tests::{Client, Served, a_grant, operations};
use crate::store::db::Db;
use crate::store::db::testing::on_both;
use crate::support::eventually;

/// What came back: status, body, and whether it is the first answer again.
#[derive(Debug, Clone, PartialEq)]
struct Got {
    status: StatusCode,
    body: Value,
    is_replayed: bool,
}

async fn post(client: &Client, key: &str, path: &str, body: &Value) -> Got {
    let answer = client.request("POST", path).header("Idempotency-Key", key).json(body).send().await.unwrap();
    let is_replayed = answer.headers().get("idempotency-replayed").is_some_and(|value| value == "true");
    Got { status: answer.status(), is_replayed, body: answer.json().await.unwrap() }
}

async fn grants(client: &Client) -> usize {
    client.get("/grants").await["items"].as_array().unwrap().len()
}

fn kind(got: &Got) -> (u16, &str) {
    (got.status.as_u16(), got.body["type"].as_str().unwrap_or_default())
}

#[tokio::test]
async fn a_request_that_is_sent_again_gets_its_first_answer_and_is_done_once() {
    let served = Served::start().await;
    let client = served.operator().with_web_1().await;

    let first = post(&client, "\"one\"", "/grants", &a_grant()).await;
    let id = first.body["id"].as_str().unwrap().to_owned();
    client.post(&format!("/grants/{id}/revoke"), json!({"reason": "done"})).await;
    let again = post(&client, "one", "/grants", &a_grant()).await;
    let mut longer = a_grant();
    longer["reason"] = json!("INC-8");
    let other_body = post(&client, "one", "/grants", &longer).await;
    let other_place = post(&client, "one", "/people", &json!({"name": "bob"})).await;
    let other_key = post(&client, "two", "/grants", &a_grant()).await;

    assert_eq!((first.status, first.is_replayed), (StatusCode::CREATED, false));
    assert_eq!(again, Got { is_replayed: true, ..first.clone() });
    assert_eq!(again.body["state"], "active", "it is the answer of then");
    assert_eq!(kind(&other_body), (422, "urn:sallyport:idempotency_key_reused"));
    assert_eq!(kind(&other_place), (422, "urn:sallyport:idempotency_key_reused"));
    assert_eq!((other_key.status, other_key.is_replayed), (StatusCode::CREATED, false));
    assert_eq!(grants(&client).await, 2);
    app_forgets_after_a_day(&served, &client, &first).await;
}

async fn app_forgets_after_a_day(served: &Served, client: &Client, first: &Got) {
    served.app.clock.advance(std::time::Duration::from_hours(24));
    let anew = post(client, "one", "/grants", &a_grant()).await;

    assert_eq!((anew.status, anew.is_replayed), (StatusCode::CREATED, false));
    assert_ne!(anew.body["id"], first.body["id"]);
}

#[tokio::test]
async fn people_do_not_share_their_keys_and_who_lost_a_role_is_told_nothing() {
    let served = Served::start().await;
    let operator = served.operator().with_web_1().await;
    let (adam, eve) = (served.person("adam", Role::Admin).await, served.person("eve", Role::Admin).await);

    let adams = post(&adam, "one", "/grants", &a_grant()).await;
    let eves = post(&eve, "one", "/grants", &a_grant()).await;
    let nobodys = post(&served.remote(None), "one", "/grants", &a_grant()).await;
    let roles = json!({"roles": ["reviewer"]});
    operator.request("PUT", "/people/adam/roles").json(&roles).send().await.unwrap();
    let later = post(&adam, "one", "/grants", &a_grant()).await;

    assert_eq!((adams.status, eves.status), (StatusCode::CREATED, StatusCode::CREATED));
    assert_ne!(adams.body["id"], eves.body["id"]);
    assert_eq!((nobodys.status, later.status), (StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN));
    assert_eq!(later.body.get("people"), None);
}

#[tokio::test]
async fn of_many_at_once_on_two_nodes_one_makes_the_grant() {
    on_both(|db| async {
        let (here, client) = {
            let served = Served::on(db).await;
            let client = served.operator().with_web_1().await;
            (served, client)
        };
        let there = here.beside().await;
        let other = there.operator();
        let body = a_grant();

        let asks = (0..12).map(|n| post(if n % 2 == 0 { &client } else { &other }, "one", "/grants", &body));
        let all = futures::future::join_all(asks).await;
        let after = post(&other, "one", "/grants", &body).await;

        let first: Vec<&Got> = all.iter().filter(|got| got.status == StatusCode::CREATED && !got.is_replayed).collect();
        assert_eq!(first.len(), 1, "{all:?}");
        let rest = all.iter().filter(|got| *got != first[0]);
        for got in rest {
            let is_again = got.is_replayed && got.body == first[0].body;
            assert!(is_again || kind(got) == (409, "urn:sallyport:in_work"), "{got:?}");
        }
        assert_eq!((after.is_replayed, &after.body), (true, &first[0].body));
        assert_eq!(grants(&client).await, 1);
    })
    .await;
}

#[tokio::test]
async fn the_first_answer_is_given_again_after_a_restart() {
    let served = Served::start().await;
    let first = post(&served.operator().with_web_1().await, "one", "/grants", &a_grant()).await;

    let next = served.beside().await;
    served.stop().await;
    let again = post(&next.operator(), "one", "/grants", &a_grant()).await;

    assert_eq!(again, Got { is_replayed: true, ..first });
    assert_eq!(grants(&next.operator()).await, 1);
}

#[tokio::test]
async fn a_request_whose_client_has_gone_is_done_and_answered_when_it_is_sent_again() {
    let served = Served::start().await;
    let client = served.operator().with_web_1().await;
    // A password takes some 20 ms to hash: the client is gone before.
    let body = json!({"name": "bob", "password": "correct horse battery"});
    let text = serde_json::to_string(&body).unwrap();
    let head = "POST /api/v1/people HTTP/1.1\r\nHost: b\r\nContent-Type: application/json\r\nIdempotency-Key: one\r\n";
    let mut gone = tokio::net::UnixStream::connect(&served.socket).await.unwrap();
    gone.write_all(format!("{head}Content-Length: {}\r\n\r\n{text}", text.len()).as_bytes()).await.unwrap();
    let Db::Sqlite { pool, .. } = &served.app.db else { panic!("another database") };
    let claims = "SELECT COUNT(*) FROM idempotency_keys";
    eventually("it is begun", async || sqlx::query_scalar::<_, i64>(claims).fetch_one(pool).await.unwrap() == 1).await;
    drop(gone);

    let bobs = async || client.get("/events?act=person_added").await["items"].as_array().unwrap().len() == 2;
    eventually("bob is there, beside alice", bobs).await;
    let mut again = post(&client, "one", "/people", &body).await;
    eventually("the answer is kept", async || {
        again = post(&client, "one", "/people", &body).await;
        again.is_replayed
    })
    .await;

    assert_eq!((again.status, &again.body["name"]), (StatusCode::CREATED, &json!("bob")));
    assert_eq!(client.get("/people").await["items"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn what_was_refused_is_not_kept_and_may_be_asked_again() {
    let served = Served::start().await;
    let client = served.operator().with_web_1().await;
    let bobs = json!({"people": ["bob"], "targets": ["web-*"], "logins": ["root"], "not_after": "2100-01-01T00:00:00Z", "reason": "INC-7"});

    let unknown = post(&client, "one", "/grants", &bobs).await;
    post(&client, "two", "/people", &json!({"name": "bob"})).await;
    let known = post(&client, "one", "/grants", &bobs).await;

    assert_eq!((unknown.status, known.status), (StatusCode::NOT_FOUND, StatusCode::CREATED));
    assert!(!known.is_replayed);
}

#[tokio::test]
async fn a_secret_is_told_once_and_kept_nowhere() {
    let served = Served::start().await;
    let admin = served.person("adam", Role::Admin).await;
    let body = json!({"person": "adam", "label": "script"});

    let first = post(&admin, "one", "/tokens", &body).await;
    let again = post(&admin, "one", "/tokens", &body).await;

    let secret = first.body["secret"].as_str().unwrap();
    assert_eq!(served.remote(Some(secret)).get("/me").await["name"], "adam");
    assert_eq!(kind(&again), (409, "urn:sallyport:done_before"));
    assert!(again.body["detail"].as_str().unwrap().contains("as event e-"), "{}", again.body);
    let Db::Sqlite { pool, .. } = &served.app.db else { panic!("another database") };
    let kept: Vec<Option<Vec<u8>>> =
        sqlx::query_scalar("SELECT body FROM idempotency_keys").fetch_all(pool).await.unwrap();
    assert_eq!(kept, [None]);
}

#[tokio::test]
async fn what_is_no_key_is_refused_where_keys_count_and_not_looked_at_elsewhere() {
    let served = Served::start().await;
    let client = served.operator();
    let bob = json!({"name": "bob"});

    for key in ["two words", "\"open", "", &"k".repeat(256)] {
        assert_eq!(kind(&post(&client, key, "/people", &bob).await), (400, "urn:sallyport:bad_request"), "{key}");
    }
    let twice = client.request("POST", "/people").header("Idempotency-Key", "a").header("Idempotency-Key", "b");
    assert_eq!(twice.json(&bob).send().await.unwrap().status(), StatusCode::BAD_REQUEST);
    assert_eq!(client.get("/people").await["items"], json!([]));
    assert_eq!(post(&client, &"k".repeat(255), "/people", &bob).await.status, StatusCode::CREATED);
    let scanned = post(&client, "two words", "/targets/scan", &json!({"address": "web-1"})).await;
    assert_eq!(scanned.status, StatusCode::OK);
    let too_long = post(&client, "one", "/people", &json!({"name": "a".repeat(300_000)})).await;
    assert_eq!(too_long.status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[test]
fn every_post_takes_a_key_or_says_why_not() {
    let posts = operations().into_iter().filter(|(_, method, _)| method == "POST");
    for (operation, ..) in posts {
        let takes = KEYED.contains(&operation.as_str());
        let says_why = NOT_KEYED.iter().any(|(name, _)| *name == operation);
        assert!(takes != says_why, "`{operation}` must be in one of the lists `KEYED` and `NOT_KEYED`");
    }
    for name in KEYED.iter().chain(NOT_KEYED.iter().map(|(name, _)| name)) {
        assert!(operations().iter().any(|(operation, method, _)| operation == name && method == "POST"), "{name}");
    }
}

/// The tag of what is at a path.
async fn tag(client: &Client, path: &str) -> String {
    let answer = client.request("GET", path).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK, "{path}");
    answer.headers()["etag"].to_str().unwrap().to_owned()
}

/// Asks for a change bound to a tag.
async fn bound(client: &Client, method: &str, path: &str, tag: &str, body: Option<Value>) -> (StatusCode, Value) {
    let request = client.request(method, path).header("If-Match", tag);
    let request = match body {
        Some(body) => request.json(&body),
        None => request,
    };
    let answer = request.send().await.unwrap();
    (answer.status(), answer.json().await.unwrap())
}

#[tokio::test]
async fn whoever_has_an_answer_is_spared_it_until_it_changes() {
    let served = Served::start().await;
    let client = served.operator().with_web_1().await;
    let get = async |known: &str| {
        let answer = client.request("GET", "/people/alice").header("If-None-Match", known).send().await.unwrap();
        (answer.status(), answer.headers()["etag"].to_str().unwrap().to_owned(), answer.bytes().await.unwrap().len())
    };
    let first = tag(&client, "/people/alice").await;

    let (same, again, nothing) = get(&first).await;
    let (weak, ..) = get(&format!("\"other\", W/{first}")).await;
    let (other, _, all) = get("\"other\"").await;
    client.post("/people/alice/disable", json!({})).await;
    let (changed, second, _) = get(&first).await;

    assert!(first.starts_with('"') && first.ends_with('"'), "{first} is strong");
    assert_eq!((same, &again, nothing), (StatusCode::NOT_MODIFIED, &first, 0));
    assert_eq!((weak, other, changed), (StatusCode::NOT_MODIFIED, StatusCode::OK, StatusCode::OK));
    assert!(all > 0);
    assert_ne!(first, second);
    assert!(tag(&client, "/grants").await.starts_with('"'), "lists have one too");
}

#[tokio::test]
async fn a_change_that_is_bound_to_what_was_read_is_not_made_to_anything_else() {
    let served = Served::start().await;
    let client = served.operator().with_web_1().await;
    let engineer = served.person("eddy", Role::Engineer).await;
    let id = client.post("/grants", a_grant()).await["id"].as_str().unwrap().to_owned();
    let wish = json!({"targets": ["web-1"], "lasting_seconds": 3600, "reason": "INC-9"});
    let request = engineer.post("/requests", wish).await["id"].as_str().unwrap().to_owned();
    let terms = json!({"targets": ["web-*"], "logins": ["root"]});
    client.post("/templates", json!({"name": "firmware", "terms": terms})).await;
    let (grant, asked) = (format!("/grants/{id}"), format!("/requests/{request}"));
    let fingerprint = client.get("/people/alice").await["keys"][0]["fingerprint"].as_str().unwrap().replace('/', "%2F");
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGL6nX0Wk6XFEh3gNyuLL8DEZH3oeoHvPHpCXWBrEzVd";

    // Each thing, a change to it by somebody, and those that are bound to what was read before and after: the last ends the row.
    let rows = [
        ("/people/alice", "PUT", "/people/alice/roles", Some(json!({"roles": ["auditor"]}))),
        ("/people/alice", "PUT", "/people/alice/organisation", Some(json!({"organisation": "Vendor"}))),
        ("/people/alice", "PUT", "/people/alice/password", Some(json!({"password": "correct horse battery"}))),
        ("/people/alice", "DELETE", "/people/alice/password", None),
        ("/people/alice", "DELETE", &*format!("/people/alice/keys/{fingerprint}"), None),
        ("/people/alice", "POST", "/people/alice/keys", Some(json!({"public_key": key}))),
        ("/people/alice", "POST", "/people/alice/disable", None),
        ("/people/alice", "POST", "/people/alice/enable", None),
        ("/targets/web-1", "PATCH", "/targets/web-1", Some(json!({"labels": {"env": "prod"}}))),
        ("/targets/web-1", "POST", "/targets/web-1/disable", None),
        ("/targets/web-1", "POST", "/targets/web-1/enable", None),
        ("/templates/firmware", "PUT", "/templates/firmware", Some(json!({"note": "n", "terms": terms}))),
        ("/templates/firmware", "DELETE", "/templates/firmware", None),
        (
            &*grant,
            "POST",
            &*format!("{grant}/extend"),
            Some(json!({"not_after": "2101-01-01T00:00:00Z", "reason": "x"})),
        ),
        (&*grant, "POST", &*format!("{grant}/revoke"), Some(json!({"reason": "done"}))),
        (&*asked, "POST", &*format!("{asked}/deny"), Some(json!({"reason": "no"}))),
    ];
    for (thing, method, path, body) in rows {
        let events = client.get("/events?limit=1000").await["items"].as_array().unwrap().len();
        let now = tag(&client, thing).await;
        for stale in ["\"other\"", &*format!("W/{now}")] {
            let (status, problem) = bound(&client, method, path, stale, body.clone()).await;
            assert_eq!(status, StatusCode::PRECONDITION_FAILED, "{method} {path}: {problem}");
            assert_eq!(problem["type"], "urn:sallyport:precondition_failed");
            assert!(problem["detail"].as_str().unwrap().contains("look at"), "{problem}");
        }
        assert_eq!(client.get("/events?limit=1000").await["items"].as_array().unwrap().len(), events);
        assert_eq!(tag(&client, thing).await, now, "{method} {path} changed something");

        let (status, answer) = bound(&client, method, path, &now, body).await;
        assert!(status.is_success(), "{method} {path}: {status} {answer}");
    }
    let malformed = bound(&client, "PUT", "/people/alice/roles", "x", Some(json!({"roles": ["auditor"]}))).await;
    let any = bound(&client, "PUT", "/people/alice/roles", "*", Some(json!({"roles": ["auditor"]}))).await;
    let nothing = bound(&client, "DELETE", "/templates/firmware", "*", None).await;
    assert_eq!((malformed.0, any.0, nothing.0), (StatusCode::BAD_REQUEST, StatusCode::OK, StatusCode::NOT_FOUND));
}

#[tokio::test]
async fn of_two_changes_that_are_bound_to_the_same_state_one_is_made() {
    on_both(|db| async {
        let here = Served::on(db).await;
        let client = here.operator().with_web_1().await;
        let there = here.beside().await;
        let other = there.operator();
        let id = client.post("/grants", a_grant()).await["id"].as_str().unwrap().to_owned();
        let until = |year: u32| Some(json!({"not_after": format!("{year}-01-01T00:00:00Z"), "reason": "more"}));
        let roles = |role: &str| Some(json!({"roles": [role]}));

        for (thing, method, path, one, two) in [
            (format!("/grants/{id}"), "POST", format!("/grants/{id}/extend"), until(2101), until(2102)),
            ("/people/alice".to_owned(), "PUT", "/people/alice/roles".to_owned(), roles("admin"), roles("auditor")),
        ] {
            let now = tag(&client, &thing).await;

            let (one, two) =
                tokio::join!(bound(&client, method, &path, &now, one), bound(&other, method, &path, &now, two));

            let mut statuses = [one.0.as_u16(), two.0.as_u16()];
            statuses.sort_unstable();
            assert_eq!(statuses, [200, 412], "{one:?} {two:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_change_that_nobody_can_bind_is_not_made_without() {
    let served = Served::start().await;
    let client = served.operator().with_web_1().await;
    let document = serde_json::to_value(openapi()).unwrap();

    let (made, problem) = bound(&client, "POST", "/people", "*", Some(json!({"name": "bob"}))).await;
    let (revoked, _) = bound(&client, "POST", "/tokens/k-00000000000000000000000000/revoke", "\"x\"", None).await;

    assert_eq!((made, revoked), (StatusCode::BAD_REQUEST, StatusCode::BAD_REQUEST), "{problem}");
    assert_eq!(client.get("/people").await["items"].as_array().unwrap().len(), 1);
    let names = |method: &str, path: &str| -> Vec<String> {
        let parameters = document["paths"][path][method]["parameters"].as_array().unwrap();
        parameters.iter().map(|parameter| parameter["name"].as_str().unwrap().to_owned()).collect()
    };
    assert!(names("post", "/api/v1/grants/{id}/revoke").contains(&"If-Match".to_owned()));
    assert!(names("post", "/api/v1/grants").contains(&"Idempotency-Key".to_owned()));
    assert!(names("get", "/api/v1/grants/{id}").contains(&"If-None-Match".to_owned()));
}
