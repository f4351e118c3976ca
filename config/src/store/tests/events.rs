//! What records tell, and how it waits for webhooks.

use std::borrow::Cow;
use std::sync::Arc;

use super::*;
use crate::events::{Next, Start, StreamLimits, Subscription};
use crate::ids::{DecisionId, WebhookId};
use crate::journal::Entry;
use crate::model::{
    CallEvent, Considered, Conversation, ConversationChange, ConversationClose, ConversationStatus,
    Decision, Delivery, DeliveryState, Direction, EndReason, EventKind, NewWebhook, Page, Webhook,
    WebhookChange,
};
use crate::store::{Claim, Claimed, Settled};

const LIMITS: StreamLimits = StreamLimits { per_organisation: 10, total: 10 };
const HOUR_US: i64 = 3_600_000_000;

/// Options with a clock that stands still until it is moved.
fn still() -> (StoreOptions, impl Fn(i64)) {
    let now = Arc::new(AtomicI64::new(START_US));
    let read = Arc::clone(&now);
    let clock = Clock::from_fn(move || Timestamp::from_micros(read.load(Ordering::Relaxed)));
    (StoreOptions { clock, ..options() }, move |by_us| {
        now.fetch_add(by_us, Ordering::Relaxed);
    })
}

fn listen(store: &Store, org: &Org) -> Subscription {
    store.events().subscribe(org.organisation(), Start::Now, LIMITS).unwrap().0
}

/// What has been told, without waiting for more.
async fn told(stream: &mut Subscription) -> Vec<CallEvent> {
    let mut all = Vec::new();
    loop {
        tokio::select! { biased;
            next = stream.next() => match next {
                Next::Event(_, told) => all.push(told.event().clone()),
                other => panic!("{other:?}"),
            },
            () = std::future::ready(()) => return all,
        }
    }
}

fn kinds(events: &[CallEvent]) -> Vec<(EventKind, u32)> {
    events.iter().map(|event| (event.kind, event.sequence)).collect()
}

fn call(org: &Org) -> Conversation {
    let at = Timestamp::from_micros(START_US);
    Conversation {
        user_id: "+4930".to_owned(),
        custom_metadata: Some(json!({ "canary": true })),
        ..Conversation::begun(org.organisation(), Direction::Inbound, at)
    }
}

fn opened(call: &Conversation) -> Entry {
    Entry::ConversationOpened(Box::new(call.clone()))
}

fn changed(call: &Conversation, status: ConversationStatus) -> Entry {
    let at = Timestamp::from_micros(START_US + 5);
    let change = ConversationChange::to(call.id, status, at);
    Entry::ConversationChanged(ConversationChange { answered_at: Some(at), ..change })
}

fn closed(call: &Conversation, status: ConversationStatus) -> Entry {
    Entry::ConversationClosed(Box::new(ConversationClose {
        id: call.id,
        status,
        end_reason: EndReason::new("caller_hung_up", "caller"),
        duration_s: Some(7),
        transfer: None,
        quality: None,
        closed_at: Timestamp::from_micros(START_US + 9),
        post: None,
    }))
}

fn refused(of: Option<OrganisationId>) -> Decision {
    let considered = |owner| Considered {
        trunk_id: TrunkId::random(),
        organization_id: owner,
        name: "t".to_owned(),
        rule: Cow::Borrowed("address"),
        verdict: "no".to_owned(),
    };
    Decision {
        id: DecisionId::random(),
        at: Timestamp::from_micros(START_US),
        organization_id: of,
        source_ip: "192.0.2.1".to_owned(),
        source_port: 5060,
        transport: Cow::Borrowed("udp"),
        request_uri: "sip:1@h".to_owned(),
        from: "sip:+4931@h".to_owned(),
        called_raw: "1".to_owned(),
        called_number: Some("+1555".to_owned()),
        trunks_considered: vec![
            considered(of.unwrap_or_else(OrganisationId::random)),
            considered(OrganisationId::random()),
        ],
        rule: Cow::Borrowed("number_unknown"),
        explanation: "No such number.".to_owned(),
        sip_status: Some(404),
        sip_call_id: "x".to_owned(),
        conversation_id: None,
        routing: None,
    }
}

