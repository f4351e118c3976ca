//! A newer node changes the tables while this one runs.

use std::collections::HashSet;

use super::*;
use crate::ids::ConversationId;
use crate::journal::{Entry, Journal};
use crate::model::{
    Conversation, ConversationFilter, Direction, ExecutionFilter, NewWorkflow, Page, WorkflowFilter,
};
use crate::store::sql;
use crate::store::{Executed, Unavailable};

fn definition() -> Value {
    json!({"steps": [{"id": "trigger", "type": "input", "next": "out"},
        {"id": "out", "type": "output", "fields": {}}]})
}

fn begun(org: &Org) -> Conversation {
    let at = Timestamp::from_micros(START_US);
    Conversation::begun(org.organisation(), Direction::Inbound, at)
}

/// Journals a call, makes a run and a trunk, and reads lists of all; what there is of each then.
async fn use_all(store: &Store, org: &Org) -> [usize; 4] {
    let (journal, writer) = Journal::new(100);
    journal.record(Entry::ConversationOpened(Box::new(begun(org))));
    journal.finish();
    writer.run(store.clone()).await;
    assert_eq!((journal.stats().written, journal.stats().unwritable), (1, 0));
    let new = NewWorkflow { name: "w".to_owned(), description: None, definition: definition() };
    let workflow = store.create_workflow(org, new).await.unwrap().id;
    let what = Executed { workflow, version: 1, input: json!({}) };
    let run = store.enqueue_execution(org, what).await.unwrap();
    store.execution(org, run.execution_id).await.unwrap();
    let page = Page::first(Page::MAX);
    // At once, so that every connection is used.
    let calls = ConversationFilter::default();
    let lists = (0..8).map(|_| store.conversations(org, &calls, page));
    for list in futures_util::future::join_all(lists).await {
        list.unwrap();
    }
    let calls = store.conversations(org, &calls, page).await.unwrap();
    let ids: HashSet<ConversationId> = calls.iter().map(|call| call.id).collect();
    let runs = store.executions(org, &ExecutionFilter::default(), page).await.unwrap();
    let workflows = store.workflows(org, &WorkflowFilter::default(), page).await.unwrap();
    let organisations = store.organisations(&Operator::by_process(), page).await.unwrap();
    store.follow().await.unwrap();
    store.load_routes().await.unwrap();
    [ids.len(), runs.len(), workflows.len(), organisations.len()]
}

#[tokio::test]
async fn columns_that_a_newer_node_adds_do_not_disturb_one_that_runs() {
    let store = Scratch::new().await;
    let org = store.organisation().await;
    assert_eq!(use_all(&store, &org).await, [1, 1, 1, 1]);
    assert_eq!(use_all(&store, &org).await, [2, 2, 2, 1]);
    for table in [
        "ALTER TABLE conversations ADD COLUMN zz TEXT",
        "ALTER TABLE organisations ADD COLUMN zz TEXT",
        "ALTER TABLE workflow_executions ADD COLUMN zz TEXT",
        "ALTER TABLE workflows ADD COLUMN zz TEXT",
        "ALTER TABLE jobs ADD COLUMN zz TEXT",
    ] {
        store.run(table).await;
    }
    assert_eq!(use_all(&store, &org).await, [3, 3, 3, 1]);
}

#[tokio::test]
async fn a_statement_that_returns_something_else_by_now_works_when_it_is_tried_again() {
    let store = Scratch::new().await;
    if !store.is_postgres() {
        return; // SQLite keeps nothing that could be outdated
    }
    store.organisation().await;
    let names = async || {
        let mut tx = store.0.db.write().await?;
        sql::query("SELECT name FROM organisations").fetch_scalars::<String>(&mut tx).await
    };
    assert_eq!(names().await.unwrap(), ["org"]);
    store.run("ALTER TABLE organisations ALTER COLUMN name TYPE VARCHAR(200)").await;
    // Each connection hears it once.
    let mut busy = 0;
    for _ in 0..8 {
        match names().await {
            Err(error) => {
                assert_eq!(error, StoreError::Unavailable(Unavailable::Busy));
                busy += 1;
            }
            Ok(names) => assert_eq!(names, ["org"]),
        }
    }
    assert!((1..=2).contains(&busy), "{busy}");
}
