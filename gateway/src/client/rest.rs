//! The REST API, asked from outside.

use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder, Response, Url};
use serde_json::Value;

use super::failure::{Failure, Refusal};

/// Items of a page that is asked for when all are wanted: the most the API gives.
const PAGE: usize = 1_000;

/// The most items that are collected of one list.
pub(crate) const MOST_ITEMS: usize = 100_000;

/// The largest answer that is read, in bytes.
const ANSWER_BYTES: usize = 64 << 20;

/// The API of one gateway, with a key.
#[derive(Debug)]
pub(crate) struct Rest {
    client: reqwest::Client,
    base: Url,
}

/// What an API path is made of: each word is one segment, escaped where it must be.
pub(crate) type Segments<'a> = &'a [&'a str];

/// A query: names and values, not yet escaped.
pub(crate) type Query = Vec<(&'static str, String)>;

/// A list, as far as it was wanted.
#[derive(Debug)]
pub(crate) struct Listing {
    pub(crate) items: Vec<Value>,
    /// Whether the API has more.
    pub(crate) more: bool,
}

impl Rest {
    pub(crate) const fn new(client: reqwest::Client, base: Url) -> Self {
        Self { client, base }
    }

    /// GET of one thing.
    pub(crate) async fn get(&self, path: Segments<'_>, query: &Query) -> Result<Value, Failure> {
        self.ask(Method::GET, path, query, None).await
    }

    /// POST; the answer is `null` when it has no body.
    pub(crate) async fn post(&self, path: Segments<'_>, body: &Value) -> Result<Value, Failure> {
        self.ask(Method::POST, path, &Query::new(), Some(body)).await
    }

    /// PUT.
    pub(crate) async fn put(&self, path: Segments<'_>, body: &Value) -> Result<Value, Failure> {
        self.ask(Method::PUT, path, &Query::new(), Some(body)).await
    }

    /// PATCH.
    pub(crate) async fn patch(&self, path: Segments<'_>, body: &Value) -> Result<Value, Failure> {
        self.ask(Method::PATCH, path, &Query::new(), Some(body)).await
    }

    /// DELETE.
    pub(crate) async fn delete(&self, path: Segments<'_>) -> Result<(), Failure> {
        self.ask(Method::DELETE, path, &Query::new(), None).await.map(drop)
    }

    /// At most `wanted` items of a list, newest first, over as many pages as that takes.
    pub(crate) async fn list(
        &self,
        path: Segments<'_>,
        query: &Query,
        wanted: usize,
    ) -> Result<Listing, Failure> {
        let mut items = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            // One more than is wanted tells whether there are more.
            let limit = (wanted - items.len() + 1).min(PAGE);
            let mut query = query.clone();
            query.push(("limit", limit.to_string()));
            query.extend(cursor.take().map(|cursor| ("cursor", cursor)));
            let (headers, page) = self.send(Method::GET, path, &query, None).await?;
            let Value::Array(page) = page else {
                return Err(Failure::Unreachable("the API answered with no list".to_owned()));
            };
            let is_last = page.is_empty();
            items.extend(page);
            cursor = header(&headers, "x-next-cursor");
            if items.len() > wanted {
                items.truncate(wanted);
                return Ok(Listing { items, more: true });
            }
            if is_last || cursor.is_none() {
                return Ok(Listing { items, more: false });
            }
        }
    }

    /// Every item of a list.
    pub(crate) async fn all(
        &self,
        path: Segments<'_>,
        query: &Query,
    ) -> Result<Vec<Value>, Failure> {
        let listing = self.list(path, query, MOST_ITEMS).await?;
        if listing.more {
            let why = format!("{} has more than {MOST_ITEMS} items", path.join("/"));
            return Err(Failure::Stopped(why));
        }
        Ok(listing.items)
    }

    /// POST of something that answers with plain text, as it comes.
    pub(crate) async fn text(&self, path: Segments<'_>, body: &Value) -> Result<String, Failure> {
        let request = self.request(&Method::POST, path, &Query::new())?.json(body);
        let (asked, reply) = self.answer(&Method::POST, path, request).await?;
        let (status, headers) = (reply.status(), reply.headers().clone());
        let text = read(reply).await?;
        if status.is_success() {
            Ok(text)
        } else {
            Err(refusal(status.as_u16(), asked, &headers, &text))
        }
    }

    async fn ask(
        &self,
        method: Method,
        path: Segments<'_>,
        query: &Query,
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        self.send(method, path, query, body).await.map(|(_, value)| value)
    }

    async fn send(
        &self,
        method: Method,
        path: Segments<'_>,
        query: &Query,
        body: Option<&Value>,
    ) -> Result<(HeaderMap, Value), Failure> {
        let mut request = self.request(&method, path, query)?;
        if let Some(body) = body {
            request = request.json(body);
        }
        let (asked, reply) = self.answer(&method, path, request).await?;
        let (status, headers) = (reply.status(), reply.headers().clone());
        let text = read(reply).await?;
        if !status.is_success() {
            return Err(refusal(status.as_u16(), asked, &headers, &text));
        }
        if text.is_empty() {
            return Ok((headers, Value::Null));
        }
        let value = serde_json::from_str(&text);
        let value =
            value.map_err(|_| Failure::Unreachable(format!("{asked}: the answer is no JSON")))?;
        Ok((headers, value))
    }

    fn request(
        &self,
        method: &Method,
        path: Segments<'_>,
        query: &Query,
    ) -> Result<RequestBuilder, Failure> {
        if let Some(wrong) = path.iter().find(|segment| matches!(**segment, "" | "." | "..")) {
            return Err(Failure::Unusable(format!("\"{wrong}\" names nothing")));
        }
        let mut url = self.base.clone();
        let wrong = || Failure::Unusable("--url cannot hold a path".to_owned());
        url.path_segments_mut().map_err(|()| wrong())?.pop_if_empty().extend(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(self.client.request(method.clone(), url))
    }

    async fn answer(
        &self,
        method: &Method,
        path: Segments<'_>,
        request: RequestBuilder,
    ) -> Result<(String, Response), Failure> {
        let asked = format!("{method} /{}", path.join("/"));
        match request.send().await {
            Ok(reply) => Ok((asked, reply)),
            Err(why) => Err(Failure::Unreachable(format!("{}: {}", self.base, unreachable(&why)))),
        }
    }
}

/// Why there was no answer, down to its root.
fn unreachable(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time (--timeout)".to_owned();
    }
    let mut root: &dyn std::error::Error = error;
    while let Some(source) = root.source() {
        root = source;
    }
    root.to_string()
}

async fn read(mut reply: Response) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    loop {
        let chunk = reply.chunk().await.map_err(|why| Failure::Unreachable(unreachable(&why)))?;
        let Some(chunk) = chunk else { break };
        if bytes.len() + chunk.len() > ANSWER_BYTES {
            return Err(Failure::Unreachable("the answer is too large".to_owned()));
        }
        bytes.extend_from_slice(&chunk);
    }
    String::from_utf8(bytes).map_err(|_| Failure::Unreachable("the answer is no text".to_owned()))
}