async fn hook(store: &Store, org: &Org, body: Value) -> Webhook {
    let mut new = json!({ "url": "https://receiver.example/" });
    new.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
    let new: NewWebhook = serde_json::from_value(new).unwrap();
    store.create_webhook(org, new, true).await.unwrap().0
}

async fn deliveries(store: &Store, org: &Org, hook: &Webhook) -> Vec<Delivery> {
    let mut all = store.webhook_deliveries(org, hook.id, None, Page::first(1_000)).await.unwrap();
    all.reverse();
    all
}

async fn claim(store: &Store, hook: WebhookId) -> Vec<Claimed> {
    let claim = store.claim_deliveries(hook, 8).await.unwrap();
    claim.map(|claim| claim.deliveries).unwrap_or_default()
}

fn outcome(of: &Claimed, error: Option<&str>) -> Settled {
    let status_code = Some(if error.is_some() { 500 } else { 204 });
    Settled { id: of.id, attempt: of.attempt, status_code, error: error.map(str::to_owned) }
}

async fn take(store: &Store, hook: WebhookId) -> Vec<EventKind> {
    let claimed = claim(store, hook).await;
    let settled: Vec<_> = claimed.iter().map(|one| outcome(one, None)).collect();
    store.settle_deliveries(hook, &settled).await.unwrap();
    claimed.iter().map(|one| one.event_type).collect()
}

async fn fail(store: &Store, hook: WebhookId) -> usize {
    let claimed = claim(store, hook).await;
    let settled: Vec<_> = claimed.iter().map(|one| outcome(one, Some("no"))).collect();
    store.settle_deliveries(hook, &settled).await.unwrap();
    claimed.len()
}

#[tokio::test]
async fn every_step_of_a_call_is_told_once_and_in_order() {
    use ConversationStatus::{Completed, Failed, InProgress, Ringing};
    let store = Scratch::new().await;
    let org = store.organisation().await;
    let (mut stream, call) = (listen(&store, &org), call(&org));
    let all = [
        opened(&call),
        opened(&call),
        changed(&call, Ringing),
        changed(&call, InProgress),
        changed(&call, InProgress),
        closed(&call, Completed),
        closed(&call, Failed),
        changed(&call, InProgress),
    ];
    store.write_entries(&all[..3]).await.unwrap();
    store.write_entries(&all[3..]).await.unwrap();
    let events = told(&mut stream).await;
    let expected = [(EventKind::Ringing, 1), (EventKind::Answered, 2), (EventKind::Ended, 3)];
    assert_eq!(kinds(&events), expected);
    let [rings, answered, ended] = events.as_slice() else { panic!() };
    assert_eq!(rings.conversation_id, Some(call.id));
    assert_eq!((rings.status, rings.at), (Some(Ringing), call.created_at));
    assert_eq!(answered.at.micros(), START_US + 5);
    assert_eq!((ended.status, ended.duration), (Some(Completed), Some(7)));
    assert_eq!(ended.end_reason.as_ref().unwrap().code, "caller_hung_up");
    assert_eq!((ended.user_id.as_str(), ended.at.micros()), ("+4930", START_US + 9));
}

#[tokio::test]
async fn a_call_out_is_heard_of_when_it_rings_and_a_transfer_before_its_end() {
    use ConversationStatus::{InProgress, Ringing, Transferred, Triggered};
    let store = Scratch::new().await;
    let org = store.organisation().await;
    let mut stream = listen(&store, &org);
    let out = Conversation { status: Triggered, direction: Direction::Outbound, ..call(&org) };
    let opened = store.open_conversation(&org, out.clone()).await.unwrap();
    assert!(opened.is_new && told(&mut stream).await.is_empty());
    let entries = [changed(&out, Ringing), changed(&out, InProgress), closed(&out, Transferred)];
    store.write_entries(&entries).await.unwrap();
    let expected = [
        (EventKind::Ringing, 1),
        (EventKind::Answered, 2),
        (EventKind::Transferred, 3),
        (EventKind::Ended, 4),
    ];
    assert_eq!(kinds(&told(&mut stream).await), expected);
}

