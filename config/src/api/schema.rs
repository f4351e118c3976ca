//! Checks a JSON value against a JSON Schema and tells every violation with its place.
//!
//! The subset is what our own documents use: `$ref`, `type`, `properties`, `required`,
//! `additionalProperties`, `items`, `oneOf`/`anyOf`, `enum`, `const`, and the bounds of numbers,
//! texts and lists. Request bodies are checked against the very OpenAPI document that is served, so
//! what the document says is what happens. The words in [`Violation::kind`] are those that clients
//! of Pydantic-style services know.

use serde_json::{Value, json};

use super::error::Violation;
use crate::limits::API_VIOLATIONS;

/// A schema with the document its references point into.
#[derive(Clone, Copy)]
pub(crate) struct Schema<'a> {
    /// The whole document.
    pub(crate) document: &'a Value,
    /// The schema to check against.
    pub(crate) root: &'a Value,
    /// Whether `enum` is checked here. Request bodies leave that to the types, which know aliases.
    pub(crate) enums: bool,
}

impl<'a> Schema<'a> {
    /// Every violation of `value`, whose place is `loc`.
    pub(crate) fn violations(self, value: &Value, loc: &[Value]) -> Vec<Violation> {
        let mut check = Check { schema: self, loc: loc.to_vec(), found: Vec::new() };
        check.visit(self.root, value);
        check.found
    }

    /// The schema that `schema` is or refers to.
    pub(crate) fn resolve(self, schema: &'a Value) -> &'a Value {
        let mut at = schema;
        // A bound instead of a loop: a reference to itself must not hang a request.
        for _ in 0..8 {
            let Some(pointer) = at.get("$ref").and_then(Value::as_str) else { return at };
            let target = pointer.strip_prefix('#').and_then(|path| self.document.pointer(path));
            at = target.unwrap_or(&Value::Null);
        }
        at
    }
}

struct Check<'a> {
    schema: Schema<'a>,
    loc: Vec<Value>,
    found: Vec<Violation>,
}

impl<'a> Check<'a> {
    fn fault(&mut self, kind: &'static str, msg: impl Into<String>) {
        if self.found.len() < API_VIOLATIONS.value_usize() {
            self.found.push(Violation::new(&self.loc, kind, msg));
        }
    }

    fn visit(&mut self, schema: &'a Value, value: &Value) {
        let schema = self.schema.resolve(schema);
        for word in ["oneOf", "anyOf"] {
            if let Some(forms) = schema.get(word).and_then(Value::as_array) {
                self.visit_forms(forms, value);
            }
        }
        for part in schema.get("allOf").and_then(Value::as_array).into_iter().flatten() {
            self.visit(part, value);
        }
        if !self.fits_type(schema, value) {
            return;
        }
        self.check_listed(schema, value);
        match value {
            Value::Object(_) => self.visit_object(schema, value),
            Value::Array(items) => self.visit_array(schema, items),
            Value::String(text) => self.check_text(schema, text),
            Value::Number(_) => self.check_number(schema, value),
            Value::Null | Value::Bool(_) => {}
        }
    }

    /// One form must fit. The violations told are those of the form that was meant: the one whose
    /// `type` property has the value's own, or the only one that is not `null`.
    fn visit_forms(&mut self, forms: &'a [Value], value: &Value) {
        let fits = |form: &&Value| self.try_form(form, value).is_empty();
        if forms.iter().any(|form| fits(&form)) {
            return;
        }
        let tag = value.get("type");
        let tagged = |form: &&Value| {
            tag.is_some() && self.schema.resolve(form).pointer("/properties/type/const") == tag
        };
        let mut kinds = forms.iter().filter(|form| form.get("type") != Some(&json!("null")));
        let meant = match (forms.iter().find(tagged), kinds.next(), kinds.next()) {
            (Some(form), _, _) | (None, Some(form), None) => Some(form),
            _ => None,
        };
        match meant {
            Some(form) => {
                let found = self.try_form(form, value);
                self.found.extend(found);
            }
            None => {
                let tags: Vec<String> = forms
                    .iter()
                    .filter_map(|form| self.schema.resolve(form).pointer("/properties/type/const"))
                    .map(ToString::to_string)
                    .collect();
                if tags.is_empty() {
                    self.fault("union_error", "Input matches none of the allowed forms");
                } else {
                    self.loc.push(json!("type"));
                    self.fault("union_tag_invalid", format!("Input should be {}", tags.join(", ")));
                    self.loc.pop();
                }
            }
        }
    }

