//! The audit log: complete, ordered, and telling when somebody had a hand in it.

use sqlx::{Connection as _, PgConnection, SqliteConnection};

use super::*;
use crate::credential::{Role, ScopeSet};
use crate::model::{
    AuditActorKind, AuditEntry, AuditFault, AuditFilter, AuditOutcome, NewApiKey, NewMember, Page,
};

impl Scratch {
    async fn log(&self, org: &Org) -> Vec<AuditEntry> {
        self.audit_log(org, &AuditFilter::default(), Page::first(Page::MAX)).await.unwrap()
    }

    /// Does something to the database that no verb does.
    async fn tamper(&self, sql: &'static str) {
        if self.is_postgres() {
            let mut other = PgConnection::connect(&self.url).await.unwrap();
            let off = "DROP TRIGGER IF EXISTS audit_log_is_append_only ON audit_log";
            sqlx::query(off).execute(&mut other).await.unwrap();
            assert!(sqlx::query(sql).execute(&mut other).await.unwrap().rows_affected() > 0);
            return;
        }
        let mut other = SqliteConnection::connect(&self.url).await.unwrap();
        let off = "DROP TRIGGER IF EXISTS audit_log_is_not_changed;
                   DROP TRIGGER IF EXISTS audit_log_is_not_shortened";
        sqlx::raw_sql(off).execute(&mut other).await.unwrap();
        assert!(sqlx::query(sql).execute(&mut other).await.unwrap().rows_affected() > 0);
    }

    async fn fault(&self, org: &Org) -> Option<AuditFault> {
        self.verify_audit_log(org).await.unwrap().fault
    }
}

/// An organisation with six entries in its log.
async fn six_entries() -> (Scratch, Org) {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    for _ in 0..6 {
        store.plain_trunk(&org).await;
    }
    assert_eq!(store.fault(&org).await, None);
    (store, org)
}

#[tokio::test]
async fn every_change_is_told_once_and_in_order() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    let trunk = store.plain_trunk(&org).await;
    let number = store.make_number(&org, trunk, "+15551110001").await.unwrap();
    let agent = store.make_agent(&org, "a").await.id;
    let version = store.make_version(&org, agent, json!({})).await;
    let body = json!({"phone_numbers": ["+15551110001"]});
    store.make_publish(&org, agent, version, body).await.unwrap();
    let new = NewApiKey { name: "k".to_owned(), expires_at: None, grants: Default::default() };
    let (key, _) = store.create_key(&org, ScopeSet::all(), new).await.unwrap();
    store.revoke_key(&org, key.key_id).await.unwrap();
    let email = "ada@example.com".parse().unwrap();
    let member = NewMember { email, name: String::new(), role: Role::Viewer };
    let member = store.add_member(&org, ScopeSet::all(), member).await.unwrap();
    store.delete_trunk(&org, trunk, true).await.unwrap();
    store.delete_agent(&org, agent).await.unwrap();

    let mut log = store.log(&org).await;
    log.reverse();
    let told: Vec<_> = log
        .iter()
        .map(|entry| (entry.action.as_str(), entry.object_id.as_deref().unwrap()))
        .collect();
    let (trunk, agent, key) = (trunk.to_string(), agent.to_string(), key.key_id.to_string());
    let member = member.user_id.to_string();
    let version = log[3].object_id.clone().unwrap();
    let expected = [
        ("trunk.create", trunk.as_str()),
        ("number.create", number.phone_number.as_str()),
        ("agent.create", &agent),
        ("version.create", &version),
        ("version.publish", &version),
        ("number.assign", number.phone_number.as_str()),
        ("key.create", &key),
        ("key.revoke", &key),
        ("member.add", &member),
        ("number.delete", number.phone_number.as_str()),
        ("trunk.delete", &trunk),
        ("agent.delete", &agent),
    ];
    assert_eq!(told, expected);
    for (index, entry) in log.iter().enumerate() {
        assert_eq!(usize::try_from(entry.sequence).unwrap(), index + 1);
        assert_eq!(entry.outcome, AuditOutcome::Done);
        assert_eq!(entry.actor.kind, AuditActorKind::Gateway);
        let before = index.checked_sub(1).and_then(|index| log.get(index));
        let previous = before.map_or("0".repeat(64), |entry| entry.hash.clone());
        assert_eq!(entry.previous_hash, previous);
        assert!(before.is_none_or(|before| before.at < entry.at));
    }
    assert_eq!(log[0].after, log[10].before, "nothing had changed it in between");
    assert!(log[0].before.is_none() && log[10].after.is_none());
    let chain = store.verify_audit_log(&org).await.unwrap();
    assert_eq!((chain.entries, chain.fault), (12, None));
    assert_eq!(chain.head_hash, log[11].hash);
}

