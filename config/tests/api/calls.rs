//! Calls out, hanging up and handing on, as far as the API sees them.

use config::calls::{DialRefused, TransferRefused};
use config::credential::ScopedTo;
use config::ids::ConversationId;
use config::model::{ConversationClose, ConversationStatus, DisplayedNumber, EndReason, Runtime};
use serde_json::{Value, json};

use crate::server::{Reply, Server, id};

const CALLEE: &str = "+4930123456";
const ID: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8";

/// A server with a number that dials, in whose outbound slot version 1 of an agent is.
struct Ready {
    server: Server,
    agent: String,
    version: String,
}

const NUMBER: &str = "+15550000001";

async fn ready() -> Ready {
    let server = Server::start().await;
    let trunk = json!({ "name": "t", "outbound_config": { "address": "h.example.com",
        "auth_username": "u", "auth_password": "p" } });
    let trunk = id(&server.post("/core/trunks", trunk).await.is(200));
    server.number(NUMBER, &trunk).await;
    let agent = server.agent("dialler").await;
    let publish = format!("/core/agents/{agent}/versions/1/publish");
    let slots = json!({ "phone_numbers": [NUMBER], "direction": "outbound" });
    server.post(&publish, slots).await.is(200);
    let version = id(&server.get(&format!("/core/agents/{agent}/versions/1")).await.is(200));
    Ready { server, agent, version }
}

impl Ready {
    /// Asks for a call with these fields besides the two that are always there.
    async fn dial(&self, fields: Value) -> Reply {
        let mut body = json!({ "channel": "telephone", "user_id": CALLEE });
        for (key, value) in fields.as_object().unwrap() {
            body[key] = value.clone();
        }
        self.server.post("/core/conversations", body).await
    }

    async fn call(&self) -> String {
        id(&self.dial(json!({ "agent_number": NUMBER })).await.is(202)["conversation"])
    }

    fn dialled(&self) -> usize {
        self.server.calls.dialled.lock().unwrap().len()
    }

    /// Ends a call in the records.
    async fn end(&self, id: &str, status: ConversationStatus) {
        let id: ConversationId = id.parse().unwrap();
        let scope = ScopedTo::by_gateway(self.server.organisation);
        let close = ConversationClose {
            id,
            status,
            end_reason: EndReason::new("callee_hung_up", "callee"),
            duration_s: None,
            transfer: None,
            quality: None,
            closed_at: config::clock::Clock::system().now(),
            post: None,
        };
        self.server.store.close_conversation(&scope, &close).await.unwrap();
        self.server.calls.up.lock().unwrap().retain(|(_, up)| *up != id);
    }
}

#[tokio::test]
async fn a_call_is_recorded_and_then_handed_to_the_gateway() {
    let ready = ready().await;
    let body = json!({ "agent_id": ready.agent, "initial_context": "be\nbrief",
        "custom_metadata": { "order": 7 } });
    let made = ready.dial(body).await.is(202)["conversation"].clone();
    assert_eq!(made["status"], "triggered");
    assert_eq!((&made["direction"], &made["channel"]), (&json!("outbound"), &json!("telephone")));
    assert_eq!((&made["user_id"], &made["agent_number"]), (&json!(CALLEE), &json!(NUMBER)));
    assert_eq!(made["agent_version_id"], json!(ready.version));
    assert_eq!(made["agent"]["name"], "dialler");
    assert!(made.get("initial_context").is_none() || made["initial_context"] == "be\nbrief");
    let stored = ready.server.get(&format!("/core/conversations/{}", id(&made))).await.is(200);
    assert_eq!(stored, made);
    let asked = ready.server.calls.dialled.lock().unwrap().pop().unwrap();
    assert_eq!(asked.conversation.id.to_string(), id(&made));
    assert_eq!((asked.callee.as_str(), asked.number.as_str()), (CALLEE, NUMBER));
    assert_eq!(asked.organisation, ready.server.organisation);
    assert_eq!(asked.conversation.initial_context.as_deref(), Some("be\nbrief"));
    assert_eq!(asked.conversation.custom_metadata, Some(json!({ "order": 7 })));
    assert_eq!(asked.version.map(|version| version.to_string()), Some(ready.version.clone()));
}

#[tokio::test]
async fn sensitive_fields_are_not_shown_to_who_may_only_dial() {
    let ready = ready().await;
    let key = ready.server.key_with(&["conversations:manage"]).await;
    let body = json!({ "channel": "telephone", "user_id": CALLEE, "agent_number": NUMBER,
        "initial_context": "secret" });
    let post = axum::http::Method::POST;
    let reply = ready.server.call(post, "/core/conversations", &key, &body).await;
    assert!(!reply.text.contains("secret"), "{}", reply.text);
    assert!(reply.is(202)["conversation"].get("initial_context").is_none());
}

