//! Pages of a list: `limit`, `cursor`, the periods every list filters by, and its reply.
//!
//! A list is a bare JSON array, newest first. The cursor is the Base64 of the ISO 8601 `created_at`
//! of the last item, as clients of the contract build it themselves; it only ever narrows the
//! caller's own rows, so it needs no signature. A full page carries it as X-Next-Cursor too.

use axum::Json;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::json;
use crate::clock::Timestamp;
use crate::limits::{API_BODY_ITEMS, API_CURSOR_CHARACTERS, API_FILTER_CHARACTERS};
use crate::model::Page;

/// Where the page before ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor(Timestamp);

impl Cursor {
    fn print(at: Timestamp) -> String {
        STANDARD.encode(at.to_string())
    }

    fn parse(text: &str) -> Option<Self> {
        if text.len() > API_CURSOR_CHARACTERS.value_usize() {
            return None;
        }
        // All three alphabets are met in the field: padded or not, and made safe for URLs.
        let plain =
            text.trim_end_matches('=').replace('-', "+").replace('_', "/").replace(' ', "+");
        let bytes = STANDARD_NO_PAD.decode(plain).ok()?;
        std::str::from_utf8(&bytes).ok()?.parse().ok().map(Self)
    }
}

impl<'de> Deserialize<'de> for Cursor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom("Cursor is not one of ours"))
    }
}

/// The page that `limit` and `cursor` ask for.
pub(crate) fn page(limit: Option<u32>, cursor: Option<Cursor>) -> Page {
    Page { limit: limit.unwrap_or(Page::DEFAULT), before: cursor.map(|cursor| cursor.0) }
}

/// The query of a list that has no filters.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub(crate) struct PageOnly {
    /// Most items to return.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    pub(crate) limit: Option<u32>,
    /// Where the page before ended: Base64 of the `created_at` of its last item.
    #[param(value_type = Option<String>)]
    pub(crate) cursor: Option<Cursor>,
}

/// A filter that is a JSON object in a query parameter.
#[derive(Clone, Debug)]
pub(crate) struct JsonObject(pub(crate) Map<String, Value>);

impl<'de> Deserialize<'de> for JsonObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.len() > API_FILTER_CHARACTERS.value_usize() {
            return Err(D::Error::custom("Filter is too long"));
        }
        match json::parse(text.as_bytes(), API_BODY_ITEMS.value) {
            Ok(Value::Object(object)) => Ok(Self(object)),
            Ok(_) => Err(D::Error::custom("Filter is not a JSON object")),
            Err(why) => Err(D::Error::custom(format!("Filter is not JSON: {why}"))),
        }
    }
}

/// A reply that holds a secret: nothing on the way may keep it.
pub(crate) fn shown_once<T: Serialize>(body: &T) -> Response {
    let mut response = Json(body).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A page as a reply.
pub(crate) fn reply<T: Serialize>(
    page: Page,
    items: Vec<T>,
    created_at: impl Fn(&T) -> Timestamp,
) -> Response {
    let full = usize::try_from(page.limit).is_ok_and(|limit| items.len() >= limit);
    let next = items.last().filter(|_| full).map(|last| Cursor::print(created_at(last)));
    let mut response = Json(items).into_response();
    if let Some(next) = next.and_then(|next| HeaderValue::from_str(&next).ok()) {
        response.headers_mut().insert(NEXT_CURSOR, next);
    }
    response
}

const NEXT_CURSOR: HeaderName = HeaderName::from_static("x-next-cursor");

/// Declares the query of a list: its own filters, the periods, and the page.
macro_rules! listing {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Default, serde::Deserialize, utoipa::IntoParams)]
        #[into_params(parameter_in = Query)]
        #[serde(default)]
        pub(crate) struct $name {
            $($(#[$doc])* $field: Option<$type>,)*
            /// Made at or after this moment (ISO 8601). Without an offset it is in UTC; a date alone is
            /// its first moment.
            created_after: Option<$crate::clock::Timestamp>,
            /// Made at or before this moment.
            created_before: Option<$crate::clock::Timestamp>,
            /// Changed at or after this moment.
            updated_after: Option<$crate::clock::Timestamp>,
            /// Changed at or before this moment.
            updated_before: Option<$crate::clock::Timestamp>,
            /// Most items to return.
            #[param(minimum = 1, maximum = 1000, default = 100)]
            limit: Option<u32>,
            /// Where the page before ended: Base64 of the `created_at` of its last item.
            #[param(value_type = Option<String>)]
            cursor: Option<$crate::api::page::Cursor>,
        }

        impl $name {
            fn page(&self) -> $crate::model::Page {
                $crate::api::page::page(self.limit, self.cursor)
            }

            fn period(&self) -> $crate::model::Period {
                $crate::model::Period {
                    created_after: self.created_after,
                    created_before: self.created_before,
                    updated_after: self.updated_after,
                    updated_before: self.updated_before,
                }
            }
        }
    };
}

pub(crate) use listing;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_the_base64_of_a_moment() {
        let at: Timestamp = "2026-01-31T12:00:00.000001Z".parse().unwrap();
        let printed = Cursor::print(at);
        assert_eq!(printed, "MjAyNi0wMS0zMVQxMjowMDowMC4wMDAwMDFa");
        assert_eq!(Cursor::parse(&printed), Some(Cursor(at)));
        let other = STANDARD.encode("2026-01-31T12:00:00+00:00");
        assert_eq!(
            Cursor::parse(other.trim_end_matches('=')).unwrap().0.to_string(),
            "2026-01-31T12:00:00.000000Z"
        );
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        let long = "A".repeat(600);
        for bad in ["", "%%%", "AAAA", "2026-01-31T12:00:00Z", long.as_str()] {
            assert_eq!(Cursor::parse(bad), None, "{bad}");
        }
    }
}
