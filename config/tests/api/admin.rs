//! `/admin`: members, organizations, users and personal tokens.

use axum::http::Method;
use config::credential::Role;
use serde_json::{Value, json};

use crate::server::{Reply, Server, id};

const UNKNOWN: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8";

/// Requests of a user, in an organization or in none.
pub(crate) struct User<'a> {
    server: &'a Server,
    token: String,
    organisation: Option<String>,
}

impl User<'_> {
    pub(crate) async fn ask(&self, method: Method, path: &str, body: Value) -> Reply {
        let credential = (self.token.as_str(), self.organisation.as_deref());
        self.server.call_in(method, path, credential, &body).await
    }
}

pub(crate) async fn user<'a>(server: &'a Server, email: &str, role: Role) -> User<'a> {
    let token = server.token_of(email, &[(server.organisation, role)], None).await;
    User { server, token, organisation: Some(server.organisation.to_string()) }
}

#[tokio::test]
async fn a_member_has_the_scopes_of_their_role() {
    let server = Server::start().await;
    for role in [Role::Admin, Role::Viewer] {
        let user = user(&server, &format!("{role:?}@example.com"), role).await;
        let scopes = user.ask(Method::GET, "/admin/members/me/scopes", Value::Null).await.is(200);
        let expected: Vec<_> = role.scopes().iter().map(|scope| scope.as_str()).collect();
        assert_eq!(scopes, json!(expected));
    }
}

#[tokio::test]
async fn members_come_change_and_go() {
    let server = Server::start().await;
    let new = json!({ "email": "Ada@Example.com", "name": "Ada", "role": "admin" });
    let ada = server.post("/admin/members", new.clone()).await.is(200);
    assert_eq!((&ada["email"], &ada["role"]), (&json!("ada@example.com"), &json!("admin")));
    server.post("/admin/members", new).await.is(409);
    let path = format!("/admin/members/{}", ada["user_id"].as_str().unwrap());
    assert_eq!(server.get(&path).await.is(200), ada);
    assert_eq!(server.get("/admin/members").await.is(200), json!([ada]));
    server.patch(&path, json!({ "role": "viewer" })).await.is(409);
    server.delete(&path).await.is(409);
    let bob = json!({ "email": "bob@example.com", "role": "admin" });
    server.post("/admin/members", bob).await.is(200);
    let changed = server.patch(&path, json!({ "role": "viewer", "name": "A." })).await.is(200);
    assert_eq!((&changed["role"], &changed["name"]), (&json!("viewer"), &json!("A.")));
    server.delete(&path).await.is(204);
    server.get(&path).await.is(404);
    server.delete(&path).await.is(404);
    for (body, place) in [
        (json!({ "role": "viewer" }), "body.email"),
        (json!({ "email": "x", "role": "viewer" }), "body.email"),
        (json!({ "email": "x@example.com" }), "body.role"),
        (json!({ "email": "x@example.com", "role": "owner" }), "body.role"),
        (json!({ "email": "x@example.com", "role": "viewer", "user_id": UNKNOWN }), "body.user_id"),
        (json!({ "email": "x@example.com", "role": "viewer", "name": "a\nb" }), "body.name"),
    ] {
        assert_eq!(server.post("/admin/members", body).await.places(), [place]);
    }
}

#[tokio::test]
async fn nobody_makes_somebody_stronger_than_themselves() {
    let server = Server::start().await;
    let weak = server.key_with(&["viewer", "members:manage"]).await;
    let ask = async |method, path: &str, body| server.call(method, path, &weak, &body).await;
    let admin = json!({ "email": "ada@example.com", "role": "admin" });
    ask(Method::POST, "/admin/members", admin.clone()).await.is(400);
    let viewer = json!({ "email": "bob@example.com", "role": "viewer" });
    let bob = ask(Method::POST, "/admin/members", viewer).await.is(200);
    let path = format!("/admin/members/{}", bob["user_id"].as_str().unwrap());
    ask(Method::PATCH, &path, json!({ "role": "admin" })).await.is(400);
    let ada = server.post("/admin/members", admin).await.is(200);
    let path = format!("/admin/members/{}", ada["user_id"].as_str().unwrap());
    ask(Method::PATCH, &path, json!({ "role": "viewer" })).await.is(400);
    ask(Method::DELETE, &path, Value::Null).await.is(400);
}

