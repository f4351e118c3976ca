//! Jobs: leases, attempts, fairness, restarts.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::{Org, START_US, Scratch, not_found, options};
use crate::clock::{Clock, Timestamp};
use crate::ids::JobId;
use crate::jobs::{Desk, Job, JobError, JobStatus, NewJob, Runner, Turn, Work, Working};
use crate::limits::{JOBS_AT_ONCE, JOBS_OF_ORGANIZATION, Limit};
use crate::store::jobs::{FORGET, UNFINISHED, push_due};
use crate::store::rows::raw;
use crate::store::sql::QueryBuilder;
use crate::store::{JobEnd, Store, StoreError, StoreOptions};

const KINDS: &[&str] = &["write"];

/// How long something is waited for that should happen at once.
const PATIENCE: Duration = Duration::from_secs(20);

/// A clock that moves only when it is told to; rows still get stamps of their own.
fn hands() -> (Arc<AtomicI64>, StoreOptions) {
    let now = Arc::new(AtomicI64::new(START_US));
    let read = Arc::clone(&now);
    let clock = Clock::from_fn(move || Timestamp::from_micros(read.load(Ordering::Relaxed)));
    (now, StoreOptions { clock, ..options() })
}

fn pass(clock: &AtomicI64, seconds: i64) {
    clock.fetch_add(seconds * 1_000_000, Ordering::Relaxed);
}

fn job(subject: &str) -> NewJob {
    let subject = (!subject.is_empty()).then(|| subject.to_owned());
    NewJob { kind: "write", subject, payload: json!({ "n": 1 }) }
}

async fn add(store: &Store, org: &Org) -> JobId {
    store.enqueue_job(org, job("")).await.unwrap().id
}

#[tokio::test]
async fn a_job_is_taken_once_done_and_read() {
    let scratch = Scratch::new().await;
    let org = scratch.organisation().await;
    let made = scratch.enqueue_job(&org, job("s")).await.unwrap();
    assert_eq!((made.status, &made.progress), (JobStatus::Waiting, &json!({})));
    assert!(scratch.claim_job(&["other"]).await.unwrap().is_none());
    let (taken, lease) = scratch.claim_job(KINDS).await.unwrap().unwrap();
    assert_eq!((taken.id, taken.attempts, &taken.payload), (made.id, 1, &json!({ "n": 1 })));
    assert!(scratch.claim_job(KINDS).await.unwrap().is_none());
    assert!(scratch.save_job(&lease, &json!({ "step": 2 })).await.unwrap());
    assert!(scratch.end_job(&lease, JobEnd::Done(json!("text"))).await.unwrap());
    let read = scratch.job(&org, "write", made.id).await.unwrap();
    assert_eq!((read.status, read.result), (JobStatus::Done, Some(json!("text"))));
    assert_eq!(read.progress, json!({ "step": 2 }));
    assert!(!scratch.end_job(&lease, JobEnd::Done(Value::Null)).await.unwrap());
}

#[tokio::test]
async fn a_job_belongs_to_its_organisation_and_its_kind() {
    let scratch = Scratch::new().await;
    let (org, other) = (scratch.organisation().await, scratch.organisation().await);
    let id = add(&scratch, &org).await;
    assert_eq!(scratch.job(&other, "write", id).await, Err(not_found("Job")));
    assert_eq!(scratch.job(&org, "read", id).await, Err(not_found("Job")));
}

#[tokio::test]
async fn of_one_subject_one_job_is_unfinished() {
    let scratch = Scratch::new().await;
    let org = scratch.organisation().await;
    scratch.enqueue_job(&org, job("s")).await.unwrap();
    let again = scratch.enqueue_job(&org, job("s")).await;
    assert!(matches!(again, Err(StoreError::Conflict(_))));
    scratch.enqueue_job(&org, job("t")).await.unwrap();
    let (_, lease) = scratch.claim_job(KINDS).await.unwrap().unwrap();
    scratch.end_job(&lease, JobEnd::Failed("no".to_owned())).await.unwrap();
    scratch.enqueue_job(&org, job("s")).await.unwrap();
}

#[tokio::test]
async fn a_lease_that_lapsed_is_anothers() {
    let (clock, options) = hands();
    let scratch = Scratch::with(options).await;
    let org = scratch.organisation().await;
    let id = add(&scratch, &org).await;
    let (_, first) = scratch.claim_job(KINDS).await.unwrap().unwrap();
    pass(&clock, 29);
    assert!(scratch.renew_job(&first).await.unwrap());
    pass(&clock, 29);
    assert!(scratch.claim_job(KINDS).await.unwrap().is_none());
    pass(&clock, 2);
    let (taken, second) = scratch.claim_job(KINDS).await.unwrap().unwrap();
    assert_eq!((taken.id, taken.attempts), (id, 2));
    assert!(!scratch.renew_job(&first).await.unwrap());
    assert!(!scratch.save_job(&first, &json!({ "late": true })).await.unwrap());
    assert!(!scratch.end_job(&first, JobEnd::Done(Value::Null)).await.unwrap());
    assert!(scratch.end_job(&second, JobEnd::Done(json!(2))).await.unwrap());
    assert_eq!(scratch.job(&org, "write", id).await.unwrap().result, Some(json!(2)));
}

