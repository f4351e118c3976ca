//! Trunks and phone numbers.

use super::*;
use crate::model::{E164, NumberChange, NumberFilter, Page, Period, TrunkChange, TrunkFilter};
use crate::store::sql;

fn change(body: Value) -> TrunkChange {
    serde_json::from_value(body).unwrap()
}

fn outbound(password: Value) -> Value {
    json!({"address": "sip.carrier.example", "auth_username": "acme", "auth_password": password})
}

fn number(text: &str) -> E164 {
    text.parse().unwrap()
}

#[tokio::test]
async fn a_trunk_is_returned_as_it_was_made() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    let body = json!({"name": "Carrier", "outbound_config": outbound(json!("canary")),
        "inbound_config": {"media_encryption": "ALLOW", "allowed_addresses": ["192.0.2.0/24"]}});
    let made = store.make_trunk(&org, body).await.unwrap();
    assert!(made.inbound_uri.starts_with("sip:t"));
    assert!(made.inbound_uri.ends_with(".sip.example.com"));
    let read = store.trunk(&org, made.id).await.unwrap();
    assert_eq!(read, made);
    let text = serde_json::to_value(&read).unwrap();
    assert_eq!(text["outbound_config"]["auth_password"], Value::Null);
    assert_eq!(text["outbound_config"]["auth_password_set"], true);
    assert_eq!(text["inbound_config"]["media_encryption"], "SIP_MEDIA_ENCRYPT_ALLOW");
}

#[tokio::test]
async fn passwords_are_sealed_on_disk_and_open_in_the_snapshot() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    let body = json!({"name": "t", "outbound_config": outbound(json!("canary-out")),
        "inbound_config": {"auth_username": "pbx", "auth_password": "canary-in"}});
    let id = store.make_trunk(&org, body).await.unwrap().id;
    assert!(!store.bytes().await.windows(7).any(|window| window == b"canary-"));
    let snapshot = store.snapshot().load();
    let route = snapshot.trunk(id).unwrap();
    assert_eq!(route.digest.as_ref().unwrap().password.expose(), "canary-in");
    assert_eq!(route.outbound.as_ref().unwrap().password.expose(), "canary-out");
    assert!(!format!("{snapshot:?}").contains("canary"));
}

#[tokio::test]
async fn a_change_keeps_the_password_it_does_not_name() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    let body = json!({"name": "t", "outbound_config": outbound(json!("old"))});
    let id = store.make_trunk(&org, body).await.unwrap().id;
    let password = || {
        let snapshot = store.snapshot().load();
        snapshot.trunk(id).unwrap().outbound.as_ref().map(|out| out.password.expose().clone())
    };
    for (body, expected) in [
        (json!({"outbound_config": outbound(Value::Null)}), Some("old")),
        (json!({"name": "renamed"}), Some("old")),
        (json!({"outbound_config": outbound(json!("new"))}), Some("new")),
        (json!({"outbound_config": null}), None),
    ] {
        store.update_trunk(&org, id, change(body)).await.unwrap();
        assert_eq!(password().as_deref(), expected);
    }
    let error = store
        .update_trunk(&org, id, change(json!({"outbound_config": outbound(Value::Null)})))
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::Invalid(_)), "nothing is kept of a removed config");
}

#[tokio::test]
async fn inbound_credentials_need_both_halves() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    for inbound in [json!({"auth_username": "pbx"}), json!({"auth_password": "x"})] {
        let made = store.make_trunk(&org, json!({"name": "t", "inbound_config": inbound})).await;
        assert!(matches!(made, Err(StoreError::Invalid(_))));
    }
}

#[tokio::test]
async fn one_digest_user_names_one_trunk() {
    let store = Scratch::new().await;
    let (org, other) = (store.organisation().await, store.organisation().await);
    let body = |name: &str| json!({"name": name, "inbound_config": {"auth_username": "pbx", "auth_password": "x"}});
    let first = store.make_trunk(&org, body("first")).await.unwrap();
    let StoreError::Conflict(own) = store.make_trunk(&org, body("b")).await.unwrap_err() else {
        panic!("a tie is a conflict")
    };
    assert!(own.contains("first") && own.contains(&first.id.to_string()));
    let StoreError::Conflict(foreign) = store.make_trunk(&other, body("c")).await.unwrap_err()
    else {
        panic!("a tie is a conflict")
    };
    assert!(!foreign.contains("first") && !foreign.contains(&first.id.to_string()));
    // The same trunk may be written again, and what is given up can be taken.
    let same = change(json!({"inbound_config": {"auth_username": "pbx"}}));
    store.update_trunk(&org, first.id, same).await.unwrap();
    let without = change(json!({"inbound_config": null}));
    store.update_trunk(&org, first.id, without).await.unwrap();
    assert!(store.make_trunk(&other, body("c")).await.is_ok());
}

