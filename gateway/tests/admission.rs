//! Who may call: admission decided on a snapshot that a real store made.

use std::net::SocketAddr;

use config::credential::{Operator, ScopedTo};
use config::ids::{AgentId, OrganisationId};
use config::model::VersionRef;
use config::seal::Sealer;
use config::snapshot::Snapshot;
use config::store::{Store, StoreOptions};
use gateway::call::admission::{Facts, Proof, Refusal, Rule, Verdict, decide};
use serde_json::{Value, json};

const LISTED: &str = "127.0.0.1:5060";
const STRANGER: &str = "127.0.0.66:5060";

/// A store with one organisation.
struct World {
    store: Store,
    organisation: ScopedTo<OrganisationId>,
}

impl World {
    async fn new() -> Self {
        let sealer = Sealer::ephemeral().expect("randomness");
        let options = StoreOptions::new(sealer, "sip.example.com");
        let store = Store::open("sqlite::memory:", options).await.expect("a store in memory");
        let organisation = Self::organisation(&store, "one").await;
        World { store, organisation }
    }

    async fn organisation(store: &Store, name: &str) -> ScopedTo<OrganisationId> {
        let by = Operator::by_process();
        let made = store.create_organisation(&by, name, None).await.expect("an organisation");
        ScopedTo::by_gateway(made.id)
    }

    /// A trunk with this inbound config and these numbers; its slug.
    async fn trunk(&self, inbound: Value, numbers: &[&str]) -> String {
        let new = json!({"name": "trunk", "inbound_config": inbound});
        let new = serde_json::from_value(new).expect("a trunk");
        let trunk = self.store.create_trunk(&self.organisation, new).await.expect("created");
        for number in numbers {
            let new = json!({"phone_number": number, "trunk_id": trunk.id});
            let new = serde_json::from_value(new).expect("a number");
            self.store.register_number(&self.organisation, new).await.expect("registered");
        }
        let snapshot = self.snapshot();
        snapshot.trunk(trunk.id).expect("in the snapshot").slug.to_string()
    }

    /// An agent with one version, published to these numbers and deployed.
    async fn agent(&self, numbers: &[&str]) -> AgentId {
        let new = serde_json::from_value(json!({"name": "agent"})).expect("an agent");
        let agent = self.store.create_agent(&self.organisation, new).await.expect("created").id;
        let new = serde_json::from_value(json!({"config": {}})).expect("a version");
        self.store.create_version(&self.organisation, agent, new).await.expect("created");
        let publish = json!({"phone_numbers": numbers});
        let publish = serde_json::from_value(publish).expect("a publish");
        let latest = VersionRef::Latest;
        self.store.publish(&self.organisation, agent, latest, publish).await.expect("published");
        self.store.deploy_as_sip(&self.organisation, agent).await.expect("deployed");
        agent
    }

    fn snapshot(&self) -> std::sync::Arc<Snapshot> {
        self.store.snapshot().load()
    }

    fn call(&self, source: &str, user: &str) -> Verdict {
        self.call_with(source, user, "sip.example.com", Proof::Absent)
    }

    fn call_with(&self, source: &str, user: &str, host: &str, proof: Proof) -> Verdict {
        let facts = Facts {
            source: source.parse::<SocketAddr>().expect("an address"),
            request_user: user,
            request_host: host,
            to_user: "+15550000001",
            from_user: "+15559990000",
            max_forwards: Some(70),
            looped: None,
            answer_strangers: false,
        };
        decide(&self.snapshot(), &facts, &mut |_| proof)
    }
}

#[expect(clippy::panic, reason = "a test says what it got")]
fn refused(verdict: Verdict) -> Refusal {
    match verdict {
        Verdict::Refused(refusal) => refusal,
        other => panic!("expected a refusal: {other:?}"),
    }
}

fn is_admitted(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Admitted(_))
}

fn listed() -> Value {
    json!({"allowed_addresses": ["127.0.0.0/29"]})
}