#[tokio::test]
async fn a_campaign_dials_under_a_scope_of_its_own() {
    let ready = ready().await;
    let key = ready.server.key_with(&["conversations:dial"]).await;
    let post = |path: &'static str, body: Value| {
        let (server, key) = (&ready.server, &key);
        async move { server.call(axum::http::Method::POST, path, key, &body).await }
    };
    let body =
        json!({ "channel": "telephone", "user_id": CALLEE, "agent_number": NUMBER, "id": ID });
    let made = post("/core/conversations/dial", body.clone()).await.is(202);
    assert_eq!(id(&made["conversation"]), ID);
    assert_eq!(post("/core/conversations/dial", body.clone()).await.is(202), made);
    assert_eq!(ready.dialled(), 1);
    post("/core/conversations", body.clone()).await.is(403);
    post("/core/conversations/dial", json!({ "channel": "telephone" })).await.is(422);
    ready.server.post("/core/conversations/dial", body).await.is(403);
}

#[tokio::test]
async fn asking_again_with_the_same_id_calls_nobody_twice() {
    let ready = ready().await;
    for field in ["id", "conversation_id"] {
        let body = json!({ field: ID, "agent_number": NUMBER });
        let made = ready.dial(body).await.is(202);
        assert_eq!(id(&made["conversation"]), ID);
        assert_eq!(ready.dialled(), 1);
    }
    // Also when the second request would not pass by now, and while draining.
    *ready.server.calls.draining.lock().unwrap() = true;
    let again = ready.dial(json!({ "id": ID, "agent_number": "+15559999999" })).await.is(202);
    assert_eq!(again["conversation"]["agent_number"], NUMBER);
    let both = json!({ "id": ID, "conversation_id": ready.agent, "agent_number": NUMBER });
    ready.dial(both).await.is(422);
    assert_eq!(ready.dialled(), 1);
}

#[tokio::test]
async fn one_id_asked_for_many_times_at_once_is_one_call() {
    let ready = std::sync::Arc::new(ready().await);
    let all = (0..20).map(|_| {
        let ready = std::sync::Arc::clone(&ready);
        tokio::spawn(async move {
            ready.dial(json!({ "id": ID, "agent_number": NUMBER })).await.is(202)
        })
    });
    let all: Vec<_> = all.collect();
    for one in all {
        assert_eq!(id(&one.await.unwrap()["conversation"]), ID);
    }
    assert_eq!(ready.dialled(), 1);
}

#[tokio::test]
async fn a_request_says_who_talks_and_at_most_once() {
    let ready = ready().await;
    let (agent, version) = (&ready.agent, &ready.version);
    for bad in [
        json!({}),
        json!({ "agent_config": {} }),
        json!({ "version": 1, "agent_number": NUMBER }),
        json!({ "version": 1, "agent_version_id": version }),
        json!({ "agent_id": agent, "agent_version_id": version }),
        json!({ "agent_id": agent, "agent_config": {}, "agent_number": NUMBER }),
    ] {
        assert!(ready.dial(bad.clone()).await.is(422)["detail"].is_string(), "{bad}");
    }
    for good in [
        json!({ "agent_number": NUMBER }),
        json!({ "agent_id": agent }),
        json!({ "agent_id": agent, "version": 1 }),
        json!({ "agent_id": agent, "version": "latest" }),
        json!({ "agent_id": agent, "version": null, "agent_number": NUMBER }),
        json!({ "agent_version_id": version }),
        json!({ "agent_config": { "instructions": "x" }, "agent_number": NUMBER }),
    ] {
        ready.dial(good.clone()).await.is(202);
    }
    assert_eq!(ready.dialled(), 7);
}

#[tokio::test]
async fn an_agent_can_exist_for_one_call_only() {
    let ready = ready().await;
    let runtime = json!({ "type": "sip", "uri": "sips:{called_number}@agents.example.com",
        "auth_username": "u", "auth_password": "canary" });
    let body = json!({ "agent_number": NUMBER, "agent_config": { "runtime": runtime } });
    let reply = ready.dial(body).await;
    assert!(!reply.text.contains("canary"));
    let made = reply.is(202);
    assert_eq!(made["conversation"]["agent_id"], Value::Null);
    assert_eq!(made["conversation"]["agent_number"], NUMBER);
    let asked = ready.server.calls.dialled.lock().unwrap().pop().unwrap();
    let Runtime::Sip(agent) = &asked.runtime else { panic!("{:?}", asked.runtime) };
    assert_eq!(agent.auth_password.as_ref().unwrap().expose(), "canary");
    assert!(!format!("{asked:?}").contains("canary"));
    for (runtime, place) in [
        (json!({ "type": "smtp" }), "type"),
        (json!({ "type": "sip", "uri": "sip:{x}@h" }), "uri"),
        (json!({ "type": "sip", "uri": "sip:127.0.0.1" }), "uri"),
        (json!({ "type": "sip", "uri": "sip:h", "auth_username": "u" }), "auth_password"),
        (json!({ "type": "sip", "uri": "sip:h", "headers": { "Via": "x" } }), "headers"),
        (json!({ "type": "websocket", "url": "ws://h.example.com" }), "url"),
    ] {
        let body = json!({ "agent_number": NUMBER, "agent_config": { "runtime": runtime } });
        let place = format!("body.agent_config.runtime.{place}");
        assert_eq!(ready.dial(body).await.places(), [place]);
    }
}

