//! `/core/conversations` and `/core/calls/decisions`.

use std::borrow::Cow;

use axum::http::Method;

use config::clock::{Clock, Timestamp};
use config::ids::{AgentId, AgentVersionId, DecisionId, OrganisationId, TrunkId};
use config::model::{
    Considered, Conversation, ConversationStatus, Decision, Direction, RoutingReport, RoutingResult,
};
use config::workflows::TraceEntry;
use serde_json::{Value, json};

use crate::server::{Server, moment};

fn with_secrets(conversation: &mut Conversation) {
    conversation.summary = Some("canary".to_owned());
    conversation.initial_context = Some("canary".to_owned());
    conversation.custom_metadata = Some(json!({ "canary": { "deep": 1 } }));
    conversation.conversation = Some(json!({ "items": ["canary"] }));
    conversation.recording_details = Some(json!({ "url": "canary" }));
}

#[tokio::test]
async fn sensitive_fields_are_absent_without_their_scope() {
    let server = Server::start().await;
    let made = server.conversation(server.organisation, with_secrets).await;
    for (grants, sees) in [
        (["conversations:read"].as_slice(), false),
        (&["conversations:manage"], false),
        (&["viewer"], false),
        (&["conversations:read_sensitive"], true),
        (&["conversations:manage", "conversations:read_sensitive"], true),
        (&["admin"], true),
    ] {
        let key = server.key_with(grants).await;
        for path in [
            "/core/conversations".to_owned(),
            format!("/core/conversations/{}", made.id),
            format!("/core/conversations/{}?fields=summary,id,custom_metadata", made.id),
        ] {
            let reply = server.call(Method::GET, &path, &key, &Value::Null).await;
            assert_eq!(reply.text.contains("canary"), sees, "{grants:?} {path}");
            let body = reply.is(200);
            let one = body.as_array().map_or(&body, |list| &list[0]);
            assert_eq!(one.get("summary").is_some(), sees, "the key itself is absent");
            assert_eq!(one["id"], json!(made.id));
        }
        let filter = "/core/conversations?custom_metadata=%7B%22canary%22%3A%7B%7D%7D";
        let reply = server.call(Method::GET, filter, &key, &Value::Null).await;
        assert_eq!(reply.status.as_u16(), if sees { 200 } else { 403 }, "a filter tells too");
    }
}

#[tokio::test]
async fn fields_are_projected() {
    let server = Server::start().await;
    server.conversation(server.organisation, |_| ()).await;
    let list = server.get("/core/conversations?fields=id,status,created_at").await.is(200);
    let keys: Vec<_> = list[0].as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys, ["id", "status", "created_at"]);
    let places = server.get("/core/conversations?fields=id,nope").await.places();
    assert_eq!(places, ["query.fields"]);
}

#[tokio::test]
async fn a_list_has_only_so_much_of_what_is_large() {
    let server = Server::start().await;
    let large = "x".repeat(3 << 20);
    for (at, said) in [&*large, "small", &*large, &*large].into_iter().enumerate() {
        let fill = |c: &mut Conversation| {
            c.summary = Some(at.to_string());
            c.initial_context = Some(at.to_string());
            c.conversation = Some(json!({ "items": [said] }));
        };
        server.conversation(server.organisation, fill).await;
    }
    let has = |row: &Value| ["initial_context", "conversation"].map(|key| row.get(key).is_some());
    let list = server.get("/core/conversations").await.is(200);
    let list = list.as_array().unwrap();
    assert_eq!(
        list.iter().map(has).collect::<Vec<_>>(),
        [[true; 2], [true; 2], [true; 2], [false; 2]]
    );
    assert_eq!(list[2]["conversation"]["items"][0], "small");
    assert_eq!(list[3]["summary"], "0", "the rest of a row is there");
    let path = format!("/core/conversations/{}", list[3]["id"].as_str().unwrap());
    assert_eq!(has(&server.get(&path).await.is(200)), [true; 2]);
    let named = server.get("/core/conversations?fields=id,conversation&limit=1").await.is(200);
    assert_eq!(named[0]["conversation"], list[0]["conversation"]);
    let without = server.get("/core/conversations?fields=id,summary").await;
    assert!(without.text.len() < 1_000, "{}", without.text.len());
}

