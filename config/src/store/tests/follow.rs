//! Nodes that share a PostgreSQL database, and see what the others write.

use super::*;
use crate::credential::{Grant, Grants, Role};
use crate::model::{NewApiKey, NumberFilter, Page};

/// Waits until something is so; the test fails when it does not become so.
pub(super) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    };
    let patience = std::time::Duration::from_secs(10);
    assert!(tokio::time::timeout(patience, waiting).await.is_ok(), "{what}");
}

/// For who waits for many others, on a machine that may be busy.
fn patient() -> StoreOptions {
    StoreOptions { busy_budget_ms: 20_000, ..options() }
}

fn key() -> NewApiKey {
    let grants = Grants::new(vec![Grant::Role(Role::Admin)]);
    NewApiKey { name: "key".to_owned(), expires_at: None, grants }
}

#[tokio::test]
async fn what_a_node_writes_its_neighbour_sees_without_asking() {
    let here = Scratch::new().await;
    if !here.is_postgres() {
        return;
    }
    let there = here.again(StoreOptions { node: "there".to_owned(), ..options() }).await;
    let following = tokio::spawn(there.clone().keep_following());
    let org = here.organisation().await;
    let seen = || there.snapshot().load().organisation(org.organisation()).is_some();
    until("an organisation is seen", seen).await;
    let trunk = here.plain_trunk(&org).await;
    here.make_number(&org, trunk, "+15550001").await.unwrap();
    let agent = here.make_agent(&org, "a").await.id;
    let version = here.make_version(&org, agent, json!({})).await;
    let body = json!({"phone_numbers": ["+15550001"]});
    let published = here.make_publish(&org, agent, version, body).await.unwrap();
    let slot = published[0].inbound_agent_version_id;
    let seen = || {
        let snapshot = there.snapshot().load();
        snapshot.number("+15550001").is_some_and(|route| route.inbound_version == slot)
    };
    until("a publish is seen", seen).await;
    here.delete_number(&org, &"+15550001".parse().unwrap()).await.unwrap();
    let gone = || there.snapshot().load().number("+15550001").is_none();
    until("a number that was given up is not seen", gone).await;
    let limit = crate::model::ConcurrencyChange { concurrency_limit: Some(Some(25)) };
    here.set_concurrency(&org, limit).await.unwrap();
    let seen = || {
        let snapshot = there.snapshot().load();
        snapshot.organisation(org.organisation()).unwrap().concurrency_limit == Some(25)
    };
    until("a limit is seen", seen).await;
    assert!(!there.follow().await.unwrap(), "and nothing is left to be read again");
    following.abort();
}

#[tokio::test]
async fn a_key_opens_and_closes_every_node() {
    let here = Scratch::new().await;
    if !here.is_postgres() {
        return;
    }
    let there = here.again(StoreOptions { node: "there".to_owned(), ..options() }).await;
    let following = tokio::spawn(there.clone().keep_following());
    let org = here.organisation().await;
    let (key, text) = here.create_key(&org, Role::Admin.scopes(), key()).await.unwrap();
    until("the key opens", || there.authenticate(text.expose()).is_ok()).await;
    here.revoke_key(&org, key.key_id).await.unwrap();
    until("the key is out", || there.authenticate(text.expose()).is_err()).await;
    following.abort();
}

#[tokio::test]
async fn notices_that_were_missed_are_noticed() {
    let here = Scratch::new().await;
    if !here.is_postgres() {
        return;
    }
    let there = here.again(StoreOptions { node: "there".to_owned(), ..options() }).await;
    let org = here.organisation().await;
    let first = here.plain_trunk(&org).await;
    let own = there.create_trunk(&org, serde_json::from_value(json!({"name": "own"})).unwrap());
    let own = own.await.unwrap().id;
    assert!(there.snapshot().load().trunk(first).is_none(), "nobody listened");
    let following = tokio::spawn(there.clone().keep_following());
    until("what was missed is there", || there.snapshot().load().trunk(first).is_some()).await;
    assert!(there.snapshot().load().trunk(own).is_some(), "and what was written meanwhile");
    following.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_nodes_that_write_at_once_end_up_with_one_picture() {
    let here = Scratch::with(patient()).await;
    if !here.is_postgres() {
        return;
    }
    let there = here.again(StoreOptions { node: "there".to_owned(), ..options() }).await;
    let following = [&here.store, &there].map(|node| tokio::spawn(node.clone().keep_following()));
    let org = here.organisation().await;
    let trunk = here.plain_trunk(&org).await;
    let mut writing = tokio::task::JoinSet::new();
    for (store, prefix) in [(here.store.clone(), "+1555"), (there.clone(), "+1666")] {
        let org = ScopedTo::by_gateway(org.organisation());
        writing.spawn(async move {
            for number in 0..50 {
                let phone_number = format!("{prefix}{number:04}").parse().unwrap();
                let new =
                    NewPhoneNumber { phone_number, trunk_id: trunk, outbound_shareable: false };
                store.register_number(&org, new).await.unwrap();
            }
        });
    }
    writing.join_all().await;
    let whole = |store: &Store| store.snapshot().load().size() == (100, 1);
    until("both see all", || whole(&here.store) && whole(&there)).await;
    let filter = NumberFilter::default();
    let rows = here.numbers(&org, &filter, Page::first(1_000)).await.unwrap();
    let mut moments: Vec<_> = rows.iter().map(|row| row.created_at).collect();
    moments.dedup();
    assert_eq!(moments.len(), 100, "every moment is given once");
    for task in following {
        task.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_nodes_that_ask_for_a_draft_at_once_one_makes_it() {
    let here = Scratch::with(patient()).await;
    if !here.is_postgres() {
        return;
    }
    let there = here.again(StoreOptions { node: "there".to_owned(), ..options() }).await;
    let org = here.organisation().await;
    let agent = here.make_agent(&org, "a").await.id;
    let mut asking = tokio::task::JoinSet::new();
    for store in [&here.store, &there].into_iter().cycle().take(40) {
        let (store, org) = (store.clone(), ScopedTo::by_gateway(org.organisation()));
        asking
            .spawn(async move { store.version(&org, agent, VersionRef::Latest).await.unwrap().id });
    }
    let mut ids = asking.join_all().await;
    ids.dedup();
    assert_eq!(ids.len(), 1);
}
