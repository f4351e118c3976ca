//! Fields with expressions in them.
//!
//! ```text
//!  "{{ input.caller_number }}"         one expression alone: keeps its type
//!  "Hello {{ n1.body.name }}!"         text around it: a string
//!  "${ Greet {{ n1.body.name }} }"     a prompt for the language model: a string
//!  "\{{ not an expression }}"          a backslash in front: the text itself
//! ```
//!
//! An expression ends at the first `}}` outside its own braces, strings and quoted names; a prompt at
//! the first `}` outside its own braces. Pure: expressions are not looked into here.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::{Map, Value};

/// A value with expressions and prompts to be filled in.
#[derive(Debug, Clone, PartialEq)]
pub enum Template {
    /// As it stands.
    Value(Value),
    /// One JSONata expression; the result keeps its type.
    Expression(Arc<str>),
    /// Text, some of which is yet to be filled in; the result is a string.
    Text(Vec<Segment>),
    /// An array of templates.
    List(Vec<Template>),
    /// An object of templates.
    Object(Vec<(String, Template)>),
}

/// A part of a text.
#[derive(Debug, Clone, PartialEq)]
pub enum Segment {
    /// As it stands.
    Text(String),
    /// A JSONata expression.
    Expression(Arc<str>),
    /// A prompt for the language model, itself text with expressions.
    Prompt(Vec<Segment>),
}

/// What a template came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Filled {
    /// The value, with nothing where an answer is missing.
    pub value: Value,
    /// The prompts, in order.
    pub prompts: Vec<String>,
}

impl Template {
    /// Reads the expressions in all strings of a value.
    ///
    /// # Errors
    /// What is wrong, with the path below the value: `.body.items[2]`.
    pub fn parse(value: &Value) -> Result<Self, (String, &'static str)> {
        match value {
            Value::String(text) => Self::parse_text(text).map_err(|why| (String::new(), why)),
            Value::Array(items) => items
                .iter()
                .enumerate()
                .map(|(index, item)| Self::parse(item).map_err(below(&format!("[{index}]"))))
                .collect::<Result<_, _>>()
                .map(Self::List),
            Value::Object(fields) => fields
                .iter()
                .map(|(name, value)| match Self::parse(value).map_err(below(&format!(".{name}"))) {
                    Ok(value) => Ok((name.clone(), value)),
                    Err(fault) => Err(fault),
                })
                .collect::<Result<_, _>>()
                .map(Self::Object),
            other => Ok(Self::Value(other.clone())),
        }
    }

    fn parse_text(text: &str) -> Result<Self, &'static str> {
        let mut segments = Scanner { rest: text }.segments(false)?;
        Ok(match segments.len() {
            0 => Self::Value(Value::String(String::new())),
            1 => match segments.pop() {
                Some(Segment::Text(text)) => Self::Value(Value::String(text)),
                Some(Segment::Expression(source)) => Self::Expression(source),
                prompt => Self::Text(prompt.into_iter().collect()),
            },
            _ => Self::Text(segments),
        })
    }

    /// Its expressions, in the order in which [`Template::fill`] takes their values.
    #[must_use]
    pub fn expressions(&self) -> Vec<Arc<str>> {
        let mut found = Vec::new();
        self.collect(&mut found);
        found
    }

    fn collect(&self, found: &mut Vec<Arc<str>>) {
        match self {
            Self::Value(_) => {}
            Self::Expression(source) => found.push(Arc::clone(source)),
            Self::Text(segments) => collect_segments(segments, found),
            Self::List(items) => items.iter().for_each(|item| item.collect(found)),
            Self::Object(fields) => fields.iter().for_each(|(_, field)| field.collect(found)),
        }
    }

    /// Whether a language model is asked for some of it.
    #[must_use]
    pub fn asks(&self) -> bool {
        match self {
            Self::Value(_) | Self::Expression(_) => false,
            Self::Text(segments) => segments.iter().any(|one| matches!(one, Segment::Prompt(_))),
            Self::List(items) => items.iter().any(Self::asks),
            Self::Object(fields) => fields.iter().any(|(_, field)| field.asks()),
        }
    }

    /// Puts in the values of its expressions and the answers to its prompts. With fewer answers than
    /// there are prompts, the prompts are what the caller is after.
    #[must_use]
    pub fn fill(&self, values: Vec<Value>, answers: Vec<String>) -> Filled {
        let (values, answers) = (values.into(), answers.into());
        let mut filling = Filling { values, answers, prompts: Vec::new() };
        let value = filling.template(self);
        Filled { value, prompts: filling.prompts }
    }
}