#[tokio::test]
async fn a_job_comes_back_when_it_is_time() {
    let (clock, options) = hands();
    let scratch = Scratch::with(options).await;
    let org = scratch.organisation().await;
    let id = add(&scratch, &org).await;
    let (_, lease) = scratch.claim_job(KINDS).await.unwrap().unwrap();
    let again = JobEnd::Again { after_seconds: 4, why: "busy".to_owned() };
    scratch.end_job(&lease, again).await.unwrap();
    pass(&clock, 3);
    assert!(scratch.claim_job(KINDS).await.unwrap().is_none());
    pass(&clock, 1);
    let (taken, lease) = scratch.claim_job(KINDS).await.unwrap().unwrap();
    assert_eq!((taken.attempts, taken.error.as_deref()), (2, Some("busy")));
    let later = Timestamp::from_micros(clock.load(Ordering::Relaxed) + 60_000_000);
    scratch.end_job(&lease, JobEnd::Later(later)).await.unwrap();
    pass(&clock, 59);
    assert!(scratch.claim_job(KINDS).await.unwrap().is_none());
    pass(&clock, 1);
    let (taken, _) = scratch.claim_job(KINDS).await.unwrap().unwrap();
    assert_eq!((taken.id, taken.attempts, taken.error), (id, 1, None));
}

#[tokio::test]
async fn no_organisation_holds_all_workers() {
    let scratch = Scratch::new().await;
    let (loud, quiet) = (scratch.organisation().await, scratch.organisation().await);
    for _ in 0..5 {
        add(&scratch, &loud).await;
    }
    let last = add(&scratch, &quiet).await;
    let mut taken = Vec::new();
    while let Some((job, _)) = scratch.claim_job(KINDS).await.unwrap() {
        taken.push(job);
    }
    let of_loud = taken.iter().filter(|job| job.organisation == loud.organisation()).count();
    assert_eq!((taken.len(), of_loud), (3, 2));
    assert_eq!(taken.last().map(|job| job.id), Some(last));
}

#[tokio::test]
async fn a_restart_takes_its_own_jobs_up_again_at_once() {
    let scratch = Scratch::new().await;
    let org = scratch.organisation().await;
    let id = add(&scratch, &org).await;
    let (_, lease) = scratch.claim_job(KINDS).await.unwrap().unwrap();
    scratch.save_job(&lease, &json!({ "step": 1 })).await.unwrap();
    let other = StoreOptions { node: "other".to_owned(), ..options() };
    let other = scratch.again(other).await;
    other.release_jobs().await.unwrap();
    assert!(other.claim_job(KINDS).await.unwrap().is_none());
    let again = scratch.again(options()).await;
    again.release_jobs().await.unwrap();
    let (taken, _) = again.claim_job(KINDS).await.unwrap().unwrap();
    assert_eq!((taken.id, taken.attempts, taken.progress), (id, 2, json!({ "step": 1 })));
    assert!(!scratch.renew_job(&lease).await.unwrap());
}

#[tokio::test]
async fn jobs_that_are_long_over_are_forgotten() {
    let (clock, options) = hands();
    let scratch = Scratch::with(options).await;
    let org = scratch.organisation().await;
    let (old, waiting) = (add(&scratch, &org).await, add(&scratch, &org).await);
    let (_, lease) = scratch.claim_job(KINDS).await.unwrap().unwrap();
    scratch.end_job(&lease, JobEnd::Done(json!("text"))).await.unwrap();
    pass(&clock, 10);
    scratch.forget_jobs(11).await.unwrap();
    assert!(scratch.job(&org, "write", old).await.is_ok());
    pass(&clock, 2);
    scratch.forget_jobs(11).await.unwrap();
    assert_eq!(scratch.job(&org, "write", old).await, Err(not_found("Job")));
    assert!(scratch.job(&org, "write", waiting).await.is_ok());
}

#[tokio::test]
async fn a_job_that_is_done_without_a_result_leaves_no_row() {
    let scratch = Scratch::new().await;
    let org = scratch.organisation().await;
    let (silent, failed) = (add(&scratch, &org).await, add(&scratch, &org).await);
    let (_, lease) = scratch.claim_job(KINDS).await.unwrap().unwrap();
    assert!(scratch.end_job(&lease, JobEnd::Done(Value::Null)).await.unwrap());
    assert_eq!(scratch.job(&org, "write", silent).await, Err(not_found("Job")));
    assert!(!scratch.end_job(&lease, JobEnd::Done(Value::Null)).await.unwrap());
    let (_, lease) = scratch.claim_job(KINDS).await.unwrap().unwrap();
    assert!(scratch.end_job(&lease, JobEnd::Failed("no".to_owned())).await.unwrap());
    assert!(scratch.job(&org, "write", failed).await.is_ok());
}

