//! Orders of numbers, and managed trunks.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::managed::{Line, NumberOrder, OrderState};
use crate::model::{E164, InboundConfig, NewManagedTrunk, OutboundConfig, Page, TrunkFilter};

const ACCOUNT: &str = "pool";

fn number() -> E164 {
    "+14155550100".parse().unwrap()
}

fn line() -> Line {
    let outbound = OutboundConfig::to("carrier.example", "u", "canary-line".into());
    Line { inbound: InboundConfig::default(), outbound }
}

/// A store whose clock stands where it is put, and one organisation.
async fn stage() -> (Scratch, Org, Arc<AtomicI64>) {
    let now = Arc::new(AtomicI64::new(START_US));
    let clock = Arc::clone(&now);
    let clock = Clock::from_fn(move || Timestamp::from_micros(clock.load(Ordering::Relaxed)));
    let store = Scratch::with(StoreOptions { clock, ..options() }).await;
    let org = store.organisation().await;
    (store, org, now)
}

fn pass(now: &AtomicI64, seconds: i64) {
    now.fetch_add(seconds * 1_000_000, Ordering::Relaxed);
}

fn is_conflict<T: std::fmt::Debug>(outcome: Result<T, StoreError>) -> bool {
    matches!(outcome, Err(StoreError::Conflict(_)))
}

#[tokio::test]
async fn an_order_becomes_a_number_and_a_managed_trunk_at_once() {
    let (store, org, _) = stage().await;
    let order = store.open_order(&org, ACCOUNT, &number()).await.unwrap();
    assert!(store.number(&org, &number()).await.is_err(), "nothing is there before it is filled");
    let filled = store.fill_order(&order, line()).await.unwrap();
    let trunk = store.trunk(&org, filled.trunk_id).await.unwrap();
    assert_eq!(trunk.managed_account_id.as_deref(), Some(ACCOUNT));
    assert_eq!(trunk.inbound_uri, order.inbound_uri, "as the provider was told");
    let snapshot = store.snapshot().load();
    assert_eq!(snapshot.number("+14155550100").unwrap().trunk_id, trunk.id);
    let outbound = snapshot.trunk(trunk.id).unwrap().outbound.as_ref().unwrap();
    assert_eq!(outbound.password.expose(), "canary-line");
    // Whoever comes late finds it as it is.
    assert_eq!(store.fill_order(&order, line()).await.unwrap(), filled);
    let trunks = store.trunks(&org, &TrunkFilter::default(), Page::default()).await.unwrap();
    assert_eq!(trunks.len(), 1);
}

#[tokio::test]
async fn an_order_keeps_everybody_else_from_the_number() {
    let (store, org, _) = stage().await;
    let other = store.organisation().await;
    let trunk = store.plain_trunk(&other).await;
    let order = store.open_order(&org, ACCOUNT, &number()).await.unwrap();
    assert!(is_conflict(store.open_order(&other, ACCOUNT, &number()).await));
    assert!(is_conflict(store.open_order(&org, ACCOUNT, &number()).await));
    assert!(is_conflict(store.make_number(&other, trunk, "+14155550100").await));
    store.cancel_order(order.id).await.unwrap();
    assert!(is_conflict(store.open_order(&other, ACCOUNT, &number()).await), "not yet");
    store.close_order(order.id).await.unwrap();
    assert!(store.open_order(&other, ACCOUNT, &number()).await.is_ok());
}

#[tokio::test]
async fn numbers_that_are_being_bought_count_against_the_limit() {
    let store = Scratch::with(StoreOptions { max_phone_numbers: 1, ..options() }).await;
    let org = store.organisation().await;
    let trunk = store.plain_trunk(&org).await;
    let limit = StoreError::Refused("Phone number limit reached".to_owned());
    let order = store.open_order(&org, ACCOUNT, &number()).await.unwrap();
    assert_eq!(store.make_number(&org, trunk, "+15550001").await, Err(limit.clone()));
    let second = store.open_order(&org, ACCOUNT, &"+14155550101".parse().unwrap()).await;
    assert_eq!(second.unwrap_err(), limit);
    store.fill_order(&order, line()).await.unwrap();
    assert_eq!(store.make_number(&org, trunk, "+15550001").await, Err(limit));
    let order = store.release_number(&org, ACCOUNT, &number()).await.unwrap();
    store.make_number(&org, trunk, "+15550001").await.unwrap();
    store.close_order(order.id).await.unwrap();
}

#[tokio::test]
async fn an_order_is_worked_on_by_one_at_a_time() {
    let (store, org, now) = stage().await;
    let opened = store.open_order(&org, ACCOUNT, &number()).await.unwrap();
    let claim = async || store.claim_orders(8).await.unwrap();
    assert!(claim().await.is_empty(), "whoever opened it is at it");
    pass(&now, 91);
    let claimed = claim().await;
    assert_eq!(claimed, [NumberOrder { attempts: 1, ..opened.clone() }]);
    assert!(claimed[0].is_resumed() && !opened.is_resumed());
    assert!(claim().await.is_empty(), "whoever took it is at it");
    store.put_order_off(opened.id, Duration::from_secs(5)).await.unwrap();
    assert!(claim().await.is_empty());
    pass(&now, 6);
    assert_eq!(claim().await[0].attempts, 2);
    assert_eq!(store.age(&opened), Duration::from_secs(97));
    store.fill_order(&opened, line()).await.unwrap();
    pass(&now, 86_400);
    assert!(claim().await.is_empty(), "a number that is held is nobody's work");
}