fn below(step: &str) -> impl FnOnce((String, &'static str)) -> (String, &'static str) + '_ {
    move |(place, why)| (format!("{step}{place}"), why)
}

fn collect_segments(segments: &[Segment], found: &mut Vec<Arc<str>>) {
    for segment in segments {
        match segment {
            Segment::Text(_) => {}
            Segment::Expression(source) => found.push(Arc::clone(source)),
            Segment::Prompt(inner) => collect_segments(inner, found),
        }
    }
}

struct Filling {
    values: VecDeque<Value>,
    answers: VecDeque<String>,
    prompts: Vec<String>,
}

impl Filling {
    fn template(&mut self, template: &Template) -> Value {
        match template {
            Template::Value(value) => value.clone(),
            Template::Expression(_) => self.values.pop_front().unwrap_or_default(),
            Template::Text(segments) => Value::String(self.text(segments)),
            Template::List(items) => items.iter().map(|item| self.template(item)).collect(),
            Template::Object(fields) => {
                let filled =
                    fields.iter().map(|(name, field)| (name.clone(), self.template(field)));
                Value::Object(filled.collect::<Map<_, _>>())
            }
        }
    }

    fn text(&mut self, segments: &[Segment]) -> String {
        let mut text = String::new();
        for segment in segments {
            match segment {
                Segment::Text(part) => text.push_str(part),
                Segment::Expression(_) => {
                    text.push_str(&shown(&self.values.pop_front().unwrap_or_default()));
                }
                Segment::Prompt(inner) => {
                    let prompt = self.text(inner);
                    self.prompts.push(prompt);
                    text.push_str(&self.answers.pop_front().unwrap_or_default());
                }
            }
        }
        text
    }
}

/// A value within text: strings without quotes, nothing for null, the rest as JSON.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Cuts a text into its segments.
struct Scanner<'a> {
    rest: &'a str,
}

impl Scanner<'_> {
    /// Up to the end of the text or, within a prompt, up to the `}` that ends it.
    fn segments(&mut self, in_prompt: bool) -> Result<Vec<Segment>, &'static str> {
        let (mut found, mut text, mut depth) = (Vec::new(), String::new(), 0_usize);
        loop {
            if let Some(literal) = ["{{", "${"].into_iter().find(|open| self.escaped(open)) {
                text.push_str(literal);
            } else if self.take("{{") {
                keep(&mut found, &mut text);
                found.push(Segment::Expression(self.expression()?));
            } else if !in_prompt && self.take("${") {
                keep(&mut found, &mut text);
                found.push(Segment::Prompt(self.segments(true)?));
            } else {
                match self.next() {
                    Some('}') if in_prompt && depth == 0 => break,
                    Some(character) => {
                        depth = match character {
                            '{' => depth + 1,
                            '}' => depth.saturating_sub(1),
                            _ => depth,
                        };
                        text.push(character);
                    }
                    None if in_prompt => return Err("has a ${ without its }"),
                    None => break,
                }
            }
        }
        keep(&mut found, &mut text);
        Ok(found)
    }

    /// The source up to the `}}` that ends it.
    fn expression(&mut self) -> Result<Arc<str>, &'static str> {
        let (whole, mut depth, mut quote) = (self.rest, 0_usize, None);
        while let Some(character) = self.next() {
            match (quote, character) {
                (Some('`'), '\\') => {}
                (Some(_), '\\') => drop(self.next()),
                (Some(open), character) if open == character => quote = None,
                (Some(_), _) => {}
                (None, '"' | '\'' | '`') => quote = Some(character),
                (None, '{') => depth += 1,
                (None, '}') if depth > 0 => depth -= 1,
                (None, '}') if self.take("}") => {
                    let length = whole.len() - self.rest.len() - "}}".len();
                    let source = whole.get(..length).unwrap_or_default().trim();
                    return if source.is_empty() {
                        Err("has an empty {{ }}")
                    } else {
                        Ok(source.into())
                    };
                }
                (None, _) => {}
            }
        }
        Err("has a {{ without its }}")
    }

    fn next(&mut self) -> Option<char> {
        let mut characters = self.rest.chars();
        let first = characters.next();
        self.rest = characters.as_str();
        first
    }

    fn take(&mut self, prefix: &str) -> bool {
        let Some(rest) = self.rest.strip_prefix(prefix) else { return false };
        self.rest = rest;
        true
    }

    fn escaped(&mut self, open: &str) -> bool {
        let rest = self.rest.strip_prefix('\\').and_then(|rest| rest.strip_prefix(open));
        let Some(rest) = rest else { return false };
        self.rest = rest;
        true
    }
}

