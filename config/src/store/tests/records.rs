//! What calls leave behind: conversations and decisions.

use std::borrow::Cow;

use super::*;
use crate::ids::{AgentVersionId, DecisionId};
use crate::journal::Entry;
use crate::model::{
    Answering, Considered, Conversation, ConversationChange, ConversationClose, ConversationFilter,
    ConversationStatus, Decision, DecisionFilter, Direction, DisplayedNumber, EndReason, Page,
    Transfer, TransferMode, TransferStatus,
};
use crate::store::Opened;

fn at(offset_us: i64) -> Timestamp {
    Timestamp::from_micros(START_US + offset_us)
}

fn call(org: &Org, user: &str, offset_us: i64) -> Conversation {
    Conversation {
        user_id: user.to_owned(),
        ..Conversation::begun(org.organisation(), Direction::Inbound, at(offset_us))
    }
}

fn close(of: &Conversation, status: ConversationStatus, code: &'static str) -> ConversationClose {
    ConversationClose {
        id: of.id,
        status,
        end_reason: EndReason::new(code, "caller"),
        duration_s: Some(7),
        transfer: None,
        quality: Some(json!({"mos": 4.2})),
        closed_at: at(9_000_000),
        post: None,
    }
}

fn decision(of: Option<OrganisationId>, rule: &'static str) -> Decision {
    Decision {
        id: DecisionId::random(),
        at: at(0),
        organization_id: of,
        source_ip: "192.0.2.1".to_owned(),
        source_port: 5060,
        transport: Cow::Borrowed("udp"),
        request_uri: "sip:1@h".to_owned(),
        from: "sip:2@h".to_owned(),
        called_raw: "1".to_owned(),
        called_number: None,
        trunks_considered: Vec::new(),
        rule: Cow::Borrowed(rule),
        explanation: "No.".to_owned(),
        sip_status: Some(403),
        sip_call_id: "x".to_owned(),
        conversation_id: None,
        routing: None,
    }
}

#[tokio::test]
async fn a_conversation_moves_forward_and_ends_once() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    let opened = store.open_conversation(&org, call(&org, "+1555", 0)).await.unwrap().conversation;
    assert_eq!(opened.status, ConversationStatus::Ringing);
    let mut change = ConversationChange {
        answered_at: Some(at(5)),
        ..ConversationChange::to(opened.id, ConversationStatus::InProgress, at(5))
    };
    let answered = store.change_conversation(&org, &change).await.unwrap();
    assert_eq!((answered.status, answered.answered_at), (change.status, Some(at(5))));
    change.status = ConversationStatus::Ringing;
    let back = store.change_conversation(&org, &change).await.unwrap();
    assert_eq!(back.status, ConversationStatus::InProgress);
    let first = close(&opened, ConversationStatus::Completed, "caller_hangup");
    let ended = store.close_conversation(&org, &first).await.unwrap();
    assert_eq!((ended.status, ended.duration), (ConversationStatus::Completed, Some(7)));
    let second = close(&opened, ConversationStatus::Failed, "agent_lost");
    assert_eq!(store.close_conversation(&org, &second).await.unwrap(), ended);
    assert_eq!(store.change_conversation(&org, &change).await.unwrap(), ended);
}

#[tokio::test]
async fn opening_twice_is_opening_once() {
    let store = Scratch::new().await;
    let (org, other) = (store.organisation().await, store.organisation().await);
    let conversation = call(&org, "+1555", 0);
    let first = store.open_conversation(&org, conversation.clone()).await.unwrap();
    assert!(first.is_new);
    let first = Opened { is_new: false, ..first };
    let again = Conversation { user_id: "other".to_owned(), ..conversation.clone() };
    assert_eq!(store.open_conversation(&org, again).await.unwrap(), first);
    let foreign = store.open_conversation(&other, conversation).await;
    assert!(matches!(foreign, Err(StoreError::Conflict(_))));
    assert_eq!(
        store.conversation(&other, first.conversation.id).await,
        Err(not_found("Conversation"))
    );
}

