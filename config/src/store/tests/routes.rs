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
    assert!(matches!(version.runtime, Some(Runtime::Builtin(_))));
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
