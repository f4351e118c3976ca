//! `/core/trunks`.

use config::api::ApiOptions;
use serde_json::{Value, json};

use crate::server::{Server, id};

fn outbound() -> Value {
    json!({ "address": "carrier.example.com", "auth_username": "u", "auth_password": "canary" })
}

#[tokio::test]
async fn a_trunk_is_made_read_changed_and_deleted() {
    let server = Server::start().await;
    let made = server
        .post("/core/trunks", json!({ "name": "Berlin", "outbound_config": outbound() }))
        .await
        .is(200);
    assert_eq!(made["organization_id"], json!(server.organisation));
    assert_eq!(made["managed_account_id"], Value::Null);
    assert_eq!(made["outbound_config"]["transport"], "SIP_TRANSPORT_UDP");
    assert_eq!(made["outbound_config"]["media_encryption"], "SIP_MEDIA_ENCRYPT_DISABLE");
    assert!(made["inbound_uri"].as_str().unwrap().starts_with("sip:"));
    let path = format!("/core/trunks/{}", id(&made));
    let mut read = server.get(&path).await.is(200);
    let mut without = made.clone();
    without.as_object_mut().unwrap().shift_remove("warnings");
    assert_eq!(read, without);

    let changed = server.put(&path, json!({ "name": "Paris" })).await.is(200);
    assert_eq!(
        (&changed["name"], &changed["outbound_config"]),
        (&json!("Paris"), &made["outbound_config"])
    );
    // What was read can be written back.
    read.as_object_mut().unwrap().retain(|key, _| key.contains("config") || key == "name");
    server.put(&path, read).await.is(200);
    let changed = server.put(&path, json!({ "outbound_config": null })).await.is(200);
    assert_eq!(changed["outbound_config"], Value::Null);

    assert_eq!(server.delete(&path).await.is(204), Value::Null);
    assert_eq!(server.get(&path).await.is(404)["detail"], "Trunk not found");
    server.delete(&path).await.is(404);
}

#[tokio::test]
async fn short_names_are_taken_and_long_ones_answered() {
    let server = Server::start().await;
    let mut config = outbound();
    config["transport"] = json!("TLS");
    config["media_encryption"] = json!("NONE");
    let body = json!({ "name": "a", "outbound_config": config,
        "inbound_config": { "media_encryption": "REQUIRE" } });
    let made = server.post("/core/trunks", body).await.is(200);
    assert_eq!(made["outbound_config"]["transport"], "SIP_TRANSPORT_TLS");
    assert_eq!(made["outbound_config"]["media_encryption"], "SIP_MEDIA_ENCRYPT_DISABLE");
    assert_eq!(made["inbound_config"]["media_encryption"], "SIP_MEDIA_ENCRYPT_REQUIRE");
}

#[tokio::test]
async fn empty_addresses_are_dropped_and_an_empty_list_is_null() {
    let server = Server::start().await;
    for (given, kept) in [
        (json!(["192.0.2.1", "", "2001:db8::/32"]), json!(["192.0.2.1", "2001:db8::/32"])),
        (json!([""]), Value::Null),
        (json!([]), Value::Null),
        (Value::Null, Value::Null),
    ] {
        let body = json!({ "name": "a", "inbound_config": { "allowed_addresses": given } });
        let made = server.post("/core/trunks", body).await.is(200);
        assert_eq!(made["inbound_config"]["allowed_addresses"], kept);
        server.delete(&format!("/core/trunks/{}", id(&made))).await.is(204);
    }
    let named =
        json!({ "name": "a", "inbound_config": { "allowed_addresses": ["pbx.example.com"] } });
    let places = server.post("/core/trunks", named).await.places();
    assert_eq!(places, ["body.inbound_config.allowed_addresses"]);
}

#[tokio::test]
async fn a_password_goes_in_stays_and_never_comes_out() {
    let server = Server::start().await;
    let body = json!({ "name": "a", "outbound_config": outbound(),
        "inbound_config": { "auth_username": "pbx", "auth_password": "canary" } });
    let reply = server.post("/core/trunks", body).await;
    assert!(!reply.text.contains("canary"));
    let made = reply.is(200);
    let path = format!("/core/trunks/{}", id(&made));
    for config in ["inbound_config", "outbound_config"] {
        assert_eq!(made[config]["auth_password"], Value::Null);
        assert_eq!(made[config]["auth_password_set"], true);
    }
    let kept = json!({ "outbound_config": { "address": "Carrier.example.com",
        "auth_username": "u" } });
    let changed = server.put(&path, kept).await.is(200);
    assert_eq!(changed["outbound_config"]["auth_password_set"], true);
    for path in [path.as_str(), "/core/trunks"] {
        assert!(!server.get(path).await.text.contains("canary"));
    }
}