#[tokio::test]
async fn the_hash_of_an_entry_can_be_computed_from_what_is_shown() {
    use sha2::{Digest as _, Sha256};
    let (store, org) = six_entries().await;
    for entry in store.log(&org).await {
        let bytes = |hex: &str| -> Vec<u8> {
            (0..32).map(|n| u8::from_str_radix(&hex[2 * n..2 * n + 2], 16).unwrap()).collect()
        };
        let mut shown = serde_json::to_value(&entry).unwrap();
        shown.as_object_mut().unwrap().retain(|key, _| !key.ends_with("hash"));
        let hash = Sha256::new()
            .chain_update(bytes(&entry.previous_hash))
            .chain_update(shown.to_string())
            .finalize();
        assert_eq!(hash.to_vec(), bytes(&entry.hash));
    }
}

#[tokio::test]
async fn a_change_that_does_not_happen_is_not_told() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    let trunk = store.plain_trunk(&org).await;
    store.make_number(&org, trunk, "+15551110001").await.unwrap();
    assert!(store.delete_trunk(&org, trunk, false).await.is_err());
    assert!(store.make_number(&org, trunk, "+15551110001").await.is_err());
    assert_eq!(store.log(&org).await.len(), 2);
    assert_eq!(store.fault(&org).await, None);
}

#[tokio::test]
async fn organisations_have_logs_of_their_own_and_the_node_has_one() {
    let store = Scratch::new().await;
    let (org, other) = (store.organisation().await, store.organisation().await);
    store.plain_trunk(&org).await;
    assert_eq!(store.log(&other).await, []);
    let by = Operator::by_process();
    let all = AuditFilter::default();
    let node = store.node_audit_log(&by, &all, Page::default()).await.unwrap();
    let made: Vec<_> = node.iter().map(|entry| entry.object_id.clone().unwrap()).collect();
    assert_eq!(made, [other.organisation().to_string(), org.organisation().to_string()]);
    assert!(node.iter().all(|entry| entry.action == "organization.create"));
    assert!(node.iter().all(|entry| entry.actor.kind == AuditActorKind::Process));
    let chains = store.verify_audit_logs(&by).await.unwrap();
    let whose: Vec<_> = chains.iter().map(|chain| chain.organization_id).collect();
    assert_eq!(whose.len(), 2);
    assert!(whose.contains(&None) && whose.contains(&Some(org.organisation())));
    assert!(chains.iter().all(|chain| chain.fault.is_none()));
}

#[tokio::test]
async fn the_log_is_filtered_and_paged() {
    let (store, org) = six_entries().await;
    let page = Page::first(4);
    let first = store.audit_log(&org, &AuditFilter::default(), page).await.unwrap();
    let next = Page { before: Some(first[3].at), ..page };
    let rest = store.audit_log(&org, &AuditFilter::default(), next).await.unwrap();
    let sequences: Vec<_> = first.iter().chain(&rest).map(|entry| entry.sequence).collect();
    assert_eq!(sequences, [6, 5, 4, 3, 2, 1]);
    let count = async |filter: AuditFilter| {
        store.audit_log(&org, &filter, Page::default()).await.unwrap().len()
    };
    let some = AuditFilter::default;
    assert_eq!(count(AuditFilter { action: Some("trunk.create".to_owned()), ..some() }).await, 6);
    assert_eq!(count(AuditFilter { action: Some("trunk".to_owned()), ..some() }).await, 0);
    let object_id = first[0].object_id.clone();
    assert_eq!(count(AuditFilter { object_id, ..some() }).await, 1);
    assert_eq!(count(AuditFilter { after: Some(first[1].at), ..some() }).await, 2);
    assert_eq!(count(AuditFilter { before: Some(first[1].at), ..some() }).await, 5);
    assert_eq!(count(AuditFilter { actor_id: Some("x".to_owned()), ..some() }).await, 0);
}

