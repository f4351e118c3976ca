//! Numbers bought at Twilio: what it is asked, and that no failure loses a number or buys two.

mod fake;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use config::clock::{Clock, Timestamp};
use config::credential::{Operator, ScopedTo};
use config::ids::OrganisationId;
use config::managed::{Managed, ManagedError};
use config::model::{E164, NumberSearch, NumberType, Page, PhoneNumber, TrunkFilter};
use config::seal::Sealer;
use config::settings::ManagedSettings;
use config::store::{Store, StoreError, StoreOptions};
use serde_json::{Value, json};

use fake::{Fake, Mishap, SID, TOKEN};

/// A store on disk that outlives the programs that open it, and a clock that can be moved.
struct Place {
    folder: PathBuf,
    now: Arc<AtomicI64>,
    fake: Fake,
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Place {
    fn new() -> Self {
        let folder =
            std::env::temp_dir().join(format!("trunkline-twilio-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&folder).unwrap();
        let now = Arc::new(AtomicI64::new(1_767_225_600_000_000));
        Self { folder, now, fake: Fake::start() }
    }

    /// The program's part that buys numbers, as a start of the program makes it.
    async fn open(&self) -> (Store, Managed) {
        let now = Arc::clone(&self.now);
        let clock = move || Timestamp::from_micros(now.fetch_add(1_000, Ordering::Relaxed));
        let sealer = Sealer::open(&self.folder.join("seal.key")).unwrap();
        let options = StoreOptions {
            clock: Clock::from_fn(clock),
            busy_budget_ms: 20_000, // what a killed program began ends beside us
            ..StoreOptions::new(sealer, "sip.example.com")
        };
        let url = format!("sqlite:{}", self.folder.join("store.db").display());
        let store = Store::open(&url, options).await.unwrap();
        let managed = Managed::of_settings(store.clone(), &self.settings()).unwrap();
        (store, managed)
    }

    fn settings(&self) -> ManagedSettings {
        ManagedSettings {
            twilio_account_sid: Some(SID.to_owned()),
            twilio_auth_token: Some(TOKEN.into()),
            twilio_api_url: self.fake.url.clone(),
            twilio_trunking_url: self.fake.url.clone(),
            ..ManagedSettings::default()
        }
    }

    /// Every lease has run out.
    fn wait(&self) {
        self.now.fetch_add(3_600_000_000, Ordering::Relaxed);
    }
}

type Org = ScopedTo<OrganisationId>;

async fn organisation(store: &Store) -> Org {
    let made = store.create_organisation(&Operator::by_process(), "org", None).await.unwrap();
    ScopedTo::by_gateway(made.id)
}

fn wanted() -> E164 {
    "+14155550100".parse().unwrap()
}

async fn buy(managed: &Managed, org: &Org) -> Result<PhoneNumber, ManagedError> {
    managed.purchase(org, "twilio", &wanted()).await
}

/// Lets time pass until an order is due, and works on it. What a request began goes on beside us, and
/// may still put its order off.
async fn next_attempt(place: &Place, managed: &Managed) -> usize {
    let due = async {
        loop {
            place.wait();
            match managed.resume().await.unwrap() {
                0 => tokio::task::yield_now().await,
                count => return count,
            }
        }
    };
    let patience = std::time::Duration::from_secs(10);
    tokio::time::timeout(patience, due).await.expect("an order comes due")
}

/// One number, one trunk, all its parts once, at Twilio and here.
async fn assert_held_once(place: &Place, store: &Store, org: &Org, what: &str) {
    for kind in [
        "number",
        "trunk",
        "credential list",
        "credential",
        "trunk's credential list",
        "origination",
    ] {
        assert_eq!(place.fake.things(kind).len(), 1, "{kind}: {what}");
    }
    let number = store.number(org, &wanted()).await.unwrap();
    let trunks = store.trunks(org, &TrunkFilter::default(), Page::default()).await.unwrap();
    assert_eq!(trunks.len(), 1, "{what}");
    assert_eq!(number.trunk_id, trunks[0].id, "{what}");
    let at_twilio = &place.fake.things("number")[0];
    assert_eq!(at_twilio["trunk_sid"], place.fake.things("trunk")[0]["sid"], "{what}");
}

#[tokio::test]
async fn numbers_are_searched_where_they_can_be_used() {
    let place = Place::new();
    let (_, managed) = place.open().await;
    let search = |country: &str, area: Option<&str>| NumberSearch {
        country: country.to_owned(),
        kind: NumberType::Local,
        voice_enabled: true,
        area_code: area.map(str::to_owned),
        limit: 1,
    };
    let found = managed.available("twilio", &search("US", Some("415"))).await.unwrap();
    let text = serde_json::to_value(&found).unwrap();
    assert_eq!(
        text,
        json!([{ "phone_number": "+14155550100", "country": "US", "type": "local",
            "voice_enabled": true, "locality": "San Francisco", "region": "CA" }])
    );
    let asked = place.fake.asked().remove(0);
    assert!(asked.path.ends_with("/AvailablePhoneNumbers/US/Local.json"));
    let expected = json!({ "PageSize": "1", "ExcludeAllAddressRequired": "true",
        "VoiceEnabled": "true", "AreaCode": "415" });
    assert_eq!(Value::Object(asked.fields), expected);
    let nowhere = managed.available("twilio", &search("DE", None)).await.unwrap();
    assert!(nowhere.is_empty(), "what is not sold there is not a failure");
    place.fake.shut(true);
    let refused = managed.available("twilio", &search("US", None)).await;
    assert_eq!(refused.unwrap_err(), ManagedError::Provider);
}

#[tokio::test]
async fn a_purchase_wires_the_trunk_first_and_buys_the_number_last() {
    let place = Place::new();
    let (store, managed) = place.open().await;
    let org = organisation(&store).await;
    let number = buy(&managed, &org).await.unwrap();
    assert_held_once(&place, &store, &org, "bought").await;
    let trunk = store.trunk(&org, number.trunk_id).await.unwrap();

    let asked = place.fake.asked();
    let paths: Vec<&str> = asked.iter().map(|one| one.path.rsplit('/').next().unwrap()).collect();
    assert_eq!(
        paths,
        [
            "CredentialLists.json",
            "Credentials.json",
            "Trunks",
            "CredentialLists",
            "OriginationUrls",
            "IncomingPhoneNumbers.json"
        ]
    );
    let made = &asked[2].fields;
    assert_eq!(
        (&made["TransferMode"], &made["TransferCallerId"], &made["Secure"]),
        (&json!("sip-only"), &json!("from-transferee"), &json!("false"))
    );
    assert_eq!(asked[4].fields["SipUrl"], json!(trunk.inbound_uri));
    assert_eq!(asked[5].fields["PhoneNumber"], "+14155550100");

    let outbound = trunk.outbound_config.unwrap();
    assert_eq!(json!(outbound.address), made["DomainName"]);
    assert!(outbound.address.ends_with(".pstn.twilio.com"));
    assert_eq!(json!(outbound.transfer_mode), "refer");
    assert_eq!(json!(outbound.auth_username), asked[1].fields["Username"]);
    let snapshot = store.snapshot().load();
    let route = snapshot.trunk(trunk.id).unwrap();
    let password = route.outbound.as_ref().unwrap().password.expose();
    assert_eq!(json!(password), asked[1].fields["Password"]);
    assert!(route.allowed.as_ref().is_some_and(|networks| networks.len() == 8));
    assert!(!format!("{managed:?} {:?}", place.settings()).contains("canary"));
}

#[tokio::test]
async fn a_number_that_is_gone_leaves_nothing_behind() {
    let place = Place::new();
    let (store, managed) = place.open().await;
    let org = organisation(&store).await;
    place.fake.hold("+14155550100");
    assert_eq!(buy(&managed, &org).await.unwrap_err(), ManagedError::Gone);
    assert_eq!(place.fake.things("number").len(), 1, "that of somebody else stays");
    assert!(place.fake.things("trunk").is_empty() && place.fake.things("credential").is_empty());
    assert!(store.ordered_numbers().await.unwrap().is_empty());
    let listed = store.trunks(&org, &TrunkFilter::default(), Page::default()).await.unwrap();
    assert!(listed.is_empty());
}

#[tokio::test]
async fn a_provider_that_fails_before_the_number_is_bought_is_told_and_undone() {
    for (skip, mishap) in [
        (0, Mishap::Status(503, 20_503)),
        (3, Mishap::Status(500, 20_500)),
        (4, Mishap::Status(429, 20_429)),
        (5, Mishap::Status(429, 20_429)),
        (5, Mishap::Status(400, 21_631)),
    ] {
        let place = Place::new();
        let (store, managed) = place.open().await;
        let org = organisation(&store).await;
        place.fake.fail(skip, mishap);
        assert_eq!(buy(&managed, &org).await.unwrap_err(), ManagedError::Provider);
        assert!(place.fake.is_empty(), "{skip} {mishap:?}");
        let number = buy(&managed, &org).await.unwrap();
        assert_eq!(number.phone_number, wanted());
    }
}

#[tokio::test]
async fn what_cannot_be_undone_at_once_is_undone_later() {
    let place = Place::new();
    let (store, managed) = place.open().await;
    let org = organisation(&store).await;
    buy(&managed, &org).await.unwrap();
    place.fake.shut(true);
    managed.release(&org, "twilio", &wanted()).await.unwrap();
    let gone = store.number(&org, &wanted()).await.unwrap_err();
    assert!(matches!(gone, StoreError::NotFound(_)));
    assert_eq!(next_attempt(&place, &managed).await, 1);
    assert!(!place.fake.is_empty());
    let taken = buy(&managed, &org).await.unwrap_err();
    assert!(matches!(taken, ManagedError::Store(StoreError::Conflict(_))), "{taken:?}");
    place.fake.shut(false);
    assert_eq!(next_attempt(&place, &managed).await, 1);
    assert!(place.fake.is_empty());
    place.wait();
    assert_eq!(managed.resume().await.unwrap(), 0);
    buy(&managed, &org).await.unwrap();
}

#[tokio::test]
async fn an_answer_in_doubt_is_followed_up_and_never_bought_twice() {
    for mishap in [Mishap::Status(500, 20_500), Mishap::Status(503, 20_503)] {
        let place = Place::new();
        let (store, managed) = place.open().await;
        let org = organisation(&store).await;
        place.fake.fail(5, mishap);
        assert_eq!(buy(&managed, &org).await.unwrap_err(), ManagedError::UnderWay);
        assert!(store.number(&org, &wanted()).await.is_err());
        place.wait();
        assert_eq!(managed.resume().await.unwrap(), 1);
        assert_held_once(&place, &store, &org, "followed up").await;
    }
}

/// A program that is killed while Twilio has not answered its request number `at`.
fn kill_at(place: &Place, at: usize, mishap: Mishap) -> Org {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let org = runtime.block_on(async {
        let (store, managed) = place.open().await;
        let org = organisation(&store).await;
        place.fake.fail(at, mishap);
        let purchase = tokio::spawn(async move { buy(&managed, &org).await });
        place.fake.silent.notified().await;
        purchase.abort();
        org
    });
    // Nothing of it goes on: tasks are dropped where they wait, as in a process that is gone.
    runtime.shutdown_background();
    org
}

#[test]
fn a_program_that_is_killed_at_any_step_finishes_its_purchase_after_a_restart() {
    for at in 0..6 {
        for mishap in [Mishap::Unheard, Mishap::Unanswered] {
            let place = Place::new();
            let org = kill_at(&place, at, mishap);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let (store, managed) = place.open().await;
                let what = format!("killed at {at}, {mishap:?}");
                let early = managed.resume().await.unwrap();
                assert_eq!(early, 0, "somebody may still be at it: {what}");
                let taken = buy(&managed, &org).await.unwrap_err();
                assert!(matches!(taken, ManagedError::Store(StoreError::Conflict(_))), "{what}");
                place.wait();
                assert_eq!(managed.resume().await.unwrap(), 1, "{what}");
                assert_held_once(&place, &store, &org, &what).await;
                place.wait();
                assert_eq!(managed.resume().await.unwrap(), 0, "{what}");
            });
        }
    }
}

#[test]
fn a_program_that_is_killed_while_giving_a_number_back_goes_on_after_a_restart() {
    let place = Place::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (store, managed) = place.open().await;
        let org = organisation(&store).await;
        buy(&managed, &org).await.unwrap();
        place.fake.fail(2, Mishap::Unheard);
        managed.release(&org, "twilio", &wanted()).await.unwrap();
        place.fake.silent.notified().await;
    });
    runtime.shutdown_background();
    assert!(place.fake.things("number").is_empty() && !place.fake.is_empty());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(async {
        let (_, managed) = place.open().await;
        place.wait();
        assert_eq!(managed.resume().await.unwrap(), 1);
        assert!(place.fake.is_empty());
    });
}

#[tokio::test]
async fn a_purchase_that_never_comes_about_is_given_up_after_a_day() {
    let place = Place::new();
    let (store, managed) = place.open().await;
    let org = organisation(&store).await;
    place.fake.fail(5, Mishap::Status(500, 20_500));
    assert_eq!(buy(&managed, &org).await.unwrap_err(), ManagedError::UnderWay);
    for _ in 0..24 {
        place.wait();
        place.fake.fail(0, Mishap::Status(503, 20_503));
        assert_eq!(managed.resume().await.unwrap(), 1);
    }
    assert!(place.fake.is_empty());
    assert!(store.ordered_numbers().await.unwrap().is_empty());
    assert!(store.number(&org, &wanted()).await.is_err());
}