fn keep(found: &mut Vec<Segment>, text: &mut String) {
    if !text.is_empty() {
        found.push(Segment::Text(std::mem::take(text)));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(text: &str) -> Result<Template, &'static str> {
        Template::parse(&json!(text)).map_err(|(_, why)| why)
    }

    fn filled(text: &str, values: &[Value], answers: &[&str]) -> Filled {
        let answers = answers.iter().map(|&answer| answer.to_owned()).collect();
        parse(text).unwrap().fill(values.to_vec(), answers)
    }

    #[test]
    fn one_expression_alone_keeps_its_type() {
        assert_eq!(filled("{{ a }}", &[json!({"b": 1})], &[]).value, json!({"b": 1}));
        assert_eq!(filled("{{a}}", &[Value::Null], &[]).value, Value::Null);
    }

    #[test]
    fn an_expression_within_text_gives_a_string() {
        assert_eq!(filled("n={{ a }}.", &[json!(7)], &[]).value, json!("n=7."));
        assert_eq!(filled("{{ a }} ", &[json!("x")], &[]).value, json!("x "));
        assert_eq!(filled("<{{ a }}>", &[Value::Null], &[]).value, json!("<>"));
        assert_eq!(filled("{{a}}{{b}}", &[json!([1]), json!(true)], &[]).value, json!("[1]true"));
    }

    #[test]
    fn an_expression_ends_outside_its_own_braces_and_quotes() {
        for source in [r#"{"a": {"b": 1}}"#, r#""}}" & '}}'"#, "`}}`.x", r#""\"}}" & a"#] {
            let template = parse(&format!("{{{{ {source} }}}}")).unwrap();
            assert_eq!(template, Template::Expression(source.into()));
        }
    }

    #[test]
    fn a_prompt_holds_expressions_and_is_asked_once() {
        let text = "Say: ${ Greet {{ name }}, don't use {braces} } now";
        let first = filled(text, &[json!("Ada")], &[]);
        assert_eq!(first.prompts, [" Greet Ada, don't use {braces} "]);
        let second = filled(text, &[json!("Ada")], &["Hi Ada"]);
        assert_eq!(second.value, json!("Say: Hi Ada now"));
        assert!(parse(text).unwrap().asks());
    }

    #[test]
    fn a_backslash_makes_an_opening_plain_text() {
        assert_eq!(filled(r"\{{ a }} \${ b }", &[], &[]).value, json!("{{ a }} ${ b }"));
        assert_eq!(filled(r"C:\dir {x} $5", &[], &[]).value, json!(r"C:\dir {x} $5"));
    }

    #[test]
    fn what_is_not_closed_or_empty_is_refused() {
        assert_eq!(parse("{{ a }"), Err("has a {{ without its }}"));
        assert_eq!(parse("{{ \"a }}"), Err("has a {{ without its }}"));
        assert_eq!(parse("${ a"), Err("has a ${ without its }"));
        assert_eq!(parse("{{ }}"), Err("has an empty {{ }}"));
        let nested = Template::parse(&json!({"a": [0, "{{"]}));
        assert_eq!(nested, Err((".a[1]".to_owned(), "has a {{ without its }}")));
    }

    #[test]
    fn expressions_are_listed_in_the_order_they_are_filled_in() {
        let template =
            Template::parse(&json!({"z": "{{ one }}", "a": ["${ {{ two }} }", "x{{ three }}"]}));
        let template = template.unwrap();
        let sources: Vec<_> = template.expressions().iter().map(ToString::to_string).collect();
        assert_eq!(sources, ["one", "two", "three"]);
        let filled = template.fill(vec![json!(1), json!(2), json!(3)], vec!["II".to_owned()]);
        assert_eq!(filled.value, json!({"z": 1, "a": ["II", "x3"]}));
    }
}
