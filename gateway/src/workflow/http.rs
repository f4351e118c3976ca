//! The request of an `http` step, and what its answer looks like to the steps after it.

use std::time::Duration;

use config::limits::WORKFLOW_OUTPUT_VALUES;
use config::workflows::HttpStep;
use reqwest::Url;
use serde_json::{Map, Value, json};

use super::value;

/// A request whose texts are all filled in. Whether it may be made is for the client to judge.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpRequest {
    /// The method, in capitals.
    pub method: &'static str,
    /// Where to, with the query.
    pub url: String,
    /// Header fields; names are tokens, values have no line ends.
    pub headers: Vec<(String, String)>,
    /// The body and its type.
    pub body: Option<(Vec<u8>, &'static str)>,
    /// How long it may take.
    pub timeout: Duration,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HttpAnswer {
    /// The status.
    pub status: u16,
    /// Header fields in the order they came.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// Makes the request of a step from its URL, headers, query and body, in this order.
pub(crate) fn request(
    step: &HttpStep,
    mut filled: impl Iterator<Item = Value>,
) -> Result<HttpRequest, String> {
    let Some(Value::String(mut url)) = filled.next() else {
        return Err("the URL is not a string".to_owned());
    };
    let headers = pairs(filled.next(), "headers")?;
    if let Some((name, _)) = headers.iter().find(|(_, text)| text.contains(['\r', '\n', '\0'])) {
        return Err(format!("the header {name} holds a line end"));
    }
    let query = pairs(filled.next(), "query")?;
    if !query.is_empty() {
        let mut whole = Url::parse(&url).map_err(|why| format!("the URL cannot be read: {why}"))?;
        whole.query_pairs_mut().extend_pairs(&query);
        url = whole.into();
    }
    let body = filled.next().filter(|body| !body.is_null()).map(|body| match body {
        Value::String(text) => (text.into_bytes(), "text/plain; charset=utf-8"),
        other => (other.to_string().into_bytes(), "application/json"),
    });
    Ok(HttpRequest { method: step.method, url, headers, body, timeout: step.timeout })
}

/// The entries of an object, but for those that are null.
fn pairs(object: Option<Value>, field: &str) -> Result<Vec<(String, String)>, String> {
    let Some(Value::Object(object)) = object else { return Ok(Vec::new()) };
    let mut found = Vec::with_capacity(object.len());
    for (name, value) in object {
        match value {
            Value::Null => {}
            Value::String(text) => found.push((name, text)),
            Value::Bool(_) | Value::Number(_) => found.push((name, value.to_string())),
            _ => return Err(format!("{field}.{name} is neither text nor number")),
        }
    }
    Ok(found)
}

/// The output of the step: `{status_code, headers, body}`. Names of headers are in lower case; of one
/// that came more than once the values stand in one text. The body is parsed if it is JSON; its values
/// are counted before that, as a small text may be a great many of them.
pub(crate) fn output(answer: HttpAnswer) -> Result<Value, String> {
    let most = WORKFLOW_OUTPUT_VALUES.value;
    if value::holds_more_than(&answer.body, most) {
        return Err(format!("the URL answered with more than {most} JSON values"));
    }
    let mut headers = Map::new();
    for (name, text) in answer.headers {
        match headers.entry(name.to_ascii_lowercase()).or_insert(Value::Null) {
            Value::String(before) => {
                before.push_str(", ");
                before.push_str(&text);
            }
            empty => *empty = Value::String(text),
        }
    }
    let body = match serde_json::from_slice(&answer.body) {
        Ok(json) => json,
        Err(_) if answer.body.is_empty() => Value::Null,
        Err(_) => Value::String(String::from_utf8_lossy(&answer.body).into_owned()),
    };
    Ok(json!({ "status_code": answer.status, "headers": headers, "body": body }))
}

#[cfg(test)]
mod tests {
    use config::workflows::{Definition, Kind};

    use super::*;

    fn step(fields: Value) -> HttpStep {
        let mut http = json!({"id": "a", "type": "http", "next": "b"});
        http.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let steps = json!({"steps": [http, {"id": "b", "type": "output"}]});
        let parsed = Definition::parse(&steps).unwrap();
        match &parsed.definition.steps()[0].kind {
            Kind::Http(http) => (**http).clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_request_is_put_together_from_its_fields() {
        let step = step(json!({"method": "post", "url": "https://crm.example/find?a=1"}));
        let filled = [
            json!("https://crm.example/find?a=1"),
            json!({"X-Key": "k", "X-None": null, "X-Number": 7}),
            json!({"number": "+15550001 &"}),
            json!({"deep": [1]}),
        ];
        let request = request(&step, filled.into_iter()).unwrap();
        assert_eq!(request.url, "https://crm.example/find?a=1&number=%2B15550001+%26");
        assert_eq!(
            request.headers,
            [("X-Key".into(), "k".into()), ("X-Number".into(), "7".into())]
        );
        assert_eq!(request.body, Some((br#"{"deep":[1]}"#.to_vec(), "application/json")));
        assert_eq!((request.method, request.timeout), ("POST", Duration::from_secs(10)));
    }

    #[test]
    fn a_header_cannot_smuggle_a_line() {
        let step = step(json!({"url": "https://crm.example"}));
        let filled = [json!("https://crm.example"), json!({"X-Key": "a\r\nX-Other: b"})];
        let refused = request(&step, filled.into_iter()).unwrap_err();
        assert_eq!(refused, "the header X-Key holds a line end");
    }

    #[test]
    fn a_body_is_parsed_when_it_is_json() {
        let headers = vec![
            ("Content-Type".to_owned(), "application/json".to_owned()),
            ("Set-Cookie".to_owned(), "a".to_owned()),
            ("set-cookie".to_owned(), "b".to_owned()),
        ];
        let answer = HttpAnswer { status: 200, headers, body: b"{\"vip\":true}".to_vec() };
        assert_eq!(
            output(answer).unwrap(),
            json!({"status_code": 200, "body": {"vip": true},
                "headers": {"content-type": "application/json", "set-cookie": "a, b"}})
        );
        let text = |body: &[u8]| {
            let answer = HttpAnswer { status: 204, body: body.to_vec(), ..HttpAnswer::default() };
            output(answer).unwrap()["body"].clone()
        };
        assert_eq!(text(b""), Value::Null);
        assert_eq!(text(b"not \xff json"), json!("not \u{fffd} json"));
    }

    #[test]
    fn a_body_of_too_many_values_is_not_parsed() {
        let zeros = |count: usize| {
            let body = format!("[{}0]", "0,".repeat(count - 1)).into_bytes();
            output(HttpAnswer { status: 200, body, ..HttpAnswer::default() })
        };
        assert!(zeros(9_999).is_ok());
        assert_eq!(zeros(10_000).unwrap_err(), "the URL answered with more than 10000 JSON values");
    }
}