#[tokio::test]
async fn conversations_are_listed_by_every_filter() {
    let server = Server::start().await;
    let first = server
        .conversation(server.organisation, |c| {
            c.duration = Some(10);
            c.user_turn_count = Some(3);
            c.status = ConversationStatus::Completed;
            c.agent_number = Some("+15551234567".to_owned());
            c.custom_metadata = Some(json!({ "campaign": "spring" }));
        })
        .await;
    let second = server
        .conversation(server.organisation, |c| {
            c.direction = Direction::Outbound;
            c.user_id = "Anonymous".to_owned();
        })
        .await;
    let ids = async |query: &str| -> Vec<String> {
        let list = server.get(&format!("/core/conversations?{query}")).await.is(200);
        list.as_array().unwrap().iter().map(|c| c["id"].as_str().unwrap().to_owned()).collect()
    };
    let (one, two) = (first.id.to_string(), second.id.to_string());
    assert_eq!(ids("").await, [two.as_str(), &one]);
    for (query, found) in [
        ("direction=inbound", vec![&one]),
        ("channel=telephone", vec![&two, &one]),
        ("channel=text", vec![]),
        ("status=completed", vec![&one]),
        ("user_id=anon", vec![&two]),
        ("user_id=%2B4930", vec![&one]),
        ("user_id=+4930", vec![&one]),
        ("agent_number=555", vec![&one]),
        ("duration_above=10", vec![&one]),
        ("duration_above=11", vec![]),
        ("duration_below=10", vec![&one]),
        ("user_turn_count_above=3&user_turn_count_below=3", vec![&one]),
        ("custom_metadata=%7B%22campaign%22%3A%22spring%22%7D", vec![&one]),
        ("limit=1", vec![&two]),
        ("web_widget_id=none", vec![]),
    ] {
        assert_eq!(ids(query).await, found.into_iter().cloned().collect::<Vec<_>>(), "{query}");
    }
    // Bounds are inclusive.
    let at = first.created_at;
    assert_eq!(ids(&format!("created_before={at}")).await, [one.as_str()]);
    assert_eq!(ids(&format!("created_after={at}")).await.len(), 2);
    let next = Timestamp::from_micros(at.micros() + 1);
    assert_eq!(ids(&format!("created_after={next}")).await, [two.as_str()]);
    let path = format!("/core/conversations/{one}");
    assert_eq!(moment(&server.get(&path).await.is(200)["created_at"]), at);
}

#[tokio::test]
async fn ids_moments_and_statuses_filter_by_equality_and_bounds_are_inclusive() {
    let server = Server::start().await;
    let (agent, version, trunk) = (AgentId::random(), AgentVersionId::random(), TrunkId::random());
    let wanted = server
        .conversation(server.organisation, |c| {
            c.agent_id = Some(agent);
            c.agent_version_id = Some(version);
            c.trunk_id = Some(trunk);
            c.web_widget_id = Some("widget".to_owned());
            c.status = ConversationStatus::Transferred;
            c.duration = Some(20);
            c.user_turn_count = Some(2);
            c.custom_metadata = Some(json!({ "a": { "b": [1, 2] }, "c": true }));
        })
        .await;
    server.conversation(server.organisation, |_| ()).await;
    let count = async |query: &str| {
        let list = server.get(&format!("/core/conversations?{query}")).await.is(200);
        let list = list.as_array().unwrap().clone();
        assert!(list.len() != 1 || list[0]["id"] == json!(wanted.id), "{query}");
        list.len()
    };
    let unknown = AgentId::random();
    let (at, next) = (wanted.updated_at, Timestamp::from_micros(wanted.updated_at.micros() + 1));
    for (query, found) in [
        (format!("agent_id={agent}"), 1),
        (format!("agent_id={unknown}"), 0),
        (format!("agent_version_id={version}"), 1),
        (format!("trunk_id={trunk}"), 1),
        ("web_widget_id=widget".to_owned(), 1),
        ("web_widget_id=widge".to_owned(), 0),
        ("duration_above=20&duration_below=20".to_owned(), 1),
        ("duration_below=19".to_owned(), 0),
        ("user_turn_count_above=2".to_owned(), 1),
        ("user_turn_count_below=1".to_owned(), 0),
        (format!("updated_after={at}&updated_before={at}"), 1),
        (format!("updated_before={at}"), 1),
        (format!("updated_after={next}&agent_id={agent}"), 0),
        ("custom_metadata=%7B%22a%22:%7B%22b%22:%5B2%5D%7D%7D".to_owned(), 1),
        ("custom_metadata=%7B%22c%22:%22true%22%7D".to_owned(), 0),
    ] {
        assert_eq!(count(&query).await, found, "{query}");
    }
    for status in [
        "token_created",
        "triggered",
        "ringing",
        "in_progress",
        "completed",
        "failed",
        "cancelled",
        "transferred",
        "unanswered",
    ] {
        let found = usize::from(status == "transferred" || status == "ringing");
        let list = server.get(&format!("/core/conversations?status={status}")).await.is(200);
        assert_eq!(list.as_array().unwrap().len(), found, "{status}");
    }
}

