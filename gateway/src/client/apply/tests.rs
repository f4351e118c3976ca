//! Plans, from texts and from what an API would answer.

use serde_json::{Value, json};

use super::Options;
use super::declared::Declared;
use super::found::{Found, Versions};
use super::plan::{Action, Direction, Plan, Target};
use crate::terminal::Style;

fn environment(name: &str) -> Option<String> {
    (name == "PASSWORD").then(|| "canary".to_owned())
}

#[track_caller]
fn declared(text: &str) -> Declared {
    Declared::parse(text, &environment).unwrap_or_else(|faults| panic!("{}", faults.join("\n")))
}

fn faults(text: &str) -> Vec<String> {
    Declared::parse(text, &environment).err().unwrap_or_default()
}

#[track_caller]
fn plan(text: &str, found: &Found, options: Options) -> Plan {
    Plan::make(&declared(text), found, options).unwrap_or_else(|faults| panic!("{faults:?}"))
}

fn refused(text: &str, found: &Found) -> Vec<String> {
    Plan::make(&declared(text), found, Options::default()).err().unwrap_or_default()
}

fn actions(plan: &Plan) -> Vec<Action> {
    plan.steps.iter().flat_map(|step| step.actions.clone()).collect()
}

/// The one action of a plan.
#[track_caller]
fn only(plan: &Plan) -> Action {
    let mut all = actions(plan);
    assert_eq!(all.len(), 1, "{plan:?}");
    all.remove(0)
}

const SITE: &str = "
trunks:
  - name: Carrier
    inbound_config: {allowed_addresses: [192.0.2.1]}
    outbound_config: {address: sip.example.com, auth_username: acme, auth_password: '${PASSWORD}'}
phone_numbers:
  - {phone_number: +15550100100, trunk: Carrier}
agents:
  - name: Echo
    config: {runtime: {type: websocket, url: 'wss://a.example.com', auth_token: '${PASSWORD}'}}
    inbound_numbers: [+15550100100]
    outbound_numbers: [+15550100100]
    deploy_as_sip: true
inbound_routing:
  workflow_definition: {schema: own/1, steps: []}
  fallback_agent: Echo
";

/// What the API shows once [`SITE`] was applied.
fn site() -> Found {
    let slot = json!({"id": "v1", "version": 1, "agent": {"id": "a", "name": "Echo"}});
    let runtime = json!({"type": "websocket", "url": "wss://a.example.com", "auth_token": null});
    let version = json!({
        "id": "v1", "version": 1, "published": true, "config": {"runtime": runtime},
    });
    let both = Versions { newest: Some(version.clone()), published: Some(version) };
    Found {
        trunks: vec![json!({
            "id": "t", "name": "Carrier", "managed_account_id": null,
            "inbound_config": {
                "enable_noise_cancellation": false, "media_encryption": "SIP_MEDIA_ENCRYPT_DISABLE",
                "allowed_addresses": ["192.0.2.1"], "auth_username": null, "auth_password": null,
                "auth_password_set": false, "max_concurrent_calls": null, "calls_per_second": null,
            },
            "outbound_config": outbound(),
        })],
        numbers: vec![json!({
            "phone_number": "+15550100100", "trunk_id": "t", "outbound_shareable": false,
            "inbound_agent_version_id": "v1", "outbound_agent_version_id": "v1",
            "inbound_agent_version": slot, "outbound_agent_version": slot,
        })],
        agents: vec![json!({
            "id": "a", "name": "Echo", "description": null, "active": true,
            "sip_endpoint": {"uri": "sip:a@h", "deployed": true},
        })],
        versions: [("a".to_owned(), both)].into(),
        routing: json!({
            "workflow_definition": {"schema": "own/1", "steps": []}, "enabled": true,
            "fallback_agent_id": "a", "fallback_agent_version": null,
        }),
    }
}

/// The outbound config of [`SITE`] with every default that the model has.
fn outbound() -> Value {
    let written = json!({"address": "sip.example.com", "auth_username": "acme"});
    let typed: config::model::OutboundConfig = serde_json::from_value(written).unwrap();
    let mut shown = serde_json::to_value(typed).unwrap();
    shown["auth_password_set"] = json!(true);
    shown
}

#[test]
fn from_nothing_everything_is_made_in_the_order_of_what_needs_what() {
    let plan = plan(SITE, &Found::default(), Options::default());
    let name = || "Echo".to_owned();
    assert_eq!(
        actions(&plan),
        [
            Action::CreateTrunk { name: "Carrier".to_owned() },
            Action::RegisterNumber {
                number: "+15550100100".to_owned(),
                trunk: "Carrier".to_owned(),
                shareable: false,
            },
            Action::CreateAgent { name: name() },
            Action::CreateVersion { agent: name() },
            Action::Publish {
                agent: name(),
                version: Target::Made,
                assign: vec!["+15550100100".to_owned()],
                unassign: Vec::new(),
                direction: Direction::Both,
            },
            Action::Deploy { agent: name() },
            Action::WriteRouting { exists: false },
        ]
    );
    let text = plan.text(&Style::PLAIN);
    assert!(text.ends_with("4 to create, 0 to change, 0 to delete, 0 as declared.\n"), "{text}");
}

