//! The inbound routing config: one at most, and in the snapshot.

use super::*;
use crate::model::InboundRoutingConfig;
use crate::snapshot::{Fallback, RoutingRoute};

fn definition(output: &str) -> Value {
    json!({"steps": [
        {"id": "trigger", "type": "input", "next": "n1"},
        {"id": "n1", "type": "output", "fields": {"agent_id": output}},
    ]})
}

impl Scratch {
    async fn make_routing(
        &self,
        org: &Org,
        more: Value,
    ) -> Result<InboundRoutingConfig, StoreError> {
        let mut body = json!({"workflow_definition": definition("a")});
        for (key, value) in more.as_object().unwrap() {
            body[key] = value.clone();
        }
        self.create_inbound_routing(org, serde_json::from_value(body).unwrap()).await
    }

    async fn change_routing(
        &self,
        org: &Org,
        body: Value,
    ) -> Result<InboundRoutingConfig, StoreError> {
        self.update_inbound_routing(org, serde_json::from_value(body).unwrap()).await
    }

    fn route(&self, org: &Org) -> Option<RoutingRoute> {
        self.snapshot().load().routing(org.organisation()).map(|route| (**route).clone())
    }

    /// An agent with this many published versions.
    async fn published_agent(&self, org: &Org, versions: u32) -> AgentId {
        let agent = self.make_agent(org, "a").await.id;
        for _ in 0..versions {
            let version = self.make_version(org, agent, json!({})).await;
            self.make_publish(org, agent, version, json!({})).await.unwrap();
        }
        agent
    }
}

#[tokio::test]
async fn there_is_one_config_at_most_and_it_is_made_changed_and_given_up() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    assert_eq!(store.inbound_routing(&org).await, Ok(None));
    assert!(matches!(store.change_routing(&org, json!({})).await, Err(StoreError::NotFound(_))));
    assert!(matches!(store.delete_inbound_routing(&org).await, Err(StoreError::NotFound(_))));
    let made = store.make_routing(&org, json!({})).await.unwrap();
    assert!(made.enabled);
    assert_eq!(store.inbound_routing(&org).await, Ok(Some(made.clone())));
    assert!(matches!(store.make_routing(&org, json!({})).await, Err(StoreError::Conflict(_))));
    let changed = store.change_routing(&org, json!({"enabled": false})).await.unwrap();
    assert!(!changed.enabled && changed.updated_at > made.updated_at);
    assert_eq!(changed.workflow_definition, made.workflow_definition);
    let changed = json!({"workflow_definition": definition("b")});
    let changed = store.change_routing(&org, changed).await.unwrap();
    assert_eq!(changed.workflow_definition, definition("b"));
    assert!(!changed.enabled);
    store.delete_inbound_routing(&org).await.unwrap();
    assert_eq!(store.inbound_routing(&org).await, Ok(None));
}

#[tokio::test]
async fn a_write_is_in_the_snapshot_and_after_a_restart_too() {
    let store = Scratch::new().await;
    let (org, other) = (store.organisation().await, store.organisation().await);
    let agent = store.published_agent(&org, 2).await;
    assert_eq!(store.route(&org), None);
    let fallback = json!({"fallback_agent_id": agent, "fallback_agent_version": 1});
    store.make_routing(&org, fallback).await.unwrap();
    let route = store.route(&org).unwrap();
    assert_eq!(route.fallback, Some(Fallback { agent, version: Some(1) }));
    assert!(route.enabled && route.workflow.is_ok());
    assert_eq!(store.route(&other), None);
    let again = store.again(StoreOptions { sealer: Sealer::ephemeral().unwrap(), ..options() });
    let again = again.await.snapshot().load();
    assert_eq!(again.routing(org.organisation()).map(|route| (**route).clone()), Some(route));
    store.change_routing(&org, json!({"enabled": false})).await.unwrap();
    assert!(!store.route(&org).unwrap().enabled);
    store.delete_inbound_routing(&org).await.unwrap();
    assert_eq!(store.route(&org), None);
}

#[tokio::test]
async fn a_fallback_agent_is_ones_own_and_published() {
    let store = Scratch::new().await;
    let (org, other) = (store.organisation().await, store.organisation().await);
    let (foreign, draft) =
        (store.published_agent(&other, 1).await, store.published_agent(&org, 0).await);
    let agent = store.published_agent(&org, 1).await;
    store.make_version(&org, agent, json!({})).await;
    for bad in [
        json!({"fallback_agent_id": AgentId::random()}),
        json!({"fallback_agent_id": foreign}),
        json!({"fallback_agent_id": draft}),
        json!({"fallback_agent_id": agent, "fallback_agent_version": 2}),
        json!({"fallback_agent_id": agent, "fallback_agent_version": 9}),
    ] {
        let refused = store.make_routing(&org, bad.clone()).await;
        assert!(matches!(refused, Err(StoreError::Refused(_))), "{bad}");
    }
    let unknown = store.make_routing(&org, json!({"fallback_agent_id": AgentId::random()})).await;
    let theirs = store.make_routing(&org, json!({"fallback_agent_id": foreign})).await;
    assert_eq!(unknown, theirs);
    store.make_routing(&org, json!({})).await.unwrap();
    for bad in [
        json!({"fallback_agent_version": 1}),
        json!({"fallback_agent_id": foreign}),
        json!({"fallback_agent_id": agent, "fallback_agent_version": 2}),
    ] {
        let refused = store.change_routing(&org, bad.clone()).await;
        assert!(matches!(refused, Err(StoreError::Refused(_))), "{bad}");
    }
    assert_eq!(store.route(&org).unwrap().fallback, None);
}

#[tokio::test]
async fn a_fallback_agent_that_goes_takes_its_version_with_it() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    let agent = store.published_agent(&org, 1).await;
    let both = json!({"fallback_agent_id": agent, "fallback_agent_version": 1});
    store.make_routing(&org, both.clone()).await.unwrap();
    let none = store.change_routing(&org, json!({"fallback_agent_id": null})).await.unwrap();
    assert_eq!((none.fallback_agent_id, none.fallback_agent_version), (None, None));
    store.change_routing(&org, both).await.unwrap();
    let latest = store.change_routing(&org, json!({"fallback_agent_version": null})).await.unwrap();
    let found = (latest.fallback_agent_id, latest.fallback_agent_version);
    assert_eq!(found, (Some(agent), None));
    store.change_routing(&org, json!({"fallback_agent_version": 1})).await.unwrap();
    store.delete_agent(&org, agent).await.unwrap();
    let left = store.inbound_routing(&org).await.unwrap().unwrap();
    assert_eq!((left.fallback_agent_id, left.fallback_agent_version), (None, None));
}