#[tokio::test]
async fn a_refused_call_is_told_to_whose_it_was_and_to_nobody_else() {
    let store = Scratch::new().await;
    let (org, other) = (store.organisation().await, store.organisation().await);
    let (mut stream, mut theirs) = (listen(&store, &org), listen(&store, &other));
    let (own, nobodys) = (refused(Some(org.organisation())), refused(None));
    let entries = [Entry::Decision(Box::new(own.clone())), Entry::Decision(Box::new(nobodys))];
    store.write_entries(&entries).await.unwrap();
    store.write_entries(&entries[..1]).await.unwrap();
    let events = told(&mut stream).await;
    assert_eq!(kinds(&events), [(EventKind::Refused, 1)]);
    let event = &events[0];
    assert_eq!((event.conversation_id, event.decision_id), (None, Some(own.id)));
    assert_eq!((event.user_id.as_str(), event.agent_number.as_deref()), ("+4931", Some("+1555")));
    assert_eq!(event.trunk_id, Some(own.trunks_considered[0].trunk_id), "only one's own");
    let why = event.end_reason.clone().unwrap();
    assert_eq!((why.code.as_ref(), why.sip_code), ("number_unknown", Some(404)));
    assert_eq!(why.text.as_deref(), Some("No such number."));
    assert!(told(&mut theirs).await.is_empty());
}

/// Options whose clock goes on after that of the first store.
fn later() -> StoreOptions {
    let clock = options().clock;
    let later = move || Timestamp::from_micros(clock.now().micros() + 3_600_000_000);
    StoreOptions { clock: Clock::from_fn(later), ..options() }
}

#[tokio::test]
async fn what_a_crash_left_open_is_told_when_it_is_closed() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    let (call, hook) = (call(&org), hook(&store, &org, json!({})).await);
    store.write_entries(&[opened(&call)]).await.unwrap();
    let again = store.again(later()).await;
    let mut stream = listen(&again, &org);
    assert_eq!(again.close_left_open().await, Ok(1));
    let events = told(&mut stream).await;
    assert_eq!(kinds(&events), [(EventKind::Ended, 2)], "the numbers go on");
    assert_eq!(events[0].end_reason.as_ref().unwrap().code, "gateway_crash");
    let waiting = deliveries(&again, &org, &hook).await;
    let types: Vec<_> = waiting.iter().map(|one| one.event_type).collect();
    assert_eq!(types, [EventKind::Ringing, EventKind::Ended]);
}

#[tokio::test]
async fn each_webhook_gets_what_it_wants_and_may_see() {
    let store = Scratch::new().await;
    let (org, other) = (store.organisation().await, store.organisation().await);
    let plain = hook(&store, &org, json!({ "events": ["call.ended"] })).await;
    let full = hook(&store, &org, json!({ "include_sensitive": true })).await;
    let off = hook(&store, &org, json!({ "enabled": false })).await;
    let foreign = hook(&store, &other, json!({})).await;
    let call = call(&org);
    let entries = [opened(&call), closed(&call, ConversationStatus::Completed)];
    store.write_entries(&entries).await.unwrap();
    let types = |all: Vec<Delivery>| all.iter().map(|d| d.event_type).collect::<Vec<_>>();
    let seen = async |org, hook| types(deliveries(&store, org, hook).await);
    assert_eq!(seen(&org, &plain).await, [EventKind::Ended]);
    assert_eq!(seen(&org, &full).await, [EventKind::Ringing, EventKind::Ended]);
    assert!(seen(&org, &off).await.is_empty() && seen(&other, &foreign).await.is_empty());
    let body = |all: Vec<Claimed>| all[0].body.clone();
    let (safe, whole) = (claim(&store, plain.id).await, claim(&store, full.id).await);
    assert_ne!(safe[0].event_id, whole[0].event_id);
    assert!(body(whole).contains("canary") && !body(safe.clone()).contains("canary"));
    let detail = store.webhook_delivery(&org, plain.id, safe[0].id).await.unwrap();
    assert_eq!(detail.event, serde_json::from_str(&safe[0].body).unwrap());
    for hidden in [
        store.webhook_deliveries(&other, plain.id, None, Page::default()).await.err(),
        store.webhook_delivery(&other, plain.id, safe[0].id).await.err(),
        store.replay_dead_deliveries(&other, plain.id).await.err(),
        store.queue_webhook_test(&other, plain.id).await.err(),
    ] {
        assert_eq!(hidden, Some(not_found("Webhook")));
    }
    let elsewhere = store.webhook_delivery(&org, full.id, safe[0].id).await;
    assert_eq!(elsewhere.err(), Some(not_found("Delivery")));
}

