//! `/core/managed-accounts`: the operator's own numbers, bought and given back; managed trunks.

use std::sync::Arc;

use axum::http::Method;
use config::credential::{Operator, ScopedTo};
use config::ids::OrganisationId;
use config::model::{NumberFilter, Page, PhoneNumber};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::server::{Server, id};

const PURCHASE: &str = "/core/managed-accounts/pool/purchase-number";
const RELEASE: &str = "/core/managed-accounts/pool/release-number";
const TRUNKS: &str = "/core/managed-accounts/pool/trunks";

fn number(text: &str) -> Value {
    json!({ "phone_number": text })
}

/// The numbers that a search finds.
async fn found(server: &Server, query: &str) -> Vec<String> {
    let path = format!("/core/managed-accounts/pool/available-numbers{query}");
    let list = server.get(&path).await.is(200);
    let each = list.as_array().unwrap().iter();
    each.map(|one| one["phone_number"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn accounts_are_listed_and_an_unknown_one_is_404() {
    let server = Server::start().await;
    let list = server.get("/core/managed-accounts").await.is(200);
    assert_eq!(list, json!([{ "id": "pool", "name": "Number pool", "provider": "pool" }]));
    for path in ["twilio", "x", "67e55044-10b1-426f-9247-bb680e5fe0c8", "%2e%2e"] {
        let base = format!("/core/managed-accounts/{path}");
        let detail = server.get(&format!("{base}/available-numbers")).await.is(404);
        assert_eq!(detail["detail"], "Managed account not found");
        server.post(&format!("{base}/purchase-number"), number("+14155550100")).await.is(404);
        server.post(&format!("{base}/release-number"), number("+14155550100")).await.is(404);
    }
}

#[tokio::test]
async fn numbers_are_searched_by_country_type_and_area() {
    let server = Server::start().await;
    assert_eq!(found(&server, "").await.len(), 4);
    assert_eq!(found(&server, "?country=US&type=local&voice_enabled=true").await.len(), 4);
    assert_eq!(found(&server, "?area_code=212").await, ["+12125550100"]);
    assert_eq!(found(&server, "?area_code=415&limit=2").await, ["+14155550100", "+14155550101"]);
    for nothing in ["?country=DE", "?type=toll_free", "?type=mobile", "?area_code=1415"] {
        assert!(found(&server, nothing).await.is_empty(), "{nothing}");
    }
    for (query, place) in [
        ("country=us", "country"),
        ("country=USA", "country"),
        ("type=fancy", "type"),
        ("voice_enabled=perhaps", "voice_enabled"),
        ("area_code=4a", "area_code"),
        ("area_code=1234567", "area_code"),
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("town=x", "town"),
    ] {
        let path = format!("/core/managed-accounts/pool/available-numbers?{query}");
        assert_eq!(server.get(&path).await.places(), [format!("query.{place}")], "{query}");
    }
}

#[tokio::test]
async fn a_bought_number_comes_with_a_trunk_that_cannot_be_changed() {
    let server = Server::start().await;
    let bought = server.post(PURCHASE, number("+14155550100")).await.is(200);
    assert_eq!(bought["organization_id"], json!(server.organisation));
    assert_eq!(server.get("/core/phone-numbers/+14155550100").await.is(200), bought);
    let path = format!("/core/trunks/{}", bought["trunk_id"].as_str().unwrap());
    let reply = server.get(&path).await;
    assert!(!reply.text.contains("canary"));
    let trunk = reply.is(200);
    assert_eq!(trunk["managed_account_id"], "pool");
    assert_eq!(trunk["outbound_config"]["address"], "carrier.example.net");
    assert_eq!(trunk["outbound_config"]["auth_password_set"], true);

    let other = json!({ "phone_number": "+15550000001", "trunk_id": trunk["id"] });
    for reply in [
        server.put(&path, json!({ "name": "mine" })).await,
        server.delete(&path).await,
        server.delete(&format!("{path}?force=true")).await,
        server.delete("/core/phone-numbers/+14155550100").await,
        server.post("/core/phone-numbers", other).await,
    ] {
        assert!(reply.is(400)["detail"].as_str().unwrap().contains("managed"));
    }
    // It is dialled from like any other.
    let agent = server.agent("a").await;
    let publish = format!("/core/agents/{agent}/versions/1/publish");
    let slots = json!({ "phone_numbers": ["+14155550100"], "direction": "both" });
    server.post(&publish, slots).await.is(200);
    let call = json!({ "channel": "telephone", "user_id": "+4930123456", "agent_id": agent });
    server.post("/core/conversations", call).await.is(202);
    let dialled = server.calls.dialled.lock().unwrap();
    assert_eq!(dialled[0].trunk.to_string(), id(&trunk));
    let snapshot = server.store.snapshot().load();
    let route = snapshot.trunk(dialled[0].trunk).unwrap();
    assert_eq!(route.outbound.as_ref().unwrap().password.expose(), "canary");
}

#[tokio::test]
async fn a_number_is_bought_once_and_what_is_taken_is_not_offered() {
    let server = Server::start().await;
    let (_, stranger) = server.stranger().await;
    server.post(PURCHASE, number("+14155550100")).await.is(200);
    for key in [&server.key, &stranger] {
        let again = server.call(Method::POST, PURCHASE, key, &number("+14155550100")).await;
        assert_eq!(again.is(409)["detail"], "Phone number is not available");
    }
    assert_eq!(found(&server, "?area_code=415").await, ["+14155550101", "+14155550102"]);
    let unknown = server.post(PURCHASE, number("+14155559999")).await.is(409);
    assert_eq!(unknown["detail"], "Phone number is not available");
    for bad in [number("4155550100"), json!({}), json!({ "phone_number": "+1", "trunk_id": "x" })] {
        assert!(!server.post(PURCHASE, bad).await.places().is_empty());
    }
    let trunks = server.get("/core/trunks").await.is(200);
    assert_eq!(trunks.as_array().unwrap().len(), 1, "a purchase that failed leaves no trunk");
}

#[tokio::test]
async fn nobody_registers_a_number_that_is_for_sale() {
    let server = Server::start().await;
    let trunk = server.trunk("own").await;
    let body = json!({ "phone_number": "+14155550100", "trunk_id": trunk });
    let refused = server.post("/core/phone-numbers", body).await.is(409);
    assert_eq!(refused["detail"], "Phone number belongs to a managed account");
    server.post(PURCHASE, number("+14155550100")).await.is(200);
}

#[tokio::test]
async fn bought_numbers_count_against_the_limit() {
    let server = Server::start().await;
    let by = Operator::by_process();
    let small = server.store.create_organisation(&by, "small", Some(1)).await.unwrap();
    let key = server.key_of(small.id, json!({ "name": "k" })).await;
    let buy = async |text: &str| server.call(Method::POST, PURCHASE, &key, &number(text)).await;
    buy("+14155550100").await.is(200);
    assert_eq!(buy("+14155550101").await.is(400)["detail"], "Phone number limit reached");
    assert_eq!(found(&server, "?area_code=415").await.len(), 2, "and the number stays for sale");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_a_hundred_purchases_of_one_number_one_succeeds() {
    let server = Arc::new(Server::start().await);
    let mut keys = vec![server.key.clone()];
    for _ in 0..4 {
        keys.push(server.stranger().await.1);
    }
    let mut all = JoinSet::new();
    for n in 0..100 {
        let (server, key) = (Arc::clone(&server), keys[n % keys.len()].clone());
        all.spawn(async move {
            let reply = server.call(Method::POST, PURCHASE, &key, &number("+14155550100")).await;
            reply.status.as_u16()
        });
    }
    let statuses = all.join_all().await;
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 409).count(), 99, "{statuses:?}");
    let mut held = 0;
    for key in &keys {
        for path in ["/core/phone-numbers", "/core/trunks"] {
            let list = server.call(Method::GET, path, key, &Value::Null).await.is(200);
            held += list.as_array().unwrap().len();
        }
    }
    assert_eq!(held, 2, "one number and its trunk");
}

#[tokio::test]
async fn a_number_that_is_given_back_is_for_sale_again() {
    let server = Server::start().await;
    let (_, stranger) = server.stranger().await;
    let bought = server.post(PURCHASE, number("+14155550100")).await.is(200);
    let theirs =
        server.call(Method::POST, RELEASE, &stranger, &number("+14155550100")).await.is(404);
    let never =
        server.call(Method::POST, RELEASE, &stranger, &number("+14155550102")).await.is(404);
    assert_eq!(theirs["detail"], "Phone number +14155550100 not found");
    assert_eq!(never["detail"], "Phone number +14155550102 not found");

    server.post(RELEASE, number("+14155550100")).await.is(204);
    server.get("/core/phone-numbers/+14155550100").await.is(404);
    let trunk = bought["trunk_id"].as_str().unwrap();
    server.get(&format!("/core/trunks/{trunk}")).await.is(404);
    let snapshot = server.store.snapshot().load();
    assert!(snapshot.number("+14155550100").is_none());
    assert!(snapshot.trunk(trunk.parse().unwrap()).is_none());
    server.post(RELEASE, number("+14155550100")).await.is(404);

    // The provider is told behind the reply's back.
    while !found(&server, "").await.contains(&"+14155550100".to_owned()) {
        tokio::task::yield_now().await;
    }
    server.call(Method::POST, PURCHASE, &stranger, &number("+14155550100")).await.is(200);
}

#[tokio::test]
async fn the_operator_makes_managed_trunks_that_customers_use_and_cannot_change() {
    let server = Server::start().await;
    let (customer, key) = server.stranger().await;
    let body = json!({ "organization_id": customer, "name": "House carrier",
        "inbound_config": { "allowed_addresses": ["192.0.2.0/24"] },
        "outbound_config": { "address": "h.example.com", "auth_username": "u",
            "auth_password": "canary" },
        "phone_numbers": ["+15550000001", "+15550000002"] });
    let made = server.post(TRUNKS, body.clone()).await;
    assert!(!made.text.contains("canary"));
    let trunk = made.is(200);
    assert_eq!(trunk["organization_id"], json!(customer));
    assert_eq!(trunk["managed_account_id"], "pool");

    let path = format!("/core/trunks/{}", id(&trunk));
    let theirs = async |method: Method, path: &str, body: Value| {
        server.call(method, path, &key, &body).await
    };
    assert_eq!(theirs(Method::GET, &path, Value::Null).await.is(200), trunk);
    theirs(Method::PUT, &path, json!({ "name": "x" })).await.is(400);
    theirs(Method::DELETE, &path, Value::Null).await.is(400);
    theirs(Method::DELETE, "/core/phone-numbers/+15550000001", Value::Null).await.is(400);
    theirs(Method::POST, RELEASE, number("+15550000001")).await.is(404);
    let numbers = theirs(Method::GET, "/core/phone-numbers", Value::Null).await.is(200);
    assert_eq!(numbers.as_array().unwrap().len(), 2);

    // A number that somebody has undoes the whole.
    let mut again = body.clone();
    again["phone_numbers"] = json!(["+15550000003", "+15550000001"]);
    let conflict = server.post(TRUNKS, again).await.is(409);
    assert!(conflict["detail"].as_str().unwrap().contains("+15550000001"));
    theirs(Method::GET, "/core/phone-numbers/+15550000003", Value::Null).await.is(404);
    let mut unknown = body;
    unknown["organization_id"] = json!("67e55044-10b1-426f-9247-bb680e5fe0c8");
    assert_eq!(server.post(TRUNKS, unknown).await.is(404)["detail"], "Organization not found");

    let managed = format!("{TRUNKS}/{}", id(&trunk));
    theirs(Method::DELETE, &managed, Value::Null).await.is(403);
    server.delete(&managed).await.is(204);
    theirs(Method::GET, &path, Value::Null).await.is(404);
    theirs(Method::GET, "/core/phone-numbers/+15550000001", Value::Null).await.is(404);
    server.delete(&managed).await.is(404);
}

#[tokio::test]
async fn only_managed_trunks_without_a_bought_number_are_removed_by_the_operator() {
    let server = Server::start().await;
    let own = server.trunk("own").await;
    server.delete(&format!("{TRUNKS}/{own}")).await.is(404);
    server.delete(&format!("{TRUNKS}/x")).await.is(404);
    let bought = server.post(PURCHASE, number("+14155550100")).await.is(200);
    let trunk = bought["trunk_id"].as_str().unwrap();
    let refused = server.delete(&format!("{TRUNKS}/{trunk}")).await.is(409);
    assert!(refused["detail"].as_str().unwrap().contains("release"));
    server.get("/core/phone-numbers/+14155550100").await.is(200);
}

/// The numbers of an organisation that has just been made.
async fn numbers_of_a_new_one(server: &Server) -> Vec<PhoneNumber> {
    let made = server.post("/admin/organizations", json!({ "name": "new" })).await.is(200);
    let id: OrganisationId = made["id"].as_str().unwrap().parse().unwrap();
    let (scope, all) = (ScopedTo::by_gateway(id), NumberFilter::default());
    server.store.numbers(&scope, &all, Page::default()).await.unwrap()
}

#[tokio::test]
async fn a_new_organisation_is_given_a_number_and_a_trunk_where_the_settings_say_so() {
    let server = Server::start().await;
    assert!(numbers_of_a_new_one(&server).await.is_empty(), "nothing was said of it");
    let giving = server.with_first_numbers("US");
    let mut given = Vec::new();
    for _ in 0..4 {
        let numbers = numbers_of_a_new_one(&giving).await;
        let [number] = numbers.as_slice() else { panic!("{numbers:?}") };
        let scope = ScopedTo::by_gateway(number.organization_id);
        let trunk = server.store.trunk(&scope, number.trunk_id).await.unwrap();
        assert_eq!(trunk.managed_account_id.as_deref(), Some("pool"));
        given.push(number.phone_number.to_string());
    }
    given.sort();
    assert_eq!(given, ["+12125550100", "+14155550100", "+14155550101", "+14155550102"]);
    assert!(numbers_of_a_new_one(&giving).await.is_empty(), "the pool is empty");
    let elsewhere = server.with_first_numbers("DE");
    assert!(numbers_of_a_new_one(&elsewhere).await.is_empty());
}