#[tokio::test]
async fn a_flipped_byte_is_found_wherever_it_is() {
    for sql in [
        "UPDATE audit_log SET entry = replace(entry, 'trunk.create', 'trunk.creatE') WHERE sequence = 3",
        "UPDATE audit_log SET entry = replace(entry, '\"sequence\":3', '\"sequence\":4') WHERE sequence = 3",
        "UPDATE audit_log SET entry = entry || ' ' WHERE sequence = 3",
        "UPDATE audit_log SET entry = 'x' WHERE sequence = 3",
        "UPDATE audit_log SET hash = (SELECT a.hash FROM audit_log a WHERE a.sequence = 2) WHERE sequence = 3",
        "UPDATE audit_log SET action = 'trunk.delete' WHERE sequence = 3",
        "UPDATE audit_log SET object_id = NULL WHERE sequence = 3",
        "UPDATE audit_log SET actor_id = 'me' WHERE sequence = 3",
        "UPDATE audit_log SET created_at = created_at + 1 WHERE sequence = 3",
    ] {
        let (store, org) = six_entries().await;
        store.tamper(sql).await;
        assert_eq!(store.fault(&org).await, Some(AuditFault::changed(3)), "{sql}");
    }
}

#[tokio::test]
async fn a_missing_row_is_found_wherever_it_was() {
    for (sql, sequence) in [
        ("DELETE FROM audit_log WHERE sequence = 1 AND chain <> 'node'", 1),
        ("DELETE FROM audit_log WHERE sequence = 3 AND chain <> 'node'", 3),
        ("DELETE FROM audit_log WHERE sequence = 6 AND chain <> 'node'", 6),
        ("DELETE FROM audit_log WHERE sequence > 4 AND chain <> 'node'", 5),
        ("DELETE FROM audit_log WHERE chain <> 'node'", 1),
        ("DELETE FROM audit_chains WHERE chain <> 'node'", 7),
        ("UPDATE audit_chains SET entries = 7 WHERE chain <> 'node'", 7),
    ] {
        let (store, org) = six_entries().await;
        store.tamper(sql).await;
        assert_eq!(store.fault(&org).await, Some(AuditFault::missing(sequence)), "{sql}");
        let all = store.verify_audit_logs(&Operator::by_process()).await.unwrap();
        assert_eq!(all.iter().filter(|chain| chain.fault.is_some()).count(), 1);
    }
}

#[tokio::test]
async fn the_database_itself_refuses_to_change_the_log() {
    let (store, _) = six_entries().await;
    for sql in ["UPDATE audit_log SET action = 'x'", "DELETE FROM audit_log"] {
        let error = if store.is_postgres() {
            let mut other = PgConnection::connect(&store.url).await.unwrap();
            sqlx::query(sql).execute(&mut other).await.unwrap_err()
        } else {
            let mut other = SqliteConnection::connect(&store.url).await.unwrap();
            sqlx::query(sql).execute(&mut other).await.unwrap_err()
        };
        assert!(error.to_string().contains("append-only"), "{error}");
    }
}

#[tokio::test]
async fn the_log_goes_on_after_a_restart_and_from_two_processes() {
    let (store, org) = six_entries().await;
    let again = store.again(options()).await;
    for store in [&again, &store.store, &again] {
        store
            .create_trunk(&org, serde_json::from_value(json!({"name": "t"})).unwrap())
            .await
            .unwrap();
    }
    let chain = store.verify_audit_log(&org).await.unwrap();
    assert_eq!((chain.entries, chain.fault), (9, None));
}

#[tokio::test]
async fn no_secret_gets_into_the_log() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    let canary = "canary-4711";
    let body = json!({"name": "t", "outbound_config": {"address": "h", "auth_username": "u",
        "auth_password": canary}});
    store.make_trunk(&org, body).await.unwrap();
    let runtime = json!({"type": "websocket", "url": "wss://a.example.com", "dialect": "twilio",
        "auth_token": canary});
    let agent = store.make_agent(&org, "a").await.id;
    store.make_version(&org, agent, json!({"runtime": runtime})).await;
    assert_eq!(store.log(&org).await.len(), 3);
    assert!(!store.bytes().await.windows(canary.len()).any(|window| window == canary.as_bytes()));
}