#[tokio::test]
async fn events_of_one_call_are_claimed_in_order_and_calls_beside_one_another() {
    let (options, pass) = still();
    let store = Scratch::with(options).await;
    let org = store.organisation().await;
    let hook = hook(&store, &org, json!({})).await;
    let (one, two) = (call(&org), call(&org));
    for call in [&one, &two] {
        let all = [
            opened(call),
            changed(call, ConversationStatus::InProgress),
            closed(call, ConversationStatus::Completed),
        ];
        store.write_entries(&all).await.unwrap();
    }
    assert_eq!(store.due_webhooks().await.unwrap(), [hook.id]);
    let first = claim(&store, hook.id).await;
    assert_eq!(first.iter().map(|one| one.event_type).collect::<Vec<_>>(), [EventKind::Ringing; 2]);
    assert!(claim(&store, hook.id).await.is_empty(), "both calls wait for their first");
    assert!(store.due_webhooks().await.unwrap().is_empty());
    let settled = [outcome(&first[0], None), outcome(&first[1], Some("answered with status 500"))];
    store.settle_deliveries(hook.id, &settled).await.unwrap();
    assert_eq!(take(&store, hook.id).await, [EventKind::Answered], "of the first call");
    assert_eq!(take(&store, hook.id).await, [EventKind::Ended]);
    assert!(claim(&store, hook.id).await.is_empty());
    pass(5_000_001);
    let again = claim(&store, hook.id).await;
    assert_eq!((again[0].event_id, again[0].attempt), (first[1].event_id, 2));
    store.settle_deliveries(hook.id, &[outcome(&again[0], None)]).await.unwrap();
    assert_eq!(take(&store, hook.id).await, [EventKind::Answered]);
    assert_eq!(take(&store, hook.id).await, [EventKind::Ended]);
    let all = deliveries(&store, &org, &hook).await;
    assert!(all.iter().all(|one| one.state == DeliveryState::Delivered && one.error.is_none()));
}

#[tokio::test]
async fn a_claim_whose_courier_died_comes_due_again() {
    let (options, pass) = still();
    let store = Scratch::with(options).await;
    let org = store.organisation().await;
    let hook = hook(&store, &org, json!({})).await;
    store.write_entries(&[opened(&call(&org))]).await.unwrap();
    let lost = claim(&store, hook.id).await;
    assert!(claim(&store, hook.id).await.is_empty());
    pass(120_000_000);
    let again = claim(&store, hook.id).await;
    assert_eq!((again[0].id, again[0].attempt), (lost[0].id, 2));
    store
        .again(StoreOptions { node: "other".to_owned(), ..super::options() })
        .await
        .release_claims()
        .await
        .unwrap();
    assert!(claim(&store, hook.id).await.is_empty(), "this node is alive");
    store.release_claims().await.unwrap();
    assert_eq!(claim(&store, hook.id).await[0].attempt, 3, "the node is back: at once");
}

#[tokio::test]
async fn a_receiver_that_keeps_failing_is_paused_probed_and_caught_up_with() {
    let (options, pass) = still();
    let store = Scratch::with(options).await;
    let org = store.organisation().await;
    let hook = hook(&store, &org, json!({})).await;
    for _ in 0..20 {
        store.write_entries(&[opened(&call(&org))]).await.unwrap();
    }
    assert_eq!(fail(&store, hook.id).await, 8);
    let seen = store.webhook(&org, hook.id).await.unwrap();
    assert_eq!((seen.consecutive_failures, seen.last_error.as_deref()), (8, Some("no")));
    assert!(seen.paused_until.is_some() && seen.last_delivered_at.is_none());
    assert!(store.due_webhooks().await.unwrap().is_empty());
    assert!(claim(&store, hook.id).await.is_empty());
    store.queue_webhook_test(&org, hook.id).await.unwrap();
    assert_eq!(store.due_webhooks().await.unwrap(), [hook.id], "a test goes in any case");
    assert_eq!(take(&store, hook.id).await, [EventKind::Test]);
    assert_eq!(store.webhook(&org, hook.id).await.unwrap().consecutive_failures, 0);

    assert_eq!(fail(&store, hook.id).await, 8, "all at once again");
    pass(900_000_000);
    assert_eq!(fail(&store, hook.id).await, 1, "one is probed");
    pass(900_000_000);
    assert_eq!(take(&store, hook.id).await.len(), 1);
    let mut taken = 1;
    while let all @ 1.. = take(&store, hook.id).await.len() {
        taken += all; // without any more waiting
    }
    assert_eq!(taken, 20);
}