#[tokio::test]
async fn what_cannot_be_dialled_with_is_told_in_words() {
    let ready = ready().await;
    let server = &ready.server;
    let draft = server.agent("draft").await;
    let draft_version = id(&server.get(&format!("/core/agents/{draft}/versions/1")).await.is(200));
    let off = server.agent("off").await;
    server.post(&format!("/core/agents/{off}/versions/1/publish"), Value::Null).await.is(200);
    server.put(&format!("/core/agents/{off}"), json!({ "active": false })).await.is(200);
    let inbound_only = server.trunk("in").await;
    server.number("+15550000002", &inbound_only).await;
    let agent = &ready.agent;
    for (body, status, detail) in [
        (json!({ "agent_id": ID }), 404, "Agent not found"),
        (json!({ "agent_version_id": ID }), 404, "Version not found"),
        (json!({ "agent_id": agent, "version": 9 }), 404, "Version not found"),
        (json!({ "agent_id": draft, "version": 1 }), 400, "Version is not published"),
        (json!({ "agent_version_id": draft_version }), 400, "Version is not published"),
        (json!({ "agent_id": draft }), 400, "Agent has no published version"),
        (json!({ "agent_id": off }), 400, "Agent is not active"),
        (
            json!({ "agent_number": "+15559999999" }),
            400,
            "agent_number is not a number of this organization",
        ),
        (
            json!({ "agent_number": "+15550000002", "agent_id": agent }),
            400,
            "The number's trunk has no outbound_config",
        ),
    ] {
        assert_eq!(ready.dial(body.clone()).await.is(status)["detail"], detail, "{body}");
    }
    server.delete(&format!("/core/phone-numbers/{NUMBER}")).await.is(204);
    let why = "No phone number with an outbound_config on its trunk";
    assert_eq!(ready.dial(json!({ "agent_id": agent })).await.is(400)["detail"], why);
    assert_eq!(ready.dialled(), 0);
    assert_eq!(server.get("/core/conversations").await.is(200), json!([]));
}

#[tokio::test]
async fn only_telephone_calls_to_e164_numbers_are_served() {
    let ready = ready().await;
    for channel in ["text", "email", "webrtc"] {
        let reply = ready.dial(json!({ "channel": channel, "agent_number": NUMBER })).await;
        assert!(reply.text.contains("served is: telephone"), "{}", reply.text);
        assert_eq!(reply.places(), ["body.channel"]);
    }
    for bad in ["guest_1", "15550000", "+1555\r\nVia: x", "+15550000001@evil.example", "+1 555 000"]
    {
        for field in ["user_id", "agent_number"] {
            let reply = ready.dial(json!({ "agent_number": NUMBER, field: bad })).await;
            assert_eq!(reply.places(), [format!("body.{field}")], "{bad}");
        }
    }
    assert_eq!(ready.dialled(), 0);
}

#[tokio::test]
async fn a_full_queue_and_a_stopping_node_answer_503_and_say_when_to_come_back() {
    let ready = ready().await;
    *ready.server.calls.refusal.lock().unwrap() = Some(DialRefused::QueueFull);
    let reply = ready.dial(json!({ "id": ID, "agent_number": NUMBER })).await;
    assert!(reply.headers.contains_key("retry-after"));
    assert_eq!(reply.is(503)["detail"], "Too many calls are waiting already");
    *ready.server.calls.draining.lock().unwrap() = true;
    let reply = ready.dial(json!({ "agent_number": NUMBER })).await;
    assert!(reply.headers.contains_key("retry-after"));
    reply.is(503);
    assert_eq!(ready.server.get("/core/conversations").await.is(200), json!([]), "nothing is left");
}

