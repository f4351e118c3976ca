//! The API of the running program, over HTTP, from its own document.

use serde_json::{Value, json};

use crate::common::Gateway;
use crate::http::http;

/// `(METHOD, path with parameters filled in, operation)` of the whole document.
fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let id = "67e55044-10b1-426f-9247-bb680e5fe0c8";
        let path = path.replace("{phone_number}", "+15550001111").replace("{version}", "1");
        let path = path.split('/').map(|part| if part.starts_with('{') { id } else { part });
        let path: Vec<_> = path.collect();
        for (method, operation) in item.as_object().unwrap() {
            if operation["operationId"].is_string() {
                all.push((method.to_uppercase(), path.join("/"), operation.clone()));
            }
        }
    }
    all
}

fn document(gateway: &Gateway) -> Value {
    let reply = gateway.raw("GET", "/openapi.json", &[], b"");
    assert_eq!(reply.status, 200);
    reply.json()
}

#[test]
fn the_document_is_the_one_the_tests_keep() {
    let gateway = Gateway::empty(&[]);
    let kept = concat!(env!("CARGO_MANIFEST_DIR"), "/api/openapi.json");
    let kept: Value = serde_json::from_slice(&std::fs::read(kept).unwrap()).unwrap();
    assert_eq!(document(&gateway), kept);
}

#[test]
fn nothing_but_the_document_is_open() {
    let mut gateway = Gateway::empty(&[]);
    let operations = operations(&document(&gateway));
    assert!(operations.len() > 20, "{} operations", operations.len());
    for (method, path, operation) in operations {
        let open = operation["security"].as_array().is_some_and(Vec::is_empty);
        let own = gateway.key.to_owned();
        let other = if own.ends_with('x') { 'y' } else { 'x' };
        let headers: [Vec<(&str, String)>; 7] = [
            vec![],
            vec![("authorization", String::new())],
            vec![("authorization", "Bearer".to_owned())],
            vec![("authorization", "Bearer x".to_owned())],
            vec![("authorization", format!("Basic {own}"))],
            vec![("authorization", format!("Bearer {}{other}", &own[..own.len() - 1]))],
            vec![("cookie", format!("token={own}")), ("x-api-key", own.clone())],
        ];
        for headers in headers {
            let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, &**value)).collect();
            let reply = gateway.raw(&method, &path, &headers, b"{}");
            let expected = if open { 200 } else { 401 };
            assert_eq!(reply.status, expected, "{method} {path} {headers:?}: {}", reply.text());
            assert!(!reply.text().contains(&own));
        }
        let doubled = format!("Bearer {own}");
        let twice = [("authorization", &*doubled), ("authorization", "Bearer x")];
        let status = gateway.raw(&method, &path, &twice, b"{}").status;
        assert!(status < 500 && status > 0, "{method} {path}: {status}");
    }
    gateway.assert_unharmed();
}

#[test]
fn no_body_is_a_fault_of_the_server() {
    let mut gateway = Gateway::empty(&[]);
    let key = format!("Bearer {}", gateway.key);
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let objects = format!("{}1{}", "{\"a\":".repeat(50_000), "}".repeat(50_000));
    let wide = format!("{{\"name\":[{}1]}}", "1,".repeat(200_000));
    let large = format!("{{\"name\":\"{}\"}}", "x".repeat(1 << 20));
    let bodies: [&[u8]; 14] = [
        b"",
        b"{",
        b"nonsense",
        b"{\"name\":\"\xff\xfe\"}",
        b"\xef\xbb\xbf{}",
        b"{\"name\":\"\\ud800\"}",
        b"{\"name\":1e999}",
        b"{\"name\":\"a\",\"name\":\"b\"}",
        b"{\"name\":\"\\u0000\"}",
        &[0; 4_096],
        deep.as_bytes(),
        objects.as_bytes(),
        wide.as_bytes(),
        large.as_bytes(),
    ];
    for (method, path, operation) in operations(&document(&gateway)) {
        for (n, body) in bodies.iter().enumerate() {
            for kind in ["application/json", "text/plain"] {
                let headers = [("authorization", &*key), ("content-type", kind)];
                let reply = gateway.raw(&method, &path, &headers, body);
                let what = format!("{method} {path}, body {n}: {} {}", reply.status, reply.text());
                assert!((200..500).contains(&reply.status), "{what}");
                let takes_body = operation["requestBody"].is_object();
                assert!(!takes_body || reply.status >= 400, "{what}");
            }
        }
    }
    gateway.assert_unharmed();
}

#[test]
fn requests_that_are_hardly_http_are_refused_and_the_next_is_served() {
    let mut gateway = Gateway::empty(&[]);
    let key = format!("Bearer {}", gateway.key);
    let long = "x".repeat(20_000);
    let many: Vec<String> = (0..2_000).map(|n| format!("x-{n}")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|name| (&**name, "y")).collect();
    for (method, path, headers) in [
        ("GET", "/core/trunks?cursor=%ff%00%0d%0a", vec![]),
        ("GET", "/core/trunks/..%2f..%2fetc%2fpasswd", vec![]),
        ("GET", "/core//trunks", vec![]),
        ("GET", "/core/trunks/\u{fc}", vec![]),
        ("GET", "http://elsewhere.example/core/trunks", vec![]),
        ("TRACE", "/core/trunks", vec![]),
        ("CONNECT", "elsewhere.example:25", vec![]),
        ("GET /core/trunks HTTP/1.1\r\nx-evil: 1\r\n\r\nGET", "/core/trunks", vec![]),
        ("POST", "/core/agents", vec![("content-length", "5"), ("transfer-encoding", "chunked")]),
        ("POST", "/core/agents", vec![("content-length", "-5")]),
        ("POST", "/core/agents", vec![("content-length", "5"), ("content-length", "6")]),
        ("GET", "/core/trunks", vec![("x-long", &*long)]),
        ("GET", "/core/trunks", many),
    ] {
        let headers = [vec![("authorization", &*key)], headers].concat();
        let reply = http(gateway.api, method, path, &headers, b"");
        assert!(reply.status < 500, "{method} {path}: {} {}", reply.status, reply.text());
        assert_eq!(gateway.call("GET", "/core/trunks", None).status, 200, "{method} {path}");
    }
    let made = gateway.call("POST", "/core/agents", Some(&json!({"name": "still here"})));
    assert_eq!(made.status, 200, "{}", made.text());
    gateway.assert_unharmed();
}