#[tokio::test]
async fn an_order_that_was_given_up_is_not_filled() {
    let (store, org, now) = stage().await;
    let order = store.open_order(&org, ACCOUNT, &number()).await.unwrap();
    store.cancel_order(order.id).await.unwrap();
    assert_eq!(store.fill_order(&order, line()).await, Err(not_found("Order")));
    pass(&now, 91);
    let claimed = store.claim_orders(8).await.unwrap();
    assert_eq!(claimed[0].state, OrderState::Releasing);
    store.close_order(order.id).await.unwrap();
    assert_eq!(store.fill_order(&order, line()).await, Err(not_found("Order")));
    // What is held can be neither cancelled nor closed.
    let order = store.open_order(&org, ACCOUNT, &number()).await.unwrap();
    store.fill_order(&order, line()).await.unwrap();
    store.cancel_order(order.id).await.unwrap();
    store.close_order(order.id).await.unwrap();
    assert!(store.release_number(&org, ACCOUNT, &number()).await.is_ok());
}

#[tokio::test]
async fn only_its_owner_gives_a_number_back_and_only_where_it_was_bought() {
    let (store, org, _) = stage().await;
    let other = store.organisation().await;
    let order = store.open_order(&org, ACCOUNT, &number()).await.unwrap();
    let missing = not_found("Phone number +14155550100");
    let release = async |org: &Org, account: &str| {
        store.release_number(org, account, &number()).await.map(drop)
    };
    assert_eq!(release(&org, ACCOUNT).await, Err(missing.clone()), "it is not there yet");
    let filled = store.fill_order(&order, line()).await.unwrap();
    assert_eq!(release(&other, ACCOUNT).await, Err(missing.clone()));
    assert_eq!(release(&org, "twilio").await, Err(missing.clone()));
    release(&org, ACCOUNT).await.unwrap();
    assert_eq!(release(&org, ACCOUNT).await, Err(missing));
    assert_eq!(store.trunk(&org, filled.trunk_id).await, Err(not_found("Trunk")));
    let snapshot = store.snapshot().load();
    assert!(snapshot.number("+14155550100").is_none() && snapshot.trunk(filled.trunk_id).is_none());
}

#[tokio::test]
async fn an_orders_password_is_sealed_and_sealed_again_with_a_new_key() {
    let path = std::env::temp_dir().join(format!("trunkline-order-{}", uuid::Uuid::new_v4()));
    let with = |sealer| StoreOptions { sealer, ..options() };
    let store = Scratch::with(with(Sealer::open(&path).unwrap())).await;
    let org = store.organisation().await;
    let order = store.open_order(&org, ACCOUNT, &number()).await.unwrap();
    let password = order.password.clone().unwrap();
    let bytes = password.expose().as_bytes().to_vec();
    assert!(!store.bytes().await.windows(bytes.len()).any(|window| window == bytes));
    assert!(!format!("{order:?}").contains(password.expose()));
    let rotated = store.again(with(Sealer::rotate(&path).unwrap())).await;
    assert_eq!(rotated.reseal().await.unwrap(), 1);
    assert_eq!(rotated.reseal().await.unwrap(), 0);
    let mut tx = rotated.0.db.write().await.unwrap();
    let sql = "UPDATE number_orders SET due_at = 0";
    crate::store::sql::query(sql).execute(&mut tx).await.unwrap();
    tx.commit().await.unwrap();
    let claimed = rotated.claim_orders(1).await.unwrap();
    assert_eq!(claimed[0].password, Some(password));
    std::fs::remove_file(path).unwrap();
}

#[tokio::test]
async fn the_operators_trunk_comes_with_its_numbers_or_not_at_all() {
    let (store, org, _) = stage().await;
    let by = Operator::by_process();
    let new = |numbers: &[&str]| -> NewManagedTrunk {
        serde_json::from_value(json!({"organization_id": org.organisation(), "name": "house",
            "phone_numbers": numbers}))
        .unwrap()
    };
    let made =
        store.create_managed_trunk(&by, ACCOUNT, new(&["+15550001", "+15550002"])).await.unwrap();
    assert!(store.snapshot().load().trunk(made.id).unwrap().managed);
    let again = new(&["+15550003", "+15550002"]);
    assert!(is_conflict(store.create_managed_trunk(&by, ACCOUNT, again).await));
    assert!(store.number(&org, &"+15550003".parse().unwrap()).await.is_err());
    let elsewhere = store.delete_managed_trunk(&by, "twilio", made.id).await;
    assert_eq!(elsewhere, Err(not_found("Trunk")));
    store.delete_managed_trunk(&by, ACCOUNT, made.id).await.unwrap();
    assert!(store.snapshot().load().number("+15550001").is_none());
    let own = store.plain_trunk(&org).await;
    assert_eq!(store.delete_managed_trunk(&by, ACCOUNT, own).await, Err(not_found("Trunk")));
}