#[tokio::test]
async fn what_cannot_be_delivered_in_a_day_is_dead_and_can_be_replayed() {
    let (options, pass) = still();
    let store = Scratch::with(options).await;
    let org = store.organisation().await;
    let hook = hook(&store, &org, json!({})).await;
    store.write_entries(&[opened(&call(&org))]).await.unwrap();
    let mut attempts = 0;
    while deliveries(&store, &org, &hook).await[0].state == DeliveryState::Pending {
        attempts += fail(&store, hook.id).await;
        pass(600_000_000);
        assert!(attempts < 200);
    }
    assert!(attempts > 20, "an hour apart at most: {attempts}");
    let dead = deliveries(&store, &org, &hook).await.remove(0);
    assert_eq!((dead.state, dead.error.as_deref()), (DeliveryState::Dead, Some("no")));
    assert_eq!((dead.status_code, dead.next_attempt_at), (Some(500), None));
    pass(HOUR_US);

    let replayed = store.replay_webhook_delivery(&org, hook.id, dead.id).await.unwrap();
    assert_eq!((replayed.state, replayed.attempts), (DeliveryState::Pending, 0));
    assert_eq!(replayed.event_id, dead.event_id);
    let twice = store.replay_webhook_delivery(&org, hook.id, dead.id).await;
    assert!(matches!(twice, Err(StoreError::Conflict(_))));
    assert_eq!(take(&store, hook.id).await, [EventKind::Ringing]);
    assert_eq!(store.replay_dead_deliveries(&org, hook.id).await, Ok(0));
}

#[tokio::test]
async fn what_waits_for_a_webhook_that_is_off_is_given_up_in_time() {
    let (options, pass) = still();
    let store = Scratch::with(options).await;
    let org = store.organisation().await;
    let hook = hook(&store, &org, json!({})).await;
    store.write_entries(&[opened(&call(&org)), opened(&call(&org))]).await.unwrap();
    let off = WebhookChange { enabled: Some(false), ..WebhookChange::default() };
    store.update_webhook(&org, hook.id, off, true).await.unwrap();
    assert!(
        store.due_webhooks().await.unwrap().is_empty() && claim(&store, hook.id).await.is_empty()
    );
    assert_eq!(store.give_up_overdue().await, Ok(0));
    pass(25 * HOUR_US);
    assert_eq!(store.give_up_overdue().await, Ok(2));
    let on = WebhookChange { enabled: Some(true), ..WebhookChange::default() };
    store.update_webhook(&org, hook.id, on, true).await.unwrap();
    assert_eq!(store.replay_dead_deliveries(&org, hook.id).await, Ok(2));
    assert_eq!(take(&store, hook.id).await.len(), 2);
}

#[tokio::test]
async fn a_failed_test_is_not_repeated() {
    let (options, pass) = still();
    let store = Scratch::with(options).await;
    let org = store.organisation().await;
    let hook = hook(&store, &org, json!({ "enabled": false })).await;
    let test = store.queue_webhook_test(&org, hook.id).await.unwrap();
    assert_eq!((test.event_type, test.state), (EventKind::Test, DeliveryState::Pending));
    assert_eq!(fail(&store, hook.id).await, 1);
    assert_eq!(deliveries(&store, &org, &hook).await[0].state, DeliveryState::Dead);
    pass(HOUR_US);
    assert!(claim(&store, hook.id).await.is_empty());
    assert_eq!(store.replay_dead_deliveries(&org, hook.id).await, Ok(0), "a test is no event");
}

