//! Agents, versions, publishing and SIP endpoints.

use super::*;
use crate::jobs::{GENERATE_INSTRUCTIONS, Written};
use crate::model::{
    AgentFilter, InstructionsSource, InstructionsStatus, Page, Runtime, VersionChange,
    VersionFilter, VersionRef,
};
use crate::store::JobEnd;

fn change(body: Value) -> VersionChange {
    serde_json::from_value(body).unwrap()
}

/// A store with one organisation, one agent, a published version, and two numbers.
async fn stage() -> (Scratch, Org, AgentId, u32) {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    let trunk = store.plain_trunk(&org).await;
    for number in ["+15550001", "+15550002"] {
        store.make_number(&org, trunk, number).await.unwrap();
    }
    let agent = store.make_agent(&org, "a").await.id;
    let version = store.make_version(&org, agent, json!({"instructions": "x"})).await;
    store.make_publish(&org, agent, version, json!({})).await.unwrap();
    (store, org, agent, version)
}

fn names(numbers: &[PhoneNumber]) -> Vec<&str> {
    numbers.iter().map(|number| number.phone_number.as_str()).collect()
}

#[tokio::test]
async fn agents_are_filtered_by_what_their_metadata_contains() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    for (name, metadata) in [
        ("a", json!({"team": "x", "tags": [1, 2]})),
        ("b", json!({"team": "y"})),
        ("c", Value::Null),
    ] {
        let new = serde_json::from_value(json!({"name": name, "metadata": metadata})).unwrap();
        store.create_agent(&org, new).await.unwrap();
    }
    let find = async |part: Value| {
        let metadata = part.as_object().cloned();
        let filter = AgentFilter { metadata, ..AgentFilter::default() };
        let found = store.agents(&org, &filter, Page::first(1)).await.unwrap();
        found.into_iter().map(|agent| agent.name).collect::<Vec<_>>()
    };
    assert_eq!(find(json!({"team": "x"})).await, ["a"]);
    assert_eq!(find(json!({"tags": [2]})).await, ["a"]);
    assert!(find(json!({"team": "z"})).await.is_empty());
    assert_eq!(find(json!({})).await, ["c"], "a page of one");
}

#[tokio::test]
async fn a_config_is_stored_verbatim_but_for_its_token() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    let agent = store.make_agent(&org, "a").await.id;
    let config = json!({"z": 1.50, "a": {"unknown": [null, "é"]}, "instructions": "x",
        "runtime": {"type": "websocket", "url": "wss://h/", "auth_token": "canary"}});
    let number = store.make_version(&org, agent, config.clone()).await;
    let stored = store.version(&org, agent, VersionRef::Number(number)).await.unwrap();
    let mut expected = config;
    expected["runtime"]["auth_token"] = Value::Null;
    assert_eq!(
        serde_json::to_string(&stored.config).unwrap(),
        serde_json::to_string(&expected).unwrap(),
        "keys keep their order"
    );
    assert!(!store.bytes().await.windows(6).any(|window| window == b"canary"));
    store.make_publish(&org, agent, number, json!({})).await.unwrap();
    assert_eq!(token(&store, stored.id).as_deref(), Some("canary"));
}

fn token(store: &Store, version: crate::ids::AgentVersionId) -> Option<String> {
    let snapshot = store.snapshot().load();
    let secret = match snapshot.version(version)?.runtime.as_ref()? {
        Runtime::Builtin(_) => None,
        Runtime::Websocket(websocket) => websocket.auth_token.as_ref(),
        Runtime::Sip(agent) => agent.auth_password.as_ref(),
    };
    secret.map(|secret| secret.expose().clone())
}