#[tokio::test]
async fn overlapping_addresses_are_no_tie() {
    let store = Scratch::new().await;
    let (org, other) = (store.organisation().await, store.organisation().await);
    for org in [&org, &org, &other] {
        let body = json!({"name": "t", "inbound_config": {"allowed_addresses": ["192.0.2.1"]}});
        store.make_trunk(org, body).await.unwrap();
    }
    let source = "192.0.2.1".parse().unwrap();
    assert_eq!(store.snapshot().load().trunks_allowing(source).len(), 3);
}

#[tokio::test]
async fn a_managed_trunk_is_read_only() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    let id = store.plain_trunk(&org).await;
    store.make_number(&org, id, "+15550001").await.unwrap();
    let mut tx = store.0.db.write().await.unwrap();
    sql::query("UPDATE trunks SET managed_account_id = 'twilio'").execute(&mut tx).await.unwrap();
    tx.commit().await.unwrap();
    let refused = |outcome: Result<(), StoreError>| {
        assert!(matches!(outcome, Err(StoreError::Refused(_))), "{outcome:?}");
    };
    refused(store.update_trunk(&org, id, change(json!({"name": "x"}))).await.map(drop));
    refused(store.delete_trunk(&org, id, true).await);
    refused(store.make_number(&org, id, "+15550002").await.map(drop));
    refused(store.delete_number(&org, &number("+15550001")).await);
}

#[tokio::test]
async fn a_trunk_with_numbers_goes_only_by_force() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    let id = store.plain_trunk(&org).await;
    store.make_number(&org, id, "+15550001").await.unwrap();
    store.make_number(&org, id, "+15550002").await.unwrap();
    let StoreError::Conflict(why) = store.delete_trunk(&org, id, false).await.unwrap_err() else {
        panic!("numbers are a conflict")
    };
    assert_eq!(why, "Trunk still carries 2 phone numbers");
    store.delete_trunk(&org, id, true).await.unwrap();
    assert_eq!(store.trunk(&org, id).await, Err(not_found("Trunk")));
    assert!(store.snapshot().load().number("+15550001").is_none());
}

#[tokio::test]
async fn trunks_are_found_by_part_of_their_name_whatever_the_case() {
    let store = Scratch::new().await;
    let (org, other) = (store.organisation().await, store.organisation().await);
    for name in ["Zürich Carrier", "ÜBERCARRIER", "plain", "100%_sure"] {
        store.make_trunk(&org, json!({"name": name})).await.unwrap();
    }
    store.make_trunk(&other, json!({"name": "carrier of another"})).await.unwrap();
    let find = async |part: &str| {
        let filter = TrunkFilter { name: Some(part.to_owned()), ..TrunkFilter::default() };
        let found = store.trunks(&org, &filter, Page::default()).await.unwrap();
        found.into_iter().map(|trunk| trunk.name).collect::<Vec<_>>()
    };
    assert_eq!(find("CARRIER").await, ["ÜBERCARRIER", "Zürich Carrier"]);
    assert_eq!(find("übercarr").await, ["ÜBERCARRIER"]);
    assert_eq!(find("%").await, ["100%_sure"]);
    assert!(find("x' OR 1=1 --").await.is_empty());
}

#[tokio::test]
async fn pages_walk_back_in_time_and_meet_every_row_once() {
    let frozen =
        StoreOptions { clock: Clock::from_fn(|| Timestamp::from_micros(START_US)), ..options() };
    let store = Scratch::with(frozen).await;
    let org = store.organisation().await;
    for number in 0..25 {
        store.make_trunk(&org, json!({"name": format!("{number}")})).await.unwrap();
    }
    let (mut seen, mut page) = (Vec::new(), Page::first(10));
    loop {
        let trunks = store.trunks(&org, &TrunkFilter::default(), page).await.unwrap();
        seen.extend(trunks.iter().map(|trunk| trunk.name.parse::<u32>().unwrap()));
        page.before = trunks.last().map(|trunk| trunk.created_at);
        if trunks.len() < 10 {
            break;
        }
    }
    assert_eq!(seen, (0..25).rev().collect::<Vec<_>>(), "ties were bumped apart");
}

#[tokio::test]
async fn time_bounds_are_inclusive() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    let mut stamps = Vec::new();
    for _ in 0..3 {
        stamps.push(store.make_trunk(&org, json!({"name": "t"})).await.unwrap().created_at);
    }
    let count = async |after: Option<Timestamp>, before: Option<Timestamp>| {
        let period = Period { created_after: after, created_before: before, ..Period::default() };
        let filter = TrunkFilter { period, ..TrunkFilter::default() };
        store.trunks(&org, &filter, Page::default()).await.unwrap().len()
    };
    assert_eq!(count(Some(stamps[1]), None).await, 2);
    assert_eq!(count(None, Some(stamps[1])).await, 2);
    assert_eq!(count(Some(stamps[1]), Some(stamps[1])).await, 1);
    assert_eq!(count(Some(stamps[2].next()), None).await, 0);
}