#[tokio::test]
async fn rows_are_bounded_and_what_has_no_room_is_counted() {
    let bounds = StoreOptions { webhook_pending: 20, webhook_kept: 10, ..options() };
    let store = Scratch::with(bounds).await;
    let org = store.organisation().await;
    let hook = hook(&store, &org, json!({ "events": ["call.ringing"] })).await;
    let calls: Vec<_> = (0..22).map(|_| opened(&call(&org))).collect();
    store.write_entries(&calls[..15]).await.unwrap();
    store.write_entries(&calls[15..]).await.unwrap();
    assert_eq!(store.webhook(&org, hook.id).await.unwrap().dropped_events, 2);
    let mut taken = 0;
    while let all @ 1.. = take(&store, hook.id).await.len() {
        taken += all;
    }
    assert_eq!((taken, deliveries(&store, &org, &hook).await.len()), (20, 10));
    store.write_entries(&[opened(&call(&org))]).await.unwrap();
    assert_eq!(take(&store, hook.id).await.len(), 1, "there is room again");
}

#[tokio::test]
async fn both_secrets_sign_while_they_are_changed_over_and_neither_lies_open() {
    let (options, pass) = still();
    let store = Scratch::with(options).await;
    let org = store.organisation().await;
    let new: NewWebhook = serde_json::from_value(json!({ "url": "https://r.example" })).unwrap();
    let (hook, first) = store.create_webhook(&org, new, false).await.unwrap();
    assert!(first.expose().starts_with("whsec_") && first.expose().len() == 49);
    let signing = async || {
        store.queue_webhook_test(&org, hook.id).await.unwrap();
        let Claim { secrets, .. } = store.claim_deliveries(hook.id, 1).await.unwrap().unwrap();
        secrets
    };
    assert_eq!(signing().await, std::slice::from_ref(&first));
    let (seen, second) = store.rotate_webhook_secret(&org, hook.id, 60).await.unwrap();
    assert_eq!(seen.previous_secret_expires_at.unwrap().micros(), START_US + 60_000_000);
    assert_eq!(signing().await, [second.clone(), first.clone()]);
    assert_eq!(store.reseal().await, Ok(0));
    let bytes = store.bytes().await;
    for secret in [&first, &second] {
        let text = secret.expose().as_bytes();
        assert!(!bytes.windows(text.len()).any(|window| window == text));
    }
    pass(60_000_001);
    assert_eq!(signing().await, std::slice::from_ref(&second));
    assert_eq!(store.webhook(&org, hook.id).await.unwrap().previous_secret_expires_at, None);
    let (_, third) = store.rotate_webhook_secret(&org, hook.id, 0).await.unwrap();
    assert_eq!(signing().await, [third], "the old one is out at once");
}

#[tokio::test]
async fn who_may_not_see_what_is_sensitive_may_not_send_it_anywhere() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    let new =
        || serde_json::from_value(json!({ "url": "https://r.example", "include_sensitive": true }));
    let made = store.create_webhook(&org, new().unwrap(), false).await;
    assert!(matches!(made, Err(StoreError::Forbidden(_))));
    let hook = store.create_webhook(&org, new().unwrap(), true).await.unwrap().0;
    let change = |body| serde_json::from_value::<WebhookChange>(body).unwrap();
    let steal = change(json!({ "url": "https://thief.example" }));
    let stolen = store.update_webhook(&org, hook.id, steal, false).await;
    assert!(matches!(stolen, Err(StoreError::Forbidden(_))));
    let tame = change(json!({ "url": "https://r2.example", "include_sensitive": false }));
    assert!(store.update_webhook(&org, hook.id, tame, false).await.is_ok());
    let widen = change(json!({ "include_sensitive": true }));
    assert!(store.update_webhook(&org, hook.id, widen, false).await.is_err());
}

#[tokio::test]
async fn an_organisation_has_no_more_webhooks_than_it_may() {
    let store = Scratch::with(StoreOptions { max_webhooks: 2, ..options() }).await;
    let (org, other) = (store.organisation().await, store.organisation().await);
    let first = hook(&store, &org, json!({})).await;
    hook(&store, &org, json!({})).await;
    hook(&store, &other, json!({})).await;
    let new = serde_json::from_value(json!({ "url": "https://r.example" })).unwrap();
    let third = store.create_webhook(&org, new, true).await;
    assert!(matches!(third, Err(StoreError::Refused(_))));
    assert_eq!(store.delete_webhook(&other, first.id).await, Err(not_found("Webhook")));
    store.write_entries(&[opened(&call(&org))]).await.unwrap();
    store.delete_webhook(&org, first.id).await.unwrap();
    assert_eq!(store.webhooks(&org, Page::default()).await.unwrap().len(), 1);
    hook(&store, &org, json!({})).await;
}
