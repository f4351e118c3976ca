//! The snapshot that writes leave behind.

use super::*;
use crate::model::{Page, Runtime, TrunkFilter};

#[tokio::test]
async fn a_restart_finds_the_snapshot_that_was() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    let trunk = store.plain_trunk(&org).await;
    store.make_number(&org, trunk, "+15550001").await.unwrap();
    let agent = store.make_agent(&org, "a").await.id;
    let tone = json!({"type": "builtin", "builtin": "playback", "clip": "tone"});
    let version = store.make_version(&org, agent, json!({"runtime": tone})).await;
    let body = json!({"phone_numbers": ["+15550001"]});
    store.make_publish(&org, agent, version, body).await.unwrap();
    let again = store.again(StoreOptions {
        sealer: Sealer::ephemeral().unwrap(), // nothing here is sealed
        ..options()
    });
    let (before, after) = (store.snapshot().load(), again.await.snapshot().load());
    let route = after.number("+15550001").unwrap();
    assert_eq!(before.number("+15550001"), Some(route));
    let version = after.version(route.inbound_version.unwrap()).unwrap();
    assert!(matches!(version.runtime, Runtime::Builtin(_)));
    assert_eq!(after.agent(agent).unwrap().latest_published, Some(version.id));
    let trunk = after.trunk(route.trunk_id).unwrap();
    assert_eq!(after.trunk_by_slug(&trunk.slug), Some(trunk));
    assert_eq!(after.size(), (1, 1));
}

#[tokio::test]
async fn drafts_are_not_in_a_snapshot() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    let agent = store.make_agent(&org, "a").await.id;
    store.make_version(&org, agent, json!({})).await;
    assert_eq!(store.snapshot().load().agent(agent).unwrap().latest_published, None);
}

#[tokio::test]
async fn a_write_whose_caller_went_away_is_in_the_snapshot_if_it_is_in_the_store() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    for patience in (0..400).step_by(10) {
        let hang_up = async {
            for _ in 0..patience {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            _ = store.make_trunk(&org, json!({"name": "t"})) => {}
            () = hang_up => {}
        }
        // The turn is free again once a write that went through can be seen.
        drop(store.0.db.write().await.unwrap());
        let stored = store.trunks(&org, &TrunkFilter::default(), Page::first(1_000)).await;
        assert_eq!(store.snapshot().load().size().1, stored.unwrap().len(), "{patience}");
    }
}

/// `cargo test --release -- --ignored --nocapture` prints what a rebuild costs.
#[tokio::test]
#[ignore = "a measurement: 10,000 trunks and 100,000 numbers"]
async fn rebuilding_a_large_snapshot_is_measured() {
    let options = StoreOptions { max_phone_numbers: 1_000_000, ..options() };
    let store = Scratch::with(options).await;
    let org = store.organisation().await;
    let body = json!({"name": "t", "inbound_config": {"allowed_addresses": ["192.0.2.1"],
        "auth_username": "pbx", "auth_password": "x"}});
    let first = store.make_trunk(&org, body).await.unwrap().id.to_string();
    let mut tx = store.0.db.write().await.unwrap();
    sqlx::query(
        "WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 10000)
         INSERT INTO trunks SELECT printf('%08x-0000-4000-8000-000000000000', i),
             organization_id, name, name_folded, 's' || i, NULL,
             '{\"allowed_addresses\":[\"10.' || (i / 250) || '.' || (i % 250) || '.1\"]}',
             NULL, NULL, NULL, NULL, created_at + i, updated_at FROM n, trunks WHERE id = ?",
    )
    .bind(&first)
    .execute(&mut *tx)
    .await
    .unwrap();
    sqlx::query(
        "WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 100000)
         INSERT INTO phone_numbers SELECT '+1' || (5550000000 + i), ?, ?, NULL, NULL, 0, i, i FROM n",
    )
    .bind(org.organisation().to_string())
    .bind(&first)
    .execute(&mut *tx)
    .await
    .unwrap();
    tx.commit().await.unwrap();
    let whole = async {
        let mut tx = store.0.db.read().await.unwrap();
        store.0.snapshot.swap(store.whole_snapshot(&mut tx).await.unwrap());
    };
    println!("all numbers and trunks: {:?}", timed(whole).await);
    println!("{:?}", store.snapshot().load().size());
    let trunk = first.parse().unwrap();
    let number = async { store.make_number(&org, trunk, "+4930123").await.map(drop).unwrap() };
    println!("registering one number: {:?}", timed(number).await);
    let trunk = async { store.make_trunk(&org, json!({"name": "t"})).await.map(drop).unwrap() };
    println!("making one trunk: {:?}", timed(trunk).await);
}

async fn timed(work: impl Future<Output = ()>) -> std::time::Duration {
    #[expect(clippy::disallowed_methods, reason = "a measurement needs a clock")]
    let begin = std::time::Instant::now();
    work.await;
    begin.elapsed()
}
