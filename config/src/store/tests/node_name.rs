//! No two nodes of a database have one name.

use sqlx::AssertSqlSafe;

use super::*;
use crate::store::node_name::Held;
use crate::store::{NodeName, Unavailable};

/// Tries until it works: a server notices a moment later that somebody is gone.
async fn hold_soon(store: &Store) -> NodeName {
    loop {
        match store.hold_node_name().await {
            Err(StoreError::Unavailable(Unavailable::NoAnswer)) => tokio::task::yield_now().await,
            held => return held.unwrap(),
        }
    }
}

#[tokio::test]
async fn a_name_is_held_by_one_node_until_it_ends() {
    let scratch = Scratch::new().await;
    let held = scratch.hold_node_name().await.unwrap();
    let second = scratch.again(options()).await;
    second.check().await.unwrap(); // who does not take calls may look on
    let why = "node.name: another node of this database runs under the name \"trunkline\"; \
               each needs one of its own";
    assert_eq!(second.hold_node_name().await.unwrap_err(), StoreError::Conflict(why.to_owned()));
    let other = StoreOptions { node: "other".to_owned(), ..options() };
    let _other = scratch.again(other).await.hold_node_name().await.unwrap();
    drop(held); // as when its process is killed
    let _held = hold_soon(&second).await;
}

#[tokio::test]
async fn a_name_is_taken_again_after_an_outage() {
    let scratch = Scratch::new().await;
    let mut held = scratch.hold_node_name().await.unwrap();
    assert!(held.look(&scratch.store).await);
    let Held::Session(session) = &mut held.0 else { return }; // the lock of a file is not lost
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(session).await.unwrap();
    let mut server = PgConnection::connect(&scratch.url).await.unwrap();
    let kill = AssertSqlSafe(format!("SELECT pg_terminate_backend({pid}, 5000)"));
    sqlx::raw_sql(kill).execute(&mut server).await.unwrap();
    assert!(held.look(&scratch.store).await);
    let second = scratch.again(options()).await;
    assert!(matches!(second.hold_node_name().await, Err(StoreError::Conflict(_))));
}

#[tokio::test]
async fn a_database_in_memory_is_nobody_elses() {
    let store = Store::open("sqlite::memory:", options()).await.unwrap();
    let _held = store.hold_node_name().await.unwrap();
    store.hold_node_name().await.unwrap();
}