#[tokio::test]
async fn a_call_that_was_refused_is_placed_when_it_is_tried_again_with_its_id() {
    let ready = ready().await;
    let body = json!({ "id": ID, "agent_number": NUMBER });
    for refusal in [DialRefused::QueueFull, DialRefused::Draining] {
        *ready.server.calls.refusal.lock().unwrap() = Some(refusal);
        ready.dial(body.clone()).await.is(503);
    }
    *ready.server.calls.refusal.lock().unwrap() = None;
    let begun = ready.dial(body.clone()).await.is(202);
    assert_eq!((id(&begun["conversation"]), ready.dialled()), (ID.to_owned(), 1));
    assert_eq!(begun["conversation"]["status"], "triggered");
    *ready.server.calls.refusal.lock().unwrap() = Some(DialRefused::QueueFull);
    assert_eq!(ready.dial(body).await.is(202), begun, "what has begun is not begun again");
}

#[tokio::test]
async fn a_call_is_ended_once_and_what_is_over_stays() {
    let ready = ready().await;
    let call = ready.call().await;
    let path = format!("/core/conversations/{call}/hangup");
    for _ in 0..2 {
        let reply = ready.server.post(&path, Value::Null).await.is(202);
        assert_eq!(id(&reply["conversation"]), call);
    }
    assert_eq!(ready.server.calls.hung_up.lock().unwrap().len(), 2);
    ready.end(&call, ConversationStatus::Cancelled).await;
    let reply = ready.server.post(&path, Value::Null).await.is(200);
    assert_eq!(reply["conversation"]["status"], "cancelled");
    assert_eq!(ready.server.calls.hung_up.lock().unwrap().len(), 2);
    let elsewhere = ready.server.conversation(ready.server.organisation, |_| ()).await.id;
    let path = format!("/core/conversations/{elsewhere}/hangup");
    ready.server.post(&path, Value::Null).await.is(409);
    let path = format!("/core/conversations/{ID}/hangup");
    assert_eq!(
        ready.server.post(&path, Value::Null).await.is(404)["detail"],
        "Conversation not found"
    );
}

#[tokio::test]
async fn a_call_is_handed_on_and_its_record_says_so() {
    let ready = ready().await;
    let call = ready.call().await;
    let path = format!("/core/conversations/{call}/transfer");
    let body = json!({ "transfer_number": CALLEE, "displayed_number": "agent_number" });
    let reply = ready.server.post(&path, body.clone()).await.is(202);
    let transfer = &reply["conversation"]["transfer"];
    assert_eq!(transfer["status"], "pending");
    assert_eq!(transfer["transfer_number"], CALLEE);
    assert_eq!(transfer["mode"], "bridge");
    let (_, asked) = ready.server.calls.transferred.lock().unwrap().pop().unwrap();
    assert_eq!(asked.transfer_number.as_str(), CALLEE);
    assert_eq!(asked.displayed_number, DisplayedNumber::AgentNumber);
    for (refusal, status) in [
        (TransferRefused::NotActive, 409),
        (TransferRefused::AlreadyTransferring, 409),
        (TransferRefused::NoSuchCall, 409),
        (TransferRefused::NoOutbound, 400),
    ] {
        *ready.server.calls.transfer_refusal.lock().unwrap() = Some(refusal);
        assert!(ready.server.post(&path, body.clone()).await.is(status)["detail"].is_string());
    }
    ready.end(&call, ConversationStatus::Completed).await;
    ready.server.post(&path, body.clone()).await.is(409);
    // A call whose trunk takes none out.
    let inbound = ready.server.conversation(ready.server.organisation, |_| ()).await.id;
    let path = format!("/core/conversations/{inbound}/transfer");
    let why = "The call's trunk has no outbound_config";
    assert_eq!(ready.server.post(&path, body.clone()).await.is(400)["detail"], why);
    ready.server.post(&format!("/core/conversations/{ID}/transfer"), body).await.is(404);
}

#[tokio::test]
async fn a_transfer_goes_to_an_e164_number_and_nothing_else() {
    let ready = ready().await;
    let path = format!("/core/conversations/{}/transfer", ready.call().await);
    for bad in ["", "sip:a@b", "+4930\r\nRefer-To: <sip:x>", "4930123", "{called_number}"] {
        let reply = ready.server.post(&path, json!({ "transfer_number": bad })).await;
        assert_eq!(reply.places(), ["body.transfer_number"], "{bad}");
    }
    let reply = ready.server.post(&path, json!({})).await;
    assert_eq!(reply.places(), ["body.transfer_number"]);
    let body = json!({ "transfer_number": CALLEE, "displayed_number": "nobody" });
    assert_eq!(ready.server.post(&path, body).await.places(), ["body.displayed_number"]);
    assert!(ready.server.calls.transferred.lock().unwrap().is_empty());
}