#[tokio::test]
async fn every_filter_of_the_contract_narrows() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    let agent = store.make_agent(&org, "a").await.id;
    let wanted = Conversation {
        agent_id: Some(agent),
        agent_version_id: Some(AgentVersionId::random()),
        agent_number: Some("+4930123".to_owned()),
        trunk_id: Some(TrunkId::random()),
        duration: Some(30),
        user_turn_count: Some(4),
        custom_metadata: Some(json!({"plan": "gold", "n": 1, "deep": {"x": [1, 2]}})),
        ..call(&org, "Alice@Example", 1)
    };
    let plain = Conversation { direction: Direction::Outbound, ..call(&org, "+1555", 2) };
    for row in [&wanted, &plain] {
        store.open_conversation(&org, row.clone()).await.unwrap();
    }
    type Set = fn(&mut ConversationFilter, &Conversation);
    let filters: [Set; 14] = [
        |filter, _| filter.direction = Some(Direction::Inbound),
        |filter, _| filter.user_id = Some("alice@ex".to_owned()),
        |filter, row| filter.agent_id = row.agent_id,
        |filter, row| filter.agent_version_id = row.agent_version_id,
        |filter, _| filter.agent_number = Some("30123".to_owned()),
        |filter, row| filter.trunk_id = row.trunk_id,
        |filter, _| filter.duration_above = Some(30),
        |filter, _| filter.duration_below = Some(30),
        |filter, _| filter.user_turn_count_above = Some(4),
        |filter, _| filter.user_turn_count_below = Some(4),
        |filter, _| filter.custom_metadata = json!({"plan": "gold"}).as_object().cloned(),
        |filter, _| filter.custom_metadata = json!({"deep": {"x": [2]}}).as_object().cloned(),
        |filter, row| filter.period.created_before = Some(row.created_at),
        |filter, row| filter.period.updated_before = Some(row.created_at),
    ];
    for (number, set) in filters.into_iter().enumerate() {
        let mut filter = ConversationFilter::default();
        set(&mut filter, &wanted);
        let found = store.conversations(&org, &filter, Page::default()).await.unwrap();
        let ids: Vec<_> = found.iter().map(|row| row.id).collect();
        assert_eq!(ids, [wanted.id], "filter {number}");
        assert_eq!(found[0].agent.as_ref().unwrap().name, "a");
    }
    for none in [
        ConversationFilter { web_widget_id: Some("w".to_owned()), ..Default::default() },
        ConversationFilter { status: Some(ConversationStatus::Failed), ..Default::default() },
        ConversationFilter {
            custom_metadata: json!({"plan": "silver"}).as_object().cloned(),
            ..Default::default()
        },
    ] {
        assert!(store.conversations(&org, &none, Page::default()).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn an_agents_conversations_add_up_and_outlive_it() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    let agent = store.make_agent(&org, "a").await.id;
    let row = Conversation { agent_id: Some(agent), ..call(&org, "+1555", 0) };
    store.open_conversation(&org, row.clone()).await.unwrap();
    let end = close(&row, ConversationStatus::Completed, "caller_hangup");
    store.close_conversation(&org, &end).await.unwrap();
    let stats = store.agent_detail(&org, agent).await.unwrap().conversation_stats;
    assert_eq!((stats.total, stats.inbound, stats.completed), (1, 1, 1));
    assert_eq!(stats.total_duration_seconds, 7);
    store.delete_agent(&org, agent).await.unwrap();
    let kept = store.conversation(&org, row.id).await.unwrap();
    assert_eq!((kept.agent_id, kept.agent), (Some(agent), None));
}

fn transfer(status: TransferStatus) -> Transfer {
    Transfer {
        status,
        transfer_number: "+15550199".parse().unwrap(),
        displayed_number: DisplayedNumber::AgentNumber,
        mode: TransferMode::Bridge,
        sip_code: None,
        at: at(9),
    }
}

#[tokio::test]
async fn what_is_learnt_on_the_way_stays_and_a_status_does_not_go_back() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    let id = store.open_conversation(&org, call(&org, "+1555", 0)).await.unwrap().conversation.id;
    let to = |status| ConversationChange::to(id, status, at(1));
    let change = async |change| store.change_conversation(&org, &change).await.unwrap();
    let dialled = ConversationChange {
        trunk_call_id: Some("abc".to_owned()),
        ..to(ConversationStatus::Triggered)
    };
    let row = change(dialled).await;
    assert_eq!(row.trunk_call_id.as_deref(), Some("abc"));
    change(to(ConversationStatus::InProgress)).await;
    let pending = ConversationChange {
        transfer: Some(transfer(TransferStatus::Pending)),
        ..to(ConversationStatus::Ringing)
    };
    let row = change(pending).await;
    assert_eq!(row.status, ConversationStatus::InProgress);
    assert_eq!(row.trunk_call_id.as_deref(), Some("abc"));
    assert_eq!(row.transfer, Some(transfer(TransferStatus::Pending)));
    let end = ConversationClose {
        transfer: Some(transfer(TransferStatus::Completed)),
        ..close(&row, ConversationStatus::Transferred, "transferred")
    };
    store.close_conversation(&org, &end).await.unwrap();
    let late = ConversationChange {
        transfer: Some(transfer(TransferStatus::Failed)),
        ..to(ConversationStatus::InProgress)
    };
    let row = change(late).await;
    assert_eq!(row.status, ConversationStatus::Transferred);
    assert_eq!(row.transfer, Some(transfer(TransferStatus::Completed)));
}