/// How SQLite would go about what this adds to a query.
async fn plan(scratch: &Scratch, add: impl FnOnce(&mut QueryBuilder)) -> String {
    let mut query = QueryBuilder::new("EXPLAIN QUERY PLAN ");
    add(&mut query);
    let mut tx = scratch.store.0.db.read().await.unwrap();
    let rows = query.build().fetch_all(&mut tx).await.unwrap();
    let steps: Vec<String> = rows.iter().map(|row| raw(row, "detail").unwrap()).collect();
    steps.join("\n")
}

#[tokio::test]
async fn looking_for_jobs_passes_those_that_are_over_and_reads_no_large_row() {
    let scratch = Scratch::new().await;
    if scratch.is_postgres() {
        return; // it plans by what is in the tables, which is nothing here
    }
    let now = Timestamp::from_micros(START_US);
    let due = plan(&scratch, |query| push_due(query, &["read", "write"], now)).await;
    assert!(due.contains("SEARCH t USING COVERING INDEX jobs_due"), "{due}");
    assert!(due.contains("r USING COVERING INDEX jobs_running"), "{due}");
    assert!(!due.contains("TEMP B-TREE"), "all are sorted to find the first: {due}");
    let unfinished = plan(&scratch, |query| _ = query.push(UNFINISHED)).await;
    assert!(unfinished.contains("COVERING INDEX jobs_unfinished"), "{unfinished}");
    let forget = plan(&scratch, |query| _ = query.push(FORGET)).await;
    assert!(forget.contains("INDEX jobs_over"), "{forget}");
}

#[tokio::test]
async fn an_organisation_that_has_enough_of_one_kind_going_on_gets_another() {
    let scratch = Scratch::new().await;
    let org = scratch.organisation().await;
    for _ in 0..3 {
        add(&scratch, &org).await;
    }
    scratch.enqueue_job(&org, NewJob { kind: "read", ..job("") }).await.unwrap();
    for _ in 0..2 {
        assert!(scratch.claim_job(KINDS).await.unwrap().is_some());
    }
    assert!(scratch.claim_job(KINDS).await.unwrap().is_none());
    assert!(scratch.claim_job(&["read"]).await.unwrap().is_some());
}

/// Tells of which kind a job is that was begun, and is done with it at once or never.
struct Told {
    begun: mpsc::Sender<String>,
    ends: bool,
}

impl Work for Told {
    fn run<'a>(&'a self, job: &'a Job, _: &'a Desk) -> Working<'a, Result<Turn, JobError>> {
        Box::pin(async move {
            self.begun.send(job.kind.clone()).await.unwrap();
            if !self.ends {
                std::future::pending::<()>().await;
            }
            Ok(Turn::Done(Value::Null))
        })
    }

    fn give_up<'a>(&'a self, _: &'a Job) -> Working<'a, Result<(), StoreError>> {
        Box::pin(async { Ok(()) })
    }
}

#[tokio::test]
async fn jobs_that_never_end_hold_up_no_kind_that_has_places_of_its_own() {
    let scratch = Scratch::new().await;
    for _ in 0..=JOBS_AT_ONCE.value / JOBS_OF_ORGANIZATION.value {
        let org = scratch.organisation().await;
        for _ in 0..JOBS_OF_ORGANIZATION.value {
            add(&scratch, &org).await;
        }
    }
    let org = scratch.organisation().await;
    let quick = || scratch.enqueue_job(&org, NewJob { kind: "read", ..job("") });
    quick().await.unwrap();
    let (begun, mut news) = mpsc::channel(64);
    let never = Arc::new(Told { begun: begun.clone(), ends: false });
    let at_once = Arc::new(Told { begun, ends: true });
    let runner = Runner::new(scratch.store.clone()).with("write", never).with_places(
        "read",
        at_once,
        Limit { value: 1, ..JOBS_AT_ONCE },
    );
    let (stop, stopping) = watch::channel(false);
    let running = tokio::spawn(runner.run(stopping));
    let mut kinds = Vec::new();
    for _ in 0..=JOBS_AT_ONCE.value {
        kinds.push(timeout(PATIENCE, news.recv()).await.unwrap().unwrap());
    }
    assert_eq!(kinds.iter().filter(|kind| *kind == "read").count(), 1, "{kinds:?}");
    quick().await.unwrap();
    let next = timeout(PATIENCE, news.recv()).await.unwrap();
    assert_eq!(next.as_deref(), Some("read"), "its place was given back, and no other");
    stop.send(true).unwrap();
    running.await.unwrap();
}

#[tokio::test]
async fn many_who_ask_at_once_get_each_job_once() {
    let scratch = Scratch::new().await;
    for _ in 0..20 {
        let org = scratch.organisation().await;
        add(&scratch, &org).await;
    }
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let store = scratch.store.clone();
        asking.spawn(async move { store.claim_job(KINDS).await.unwrap().map(|(job, _)| job.id) });
    }
    let mut ids: Vec<JobId> = asking.join_all().await.into_iter().flatten().collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 20);
}