    fn try_form(&self, form: &'a Value, value: &Value) -> Vec<Violation> {
        Schema { root: form, ..self.schema }.violations(value, &self.loc)
    }

    fn fits_type(&mut self, schema: &'a Value, value: &Value) -> bool {
        let types: Vec<&str> = match schema.get("type") {
            Some(Value::String(name)) => vec![name],
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
            _ => return true,
        };
        if types.iter().any(|name| is_of_type(value, name)) {
            return true;
        }
        let (kind, msg) = match types.iter().find(|name| **name != "null") {
            Some(&"string") => ("string_type", "Input should be a valid string"),
            Some(&"integer") => ("int_type", "Input should be a valid integer"),
            Some(&"number") => ("float_type", "Input should be a valid number"),
            Some(&"boolean") => ("bool_type", "Input should be a valid boolean"),
            Some(&"array") => ("list_type", "Input should be a valid list"),
            Some(&"object") => ("dict_type", "Input should be a valid object"),
            _ => ("none_required", "Input should be null"),
        };
        self.fault(kind, msg);
        false
    }

    fn check_listed(&mut self, schema: &'a Value, value: &Value) {
        if let Some(only) = schema.get("const").filter(|only| *only != value) {
            self.fault("literal_error", format!("Input should be {only}"));
        }
        let listed = schema.get("enum").and_then(Value::as_array).filter(|_| self.schema.enums);
        if let Some(listed) = listed.filter(|listed| !listed.contains(value)) {
            let words: Vec<String> = listed.iter().map(ToString::to_string).collect();
            self.fault("enum", format!("Input should be one of {}", words.join(", ")));
        }
    }

    fn visit_object(&mut self, schema: &'a Value, value: &Value) {
        let Value::Object(entries) = value else { return };
        for name in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
            if name.as_str().is_some_and(|name| !entries.contains_key(name)) {
                self.loc.push(name.clone());
                self.fault("missing", "Field required");
                self.loc.pop();
            }
        }
        let properties = schema.get("properties");
        let rest = schema.get("additionalProperties");
        for (name, entry) in entries {
            self.loc.push(json!(name));
            match (properties.and_then(|all| all.get(name)), rest) {
                (Some(known), _) => self.visit(known, entry),
                (None, Some(Value::Bool(false))) => {
                    self.fault("extra_forbidden", "Extra inputs are not permitted");
                }
                (None, Some(form)) => self.visit(form, entry),
                (None, None) => {}
            }
            self.loc.pop();
        }
        if schema
            .get("maxProperties")
            .and_then(Value::as_u64)
            .is_some_and(|m| above(entries.len(), m))
        {
            self.fault("too_long", "Object has too many properties");
        }
    }

    fn visit_array(&mut self, schema: &'a Value, items: &[Value]) {
        let bound = |name| schema.get(name).and_then(Value::as_u64);
        if let Some(least) = bound("minItems").filter(|least| below(items.len(), *least)) {
            self.fault("too_short", format!("List should have at least {least} items"));
        }
        if let Some(most) = bound("maxItems").filter(|most| above(items.len(), *most)) {
            self.fault("too_long", format!("List should have at most {most} items"));
            return;
        }
        let Some(form) = schema.get("items") else { return };
        for (index, item) in items.iter().enumerate() {
            self.loc.push(json!(index));
            self.visit(form, item);
            self.loc.pop();
        }
    }

    fn check_text(&mut self, schema: &'a Value, text: &str) {
        let bound = |name| schema.get(name).and_then(Value::as_u64);
        let length = text.chars().count();
        if let Some(least) = bound("minLength").filter(|least| below(length, *least)) {
            self.fault(
                "string_too_short",
                format!("String should have at least {least} characters"),
            );
        }
        if let Some(most) = bound("maxLength").filter(|most| above(length, *most)) {
            self.fault("string_too_long", format!("String should have at most {most} characters"));
        }
    }

    fn check_number(&mut self, schema: &'a Value, value: &Value) {
        let Some(number) = value.as_f64() else { return };
        let bound = |name| schema.get(name).and_then(Value::as_f64);
        if let Some(least) = bound("minimum").filter(|least| number < *least) {
            self.fault("greater_than_equal", format!("Input should be at least {least}"));
        }
        if let Some(most) = bound("maximum").filter(|most| number > *most) {
            self.fault("less_than_equal", format!("Input should be at most {most}"));
        }
        let is_int32 = schema.get("format").is_some_and(|format| format == "int32");
        if is_int32 && value.as_i64().is_none_or(|number| i32::try_from(number).is_err()) {
            self.fault("int_type", "Input should be an integer of 32 bits");
        }
        if let Some(floor) = bound("exclusiveMinimum").filter(|floor| number <= *floor) {
            self.fault("greater_than", format!("Input should be greater than {floor}"));
        }
    }
}