#[tokio::test]
async fn a_listed_source_reaches_the_agent_of_the_number_however_it_is_written() {
    let world = World::new().await;
    world.trunk(listed(), &["+15550000001"]).await;
    let agent = world.agent(&["+15550000001"]).await;
    for spelling in ["+15550000001", "15550000001", "0015550000001", "+1-555-000-0001"] {
        match world.call(LISTED, spelling) {
            Verdict::Admitted(admitted) => {
                assert_eq!(admitted.answering.map(|by| by.agent), Some(agent));
                assert_eq!(admitted.called, "+15550000001");
                assert_eq!(admitted.caller, "+15559990000");
            }
            other => panic!("{spelling}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_stranger_is_refused_in_silence_and_the_owner_can_read_why() {
    let world = World::new().await;
    world.trunk(listed(), &["+15550000001"]).await;
    world.agent(&["+15550000001"]).await;
    let refusal = refused(world.call(STRANGER, "+15550000001"));
    assert_eq!(refusal.rule, Rule::SourceNotAllowed);
    assert_eq!(refusal.status, None);
    assert_eq!(refusal.organisation, Some(world.organisation.organisation()));
    let refusal = refused(world.call(STRANGER, "+15550009999"));
    assert_eq!((refusal.rule, refusal.status), (Rule::SourceUnknown, None));
    assert_eq!(refusal.organisation, None);
}

#[tokio::test]
async fn a_known_source_that_is_not_the_numbers_own_gets_403() {
    let world = World::new().await;
    world.trunk(listed(), &["+15550000001"]).await;
    world.trunk(json!({"allowed_addresses": ["192.0.2.0/24"]}), &["+15550000002"]).await;
    world.agent(&["+15550000001", "+15550000002"]).await;
    let refusal = refused(world.call(LISTED, "+15550000002"));
    assert_eq!((refusal.rule, refusal.status), (Rule::SourceNotAllowed, Some(403)));
}

#[tokio::test]
async fn an_unknown_number_and_an_empty_slot_are_told_to_a_listed_source() {
    let world = World::new().await;
    world.trunk(listed(), &["+15550000001", "+15550000002"]).await;
    world.agent(&["+15550000001"]).await;
    let refusal = refused(world.call(LISTED, "+15550009999"));
    assert_eq!((refusal.rule, refusal.status), (Rule::NumberNotFound, Some(404)));
    assert_eq!(refusal.organisation, Some(world.organisation.organisation()));
    assert_eq!(refusal.considered.len(), 1);
    let refusal = refused(world.call(LISTED, "+15550000002"));
    assert_eq!((refusal.rule, refusal.status), (Rule::InboundSlotEmpty, Some(480)));
}

#[tokio::test]
async fn an_agents_own_address_takes_calls_from_everywhere_while_it_is_deployed() {
    let world = World::new().await;
    world.trunk(listed(), &["+15550000001"]).await;
    let agent = world.agent(&[]).await;
    assert!(is_admitted(&world.call(STRANGER, &agent.to_string())));
    world.store.undeploy_as_sip(&world.organisation, agent).await.expect("undeployed");
    let refusal = refused(world.call(STRANGER, &agent.to_string()));
    assert_eq!((refusal.rule, refusal.status), (Rule::SourceUnknown, None));
    let refusal = refused(world.call(LISTED, &agent.to_string()));
    assert_eq!((refusal.rule, refusal.status), (Rule::AgentNotFound, Some(404)));
}

#[tokio::test]
async fn digest_credentials_are_demanded_and_judged() {
    let world = World::new().await;
    let digest = json!({"auth_username": "pbx", "auth_password": "secret"});
    world.trunk(digest, &["+15550000001"]).await;
    world.agent(&["+15550000001"]).await;
    let host = "sip.example.com";
    let with = |proof| world.call_with(STRANGER, "+15550000001", host, proof);
    assert_eq!(with(Proof::Absent), Verdict::Challenge { stale: false });
    assert_eq!(with(Proof::Stale), Verdict::Challenge { stale: true });
    assert!(is_admitted(&with(Proof::Good)));
    let refusal = refused(with(Proof::Bad));
    assert_eq!((refusal.rule, refusal.status), (Rule::CredentialsWrong, Some(401)));
    let refusal = refused(with(Proof::OtherUri));
    assert_eq!((refusal.rule, refusal.status), (Rule::CredentialsOtherUri, Some(401)));
}

#[tokio::test]
async fn where_one_trunk_challenges_every_stranger_is_challenged_alike() {
    let world = World::new().await;
    let digest = json!({"auth_username": "pbx", "auth_password": "secret"});
    world.trunk(digest, &["+15550000001"]).await;
    world.trunk(listed(), &["+15550000002"]).await;
    for (number, rule) in
        [("+15550009999", Rule::SourceUnknown), ("+15550000002", Rule::SourceNotAllowed)]
    {
        let refusal = refused(world.call(STRANGER, number));
        assert_eq!((refusal.rule, refusal.status), (rule, Some(401)), "recorded, and challenged");
    }
}

#[tokio::test]
async fn a_trunk_named_in_the_host_or_the_user_is_that_trunk_and_no_other() {
    let world = World::new().await;
    let first = world.trunk(listed(), &["+15550000001"]).await;
    let second = world.trunk(listed(), &["+15550000002"]).await;
    world.agent(&["+15550000001", "+15550000002"]).await;
    let host = format!("{first}.sip.example.com");
    assert!(is_admitted(&world.call_with(LISTED, "+15550000001", &host, Proof::Absent)));
    assert!(is_admitted(&world.call_with(LISTED, &first, "192.0.2.9", Proof::Absent)));
    let host = format!("{second}.sip.example.com");
    let refusal = refused(world.call_with(LISTED, "+15550000001", &host, Proof::Absent));
    assert_eq!(refusal.rule, Rule::NumberNotFound);
}

#[tokio::test]
async fn a_call_that_goes_in_circles_is_refused() {
    let world = World::new().await;
    world.trunk(listed(), &["+15550000001"]).await;
    world.agent(&["+15550000001"]).await;
    let facts = Facts {
        source: LISTED.parse().expect("an address"),
        request_user: "+15550000001",
        request_host: "sip.example.com",
        to_user: "",
        from_user: "anonymous",
        max_forwards: Some(0),
        looped: None,
        answer_strangers: false,
    };
    let refusal = refused(decide(&world.snapshot(), &facts, &mut |_| Proof::Absent));
    assert_eq!((refusal.rule, refusal.status), (Rule::TooManyHops, Some(483)));
    // One of our own that has come back, from an address that no trunk lists: we know who sent it.
    let whose = Some(world.organisation.organisation());
    let source = "203.0.113.66:5060".parse().expect("an address");
    let facts = Facts { source, max_forwards: Some(69), looped: whose, ..facts };
    let refusal = refused(decide(&world.snapshot(), &facts, &mut |_| Proof::Absent));
    assert_eq!((refusal.rule, refusal.status), (Rule::LoopDetected, Some(482)));
    assert_eq!(refusal.organisation, whose);
}

#[tokio::test]
async fn an_inactive_agent_takes_no_calls() {
    let world = World::new().await;
    world.trunk(listed(), &["+15550000001"]).await;
    let agent = world.agent(&["+15550000001"]).await;
    let change = serde_json::from_value(json!({"active": false})).expect("a change");
    world.store.update_agent(&world.organisation, agent, change).await.expect("changed");
    let refusal = refused(world.call(LISTED, "+15550000001"));
    assert_eq!((refusal.rule, refusal.status), (Rule::AgentInactive, Some(480)));
}

#[tokio::test]
async fn an_enabled_workflow_decides_in_place_of_every_slot_and_of_no_agents_own_endpoint() {
    let world = World::new().await;
    world.trunk(listed(), &["+15550000001", "+15550000002"]).await;
    let agent = world.agent(&["+15550000001"]).await;
    let steps = json!([
        { "id": "trigger", "type": "input", "next": "n1" },
        { "id": "n1", "type": "output", "fields": {} },
    ]);
    let new = json!({ "workflow_definition": { "steps": steps } });
    let new = serde_json::from_value(new).expect("a config");
    world.store.create_inbound_routing(&world.organisation, new).await.expect("created");
    for (called, expected) in
        [("+15550000001", None), ("+15550000002", None), (&*agent.to_string(), Some(agent))]
    {
        let verdict = world.call(LISTED, called);
        assert!(is_admitted(&verdict), "{called}: {verdict:?}");
        assert_eq!(answering_of(&verdict), expected, "{called}");
    }
    // Who may call is asked before anything is routed.
    let refusal = refused(world.call(STRANGER, "+15550000001"));
    assert_eq!((refusal.rule, refusal.status), (Rule::SourceNotAllowed, None));
    let off = serde_json::from_value(json!({ "enabled": false })).expect("a change");
    world.store.update_inbound_routing(&world.organisation, off).await.expect("changed");
    assert_eq!(answering_of(&world.call(LISTED, "+15550000001")), Some(agent));
    assert_eq!(refused(world.call(LISTED, "+15550000002")).rule, Rule::InboundSlotEmpty);
}

fn answering_of(verdict: &Verdict) -> Option<AgentId> {
    match verdict {
        Verdict::Admitted(admitted) => admitted.answering.map(|by| by.agent),
        _ => None,
    }
}