#[tokio::test]
async fn who_answers_and_what_they_are_told_is_added_when_it_is_known() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    let agent = store.make_agent(&org, "chosen").await.id;
    let begun = call(&org, "+1555", 0);
    let id = store.open_conversation(&org, begun).await.unwrap().conversation.id;
    let version = AgentVersionId::random();
    let told = ConversationChange {
        answering: Some(Answering { agent, version }),
        initial_context: Some("VIP".to_owned()),
        custom_metadata: Some(json!({"a": 1})),
        ..ConversationChange::to(id, ConversationStatus::Ringing, at(1))
    };
    store.change_conversation(&org, &told).await.unwrap();
    let later = ConversationChange::to(id, ConversationStatus::InProgress, at(2));
    let row = store.change_conversation(&org, &later).await.unwrap();
    assert_eq!((row.agent_id, row.agent_version_id), (Some(agent), Some(version)));
    assert_eq!(row.agent.map(|agent| agent.name).as_deref(), Some("chosen"));
    assert_eq!(row.initial_context.as_deref(), Some("VIP"));
    assert_eq!(row.custom_metadata, Some(json!({"a": 1})));
    assert_eq!(row.status, ConversationStatus::InProgress);
}

#[tokio::test]
async fn a_transfer_that_nobody_finished_has_failed() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    let row = Conversation {
        transfer: Some(transfer(TransferStatus::Pending)),
        ..call(&org, "+1555", 0)
    };
    store.open_conversation(&org, row.clone()).await.unwrap();
    let end = close(&row, ConversationStatus::Completed, "caller_hangup");
    let row = store.close_conversation(&org, &end).await.unwrap();
    assert_eq!(row.transfer, Some(transfer(TransferStatus::Failed)));
}

#[tokio::test]
async fn an_ending_keeps_the_carriers_own_words() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    let row = call(&org, "+1555", 0);
    store.open_conversation(&org, row.clone()).await.unwrap();
    let mut end = close(&row, ConversationStatus::Failed, "carrier_refused");
    end.end_reason.sip_code = Some(484);
    end.end_reason.sip_reason = Some("Address Incomplete".to_owned());
    end.end_reason.text = Some("Die Nummer ist zu kurz \"\u{1}".to_owned());
    let row = store.close_conversation(&org, &end).await.unwrap();
    assert_eq!(row.end_reason, Some(end.end_reason));
    let before = r#"{"code":"agent_lost","party":"agent","sip_code":null}"#;
    let before: EndReason = serde_json::from_str(before).unwrap();
    assert_eq!((before.sip_reason, before.text), (None, None));
}