#[tokio::test]
async fn a_user_makes_lists_and_ends_tokens_of_their_own() {
    let server = Server::start().await;
    let mut ada = user(&server, "ada@example.com", Role::Viewer).await;
    let bob = user(&server, "bob@example.com", Role::Admin).await;
    ada.organisation = None;
    let path = "/admin/personal-access-tokens";
    let reply = ada.ask(Method::POST, path, json!({ "name": "laptop" })).await;
    assert_eq!(reply.headers["cache-control"], "no-store");
    let made = reply.is(200);
    let text = made["pat_key"].as_str().unwrap().to_owned();
    assert!(text.starts_with("pat_"));
    assert_eq!(made["expires_at"], Value::Null);
    let listed = ada.ask(Method::GET, path, Value::Null).await;
    assert!(!listed.text.contains(text.split_once('.').unwrap().1));
    let listed = listed.is(200);
    assert_eq!((&listed[0]["token_id"], &listed[0]["name"]), (&made["token_id"], &json!("laptop")));
    assert_eq!(listed.as_array().unwrap().len(), 2);

    let one = format!("{path}/{}", made["token_id"].as_str().unwrap());
    bob.ask(Method::DELETE, &one, Value::Null).await.is(404);
    let new = User { server: &server, token: text, organisation: bob.organisation.clone() };
    new.ask(Method::GET, "/core/trunks", Value::Null).await.is(200);
    ada.ask(Method::DELETE, &one, Value::Null).await.is(204);
    new.ask(Method::GET, "/core/trunks", Value::Null).await.is(401);
    new.ask(Method::GET, path, Value::Null).await.is(401);
    ada.ask(Method::DELETE, &one, Value::Null).await.is(404);
    let bad = json!({ "name": "x", "user_id": UNKNOWN });
    assert_eq!(ada.ask(Method::POST, path, bad).await.places(), ["body.user_id"]);
    server.get(path).await.is(403);
}

#[tokio::test]
async fn a_user_learns_which_organizations_there_are_for_them() {
    let server = Server::start().await;
    let (other, _) = server.stranger().await;
    let roles = [(server.organisation, Role::Admin), (other, Role::Viewer)];
    let token = server.token_of("ada@example.com", &roles, None).await;
    let ada = User { server: &server, token, organisation: None };
    let all = ada.ask(Method::GET, "/admin/members/me/organizations", Value::Null).await.is(200);
    let expected = json!([
        { "organization_id": server.organisation, "name": "default", "role": "admin" },
        { "organization_id": other, "name": "other", "role": "viewer" },
    ]);
    assert_eq!(all, expected);
}

#[tokio::test]
async fn a_tree_of_organizations_is_managed_from_above() {
    let server = Server::start().await;
    let key = server.key_with(&["admin"]).await;
    let ask = async |method, path: &str, body| server.call(method, path, &key, &body).await;
    let child = ask(Method::POST, "/admin/organizations", json!({ "name": "c" })).await.is(200);
    assert_eq!(child["parent_id"], json!(server.organisation));
    let below = json!({ "name": "d", "parent_id": child["id"] });
    let leaf = ask(Method::POST, "/admin/organizations", below).await.is(200);
    let list = ask(Method::GET, "/admin/organizations", Value::Null).await.is(200);
    let ids: Vec<_> = list.as_array().unwrap().iter().map(|one| &one["id"]).collect();
    assert_eq!(ids, [&leaf["id"], &child["id"], &json!(server.organisation)]);

    let path = format!("/admin/organizations/{}", id(&leaf));
    let changed = ask(Method::PATCH, &path, json!({ "name": "e" })).await.is(200);
    assert_eq!(changed["name"], "e");
    assert_eq!(ask(Method::GET, &path, Value::Null).await.is(200), changed);
    let pats = format!("{path}/organization-pats");
    let inside = ask(Method::POST, &pats, json!({ "name": "first" })).await;
    assert_eq!(inside.headers["cache-control"], "no-store");
    let inside = inside.is(200)["pat_key"].as_str().unwrap().to_owned();
    let stronger = json!({ "name": "x", "grants": ["operator:read"] });
    ask(Method::POST, &pats, stronger.clone()).await.is(400);
    server.post(&pats, stronger).await.is(200);
    let members = format!("{path}/members");
    let ada = json!({ "email": "ada@example.com", "role": "admin" });
    ask(Method::POST, &members, ada).await.is(200);

    // From below nothing above is seen.
    let own = server.call(Method::GET, "/admin/organizations", &inside, &Value::Null).await;
    assert_eq!(own.is(200).as_array().unwrap().len(), 1);
    for above in [id(&child), server.organisation.to_string(), UNKNOWN.to_owned()] {
        let path = format!("/admin/organizations/{above}");
        server.call(Method::GET, &path, &inside, &Value::Null).await.is(404);
        let change = json!({ "name": "taken" });
        server.call(Method::PATCH, &path, &inside, &change).await.is(404);
    }
}