#[tokio::test]
async fn a_token_stays_with_its_url_and_goes_nowhere_else() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    let agent = store.make_agent(&org, "a").await.id;
    let config = |url: &str, token: Value| json!({"runtime": {"type": "websocket", "url": url, "auth_token": token}});
    store.make_version(&org, agent, config("wss://h/", json!("canary"))).await;
    for (config, expected) in [
        (config("wss://h/", Value::Null), Some("canary")),
        (config("wss://evil/", Value::Null), None),
    ] {
        let number = store.make_version(&org, agent, config).await;
        store.make_publish(&org, agent, number, json!({})).await.unwrap();
        let id = store.version(&org, agent, VersionRef::Number(number)).await.unwrap().id;
        assert_eq!(token(&store, id).as_deref(), expected);
    }
    let new = NewVersion { base_version: Some(1), ..NewVersion::default() };
    let copy = store.create_version(&org, agent, new).await.unwrap();
    store.make_publish(&org, agent, copy.version, json!({})).await.unwrap();
    assert_eq!(token(&store, copy.id).as_deref(), Some("canary"), "a copy copies it");
}

#[tokio::test]
async fn latest_is_one_draft_however_many_ask_for_it() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    let agent = store.make_agent(&org, "a").await.id;
    let asked = (0..8).map(|_| {
        let (store, org) = (store.store.clone(), org);
        tokio::spawn(async move { store.version(&org, agent, VersionRef::Latest).await.unwrap() })
    });
    for asked in asked.collect::<Vec<_>>() {
        assert_eq!(asked.await.unwrap().version, 1);
    }
    store.make_publish(&org, agent, 1, json!({})).await.unwrap();
    let second = store.version(&org, agent, VersionRef::Latest).await.unwrap();
    assert_eq!((second.version, second.published), (2, false));
    let all = store.versions(&org, agent, &VersionFilter::default(), Page::default()).await;
    assert_eq!(all.unwrap().len(), 2);
}

#[tokio::test]
async fn a_published_version_never_changes() {
    let (store, org, agent, version) = stage().await;
    let which = VersionRef::Number(version);
    let edit = store.update_version(&org, agent, which, change(json!({"config": {}}))).await;
    assert!(matches!(edit, Err(StoreError::Refused(_))));
    assert!(store.make_publish(&org, agent, version, json!({})).await.unwrap().is_empty());
    assert!(store.begin_generation(&org, agent, which).await.is_err());
}

#[tokio::test]
async fn changed_inputs_block_publishing_until_generated_or_edited() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    let agent = store.make_agent(&org, "a").await.id;
    let number = store.make_version(&org, agent, json!({"instructions": "old"})).await;
    let which = VersionRef::Number(number);
    let inputs = change(json!({"instruction_builder_inputs": {"tone": "kind"}}));
    let dirty = store.update_version(&org, agent, which, inputs.clone()).await.unwrap();
    assert!(dirty.instructions_dirty);
    let publish = async || store.make_publish(&org, agent, number, json!({})).await;
    assert!(matches!(publish().await, Err(StoreError::Refused(_))));

    let generating = store.begin_generation(&org, agent, which).await.unwrap();
    assert_eq!(generating.instructions_status, InstructionsStatus::Generating);
    assert!(matches!(publish().await, Err(StoreError::Refused(_))));
    let twice = store.begin_generation(&org, agent, which).await;
    assert!(matches!(twice, Err(StoreError::Conflict(_))));
    let other = change(json!({"config": {"instructions": "by hand"}}));
    let meanwhile = store.update_version(&org, agent, which, other).await;
    assert!(matches!(meanwhile, Err(StoreError::Conflict(_))));
    let written = Written { text: "new".to_owned(), source: InstructionsSource::Model };
    let done = store.finish_generation(&org, agent, which, Some(written)).await.unwrap();
    assert_eq!((done.instructions_dirty, &done.config["instructions"]), (false, &json!("new")));
    assert_eq!(done.instructions_source, Some(InstructionsSource::Model));

    let again = change(json!({"instruction_builder_inputs": {"tone": "terse"}}));
    store.update_version(&org, agent, which, again).await.unwrap();
    let edit = change(json!({"config": {"instructions": "by hand"}}));
    let edited = store.update_version(&org, agent, which, edit).await.unwrap();
    assert!(edited.instructions_dirty && edited.instructions_manually_edited);
    assert_eq!(edited.instructions_source, None);
    assert!(publish().await.is_ok());
}