fn below(length: usize, least: u64) -> bool {
    u64::try_from(length).is_ok_and(|length| length < least)
}

fn above(length: usize, most: u64) -> bool {
    u64::try_from(length).is_ok_and(|length| length > most)
}

fn is_of_type(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn violations(schema: &Value, value: &Value) -> Vec<String> {
        Schema { document: schema, root: schema, enums: true }
            .violations(value, &[json!("body")])
            .into_iter()
            .map(|found| format!("{} {}", Value::from(found.loc), found.kind))
            .collect()
    }

    #[test]
    fn every_violation_is_told_with_its_place() {
        let schema = json!({
            "type": "object", "additionalProperties": false, "required": ["name", "size"],
            "properties": {
                "name": {"type": "string", "minLength": 1},
                "size": {"type": "integer", "minimum": 0, "maximum": 9},
                "tags": {"type": ["array", "null"], "items": {"type": "string"}, "maxItems": 3},
                "mode": {"type": "string", "enum": ["a", "b"]},
            }
        });
        assert!(violations(&schema, &json!({"name": "x", "size": 3, "tags": null})).is_empty());
        let bad = json!({"name": "", "tags": ["a", 1], "mode": "c", "other": 1});
        assert_eq!(
            violations(&schema, &bad),
            [
                "[\"body\",\"size\"] missing",
                "[\"body\",\"name\"] string_too_short",
                "[\"body\",\"tags\",1] string_type",
                "[\"body\",\"mode\"] enum",
                "[\"body\",\"other\"] extra_forbidden",
            ]
        );
        assert_eq!(violations(&schema, &json!([])), ["[\"body\"] dict_type"]);
        let sizes = |size: Value| violations(&schema, &json!({"name": "x", "size": size}));
        assert_eq!(sizes(json!(10)), ["[\"body\",\"size\"] less_than_equal"]);
        assert_eq!(sizes(json!(-1)), ["[\"body\",\"size\"] greater_than_equal"]);
        assert_eq!(sizes(json!(1.5)), ["[\"body\",\"size\"] int_type"]);
    }

    #[test]
    fn an_integer_of_32_bits_is_one() {
        let schema = json!({"type": "integer", "format": "int32"});
        assert!(violations(&schema, &json!(i32::MAX)).is_empty());
        assert!(violations(&schema, &json!(i32::MIN)).is_empty());
        for beyond in [json!(1_i64 << 31), json!(u64::MAX), json!(-(1_i64 << 40))] {
            assert_eq!(violations(&schema, &beyond), ["[\"body\"] int_type"], "{beyond}");
        }
    }

    #[test]
    fn of_several_forms_the_one_that_was_meant_is_told() {
        let schema = json!({"oneOf": [
            {"type": "object", "required": ["x"], "properties": {"type": {"const": "a"}, "x": {"type": "string"}}},
            {"type": "object", "required": ["y"], "properties": {"type": {"const": "b"}, "y": {"type": "string"}}},
        ]});
        assert!(violations(&schema, &json!({"type": "a", "x": ""})).is_empty());
        assert_eq!(violations(&schema, &json!({"type": "b"})), ["[\"body\",\"y\"] missing"]);
        assert_eq!(
            violations(&schema, &json!({"type": "c"})),
            ["[\"body\",\"type\"] union_tag_invalid"]
        );
    }

    #[test]
    fn no_more_violations_are_told_than_anyone_reads() {
        let schema = json!({"type": "array", "items": {"type": "string"}});
        assert_eq!(violations(&schema, &json!(vec![1; 5_000])).len(), 100);
    }

    #[test]
    fn references_are_followed_and_null_is_a_form() {
        let schema = json!({
            "oneOf": [{"type": "null"}, {"$ref": "#/defs/Part"}],
            "defs": {"Part": {"type": "object", "properties": {"n": {"type": "integer"}}}, "Loop": {"$ref": "#/defs/Loop"}},
        });
        assert!(violations(&schema, &Value::Null).is_empty());
        assert_eq!(violations(&schema, &json!({"n": ""})), ["[\"body\",\"n\"] int_type"]);
        let looped = json!({"$ref": "#/defs/Loop", "defs": {"Loop": {"$ref": "#/defs/Loop"}}});
        assert!(violations(&looped, &json!(1)).is_empty());
    }
}
