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
use crate::limits::{JOBS_ASLEEP, JOBS_AT_ONCE, JOBS_OF_ORGANIZATION, JOBS_WAITING, Limit};
use crate::store::executions::{LOST, OLDEST_TOO_MANY};
use crate::store::jobs::{ASLEEP, DUE, FORGET, JobTurn, push_due, push_next_turn};
use crate::store::rows::raw;
use crate::store::sql::{self, QueryBuilder};
use crate::store::{After, JobEnd, Store, StoreError, StoreOptions, Wanted};

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
    NewJob { kind: "write", subject, payload: json!({ "n": 1 }), rests: Duration::ZERO }
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
    assert!(taken.iter().any(|job| job.id == last));
}

#[tokio::test]
async fn the_organisation_whose_last_turn_is_longest_ago_is_next() {
    let scratch = Scratch::new().await;
    let loud = [scratch.organisation().await, scratch.organisation().await];
    for org in &loud {
        for _ in 0..4 {
            add(&scratch, org).await;
        }
    }
    let late = scratch.organisation().await;
    add(&scratch, &late).await;
    add(&scratch, &late).await;
    let mut served = Vec::new();
    for _ in 0..6 {
        let (job, lease) = scratch.claim_job(KINDS).await.unwrap().unwrap();
        served.push(job.organisation);
        scratch.end_job(&lease, JobEnd::Done(Value::Null)).await.unwrap();
    }
    let [first, second] = loud.map(|org| org.organisation());
    let late = late.organisation();
    assert_eq!(served, [first, second, late, first, second, late], "however old the others' are");
}

#[tokio::test]
async fn turns_are_kept_as_long_as_something_is_unfinished() {
    let scratch = Scratch::new().await;
    let org = scratch.organisation().await;
    let turns = async || {
        let mut tx = scratch.0.db.read().await.unwrap();
        let count = sql::query("SELECT count(*) FROM job_turns");
        count.fetch_scalar::<i64>(&mut tx).await.unwrap()
    };
    add(&scratch, &org).await;
    scratch.forget_jobs(0).await.unwrap();
    assert_eq!(turns().await, 1);
    let (_, lease) = scratch.claim_job(KINDS).await.unwrap().unwrap();
    scratch.end_job(&lease, JobEnd::Failed("no".to_owned())).await.unwrap();
    scratch.forget_jobs(0).await.unwrap();
    assert_eq!(turns().await, 0);
    add(&scratch, &org).await;
    assert!(scratch.claim_job(KINDS).await.unwrap().is_some());
}

#[tokio::test]
async fn many_unfinished_jobs_of_one_kind_leave_room_for_another() {
    let scratch = Scratch::new().await;
    let org = scratch.organisation().await;
    let mut tx = scratch.0.db.write().await.unwrap();
    for _ in 0..JOBS_WAITING.value {
        scratch.insert_job(&mut tx, &org, &job("")).await.unwrap();
    }
    scratch.commit(tx, After::default()).await.unwrap();
    let full = scratch.enqueue_job(&org, job("")).await;
    let why = "Too many jobs of this organization are unfinished";
    assert_eq!(full, Err(StoreError::Refused(why.to_owned())));
    scratch.enqueue_job(&org, NewJob { kind: "read", ..job("") }).await.unwrap();
}

#[tokio::test]
async fn jobs_that_wait_for_a_later_time_leave_room_for_others_until_they_are_very_many() {
    let (clock, options) = hands();
    let scratch = Scratch::with(options).await;
    let org = scratch.organisation().await;
    add(&scratch, &org).await;
    let tomorrow = START_US + 86_400_000_000;
    scratch.fill_jobs(&org, "write", (JOBS_ASLEEP.value - 1, tomorrow)).await;
    add(&scratch, &org).await;
    let asleep = NewJob { rests: Duration::from_secs(3_600), ..job("") };
    scratch.enqueue_job(&org, asleep.clone()).await.unwrap();
    pass(&clock, 6); // and they are counted again
    let why = "Too many jobs of this organization wait";
    let full = StoreError::Refused(why.to_owned());
    assert_eq!(scratch.enqueue_job(&org, asleep).await, Err(full.clone()));
    assert_eq!(scratch.enqueue_job(&org, job("")).await, Err(full));
    scratch.enqueue_job(&org, NewJob { kind: "read", ..job("") }).await.unwrap();
}

#[tokio::test]
async fn an_organisation_has_as_many_at_work_as_who_asks_allows() {
    let scratch = Scratch::new().await;
    let org = scratch.organisation().await;
    for _ in 0..4 {
        add(&scratch, &org).await;
    }
    let wanted = Wanted { of_one: 3, ..KINDS.into() };
    for _ in 0..3 {
        assert!(scratch.claim_job(wanted.clone()).await.unwrap().is_some());
    }
    assert!(scratch.claim_job(wanted).await.unwrap().is_none());
}