#[tokio::test]
async fn what_a_crash_left_open_is_closed_once_and_only_on_its_node() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    let (mut open, ended) = (call(&org, "open", 0), call(&org, "ended", 0));
    open.transfer = Some(transfer(TransferStatus::Pending));
    for row in [&open, &ended] {
        store.open_conversation(&org, row.clone()).await.unwrap();
    }
    let end = close(&ended, ConversationStatus::Completed, "caller_hangup");
    store.close_conversation(&org, &end).await.unwrap();
    let elsewhere = store.again(StoreOptions { node: "b".to_owned(), ..options() }).await;
    assert_eq!(elsewhere.close_left_open().await, Ok(0));
    let again = store.again(options()).await;
    let fresh = call(&org, "fresh", 0);
    again.open_conversation(&org, fresh.clone()).await.unwrap();
    assert_eq!(again.close_left_open().await, Ok(1));
    assert_eq!(again.close_left_open().await, Ok(0));
    let failed = store.conversation(&org, open.id).await.unwrap();
    assert_eq!(failed.status, ConversationStatus::Failed);
    assert_eq!(failed.end_reason, Some(EndReason::gateway_crash()));
    assert_eq!(failed.transfer, Some(transfer(TransferStatus::Failed)));
    let kept = store.conversation(&org, ended.id).await.unwrap();
    assert_eq!(kept.status, ConversationStatus::Completed);
    let kept = store.conversation(&org, fresh.id).await.unwrap();
    assert_eq!(kept.status, ConversationStatus::Ringing, "it began after the start");
}

#[tokio::test]
async fn decisions_are_kept_apart_and_only_the_newest() {
    let store = Scratch::with(StoreOptions { decisions_kept: 3, ..options() }).await;
    let (org, other) = (store.organisation().await, store.organisation().await);
    let mine = decision(Some(org.organisation()), "mine");
    store.write_entries(&[Entry::Decision(Box::new(mine))]).await.unwrap();
    let rules = ["s0", "s1", "s2", "s3", "s4"];
    let strangers = rules.map(|rule| Entry::Decision(Box::new(decision(None, rule))));
    store.write_entries(&strangers).await.unwrap();
    let (all, page) = (DecisionFilter::default(), Page::default());
    let rules = |list: Vec<Decision>| {
        list.into_iter().map(|decision| decision.rule.into_owned()).collect::<Vec<_>>()
    };
    assert_eq!(rules(store.decisions(&org, &all, page).await.unwrap()), ["mine"]);
    assert!(store.decisions(&other, &all, page).await.unwrap().is_empty());
    let by = Operator::by_process();
    let unplaced = store.unattributed_decisions(&by, &all, page).await.unwrap();
    assert_eq!(rules(unplaced), ["s4", "s3", "s2"]);
    let filter = DecisionFilter { rule: Some("s3".to_owned()), ..DecisionFilter::default() };
    let unplaced = store.unattributed_decisions(&by, &filter, page).await.unwrap();
    assert_eq!(rules(unplaced), ["s3"]);
}

#[tokio::test]
async fn a_customer_is_not_shown_the_trunks_of_another() {
    let store = Scratch::new().await;
    let (org, other) = (store.organisation().await, store.organisation().await);
    let mut refused = decision(Some(org.organisation()), "source_address");
    refused.trunks_considered = [&org, &other]
        .map(|org| Considered {
            trunk_id: TrunkId::random(),
            organization_id: org.organisation(),
            name: "t".to_owned(),
            rule: Cow::Borrowed("source_address"),
            verdict: "not allowed".to_owned(),
        })
        .to_vec();
    store.write_entries(&[Entry::Decision(Box::new(refused))]).await.unwrap();
    let read = store.decisions(&org, &DecisionFilter::default(), Page::default()).await.unwrap();
    let owners: Vec<_> =
        read[0].trunks_considered.iter().map(|trunk| trunk.organization_id).collect();
    assert_eq!(owners, [org.organisation()]);
}
