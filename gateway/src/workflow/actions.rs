//! The actions that `app` steps may name.
//!
//! | action | parameters | output |
//! |---|---|---|
//! | `business_hours` | `timestamp`, `hours`, `utc_offset`, `closed_dates` | `{open, date, time, weekday}` |
//! | `split` | `key`, `choices` (each `value`, `weight`) | `{value, index}` |
//!
//! Each is a pure function of its parameters: it reads no clock, keeps no state and reaches nothing.
//! What needs the network is an `http` step.

use aws_lc_rs::digest::{SHA256, digest};
use config::workflows::Template;
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, OffsetDateTime, Time, UtcOffset};

/// One action.
trait Action: Sync {
    /// What steps call it.
    fn name(&self) -> &'static str;

    /// Its parameters; others are refused when a definition is written.
    fn parameters(&self) -> &'static [&'static str];

    /// What it makes of its parameters, an object.
    fn perform(&self, parameters: &Value) -> Result<Value, String>;
}

/// All there are.
const ACTIONS: [&dyn Action; 2] = [&BusinessHours, &Split];

fn find(name: &str) -> Option<&'static dyn Action> {
    ACTIONS.into_iter().find(|action| action.name() == name)
}

/// Performs the action with this name.
pub(crate) fn perform(name: &str, parameters: &Value) -> Result<Value, String> {
    find(name).ok_or_else(|| format!("there is no action {name}"))?.perform(parameters)
}

/// What is wrong with a step that names this action, each with the field.
pub(crate) fn faults(name: &str, parameters: &Template) -> Vec<(String, String)> {
    let Some(action) = find(name) else {
        let names: Vec<_> = ACTIONS.iter().map(|action| action.name()).collect();
        return vec![("action".to_owned(), format!("must be one of {}", names.join(", ")))];
    };
    let Template::Object(entries) = parameters else { return Vec::new() };
    let unknown = entries.iter().filter(|(name, _)| !action.parameters().contains(&name.as_str()));
    let fault = |(name, _): &(String, Template)| {
        let known = action.parameters().join(", ");
        (
            format!("parameters.{name}"),
            format!("is not a parameter of the action, which has {known}"),
        )
    };
    unknown.map(fault).collect()
}

/// Whether a moment lies within the hours of a week.
struct BusinessHours;

impl Action for BusinessHours {
    fn name(&self) -> &'static str {
        "business_hours"
    }

    fn parameters(&self) -> &'static [&'static str] {
        &["timestamp", "hours", "utc_offset", "closed_dates"]
    }

    fn perform(&self, parameters: &Value) -> Result<Value, String> {
        let text = |name: &str| parameters.get(name).and_then(Value::as_str);
        let at = text("timestamp").ok_or("timestamp is missing")?;
        let at = OffsetDateTime::parse(at, &Rfc3339)
            .map_err(|_| "timestamp must be ISO 8601 with an offset")?;
        let offset = match text("utc_offset") {
            None => UtcOffset::UTC,
            Some(offset) => {
                let format = format_description!("[offset_hour sign:mandatory]:[offset_minute]");
                UtcOffset::parse(offset, format).map_err(|_| "utc_offset must be like +01:00")?
            }
        };
        let at = at.to_offset(offset);
        let weekday = at.weekday().to_string().to_ascii_lowercase();
        let date = shown_date(at.date())?;
        let closed = parameters.get("closed_dates").and_then(Value::as_array);
        let closed = closed.is_some_and(|dates| dates.iter().any(|one| *one == json!(date)));
        let open = !closed && within(parameters, &weekday, at.time())?;
        let time = format!("{:02}:{:02}", at.hour(), at.minute());
        Ok(json!({ "open": open, "date": date, "time": time, "weekday": weekday }))
    }
}

fn shown_date(date: Date) -> Result<String, String> {
    let format = format_description!("[year]-[month]-[day]");
    date.format(format).map_err(|_| "timestamp is out of range".to_owned())
}

/// Whether the time lies in one of the day's spans, from (included) to (not included). Every span of
/// every day is read, so that a mistake shows on the first call and not on the first Sunday.
fn within(parameters: &Value, weekday: &str, at: Time) -> Result<bool, String> {
    const DAYS: [&str; 7] =
        ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
    let hours = parameters.get("hours").and_then(Value::as_object);
    let hours = hours.ok_or("hours must be an object of weekdays")?;
    let mut open = false;
    for (day, spans) in hours {
        if !DAYS.contains(&day.as_str()) {
            return Err(format!("hours.{day} is not a weekday such as monday"));
        }
        let spans = spans.as_array().ok_or_else(|| format!("hours.{day} must be a list"))?;
        for span in spans {
            let (from, to) = span
                .as_str()
                .and_then(|span| span.split_once('-'))
                .and_then(|(from, to)| minutes(from).zip(minutes(to)))
                .filter(|(from, to)| from < to)
                .ok_or_else(|| format!("hours.{day} has a span that is not like 09:00-17:30"))?;
            let now = u16::from(at.hour()) * 60 + u16::from(at.minute());
            open |= day == weekday && (from..to).contains(&now);
        }
    }
    Ok(open)
}