#[tokio::test]
async fn a_stored_password_is_not_sent_to_another_carrier() {
    let server = Server::start().await;
    let made =
        server.post("/core/trunks", json!({ "name": "a", "outbound_config": outbound() })).await;
    let path = format!("/core/trunks/{}", id(&made.is(200)));
    let moved = |password: Value| {
        json!({ "outbound_config": { "address": "b.example.com", "auth_username": "u",
            "auth_password": password } })
    };
    let places = server.put(&path, moved(Value::Null)).await.places();
    assert_eq!(places, ["body.outbound_config.auth_password"]);
    let stays = server.get(&path).await.is(200)["outbound_config"]["address"].clone();
    assert_eq!(stays, "carrier.example.com");
    server.put(&path, moved(json!("other"))).await.is(200);
    // Nor is it kept by way of no carrier at all.
    server.put(&path, json!({ "outbound_config": null })).await.is(200);
    let places = server.put(&path, moved(Value::Null)).await.places();
    assert_eq!(places, ["body.outbound_config.auth_password"]);
}

#[tokio::test]
async fn an_outbound_config_needs_its_three_fields() {
    let server = Server::start().await;
    for field in ["address", "auth_username", "auth_password"] {
        let mut config = outbound();
        config.as_object_mut().unwrap().shift_remove(field);
        let body = json!({ "name": "a", "outbound_config": config });
        let places = server.post("/core/trunks", body).await.places();
        assert_eq!(places, [format!("body.outbound_config.{field}")]);
        let mut config = outbound();
        config[field] = json!("");
        let body = json!({ "name": "a", "outbound_config": config });
        let places = server.post("/core/trunks", body).await.places();
        assert_eq!(places, [format!("body.outbound_config.{field}")]);
    }
}

#[tokio::test]
async fn a_trunk_that_is_open_to_all_is_warned_about() {
    let server = Server::start().await;
    let warnings = async |inbound: Value| {
        let body = json!({ "name": "a", "inbound_config": inbound });
        let made = server.post("/core/trunks", body).await.is(200);
        server.delete(&format!("/core/trunks/{}", id(&made))).await.is(204);
        made["warnings"].as_array().unwrap().len()
    };
    assert_eq!(warnings(Value::Null).await, 1);
    assert_eq!(warnings(json!({ "allowed_addresses": null })).await, 1);
    assert_eq!(warnings(json!({ "allowed_addresses": ["192.0.2.1"] })).await, 0);
    assert_eq!(warnings(json!({ "auth_username": "u", "auth_password": "p" })).await, 0);
}

#[tokio::test]
async fn the_settings_can_forbid_a_trunk_that_is_open_to_all() {
    let options = ApiOptions { require_inbound_protection: true, ..ApiOptions::default() };
    let server = Server::with(options).await;
    let refused = server.post("/core/trunks", json!({ "name": "a" })).await.is(422);
    assert!(refused["detail"].as_str().unwrap().contains("any address"));
    let digest = json!({ "auth_username": "u", "auth_password": "p" });
    let made =
        server.post("/core/trunks", json!({ "name": "a", "inbound_config": digest })).await.is(200);
    let path = format!("/core/trunks/{}", id(&made));
    server.put(&path, json!({ "name": "b" })).await.is(200);
    server.put(&path, json!({ "inbound_config": { "auth_username": "u" } })).await.is(200);
    server.put(&path, json!({ "inbound_config": null })).await.is(422);
    server.put(&path, json!({ "inbound_config": {} })).await.is(422);
    let listed = json!({ "inbound_config": { "allowed_addresses": ["192.0.2.0/24"] } });
    server.put(&path, listed).await.is(200);
}

