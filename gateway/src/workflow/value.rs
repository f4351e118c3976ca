//! JSON values as workflows see them: what is true, how large, how many, how deep, and how they are
//! shown.

use std::cell::Cell;
use std::fmt;
use std::io::{self, Write};

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// How deep a value may be nested. `serde_json` reads twice as deep.
pub(crate) const MAX_DEPTH: usize = 64;

/// Whether JSONata's `$boolean` would call it true: not empty, not zero, not null; an array if one of
/// its entries is.
pub(crate) fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(truth) => *truth,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => items.iter().any(is_true),
        Value::Object(fields) => !fields.is_empty(),
    }
}

/// Its size as JSON, in bytes.
pub(crate) fn bytes(value: &Value) -> usize {
    struct Counted(usize);
    impl Write for Counted {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut counted = Counted(0);
    serde_json::to_writer(&mut counted, value).map_or(usize::MAX, |()| counted.0)
}

/// How many values it is made of, itself among them.
pub(crate) fn count(value: &Value) -> u64 {
    let inner: u64 = match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(fields) => fields.values().map(count).sum(),
        _ => 0,
    };
    inner + 1
}

/// Whether a JSON text is made of more values than that. It keeps nothing of what it reads, and reads
/// no further than it must; what is no JSON has no values.
pub(crate) fn holds_more_than(json: &[u8], most: u64) -> bool {
    let left = Cell::new(Some(most));
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    // Whether it reads is for those who want to know what it says.
    let _ = Counter(&left).deserialize(&mut deserializer);
    left.get().is_none()
}

/// Counts down from what may still come; nothing once there was more.
#[derive(Clone, Copy)]
struct Counter<'a>(&'a Cell<Option<u64>>);

impl<'de> DeserializeSeed<'de> for Counter<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.0.set(self.0.get().and_then(|left| left.checked_sub(1)));
        match self.0.get() {
            Some(_) => deserializer.deserialize_any(self),
            None => Err(D::Error::custom("too many values")),
        }
    }
}

impl<'de> Visitor<'de> for Counter<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        while fields.next_key::<IgnoredAny>()?.is_some() {
            fields.next_value_seed(self)?;
        }
        Ok(())
    }
}

/// Whether it is nested deeper than that; looks no deeper itself.
pub(crate) fn deeper_than(value: &Value, depth: usize) -> bool {
    let inner = |value: &Value| match depth.checked_sub(1) {
        Some(depth) => deeper_than(value, depth),
        None => true,
    };
    match value {
        Value::Array(items) => depth == 0 || items.iter().any(inner),
        Value::Object(fields) => depth == 0 || fields.values().any(inner),
        _ => false,
    }
}

/// A number as JSON has it: whole if it is whole.
pub(crate) fn number(number: f64) -> Value {
    let text = number.to_string();
    text.parse::<i64>().map_or_else(|_| Value::from(number), Value::from)
}

/// It as JSON, of at most so many characters.
pub(crate) fn summary(value: &Value, characters: usize) -> String {
    cut(&value.to_string(), characters)
}

/// The text, or its beginning with an ellipsis.
pub(crate) fn cut(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn truth_is_that_of_jsonata() {
        for value in [json!(true), json!(2), json!("x"), json!([0, 1]), json!({"a": null})] {
            assert!(is_true(&value), "{value}");
        }
        for value in [json!(null), json!(0), json!(""), json!([]), json!([0, ""]), json!({})] {
            assert!(!is_true(&value), "{value}");
        }
    }

    #[test]
    fn depth_counts_containers() {
        assert!(!deeper_than(&json!(1), 0));
        assert!(deeper_than(&json!([]), 0));
        assert!(!deeper_than(&json!([{"a": 1}]), 2));
        assert!(deeper_than(&json!([{"a": [1]}]), 2));
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(cut("äöü", 3), "äöü");
        assert_eq!(cut("äöü", 2), "äö…");
        assert_eq!(summary(&json!({"a": 1}), 99), r#"{"a":1}"#);
    }

    #[test]
    fn sizes_are_those_of_the_json() {
        let value = json!({"a": [1, "ü", null]});
        assert_eq!(bytes(&value), value.to_string().len());
        assert_eq!((number(2.0), number(0.5)), (json!(2), json!(0.5)));
    }

    #[test]
    fn values_are_counted_in_a_value_and_in_its_text_alike() {
        let value = json!({"a": [1, "ü\n", null, -1, 0.5, true, {}], "b": {"c": []}});
        assert_eq!(count(&value), 11);
        let text = value.to_string();
        assert!(holds_more_than(text.as_bytes(), 10));
        assert!(!holds_more_than(text.as_bytes(), 11));
        let broken = "[".to_owned() + &"0,".repeat(50);
        assert!(holds_more_than(broken.as_bytes(), 50), "the first fifty are enough to know");
        assert!(!holds_more_than(broken.as_bytes(), 51));
        assert!(!holds_more_than(b"no JSON", 1));
    }
}