#[tokio::test]
async fn what_a_node_holds_it_does_not_take_again_though_the_lease_is_over() {
    let (clock, options) = hands();
    let scratch = Scratch::with(options).await;
    let org = scratch.organisation().await;
    let id = add(&scratch, &org).await;
    let (_, lease) = scratch.claim_job(KINDS).await.unwrap().unwrap();
    pass(&clock, 60);
    let held = Wanted { held: vec![id], ..KINDS.into() };
    assert!(scratch.claim_job(held.clone()).await.unwrap().is_none());
    let unleased = Wanted { unleased: true, ..KINDS.into() };
    assert!(scratch.claim_job(unleased.clone()).await.unwrap().is_none());
    assert!(scratch.renew_job(&lease).await.unwrap(), "it is still its holder's");
    pass(&clock, 60);
    let next = add(&scratch, &org).await;
    for wanted in [held, unleased] {
        let (taken, lease) = scratch.claim_job(wanted).await.unwrap().unwrap();
        assert_eq!(taken.id, next);
        let again = JobEnd::Again { after_seconds: 0, why: String::new() };
        scratch.end_job(&lease, again).await.unwrap();
    }
    let (taken, _) = scratch.claim_job(KINDS).await.unwrap().unwrap();
    assert_eq!(taken.id, id, "another node takes it");
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
    let held = vec![JobId::random()];
    let wanted = Wanted { kinds: vec!["read", "write"], held, unleased: true, ..KINDS.into() };
    let turn = plan(&scratch, |query| push_next_turn(query, &wanted, now)).await;
    assert!(turn.contains("SCAN s USING COVERING INDEX job_turns_in_order"), "{turn}");
    assert!(turn.contains("USING COVERING INDEX jobs_due (organization_id=? AND kind=?"), "{turn}");
    assert!(turn.contains("r USING COVERING INDEX jobs_running"), "{turn}");
    let whose = JobTurn { organisation: String::new(), kind: "read".to_owned() };
    let due = plan(&scratch, |query| push_due(query, &wanted, (&whose, now))).await;
    assert!(due.contains("SEARCH t USING INDEX jobs_due"), "{due}");
    for plan in [turn, due] {
        assert!(!plan.contains("TEMP B-TREE"), "all are sorted to find the first: {plan}");
    }
    for counted in [DUE, ASLEEP] {
        let counted = plan(&scratch, |query| _ = query.push(counted)).await;
        assert!(
            counted.contains("COVERING INDEX jobs_due (organization_id=? AND kind=? AND run_at")
        );
    }
    let forget = plan(&scratch, |query| _ = query.push(FORGET)).await;
    assert!(forget.contains("INDEX jobs_over"), "{forget}");
    let oldest = plan(&scratch, |query| _ = query.push(OLDEST_TOO_MANY)).await;
    assert!(oldest.contains("t USING COVERING INDEX workflow_executions_over"), "{oldest}");
    let lost = plan(&scratch, |query| _ = query.push(LOST)).await;
    assert!(lost.contains("t USING INDEX workflow_executions_running"), "{lost}");
    assert!(lost.contains("j USING INDEX jobs_subject"), "{lost}");
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
        (Limit { value: 1, ..JOBS_AT_ONCE }, JOBS_OF_ORGANIZATION),
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
    let left = scratch.claim_job(&["write"]).await.unwrap();
    assert!(left.is_some(), "whoever stops gives back what it was at");
}

#[tokio::test]
async fn a_store_that_was_away_for_long_interrupts_nothing_that_goes_on() {
    let (clock, options) = hands();
    let scratch = Scratch::with(options).await;
    let (org, other) = (scratch.organisation().await, scratch.organisation().await);
    let (begun, mut news) = mpsc::channel(64);
    let never = Arc::new(Told { begun: begun.clone(), ends: false });
    let at_once = Arc::new(Told { begun, ends: true });
    let runner = Runner::new(scratch.store.clone()).with("write", never).with("read", at_once);
    let (stop, stopping) = watch::channel(false);
    let running = tokio::spawn(runner.run(stopping));
    add(&scratch, &org).await;
    assert_eq!(timeout(PATIENCE, news.recv()).await.unwrap().as_deref(), Some("write"));
    pass(&clock, 60); // and no lease was renewed
    scratch.enqueue_job(&other, NewJob { kind: "read", ..job("") }).await.unwrap();
    let next = timeout(PATIENCE, news.recv()).await.unwrap();
    assert_eq!(next.as_deref(), Some("read"), "the other has been due for longer, and goes on");
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