#[tokio::test]
async fn filters_that_are_no_good_are_named() {
    let server = Server::start().await;
    for (query, place) in [
        ("direction=sideways", "direction"),
        ("channel=fax", "channel"),
        ("status=done", "status"),
        ("agent_id=agent_1", "agent_id"),
        ("duration_above=long", "duration_above"),
        ("created_after=yesterday", "created_after"),
        ("custom_metadata=%5B1%5D", "custom_metadata"),
        ("custom_metadata=x", "custom_metadata"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("cursor=%25", "cursor"),
        ("agent=1", "agent"),
    ] {
        let places = server.get(&format!("/core/conversations?{query}")).await.places();
        assert_eq!(places, [format!("query.{place}")], "{query}");
    }
    let most = server.get("/core/conversations?limit=1000").await;
    assert_eq!(most.is(200), json!([]));
}

#[tokio::test]
async fn a_telephone_call_takes_no_text_and_has_no_room() {
    let server = Server::start().await;
    let call = server.conversation(server.organisation, |_| ()).await;
    let over = |c: &mut Conversation| c.status = ConversationStatus::Completed;
    let over = server.conversation(server.organisation, over).await;
    let unknown = TrunkId::random();
    let path = |id: &dyn std::fmt::Display, what| format!("/core/conversations/{id}/{what}");
    let hello = json!({ "text": "hello" });
    let reply = server.post(&path(&call.id, "messages"), hello.clone()).await.is(409);
    assert_eq!(reply["detail"], "The conversation is not a text conversation");
    server.post(&path(&unknown, "messages"), hello).await.is(404);
    for body in [json!({}), json!({ "text": "" }), json!({ "text": " " }), json!({ "text": 1 })] {
        let places = server.post(&path(&call.id, "messages"), body).await.places();
        assert_eq!(places, ["body.text"]);
    }
    let odd = json!({ "text": "x", "interactivity": "loud" });
    assert_eq!(
        server.post(&path(&call.id, "messages"), odd).await.places(),
        ["body.interactivity"]
    );
    server.post(&path(&call.id, "end"), Value::Null).await.is(409);
    server.post(&path(&unknown, "end"), Value::Null).await.is(404);
    server.post(&path(&over.id, "listener-token"), Value::Null).await.is(409);
    let none = server.post(&path(&call.id, "listener-token"), Value::Null).await.is(404);
    assert_eq!(none["detail"], "The conversation has no room");
}

#[tokio::test]
async fn a_walk_over_the_pages_meets_every_conversation_once() {
    let server = Server::start().await;
    for _ in 0..7 {
        server.conversation(server.organisation, |_| ()).await;
    }
    let (mut met, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = server.get(&format!("/core/conversations?limit=3{cursor}")).await.is(200);
        let page = page.as_array().unwrap().clone();
        met.extend(page.iter().map(|c| c["id"].clone()));
        if page.len() < 3 {
            break;
        }
        // As a client of the contract builds it.
        use base64::Engine as _;
        let last = page.last().unwrap()["created_at"].as_str().unwrap();
        cursor = format!("&cursor={}", base64::engine::general_purpose::STANDARD.encode(last));
    }
    assert_eq!(met.len(), 7);
    met.sort_by_key(Value::to_string);
    met.dedup();
    assert_eq!(met.len(), 7);
}

fn refusal(organization_id: Option<OrganisationId>, source: &str, number: &str) -> Decision {
    let considered = |owner: OrganisationId| Considered {
        trunk_id: TrunkId::random(),
        organization_id: owner,
        name: "t".to_owned(),
        rule: Cow::Borrowed("source_not_allowed"),
        verdict: "no".to_owned(),
    };
    let own = organization_id.unwrap_or_else(OrganisationId::random);
    Decision {
        id: DecisionId::random(),
        at: Clock::system().now(),
        organization_id,
        source_ip: source.to_owned(),
        source_port: 5060,
        transport: Cow::Borrowed("udp"),
        request_uri: "sip:x@y".to_owned(),
        from: "sip:a@b".to_owned(),
        called_raw: number.to_owned(),
        called_number: Some(number.to_owned()),
        trunks_considered: vec![considered(own), considered(OrganisationId::random())],
        rule: Cow::Borrowed("source_not_allowed"),
        explanation: "The source is not in allowed_addresses.".to_owned(),
        sip_status: None,
        sip_call_id: "c".to_owned(),
        conversation_id: None,
        routing: None,
    }
}

#[tokio::test]
async fn an_organisation_reads_why_its_calls_were_refused() {
    let server = Server::start().await;
    let own = Some(server.organisation);
    let (other, other_key) = server.stranger().await;
    let all = vec![
        refusal(own, "192.0.2.1", "+1555"),
        refusal(own, "192.0.2.2", "+1666"),
        refusal(Some(other), "192.0.2.3", "+1777"),
        refusal(None, "192.0.2.4", "+1888"),
    ];
    server.decisions(all).await;
    let sources = async |query: &str, key: &str| -> Vec<String> {
        let path = format!("/core/calls/decisions{query}");
        let list = server.call(Method::GET, &path, key, &Value::Null).await.is(200);
        let source = |d: &Value| d["source_ip"].as_str().unwrap().to_owned();
        list.as_array().unwrap().iter().map(source).collect()
    };
    let key = &server.key;
    assert_eq!(sources("", key).await, ["192.0.2.2", "192.0.2.1"]);
    assert_eq!(sources("?source=192.0.2.1", key).await, ["192.0.2.1"]);
    assert_eq!(sources("?called_number=%2B1666", key).await, ["192.0.2.2"]);
    assert_eq!(sources("?called_number=+1666", key).await, ["192.0.2.2"]);
    assert_eq!(sources("?rule=source_not_allowed&limit=1", key).await, ["192.0.2.2"]);
    assert_eq!(sources("", &other_key).await, ["192.0.2.3"]);
    assert_eq!(sources("?unattributed=true", key).await, ["192.0.2.4"]);
    let path = "/core/calls/decisions?unattributed=true";
    server.call(Method::GET, path, &other_key, &Value::Null).await.is(403);
    let list = server.get("/core/calls/decisions").await.is(200);
    assert_eq!(list[0]["trunks_considered"].as_array().unwrap().len(), 1, "only one's own");
}

#[tokio::test]
async fn the_words_of_a_step_that_failed_are_for_who_may_read_what_is_sensitive() {
    let server = Server::start().await;
    let step = |kind: &str, summary: &str| TraceEntry {
        step: kind.to_owned(),
        name: kind.to_owned(),
        kind: kind.to_owned(),
        duration_us: 1,
        summary: summary.to_owned(),
    };
    let report = RoutingReport {
        result: RoutingResult::Refused,
        reason: Some("routing_failed".to_owned()),
        sip_status: Some(480),
        agent_id: None,
        agent_version_id: None,
        version: None,
        skip_pre_conversation_workflow: false,
        steps: vec![step("condition", "branch 1"), step("code", "Cannot convert 'canary'")],
        explanation: vec!["The workflow failed at step \"code\": the step failed.".to_owned()],
    };
    let refused = refusal(Some(server.organisation), "192.0.2.1", "+1555");
    server.decisions(vec![Decision { routing: Some(report), ..refused }]).await;
    let seen = async |scopes: &[&str]| {
        let key = server.key_with(scopes).await;
        let path = "/core/calls/decisions";
        server.call(Method::GET, path, &key, &Value::Null).await.is(200)[0]["routing"].clone()
    };
    let shown = seen(&["trunks:read"]).await;
    assert_eq!(shown["steps"][0]["summary"], "branch 1");
    assert!(!shown.to_string().contains("canary"), "{shown}");
    let whole = seen(&["trunks:read", "conversations:read_sensitive"]).await;
    assert_eq!(whole["steps"][1]["summary"], "Cannot convert 'canary'");
}

#[tokio::test]
async fn a_transcript_may_have_as_many_items_as_is_documented() {
    let server = Server::start().await;
    let made = server.conversation(server.organisation, |_| ()).await;
    let path = format!("/core/conversations/{}", made.id);
    let short = json!({ "type": "message", "role": "user", "content": ["x"] });
    let body = |items: Vec<Value>| json!({ "conversation": { "items": items } });
    let written = server.patch(&path, body(vec![short.clone(); 2_000])).await.is(200);
    assert_eq!(written["user_turn_count"], 2_000);
    let refused = server.patch(&path, body(vec![short; 2_001])).await;
    assert_eq!(refused.places(), ["body.conversation.items"]);
    // All that is measured of each turn: fewer fit by their bytes, and none is refused for its values.
    let measured = json!({ "type": "message", "role": "user", "content": ["x"], "l": [1, 2, 3, 4, 5,
        6, 7, 8, 9, 1, 2, 3, 4, 5], "m": { "a": 0, "b": 1 } });
    let written = server.patch(&path, body(vec![measured.clone(); 1_200])).await.is(200);
    assert_eq!(written["conversation"]["items"][1_199], measured);
    let long = "x".repeat(140_000);
    let refused = server.patch(&path, body(vec![said("user", &long)])).await;
    assert_eq!(refused.places(), ["body.conversation"]);
}

fn said(role: &str, text: &str) -> Value {
    json!({ "type": "message", "role": role, "content": [text], "e2e_latency": 0.5 })
}

#[tokio::test]
async fn what_was_said_is_written_down_and_its_turns_are_counted() {
    let server = Server::start().await;
    let made = server.conversation(server.organisation, |_| ()).await;
    let path = format!("/core/conversations/{}", made.id);
    let call = json!({ "type": "function_call", "name": "look_up", "call_id": "1" });
    let items = json!([said("assistant", "hello"), said("user", "hi"), call, said("user", "bye")]);
    let body = json!({ "conversation": { "items": items }, "summary": "a greeting" });
    let written = server.patch(&path, body.clone()).await.is(200);
    assert_eq!(
        (&written["conversation"], &written["summary"]),
        (&body["conversation"], &body["summary"])
    );
    assert_eq!((&written["user_turn_count"], &written["status"]), (&json!(2), &json!("ringing")));
    assert!(moment(&written["updated_at"]) > made.updated_at);
    assert_eq!(server.get(&path).await.is(200), written);
    for (query, expected) in [("above=2", 1), ("above=3", 0), ("below=2", 1), ("below=1", 0)] {
        let list =
            server.get(&format!("/core/conversations?user_turn_count_{query}")).await.is(200);
        assert_eq!(list.as_array().unwrap().len(), expected, "{query}");
    }
    let only = server.patch(&path, json!({ "summary": "another" })).await.is(200);
    assert_eq!((&only["user_turn_count"], &only["summary"]), (&json!(2), &json!("another")));
    assert_eq!(server.patch(&path, json!({})).await.is(200), only, "nothing is changed by nothing");
    let gone = server.patch(&path, json!({ "conversation": null })).await.is(200);
    assert_eq!((&gone["conversation"], &gone["user_turn_count"]), (&Value::Null, &Value::Null));
    assert_eq!(gone["summary"], "another");
}

#[tokio::test]
async fn a_conversation_that_is_over_is_written_about_and_stays_over() {
    let server = Server::start().await;
    let over = |one: &mut Conversation| one.status = ConversationStatus::Completed;
    let made = server.conversation(server.organisation, over).await;
    let path = format!("/core/conversations/{}", made.id);
    let manager = server.key_with(&["conversations:manage"]).await;
    let body =
        json!({ "summary": "canary", "conversation": { "items": [said("user", "canary")] } });
    let reply = server.call(Method::PATCH, &path, &manager, &body).await;
    assert!(!reply.text.contains("canary"), "who may write it need not see it");
    let written = reply.is(200);
    assert_eq!((&written["status"], &written["user_turn_count"]), (&json!("completed"), &json!(1)));
    assert_eq!(server.get(&path).await.is(200)["summary"], "canary");
}

#[tokio::test]
async fn a_transcript_that_is_none_is_refused_with_its_place() {
    let server = Server::start().await;
    let made = server.conversation(server.organisation, |_| ()).await;
    let path = format!("/core/conversations/{}", made.id);
    let items = |items: Value| json!({ "conversation": { "items": items } });
    for (body, place) in [
        (json!({ "conversation": {} }), "body.conversation.items"),
        (json!({ "conversation": { "items": [], "more": 1 } }), "body.conversation.more"),
        (items(json!([{ "role": "user" }])), "body.conversation.items.0.type"),
        (items(json!([{ "type": "message", "content": ["x"] }])), "body.conversation.items"),
        (
            items(json!([{ "type": "message", "role": "user", "content": "x" }])),
            "body.conversation.items.0.content",
        ),
        (json!({ "summary": "x".repeat(10_001) }), "body.summary"),
        (json!({ "user_turn_count": 3 }), "body.user_turn_count"),
        (json!({ "status": "completed" }), "body.status"),
    ] {
        assert_eq!(server.patch(&path, body.clone()).await.places(), [place], "{body}");
    }
    let role = items(json!([{ "type": "message", "role": "narrator", "content": [] }]));
    assert!(server.patch(&path, role).await.places()[0].starts_with("body.conversation.items.0"));
    assert_eq!(server.get(&path).await.is(200)["conversation"], Value::Null);
}