#[test]
fn what_is_as_declared_is_left_alone() {
    let plan = plan(SITE, &site(), Options::default());
    assert!(!plan.has_changes(), "{}", plan.text(&Style::PLAIN));
    assert_eq!(plan.text(&Style::PLAIN).lines().last(), Some("No changes: 4 as declared."));
}

#[test]
fn no_plan_shows_a_secret() {
    let rewrite = Options { rewrite_secrets: true, ..Options::default() };
    let mut other = site();
    other.trunks[0]["outbound_config"] = Value::Null;
    other.versions.get_mut("a").unwrap().published.as_mut().unwrap()["config"] = json!({});
    for (found, options) in
        [(Found::default(), rewrite), (site(), rewrite), (other, Options::default())]
    {
        let plan = plan(SITE, &found, options);
        assert!(plan.has_changes());
        let told = format!("{}{}", plan.text(&Style::PLAIN), plan.json());
        assert!(!told.contains("canary"), "{told}");
    }
}

#[test]
fn secrets_are_written_again_only_when_that_is_asked_for() {
    let options = Options { rewrite_secrets: true, ..Options::default() };
    let plan = plan(SITE, &site(), options);
    let Some(Action::UpdateTrunk { body, .. }) = actions(&plan).into_iter().next() else {
        panic!("{plan:?}");
    };
    assert_eq!(body["outbound_config"]["auth_password"], "canary");
    assert_eq!(body.get("inbound_config"), None, "what is the same is not written");
    assert!(actions(&plan).contains(&Action::CreateVersion { agent: "Echo".to_owned() }));
}

#[test]
fn a_trunk_without_its_password_gets_it() {
    let mut found = site();
    found.trunks[0]["outbound_config"]["auth_password_set"] = json!(false);
    let plan = plan(SITE, &found, Options::default());
    assert_eq!(plan.steps[0].notes, ["outbound_config.auth_password: nothing → ***"]);
}

#[test]
fn short_names_and_empty_addresses_are_no_difference() {
    let text = "
trunks:
  - name: Carrier
    inbound_config: {allowed_addresses: ['192.0.2.1', ''], media_encryption: DISABLE}
";
    assert!(!plan(text, &site(), Options::default()).has_changes());
}

#[test]
fn a_changed_config_becomes_a_new_version_and_a_draft_of_others_is_kept() {
    let text = SITE.replace("wss://a.example.com", "wss://b.example.com");
    let mut found = site();
    let versions = found.versions.get_mut("a").unwrap();
    versions.newest =
        Some(json!({"id": "v2", "version": 2, "published": false, "config": {"mine": 1}}));
    let plan = plan(&text, &found, Options::default());
    assert_eq!(
        plan.steps[2].notes,
        [
            "new version",
            "  config.runtime.url: \"wss://a.example.com\" → \"wss://b.example.com\"",
            "published to +15550100100 (both)",
        ]
    );
    let made = actions(&plan)
        .into_iter()
        .any(|action| matches!(action, Action::Publish { version: Target::Made, .. }));
    assert!(made);
}

#[test]
fn a_draft_with_the_declared_config_is_published_instead_of_a_copy() {
    let mut found = site();
    let versions = found.versions.get_mut("a").unwrap();
    versions.published = None;
    versions.newest.as_mut().unwrap()["published"] = json!(false);
    found.numbers[0]["inbound_agent_version_id"] = Value::Null;
    found.numbers[0]["outbound_agent_version_id"] = Value::Null;
    let plan = plan(SITE, &found, Options::default());
    let Action::Publish { version, direction, .. } = only(&plan) else {
        panic!("{plan:?}");
    };
    assert_eq!((version, direction), (Target::Number("1".to_owned()), Direction::Both));
}

#[test]
fn only_the_slot_that_differs_is_written() {
    let mut found = site();
    found.numbers[0]["outbound_agent_version_id"] = json!("other");
    let plan = plan(SITE, &found, Options::default());
    let Action::Publish { assign, direction, .. } = only(&plan) else {
        panic!("{plan:?}");
    };
    assert_eq!((assign.len(), direction), (1, Direction::Outbound));
}

#[test]
fn nothing_is_deleted_unless_pruning_is_asked_for() {
    let text = "trunks: []\nagents: []\n";
    assert!(!plan(text, &site(), Options::default()).has_changes());
    let prune = Options { prune: true, ..Options::default() };
    let pruned = plan(text, &site(), prune);
    let paths: Vec<Vec<String>> = actions(&pruned)
        .into_iter()
        .map(|action| match action {
            Action::Delete { path } => path,
            other => panic!("{other:?}"),
        })
        .collect();
    // Numbers have no section here, so they stay; agents go before what they stand on.
    assert_eq!(paths, [["core", "agents", "a"], ["core", "trunks", "t"]]);
    let mut managed = site();
    managed.trunks[0]["managed_account_id"] = json!("m");
    let text = "trunks: []\nphone_numbers: []\n";
    assert!(
        !plan(text, &managed, prune).has_changes(),
        "what a provider runs is not ours to delete"
    );
}

