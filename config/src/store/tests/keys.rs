//! Organisations, keys, and opening the store.

use super::*;
use crate::credential::{Grant, Grants, Role, Scope, Unauthenticated};
use crate::model::{NewApiKey, Page};

fn key(grants: Vec<Grant>, expires_at: Option<i64>) -> NewApiKey {
    NewApiKey { name: "key".to_owned(), expires_at, grants: Grants::new(grants) }
}

fn admin() -> NewApiKey {
    key(vec![Grant::Role(Role::Admin)], None)
}

#[tokio::test]
async fn the_first_start_makes_one_organisation_and_one_key() {
    let store = Scratch::new().await;
    let (organisation, text) = store.bootstrap().await.unwrap().unwrap();
    let bearer = store.authenticate(text.expose()).unwrap();
    assert_eq!(bearer.organisation().organisation(), organisation.id);
    assert!(bearer.scopes().holds(Scope::TrunksManage));
    assert!(bearer.operator_read().is_some() && bearer.operator_manage().is_some());
    assert!(store.snapshot().load().organisation(organisation.id).is_some());
    assert!(store.bootstrap().await.unwrap().is_none());
}

#[tokio::test]
async fn a_key_survives_a_restart_and_its_text_is_nowhere_on_disk() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    let held = Role::Admin.scopes();
    let (_, text) = store.create_key(&org, held, admin()).await.unwrap();
    let again = store.again(options()).await;
    assert!(again.authenticate(text.expose()).is_ok());
    let secret = text.expose().split('.').nth(1).unwrap().as_bytes().to_vec();
    assert!(!store.bytes().await.windows(secret.len()).any(|window| window == secret));
}

#[tokio::test]
async fn a_revoked_key_opens_nothing_from_then_on() {
    let store = Scratch::new().await;
    let (org, other) = (store.organisation().await, store.organisation().await);
    let held = Role::Admin.scopes();
    let (key, text) = store.create_key(&org, held, admin()).await.unwrap();
    assert_eq!(store.revoke_key(&other, key.key_id).await, Err(not_found("API key")));
    assert!(store.authenticate(text.expose()).is_ok());
    store.revoke_key(&org, key.key_id).await.unwrap();
    assert_eq!(store.authenticate(text.expose()), Err(Unauthenticated));
    assert!(store.again(options()).await.authenticate(text.expose()).is_err());
}

#[tokio::test]
async fn what_another_process_writes_is_followed() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    store.follow().await.unwrap();
    let other = store.again(options()).await;
    let held = Role::Admin.scopes();
    let (key, text) = other.create_key(&org, held, admin()).await.unwrap();
    let new_agent = serde_json::from_value(json!({"name": "new"})).unwrap();
    let agent = other.create_agent(&org, new_agent).await.unwrap();
    assert_eq!(store.authenticate(text.expose()), Err(Unauthenticated));
    store.follow().await.unwrap();
    assert!(store.authenticate(text.expose()).is_ok());
    assert!(store.snapshot().load().agent(agent.id).is_some());
    other.revoke_key(&org, key.key_id).await.unwrap();
    store.follow().await.unwrap();
    assert_eq!(store.authenticate(text.expose()), Err(Unauthenticated));
}

#[tokio::test]
async fn wrong_unknown_and_expired_keys_are_all_the_same() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    let held = Role::Admin.scopes();
    let (_, text) = store.create_key(&org, held, admin()).await.unwrap();
    let (_, other) = store.create_key(&org, held, admin()).await.unwrap();
    let id = text.expose().split('.').next().unwrap();
    let wrong = format!("{id}.{}", other.expose().split('.').nth(1).unwrap());
    let unknown = crate::credential::mint::<crate::ids::KeyId>().unwrap().text;
    let (_, expired) =
        store.create_key(&org, held, key(vec![], Some(START_US / 1_000))).await.unwrap();
    for text in [wrong.as_str(), unknown.expose(), expired.expose(), "", "ak_x.y"] {
        assert_eq!(store.authenticate(text), Err(Unauthenticated));
    }
}

#[tokio::test]
async fn a_key_cannot_make_a_stronger_key() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    let held = Role::Admin.scopes();
    let operator = key(vec![Grant::Scope(Scope::OperatorManage)], None);
    let refused = store.create_key(&org, held, operator.clone()).await.unwrap_err();
    assert!(matches!(refused, StoreError::Refused(_)));
    let by = Operator::by_process();
    assert!(store.create_key_for(&by, org.organisation(), operator).await.is_ok());
}

#[tokio::test]
async fn keys_are_listed_newest_first_with_their_last_use_to_the_minute() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    let held = Role::Admin.scopes();
    let (first, text) = store.create_key(&org, held, admin()).await.unwrap();
    let (second, _) = store.create_key(&org, held, admin()).await.unwrap();
    store.authenticate(text.expose()).unwrap();
    store.flush_last_used().await.unwrap();
    for store in [&store.store, &store.again(options()).await] {
        let keys = store.keys(&org, Page::default()).await.unwrap();
        assert_eq!([keys[0].key_id, keys[1].key_id], [second.key_id, first.key_id]);
        assert_eq!(keys[0].last_used_at, None);
        assert_eq!(keys[1].last_used_at, Some(Timestamp::from_micros(START_US)));
    }
}

#[tokio::test]
async fn a_store_in_memory_works_like_one_in_a_file() {
    let store = Store::open("sqlite::memory:", options()).await.unwrap();
    let (organisation, _) = store.bootstrap().await.unwrap().unwrap();
    let org = ScopedTo::by_gateway(organisation.id);
    assert_eq!(store.organisation(&org).await.unwrap(), organisation);
    assert_eq!(store.check().await, Ok(()));
}

#[tokio::test]
async fn the_database_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let store = Scratch::new().await;
    if store.is_postgres() {
        return;
    }
    store.organisation().await;
    for file in std::fs::read_dir(&store.folder).unwrap() {
        let mode = file.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[tokio::test]
async fn a_folder_that_is_not_there_is_a_failing_disk() {
    let error = Store::open("sqlite:/nonexistent/store.db", options()).await.unwrap_err();
    assert_eq!(error, StoreError::Unavailable(super::super::Unavailable::StorageFailed));
}

#[tokio::test]
async fn only_urls_of_the_two_databases_are_opened() {
    for url in ["mysql://u:hunter2@h/db", "", "postgres", "postgres://u:hunter2@[h/db"] {
        let error = Store::open(url, options()).await.unwrap_err();
        assert!(matches!(error, StoreError::Invalid(_)), "{error:?}");
        assert!(!format!("{error:?}").contains("hunter2"));
    }
}

#[tokio::test]
async fn a_locked_database_is_unavailable_to_writers_and_open_to_readers() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    let locked = store.lock().await;
    let busy = store.make_trunk(&org, json!({"name": "t"})).await.unwrap_err();
    assert_eq!(busy, StoreError::Unavailable(super::super::Unavailable::Busy));
    assert!(store.store.organisation(&org).await.is_ok());
    locked.release().await;
    assert!(store.make_trunk(&org, json!({"name": "t"})).await.is_ok());
}