#[tokio::test]
async fn what_is_the_operators_takes_the_operator() {
    let server = Server::start().await;
    let key = server.key_with(&["admin"]).await;
    let ask = async |method, path: &str, body| server.call(method, path, &key, &body).await;
    let path = "/admin/organizations";
    let root = json!({ "name": "r", "parent_id": null });
    ask(Method::POST, path, root.clone()).await.is(403);
    ask(Method::POST, path, json!({ "name": "c", "max_phone_numbers": 1_000 })).await.is(403);
    ask(Method::GET, "/admin/organizations?all=true", Value::Null).await.is(403);
    let own = format!("{path}/{}", server.organisation);
    ask(Method::PATCH, &own, json!({ "max_phone_numbers": null })).await.is(403);
    let weak = server.key_with(&["child_organizations:manage"]).await;
    server.call(Method::PATCH, &own, &weak, &json!({ "name": "x" })).await.is(403);

    let root = server.post(path, root).await.is(200);
    assert_eq!(root["parent_id"], Value::Null);
    let path = format!("{path}/{}", id(&root));
    ask(Method::GET, &path, Value::Null).await.is(404);
    let change = json!({ "max_phone_numbers": 7 });
    assert_eq!(server.patch(&path, change).await.is(200)["max_phone_numbers"], 7);
    let all = server.get("/admin/organizations?all=true").await.is(200);
    assert_eq!(all.as_array().unwrap().len(), 2);
    for (body, place) in [
        (json!({}), "body.name"),
        (json!({ "name": "" }), "body.name"),
        (json!({ "name": "x", "parent_id": 1 }), "body.parent_id"),
        (json!({ "name": "x", "max_phone_numbers": -1 }), "body.max_phone_numbers"),
        (json!({ "name": "x", "id": UNKNOWN }), "body.id"),
    ] {
        assert_eq!(server.post("/admin/organizations", body).await.places(), [place]);
    }
}

#[tokio::test]
async fn the_operator_lets_the_first_user_in() {
    let server = Server::start().await;
    let user = server.post("/admin/users", json!({ "email": "ada@example.com" })).await.is(200);
    server.post("/admin/users", json!({ "email": "ADA@example.com" })).await.is(409);
    let tokens = format!("/admin/users/{}/personal-access-tokens", id(&user));
    let made = server.post(&tokens, json!({ "name": "first" })).await;
    assert_eq!(made.headers["cache-control"], "no-store");
    let token = made.is(200)["pat_key"].as_str().unwrap().to_owned();
    let member = json!({ "email": "ada@example.com", "role": "admin" });
    let member = server.post("/admin/members", member).await.is(200);
    assert_eq!(member["user_id"], user["id"]);
    let organisation = Some(server.organisation.to_string());
    let ada = User { server: &server, token, organisation };
    ada.ask(Method::GET, "/core/trunks", Value::Null).await.is(200);
    ada.ask(Method::GET, "/admin/users", Value::Null).await.is(403);
    assert_eq!(server.get("/admin/users").await.is(200), json!([user]));

    let bob = json!({ "email": "bob@example.com", "role": "admin" });
    let path = format!("/admin/users/{}", id(&user));
    server.delete(&path).await.is(409);
    server.post("/admin/members", bob).await.is(200);
    server.delete(&path).await.is(204);
    ada.ask(Method::GET, "/core/trunks", Value::Null).await.is(401);
    server.delete(&path).await.is(404);
    server.post(&tokens, json!({ "name": "x" })).await.is(404);
}
