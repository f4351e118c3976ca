//! `/core/phone-numbers`.

use serde_json::{Value, json};

use crate::server::Server;

#[tokio::test]
async fn a_number_is_registered_read_changed_and_given_up() {
    let server = Server::start().await;
    let trunk = server.trunk("a").await;
    let body = json!({ "phone_number": "+15551234567", "trunk_id": trunk });
    let made = server.post("/core/phone-numbers", body.clone()).await.is(200);
    assert_eq!(made["trunk_id"], json!(trunk));
    assert_eq!(made["inbound_agent_version_id"], Value::Null);
    assert_eq!(made["outbound_agent_version_id"], Value::Null);
    assert_eq!(made["outbound_shareable"], false);
    assert!(server.post("/core/phone-numbers", body).await.is(409)["detail"].is_string());
    for path in ["/core/phone-numbers/+15551234567", "/core/phone-numbers/%2B15551234567"] {
        assert_eq!(server.get(path).await.is(200), made);
    }
    let path = "/core/phone-numbers/+15551234567";
    let changed = server.patch(path, json!({ "outbound_shareable": true })).await.is(200);
    assert_eq!(changed["outbound_shareable"], true);
    server.delete(path).await.is(204);
    let detail = server.get(path).await.is(404)["detail"].to_string();
    assert!(detail.ends_with("not found\""), "{detail}");
    server.delete(path).await.is(404);
    server.patch(path, json!({ "outbound_shareable": true })).await.is(404);
}

#[tokio::test]
async fn nothing_but_shareable_changes_here() {
    let server = Server::start().await;
    let trunk = server.trunk("a").await;
    server.number("+15551234567", &trunk).await;
    let path = "/core/phone-numbers/+15551234567";
    for field in
        ["trunk_id", "inbound_agent_version_id", "outbound_agent_version_id", "phone_number"]
    {
        let body = json!({ "outbound_shareable": true, field: trunk });
        assert_eq!(server.patch(path, body).await.places(), [format!("body.{field}")]);
    }
    assert_eq!(server.patch(path, json!({})).await.places(), ["body.outbound_shareable"]);
    assert_eq!(server.get(path).await.is(200)["outbound_shareable"], false);
    let body = json!({ "phone_number": "+15551234568", "trunk_id": trunk,
        "inbound_agent_version_id": trunk });
    let places = server.post("/core/phone-numbers", body).await.places();
    assert_eq!(places, ["body.inbound_agent_version_id"]);
}

#[tokio::test]
async fn what_cannot_be_registered_says_why() {
    let server = Server::start().await;
    let trunk = server.trunk("a").await;
    for bad in ["15551234567", "+0555", "+1555123456789012", "tel:+1555", "+1 555"] {
        let body = json!({ "phone_number": bad, "trunk_id": trunk });
        assert_eq!(server.post("/core/phone-numbers", body).await.places(), ["body.phone_number"]);
    }
    let unknown = "67e55044-10b1-426f-9247-bb680e5fe0c8";
    let body = json!({ "phone_number": "+15551234567", "trunk_id": unknown });
    assert_eq!(server.post("/core/phone-numbers", body).await.is(404)["detail"], "Trunk not found");
    let body = json!({ "phone_number": "+15551234567", "trunk_id": "no" });
    assert_eq!(server.post("/core/phone-numbers", body).await.places(), ["body.trunk_id"]);
    assert_eq!(
        server.post("/core/phone-numbers", json!({})).await.places(),
        ["body.phone_number", "body.trunk_id"]
    );
    for n in 0..20 {
        server.number(&format!("+15550000{n:03}"), &trunk).await;
    }
    let body = json!({ "phone_number": "+15551234567", "trunk_id": trunk });
    let refused = server.post("/core/phone-numbers", body).await.is(400);
    assert_eq!(refused["detail"], "Phone number limit reached");
}

#[tokio::test]
async fn numbers_are_listed_by_part_and_trunk() {
    let server = Server::start().await;
    let (a, b) = (server.trunk("a").await, server.trunk("b").await);
    server.number("+15551234567", &a).await;
    server.number("+4930123456", &b).await;
    let count = async |query: &str| {
        let path = format!("/core/phone-numbers{query}");
        server.get(&path).await.is(200).as_array().unwrap().len()
    };
    assert_eq!(count("").await, 2);
    assert_eq!(count("?phone_number=123456").await, 2);
    assert_eq!(count("?phone_number=%2B49").await, 1);
    assert_eq!(count("?phone_number=+49").await, 1, "a bare plus is a plus");
    assert_eq!(count(&format!("?trunk_id={a}")).await, 1);
    assert_eq!(server.get("/core/phone-numbers?trunk_id=x").await.places(), ["query.trunk_id"]);
}
