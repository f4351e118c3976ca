//! What organisations say of their calls, and what calls then read.

use super::*;
use crate::model::{ConcurrencyChange, DefaultRuntime, Runtime};

fn limit(limit: Option<u32>) -> ConcurrencyChange {
    ConcurrencyChange { concurrency_limit: Some(limit) }
}

fn at(url: &str, token: Value) -> DefaultRuntime {
    let block = json!({ "type": "websocket", "url": url, "auth_token": token });
    DefaultRuntime { runtime: Some(block) }
}

/// What calls read as the organisation's default: the agent's URL and token.
fn read(store: &Store, org: &Org) -> Option<(String, Option<String>)> {
    match store.snapshot().load().default_runtime(org.organisation()) {
        Runtime::Websocket(websocket) => {
            let token = websocket.auth_token.map(|token| token.expose().clone());
            Some((websocket.url, token))
        }
        _ => None,
    }
}

#[tokio::test]
async fn an_organisations_limit_is_its_own_and_in_the_snapshot() {
    let store = Scratch::new().await;
    let (org, other) = (store.organisation().await, store.organisation().await);
    let read = |org: &Org| {
        let snapshot = store.snapshot().load();
        snapshot.organisation(org.organisation()).unwrap().concurrency_limit
    };
    assert_eq!((store.concurrency_limit(&org).await.unwrap(), read(&org)), (None, None));
    assert_eq!(store.set_concurrency(&org, limit(Some(25))).await.unwrap(), Some(25));
    assert_eq!((read(&org), read(&other)), (Some(25), None));
    let same = store.set_concurrency(&org, ConcurrencyChange::default()).await.unwrap();
    assert_eq!(same, Some(25), "an absent key changes nothing");
    for bad in [0, 10_001] {
        let refused = store.set_concurrency(&org, limit(Some(bad))).await;
        assert!(matches!(refused, Err(StoreError::Invalid(_))), "{bad}");
    }
    let again = store.again(options()).await;
    assert_eq!(again.concurrency_limit(&org).await.unwrap(), Some(25));
    assert_eq!(store.set_concurrency(&org, limit(None)).await.unwrap(), None);
    assert_eq!(read(&org), None);
    let nobody = ScopedTo::by_gateway(OrganisationId::random());
    let missing = store.set_concurrency(&nobody, limit(Some(1))).await;
    assert_eq!(missing.unwrap_err(), not_found("Organization"));
}

#[tokio::test]
async fn agents_that_do_not_say_run_where_their_organisation_says() {
    let store = Scratch::new().await;
    let (org, other) = (store.organisation().await, store.organisation().await);
    let mut runtimes = Vec::new();
    for (org, config) in [
        (&org, json!({})),
        (&org, json!({ "runtime": null })),
        (&org, json!({ "runtime": { "type": "builtin", "builtin": "echo" } })),
        (&other, json!({})),
    ] {
        let agent = store.make_agent(org, "a").await.id;
        let version = store.make_version(org, agent, config).await;
        store.make_publish(org, agent, version, json!({})).await.unwrap();
        runtimes.push(agent);
    }
    let at_websocket = || {
        let snapshot = store.snapshot().load();
        let is_there = |agent: &AgentId| {
            let latest = snapshot.agent(*agent).unwrap().latest_published.unwrap();
            let runtime = snapshot.runtime(snapshot.version(latest).unwrap());
            matches!(runtime, Runtime::Websocket(_))
        };
        runtimes.iter().map(is_there).collect::<Vec<_>>()
    };
    assert_eq!(at_websocket(), [false; 4]);
    store.set_default_runtime(&org, at("wss://agents/", Value::Null)).await.unwrap();
    assert_eq!(at_websocket(), [true, true, false, false]);
    store.set_default_runtime(&org, DefaultRuntime::default()).await.unwrap();
    assert_eq!(at_websocket(), [false; 4]);
}

#[tokio::test]
async fn the_token_of_a_default_runtime_is_sealed_and_stays_with_its_url() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    let expected =
        |url: &str, token: Option<&str>| Some((url.to_owned(), token.map(str::to_owned)));
    let shown = store.set_default_runtime(&org, at("wss://a/", json!("canary"))).await.unwrap();
    assert_eq!(shown, at("wss://a/", Value::Null), "never shown again");
    assert_eq!(store.default_runtime(&org).await.unwrap(), shown);
    assert_eq!(read(&store, &org), expected("wss://a/", Some("canary")));
    assert!(!store.bytes().await.windows(6).any(|window| window == b"canary"));

    store.set_default_runtime(&org, at("wss://a/", Value::Null)).await.unwrap();
    assert_eq!(read(&store, &org), expected("wss://a/", Some("canary")), "kept");
    assert_eq!(store.reseal().await.unwrap(), 0, "it is sealed with the newest key already");
    store.set_default_runtime(&org, at("wss://b/", Value::Null)).await.unwrap();
    assert_eq!(read(&store, &org), expected("wss://b/", None), "not shown to another place");

    let lacking = json!({ "type": "sip", "uri": "sip:a@h.example.com", "auth_username": "u" });
    let refused = store.set_default_runtime(&org, DefaultRuntime { runtime: Some(lacking) }).await;
    let Err(StoreError::Invalid(why)) = refused else { panic!("{refused:?}") };
    assert_eq!(why.field, "runtime.auth_password");
    assert_eq!(read(&store, &org), expected("wss://b/", None), "nothing changed");
}