/// Minutes since midnight, up to and including 24:00.
fn minutes(text: &str) -> Option<u16> {
    let (hour, minute) = text.trim().split_once(':')?;
    let (hour, minute) = (hour.parse::<u16>().ok()?, minute.parse::<u16>().ok()?);
    let all = hour.checked_mul(60)?.checked_add(minute)?;
    (minute < 60 && all <= 24 * 60).then_some(all)
}

/// One of several choices, by weight; the same key always gets the same one.
struct Split;

impl Action for Split {
    fn name(&self) -> &'static str {
        "split"
    }

    fn parameters(&self) -> &'static [&'static str] {
        &["key", "choices"]
    }

    fn perform(&self, parameters: &Value) -> Result<Value, String> {
        let key = parameters.get("key").and_then(Value::as_str).ok_or("key must be a string")?;
        let choices = parameters.get("choices").and_then(Value::as_array);
        let choices = choices.ok_or("choices must be a list")?;
        let weight = |choice: &Value| match choice.get("weight") {
            None => Some(1),
            Some(weight) => weight.as_u64().filter(|weight| *weight <= 1_000_000),
        };
        let weights: Option<Vec<u64>> = choices.iter().map(weight).collect();
        let weights = weights.ok_or("a weight must be a whole number from 0 to 1000000")?;
        let total: u64 = weights.iter().sum();
        if total == 0 {
            return Err("choices must have some weight".to_owned());
        }
        let hash = digest(&SHA256, key.as_bytes());
        let point = hash.as_ref().first_chunk().copied().map_or(0, u64::from_be_bytes) % total;
        let mut end = 0;
        let index = weights.iter().position(|weight| {
            end += weight;
            point < end
        });
        let value = index.and_then(|index| choices.get(index)?.get("value"));
        Ok(json!({ "value": value, "index": index }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hours(timestamp: &str, offset: &str) -> Result<Value, String> {
        let parameters = json!({
            "timestamp": timestamp, "utc_offset": offset, "closed_dates": ["2026-12-25"],
            "hours": {"monday": ["09:00-12:00", "13:00-17:30"], "friday": ["00:00-24:00"]},
        });
        perform("business_hours", &parameters)
    }

    #[test]
    fn hours_are_those_of_the_place() {
        let open = |at: &str, offset: &str| hours(at, offset).unwrap()["open"] == json!(true);
        assert!(open("2026-11-23T09:00:00Z", "+00:00"));
        assert!(!open("2026-11-23T12:00:00Z", "+00:00"));
        assert!(open("2026-11-23T12:00:00Z", "+01:00"));
        assert!(!open("2026-11-23T17:30:00Z", "+00:00"));
        assert!(open("2026-11-23T16:59:59-00:30", "+00:00"));
        assert!(open("2026-11-27T23:59:59Z", "+00:00"));
        assert!(!open("2026-12-25T10:00:00Z", "+00:00"), "a closed date, though a Friday");
        let answer = hours("2026-11-22T23:30:00Z", "+02:00").unwrap();
        let expected =
            json!({"open": false, "date": "2026-11-23", "time": "01:30", "weekday": "monday"});
        assert_eq!(answer, expected);
    }

    #[test]
    fn hours_that_cannot_be_read_say_which() {
        let with = |hours: Value| {
            let parameters = json!({"timestamp": "2026-11-23T09:00:00Z", "hours": hours});
            perform("business_hours", &parameters).unwrap_err()
        };
        assert!(with(json!({"mon": []})).starts_with("hours.mon is not"));
        assert!(with(json!({"sunday": ["9-17"]})).starts_with("hours.sunday has a span"));
        assert!(with(json!({"sunday": ["17:00-09:00"]})).starts_with("hours.sunday has a span"));
        assert!(hours("yesterday", "+00:00").is_err());
        assert!(hours("2026-11-23T09:00:00Z", "CET").is_err());
    }

    #[test]
    fn a_split_is_by_weight_and_the_same_for_the_same_key() {
        let split = |key: u32| {
            let choices = json!([{"value": "a", "weight": 90}, {"value": "b", "weight": 10}]);
            let parameters = json!({"key": format!("+1555{key:07}"), "choices": choices});
            perform("split", &parameters).unwrap()["value"].clone()
        };
        let to_a = (0..1_000).filter(|key| split(*key) == json!("a")).count();
        assert!((850..950).contains(&to_a), "{to_a} of 1000");
        assert!((0..100).all(|key| split(key) == split(key)));
        let none = json!({"key": "x", "choices": [{"value": 1, "weight": 0}]});
        assert!(perform("split", &none).is_err());
    }

    #[test]
    fn unknown_actions_and_parameters_are_faults() {
        let parameters = Template::parse(&json!({"key": "x", "colour": 1})).unwrap();
        assert_eq!(faults("send_fax", &parameters)[0].0, "action");
        assert_eq!(faults("split", &parameters)[0].0, "parameters.colour");
        assert!(perform("send_fax", &json!({})).is_err());
    }
}