#[tokio::test]
async fn a_number_is_somebodys_once() {
    let store = Scratch::new().await;
    let (org, other) = (store.organisation().await, store.organisation().await);
    let (mine, theirs) = (store.plain_trunk(&org).await, store.plain_trunk(&other).await);
    let made = store.make_number(&org, mine, "+15550001").await.unwrap();
    assert_eq!(store.number(&org, &made.phone_number).await.unwrap(), made);
    for (org, trunk) in [(&org, mine), (&other, theirs)] {
        let again = store.make_number(org, trunk, "+15550001").await;
        assert!(matches!(again, Err(StoreError::Conflict(_))));
    }
    let foreign = store.make_number(&other, mine, "+15550002").await;
    assert_eq!(foreign, Err(not_found("Trunk")));
    store.delete_number(&org, &made.phone_number).await.unwrap();
    assert!(store.make_number(&other, theirs, "+15550001").await.is_ok());
}

#[tokio::test]
async fn an_organisation_has_only_so_many_numbers() {
    let store = Scratch::with(StoreOptions { max_phone_numbers: 2, ..options() }).await;
    let org = store.organisation().await;
    let trunk = store.plain_trunk(&org).await;
    store.make_number(&org, trunk, "+15550001").await.unwrap();
    store.make_number(&org, trunk, "+15550002").await.unwrap();
    let refused = store.make_number(&org, trunk, "+15550003").await.unwrap_err();
    assert_eq!(refused, StoreError::Refused("Phone number limit reached".to_owned()));
}

#[tokio::test]
async fn numbers_are_found_by_part_and_by_trunk_and_changed_in_one_way() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    let (a, b) = (store.plain_trunk(&org).await, store.plain_trunk(&org).await);
    store.make_number(&org, a, "+15550001").await.unwrap();
    store.make_number(&org, b, "+4930123").await.unwrap();
    let find = async |filter: NumberFilter| {
        let found = store.numbers(&org, &filter, Page::default()).await.unwrap();
        found.into_iter().map(|row| row.phone_number.to_string()).collect::<Vec<_>>()
    };
    let by_part = NumberFilter { phone_number: Some("555".to_owned()), ..NumberFilter::default() };
    assert_eq!(find(by_part).await, ["+15550001"]);
    let by_trunk = NumberFilter { trunk_id: Some(b), ..NumberFilter::default() };
    assert_eq!(find(by_trunk).await, ["+4930123"]);
    let change = NumberChange { outbound_shareable: true };
    let changed = store.update_number(&org, &number("+4930123"), change).await.unwrap();
    assert!(changed.outbound_shareable && changed.updated_at > changed.created_at);
    assert!(store.snapshot().load().number("+4930123").unwrap().outbound_shareable);
    let missing = store.update_number(&org, &number("+15559999"), change).await;
    assert_eq!(missing, Err(not_found("Phone number +15559999")));
}

#[tokio::test]
async fn what_belongs_to_another_is_as_absent_as_what_never_was() {
    let store = Scratch::new().await;
    let (org, other) = (store.organisation().await, store.organisation().await);
    let trunk = store.plain_trunk(&org).await;
    store.make_number(&org, trunk, "+15550001").await.unwrap();
    assert_eq!(store.trunk(&other, trunk).await, Err(not_found("Trunk")));
    let renamed = store.update_trunk(&other, trunk, change(json!({"name": "x"}))).await;
    assert_eq!(renamed, Err(not_found("Trunk")));
    assert_eq!(store.delete_trunk(&other, trunk, true).await, Err(not_found("Trunk")));
    let foreign = not_found("Phone number +15550001");
    assert_eq!(store.number(&other, &number("+15550001")).await, Err(foreign.clone()));
    assert_eq!(store.delete_number(&other, &number("+15550001")).await, Err(foreign));
    let (all, page) = (TrunkFilter::default(), Page::default());
    assert!(store.trunks(&other, &all, page).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_rotated_key_seals_everything_again() {
    let path = std::env::temp_dir().join(format!("trunkline-rotate-{}", uuid::Uuid::new_v4()));
    let with = |sealer| StoreOptions { sealer, ..options() };
    let store = Scratch::with(with(Sealer::open(&path).unwrap())).await;
    let org = store.organisation().await;
    let body = json!({"name": "t", "outbound_config": outbound(json!("pw"))});
    let id = store.make_trunk(&org, body).await.unwrap().id;
    let agent = store.make_agent(&org, "a").await.id;
    let runtime = json!({"type": "websocket", "url": "wss://h/", "auth_token": "tok"});
    store.make_version(&org, agent, json!({"runtime": runtime})).await;
    let runtime = json!({"runtime": {"type": "websocket", "url": "wss://h/", "auth_token": "tok"}});
    store.set_default_runtime(&org, serde_json::from_value(runtime).unwrap()).await.unwrap();
    let rotated = store.again(with(Sealer::rotate(&path).unwrap())).await;
    assert_eq!(rotated.reseal().await.unwrap(), 3);
    assert_eq!(rotated.reseal().await.unwrap(), 0);
    let route = rotated.snapshot().load().trunk(id).unwrap().clone();
    assert_eq!(route.outbound.unwrap().password.expose(), "pw");
    std::fs::remove_file(path).unwrap();
}