#[test]
fn pruning_clears_slots_that_an_agent_is_not_to_have() {
    let text = SITE.replace("outbound_numbers: [+15550100100]", "outbound_numbers: []");
    assert!(!plan(&text, &site(), Options::default()).has_changes());
    let pruned = plan(&text, &site(), Options { prune: true, ..Options::default() });
    let Action::Publish { unassign, direction, .. } = only(&pruned) else {
        panic!("{pruned:?}");
    };
    assert_eq!((unassign, direction), (vec!["+15550100100".to_owned()], Direction::Outbound));
}

#[test]
fn what_two_things_are_called_is_refused() {
    let mut found = site();
    let twin = json!({"id": "t2", "name": "Carrier"});
    found.trunks.push(twin);
    let told = refused(SITE, &found).join("\n");
    assert!(told.contains("site.yaml:3: 2 trunks are called Carrier: t, t2"), "{told}");
}

#[test]
fn what_cannot_be_done_is_refused_before_anything_is() {
    let other = site();
    for (text, why) in [
        ("phone_numbers: [{phone_number: +15550100100, trunk: None}]", "no trunk is called None"),
        ("agents: [{name: New, inbound_numbers: [+15550100100]}]", "has no version"),
        ("agents: [{name: New, config: {}, inbound_numbers: [+49]}]", "+49 is not registered"),
        ("agents: [{name: New, deploy_as_sip: true}]", "no published version to deploy"),
        (
            "agents: [{name: A, config: {}, inbound_numbers: [+15550100100]}, \
             {name: B, config: {}, inbound_numbers: [+15550100100]}]",
            "has the inbound slot of +15550100100 too",
        ),
        (
            "inbound_routing: {workflow_definition: {}, fallback_agent: None}",
            "no agent is called None",
        ),
        (
            "trunks: [{name: T}]\nphone_numbers: [{phone_number: +15550100100, trunk: T}]",
            "is on another trunk",
        ),
    ] {
        let told = refused(text, &other).join("\n");
        assert!(told.contains(why), "{text}: {told}");
    }
}

#[test]
fn every_fault_of_a_file_is_told_with_its_line_and_path() {
    let text = "
trunks:
  - name: Carrier
    inbound_config:
      allowed_adresses: [192.0.2.1]
  - name: Carrier
    outbound_config: {address: a, auth_username: b, auth_password: literal}
agents:
  - name: ''
    confg: {}
  - name: Echo
    active: 1
phone_numbers:
  - phone_number: 15550100100
    trunk: Carrier
sites: []
";
    let told = faults(text);
    for wanted in [
        "site.yaml:5: trunks[0].inbound_config.allowed_adresses: ",
        "site.yaml:6: trunks[1].name: is declared at site.yaml:3 too",
        "site.yaml:7: trunks[1].outbound_config.auth_password: is a secret",
        "site.yaml:9: agents[0].name: is needed",
        "site.yaml:10: agents[0].confg: unknown field; known are name, description",
        "site.yaml:12: agents[1].active: ",
        "site.yaml:14: phone_numbers[0].phone_number: must be a text; put it in quotes",
        "site.yaml:16: sites: unknown field; known are trunks, phone_numbers, agents, inbound_routing",
    ] {
        assert!(told.iter().any(|fault| fault.starts_with(wanted)), "{wanted}\n{told:#?}");
    }
    assert!(!told.join("").contains("literal"), "{told:?}");
}

#[test]
fn a_variable_that_is_not_set_is_named() {
    let told = faults("trunks:\n  - name: ${ABSENT}\n");
    assert_eq!(told, ["site.yaml:2: trunks[0].name: the environment variable ABSENT is not set"]);
}

#[test]
fn sections_of_several_documents_add_up() {
    let all = declared("trunks: [{name: A}]\n---\ntrunks: [{name: B}]\n---\nagents:\n");
    assert_eq!(all.trunks.unwrap().len(), 2);
    assert!(all.agents.unwrap().is_empty() && all.numbers.is_none());
}

#[test]
fn the_example_in_the_help_is_a_good_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("site.yaml");
    std::fs::write(&file, include_str!("example.yaml")).unwrap();
    for (name, text) in [
        ("reception.yaml", "runtime: {type: builtin, builtin: echo}\n"),
        ("routing.yaml", "schema: own/1\nsteps: []\n"),
    ] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let environment = |name: &str| (name == "CARRIER_PASSWORD").then(|| "x".to_owned());
    let read = Declared::read(&[file], &environment);
    let declared = read.unwrap_or_else(|failure| panic!("{}", failure.text()));
    let plan = Plan::make(&declared, &Found::default(), Options::default()).unwrap();
    assert_eq!(plan.steps.len(), 5);
}