#[tokio::test]
async fn a_generation_outlives_a_crash_as_long_as_its_job_does() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    let agent = store.make_agent(&org, "a").await.id;
    let number = store.make_version(&org, agent, json!({})).await;
    let which = VersionRef::Number(number);
    let inputs = change(json!({"instruction_builder_inputs": {}}));
    store.update_version(&org, agent, which, inputs).await.unwrap();
    store.begin_generation(&org, agent, which).await.unwrap();
    let read = store.again(options()).await.version(&org, agent, which).await.unwrap();
    assert_eq!(read.instructions_status, InstructionsStatus::Generating);
    let (_, lease) = store.claim_job(&[GENERATE_INSTRUCTIONS]).await.unwrap().unwrap();
    store.end_job(&lease, JobEnd::Failed("lost".to_owned())).await.unwrap();
    let read = store.again(options()).await.version(&org, agent, which).await.unwrap();
    assert_eq!(read.instructions_status, InstructionsStatus::Failed);
}

#[tokio::test]
async fn each_direction_writes_its_own_slot() {
    let (store, org, agent, version) = stage().await;
    let body = json!({"phone_numbers": ["+15550001"]});
    let written = store.make_publish(&org, agent, version, body).await.unwrap();
    let number = &written[0];
    assert!(number.inbound_agent_version_id.is_some());
    assert_eq!(number.outbound_agent_version_id, None);
    assert_eq!(number.inbound_agent_version.as_ref().unwrap().agent.name, "a");
    let body = json!({"phone_numbers": ["+15550001", "+15550002"], "direction": "outbound"});
    let written = store.make_publish(&org, agent, version, body).await.unwrap();
    assert_eq!(names(&written), ["+15550001", "+15550002"]);
    let (id, snapshot) = (number.inbound_agent_version_id, store.snapshot().load());
    let route = snapshot.number("+15550001").unwrap();
    assert_eq!((route.inbound_version, route.outbound_version), (id, id));
    assert_eq!(snapshot.number("+15550002").unwrap().inbound_version, None);
}

#[tokio::test]
async fn unassigning_clears_only_this_agents_slots() {
    let (store, org, agent, version) = stage().await;
    let other = store.make_agent(&org, "b").await.id;
    let theirs = store.make_version(&org, other, json!({})).await;
    let both = json!({"phone_numbers": ["+15550001"], "direction": "both"});
    store.make_publish(&org, agent, version, both).await.unwrap();
    let body = json!({"phone_numbers": ["+15550001"], "direction": "outbound"});
    store.make_publish(&org, other, theirs, body).await.unwrap();
    let body = json!({"unassign_phone_numbers": ["+15550001", "+15550002"], "direction": "both"});
    let cleared = store.make_publish(&org, agent, version, body).await.unwrap();
    assert_eq!(names(&cleared), ["+15550001"], "only what changed is affected");
    assert_eq!(cleared[0].inbound_agent_version_id, None);
    assert!(cleared[0].outbound_agent_version_id.is_some(), "that one is b's");
}

#[tokio::test]
async fn a_number_in_both_lists_ends_up_assigned_and_is_named_once() {
    let (store, org, agent, version) = stage().await;
    let lists = json!({"phone_numbers": ["+15550001", "+15550001"],
        "unassign_phone_numbers": ["+15550001"]});
    for _ in 0..2 {
        let written = store.make_publish(&org, agent, version, lists.clone()).await.unwrap();
        assert_eq!(names(&written), ["+15550001"]);
        assert!(written[0].inbound_agent_version_id.is_some());
    }
}

#[tokio::test]
async fn an_unknown_number_undoes_the_whole_publish() {
    let (store, org, agent, _) = stage().await;
    let draft = store.make_version(&org, agent, json!({})).await;
    let body = json!({"phone_numbers": ["+15550001", "+15559999"]});
    let error = store.make_publish(&org, agent, draft, body).await.unwrap_err();
    assert_eq!(error, not_found("Phone number +15559999"));
    let read = store.version(&org, agent, VersionRef::Number(draft)).await.unwrap();
    assert!(!read.published);
    let number = store.number(&org, &"+15550001".parse().unwrap()).await.unwrap();
    assert_eq!(number.inbound_agent_version_id, None);
}