#[tokio::test]
async fn nothing_but_name_and_configs_can_be_set() {
    let server = Server::start().await;
    let trunk = server.trunk("a").await;
    let path = format!("/core/trunks/{trunk}");
    let before = server.get(&path).await.is(200);
    for field in
        ["id", "organization_id", "managed_account_id", "inbound_uri", "created_at", "warnings"]
    {
        let body = json!({ "name": "b", field: "x" });
        assert_eq!(
            server.post("/core/trunks", body.clone()).await.places(),
            [format!("body.{field}")]
        );
        assert_eq!(server.put(&path, body).await.places(), [format!("body.{field}")]);
    }
    assert_eq!(server.get(&path).await.is(200), before);
}

#[tokio::test]
async fn what_reaches_sip_has_no_control_characters() {
    let server = Server::start().await;
    for evil in ["a\r\nVia: x", "a\nb", "a\0b", "a\u{7f}", "a\tb", "a\u{1b}[31m", "a\u{85}b"] {
        for pointer in [
            "/name",
            "/outbound_config/address",
            "/outbound_config/auth_username",
            "/outbound_config/from_user",
            "/outbound_config/from_host",
            "/inbound_config/auth_username",
        ] {
            let mut body = json!({ "name": "a", "outbound_config": outbound(),
                "inbound_config": { "auth_username": "u", "auth_password": "p" } });
            body["outbound_config"]["from_user"] = json!("f");
            body["outbound_config"]["from_host"] = json!("h.example.com");
            *body.pointer_mut(pointer).unwrap() = json!(evil);
            let place = format!("body{}", pointer.replace('/', "."));
            assert_eq!(server.post("/core/trunks", body).await.places(), [place], "{evil:?}");
        }
    }
    assert_eq!(server.get("/core/trunks").await.is(200), json!([]));
}

#[tokio::test]
async fn limits_of_a_trunk_are_kept() {
    let server = Server::start().await;
    for (config, field, value) in [
        ("inbound_config", "max_concurrent_calls", json!(0)),
        ("inbound_config", "max_concurrent_calls", json!(100_001)),
        ("inbound_config", "calls_per_second", json!(-1)),
        ("outbound_config", "ring_timeout_seconds", json!(301)),
        ("outbound_config", "max_duration_seconds", json!(0)),
        ("outbound_config", "codecs", json!([])),
        ("outbound_config", "transport", json!("SCTP")),
        ("outbound_config", "address", json!("sip:carrier.example.com")),
    ] {
        let mut body = json!({ "name": "a", "inbound_config": {}, "outbound_config": outbound() });
        body[config][field] = value;
        let places = server.post("/core/trunks", body).await.places();
        assert_eq!(places, [format!("body.{config}.{field}")]);
    }
    let many: Vec<String> = (0..1025).map(|n| format!("10.0.{}.{}", n / 256, n % 256)).collect();
    let body = json!({ "name": "a", "inbound_config": { "allowed_addresses": many } });
    server.post("/core/trunks", body).await.is(422);
}

#[tokio::test]
async fn a_trunk_with_numbers_is_deleted_only_by_force() {
    let server = Server::start().await;
    let trunk = server.trunk("a").await;
    server.number("+15550000001", &trunk).await;
    let path = format!("/core/trunks/{trunk}");
    let detail = server.delete(&path).await.is(409)["detail"].to_string();
    assert!(detail.contains('1'), "{detail}");
    server.delete(&format!("{path}?force=true")).await.is(204);
    server.get("/core/phone-numbers/+15550000001").await.is(404);
}

#[tokio::test]
async fn trunks_are_listed_by_name_and_page() {
    let server = Server::start().await;
    for name in ["one", "two", "three"] {
        server.trunk(name).await;
    }
    let names = |list: Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(server.get("/core/trunks").await.is(200)), ["three", "two", "one"]);
    assert_eq!(names(server.get("/core/trunks?name=T").await.is(200)), ["three", "two"]);
    let first = server.get("/core/trunks?limit=2").await;
    let next = first.headers["x-next-cursor"].to_str().unwrap().to_owned();
    assert_eq!(names(first.is(200)), ["three", "two"]);
    let last = server.get(&format!("/core/trunks?limit=2&cursor={next}")).await;
    assert!(!last.headers.contains_key("x-next-cursor"));
    assert_eq!(names(last.is(200)), ["one"]);
}