fn refusal(status: u16, asked: String, headers: &HeaderMap, text: &str) -> Failure {
    let body: Option<Value> = serde_json::from_str(text).ok();
    let detail = body.as_ref().and_then(|body| body.get("detail").cloned());
    let plain = || Value::String(text.chars().take(200).collect());
    Failure::Refused(Box::new(Refusal {
        status,
        asked,
        detail: detail.unwrap_or_else(plain),
        request_id: header(headers, "x-request-id"),
    }))
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use axum::Router;
    use axum::extract::Query as Asked;
    use axum::http::StatusCode;
    use axum::response::IntoResponse as _;
    use axum::routing::get;
    use serde_json::json;

    use super::*;

    /// An API on loopback with 2,500 things, in pages.
    async fn things() -> Rest {
        let page = async |Asked(asked): Asked<HashMap<String, String>>| {
            let number = |name: &str| asked.get(name).and_then(|text| text.parse::<usize>().ok());
            let (limit, from) = (number("limit").unwrap_or(100), number("cursor").unwrap_or(0));
            let to = (from + limit).min(2_500);
            let mut reply = axum::Json((from..to).collect::<Vec<_>>()).into_response();
            if to - from == limit {
                reply.headers_mut().insert("x-next-cursor", to.into());
            }
            reply
        };
        let moved = async || (StatusCode::FOUND, [("location", "/core/things")]);
        let router =
            Router::new().route("/core/things", get(page)).route("/core/moved", get(moved));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async { axum::serve(listener, router).await });
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
        Rest::new(client.build().unwrap(), base.parse().unwrap())
    }

    #[tokio::test]
    async fn a_list_is_read_over_as_many_pages_as_are_wanted() {
        let rest = things().await;
        for (wanted, there, more) in
            [(1, 1, true), (999, 999, true), (1_000, 1_000, true), (2_500, 2_500, false)]
        {
            let listing = rest.list(&["core", "things"], &Query::new(), wanted).await.unwrap();
            assert_eq!((listing.items.len(), listing.more), (there, more), "{wanted}");
        }
        let all = rest.all(&["core", "things"], &Query::new()).await.unwrap();
        assert_eq!(all, (0..2_500).map(Value::from).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_redirection_is_not_followed() {
        let rest = things().await;
        let answer = rest.get(&["core", "moved"], &Query::new()).await;
        let Err(Failure::Refused(refusal)) = answer else { panic!("{answer:?}") };
        assert_eq!(refusal.status, 302);
    }

    #[tokio::test]
    async fn what_a_person_writes_stays_one_segment_of_the_path() {
        let rest = things().await;
        let request =
            rest.request(&Method::GET, &["core", "../admin?x=1#"], &Query::new()).unwrap();
        let url = request.build().unwrap().url().to_string();
        assert!(url.ends_with("/core/..%2Fadmin%3Fx=1%23"), "{url}");
        for nothing in ["", ".", ".."] {
            assert!(rest.request(&Method::GET, &["core", nothing], &Query::new()).is_err());
        }
    }

    #[test]
    fn an_answer_that_is_no_json_is_still_told() {
        let failure = refusal(502, String::new(), &HeaderMap::new(), "<html>bad gateway");
        assert!(failure.text().contains("bad gateway"));
        let failure =
            refusal(404, String::new(), &HeaderMap::new(), &json!({"detail": "x"}).to_string());
        assert!(failure.text().starts_with("error: x\n"));
    }
}