#[tokio::test]
async fn nobody_publishes_to_anothers_number() {
    let (store, _, _, _) = stage().await;
    let other = store.organisation().await;
    let agent = store.make_agent(&other, "thief").await.id;
    let version = store.make_version(&other, agent, json!({})).await;
    let body = json!({"phone_numbers": ["+15550001"]});
    let error = store.make_publish(&other, agent, version, body).await.unwrap_err();
    assert_eq!(error, not_found("Phone number +15550001"));
}

#[tokio::test]
async fn many_publishes_at_once_leave_one_consistent_slot() {
    let (store, org, agent, _) = stage().await;
    let mut versions = Vec::new();
    for _ in 0..100 {
        versions.push(store.make_version(&org, agent, json!({})).await);
    }
    let tasks: Vec<_> = versions
        .into_iter()
        .map(|version| {
            let (store, org) = (store.store.clone(), org);
            let publish: Publish = serde_json::from_value(
                json!({"phone_numbers": ["+15550001"], "direction": "both"}),
            )
            .unwrap();
            tokio::spawn(async move {
                store.publish(&org, agent, VersionRef::Number(version), publish).await.unwrap()
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let number = store.number(&org, &"+15550001".parse().unwrap()).await.unwrap();
    assert_eq!(number.inbound_agent_version_id, number.outbound_agent_version_id);
    let snapshot = store.snapshot().load();
    let route = snapshot.number("+15550001").unwrap();
    assert_eq!(route.inbound_version, number.inbound_agent_version_id, "the snapshot is the last");
}

#[tokio::test]
async fn deploying_needs_a_published_version_and_is_idempotent() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    let agent = store.make_agent(&org, "a").await.id;
    assert!(matches!(store.deploy_as_sip(&org, agent).await, Err(StoreError::Conflict(_))));
    store.undeploy_as_sip(&org, agent).await.unwrap();
    let version = store.make_version(&org, agent, json!({})).await;
    store.make_publish(&org, agent, version, json!({})).await.unwrap();
    for _ in 0..2 {
        let endpoint = store.deploy_as_sip(&org, agent).await.unwrap();
        assert_eq!(endpoint.uri, format!("sip:{agent}@sip.example.com"));
        assert!(endpoint.deployed);
    }
    assert!(store.snapshot().load().agent(agent).unwrap().deployed_as_sip);
    store.undeploy_as_sip(&org, agent).await.unwrap();
    assert!(!store.snapshot().load().agent(agent).unwrap().deployed_as_sip);
    let other = store.organisation().await;
    assert_eq!(store.deploy_as_sip(&other, agent).await, Err(not_found("Agent")));
}

#[tokio::test]
async fn deleting_an_agent_clears_its_slots_and_nothing_else() {
    let (store, org, agent, version) = stage().await;
    let body = json!({"phone_numbers": ["+15550001"], "direction": "both"});
    store.make_publish(&org, agent, version, body).await.unwrap();
    store.deploy_as_sip(&org, agent).await.unwrap();
    let detail = store.agent_detail(&org, agent).await.unwrap();
    assert_eq!((detail.versions.len(), names(&detail.phone_numbers)), (1, vec!["+15550001"]));
    store.delete_agent(&org, agent).await.unwrap();
    let number = store.number(&org, &"+15550001".parse().unwrap()).await.unwrap();
    assert_eq!(number.inbound_agent_version_id, None);
    assert_eq!(number.outbound_agent_version_id, None);
    let snapshot = store.snapshot().load();
    assert!(snapshot.agent(agent).is_none());
    assert_eq!(store.delete_agent(&org, agent).await, Err(not_found("Agent")));
}

#[tokio::test]
async fn version_numbers_count_up_per_agent() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    let (a, b) = (store.make_agent(&org, "a").await.id, store.make_agent(&org, "b").await.id);
    for expected in 1..=3 {
        assert_eq!(store.make_version(&org, a, json!({})).await, expected);
    }
    assert_eq!(store.make_version(&org, b, json!({})).await, 1);
    let missing = NewVersion { base_version: Some(9), ..NewVersion::default() };
    assert_eq!(store.create_version(&org, a, missing).await, Err(not_found("Version")));
}
