//! JSON values as workflows see them: what is true, how large, how deep, and how they are shown.

use std::io::{self, Write};

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
}
